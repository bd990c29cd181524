"""What must hold in every journal, whatever failed: an oracle that stands outside the system and reads only its record.

    acknowledged  ⊆  applied  ⊆  pushed,  each at most once

A push is identified by (sender, its life, shard, sequence).  Each life of a shard has a *history*, the pushes that its
parameters are made of: it begins with those of the life before that had been kept, the others are lost.  The history of the
latest life is the one that *survives*.  A push that was lost before its sender heard of it is sent again and rightly applied
again, and a life that was given up while it still ran may go on applying what counts for nobody: so "at most once" is said of
each history.

The same rules read a simulated journal and those of real processes.  Where the lines of different nodes were written by
different clocks, give `one_clock=False`: rules that need to know which of two nodes acted first are then left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from core.job import COORDINATOR, SUPERVISOR, Durability, role_kind, shard_of, unit_of
from core.journal import Record
from core.pushes import BUNDLES

RULES: dict[str, str] = {
    "pushed in sequence": "a sender's life counts its pushes to a shard 1, 2, 3 and so on; after a warm start its bundles likewise",
    "applied was pushed": "a shard applies nothing that was not sent to it, nor before it was sent",
    "counted once": "no push is twice in a shard's history",
    "counted in order": "of one sender, a shard applies later lives after earlier ones, and each life's pushes in their sequence",
    "nothing skipped": "a shard's life that applied two pushes of one sender's life applied all those between them",
    "acknowledged was applied": "a sender takes no push for counted that its shard did not apply before",
    "acknowledged once": "a push is acknowledged once, and not applied again afterwards",
    "nothing acknowledged is lost": "with a mirror or a log, a push that was acknowledged is in the surviving history",
    "outlived": "once a sender's later life has joined, a shard applies nothing of an earlier one",
    "the dead are silent": "a life that crashed records nothing more",
    "restored what was durable": "a shard's next life begins by saying with how many updates: no fewer than were durable, no more than were applied",
    "a snapshot counts its updates": "what becomes durable has no more updates than were applied, and no fewer than the one before",
    "finished is finished": "a shard that has finished counts all its updates, and applies nothing more in that life",
    "a warm start ends once": "a shard's life in which Downpour is over counts all its updates, and applies only the coordinator's steps",
    "staleness is a distance": "no gradient is older than the shard, or from its future",
    "no half gradients": "a machine of a replica pushes only gradients of minibatches with which every machine of that life was through",
    "lives are granted once": "a life begins once, after it was granted, and is not granted again afterwards",
}


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
class Findings:
    """What a journal says: the violations, and of which pushes each shard's parameters are made in the end, in order."""

    violations: list[Violation]
    surviving: dict[str, list[PushId]]
    pushed: dict[PushId, int]
    """Every push that was sent, with its number of gradients."""


def check(records: Iterable[Record], *, one_clock: bool = True, durability: Durability | None = None) -> Findings:
    """Hold every rule against every record; an empty list of violations is a clean bill.

    `durability`: what the job promised; left out, nothing is said about what may be lost.
    """
    reader = _Reader(one_clock, durability)
    lines = list(enumerate(records, start=1))
    for line, record in lines:
        if record.event == "pushed":
            reader.sent.setdefault(PushId(record.node, record.life, record.peer, record.number), line)
        elif record.event in ("applied", "staged") and not one_clock:
            reader.applied.setdefault(push_of(record), line)
        elif record.event in ("granted", "promoted") and not one_clock:
            reader.granted.setdefault((record.peer, record.number), line)
    for line, record in lines:
        reader.read(line, record)
    surviving = {name: lives[max(lives)].history for name, lives in sorted(reader.shards.items())}
    if durability in ("mirror", "log"):
        reader.look_for_what_was_acknowledged(surviving)
    return Findings(reader.violations, surviving, reader.gradients)


@dataclass(slots=True)
class _Shard:
    """One life of a shard as far as the journal has been read."""

    history: list[PushId] = field(default_factory=list)
    """The pushes it is made of, in the order in which they were applied."""
    lines: dict[PushId, int] = field(default_factory=dict)
    """Where each of them was applied."""
    last: dict[str, tuple[PushId, bool]] = field(default_factory=dict)
    """Of each sender the last of them, and whether it was this life that applied it."""
    durable: tuple[int, int] = 0, 0
    """The most updates that became durable, and the line that says so."""
    kept: dict[str, int] = field(default_factory=dict)
    """Updates that are durable at each place: on disk, under "", and in the mirror."""
    finished: int = 0
    """The line that says so; 0 while it has not."""
    warmed: int = 0
    """Likewise of its warm start."""

    def restored(self, updates: int) -> _Shard:
        """The next life, that begins with the first so many of these."""
        history = self.history[:updates]
        lines = {push: self.lines[push] for push in history}
        return _Shard(history, lines, {push.sender: (push, False) for push in history}, (updates, self.durable[1]))


@dataclass(slots=True)
class _Reader:
    one_clock: bool
    durability: Durability | None
    violations: list[Violation] = field(default_factory=list)
    shards: dict[str, dict[int, _Shard]] = field(default_factory=dict)
    """By name and life."""
    sent: dict[PushId, int] = field(default_factory=dict)
    gradients: dict[PushId, int] = field(default_factory=dict)
    applied: dict[PushId, int] = field(default_factory=dict)
    """Where a push was applied first, whether or not that survived; known beforehand where lines are of several clocks."""
    acknowledged: dict[PushId, int] = field(default_factory=dict)
    joined: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    """For each sender and shard, the latest life that joined, and the line."""
    sequences: dict[tuple[str, int, str, bool], tuple[int, int]] = field(default_factory=dict)
    granted: dict[tuple[str, int], int] = field(default_factory=dict)
    started: dict[tuple[str, int], int] = field(default_factory=dict)
    crashed: dict[tuple[str, int], int] = field(default_factory=dict)
    paused: dict[str, int] = field(default_factory=dict)
    """Where each role was stopped last: what it made durable then, it may not have lived to say."""
    copies_lost: dict[str, set[tuple[str, int]]] = field(default_factory=dict)
    """For each shard, its lives and its mirror's that were lost since there last were two copies of it."""
    excused: dict[str, int] = field(default_factory=dict)
    """The life before which a shard's lives may have lost what they acknowledged: both copies were gone, or taken for it."""
    units: dict[str, set[str]] = field(default_factory=dict)
    """The machines of each replica that is split over several."""
    passed: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    """With how many minibatches each life of one was through, and the line that says so of the last."""
    carried: dict[tuple[str, int, str], int] = field(default_factory=dict)
    """How many gradients a life has pushed to a shard."""
    applied_by: dict[PushId, int] = field(default_factory=dict)
    """The latest life of its shard that applied a push."""

    def read(self, line: int, record: Record) -> None:
        if (fatal := self.crashed.get((record.node, record.life))) is not None and self.one_clock:
            self.broken("the dead are silent", f"{record.node}#{record.life} {record.event} after it crashed", fatal, line)
        if role_kind(record.node) == "shard" and record.life not in self.shards.setdefault(record.node, {}):
            self.begins(line, record)
        rule = getattr(self, f"on_{record.event}", None)
        if rule is not None:
            rule(line, record)

    def broken(self, rule: str, what: str, *lines: int) -> None:
        assert rule in RULES
        self.violations.append(Violation(rule, what, tuple(sorted({line for line in lines if line}))))

    # shards

    def begins(self, line: int, record: Record) -> None:
        """A shard's life writes for the first time."""
        lives, name = self.shards[record.node], f"{record.node}#{record.life}"
        earlier = max((life for life in lives if life < record.life), default=0)
        before = lives.get(earlier, _Shard())
        number = record.number if record.event == "restored" else 0
        if record.event != "restored" and record.life > 1:
            self.broken("restored what was durable", f"{name} begins with {record.event}", line)
        elif record.life > 1 and not self.may_begin_with(number, record.node, earlier, before):
            what = f"{name} begins with {number} updates; {before.durable[0]} were durable, {len(before.history)} applied"
            self.broken("restored what was durable", what, before.durable[1], line)
        if self.both_copies_gone(record.node):
            self.excused[record.node] = record.life
        lives[record.life] = before.restored(number)

    def both_copies_gone(self, shard: str) -> bool:
        return self.durability == "mirror" and len(self.copies_lost.get(shard, ())) > 1

    def may_begin_with(self, updates: int, shard: str, earlier: int, before: _Shard) -> bool:
        durable, line = before.durable
        if self.both_copies_gone(shard):
            return updates <= len(before.history)
        if self.durability == "none" and updates == 0:
            return True  # what was written down all the same is where the role was, and it may live elsewhere by now
        if self.one_clock and self.durability not in ("mirror", "log"):
            told_all = ((shard, earlier) in self.crashed and self.paused.get(shard, 0) <= line) or not before.history
            return updates == durable if told_all else durable <= updates <= len(before.history)
        return durable <= updates <= len(before.history)

    def on_applied(self, line: int, record: Record) -> None:
        shard, push = self.shards[record.node][record.life], push_of(record)
        if push not in self.sent or (self.one_clock and self.sent[push] > line):
            self.broken("applied was pushed", f"{push} was applied and not sent", self.sent.get(push, 0), line)
        if shard.finished:
            self.broken("finished is finished", f"{push} was applied afterwards", shard.finished, line)
        if shard.warmed and push.sender != COORDINATOR:
            self.broken("a warm start ends once", f"{push} was applied afterwards", shard.warmed, line)
        if not 0 <= record.value <= len(shard.history):
            self.broken("staleness is a distance", f"{push} has {record.value:g} of {len(shard.history)} updates", line)
        self.one_after_the_other(line, push, shard)
        if self.one_clock and record.life == max(self.shards[record.node]):
            if push in self.acknowledged:
                self.broken("acknowledged once", f"{push} was applied again", self.acknowledged[push], line)
            life, joined = self.joined.get((push.sender, push.shard), (0, 0))
            if life > push.life:
                self.broken("outlived", f"{push} was applied when life {life} had joined", joined, line)
        self.applied.setdefault(push, line)
        self.applied_by[push] = max(record.life, self.applied_by.get(push, 0))
        shard.history.append(push)
        shard.lines.setdefault(push, line)
        shard.last[push.sender] = push, True

    def one_after_the_other(self, line: int, push: PushId, shard: _Shard) -> None:
        """Of one sender, a history holds ever later pushes; those of one life applied by one life, all of them."""
        if push in shard.lines:
            self.broken("counted once", f"{push} was applied again", shard.lines[push], line)
        elif push.sender in shard.last:
            before, here = shard.last[push.sender]
            if (before.life, before.sequence) > (push.life, push.sequence):
                self.broken("counted in order", f"{push} was applied after {before}", shard.lines[before], line)
            elif here and before.life == push.life and push.sequence > before.sequence + 1:
                self.broken("nothing skipped", f"{push} was applied next after {before}", shard.lines[before], line)

    def on_staged(self, line: int, record: Record) -> None:
        """A bundle of Sandblaster: what counts of it is the coordinator's to say, and a change of the parameters is its push."""
        self.applied.setdefault(push_of(record), line)

    def on_persisted(self, line: int, record: Record) -> None:
        shard = self.shards[record.node][record.life]
        before = shard.kept.get(record.peer, 0)
        if not before <= record.number <= len(shard.history):
            what = f"{record.node} has {record.number} durable updates, {len(shard.history)} applied, {before} durable before"
            self.broken("a snapshot counts its updates", what, shard.durable[1], line)
        shard.kept[record.peer] = record.number
        if record.peer or self.durability != "mirror":  # with one, the promise is its copy; a shard that is told to end writes all the same
            shard.durable = max(shard.durable, (record.number, line))
        if record.peer:
            # two copies there are again: this life's, and that of the mirror's; either may have been lost before this line was written
            lost, present = self.copies_lost.get(record.node, set()), {record.node: record.life, record.peer: record.value}
            self.copies_lost[record.node] = {(name, life) for name, life in lost if life >= present.get(name, 0)}

    def on_finished(self, line: int, record: Record) -> None:
        shard = self.shards[record.node][record.life]
        if record.number != len(shard.history):
            what = f"{record.node} counts {record.number} updates; its history has {len(shard.history)}"
            self.broken("finished is finished", what, line)
        if shard.finished:
            self.broken("finished is finished", f"{record.node} finished twice in one life", shard.finished, line)
        shard.finished = line

    def on_warmed(self, line: int, record: Record) -> None:
        shard = self.shards[record.node][record.life]
        if record.number != len(shard.history):
            what = f"{record.node} counts {record.number} updates; its history has {len(shard.history)}"
            self.broken("a warm start ends once", what, line)
        if shard.warmed:
            self.broken("a warm start ends once", f"{record.node} is warm twice in one life", shard.warmed, line)
        shard.warmed = line

    # senders

    def on_joined(self, line: int, record: Record) -> None:
        self.joined[record.node, record.peer] = max(self.joined.get((record.node, record.peer), (0, 0)), (record.life, line))

    def on_pushed(self, line: int, record: Record) -> None:
        push = PushId(record.node, record.life, record.peer, record.number)
        bundle = push.sequence > BUNDLES
        key = push.sender, push.life, push.shard, bundle
        last, earlier = self.sequences.get(key, (BUNDLES if bundle else 0, 0))
        if push.sequence != last + 1:
            self.broken("pushed in sequence", f"{push} follows {last}", earlier, line)
        self.sequences[key] = push.sequence, line
        self.gradients[push] = int(record.value)
        if (unit := unit_of(record.node)) != record.node:
            self.made_whole(line, push, unit)

    def on_passed(self, line: int, record: Record) -> None:
        before, _ = self.passed.get((record.node, record.life), (0, 0))
        self.passed[record.node, record.life] = before + 1, line

    def made_whole(self, line: int, push: PushId, unit: str) -> None:
        """Had every machine of the replica computed all that this life has pushed so far?"""
        lane = push.sender, push.life, push.shard
        self.carried[lane] = carried = self.carried.get(lane, 0) + self.gradients[push]
        for machine in sorted(self.units[unit]) if self.one_clock else [push.sender]:
            count, last = self.passed.get((machine, push.life), (0, 0))
            if count < carried:
                self.broken("no half gradients", f"{push} carries gradient {carried}; {machine} was through with {count}", last, line)

    def on_acknowledged(self, line: int, record: Record) -> None:
        push = PushId(record.node, record.life, record.peer, record.number)
        if push in self.acknowledged:
            self.broken("acknowledged once", f"{push} was acknowledged again", self.acknowledged[push], line)
        if push not in self.applied:
            self.broken("acknowledged was applied", f"{push} was acknowledged and not applied", line)
        self.acknowledged[push] = line

    def look_for_what_was_acknowledged(self, surviving: dict[str, list[PushId]]) -> None:
        there = {push for history in surviving.values() for push in history}
        for push, line in self.acknowledged.items():
            if push not in there and self.applied_by.get(push, 0) >= self.excused.get(push.shard, 1):
                self.broken("nothing acknowledged is lost", f"{push} was acknowledged, and is gone", self.applied[push], line)

    # supervisor and cluster: who may begin, who has begun, and whose life is over

    def on_granted(self, line: int, record: Record) -> None:
        key = record.peer, record.number
        if key in self.started and self.one_clock:
            self.broken("lives are granted once", f"{key[0]}#{key[1]} is granted and has begun", self.started[key], line)
        self.granted.setdefault(key, line)
        if (unit := unit_of(record.peer)) != record.peer:
            self.units.setdefault(unit, set()).add(record.peer)

    on_promoted = on_granted

    def on_started(self, line: int, record: Record) -> None:
        key = record.peer, record.number
        if key in self.started:
            self.broken("lives are granted once", f"{key[0]}#{key[1]} begins again", self.started[key], line)
        elif key not in self.granted and key[0] != SUPERVISOR:
            self.broken("lives are granted once", f"{key[0]}#{key[1]} begins and was not granted", line)
        self.started[key] = line

    def on_lost(self, _: int, record: Record) -> None:
        """A life that counts as over; of a machine there is only the name."""
        kind = role_kind(record.peer)
        if kind in ("shard", "mirror") and record.number:
            shard = record.peer if kind == "shard" else shard_of(record.peer)
            self.copies_lost.setdefault(shard, set()).add((record.peer, record.number))

    def on_crashed(self, line: int, record: Record) -> None:
        if record.number:
            self.crashed.setdefault((record.peer, record.number), line)
            self.on_lost(line, record)

    def on_paused(self, line: int, record: Record) -> None:
        self.paused[record.peer] = line


def push_of(record: Record) -> PushId:
    """The push of an `applied` record, whose peer is "replica/3#2"."""
    sender, _, life = record.peer.rpartition("#")
    return PushId(sender, int(life), record.node, record.number)
