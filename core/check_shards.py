"""What must hold of a shard: what it applies, makes durable and begins again with (rules of `core/checks.py`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from core.check_facts import Facts, PushId, push_of
from core.job import COORDINATOR, role_kind, shard_of
from core.journal import Record

RULES: dict[str, str] = {
    "applied was pushed": "a shard applies nothing that was not sent to it, nor before it was sent",
    "counted once": "no push is twice in a shard's history",
    "counted in order": "of one sender, a shard applies later lives after earlier ones, and each life's pushes in their sequence",
    "nothing skipped": "a shard's life that applied two pushes of one sender's life applied all those between them",
    "nothing acknowledged is lost": "with a mirror or a log, a push that was acknowledged is in the surviving history",
    "outlived": "once a sender's later life has joined, or a coordinator's has given out work, a shard applies nothing of an earlier one",
    "restored what was durable": "a shard's next life begins by saying with how many updates: no fewer than were durable, no more than were applied",
    "a snapshot counts its updates": "what becomes durable has no more updates than were applied, and no fewer than the one before",
    "fenced": "once a shard's later life has begun, an earlier one makes nothing durable on the same disk; the order of lines tells, so one clock alone",
    "finished is finished": "a shard that has finished counts all its updates, and applies nothing more in that life",
    "a warm start ends once": "a shard's life in which Downpour is over counts all its updates, and applies only the coordinator's steps",
    "staleness is a distance": "no gradient is older than the shard, or from its future",
}


@dataclass(slots=True)
class Life:
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
    began: int = 0
    """The first line that it wrote."""

    def restored(self, updates: int) -> Life:
        """The next life, that begins with the first so many of these."""
        history = self.history[:updates]
        lines = {push: self.lines[push] for push in history}
        return Life(history, lines, {push.sender: (push, False) for push in history}, (updates, self.durable[1]))


class ShardRules:
    """Of each shard, each life; in the order of the journal."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.shards: dict[str, dict[int, Life]] = {}
        """By name and life."""
        self.paused: dict[str, int] = {}
        """Where each role was stopped last: what it made durable then, it may not have lived to say."""
        self.copies_lost: dict[str, set[tuple[str, int]]] = {}
        """For each shard, its lives and its mirror's that were lost since there last were two copies of it."""
        self.applied_by: dict[PushId, int] = {}
        """The latest life of its shard that applied a push."""
        self.homes: dict[tuple[str, int], str] = {}
        """The machine of each life, where the journal tells: it has a disk of its own."""

    def heard(self, line: int, record: Record) -> None:
        """Whatever a life says first, it has begun."""
        if role_kind(record.node) == "shard" and record.life not in self.shards.setdefault(record.node, {}):
            self.begins(line, record)

    @property
    def surviving(self) -> dict[str, list[PushId]]:
        """The history of each shard's latest life."""
        return {name: lives[max(lives)].history for name, lives in sorted(self.shards.items())}

    def begins(self, line: int, record: Record) -> None:
        """A shard's life writes for the first time."""
        lives, name = self.shards[record.node], f"{record.node}#{record.life}"
        earlier = max((life for life in lives if life < record.life), default=0)
        before = lives.get(earlier, Life())
        number = record.number if record.event == "restored" else 0
        if record.event != "restored" and record.life > 1:
            self.facts.broken("restored what was durable", f"{name} begins with {record.event}", line)
        elif record.life > 1 and not self.may_begin_with(number, record.node, earlier, before):
            what = f"{name} begins with {number} updates; {before.durable[0]} were durable, {len(before.history)} applied"
            self.facts.broken("restored what was durable", what, before.durable[1], line)
        if self.both_copies_gone(record.node):
            self.facts.excused[record.node] = record.life
        lives[record.life] = before.restored(number)
        lives[record.life].began = line

    def both_copies_gone(self, shard: str) -> bool:
        return self.facts.durability == "mirror" and len(self.copies_lost.get(shard, ())) > 1

    def may_begin_with(self, updates: int, shard: str, earlier: int, before: Life) -> bool:
        durable, line = before.durable
        if self.both_copies_gone(shard):
            return updates <= len(before.history)
        if self.facts.durability == "none" and updates == 0:
            return True  # what was written down all the same is where the role was, and it may live elsewhere by now
        if self.facts.one_clock and self.facts.durability not in ("mirror", "log"):
            told_all = ((shard, earlier) in self.facts.crashed and self.paused.get(shard, 0) <= line) or not before.history
            return updates == durable if told_all else durable <= updates <= len(before.history)
        return durable <= updates <= len(before.history)

    def on_applied(self, line: int, record: Record) -> None:
        shard, push = self.shards[record.node][record.life], push_of(record)
        if push not in self.facts.sent or (self.facts.one_clock and self.facts.sent[push] > line):
            self.facts.broken("applied was pushed", f"{push} was applied and not sent", self.facts.sent.get(push, 0), line)
        if shard.finished:
            self.facts.broken("finished is finished", f"{push} was applied afterwards", shard.finished, line)
        if shard.warmed and push.sender != COORDINATOR:
            self.facts.broken("a warm start ends once", f"{push} was applied afterwards", shard.warmed, line)
        if not 0 <= record.value <= len(shard.history):
            self.facts.broken("staleness is a distance", f"{push} has {record.value:g} of {len(shard.history)} updates", line)
        self.one_after_the_other(line, push, shard)
        if self.facts.one_clock and record.life == max(self.shards[record.node]):
            if push in self.facts.acknowledged:
                self.facts.broken("acknowledged once", f"{push} was applied again", self.facts.acknowledged[push], line)
            life, joined = self.facts.joined.get((push.sender, push.shard), (0, 0))
            if life > push.life:
                self.facts.broken("outlived", f"{push} was applied when life {life} was there", joined, line)
        self.facts.applied.setdefault(push, line)
        self.applied_by[push] = max(record.life, self.applied_by.get(push, 0))
        shard.history.append(push)
        shard.lines.setdefault(push, line)
        shard.last[push.sender] = push, True

    def one_after_the_other(self, line: int, push: PushId, shard: Life) -> None:
        """Of one sender, a history holds ever later pushes; those of one life applied by one life, all of them."""
        if push in shard.lines:
            self.facts.broken("counted once", f"{push} was applied again", shard.lines[push], line)
        elif push.sender in shard.last:
            before, here = shard.last[push.sender]
            if (before.life, before.sequence) > (push.life, push.sequence):
                self.facts.broken("counted in order", f"{push} was applied after {before}", shard.lines[before], line)
            elif here and before.life == push.life and push.sequence > before.sequence + 1:
                self.facts.broken("nothing skipped", f"{push} was applied next after {before}", shard.lines[before], line)

    def on_given(self, line: int, record: Record) -> None:
        """A coordinator that gives out work has told every shard that its earlier lives are over."""
        for shard in self.shards if record.life > 1 else ():
            self.facts.joined[COORDINATOR, shard] = max(self.facts.joined.get((COORDINATOR, shard), (0, 0)), (record.life, line))

    def on_staged(self, line: int, record: Record) -> None:
        """A bundle of Sandblaster: what counts of it is the coordinator's to say, and a change of the parameters is its push."""
        self.facts.applied.setdefault(push_of(record), line)

    def on_started(self, _: int, record: Record) -> None:
        self.homes[record.peer, record.number] = record.note

    def on_persisted(self, line: int, record: Record) -> None:
        lives = self.shards[record.node]
        shard, latest = lives[record.life], max(lives)
        here, there = (self.homes.get((record.node, life)) for life in (record.life, latest))
        if record.life < latest and here == there and not record.peer and self.facts.one_clock:
            what = f"{record.node}#{record.life} wrote {record.number} updates when life {latest} had begun"
            self.facts.broken("fenced", what, lives[latest].began, line)
        before = shard.kept.get(record.peer, 0)
        if not before <= record.number <= len(shard.history):
            what = f"{record.node} has {record.number} durable updates, {len(shard.history)} applied, {before} durable before"
            self.facts.broken("a snapshot counts its updates", what, shard.durable[1], line)
        shard.kept[record.peer] = record.number
        if record.peer or self.facts.durability != "mirror":
            # with a mirror the promise is its copy; a shard that is told to end writes all the same
            shard.durable = max(shard.durable, (record.number, line))
        if record.peer:
            # two copies there are again: this life's, and that of the mirror's; either may have been lost before this line was written
            lost, present = self.copies_lost.get(record.node, set()), {record.node: record.life, record.peer: record.value}
            self.copies_lost[record.node] = {(name, life) for name, life in lost if life >= present.get(name, 0)}

    def on_finished(self, line: int, record: Record) -> None:
        shard = self.shards[record.node][record.life]
        shard.finished = self.over("finished is finished", line, record, shard.finished)

    def on_warmed(self, line: int, record: Record) -> None:
        shard = self.shards[record.node][record.life]
        shard.warmed = self.over("a warm start ends once", line, record, shard.warmed)

    def over(self, rule: str, line: int, record: Record, before: int) -> int:
        """A life counts all its updates at an end that comes once; the line that says so."""
        applied = len(self.shards[record.node][record.life].history)
        if record.number != applied:
            self.facts.broken(rule, f"{record.node} counts {record.number} updates; its history has {applied}", line)
        if before:
            self.facts.broken(rule, f"{record.node} {record.event} twice in one life", before, line)
        return line

    def on_crashed(self, line: int, record: Record) -> None:
        if record.number:
            self.on_lost(line, record)

    def on_paused(self, line: int, record: Record) -> None:
        self.paused[record.peer] = line

    def on_lost(self, _: int, record: Record) -> None:
        """A life that counts as over; of a machine there is only the name."""
        kind = role_kind(record.peer)
        if kind in ("shard", "mirror") and record.number:
            shard = record.peer if kind == "shard" else shard_of(record.peer)
            self.copies_lost.setdefault(shard, set()).add((record.peer, record.number))

    def at_the_end(self) -> None:
        if self.facts.durability not in ("mirror", "log"):
            return
        there = {push for history in self.surviving.values() for push in history}
        for push, line in self.facts.acknowledged.items():
            if push not in there and self.applied_by.get(push, 0) >= self.facts.excused.get(push.shard, 1):
                self.facts.broken("nothing acknowledged is lost", f"{push} was acknowledged, and is gone", self.facts.applied[push], line)
