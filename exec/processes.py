"""An agent's hands: processes of this machine, from its nursery, with their logs and last words."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.job import role_kind, shard_of
from core.node import Recorder
from core.reports import Process
from exec.handshakes import ENVIRONMENT
from exec.jobfile import Charge
from report.exits import Exit

PATIENCE_S = 3.0
"""Between asking a process to end and killing it."""

OUTCOMES: dict[int, str] = {Exit.DONE: "ended", Exit.WRONG_INPUT: "wrong", Exit.FAILED: "failed", Exit.NOT_WRITTEN: "failed"}


def file_name(process: Process) -> str:
    """As files about it are called: shard-0.2."""
    return f"{process.name.replace('/', '-')}.{process.life}"


def pid_file(folder: Path, role: str) -> Path:
    """Where an operator finds the process of a role."""
    return folder / "pids" / role.replace("/", "-")


def process_here(folder: Path, role: str, job: str) -> int:
    """The process of that role of that job, if it is there on this host, working or stopped; else 0."""
    try:
        pid = int(pid_file(folder, role).read_text())
        title = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except (OSError, ValueError):
        return 0
    return pid if f" role={role} " in title and f" job={job[:8]}" in title else 0


@dataclass(slots=True, eq=False)
class Child:
    """A process that was begun, and the future of its end: wait status."""

    process: Process
    log: Path
    ended: asyncio.Future[int]
    pid: int = 0
    ticks: int = 0
    """Of processor time that it had used at the last look."""
    killed: bool = False
    """It is not wanted any more; nothing of its role begins here before it is gone."""

    def last_words(self) -> str:
        """The last line it wrote, "" if none."""
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return lines[-1] if lines else ""

    def fate(self, status: int) -> str:
        """How it ended, in words."""
        code = os.waitstatus_to_exitcode(status)
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        words = self.last_words()
        return f"{how}: {words}" if words else how


BUSY = ("R", "D")
"""States of a process that is short of a processor, or waits for a disk: proc(5)."""


def activity(pid: int) -> tuple[str, int]:
    """State, and processor time that all threads of a process have used, as Linux tells; ("", 0) where nobody does."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", 0
    return fields[0], int(fields[11]) + int(fields[12])  # utime and stime


async def gone(pids: Iterable[int], patience_s: float) -> None:
    """Wait until processes that are not our children have ended; those that take too long are killed."""
    left, loop = [pid for pid in pids if activity(pid)[0] not in ENDED], asyncio.get_running_loop()
    until = loop.time() + patience_s
    while left:
        if loop.time() > until:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.02)
        left = [pid for pid in left if activity(pid)[0] not in ENDED]


ENDED = ("", "Z", "X")


class Processes:
    """`core.agent.Hands` for real."""

    def __init__(self, charge: Charge, folder: Path, record: Recorder, ended: Callable[[Process, str, str], None]) -> None:
        """`ended`: hears of the end of every process, with outcome and words as `core.reports.End`."""
        self.charge, self.folder, self.record, self.ended = charge, folder, record, ended
        self.children: dict[Process, Child] = {}
        self.holds: dict[str, asyncio.Future[None]] = {}
        """Of roles that a declared fault keeps from starting, until that future is done."""
        self._felled: dict[Process, str] = {}
        self._starting: set[asyncio.Task[None]] = set()
        self._nursery: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None
        for name in ("logs", "journals", "pids", "store"):
            (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    # core.agent.Hands

    def start(self, process: Process) -> None:
        task = asyncio.ensure_future(self._start(process))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    def kill(self, process: Process) -> None:
        if process in self.children:
            self.children[process].killed = True
        self.signal(process, signal.SIGKILL)

    def lively(self) -> tuple[Process, ...]:
        lively = []
        for process, child in self.children.items():
            before = child.ticks
            state, child.ticks = activity(child.pid)
            if child.ticks > before or state in BUSY:
                lively.append(process)
        return tuple(lively)

    def held(self, process: Process) -> bool:
        hold = self.holds.get(process.name)
        return process not in self.children and hold is not None and not hold.done()

    # exec.chaos.Victims

    def roles(self) -> dict[Process, str]:
        return {process: self.role(child) for process, child in self.children.items() if child.pid}

    def send(self, process: Process, number: int) -> None:
        child = self.children.get(process)
        if child is not None and child.pid:
            os.kill(child.pid, number)  # no pid is given again in the moment before we hear of its end

    def fell(self, process: Process, why: str, hold: asyncio.Future[None]) -> None:
        self.holds[self.role(self.children[process])], self._felled[process] = hold, why
        self.send(process, signal.SIGKILL)

    # how

    def role(self, child: Child) -> str:
        """What it is by now: a mirror that lives on as the shard has said so where that is looked for (`exec/role.py`)."""
        name = child.process.name
        return shard_of(name) if role_kind(name) == "mirror" and self.said_pid(shard_of(name)) == child.pid else name

    def said_pid(self, role: str) -> int:
        """Of that role, by its file; 0 if there is none."""
        try:
            return int(pid_file(self.folder, role).read_text())
        except (OSError, ValueError):
            return 0

    def signal(self, process: Process, number: int) -> None:
        """Send a signal to one that runs."""
        child = self.children.get(process)
        if child is not None and not child.ended.done():
            self._tell(key=file_name(process), signal=int(number))

    async def _start(self, process: Process) -> None:
        if (hold := self.holds.get(process.name)) is not None:
            await asyncio.wait([hold])
        earlier = [
            child.ended for child in self.children.values() if child.killed and process.name in (child.process.name, self.role(child))
        ]
        if earlier:
            await asyncio.wait(earlier)
        nursery = await self.nursery()
        child = Child(process, self.folder / "logs" / f"{file_name(process)}.log", asyncio.get_running_loop().create_future())
        self.children[process] = child
        errand = json.dumps({"charge": self.charge.to_json(), "folder": str(self.folder), "name": process.name, "life": process.life})
        self._tell(key=file_name(process), charge=errand, log=str(child.log))
        assert nursery.stdin is not None
        await nursery.stdin.drain()

    def _tell(self, **what: Any) -> None:
        assert self._nursery is not None
        assert self._nursery.stdin is not None
        self._nursery.stdin.write(json.dumps(what).encode() + b"\n")

    async def clear(self) -> None:
        """What an earlier agent of this machine left is gone before anything begins: they end with it, but not at once."""
        await gone(self.left_behind(), PATIENCE_S)

    def left_behind(self) -> list[int]:
        """Processes of this job that somebody before us began here: machines that share the run folder share the pids in it."""
        left = []
        for path in (self.folder / "pids").iterdir():
            with contextlib.suppress(ValueError, OSError):
                pid = int(path.read_text())
                if f" machine={self.charge.number} job={self.charge.job.job[:8]}" in Path(f"/proc/{pid}/cmdline").read_text():
                    left.append(pid)
        return left

    async def nursery(self) -> asyncio.subprocess.Process:
        """The nursery, begun anew if it has died; what it forked is dead then too."""
        if self._nursery is None or self._nursery.returncode is not None:
            # -P: the user's own folder may hold a `models/` too; it must not hide ours.
            command = [sys.executable, "-P", "-m", "exec.nursery", str(os.getpid())]
            verbosity = ENVIRONMENT if self.charge.credentials is not None else {"GRPC_VERBOSITY": "NONE"}
            environment = os.environ | verbosity | {"PYTHONUNBUFFERED": "1", "OPENBLAS_NUM_THREADS": "1"}
            with (self.folder / "logs" / "nursery.log").open("ab") as log:
                self._nursery = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=log,
                    env=environment,
                    start_new_session=True,
                )
            self._listening = asyncio.create_task(self._listen(self._nursery))
        return self._nursery

    async def _listen(self, nursery: asyncio.subprocess.Process) -> None:
        """What the nursery says, to its end."""
        assert nursery.stdout is not None
        async for line in nursery.stdout:
            said = json.loads(line)
            by_name = {file_name(process): process for process in self.children}
            child = self.children.get(by_name.get(said["key"], Process("", 0)))
            if child is None:
                continue
            if "pid" in said:
                child.pid = said["pid"]
                pid_file(self.folder, child.process.name).write_text(f"{child.pid}\n")
                self.record("started", child.process.name, child.process.life, note=f"process {child.pid}")
            else:
                self._ended(child, said["status"])
        await nursery.wait()
        await gone([child.pid for child in self.children.values() if child.pid], PATIENCE_S)  # they end with it
        for child in list(self.children.values()):
            self._ended(child, signal.SIGKILL)

    def _ended(self, child: Child, status: int) -> None:
        self.children.pop(child.process, None)
        child.ended.set_result(status)
        self.forget(child)
        code = os.waitstatus_to_exitcode(status)
        outcome, how = OUTCOMES.get(code, "crashed"), child.fate(status)
        if why := self._felled.pop(child.process, ""):
            outcome, how = "fault", why
        self.record("ended" if outcome == "ended" else "crashed", child.process.name, child.process.life, note=how[:300])
        self.ended(child.process, outcome, child.last_words() or how if outcome in ("failed", "wrong") else how)

    def forget(self, child: Child) -> None:
        """Nobody finds it any more, as what it was begun or as the shard that a mirror has become."""
        for role in {self.role(child), child.process.name}:
            if self.said_pid(role) == child.pid:
                pid_file(self.folder, role).unlink(missing_ok=True)

    async def end_all(self) -> None:
        """Ask everything to end, then make it."""
        for task in list(self._starting):
            task.cancel()
        for process in list(self.children):
            self.signal(process, signal.SIGTERM)
        await self._gone(PATIENCE_S)
        for process in list(self.children):
            self.signal(process, signal.SIGKILL)
        await self._gone(PATIENCE_S)
        if self._nursery is not None and self._nursery.returncode is None:
            assert self._nursery.stdin is not None
            self._nursery.stdin.close()
            await self._nursery.wait()
        if self._listening is not None:
            await self._listening

    async def _gone(self, patience_s: float) -> None:
        left = [child.ended for child in self.children.values()]
        if left:
            await asyncio.wait(left, timeout=patience_s)
