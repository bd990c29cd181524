"""What must hold in every journal, whatever failed: an oracle that stands outside the system and reads only its record.

    acknowledged  ⊆  applied  ⊆  pushed,  each at most once

A push is identified by (sender, its life, shard, sequence).  A shard has a *surviving history*: the pushes that its present
parameters are made of.  A life that begins from a snapshot of n updates keeps the first n of them; the others are lost, and
a push that was lost before its sender heard of it is sent again and rightly applied again.  So "at most once" is said of
the surviving history, and of each life of a shard.

The same rules read a simulated journal and those of real processes.  Where the lines of different nodes were written by
different clocks, give `one_clock=False`: rules that need to know which of two nodes acted first are then left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from core.journal import Record

RULES: dict[str, str] = {
    "pushed in sequence": "a sender's life counts its pushes to a shard 1, 2, 3 and so on",
    "applied was pushed": "a shard applies nothing that was not sent to it, nor before it was sent",
    "counted once": "no push is twice in a shard's surviving history",
    "counted in order": "of one sender, a shard applies later lives after earlier ones, and each life's pushes in their sequence",
    "nothing skipped": "a shard's life that applied two pushes of one sender's life applied all those between them",
    "acknowledged was applied": "a sender takes no push for counted that its shard did not apply before",
    "acknowledged once": "a push is acknowledged once, and not applied again afterwards",
    "outlived": "once a sender's later life has joined, a shard applies nothing of an earlier one",
    "the dead are silent": "a life that crashed, or whose successor has begun, records nothing more",
    "restored what was durable": "a shard's next life begins by saying from which snapshot: the last that was durable, or 0",
    "a snapshot counts its updates": "what becomes durable has no more updates than were applied, and no fewer than the one before",
    "finished is finished": "a shard that has finished counts all its updates, and applies nothing more in that life",
    "staleness is a distance": "no gradient is older than the shard, or from its future",
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
        return f"{self.rule}: {self.what} (line {', '.join(map(str, self.lines))})"


@dataclass(slots=True)
class Findings:
    """What a journal says: the violations, and of which pushes each shard's parameters are made in the end, in order."""

    violations: list[Violation]
    surviving: dict[str, list[PushId]]
    pushed: dict[PushId, int]
    """Every push that was sent, with its number of gradients."""


def check(records: Iterable[Record], *, one_clock: bool = True) -> Findings:
    """Hold every rule against every record; an empty list of violations is a clean bill."""
    reader = _Reader(one_clock)
    lines = list(enumerate(records, start=1))
    for line, record in lines:
        if record.event == "pushed":
            reader.sent.setdefault(PushId(record.node, record.life, record.peer, record.number), line)
        elif record.event == "applied" and not one_clock:
            reader.applied.setdefault(push_of(record), line)
    for line, record in lines:
        reader.read(line, record)
    surviving = {name: shard.history for name, shard in sorted(reader.shards.items())}
    return Findings(reader.violations, surviving, reader.gradients)


@dataclass(slots=True)
class _Shard:
    """One shard as far as the journal has been read."""

    history: list[PushId] = field(default_factory=list)
    """Surviving pushes, in the order in which they were applied."""
    lines: dict[PushId, int] = field(default_factory=dict)
    """Where each of them was applied."""
    last: dict[str, tuple[PushId, bool]] = field(default_factory=dict)
    """Of each sender the last of them, and whether it was the present life that applied it."""
    durable: tuple[int, int] = 0, 0
    """The most updates that became durable, and the line that says so."""
    kept: dict[str, int] = field(default_factory=dict)
    """Updates that are durable at each place: on disk, under "", and in the mirror."""
    finished: int = 0
    """The line that says so; 0 while it has not."""


@dataclass(slots=True)
class _Reader:
    one_clock: bool
    violations: list[Violation] = field(default_factory=list)
    shards: dict[str, _Shard] = field(default_factory=dict)
    sent: dict[PushId, int] = field(default_factory=dict)
    gradients: dict[PushId, int] = field(default_factory=dict)
    applied: dict[PushId, int] = field(default_factory=dict)
    """Where a push was applied first, whether or not that survived; known beforehand where lines are of several clocks."""
    acknowledged: dict[PushId, int] = field(default_factory=dict)
    joined: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    """For each sender and shard, the latest life that joined, and the line."""
    sequences: dict[tuple[str, int, str], tuple[int, int]] = field(default_factory=dict)
    lives: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The latest life of each node, and its first line."""
    crashed: dict[tuple[str, int], int] = field(default_factory=dict)

    def read(self, line: int, record: Record) -> None:
        self.alive(line, record)
        rule = getattr(self, f"on_{record.event}", None)
        if rule is not None:
            rule(line, record)

    def broken(self, rule: str, what: str, *lines: int) -> None:
        assert rule in RULES
        self.violations.append(Violation(rule, what, tuple(sorted(set(lines)))))

    def alive(self, line: int, record: Record) -> None:
        """Who writes is alive, as far as the journal knows."""
        node, life = record.node, record.life
        if (fatal := self.crashed.get((node, life))) is not None and self.one_clock:
            self.broken("the dead are silent", f"{node}#{life} {record.event} after it crashed", fatal, line)
        latest, since = self.lives.get(node, (0, 0))
        if life > latest:
            self.lives[node] = life, line
            if node.startswith("shard/"):
                self.begins(line, record)
        elif life < latest:
            self.broken("the dead are silent", f"{node}#{life} {record.event} after life {latest} began", since, line)

    # shards

    def begins(self, line: int, record: Record) -> None:
        """A shard's life writes for the first time."""
        shard = self.shards.setdefault(record.node, _Shard())
        if record.life == 1:
            return
        number = record.number if record.event == "restored" else 0
        durable, persisted = shard.durable
        if record.event != "restored":
            self.broken("restored what was durable", f"{record.node}#{record.life} begins with {record.event}", line)
        elif number != durable and (self.one_clock or not durable < number <= len(shard.history)):
            # a process killed between the sync and the line that says so has kept more than its journal knows
            what = f"{record.node}#{record.life} begins with {number} updates; {durable} were durable"
            self.broken("restored what was durable", what, *filter(None, (persisted,)), line)
        shard.durable, shard.kept = (number, persisted), {}
        shard.finished = 0
        del shard.history[number:]
        shard.lines = {push: shard.lines[push] for push in shard.history}
        shard.last = {push.sender: (push, False) for push in shard.history}

    def on_applied(self, line: int, record: Record) -> None:
        shard, push = self.shards[record.node], push_of(record)
        if push not in self.sent or (self.one_clock and self.sent[push] > line):
            self.broken("applied was pushed", f"{push} was applied and not sent", *filter(None, (self.sent.get(push),)), line)
        if shard.finished:
            self.broken("finished is finished", f"{push} was applied afterwards", shard.finished, line)
        if not 0 <= record.value <= len(shard.history):
            self.broken("staleness is a distance", f"{push} has {record.value:g} of {len(shard.history)} updates", line)
        self.one_after_the_other(line, push, shard)
        if self.one_clock:
            if push in self.acknowledged:
                self.broken("acknowledged once", f"{push} was applied again", self.acknowledged[push], line)
            life, joined = self.joined.get((push.sender, push.shard), (0, 0))
            if life > push.life:
                self.broken("outlived", f"{push} was applied when life {life} had joined", joined, line)
        self.applied.setdefault(push, line)
        shard.history.append(push)
        shard.lines.setdefault(push, line)
        shard.last[push.sender] = push, True

    def one_after_the_other(self, line: int, push: PushId, shard: _Shard) -> None:
        """Of one sender, a surviving history holds ever later pushes; those of one life applied by one life, all of them."""
        if push in shard.lines:
            self.broken("counted once", f"{push} was applied again", shard.lines[push], line)
        elif push.sender in shard.last:
            before, here = shard.last[push.sender]
            if (before.life, before.sequence) > (push.life, push.sequence):
                self.broken("counted in order", f"{push} was applied after {before}", shard.lines[before], line)
            elif here and before.life == push.life and push.sequence > before.sequence + 1:
                self.broken("nothing skipped", f"{push} was applied next after {before}", shard.lines[before], line)

    def on_persisted(self, line: int, record: Record) -> None:
        shard = self.shards[record.node]
        before = shard.kept.get(record.peer, 0)
        if not before <= record.number <= len(shard.history):
            what = f"{record.node} has {record.number} durable updates, {len(shard.history)} applied, {before} durable before"
            self.broken("a snapshot counts its updates", what, *filter(None, (shard.durable[1],)), line)
        shard.kept[record.peer] = record.number
        shard.durable = max(shard.durable, (record.number, line))

    def on_finished(self, line: int, record: Record) -> None:
        shard = self.shards[record.node]
        if record.number != len(shard.history):
            self.broken("finished is finished", f"{record.node} counts {record.number} updates; {len(shard.history)} survive", line)
        if shard.finished:
            self.broken("finished is finished", f"{record.node} finished twice in one life", shard.finished, line)
        shard.finished = line

    # senders

    def on_joined(self, line: int, record: Record) -> None:
        self.joined[record.node, record.peer] = record.life, line

    def on_pushed(self, line: int, record: Record) -> None:
        push = PushId(record.node, record.life, record.peer, record.number)
        last, earlier = self.sequences.get((push.sender, push.life, push.shard), (0, 0))
        if push.sequence != last + 1:
            self.broken("pushed in sequence", f"{push} follows {last}", *filter(None, (earlier,)), line)
        self.sequences[push.sender, push.life, push.shard] = push.sequence, line
        self.gradients[push] = int(record.value)

    def on_acknowledged(self, line: int, record: Record) -> None:
        push = PushId(record.node, record.life, record.peer, record.number)
        if push in self.acknowledged:
            self.broken("acknowledged once", f"{push} was acknowledged again", self.acknowledged[push], line)
        if push not in self.applied:
            self.broken("acknowledged was applied", f"{push} was acknowledged and not applied", line)
        self.acknowledged[push] = line

    # cluster: whoever grants incarnations says which of them have ended, and how

    def on_crashed(self, line: int, record: Record) -> None:
        """A life that has crashed; of a machine there is only the name."""
        if record.number:
            self.crashed.setdefault((record.peer, record.number), line)


def push_of(record: Record) -> PushId:
    """The push of an `applied` record, whose peer is "replica/3#2"."""
    sender, _, life = record.peer.rpartition("#")
    return PushId(sender, int(life), record.node, record.number)
