"""Max-min fair sharing as its definition says, all rates anew after everything that happens: the oracle of `sim/fair.py`.

What happens is a list of joins, cancellations and changes of capacity; both this and `Sharing` are driven by it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sim import fair


class Join(NamedTuple):
    at: float
    flow: int
    path: tuple[str, ...]
    nbytes: float


class Cancel(NamedTuple):
    at: float
    flow: int


class Change(NamedTuple):
    at: float
    link: str
    capacity: float


Happening = Join | Cancel | Change


def max_min(paths: Mapping[int, Sequence[str]], capacities: Mapping[str, float]) -> dict[int, float]:
    """Each flow's rate: again and again, the link whose fair share is least settles the flows across it."""
    rates: dict[int, float] = {}
    across: dict[str, list[int]] = {}
    for flow, path in paths.items():
        for link in path:
            across.setdefault(link, []).append(flow)
    while len(rates) < len(paths):
        shares = {}
        for link, crossing in across.items():
            waiting = [flow for flow in crossing if flow not in rates]
            if waiting:
                capacity = capacities[link]
                shares[link] = max(0.0, capacity - sum(rates[flow] for flow in crossing if flow in rates)) / len(waiting), waiting
        share, waiting = min(shares.values(), key=lambda found: found[0])
        rates |= dict.fromkeys(waiting, share)
    return rates


def naive(happenings: Sequence[Happening], capacities: Mapping[str, float]) -> dict[int, float]:
    """When each flow is through that is."""
    to_come, now_capacities = sorted(happenings, key=lambda one: one.at), dict(capacities)
    paths: dict[int, tuple[str, ...]] = {}
    left: dict[int, float] = {}
    through: dict[int, float] = {}
    now = 0.0
    while any((rates := max_min(paths, now_capacities)).values()) or to_come:
        ends = [now + left[flow] / rate for flow, rate in rates.items() if rate]
        then = min([*ends, *(one.at for one in to_come[:1])])
        for flow, rate in rates.items():
            left[flow] -= rate * (then - now)
        now = then
        for flow in [flow for flow, rate in rates.items() if rate and left[flow] <= rate * now * 1e-14]:
            through[flow] = now
            del paths[flow], left[flow]
        while to_come and to_come[0].at == now:
            one = to_come.pop(0)
            if isinstance(one, Join):
                paths[one.flow], left[one.flow] = one.path, one.nbytes
            elif isinstance(one, Change):
                now_capacities[one.link] = one.capacity
            elif one.flow in paths:
                del paths[one.flow], left[one.flow]
    return through


class Driven:
    """`Sharing` under the same happenings; after each settlement everything that must hold is asserted."""

    def __init__(self, happenings: Sequence[Happening], capacities: Mapping[str, float], form: Any = fair, **options: int) -> None:
        """`form`: of the module, which may be compiled."""
        self.form = form
        self.links = {name: form.Link(name, capacity) for name, capacity in capacities.items()}
        self.sharing = form.Sharing(self.links.values(), **options)
        self.flows: dict[int, fair.Flow] = {}
        self.through: dict[int, float] = {}
        self.carried: dict[str, float] = dict.fromkeys(self.links, 0.0)
        """Bytes of each link, added up from the rates of every stretch of time."""
        self.now = 0.0
        to_come = sorted(happenings, key=lambda one: one.at)
        while (then := min([self.sharing.next_due(), *(one.at for one in to_come[:1])])) < math.inf:
            for name, link in self.links.items():
                self.carried[name] += sum(flow.bottleneck.level for flow in (*link.members.entries, *link.others)) * (then - self.now)
            self.now = then
            while to_come and to_come[0].at == then:
                self.do(to_come.pop(0))
            numbers = {flow: number for number, flow in self.flows.items()}
            self.through |= {numbers[flow]: then for flow in self.sharing.settle(then)}
            self.check()

    def do(self, one: Happening) -> None:
        if isinstance(one, Join):
            self.flows[one.flow] = self.form.Flow([self.links[name] for name in one.path], one.nbytes)
            self.sharing.join(self.flows[one.flow])
        elif isinstance(one, Cancel):
            self.sharing.cancel(self.flows[one.flow], self.now)
        else:
            self.sharing.change(self.links[one.link], one.capacity)

    def check(self) -> None:
        for name, link in self.links.items():
            across = [*link.members.entries, *link.others]
            rates = [flow.bottleneck.level for flow in across]
            assert link.crowd == len(across)
            assert sum(rates) <= link.capacity * (1 + 1e-9), f"{name} is over its capacity"
            if link.members.entries:
                assert sum(rates) >= link.capacity * (1 - 1e-9), f"{name} is a bottleneck and not full"
                assert max(rates) <= link.level * (1 + 1e-9), f"{name} is a bottleneck and something across it is faster"
