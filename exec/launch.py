"""A job on this machine: starts a process for each role, watches them, brings the job to its end, and sums it up.

A replica that dies does not stop the others.  An evaluator that dies is started again, since it keeps nothing.  A shard
that dies ends the job, with what the evaluator last saw saved: its parameters lived in its memory.
"""

from __future__ import annotations

import asyncio
import signal
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from core.job import EVALUATOR
from core.journal import Journal, Record, one_line, read
from exec.codec import Identity
from exec.control import Launcher
from exec.processes import PATIENCE_S, Process, start
from exec.role import Errand
from exec.wire import control_pb2 as wire
from report.exits import Exit, StartError
from report.folder import RunFolder
from report.summary import summarise
from report.tally import Tally
from scenarios.load import role_names
from scenarios.plan import not_honoured
from scenarios.schema import Scenario

EVALUATOR_LIVES = 3


@dataclass(slots=True)
class Seen:
    """What the launcher knows of a role."""

    state: str = "starting"
    incarnation: int = 1
    status: wire.Status = field(default_factory=wire.Status)


class Launch:
    """One job, from its first process to its last."""

    def __init__(self, scenario: Scenario, file: str, overrides: tuple[str, ...], folder: RunFolder, device: str) -> None:
        self.scenario, self.file, self.overrides, self.folder, self.device = scenario, file, overrides, folder, device
        self.job = uuid.uuid4().hex
        self.seen: dict[str, Seen] = {name: Seen() for name in role_names(scenario.protocol)}
        self.processes: dict[str, Process] = {}
        self.addresses: dict[str, str] = {}
        self._began = time.monotonic()
        self.failed = ""
        self.wrong_input = ""
        self.interrupted = False
        self.deaths: list[dict[str, Any]] = []
        self._began_at: float | None = None
        self._changed = asyncio.Condition()
        self._launcher = Launcher(self.job, self.reported)
        self._watching: dict[str, asyncio.Task[None]] = {}
        (folder.path / folder.JOURNALS).mkdir(exist_ok=True)
        (folder.path / "logs").mkdir(exist_ok=True)
        self._file = (folder.path / folder.JOURNALS / "launcher.tsv").open("wb")
        self._write = Journal(self._file, prompt=True).recorder("cluster", 0, lambda: self._stamp_s)
        self._early: list[tuple[float, tuple[Any, ...]]] | None = []
        self._stamp_s = 0.0
        self._over = False

    def elapsed(self) -> float:
        """Seconds since everybody was there; before that, since the launch."""
        return time.monotonic() - self._began

    def _record(self, event: str, peer: str = "", number: int = 0, note: str = "") -> None:
        """Into the launcher's journal.  Time 0 is when everybody is there, so what comes before waits for it."""
        if self._early is not None:
            self._early.append((time.monotonic(), (event, peer, number, 0.0, note)))
            return
        self._stamp_s = self.elapsed()
        self._write(event, peer, number, 0.0, note)

    def _record_early(self) -> None:
        """Write down what happened before time 0, at negative times; at the end of a job that had none, as it came."""
        early, self._early = self._early or [], None
        for at, columns in early:
            self._stamp_s = at - self._began
            self._write(*columns)

    # what happens to roles

    def reported(self, role: str, incarnation: int, report: wire.Report) -> None:
        """A process says something; only its present life is listened to."""
        seen = self.seen.get(role)
        if seen is None or seen.incarnation != incarnation:
            return
        match report.WhichOneof("what"):
            case "hello":
                seen.state = "ready"
                if report.hello.address:
                    self.addresses[role] = report.hello.address
                if self._began_at is not None:
                    self.instruct_begin(role)  # a later life than the others'
            case "status":
                seen.status = report.status
            case "ended":
                seen.state = "ended"
                if report.ended.exit == Exit.WRONG_INPUT:
                    self.wrong_input = self.wrong_input or report.ended.reason
                elif report.ended.exit:
                    self.fail(report.ended.reason)
        self.notify()

    async def begin_life(self, role: str) -> None:
        incarnation = self.seen[role].incarnation
        own = Identity(self.job, role, incarnation)
        errand = Errand(self.file, self.overrides, self.folder.path, self._launcher.address, own, self.device)
        process = self.processes[role] = await start(errand)
        self._record("started", role, incarnation, note=f"process {process.child.pid}")
        self._watching[role] = asyncio.create_task(self.watch(process))

    async def watch(self, process: Process) -> None:
        """Wait for the end of a process, and decide what it means."""
        await process.child.wait()
        role, seen = process.role, self.seen[process.role]
        try:
            if process.child.returncode == 0 or seen.state == "ended" or self._over:
                seen.state = "ended"
                self._record("ended", role, process.incarnation, note="done" if not process.child.returncode else one_line(process.fate()))
            else:
                starting = seen.state == "starting"
                seen.state = "dead"
                self._record("crashed", role, process.incarnation, note=one_line(process.fate()))
                await self.died(process, starting=starting)
        finally:
            self.notify()

    async def died(self, process: Process, *, starting: bool) -> None:
        role, seen = process.role, self.seen[process.role]
        if self.ending:
            return
        self.deaths.append({"kind": "crash", "target": role, "at_s": round(self.elapsed(), 3), "bit": {"process": process.fate()}})
        if starting and self._began_at is None:
            raise StartError(f"{role} did not start: it {process.fate()}; its output is in {process.log}")
        if role == EVALUATOR and seen.incarnation < EVALUATOR_LIVES:
            seen.state, seen.incarnation = "starting", seen.incarnation + 1
            await self.begin_life(role)
        elif not role.startswith("replica/"):
            self.fail(f"{role} {process.fate()}; " + ("its parameters are lost" if role.startswith("shard/") else "again and again"))

    def fail(self, reason: str) -> None:
        self.failed = self.failed or reason
        self._record("failed", note=one_line(reason))
        self.notify()

    def notify(self) -> None:
        async def wake() -> None:
            async with self._changed:
                self._changed.notify_all()

        self._waking = asyncio.ensure_future(wake())

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until it holds; raises what a watcher raised."""
        async with self._changed:
            while not condition():
                for task in self._watching.values():
                    if task.done():
                        task.result()
                await self._changed.wait()

    # the job

    @property
    def ending(self) -> bool:
        return bool(self.failed or self.wrong_input or self.interrupted)

    def living(self, kind: str) -> list[str]:
        return [role for role, seen in self.seen.items() if role.startswith(kind) and seen.state in ("starting", "ready")]

    async def run(self) -> None:
        """The whole job.  Raises StartError."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self.interrupt)
        loop.add_signal_handler(signal.SIGTERM, self.interrupt)
        try:
            await self._launcher.start(self.scenario.exec.port)
            for role in self.seen:
                await self.begin_life(role)
            if await self.everybody_is_there():
                await self.until(lambda: self.ending or not self.living(EVALUATOR) or not self.living("replica/"))
                await self.conclude()
        finally:
            await self.end_all()
            loop.remove_signal_handler(signal.SIGINT)
            loop.remove_signal_handler(signal.SIGTERM)
            self._file.close()

    def interrupt(self) -> None:
        """Ctrl-C: once to come to an end, twice to end now."""
        if self.interrupted:
            for process in self.processes.values():
                if process.child.returncode is None:
                    process.child.kill()
        self.interrupted = True
        self.notify()

    async def everybody_is_there(self) -> bool:
        """Wait for every role's first word, then tell all where the others are.  Raises StartError."""
        limit_s = self.scenario.exec.start_within
        try:
            async with asyncio.timeout(limit_s):
                await self.until(lambda: self.ending or not any(seen.state == "starting" for seen in self.seen.values()))
        except TimeoutError:
            missing = ", ".join(role for role, seen in self.seen.items() if seen.state == "starting")
            raise StartError(
                f"not there after {limit_s:g} s: {missing}; look into {self.folder.path / 'logs'}, or raise exec.start_within"
            ) from None
        if self.ending:
            return False
        self._began, self._began_at = time.monotonic(), time.time()  # noqa: TID251  the only clock that processes share
        self._record_early()
        for role in self.seen:
            self.instruct_begin(role)
        return True

    def instruct_begin(self, role: str) -> None:
        self._launcher.instruct(role, wire.Instruction(begin=wire.Begin(addresses=self.addresses, began_at=self._began_at)))

    async def conclude(self) -> None:
        """The evaluator has the last word, unless it has had it."""
        replicas = [seen.state for role, seen in self.seen.items() if role.startswith("replica/")]
        if not self.ending and all(state == "dead" for state in replicas):  # one that ended has seen every shard finish
            self.fail("no replica is left")
        if self.ending:
            self._launcher.instruct(EVALUATOR, wire.Instruction(conclude=wire.Conclude()))
        if EVALUATOR in self.processes:
            limit_s = 2 * self.scenario.protocol.deadline + 10 if self.ending else None
            try:
                async with asyncio.timeout(limit_s):
                    await self.until(lambda: not self.living(EVALUATOR))
            except TimeoutError:
                self.fail(f"the evaluator did not come to its end in {limit_s:g} s")

    async def end_all(self) -> None:
        """Nobody stays behind: shards are asked to conclude, so that they write down their counts; the rest is ended."""
        self._over = True
        ending = list(self.processes.values())
        for role in self.living("shard/"):
            self._launcher.instruct(role, wire.Instruction(conclude=wire.Conclude()))
        await asyncio.gather(*(p.gone(PATIENCE_S) if p.role.startswith("shard/") else p.end() for p in ending))
        await asyncio.gather(*self._watching.values(), return_exceptions=True)
        await self._launcher.stop()
        self._record_early()

    # afterwards

    def summary(self, wall_seconds: float) -> tuple[dict[str, Any], Tally]:
        """Merge the journals, and sum them up."""
        records = merge(self.folder)
        tally = Tally()
        tally.read(records)
        counted = [r for r in records if r.event == "counted" and r.node.startswith("shard/") and r.note in ("sent", "received")]
        status: dict[str, Any] = {}
        if self.interrupted:
            status = {"status": "interrupted", "reason": "Ctrl-C"}
        elif self.failed or self.wrong_input:
            status = {"status": "failed", "reason": self.failed or self.wrong_input}
        model = self.folder.model
        return summarise(
            self.scenario, "exec", tally, **status,
            numerics="real",
            seconds=tally.finished_at() if not status else max((r.time_s for r in records), default=0.0),
            wall_seconds=round(wall_seconds, 3),
            messages=sum(record.number for record in counted),
            bytes=int(sum(record.value for record in counted)),
            faults=self.deaths,
            notes=[*not_honoured(self.scenario, "exec"), f"device: {self.device}"],
            model=str(model) if model.exists() else None,
        ), tally  # fmt: skip


def merge(folder: RunFolder) -> list[Record]:
    """Every life's journal as one, in the order of time, written to journal.tsv."""
    records: list[Record] = []
    for path in sorted((folder.path / folder.JOURNALS).glob("*.tsv")):
        with path.open(encoding="utf-8") as lines:
            records += read(lines)
    records.sort(key=lambda record: record.time_s)
    with folder.journal.open("w", encoding="utf-8") as file:
        file.writelines(record.line() for record in records)
    return records
