"""Counts over the journal, taken as the records come or read back from a file: what the summary is made of."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from core.job import COORDINATOR
from core.journal import Watcher, number_or_nan
from report.watching import Watching


class Evaluation(NamedTuple):
    """One point of the loss curve."""

    time_s: float
    updates: int
    loss: float
    accuracy: float | None


@dataclass(slots=True)
class Tally(Watching):
    """Counts of one run."""

    staleness: Counter[float] = field(default_factory=Counter)
    by_sender: Counter[str] = field(default_factory=Counter)
    by_shard: Counter[str] = field(default_factory=Counter)
    """Updates that each shard's present life stands at."""
    events: Counter[str] = field(default_factory=Counter)
    curve: list[Evaluation] = field(default_factory=list)
    finished: dict[str, tuple[float, str]] = field(default_factory=dict)
    """When each shard finished, and why."""
    samples: dict[str, float] = field(default_factory=dict)
    """Of each shard that finished."""

    batches: int = 0
    """Of Sandblaster: passes over the data."""
    portions: Counter[str] = field(default_factory=lambda: Counter(given=0, backups=0, wasted=0))
    """That a coordinator gave out, of them as backups, and how many came when they were of no use."""
    staged_bytes: float = 0.0
    """The most that any shard has staged for one point."""
    steps: list[Evaluation] = field(default_factory=list)
    """The training loss of each iteration, or step, of a coordinator's."""

    warmed: dict[str, int] = field(default_factory=dict)
    """Of Sandblaster with a warm start: updates of each shard when that was over there."""

    COUNTED = ("repeated", "duplicate", "refused", "crashed", "dropped")

    @property
    def takers(self) -> dict[str, Watcher]:
        """Who counts which event."""
        takers: dict[str, Watcher] = {
            "applied": self.applied, "restored": self.restored, "evaluated": self.evaluated, "finished": self.finish,
            "staged": self.staged, "given": self.given, "arrived": self.arrived, "cleared": self.cleared, "covered": self.covered,
            "stepped": self.stepped, "warmed": self.warm,
        }  # fmt: skip
        return takers | dict.fromkeys(self.COUNTED, self.count)

    def applied(self, _time_s: float, node: str, _life: int, _event: str, peer: str, _number: int, value: float, _note: str) -> None:
        self.by_shard[node] += 1
        self.events["applied"] += 1
        if not peer.startswith(COORDINATOR):  # its steps are no gradients
            self.staleness[value] += 1
            self.by_sender[peer] += 1

    def staged(self, _time_s: float, _node: str, _life: int, _event: str, peer: str, *_: object) -> None:
        self.by_sender[peer] += 1

    def given(self, _time_s: float, _node: str, _life: int, _event: str, _peer: str, _number: int, value: float, note: str) -> None:
        self.portions["given"] += int(value)
        self.portions["backups"] += int(value) if note.startswith("backup") else 0

    def arrived(self, _time_s: float, _node: str, _life: int, _event: str, _peer: str, _number: int, value: float, note: str) -> None:
        self.portions["wasted"] += int(value) if note.startswith("useless") else 0

    def cleared(self, _time_s: float, _node: str, _life: int, _event: str, _peer: str, _number: int, value: float, _note: str) -> None:
        self.staged_bytes = max(self.staged_bytes, value)

    def covered(self, *_: object) -> None:
        self.batches += 1

    def stepped(self, time_s: float, _node: str, _life: int, _event: str, _peer: str, number: int, value: float, _note: str) -> None:
        self.steps.append(Evaluation(time_s, number, value, None))

    def warm(self, _time_s: float, node: str, _life: int, _event: str, _peer: str, number: int, *_: object) -> None:
        self.warmed[node] = number

    def restored(self, _time_s: float, node: str, _life: int, _event: str, _peer: str, number: int, *_: object) -> None:
        self.by_shard[node] = number

    def evaluated(
        self, time_s: float, _node: str, _life: int, _event: str, _peer: str, number: int, value: float, note: str
    ) -> None:  # fmt: skip
        self.curve.append(Evaluation(time_s, number, value, number_or_nan(note) if note else None))

    def finish(
        self, time_s: float, node: str, _life: int, _event: str, _peer: str, _number: int, value: float, note: str
    ) -> None:  # fmt: skip
        self.finished[node] = (time_s, note)
        self.samples[node] = value

    def count(self, _time_s: float, _node: str, _life: int, event: str, *_: object) -> None:
        self.events[event] += 1

    @property
    def updates(self) -> int:
        """Of the shard that has applied the fewest."""
        return min(self.by_shard.values(), default=0)

    @property
    def warm_updates(self) -> int:
        """Of them, those of the warm start."""
        return min(self.warmed.values(), default=0)

    def mean_staleness(self) -> float:
        pushes = self.staleness.total()
        return sum(value * count for value, count in self.staleness.items()) / pushes if pushes else 0.0

    def finished_at(self) -> float | None:
        """When the last shard finished, if any did."""
        return max((time_s for time_s, _ in self.finished.values()), default=None)

    def reason(self) -> str:
        """Which stop condition ended the job."""
        return next((why for _, why in self.finished.values()), "")


def distribution(counts: Counter[float]) -> dict[str, float]:
    """Mean, median, 99th percentile (nearest rank) and maximum of counted whole values; zeros if there are none."""
    total = sum(counts.values())
    if not total:
        return {"mean": 0.0, "p50": 0, "p99": 0, "max": 0}
    values = sorted(counts)

    def percentile(share: float) -> int:
        seen = 0
        for value in values:
            seen += counts[value]
            if seen >= share * total:
                return int(value)
        return int(values[-1])

    mean = sum(value * count for value, count in counts.items()) / total
    return {"mean": round(mean, 3), "p50": percentile(0.5), "p99": percentile(0.99), "max": int(values[-1])}
