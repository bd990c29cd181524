"""What happened when: who was up, which faults were at work, how fast updates came.  Taken from a journal, for the report's plots."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from core.job import COORDINATOR
from core.journal import Watcher
from report.watching import Watching


class Band(NamedTuple):
    """A stretch of time, `end_s` None while it lasts."""

    what: str
    """A life's number, or the fault: "fault.1 crash", "" for a failure that nobody declared."""
    who: str
    begin_s: float
    end_s: float | None
    why: str = ""


class Pace:
    """Counts over time in a fixed number of buckets, which double their width when the run outgrows them."""

    BUCKETS = 512

    def __init__(self) -> None:
        self.width_s = 2.0**-10
        self.counts = [0] * self.BUCKETS
        self.sums = [0.0] * self.BUCKETS

    def add(self, time_s: float, value: float) -> None:
        """One more then, with that value."""
        index = int(time_s / self.width_s)
        while index >= self.BUCKETS:
            self.widen()
            index >>= 1
        self.counts[index] += 1
        self.sums[index] += value

    def widen(self) -> None:
        """Each two neighbours become one bucket."""
        half = self.BUCKETS // 2
        self.width_s *= 2
        self.counts = [one + other for one, other in zip(self.counts[::2], self.counts[1::2], strict=True)] + [0] * half
        self.sums = [one + other for one, other in zip(self.sums[::2], self.sums[1::2], strict=True)] + [0.0] * half

    def coarse(self, buckets: int, end_s: float) -> list[tuple[float, int, float]]:
        """No more than so many buckets up to that time: (begin, count, sum of the values)."""
        used = min(self.BUCKETS, int(end_s / self.width_s) + 1)
        step = 1
        while used > buckets * step:
            step *= 2
        return [
            (index * self.width_s, sum(self.counts[index : index + step]), sum(self.sums[index : index + step]))
            for index in range(0, used, step)
        ]


@dataclass(slots=True)
class Chronicle(Watching):
    """Of one run."""

    lives: dict[str, list[Band]] = field(default_factory=dict)
    """By role."""
    homes: dict[str, str] = field(default_factory=dict)
    """The machine of each role's latest life, where the journal tells it."""
    faults: list[Band] = field(default_factory=list)
    updates: Pace = field(default_factory=Pace)
    """Gradients that shards applied or staged; the values are staleness."""
    _open: dict[tuple[str, str], int] = field(default_factory=dict)
    """Where in `faults` that stands which is not over: by kind and whom it concerns."""

    @property
    def takers(self) -> dict[str, Watcher]:
        return {
            "applied": self.applied, "staged": self.staged, "granted": self.granted, "started": self.started, "ended": self.ended, "crashed": self.crashed,
            "lost": self.lost, "enlisted": self.enlisted, "paused": self.paused, "resumed": self.resumed, "slowed": self.slowed,
        }  # fmt: skip

    def applied(self, time_s: float, _node: str, _life: int, _event: str, peer: str, _number: int, value: float, _note: str) -> None:
        if not peer.startswith(COORDINATOR):
            self.updates.add(time_s if time_s > 0 else 0.0, value)

    def staged(self, time_s: float, *_: object) -> None:
        self.updates.add(time_s if time_s > 0 else 0.0, 0.0)

    # lives

    def granted(self, _time_s: float, _node: str, _life: int, _event: str, peer: str, _number: int, _value: float, note: str) -> None:
        self.homes[peer] = note

    def started(self, time_s: float, _node: str, _life: int, _event: str, peer: str, number: int, *_: object) -> None:
        self._ends(peer, time_s, "its next life began")
        self.lives.setdefault(peer, []).append(Band(str(number), peer, float(time_s), None))
        self._over("crash", peer, time_s)

    def ended(self, time_s: float, _node: str, _life: int, _event: str, peer: str, _number: int, _value: float, note: str) -> None:
        self._ends(peer, time_s, note)

    def crashed(self, time_s: float, _node: str, _life: int, _event: str, peer: str, _number: int, _value: float, note: str) -> None:
        self._ends(peer, time_s, note)
        self._begins("crash", peer, time_s, note)

    def lost(self, time_s: float, _node: str, _life: int, _event: str, peer: str, _number: int, _value: float, note: str) -> None:
        self._ends(peer, time_s, note)

    def enlisted(self, time_s: float, _node: str, _life: int, _event: str, peer: str, *_: object) -> None:
        self._over("crash", peer, time_s)

    def _ends(self, role: str, time_s: float, why: str) -> None:
        lives = self.lives.get(role)
        if lives and lives[-1].end_s is None:
            lives[-1] = lives[-1]._replace(end_s=time_s, why=why)

    # faults

    def paused(self, time_s: float, _node: str, _life: int, _event: str, peer: str, _number: int, _value: float, note: str) -> None:
        self._begins("pause", peer, time_s, note)

    def resumed(self, time_s: float, _node: str, _life: int, _event: str, peer: str, *_: object) -> None:
        self._over("pause", peer, time_s)

    def slowed(self, time_s: float, _node: str, _life: int, _event: str, peer: str, _number: int, value: float, note: str) -> None:
        self._over("slow", peer, time_s)
        if value > 1:
            self._begins("slow", peer, time_s, note)

    def _begins(self, kind: str, who: str, time_s: float, note: str) -> None:
        self._open[kind, who] = len(self.faults)
        self.faults.append(Band(" ".join(note.split()[:2]) if note.startswith("fault.") else "", who, time_s, None, note))

    def _over(self, kind: str, who: str, time_s: float) -> None:
        index = self._open.pop((kind, who), None)
        if index is not None:
            self.faults[index] = self.faults[index]._replace(end_s=time_s)
