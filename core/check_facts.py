"""What the rules of `core/checks.py` share: what the journal has said so far, and what they say of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from core.job import Durability
from core.journal import Record


class PushId(NamedTuple):
    """One push to one shard, as all its repetitions carry it."""

    sender: str
    life: int
    shard: str
    sequence: int

    def __str__(self) -> str:
        return f"push {self.sequence} of {self.sender}#{self.life} to {self.shard}"


class Violation(NamedTuple):
    """A broken rule, and the lines of the journal (from 1) that prove it."""

    rule: str
    what: str
    lines: tuple[int, ...]

    def __str__(self) -> str:
        lines = f" (line {', '.join(map(str, self.lines))})" if self.lines else ""
        return f"{self.rule}: {self.what}{lines}"


@dataclass(slots=True)
class Facts:
    """What has been read that rules of several subjects need to know."""

    one_clock: bool
    durability: Durability | None
    staged_limit: int | None = None
    violations: list[Violation] = field(default_factory=list)
    sent: dict[PushId, int] = field(default_factory=dict)
    """Where a push was sent; known beforehand."""
    applied: dict[PushId, int] = field(default_factory=dict)
    """Where a push was applied or staged first, whether or not that survived; known beforehand where lines are of several clocks."""
    acknowledged: dict[PushId, int] = field(default_factory=dict)
    joined: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    """For each sender and shard, the latest life that joined, and the line."""
    granted: dict[tuple[str, int], int] = field(default_factory=dict)
    """Where a life was granted; known beforehand where lines are of several clocks."""
    crashed: dict[tuple[str, int], int] = field(default_factory=dict)
    excused: dict[str, int] = field(default_factory=dict)
    """Of a mirrored shard, the life before which its lives may have lost what was promised: both copies were gone, or taken for it."""
    units: dict[str, set[str]] = field(default_factory=dict)
    """The machines of each replica that is split over several."""

    def broken(self, rule: str, what: str, *lines: int) -> None:
        """`lines`: those that prove it; 0 stands for none."""
        self.violations.append(Violation(rule, what, tuple(sorted({line for line in lines if line}))))


def push_of(record: Record) -> PushId:
    """The push of an `applied` record, whose peer is "replica/3#2"."""
    sender, _, life = record.peer.rpartition("#")
    return PushId(sender, int(life), record.node, record.number)
