"""What must hold of work that a coordinator gives out, of what shards stage of it, and of the steps taken (rules of `core/checks.py`).

A journal tells of a bundle whose it is, and that all shards hold it (`arrived`, new); which portions are in it, only what that life was
`given` last says.  Of an exact cover it tells the number of bundles.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from core.check_facts import Facts, PushId
from core.job import COORDINATOR
from core.journal import Record

RULES: dict[str, str] = {
    "given once": "in a batch no stretch is given out whole a second time, but to the life that has it and asks again",
    "a bundle counts once": "a bundle is new to the coordinator once, and has as many portions as its life was given last",
    "each portion once": "a cover is of so many bundles that have arrived, each portion of the batch in exactly one of them",
    "one gradient a replica": "a step of synchronous SGD is taken with gradients of that step, of distinct replicas",
    "arrived was staged": "a bundle is reported when its sender's pushes of it were all acknowledged; lines of several clocks do not tell",
    "bounded staging": "a shard's life has no more bundles staged at once than the job's limit, as far as it staged them itself",
    "what was staged is cleared": "a shard clears as many bundles as it staged since; a life that began with some, no fewer",
    "steps are taken in turn": "a coordinator's steps are numbered one after the other; at each setback or end of a life one may be taken unsaid; from life to life one clock alone tells",
    "no step is lost": "a step is taken again only if every shard has begun a new life since that may have lost it: with a log none, with a mirror where both copies were gone; one clock alone tells",
}


@dataclass(slots=True)
class Stretch:
    """Consecutive portions that are given out together, and singly when they are given out again."""

    portions: range
    line: int
    """Where they were given out."""
    whole: bool = False
    """Have they arrived in one bundle?"""
    singles: set[int] = field(default_factory=set)
    """Those that have arrived alone."""

    def bundles(self) -> set[int]:
        """In how many bundles it may be covered: none, if it cannot be."""
        singly = {len(self.portions)} if len(self.singles) == len(self.portions) else set()
        return singly | {1} if self.whole else singly


@dataclass(slots=True)
class Work:
    """What one life of a coordinator has given out, and what has come of it, since it began a batch or a step."""

    held: dict[str, tuple[range, int]] = field(default_factory=dict)
    """What each life of a replica was given last, and the line."""
    stretches: dict[int, Stretch] = field(default_factory=dict)
    """By each of its portions."""
    arrived: list[tuple[str, range, int]] = field(default_factory=list)
    """Whose bundles are new, what is in them, and the line."""
    shaken: bool = False
    """Was there a setback?  Then the batch begins anew at a moment that no line tells."""


class PortionRules:
    """Of each life of the coordinator, and of what shards have staged for it."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.works: dict[int, Work] = {}
        """By life."""
        self.counted: dict[tuple[str, int], int] = {}
        self.staged: dict[tuple[str, int], int] = {}
        """How many bundles each life of a shard has staged since it last cleared."""
        self.forgot: dict[str, int] = {}
        """For each shard that stages, where its latest life began that may have lost steps; 0 while there is none."""
        self.last: tuple[int, int, int, int] | None = None
        """The last step: its number, the life that took it, where it was asked for and where it was taken."""
        self.asked = self.setbacks = 0
        """Since then: where a shard was asked for a step first, and how many setbacks there were."""

    # portions

    def on_given(self, line: int, record: Record) -> None:
        work = self.works.setdefault(record.life, Work())
        portions = range(record.number, record.number + int(record.value))
        if work.held.get(record.peer, (None, 0))[0] == portions and not work.shaken:
            return  # the answer was lost, and is given again
        work.held[record.peer] = portions, line
        given = work.stretches.get(record.number)
        if len(portions) == 1 and given is not None:
            return
        if not work.shaken and (twice := next((work.stretches[one] for one in portions if one in work.stretches), None)) is not None:
            what = f"{record.peer} is given portions {portions[0]} to {portions[-1]}, some of which were given out"
            self.facts.broken("given once", what, twice.line, line)
        work.stretches.update(dict.fromkeys(portions, Stretch(portions, line)))

    def on_arrived(self, line: int, record: Record) -> None:
        if self.facts.one_clock:
            self.all_staged(line, record)
        if not record.note.startswith("new"):
            return
        work = self.works.setdefault(record.life, Work())
        bundle, (portions, given) = (record.peer, record.number), work.held.get(record.peer, (range(0), 0))
        if bundle in self.counted:
            self.facts.broken("a bundle counts once", f"{record.peer}:{record.number} is new again", self.counted[bundle], line)
        if len(portions) != int(record.value):
            what = f"{record.peer}:{record.number} has {record.value:g} portions; {len(portions)} were given"
            self.facts.broken("a bundle counts once", what, given, line)
        self.counted[bundle] = line
        work.arrived.append((record.peer, portions, line))
        stretch = work.stretches.get(portions.start)
        if stretch is not None and stretch.portions == portions:
            stretch.whole = True
        elif stretch is not None:
            stretch.singles.update(portions)

    def all_staged(self, line: int, record: Record) -> None:
        """Does the sender know that every shard to which it pushed it has it?"""
        sender, _, life = record.peer.rpartition("#")
        for shard in sorted(self.forgot):
            push = PushId(sender, int(life), shard, record.number)
            if push in self.facts.sent and push not in self.facts.acknowledged:
                self.facts.broken(
                    "arrived was staged", f"{push} was not acknowledged, and the bundle is reported", self.facts.sent[push], line
                )

    def on_covered(self, line: int, record: Record) -> None:
        work = self.works.pop(record.life, Work())
        sums, size = {0}, 0
        for stretch in {id(stretch): stretch for stretch in work.stretches.values()}.values():
            size += len(stretch.portions)
            sums = {before + bundles for before in sums for bundles in stretch.bundles()}
        if record.number not in sums or size != max(work.stretches, default=-1) + 1:
            what = f"{record.number} bundles cover a batch of {size} portions given out; what arrived covers it in {sorted(sums) or 'none'}"
            self.facts.broken("each portion once", what, *(arrived for _, _, arrived in work.arrived), line)

    # steps

    def on_pushed(self, line: int, record: Record) -> None:
        if record.node == COORDINATOR:
            self.asked = self.asked or line

    def on_reset(self, _: int, record: Record) -> None:
        self.setbacks += 1
        self.works.setdefault(record.life, Work()).shaken = True

    def on_stepped(self, line: int, record: Record) -> None:
        work = self.works.pop(record.life, Work())
        if not work.shaken:
            self.of_distinct_replicas(line, record, work)
        before = self.last
        if before is not None and (record.life == before[1] or (self.facts.one_clock and record.life > before[1])):
            self.in_turn(line, record, *before)
        if before is None or record.life >= before[1]:
            self.last = record.number, record.life, self.asked or line, line
        self.asked = self.setbacks = 0

    def of_distinct_replicas(self, line: int, record: Record, work: Work) -> None:
        """What has arrived since the step before, and is not in a cover, is what a step of synchronous SGD is taken with."""
        seen: dict[str, int] = {}
        for peer, portions, arrived in work.arrived:
            replica = peer.rpartition("#")[0]
            if replica in seen or record.number not in portions:
                what = f"step {record.number} is taken with {peer}'s gradient of step {portions.start}" + " too" * (replica in seen)
                self.facts.broken("one gradient a replica", what, seen.get(replica, 0), arrived, line)
            seen[replica] = arrived

    def in_turn(self, line: int, record: Record, before: int, life: int, asked: int, taken: int) -> None:
        unsaid = self.setbacks + record.life - life
        if record.number > before + 1 + unsaid or (record.number <= before and not unsaid):
            what = f"step {record.number} follows {before}; {unsaid} in between may be unsaid"
            self.facts.broken("steps are taken in turn", what, taken, line)
        elif record.number <= before and self.facts.one_clock:
            kept = [name for name, began in self.forgot.items() if began < asked]
            if kept:
                what = f"step {record.number} is taken again after {before}; {', '.join(kept)} had not lost it"
                self.facts.broken("no step is lost", what, taken, line)

    # staging

    def on_staged(self, line: int, record: Record) -> None:
        life = record.node, record.life
        self.forgot.setdefault(record.node, 0)
        self.staged[life] = staged = self.staged.get(life, 0) + 1
        if self.facts.staged_limit is not None and staged > self.facts.staged_limit:
            what = f"{record.node}#{record.life} has {staged} bundles staged; the limit is {self.facts.staged_limit}"
            self.facts.broken("bounded staging", what, line)

    def on_cleared(self, line: int, record: Record) -> None:
        staged = self.staged.pop((record.node, record.life), 0)
        if record.number < staged or (record.number > staged and record.life == 1):
            what = f"{record.node}#{record.life} clears {record.number} bundles; it staged {staged}"
            self.facts.broken("what was staged is cleared", what, line)

    def on_restored(self, line: int, record: Record) -> None:
        if self.facts.durability == "mirror" and self.facts.excused.get(record.node) != record.life:
            return
        if self.facts.durability != "log":
            self.forgot[record.node] = line
