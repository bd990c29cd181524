"""An agent: one for each machine.  It tells the supervisor what runs there, and sees to it that what should run does."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from core.job import SUPERVISOR
from core.node import Node
from core.reports import Capacity, End, Orders, Process, Report
from core.timings import Timings


class Hands(Protocol):
    """What an agent can do on its machine.  Whatever it starts ends with it."""

    def start(self, process: Process) -> None:
        """Begin it, after what is left of the same role's earlier lives here is gone; `Agent.ended` hears of its end."""

    def kill(self, process: Process) -> None:
        """End it now, also if it is stopped."""

    def lively(self) -> tuple[Process, ...]:
        """Those that have used a processor since this was last asked."""

    def held(self, process: Process) -> bool:
        """Does a declared fault keep it from starting?"""


class Agent:
    """One life of an agent."""

    def __init__(self, node: Node, hands: Hands, *, boot: int, host: str, capacity: Capacity, timings: Timings) -> None:
        self.node, self.hands, self.boot, self.host, self.capacity, self.timings = node, hands, boot, host, capacity, timings
        self.processes: dict[Process, End | None] = {}
        """Everything that should run here or did, until the supervisor knows of its end."""
        self.heard_s = node.now()
        self.concluded = False
        self._version = 0
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._reporting: asyncio.TimerHandle | None = None

    async def run(self) -> str:
        """Report once a beat, and at once when something ended; why it came to its end: "" if the job is over."""
        self._report_again()
        try:
            return await self._over
        finally:
            if self._reporting is not None:
                self._reporting.cancel()

    def _report_again(self) -> None:
        self.report()
        self._reporting = asyncio.get_running_loop().call_later(self.timings.beat_s, self._report_again)
        if self.node.now() - self.heard_s > self.timings.orphan_s:
            self.end(f"nothing was heard of the supervisor for {self.timings.orphan_s:g} s")

    def end(self, why: str) -> None:
        if not self._over.done():
            self._over.set_result(why)

    def report(self) -> None:
        running = [process for process, end in self.processes.items() if end is None]
        report = Report(
            self.boot, self.host, self.capacity,
            running=tuple(running),
            lively=self.hands.lively(),
            held=tuple(process for process in running if self.hands.held(process)),
            ended=tuple(end for end in self.processes.values() if end is not None),
        )  # fmt: skip
        self.node.call(SUPERVISOR, report).add_done_callback(self._answered)

    async def leave(self) -> None:
        """Say that it ends, after everything that it started; whether that was heard is not worth waiting for long."""
        await asyncio.wait([self.farewell()], timeout=self.timings.detect_within_s)

    def farewell(self) -> asyncio.Future[Orders]:
        """Its last word."""
        return self.node.call(SUPERVISOR, Report(self.boot, self.host, self.capacity, leaving=True))

    def _answered(self, call: asyncio.Future[Any]) -> None:
        if not call.cancelled() and call.exception() is None:
            self.heard_s = self.node.now()
            self.obey(call.result())

    def obey(self, orders: Orders) -> None:
        """Make what runs here what should run here."""
        if orders.version < self._version:
            return
        self._version = orders.version
        if orders.conclude:
            self.concluded = True
            self.end("")
            return
        for process in [known for known in self.processes if known not in orders.wanted]:
            if self.processes.pop(process) is None:
                self.hands.kill(process)
        for process in orders.wanted:
            if process not in self.processes:
                self.processes[process] = None
                self.hands.start(process)

    def ended(self, process: Process, outcome: str, how: str) -> None:
        """One of its processes is over; not by itself, once the agent is: then its last word says so of all of them."""
        if process in self.processes and not self._over.done():
            self.processes[process] = End(process, outcome, how)
            self.report()
