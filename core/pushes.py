"""Which pushes a shard has already counted.

A push is identified by (sender, incarnation, sequence).  A sender has one push in flight to each shard, so its sequence
only grows; remembering the last one is enough.  Sequences begin again in every life, so a ledger without incarnations would
take a restarted replica's gradients for repetitions and eat them.  Kept with the parameters in one record: `core/shard.py`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from core.messages import Sender

BUNDLES = 1 << 32
"""A bundle of Sandblaster has a number above this where Downpour goes before: on every shard the same, whatever that has counted."""


class Admission(enum.Enum):
    """What a shard does with a push."""

    NEW = "new"
    REPEATED = "repeated"
    STALE = "stale"


@dataclass(slots=True)
class Pushes:
    """For each sender, the life and sequence of the last push that was counted."""

    last: dict[str, tuple[int, int]] = field(default_factory=dict)

    def judge(self, sender: Sender, sequence: int) -> Admission:
        """New, repeated (the reply was lost: acknowledge again, apply nothing) or stale (an earlier life: refuse)."""
        mark, last = (sender.incarnation, sequence), self.last.get(sender.name, (0, 0))
        if mark > last:
            return Admission.NEW
        return Admission.REPEATED if mark == last else Admission.STALE

    def count(self, sender: Sender, sequence: int) -> None:
        """This push is applied now."""
        self.last[sender.name] = (sender.incarnation, sequence)

    def join(self, sender: Sender) -> bool:
        """A life announces itself; False if a later one already has.  Repeating it changes nothing."""
        known = self.last.get(sender.name, (0, 0))
        if sender.incarnation > known[0]:
            self.last[sender.name] = (sender.incarnation, 0)
        return sender.incarnation >= known[0]

    def outlived(self, sender: Sender) -> bool:
        """Has a later life of this sender been seen?"""
        return sender.incarnation < self.last.get(sender.name, (0, 0))[0]
