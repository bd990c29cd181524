"""Has a hunt for failures been where failures hide?  Coverage of situations, not of lines: named, and read from journals alone.

A schedule of faults may bite often and still never meet the moments that a protocol was made for: a push repeated to a shard that
has begun anew, a mirror promoted while a push is in flight.  `core/moments.py` names them.  What comes after the job's end is not
looked at: then processes are ended on purpose.

    situations = Situations()
    situations.attach(run.journal)              or  situations.read(records)
    total += situations.reached
    never = reachable("downpour", "mirror", partitions=1) - total.keys()
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from core.journal import Journal, Record
from core.moments import RULES, SITUATIONS
from core.scene import TAKERS, Scene

EVENTS = tuple(dict.fromkeys((*RULES, *TAKERS)))
"""That are looked at."""


def reachable(
    kind: str, durability: str, partitions: int = 1, faults: Collection[str] | None = None, *, warm: bool = True
) -> set[str]:  # fmt: skip
    """The names of all that a job can come into: `kind` and `durability` as in a scenario, `faults` the kinds there are (None: all).

    `warm`: is there a warm start before Sandblaster?
    """
    return {one.name for one in SITUATIONS.values() if one.possible(kind, durability, partitions, faults, warm=warm)}


class Situations:
    """Which were reached, and how often, by the journals of one run."""

    __slots__ = ("_concluded", "_scene", "reached")

    def __init__(self) -> None:
        self.reached: Counter[str] = Counter()
        self._scene, self._concluded = Scene(), False

    def attach(self, journal: Journal) -> None:
        """Take every record from now on."""
        for event in EVENTS:
            journal.watch(event, self.columns)

    def read(self, records: Iterable[Record]) -> None:
        """Take records that were written before."""
        for record in records:
            self.take(record)

    def columns(self, *columns: float | str) -> None:
        """A `core.journal.Watcher`."""
        self.take(Record(*columns))  # type: ignore[arg-type]

    def take(self, record: Record) -> None:
        """One more record."""
        if self._concluded:
            return
        for name, rule in RULES.get(record.event, ()):
            if rule(self._scene, record):
                self.reached[name] += 1
        self._scene.take(record)
        self._concluded = record.event == "concluded"
