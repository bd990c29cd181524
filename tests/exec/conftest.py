"""Whole jobs of real processes, seen and treated from outside: by their run folder, their processes and their operator."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from core.journal import Record, read
from core.messages import CallFailed
from core.reports import Overview, RoleRow
from exec.cli import main
from exec.jobfile import JobFile
from exec.operating import operator
from exec.processes import ENDED, activity

EXECCTL = [sys.executable, "-P", "-c", "from exec.cli import main; main()"]

SCENARIO = """
schema = 1
seed = 5
[model]
network = "mlp"
layers = [64, 32, 10]
[data]
source = "digits"
[protocol]
kind = "downpour"
replicas = 2
shards = 1
batch = 16
rule = { kind = "adagrad", learning_rate = 0.05 }
detect_within = "1 s"
snapshot_every = "0.5 s"
evaluate_every = "0.5 s"
stop = { updates = 400 }
"""

ENDLESS = "protocol.stop.updates=1_000_000"


def execctl(*arguments: object) -> Result:
    """One command that starts no process, to its end; here, as it would take seconds to load what is loaded."""
    said = CliRunner().invoke(main, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    if said.exception is not None and not isinstance(said.exception, SystemExit):
        raise said.exception
    return said


class Job:
    """One run folder, and what can be seen of it and done to it."""

    def __init__(self, folder: Path, *overrides: str, extra: str = "", scenario: str = SCENARIO) -> None:
        """`extra`: tables that are added to the scenario."""
        self.file, self.path = folder / "job.toml", folder / "run"
        self.file.write_text(scenario + extra)
        self.sets = [part for override in overrides for part in ("--set", override)]
        self.launcher: subprocess.Popen[str] | None = None
        self.nurseries: set[int] = set()

    # commands

    def begin(self, *arguments: object) -> Job:
        """`execctl launch`, or another command that carries the job out, in the background."""
        command = arguments or ("launch", self.file, "--out", self.path, *self.sets)
        self.launcher = subprocess.Popen(
            [*EXECCTL, *map(str, command), "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        return self

    def end(self, within_s: float = 150.0) -> tuple[int, dict[str, Any], str]:
        """Wait for it: exit code, summary ({} if none) and what it said on standard error."""
        assert self.launcher is not None
        said, complaints = self.launcher.communicate(timeout=within_s)
        return self.launcher.returncode, json.loads(said) if said else {}, complaints

    # what can be seen

    def until(self, condition: Callable[[], Any], within_s: float = 90.0) -> Any:
        """Poll until it holds, and return what it says; the job's journals are told if it never does."""
        deadline = time.monotonic() + within_s
        while not (found := condition()):
            if time.monotonic() > deadline:
                last = "".join(record.line() for record in self.records(quiet=True)[-25:])
                raise AssertionError(f"not within {within_s:g} s; the job's last lines:\n{last}\n{self.said()}")
            time.sleep(0.01)
        return found

    def said(self) -> str:
        """What the launcher said, if it has ended."""
        if self.launcher is None or self.launcher.poll() is None:
            return "(the launcher runs)"
        return f"(the launcher ended with exit code {self.launcher.returncode})"

    @property
    def file_of_job(self) -> JobFile:
        return JobFile.of(self.path)

    def now(self) -> float:
        """The job's time."""
        return time.time() - self.file_of_job.launched_at  # noqa: TID251

    def records(self, event: str = "", node: str = "", *, quiet: bool = False) -> list[Record]:
        """Of every life's journal so far, in the order of time.  `quiet`: without those of every step."""
        found: list[Record] = []
        for path in (self.path / "journals").glob("*.tsv"):
            if not node or path.name.startswith(f"{node.replace('/', '-')}."):
                with path.open(encoding="utf-8") as lines:
                    found += read(lines)
        steps = ("computed", "pushed", "applied", "acknowledged", "counted") if quiet else ()
        return sorted(r for r in found if event in ("", r.event) and r.event not in steps)

    def updates(self, shard: str = "shard/0") -> int:
        """Pushes that were ever applied there, of all its lives together."""
        return len(self.records("applied", shard))

    def overview(self) -> Overview | None:
        """The supervisor's answer, if it gives one."""

        async def ask() -> Overview:
            async with operator(self.file_of_job, deadline_s=1.0) as asking:
                return await asking.inquire()

        try:
            return asyncio.run(ask())
        except CallFailed:
            return None

    def role(self, name: str) -> RoleRow | None:
        """What the supervisor knows of a role, if it answers."""
        overview = self.overview()
        return next((row for row in overview.roles if row.name == name), None) if overview else None

    # processes

    def pid(self, who: str) -> int:
        """Of a role, "supervisor", "agent/0", "nursery/0" (that agent's) or "launcher"; 0 if there is none."""
        kind, _, number = who.partition("/")
        if kind == "launcher":
            return self.launcher.pid if self.launcher else 0
        if kind == "agent":
            return next((pid for pid, title in self.processes().items() if f"agent={number} " in title), 0)
        if kind == "nursery":
            pid = next((pid for pid in children(self.pid(f"agent/{number}")) if "exec.nursery" in title_of(pid)), 0)
            self.nurseries |= {pid} - {0}
            return pid
        try:
            pid = int((self.path / "pids" / who.replace("/", "-")).read_text())
        except (FileNotFoundError, ValueError):
            return 0
        return pid if self.id in title_of(pid) else 0

    def signal(self, who: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to it once it is there; its process."""
        pid: int = self.until(lambda: self.pid(who))
        os.kill(pid, number)
        return pid

    @property
    def id(self) -> str:
        return f"job={self.file_of_job.job[:8]}"

    def processes(self) -> dict[int, str]:
        """Everything that runs with this job's identity in its title."""
        found = {int(path.name): title_of(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdigit()}
        return {pid: title for pid, title in found.items() if self.id in title}

    def left(self) -> dict[int, str]:
        """Whoever is still there of this job."""
        return self.processes() | {pid: "nursery" for pid in self.nurseries if activity(pid)[0] not in ENDED}

    def clear(self) -> None:
        """Whatever a failed test has left."""
        if self.launcher is not None:
            self.launcher.kill()
            with self.launcher:  # closes what it wrote to
                pass
        if (self.path / "job.json").exists():
            for pid in self.processes():
                os.kill(pid, signal.SIGKILL)


def title_of(pid: int) -> str:
    """The command line of a process, which a role sets; "" if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def children(pid: int) -> list[int]:
    """Of a process."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()] if pid else []
    except OSError:
        return []


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    """Makes jobs, each in a folder of its own, and leaves none of their processes behind."""
    made: list[Job] = []

    def make(*overrides: str, extra: str = "", scenario: str = SCENARIO) -> Job:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Job(folder, *overrides, extra=extra, scenario=scenario))
        return made[-1]

    yield make
    for one in made:
        one.clear()
