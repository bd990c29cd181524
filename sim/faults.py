"""Faults, as the scenario declares them, carried out on the simulated cluster at their times.

A fault strikes once, at its time, or again and again, at times that are drawn for each target by itself: then each target has a
`Clock`.  What a strike does is in `sim/felling.py` (processes, machines, disks, clocks) and `sim/meddling.py` (messages, links).
Each keeps count of what it bit, because a fault that bit nothing says that the scenario did not test what its author believes.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

from core import chance
from scenarios.declared import Declared
from scenarios.faults import Crash, Preemption
from sim import felling, meddling

if TYPE_CHECKING:
    from sim.cluster import Cluster

LISTED = 1000
"""Strikes of one fault whose times are in the summary."""

Undo = Callable[[], None]

BEGIN: dict[str, Callable[[Any, Any], Undo | None]] = {
    "crash": felling.crash, "preemption": felling.preempt, "pause": felling.pause, "slowdown": felling.slow_down,
    "full-disk": felling.fill_disk, "slow-disk": felling.slow_disk, "clock-drift": felling.drift,
    "loss": meddling.lose, "delay": meddling.delay, "duplication": meddling.double, "reordering": meddling.reorder,
    "degraded": meddling.degrade, "cut": meddling.cut,
}  # fmt: skip
"""What each kind of fault does when its time has come, and what undoes that; None where it ends by itself."""


@dataclass(slots=True, eq=False)
class Injected:
    """One declared fault and what it has bitten so far."""

    declared: Declared
    until_s: float = 0.0
    """When everything is over that it has begun, or will begin for certain, and that heals."""
    bit: Counter[str] = field(default_factory=Counter)
    struck: int = 0
    times: list[tuple[float, float]] = field(default_factory=list)
    """Of each strike, beginning and end."""

    @property
    def name(self) -> str:
        return self.declared.name

    def report(self, now_s: float) -> dict[str, Any]:
        """For the summary: what was declared, and what it did.  A strike that is not over has no end."""
        fault, target = self.declared.faults[0], self.declared.target
        bit = {key: round(value, 9) if isinstance(value, float) else value for key, value in sorted(self.bit.items()) if value}
        return {
            "kind": self.declared.kind, "target": ", ".join(target), "declared": self.declared.index,
            "at_s": fault.begins_s if fault.every is None and len(self.declared.faults) == 1 else None, "bit": bit, "struck": self.struck,
            "times": [[round(begin_s, 9), round(end_s, 9) if end_s <= now_s else None] for begin_s, end_s in self.times],
        }  # fmt: skip


@dataclass(slots=True, eq=False)
class Strike:
    """One time that a fault strikes: `names`, for so long (None: for ever)."""

    injected: Injected
    fault: Any
    names: tuple[str, ...]
    lasting_s: float | None
    stream: random.Random

    @property
    def name(self) -> str:
        """For the journal."""
        return self.injected.name

    @property
    def bit(self) -> Counter[str]:
        return self.injected.bit

    def begin(self, cluster: Cluster) -> None:
        now, one = cluster.now(), self.injected
        over_s = now + self.fault.notice_s + (math.inf if self.lasting_s is None else self.lasting_s)
        one.struck += 1
        one.until_s = max(one.until_s, over_s if over_s < math.inf else now + self.fault.notice_s)
        if len(one.times) < LISTED:
            one.times.append((now, over_s))
        undo = BEGIN[self.fault.kind](self, cluster)
        if undo is not None and self.lasting_s is not None:
            cluster.at(over_s, undo)


def inject(found: Iterable[Declared], cluster: Cluster, clocks: Clocks) -> list[Injected]:
    """Plan every fault; returns them, to be read when the run is over."""
    return [plan(Injected(one), cluster, clocks) for one in found]


def plan(one: Injected, cluster: Cluster, clocks: Clocks) -> Injected:
    for number, fault in enumerate(one.declared.faults):
        hit = cluster.there.hit(fault.target, fault.reaches)
        if fault.every is not None:
            for first in range(0, len(hit), fault.together):
                clocks.add(Clock(one, fault, hit[first : first + fault.together], stream(cluster, one, hit[first])))
            continue
        lasting = fault.lasting
        drawn_apart = lasting is not None and lasting.drawn
        for names in ((name,) for name in hit) if drawn_apart else (hit,):
            own = stream(cluster, one, names[0] if drawn_apart else f"all at once {number}")
            lasting_s = lasting.draw(own) if lasting is not None else None
            one.until_s = max(one.until_s, fault.begins_s + fault.notice_s + (lasting_s or 0.0))
            cluster.at(fault.begins_s, partial(Strike(one, fault, names, lasting_s, own).begin, cluster))
    return one


def stream(cluster: Cluster, one: Injected, where: str) -> random.Random:
    return chance.stream(cluster.seed, f"{one.declared.key} at {where}", "draws")


@dataclass(slots=True, eq=False)
class Clock:
    """When a fault strikes one target, or a few together, time and again: a renewal process."""

    injected: Injected
    fault: Any
    names: tuple[str, ...]
    stream: random.Random
    pace: float = 1.0
    """How many times as often as usual, with frailty."""
    turn: int = 0
    """Whatever was due in an earlier turn is not any more."""

    def __post_init__(self) -> None:
        if self.fault.frailty is not None:
            self.pace = max(1e-9, round(self.stream.gammavariate(1 / self.fault.frailty, self.fault.frailty), 9))

    @property
    def watched(self) -> bool:
        """Does it begin again when its target comes back, rather than when the strike is over?"""
        return len(self.names) == 1 and isinstance(self.fault, Crash | Preemption) and not self.names[0].startswith(("rack/", "power/"))


class Clocks:
    """All clocks of a cluster; only the earliest time of all stands in the loop's queue."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._due: list[tuple[float, int, int, Clock]] = []
        self._numbers = itertools.count()
        self._rings_s = math.inf
        self._of: dict[str, list[Clock]] = {}

    def add(self, clock: Clock) -> None:
        """A machine has long been running when the job begins; a process begins with it, and its clock when it is there."""
        alone = clock.names[0] if len(clock.names) == 1 else ""
        if alone:
            self._of.setdefault(alone, []).append(clock)
        if alone not in self.cluster.there.roles:
            self.wind(clock, 0.0, clock.fault.every.residual)

    def back(self, name: str) -> None:
        """That role or machine is up again: its clocks begin anew."""
        for clock in self._of.get(name, ()):
            self.wind(clock, self.cluster.now(), clock.fault.every.draw)

    def wind(self, clock: Clock, from_s: float, draw: Callable[[random.Random], float]) -> None:
        """Draw when it strikes next."""
        clock.turn += 1
        due_s = round(from_s + draw(clock.stream) / clock.pace, 9)
        if due_s < math.inf and (clock.fault.until is None or due_s < clock.fault.until):
            heappush(self._due, (due_s, next(self._numbers), clock.turn, clock))
            self._arm()

    def _arm(self) -> None:
        if self._due and self._due[0][0] < self._rings_s:
            self._rings_s = self._due[0][0]
            self.cluster.at(self._rings_s, partial(self._ring, self._rings_s))

    def _ring(self, due_s: float) -> None:
        if due_s == self._rings_s:
            self._rings_s = math.inf
        while self._due and self._due[0][0] <= due_s:
            _, _, turn, clock = heappop(self._due)
            if turn == clock.turn:
                self.strike(clock)
        self._arm()

    def strike(self, clock: Clock) -> None:
        """Whoever is down does not fail: its clock begins anew when it is back."""
        cluster, fault = self.cluster, clock.fault
        names = tuple(name for name in clock.names if not cluster.is_down(name))
        lasting_s = fault.lasting.draw(clock.stream) if fault.lasting is not None else None
        if names:
            Strike(clock.injected, fault, names, lasting_s, clock.stream).begin(cluster)
        if lasting_s is not None and not clock.watched and (names or len(clock.names) > 1):
            self.wind(clock, cluster.now() + fault.notice_s + lasting_s, fault.every.draw)
