"""Who works on which portion of one batch, and which bundles make up its gradient: the coordinator's ledger of Sandblaster L-BFGS.

Paper, section 4.2: a batch is cut into many small portions; a free replica is given the next ones, and near the end of the batch
what is still out is given out again, whichever copy finishes first being used.  A replica pushes one sum over all that it was
given, a *bundle*, to every shard, where it is staged; once all shards hold it, it is reported here.

Shards add bundles up, so no portion can be subtracted from one afterwards.  Each must therefore be in exactly one bundle that
counts.  The batch is cut once, into *stretches* of consecutive portions; whatever of a stretch is given out a second time, for
whatever reason, is given and pushed singly.  Then a stretch is covered either by its whole bundle or by a single for each of its
portions, and overlapping bundles can never stand in each other's way: as soon as each portion has arrived in some bundle, there is
an exact cover, and only one.

Nothing is ever cancelled: who comes too late is told so when he reports.  Of a portion that no staged bundle has, one thing is
true at any time: its stretch has never been given out; or somebody works on it; or it waits to be given out again.
"""

from __future__ import annotations

import enum
from bisect import insort
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

from core.operations import total


class BundleId(NamedTuple):
    """One pushed sum: whose, and which one of that life."""

    replica: str
    life: int
    sequence: int

    @property
    def label(self) -> str:
        """As the journal writes it."""
        return f"{self.replica}#{self.life}:{self.sequence}"


class Decision(enum.Enum):
    """What becomes of a reported bundle."""

    NEW = "new"
    REPEATED = "repeated"
    USELESS = "useless"


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a replica shall compute the gradient over, as one sum."""

    portions: tuple[int, ...]
    again: bool
    """Was this given out before?  Then it is exactly one portion."""
    reason: str


@dataclass(frozen=True, slots=True)
class Backups:
    """When what is still out is given to somebody else as well."""

    copies: int = 1
    """So many of a portion at a time, besides the one that was out already; 0 for none."""
    minimum_age: float = 1.5
    """How late is late: so many times the usual duration of a bundle of that length.  Of several copies the youngest must be."""


class Counters(NamedTuple):
    """What the batch has cost so far."""

    given: int
    """Assignments, backups among them; a lost answer that is repeated is none."""
    backups: int
    backups_won: int
    """Those that are in the cover."""
    wasted: int
    """Portions that arrived in a bundle that is not in the cover."""


@dataclass(slots=True, eq=False)
class Work:
    """An assignment that has not been reported, in the hands of one life of a replica."""

    assignment: Assignment
    holder: str
    since_s: float
    backup: bool


class Staged(NamedTuple):
    """A bundle that every shard holds."""

    bundle: BundleId
    portions: tuple[int, ...]
    loss: float
    samples: int
    backup: bool


class Portions:
    """One batch of `count` portions, numbered from 0.  Reports of other batches must not get here."""

    def __init__(
        self, count: int, *, bundle: int, backups: Backups, now: Callable[[], float], affinity: Mapping[int, str] | None = None,
        usual_s: float | None = None,
    ) -> None:  # fmt: skip
        """`bundle`: portions in a stretch.  `affinity`, `usual_s`: who computed what in the batch before, and how long a portion took."""
        assert count > 0
        assert bundle > 0
        self.count, self.bundle, self.backups, self.now = count, bundle, backups, now
        self.idle_reason = ""
        """Why the last one who asked got nothing."""
        self._usual_s, self._durations_s = usual_s, list[float]()
        self._lives: dict[str, int] = {}
        """Of each replica, the earliest life that may be given work."""
        self._works: dict[tuple[str, int], Work] = {}
        """By replica and life; also of lives that are over, since their report may still be on its way."""
        self._copies: defaultdict[int, list[Work]] = defaultdict(list)
        """Who works on a portion, of those alive, in the order of beginning."""
        self._returned: OrderedDict[int, str] = OrderedDict()
        """Portions that must be given out again, in the order of coming back, and why."""
        self._overdue: defaultdict[int, list[tuple[float, int]]] = defaultdict(list)
        """Heaps of (since, portion), by the length of the youngest assignment it is in.  Entries outlive their truth: see `_late`."""
        self._seen, self._lost = set[BundleId](), set[BundleId]()
        self._staged: dict[BundleId, Staged] = {}
        self._wholes: dict[int, Staged] = {}
        """By stretch."""
        self._singles: dict[int, Staged] = {}
        """By portion; stretches of one portion are here too."""
        self._uncovered = count
        self._given = self._backups_given = self._arrived = 0

        stretches = range(-(-count // bundle))
        self._free = bytearray(b"\1") * len(stretches)
        self._own: defaultdict[str, deque[int]] = defaultdict(deque)
        self._unclaimed, self._claimed = deque[int](), deque[int]()
        for stretch in stretches:
            owner = (affinity or {}).get(stretch * bundle)
            if owner is None:
                self._unclaimed.append(stretch)
            else:
                self._own[owner].append(stretch)
                self._claimed.append(stretch)

    # what replicas ask and report

    def give(self, replica: str, life: int) -> Assignment | None:
        """What this replica should do next; None for nothing now, and `idle_reason` says why.

        It has one thing to do at a time: if it asks again without having reported, the answer was lost, and is repeated.
        """
        self.idle_reason = ""
        if life > self._lives.get(replica, 0):
            self.gone(replica, life - 1)
        if life < self._lives.get(replica, 0):
            self.idle_reason = f"{replica}#{life} is over"
            return None
        if self.complete:
            self.idle_reason = "everything has arrived"
            return None
        work = self._works.get((replica, life))
        if work is not None:
            return work.assignment
        assignment = self._fresh(replica) or self._again() or self._backup()
        if assignment is not None:
            self._begin(replica, life, assignment)
        return assignment

    def arrived(self, bundle: BundleId, portions: tuple[int, ...], loss: float, samples: int) -> tuple[Decision, str]:
        """All shards hold this bundle: new (it may count), repeated (it was reported before) or useless (it never counts).

        A life that is over is believed: that all shards hold its bundle stays true after its end, and often it was not dead but
        slow, which is when its work is wanted most.  If a shard has lost the bundle since, the shard says so (`unstaged`).
        """
        if bundle in self._seen:
            return Decision.REPEATED, "reported before"
        work = self._works.get((bundle.replica, bundle.life))
        if work is None or work.assignment.portions != portions:
            return Decision.USELESS, f"{bundle.replica}#{bundle.life} was not given that"
        self._seen.add(bundle)
        del self._works[bundle.replica, bundle.life]
        self._drop(work)
        # Linear, but tens of thousands of floats move in microseconds.
        insort(self._durations_s, (self.now() - work.since_s) / len(portions))
        self._arrived += len(portions)
        if bundle in self._lost:
            self._owe(portions, f"a shard lost {bundle.label}")
            return Decision.USELESS, "a shard lost it before it was reported"
        new = [portion for portion in portions if not self._covered(portion)]
        if not new:
            return Decision.USELESS, "everything in it had arrived"
        self._stage(Staged(bundle, portions, loss, samples, work.backup))
        self._uncovered -= len(new)
        for portion in new:
            self._returned.pop(portion, None)
        return Decision.NEW, f"{len(new)} of {len(portions)} had not arrived"

    # what is lost

    def gone(self, replica: str, life: int) -> None:
        """This life, and every earlier one, is over: what it had not reported comes back, unless somebody else works on it too."""
        current = self._lives.get(replica, 0)
        if life < current:
            return
        self._lives[replica] = life + 1
        work = self._works.get((replica, current))
        if work is not None:
            self._drop(work)
            self._owe(work.assignment.portions, f"{work.holder} is over")

    def unstaged(self, bundles: Collection[BundleId]) -> None:
        """A shard has lost these, reported or not: they never count again, and what nothing else covers is wanted again."""
        missing = list[int]()
        self._lost.update(bundles)
        for bundle in bundles:
            staged = self._staged.pop(bundle, None)
            if staged is not None:
                self._unstage(staged)
                missing += [portion for portion in staged.portions if not self._covered(portion)]
        self._uncovered += len(missing)
        self._owe(sorted(missing), "a shard lost its bundle")  # sorted: a set's order is another one in every process

    # the cover

    @property
    def done(self) -> int:
        """How many portions have arrived in some bundle."""
        return self.count - self._uncovered

    @property
    def standing(self) -> str:
        """For an operator."""
        return f"{self.done} of {self.count} portions"

    @property
    def complete(self) -> bool:
        """Is there an exact cover now?"""
        return not self._uncovered

    def cover(self) -> tuple[BundleId, ...]:
        """The bundles that count, each portion in exactly one of them, by first portion."""
        assert self.complete, f"{self._uncovered} of {self.count} portions have not arrived"
        return tuple(staged.bundle for staged in self._covering())

    def loss(self) -> float:
        """Summed over the cover; exactly, since `sum` rounds otherwise on Python 3.12 than on 3.11."""
        assert self.complete
        return total(staged.loss for staged in self._covering())

    def samples(self) -> int:
        """Summed over the cover."""
        assert self.complete
        return sum(staged.samples for staged in self._covering())

    def _covering(self) -> Iterator[Staged]:
        """The cover, or what there is of it."""
        for stretch in range(len(self._free)):
            if stretch in self._wholes:
                yield self._wholes[stretch]
            else:
                yield from (self._singles[portion] for portion in self._stretch(stretch) if portion in self._singles)

    # what is learnt for the next batch, and for the report

    @property
    def usual_s(self) -> float | None:
        """How long a portion takes, from being given out to the report: the median of bundles so far, or that of the batch before."""
        return self._durations_s[len(self._durations_s) // 2] if self._durations_s else self._usual_s

    def affinity_after(self) -> dict[int, str]:
        """Who computed which portion: it has the data at hand."""
        return {portion: staged.bundle.replica for staged in self._covering() for portion in staged.portions}

    @property
    def counters(self) -> Counters:
        """What the batch has cost so far."""
        won = sum(staged.backup for staged in self._covering())
        return Counters(self._given, self._backups_given, won, self._arrived - self.done)

    # what is to be done next

    def _fresh(self, replica: str) -> Assignment | None:
        """A stretch that nobody has had: its own of the batch before, else the next that is nobody's, else the next."""
        for stretches, reason in (
            (self._own.get(replica), "as in the batch before"),
            (self._unclaimed, "the next"),
            (self._claimed, "the next, which another replica had in the batch before"),
        ):
            while stretches:
                stretch = stretches.popleft()
                if self._free[stretch]:
                    self._free[stretch] = False
                    return Assignment(tuple(self._stretch(stretch)), again=False, reason=reason)
        return None

    def _again(self) -> Assignment | None:
        """What came back first."""
        if not self._returned:
            return None
        portion, reason = self._returned.popitem(last=False)
        return Assignment((portion,), again=True, reason=reason)

    def _backup(self) -> Assignment | None:
        """What has been out for the longest time, of what is late."""
        usual_s = self.usual_s
        if not self.backups.copies:
            self.idle_reason = "everything is given out, and there are no backups"
            return None
        if usual_s is None:
            self.idle_reason = "everything is given out, and nothing has arrived yet that tells what is late"
            return None
        late = [head for length in self._overdue if (head := self._late(length, usual_s)) is not None]
        if not late:
            self.idle_reason = "everything is given out, and nothing is late that has no backup"
            return None
        since_s, portion = min(late)
        reason = (
            f"backup: {self._copies[portion][-1].holder} has had it for {self.now() - since_s:.3g} s, usual are {usual_s:.3g} s a portion"
        )
        return Assignment((portion,), again=True, reason=reason)

    def _late(self, length: int, usual_s: float) -> tuple[float, int] | None:
        """Which portion has been out for the longest time in an assignment of that length, if that is late."""
        heap = self._overdue[length]
        while heap:
            since_s, portion = heap[0]
            youngest = self._copies[portion][-1] if self._may_be_backed_up(portion) else None
            if youngest is not None and (youngest.since_s, len(youngest.assignment.portions)) == (since_s, length):
                late = self.now() - since_s > self.backups.minimum_age * usual_s * length
                return heap[0] if late else None
            heappop(heap)  # it has arrived, come back or got a copy since; if that is undone, `_owe` adds it again
        return None

    def _may_be_backed_up(self, portion: int) -> bool:
        return not self._covered(portion) and 1 <= len(self._copies[portion]) <= self.backups.copies

    # bookkeeping

    def _begin(self, replica: str, life: int, assignment: Assignment) -> None:
        backup = any(self._copies[portion] for portion in assignment.portions)
        work = self._works[replica, life] = Work(assignment, f"{replica}#{life}", self.now(), backup)
        self._given += 1
        self._backups_given += backup
        for portion in assignment.portions:
            self._copies[portion].append(work)
        self._owe(assignment.portions, "")

    def _drop(self, work: Work) -> None:
        """Nobody alive works on that any more; of a life that is over this is known already."""
        for portion in work.assignment.portions:
            if work in self._copies[portion]:
                self._copies[portion].remove(work)

    def _owe(self, portions: Iterable[int], reason: str) -> None:
        """Something has changed about these: see that they are given out again, at once or when they are late."""
        for portion in portions:
            if self._may_be_backed_up(portion):
                youngest = self._copies[portion][-1]
                heappush(self._overdue[len(youngest.assignment.portions)], (youngest.since_s, portion))
            elif not self._copies[portion] and not self._covered(portion):
                self._returned.setdefault(portion, reason)

    def _stage(self, staged: Staged) -> None:
        first, *more = staged.portions
        self._staged[staged.bundle] = staged
        if more:
            self._wholes[first // self.bundle] = staged
        else:
            self._singles[first] = staged

    def _unstage(self, staged: Staged) -> None:
        first, *more = staged.portions
        if more:
            del self._wholes[first // self.bundle]
        else:
            del self._singles[first]

    def _stretch(self, stretch: int) -> range:
        return range(stretch * self.bundle, min((stretch + 1) * self.bundle, self.count))

    def _covered(self, portion: int) -> bool:
        return portion in self._singles or portion // self.bundle in self._wholes
