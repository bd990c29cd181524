"""Whole jobs, started by `execctl launch` in a process of its own and watched from outside, as a person would."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from core.journal import Record, read
from report.folder import RunFolder

SCENARIO = """
schema = 1
seed = 5
[model]
network = "mlp"
layers = [64, 64, 10]
[protocol]
kind = "downpour"
replicas = 2
shards = 2
batch = 16
rule = { kind = "adagrad", learning_rate = 0.05 }
detect_within = "1 s"
evaluate_every = "1 s"
snapshot_every = "2 s"
stop = { updates = 1500 }
"""


async def until(condition: Callable[[], Any], within_s: float, what: str) -> Any:
    """What the condition gives once it gives something; fails if that takes too long."""
    value = None
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while not (value := condition()):
                await asyncio.sleep(0.05)
    assert value, f"not within {within_s:g} s: {what}"
    return value


class Job:
    """One `execctl launch`; nothing of it is left when the block is."""

    def __init__(self, folder: Path, placement: str = "", *overrides: str, through: tuple[str, ...] = ()) -> None:
        """`placement`: more of the scenario; `through`: a command that leads to where the launcher runs."""
        self.file = folder / "job.toml"
        self.file.write_text(SCENARIO + placement)
        self.run, self.overrides, self.through = folder / "run", overrides, through
        self.said = ""

    async def __aenter__(self) -> Self:
        asked = [word for override in self.overrides for word in ("--set", override)]
        command = [
            *self.through, sys.executable, "-P", "-c", "from exec.cli import main; main()", "launch", str(self.file), "--json",
            "--out", str(self.run), *asked,
        ]  # fmt: skip
        self.launcher = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.launcher.returncode is None:
            self.launcher.send_signal(signal.SIGINT)
            self.launcher.send_signal(signal.SIGINT)
            await self.launcher.communicate()
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def end(self, within_s: float = 90.0) -> dict[str, Any]:
        """The summary of a job that ended by itself; what it said instead stays in `said`."""
        async with asyncio.timeout(within_s):
            out, err = await self.launcher.communicate()
        self.said = err.decode()
        return json.loads(out) if out else {}

    def records(self) -> Iterator[Record]:
        """Of all journals, each in its own order."""
        for path in sorted((self.run / RunFolder.JOURNALS).glob("*.tsv")):
            with path.open() as lines:
                yield from read(lines)

    def happened(self, event: str, peer: str = "", after_s: float = 0.0) -> list[Record]:
        return [one for one in self.records() if one.event == event and peer in ("", one.peer) and one.time_s > after_s]

    def updates(self, after_s: float = 0.0) -> int:
        """Pushes that shards have applied since then."""
        return len(self.happened("applied", after_s=after_s))

    def home(self, role: str) -> str:
        """Where a role lives, or lived last: machine/2."""
        granted = self.happened("granted", role)
        return max(granted).note if granted else ""

    def processes(self, title: str = "") -> list[int]:
        """Everything of this job that runs on this host, by the title it gives itself."""
        try:
            job = json.loads((self.run / "job.json").read_text())["job"][:8]
        except OSError:
            return []
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                command = path.read_text()
                if f"job={job}" in command and title in command:
                    found.append(int(path.parent.name))
        return found


def check(job: Job, summary: dict[str, Any], updates: int = 1500) -> None:
    """It came to a good end, and nothing of it is left."""
    assert summary["status"] == "done", job.said
    assert summary["updates"] >= updates
    assert summary["accuracy"] > 0.9
    assert Path(summary["model"]).stat().st_size > 0
    assert job.processes() == []
