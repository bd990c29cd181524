"""Faults for real: the scenario's own `[[fault]]` tables, carried out on real processes and their messages.

Who starts a process also fells it: an agent those of its machine, the launcher the supervisor.  Messages are lost, delayed
and doubled by whoever sends them.  Everybody reads the same tables and the same clock, so nobody has to be told.
"""

from __future__ import annotations

import asyncio
import fnmatch
import math
import random
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, Self

from core import chance
from core.node import Recorder
from core.reports import Process
from scenarios.schema import Scenario

PERIOD_S = 0.01
"""A slowed process is stopped for a part of every such period."""


class Victims(Protocol):
    """Processes that somebody started here."""

    def roles(self) -> dict[Process, str]:
        """Those that run now, and what each is by now: a mirror that was promoted is the shard."""

    def send(self, process: Process, number: int) -> None:
        """Send it a signal, if it is still there."""

    def fell(self, process: Process, why: str, hold: asyncio.Future[None]) -> None:
        """Kill it; its role may not begin again here before the future is done."""


def matches(target: str, *names: str) -> bool:
    return any(fnmatch.fnmatchcase(name, target) for name in names)


class Faults:
    """Those declared faults that fell, stop or slow processes of one machine."""

    def __init__(self, scenario: Scenario, machine: str, victims: Victims, *, now: Callable[[], float], record: Recorder) -> None:
        """`machine`: as "machine/0"; faults aimed at it hit all that runs there."""
        self.machine, self.victims, self.now, self.record = machine, victims, now, record
        self.faults = [(f"fault.{number} {fault.kind}", fault) for number, fault in enumerate(scenario.fault)]

    async def run(self) -> None:
        """Each at its time.  One that falls at a moment which had passed when this machine came up is over; one that lasts goes on."""
        once = {"crash": self.crash, "pause": self.pause}
        doing = [self.at(name, fault, once[fault.kind]) for name, fault in self.faults if fault.kind in once and fault.at >= self.now()]
        doing += [self.slow_down(name, fault) for name, fault in self.faults if fault.kind == "slowdown"]
        await asyncio.gather(*doing)

    async def at(self, name: str, fault: Any, act: Callable[[str, Any, dict[Process, str]], Any]) -> None:
        await asyncio.sleep(max(0.0, fault.at - self.now()))
        if hit := self.hit(fault):
            await act(name, fault, hit)

    def hit(self, fault: Any) -> dict[Process, str]:
        """Whoever runs here now and is meant, with the role."""
        return {process: role for process, role in self.victims.roles().items() if matches(fault.target, role, self.machine)}

    async def crash(self, name: str, fault: Any, hit: dict[Process, str]) -> None:
        hold: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for process in hit:
            self.victims.fell(process, name, hold)
        if fault.repair is not None:
            await asyncio.sleep(fault.repair)
            hold.set_result(None)

    async def pause(self, name: str, fault: Any, hit: dict[Process, str]) -> None:
        for role in hit.values():
            self.record("paused", role, note=name)
        await self.stop_for(hit, fault.for_)
        for role in hit.values():
            self.record("resumed", role, note=name)

    async def slow_down(self, name: str, fault: Any) -> None:
        """Whoever is meant and runs here, for as long as it lasts: who begins meanwhile is as slow."""
        await asyncio.sleep(max(0.0, fault.at - self.now()))
        until_s = fault.at + fault.for_ if fault.for_ is not None else math.inf
        slowed: dict[Process, str] = {}
        while self.now() < until_s:
            hit = self.hit(fault)
            if hit != slowed:
                slowed = hit
                self.record("slowed", self.machine, value=fault.factor, note=f"{name} of {', '.join(hit.values()) or 'nobody'}")
            await self.stop_for(hit, PERIOD_S * (1 - 1 / fault.factor))
            await asyncio.sleep(PERIOD_S / fault.factor)
        if slowed:
            self.record("slowed", self.machine, value=1.0, note=name)

    async def stop_for(self, processes: Iterable[Process], seconds: float) -> None:
        """Whatever becomes of the fault meanwhile, or of the role, nobody is left stopped."""
        for process in processes:
            self.victims.send(process, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            for process in processes:
                self.victims.send(process, signal.SIGCONT)


@dataclass(slots=True)
class Fate:
    """What becomes of one call."""

    delay_s: float = 0.0
    request_lost: bool = False
    reply_lost: bool = False
    twice: bool = False


class Interference:
    """Declared faults of messages, as they hit the calls of one host."""

    def __init__(self, faults: Iterable[tuple[str, Any]], own: tuple[str, ...], stream: random.Random) -> None:
        self.faults, self.own, self.stream = list(faults), own, stream

    @classmethod
    def of(cls, scenario: Scenario, role: str, life: int, machine: str) -> Self | None:
        """None where nothing of the kind is declared."""
        kinds = ("loss", "delay", "duplication")
        faults = [(f"fault.{number} {fault.kind}", fault) for number, fault in enumerate(scenario.fault) if fault.kind in kinds]
        return cls(faults, (role, machine), chance.stream(scenario.seed, f"{role}#{life}", "interference")) if faults else None

    def judge(self, peer: str, now_s: float, record: Recorder) -> Fate:
        """What becomes of a call to that peer that is made now."""
        fate = Fate()
        for name, fault in self.faults:
            if not matches(fault.target, peer, *self.own) or now_s < fault.at or (fault.for_ is not None and now_s > fault.at + fault.for_):
                continue
            if fault.kind == "delay":
                fate.delay_s += fault.by
                record("delayed", peer, 0, fault.by, name)
            elif fault.kind == "loss":
                fate.request_lost |= self.stream.random() < fault.probability
                fate.reply_lost |= self.stream.random() < fault.probability
                if fate.request_lost or fate.reply_lost:
                    record("dropped", peer, 0, 0.0, name)
            elif self.stream.random() < fault.probability:
                fate.twice = True
                record("doubled", peer, 0, 0.0, name)
        return fate
