"""What must hold of whoever pushes: replicas, their machines, and the coordinator (rules of `core/checks.py`)."""

from __future__ import annotations

from core.check_facts import Facts, PushId
from core.job import COORDINATOR, unit_of
from core.journal import Record
from core.pushes import BUNDLES

RULES: dict[str, str] = {
    "pushed in sequence": "a sender's life counts its pushes to a shard 1, 2, 3 and so on; after a warm start its bundles likewise",
    "one push at a time": "a life in Downpour sends a shard its next push only when the one before is acknowledged; if it was refused, none",
    "acknowledged was applied": "a sender takes no push for counted that its shard did not apply before",
    "acknowledged once": "a push is acknowledged once, and not applied again afterwards",
    "no half gradients": "a machine of a replica pushes only gradients of minibatches with which every machine of that life was through",
}


class SenderRules:
    """Of each sender, each life."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.sequences: dict[tuple[str, int, str, bool], tuple[int, int]] = {}
        self.gradients: dict[PushId, int] = {}
        self.passed: dict[tuple[str, int], tuple[int, int]] = {}
        """With how many minibatches each life of one was through, and the line that says so of the last."""
        self.carried: dict[tuple[str, int, str], int] = {}
        """How many gradients a life has pushed to a shard."""

    def on_joined(self, line: int, record: Record) -> None:
        self.facts.joined[record.node, record.peer] = max(self.facts.joined.get((record.node, record.peer), (0, 0)), (record.life, line))

    def on_pushed(self, line: int, record: Record) -> None:
        push = PushId(record.node, record.life, record.peer, record.number)
        bundle = push.sequence > BUNDLES
        key = push.sender, push.life, push.shard, bundle
        last, earlier = self.sequences.get(key, (BUNDLES if bundle else 0, 0))
        if push.sequence != last + 1:
            self.facts.broken("pushed in sequence", f"{push} follows {last}", earlier, line)
        self.sequences[key] = push.sequence, line
        self.one_at_a_time(line, push, PushId(push.sender, push.life, push.shard, last), earlier)
        self.gradients[push] = int(record.value)
        if (unit := unit_of(record.node)) != record.node:
            self.made_whole(line, push, unit)

    def one_at_a_time(self, line: int, push: PushId, before: PushId, earlier: int) -> None:
        """Of Downpour, which alone joins shards: that the one before was not acknowledged is written, that it was refused is not."""
        life, _ = self.facts.joined.get((push.sender, push.shard), (0, 0))
        if (
            push.sender != COORDINATOR
            and life == push.life
            and 0 < before.sequence < push.sequence <= BUNDLES
            and before not in self.facts.acknowledged
        ):
            self.facts.broken("one push at a time", f"{push} was sent when {before} was in flight", earlier, line)

    def on_passed(self, line: int, record: Record) -> None:
        before, _ = self.passed.get((record.node, record.life), (0, 0))
        self.passed[record.node, record.life] = before + 1, line

    def made_whole(self, line: int, push: PushId, unit: str) -> None:
        """Had every machine of the replica computed all that this life has pushed so far?"""
        lane = push.sender, push.life, push.shard
        self.carried[lane] = carried = self.carried.get(lane, 0) + self.gradients[push]
        for machine in sorted(self.facts.units[unit]) if self.facts.one_clock else [push.sender]:
            count, last = self.passed.get((machine, push.life), (0, 0))
            if count < carried:
                self.facts.broken("no half gradients", f"{push} carries gradient {carried}; {machine} was through with {count}", last, line)

    def on_acknowledged(self, line: int, record: Record) -> None:
        push = PushId(record.node, record.life, record.peer, record.number)
        if push in self.facts.acknowledged:
            self.facts.broken("acknowledged once", f"{push} was acknowledged again", self.facts.acknowledged[push], line)
        if push not in self.facts.applied:
            self.facts.broken("acknowledged was applied", f"{push} was acknowledged and not applied", line)
        self.facts.acknowledged[push] = line
