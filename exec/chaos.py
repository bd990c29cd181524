"""Faults for real: the scenario's own `[[fault]]` tables, carried out on real processes and their messages.

Who starts a process also fells it: an agent those of its machine, the launcher the supervisor.  Messages are lost, delayed
and doubled by whoever sends them.  Everybody reads the same tables and the same clock, so nobody has to be told.

A job on one machine plays all the machines that its scenario declares: what hits one of them hits the roles that would be given it first.
Who loses such a machine begins again at once, as on another one.
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
from scenarios.declared import Real, real_faults
from scenarios.faults import Cut, Delay, Duplication, Loss, Reordering, Slowdown
from scenarios.places import places
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


def matches(targets: Iterable[str], names: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, target) for name in names for target in targets)


class Names:
    """Under which names a fault may mean a role."""

    def __init__(self, scenario: Scenario, machine: str) -> None:
        """`machine`: the real one, as "machine/0"."""
        self._machine, self._homes = (machine,), dict[str, tuple[str, ...]]()
        self.alone = scenario.placement.alone
        if self.alone and scenario.fault:
            real = scenario.numerics == "real"
            there = places(scenario.protocol, scenario.cluster, scenario.network, real=real, partitions=scenario.model.partitions)
            self._homes = there.homes()

    def __call__(self, role: str) -> tuple[str, ...]:
        return (role, *(self._homes.get(role, ()) if self.alone else self._machine))


class Faults:
    """Those declared faults that fell, stop or slow processes of one machine."""

    def __init__(self, scenario: Scenario, machine: str, victims: Victims, *, now: Callable[[], float], record: Recorder) -> None:
        """`machine`: as "machine/0"; faults aimed at it hit all that runs there."""
        self.machine, self.victims, self.now, self.record = machine, victims, now, record
        self.faults, self.names = real_faults(scenario), Names(scenario, machine)

    async def run(self) -> None:
        """Each at its time.  One that falls at a moment which had passed when this machine came up is over; one that lasts goes on."""
        once = {"crash": self.crash, "pause": self.pause}
        doing = [self.at(one, once[one.fault.kind]) for one in self.faults if one.fault.kind in once and one.at_s >= self.now()]
        doing += [self.slow_down(one) for one in self.faults if one.fault.kind == "slowdown"]
        await asyncio.gather(*doing)

    async def at(self, one: Real, act: Callable[[Real, dict[Process, str]], Any]) -> None:
        await asyncio.sleep(max(0.0, one.at_s - self.now()))
        if hit := self.hit(one):
            await act(one, hit)

    def hit(self, one: Real) -> dict[Process, str]:
        """Whoever runs here now and is meant, with the role."""
        return {process: role for process, role in self.victims.roles().items() if matches(one.fault.target, self.names(role))}

    async def crash(self, one: Real, hit: dict[Process, str]) -> None:
        hold: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        at_once: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        at_once.set_result(None)
        for process, role in hit.items():
            elsewhere = self.names.alone and not matches(one.fault.target, (role,))
            self.victims.fell(process, one.name, at_once if elsewhere else hold)
        if one.lasting_s < math.inf:
            await asyncio.sleep(one.lasting_s)
            hold.set_result(None)

    async def pause(self, one: Real, hit: dict[Process, str]) -> None:
        for role in hit.values():
            self.record("paused", role, note=one.name)
        await self.stop_for(hit, one.lasting_s)
        for role in hit.values():
            self.record("resumed", role, note=one.name)

    async def slow_down(self, one: Real) -> None:
        """Whoever is meant and runs here, for as long as it lasts: who begins meanwhile is as slow."""
        assert isinstance(one.fault, Slowdown)
        await asyncio.sleep(max(0.0, one.at_s - self.now()))
        factor, slowed = one.fault.factor, dict[Process, str]()
        while self.now() < one.at_s + one.lasting_s:
            hit = self.hit(one)
            if hit != slowed:
                slowed = hit
                self.record("slowed", self.machine, value=factor, note=f"{one.name} of {', '.join(hit.values()) or 'nobody'}")
            await self.stop_for(hit, PERIOD_S * (1 - 1 / factor))
            await asyncio.sleep(PERIOD_S / factor)
        if slowed:
            self.record("slowed", self.machine, value=1.0, note=one.name)

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

    def __init__(self, faults: Iterable[Real], role: str, names: Names, stream: random.Random) -> None:
        self.faults, self.own, self.names, self.stream = list(faults), names(role), names, stream

    @classmethod
    def of(cls, scenario: Scenario, role: str, life: int, machine: str) -> Self | None:
        """None where nothing of the kind is declared."""
        faults = [one for one in real_faults(scenario) if isinstance(one.fault, Loss | Delay | Duplication | Reordering | Cut)]
        stream = chance.stream(scenario.seed, f"{role}#{life}", "interference")
        return cls(faults, role, Names(scenario, machine), stream) if faults else None

    def judge(self, peer: str, now_s: float, record: Recorder) -> Fate:
        """What becomes of a call to that peer that is made now."""
        fate, others = Fate(), self.names(peer)
        for name, fault, at_s, lasting_s in self.faults:
            if not at_s <= now_s <= at_s + lasting_s:
                continue
            if isinstance(fault, Cut):
                request_lost, reply_lost = severs(fault, self.own, others), severs(fault, others, self.own)
                if request_lost or reply_lost:
                    fate.request_lost, fate.reply_lost = fate.request_lost or request_lost, fate.reply_lost or reply_lost
                    record("dropped", peer, 0, 0.0, name)
            elif not matches(fault.target, (*others, *self.own)):
                continue
            elif isinstance(fault, Delay) or (isinstance(fault, Reordering) and self.stream.random() < fault.probability):
                by_s = fault.by if isinstance(fault, Delay) else fault.by.draw(self.stream)
                fate.delay_s += by_s
                record("delayed", peer, 0, by_s, name)
            elif isinstance(fault, Loss):
                fate.request_lost |= self.stream.random() < fault.probability
                fate.reply_lost |= self.stream.random() < fault.probability
                if fate.request_lost or fate.reply_lost:
                    record("dropped", peer, 0, 0.0, name)
            elif isinstance(fault, Duplication) and self.stream.random() < fault.probability:
                fate.twice = True
                record("doubled", peer, 0, 0.0, name)
        return fate


def severs(cut: Cut, source: tuple[str, ...], destination: tuple[str, ...]) -> bool:
    """Does nothing get from one to the other?  Both by all their names."""
    out = cut.direction != "in" and matches(cut.target, source) and outside(cut, destination)
    return out or (cut.direction != "out" and matches(cut.target, destination) and outside(cut, source))


def outside(cut: Cut, names: tuple[str, ...]) -> bool:
    return not matches(cut.target, names) if cut.from_ is None else matches(cut.from_, names)
