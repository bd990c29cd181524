"""Max-min fair sharing of links, exact at every moment: one clock for each bottleneck, not one rate for each flow.

In a max-min allocation each flow has one bottleneck, a link of its path that is full and on which nobody is faster
(Bertsekas and Gallager, Data Networks, 6.5.2).  All flows with the same bottleneck run at one rate, the link's *level*; they are its *members*.
So a link with members keeps a clock, the integral of its level: a flow that joins with so many bytes left is through
when the clock has gone on by so many, and a change of the level touches all members at once.

An allocation is max-min exactly when no link carries more than its capacity, every link with members is full, and no flow
across such a link is faster than its level.  After each change the links that may violate this are repaired, lowest level
first, until none does.  There is no proof that this comes to an end: after many repairs everything is filled anew, which is counted.

A link without members is *quiet* while no flow across it is faster than capacity / flows: then it cannot be full, and the
levels of others may change without it.  A link with members knows the least of those limits among the quiet links that its members
cross, and looks at them only when its level passes that.  Every other link is *watched*: it is told of each change.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from sim.filling import fill
from sim.heap import Entry, Heap

SLACK = 1 + 1e-12
"""Two rates that differ by less are the same: sums of floats are not exact."""

ROUNDING = 1e-14
"""What is due so little later, relatively, is due now: clocks that have gone through different sums differ by a few units in the last place."""

NEARLY = 1 - 1e-9
"""A link without members is as good as full then: what is left there is counted from change to change, and added up anew only when it is little."""

REPAIRS_OF_A_LINK = 50
"""In one settlement, on average over all links, before everything is filled anew."""


class Flow(Entry):
    """So many bytes on their way along a path of links; `key`: the reading of its bottleneck's clock at which it is through."""

    __slots__ = ("after_s", "bottleneck", "message", "nbytes", "path")

    def __init__(self, path: Sequence[Link], nbytes: float, message: Any = None, after_s: float = 0.0) -> None:
        """`message`: what arrives, if anything does; so long after its last byte has left."""
        super().__init__()
        self.path, self.nbytes, self.message, self.after_s = path, nbytes, message, after_s
        self.bottleneck = NOWHERE
        """Before it has joined and after it has left."""


class Link(Entry):
    """One direction of a cable, shared by the flows across it; `key`: when somebody looks whether a flow is through, never after it is `due`."""

    __slots__ = (
        "capacity", "carried_bytes", "clock", "crowd", "due", "level", "limit", "members", "name", "neighbours", "others", "repair",
        "since", "spare", "touched", "watched",
    )  # fmt: skip

    def __init__(self, name: str, capacity: float) -> None:
        """`capacity`: bytes a second, 0 for a link that is cut."""
        super().__init__()
        self.name, self.capacity = name, capacity
        self.repair = Repair(self)
        self.crowd = 0
        """How many flows cross it, members or not."""
        self.members: Heap[Flow] = Heap()
        """The first is through first."""
        self.others: dict[Flow, Link] = {}
        """What crosses it and has its bottleneck elsewhere, and where: to look that up at each flow would take as long again."""
        self.level = self.clock = self.since = 0.0
        """Of the members: bytes a second each; bytes up to the moment `since`, when the level changed last."""
        self.due = math.inf
        """When the first member is through."""
        self.neighbours: dict[Link, int] = {}
        """Watched links that members cross besides this one, with how many do."""
        self.limit = math.inf
        """No quiet link that a member crosses can be full while the level is no higher."""
        self.spare = 0.0
        """Of a watched link without members: bytes a second that nobody takes, until it is nearly full.  While there are any, whatever joins
        or leaves is none of its business."""
        self.watched = self.touched = False
        self.carried_bytes = 0.0
        """Of all that no longer crosses it."""

    def __repr__(self) -> str:
        return f"Link({self.name!r}, {self.capacity:g})"

    def carried(self, now: float) -> float:
        """Bytes so far, those of transfers in progress included."""
        if not self.crowd:
            return self.carried_bytes
        under_way = [flow.nbytes - left(flow, now) for flow in [*self.members.entries, *self.others]]
        return self.carried_bytes + math.fsum(under_way)


class Repair(Entry):
    """A link that may have to be repaired; `key`: its level, or what that would be."""

    __slots__ = ("link",)

    def __init__(self, link: Link) -> None:
        super().__init__()
        self.link = link


def left(flow: Flow, now: float) -> float:
    """How many bytes a flow that has joined still has to carry."""
    link = flow.bottleneck
    return min(max(flow.key - (link.clock + link.level * (now - link.since)), 0.0), flow.nbytes)


NOWHERE = Link("nowhere", 0.0)
"""Not among the links of anybody; whoever has his bottleneck here carries nothing."""


class Sharing:
    """All links and the flows on them.  What changes in one instant is settled together, by `settle`, before time goes on."""

    def __init__(self, links: Iterable[Link], repairs_of_a_link: int = REPAIRS_OF_A_LINK) -> None:
        self.links = list(links)
        for serial, link in enumerate(self.links):
            link.serial = link.repair.serial = serial
        self.most_repairs = repairs_of_a_link * len(self.links)
        self.refills = 0
        """How often repairs did not come to an end in time, and everything was filled anew."""
        self.repairs = 0
        """Of single links, so far."""
        self._joining: list[Flow] = []
        self._flows = 0
        self._dirty: Heap[Repair] = Heap()
        self._touched: list[Link] = []
        self._due: Heap[Link] = Heap()
        """A heap of the links by when their first member is through, or earlier: what a link's own `due` says counts."""

    # changes

    def join(self, flow: Flow) -> None:
        """The flow begins at this instant."""
        self._joining.append(flow)

    def cancel(self, flow: Flow, now: float) -> None:
        """The flow ends here, with what it has carried; one that is over already is left alone."""
        if flow.bottleneck is NOWHERE:
            if flow in self._joining:
                self._joining.remove(flow)
            return
        bottleneck = flow.bottleneck
        self._leave(flow, flow.nbytes - left(flow, now))
        self._touch(bottleneck)
        self._reckon(now)

    def change(self, link: Link, capacity: float) -> None:
        """From now on the link carries so many bytes a second; with 0 its flows wait for better times."""
        link.capacity = capacity
        self._mark(link)

    def across(self, link: Link) -> list[Flow]:
        """The flows on it, those included that join at this instant."""
        return [*link.members.entries, *link.others, *(flow for flow in self._joining if link in flow.path)]

    # time

    def next_due(self) -> float:
        """When the next flow is through; infinity if none will be."""
        heap = self._due
        while heap.entries:
            link = heap.entries[0]
            due = link.due
            if link.key == due:
                return due
            if due < math.inf:
                heap.put(link, due)
            else:
                heap.remove(link)
        return math.inf

    def settle(self, now: float) -> list[Flow]:
        """Share the links anew after the changes of this instant.  Returns what is through by now, in the order of its links and joining."""
        until = now * (1 + ROUNDING)
        through = self._through(until) if self._due.entries and self.next_due() <= until else []
        if self._joining:
            self._begin(now)
        if self._dirty.entries:
            self._repair(now)
        if self._touched:
            self._reckon(now)
        return through

    def _through(self, until: float) -> list[Flow]:
        """Everything that is due by then."""
        through = []
        while self.next_due() <= until:
            link = self._due.entries[0]
            self._due.remove(link)
            link.due = math.inf
            self._touch(link)
            flows = link.members.entries
            reached = max(link.clock + link.level * (until - link.since), flows[0].key)  # the first is due, whatever rounding says
            while flows and (flow := flows[0]).key <= reached:
                self._leave(flow, flow.nbytes)
                through.append(flow)
        return through

    def _begin(self, now: float) -> None:
        """What joins gets for its bottleneck the link that is likeliest to be it."""
        for flow in self._joining:
            for link in flow.path:
                link.crowd += 1
        for flow in self._joining:
            self._flows += 1
            flow.serial = self._flows
            lowest, bottleneck = math.inf, flow.path[0]
            for link in flow.path:
                share = link.capacity / link.crowd
                if share < lowest:
                    lowest, bottleneck = share, link
            if bottleneck.since != now:
                bottleneck.clock += bottleneck.level * (now - bottleneck.since)
                bottleneck.since = now
            flow.bottleneck = bottleneck
            bottleneck.members.put(flow, bottleneck.clock + flow.nbytes)
            if not bottleneck.watched:
                self._watch(bottleneck)
            for link in flow.path:
                if link is not bottleneck:
                    link.others[flow] = bottleneck
                    if link.watched:
                        bottleneck.neighbours[link] = bottleneck.neighbours.get(link, 0) + 1
                        if not link.members.entries:
                            link.spare -= bottleneck.level
                            if link.spare >= 0.0:
                                continue
                self._mark(link)
        self._joining.clear()

    def _leave(self, flow: Flow, carried_bytes: float) -> None:
        bottleneck = flow.bottleneck
        flow.bottleneck = NOWHERE
        for link in flow.path:
            link.crowd -= 1
            link.carried_bytes += carried_bytes
            if link is bottleneck:
                link.members.remove(flow)
            else:
                del link.others[flow]
                if not link.watched:
                    continue
                self._part(bottleneck, link)
                if not link.members.entries:
                    link.spare += bottleneck.level
                    continue
            self._mark(link)

    def _part(self, link: Link, watched: Link) -> None:
        """One member less of the first crosses the second."""
        neighbours = link.neighbours
        if neighbours[watched] == 1:
            del neighbours[watched]
        else:
            neighbours[watched] -= 1

    def _mark(self, link: Link) -> None:
        """It may have to be repaired."""
        if not link.repair.inside:
            crowd = link.crowd
            self._dirty.put(link.repair, link.level or (link.capacity / crowd if crowd else 0.0))

    def _touch(self, link: Link) -> None:
        """When its first member is through has to be reckoned anew."""
        if not link.touched:
            link.touched = True
            self._touched.append(link)

    def _reckon(self, now: float) -> None:
        """When the first member of each link that was touched is through."""
        for link in self._touched:
            link.touched = False
            flows, level = link.members.entries, link.level
            if not flows:
                link.clock = 0.0  # nobody's key refers to it
            if not flows or not level:
                link.due = math.inf
                continue
            due = link.since + (flows[0].key - link.clock) / level
            if due < now:
                due = now
            link.due = due
            if not link.inside or due < link.key:
                self._due.put(link, due)
        self._touched.clear()

    # repairs

    def _repair(self, now: float) -> None:
        dirty, repairs = self._dirty, 0
        while dirty.entries:
            if repairs >= self.most_repairs:
                self._refill(now)
                break
            repairs += 1
            repair = dirty.entries[0]
            dirty.remove(repair)
            self._mend(repair.link, now)
        self.repairs += repairs

    def _mend(self, link: Link, now: float) -> None:
        """Make it full if it has members, and no flow across it faster than they are; or see that it need not be."""
        self._touch(link)
        others, capacity, crowd = link.others, link.capacity, len(link.members.entries)
        taken = fastest = 0.0
        for bottleneck in others.values():
            rate = bottleneck.level
            taken += rate
            if rate > fastest:
                fastest = rate
        if crowd:
            level = (capacity - taken) / crowd
            if level < 0.0:
                level = 0.0
            pull = fastest > level * SLACK
        else:
            if fastest * len(others) <= capacity * SLACK:
                self._hush(link)
                return
            level = 0.0
            pull = taken > capacity * SLACK
        if not link.watched:
            self._watch(link)
        if pull:
            level = self._pull(link, now)
        elif not crowd:
            link.level, link.spare = 0.0, capacity * NEARLY - taken
            return
        if level != link.level:
            if link.since != now:
                link.clock += link.level * (now - link.since)
                link.since = now
            rise, link.level = level - link.level, level
            dirty = self._dirty
            for neighbour, count in link.neighbours.items():
                if neighbour.repair.inside:
                    continue
                if neighbour.members.entries:
                    dirty.put(neighbour.repair, neighbour.level)
                else:
                    neighbour.spare -= count * rise
                    if neighbour.spare < 0.0:
                        self._mark(neighbour)
        if level > link.limit:
            self._look_around(link)

    def _pull(self, link: Link, now: float) -> float:
        """Make members of those that are faster, the fastest first, until none is.  Returns the level that this leaves."""
        if link.since != now:
            link.clock += link.level * (now - link.since)
            link.since = now
        others, capacity, crowd = link.others, link.capacity, len(link.members.entries)
        slow, fastest_first, enough = 0.0, [], capacity / (crowd + len(others)) / SLACK
        for flow, bottleneck in others.items():
            if bottleneck.level <= enough:  # never more than the level that is left
                slow += bottleneck.level
            else:
                fastest_first.append(flow)
        fastest_first.sort(key=rate_of, reverse=True)
        taken = [slow]  # by so many of the slowest; what is added up so has no residue where nobody is left, as subtracting would leave
        for flow in reversed(fastest_first):
            taken.append(taken[-1] + flow.bottleneck.level)
        left_over = capacity - taken.pop()
        level = max(0.0, left_over / crowd) if crowd else 0.0
        for flow in fastest_first:
            if crowd and flow.bottleneck.level <= level * SLACK:
                break
            self._move(flow, link, now)
            crowd += 1
            level = max(0.0, (capacity - taken.pop()) / crowd)
        return level

    def _move(self, flow: Flow, link: Link, now: float) -> None:
        before = flow.bottleneck
        if before.since != now:
            before.clock += before.level * (now - before.since)
            before.since = now
        before.members.remove(flow)
        before.others[flow] = link
        del link.others[flow]
        flow.bottleneck = link
        link.members.put(flow, link.clock + (flow.key - before.clock))
        for crossed in flow.path:
            if crossed is link:
                self._part(before, link)
                continue
            crossed.others[flow] = link
            if crossed.watched:
                if crossed is not before:
                    self._part(before, crossed)
                link.neighbours[crossed] = link.neighbours.get(crossed, 0) + 1
                self._mark(crossed)
            elif link.limit * crossed.crowd > crossed.capacity:
                link.limit = crossed.capacity / crossed.crowd

    def _watch(self, link: Link) -> None:
        """From now on it is told when the level of a flow across it changes."""
        link.watched = True
        for bottleneck in link.others.values():
            neighbours = bottleneck.neighbours
            neighbours[link] = neighbours.get(link, 0) + 1

    def _hush(self, link: Link) -> None:
        """It cannot be full before somebody's level passes its limit."""
        if link.watched:
            link.watched = False
            for bottleneck in link.others.values():
                self._part(bottleneck, link)
            link.level, link.limit = 0.0, math.inf
        if link.others:
            limit = link.capacity / len(link.others)
            for bottleneck in link.others.values():
                if bottleneck.limit > limit:
                    bottleneck.limit = limit

    def _look_around(self, link: Link) -> None:
        """Its level has passed the limit of a quiet link: which is it, and what is the limit of the others?"""
        limit, level = math.inf, link.level
        for flow in link.members.entries:
            for crossed in flow.path:
                if not crossed.watched:
                    share = crossed.capacity / crossed.crowd
                    if share < level:
                        self._mark(crossed)
                    elif share < limit:
                        limit = share
        link.limit = limit

    def _refill(self, now: float) -> None:
        """Forget every level, and fill all links from the start."""
        self.refills += 1
        flows = [flow for link in self.links for flow in link.members.entries]
        still = [left(flow, now) for flow in flows]
        for link in self.links:
            link.members.clear()
            link.others.clear()
            link.neighbours.clear()
            link.level, link.clock, link.since, link.limit = 0.0, 0.0, now, math.inf
            link.watched = False
            self._touch(link)
        self._dirty.clear()
        filled = fill([link.capacity for link in self.links], [[link.serial for link in flow.path] for flow in flows])
        for number, level, members in filled:
            bottleneck = self.links[number]
            bottleneck.level = level
            for member in members:
                flow = flows[member]
                flow.bottleneck = bottleneck
                bottleneck.members.put(flow, still[member])
                for link in flow.path:
                    if link is not bottleneck:
                        link.others[flow] = bottleneck
        for link in self.links:  # first all that are to be told
            if link.members.entries or max(map(rate_of, link.others), default=0.0) * len(link.others) > link.capacity:
                self._watch(link)
        for link in self.links:
            if not link.watched:
                self._hush(link)
            elif not link.members.entries:
                self._mark(link)


def rate_of(flow: Flow) -> float:
    """Bytes a second at present."""
    return flow.bottleneck.level
