"""Faults of messages and links: lost, held up, doubled, overtaken, narrowed, cut.

Each kind is a meddler, which sees every message that is sent while a strike of it lasts: `sim/network.py` asks by how much it holds
that one up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from sim.calls import REQUEST, Place, Travelling
from sim.host import Host

if TYPE_CHECKING:
    from sim.cluster import Cluster
    from sim.faults import Strike

Undo = Callable[[], None]


class Meddling:
    """A strike that hits the messages to and from its roles and machines, and those that pass over its links."""

    severing = False
    """Does nothing at all get through, so that not even the end of a connection is heard of?"""

    def __init__(self, strike: Strike, cluster: Cluster) -> None:
        self.strike, self.cluster, self.name = strike, cluster, strike.name
        self.names = cluster.inside(strike.names)
        self.links = cluster.network.links.keys() & set(strike.names)

    def __call__(self, message: Travelling) -> float | None:
        """By how many seconds it holds this message up; None if it swallows it."""
        if not self.concerns(message):
            return 0.0
        later_s = self.meddle(message)
        if later_s != 0:
            self.strike.bit["messages"] += 1
        return later_s

    def meddle(self, call: Travelling) -> float | None:
        """The same of one that concerns it."""
        raise NotImplementedError

    def concerns(self, call: Travelling) -> bool:
        source, destination = call.caller, call.to
        if within(self.names, source) or within(self.names, destination):
            return True
        return bool(self.links) and any(
            link.name in self.links for link in self.cluster.network.path(*(end.machine for end in ends(call)))
        )  # fmt: skip

    def severs(self, source: Host | Place, destination: Host | Place) -> bool:
        """Does nothing at all get from one to the other?"""
        raise NotImplementedError

    def chance(self) -> bool:
        return self.strike.stream.random() < float(self.strike.fault.probability)


def within(names: frozenset[str], end: Host | Place) -> bool:
    return end.name in names or end.machine.name in names


def ends(call: Travelling) -> tuple[Host | Place, Host | Place]:
    """From whom to whom it is on its way: the reply goes back."""
    return (call.caller, call.to) if call.stage == REQUEST else (call.to, call.caller)


class Loss(Meddling):
    def meddle(self, _: Travelling) -> float | None:
        return None if self.chance() else 0.0


class Delay(Meddling):
    def meddle(self, _: Travelling) -> float | None:
        return float(self.strike.fault.by)


class Duplication(Meddling):
    def meddle(self, call: Travelling) -> float | None:
        if call.stage == REQUEST and not call.doubled and self.chance():
            self.strike.bit["messages"] += 1
            self.cluster.record("doubled", call.to.name, note=self.name)
            self.cluster.network.send(call.twin(), call.caller.machine, call.to.machine, call.nbytes)
        return 0.0


class Reordering(Meddling):
    def meddle(self, call: Travelling) -> float | None:
        if not self.chance():
            return 0.0
        later_s = float(self.strike.fault.by.draw(self.strike.stream))
        self.cluster.record("delayed", ends(call)[1].name, value=later_s, note=self.name)
        return later_s


class Narrowing(Meddling):
    """It holds nothing up by itself: the network knows how wide its links are.  It only counts."""

    def __init__(self, strike: Strike, cluster: Cluster) -> None:
        super().__init__(strike, cluster)
        self.names = frozenset()
        self.links = set(cluster.links_of(strike.names))

    def meddle(self, _: Travelling) -> float | None:
        self.strike.bit["messages"] += 1
        return 0.0


class Cut(Meddling):
    """Between those inside and those outside; outside is everybody else, or who is meant by `from`."""

    severing = True

    def __init__(self, strike: Strike, cluster: Cluster) -> None:
        super().__init__(strike, cluster)
        fault = strike.fault
        self.out, self.back = fault.direction != "in", fault.direction != "out"
        hit = None if fault.from_ is None else cluster.there.hit(fault.from_, fault.reaches)
        self.beyond = None if hit is None else cluster.inside(hit)
        self.whole = self.over = False

    def outside(self, end: Host | Place) -> bool:
        return not within(self.names, end) if self.beyond is None else within(self.beyond, end)

    def severs(self, source: Host | Place, destination: Host | Place) -> bool:
        if self.whole:
            return False
        out = self.out and within(self.names, source) and self.outside(destination)
        return out or (self.back and within(self.names, destination) and self.outside(source))

    def concerns(self, call: Travelling) -> bool:
        return self.severs(*ends(call))

    def meddle(self, _: Travelling) -> float | None:
        return None

    def flap(self) -> None:
        """Whole for a while, then cut again."""
        flapping = self.strike.fault.flapping
        if not self.over:
            lasts = flapping.down if not self.whole else flapping.up
            self.cluster.at(self.cluster.now() + lasts.draw(self.strike.stream), self.turn)

    def turn(self) -> None:
        self.whole = not self.whole
        self.flap()


def begin(kind: type[Meddling], strike: Strike, cluster: Cluster) -> Undo:
    meddler = kind(strike, cluster)
    cluster.network.meddlers.append(meddler)
    return partial(cluster.network.meddlers.remove, meddler)


lose, delay, double, reorder = (partial(begin, kind) for kind in (Loss, Delay, Duplication, Reordering))


def degrade(strike: Strike, cluster: Cluster) -> Undo:
    """Strikes on one link multiply."""
    links, uncount = cluster.links_of(strike.names), begin(Narrowing, strike, cluster)

    def narrow(factor: float | None) -> None:
        for link in links:
            capacity, factors = cluster.narrowed.setdefault(link, (cluster.network.links[link].capacity, {}))
            if factor is None:
                del factors[strike]
            else:
                factors[strike] = factor
            cluster.network.set_capacity(link, capacity / math.prod(factors.values()))
            cluster.record("narrowed", link, value=math.prod(factors.values()), note=strike.name)

    def undo() -> None:
        uncount()
        narrow(None)

    narrow(strike.fault.factor)
    return undo


def cut(strike: Strike, cluster: Cluster) -> Undo:
    meddler = Cut(strike, cluster)
    cluster.network.meddlers.append(meddler)
    if strike.fault.flapping is not None:
        meddler.flap()

    def undo() -> None:
        meddler.over = True
        cluster.network.meddlers.remove(meddler)

    return undo
