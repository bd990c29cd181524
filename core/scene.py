"""Who is there and what is under way, as far as a journal has told: what `core/situations.py` looks at.

Taken from the records as they come, without a view of the world that writes them, so the same for simulated and real runs.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import NamedTuple

from core.job import COORDINATOR, SUPERVISOR, role_kind, unit_of
from core.journal import Record


class Sent(NamedTuple):
    """A push on its way: of which life of its sender, and to which life of its shard."""

    life: int
    sequence: int
    shard_life: int


class Taken(NamedTuple):
    """The last push of a sender that a shard has applied or staged, which life of the shard did, and the updates that made."""

    life: int
    sequence: int
    shard_life: int
    updates: int


DONE = ("done", "ended with exit code 0")
"""How a role ended that had nothing left to do, in the words of either world."""


def sender_of(record: Record) -> tuple[str, int]:
    """Name and life of a peer as "replica/3#2"; life 0 where none is told."""
    name, _, life = record.peer.partition("#")
    return name, int(life or 0)


class Scene:
    """Between two records."""

    def __init__(self) -> None:
        self.lives: dict[str, int] = {}
        """The latest life of each role that was granted: who counts."""
        self.begun: dict[str, int] = {}
        """The latest that has started."""
        self.homes: dict[str, str] = {}
        """The machine of the latest granted."""
        self.pending: set[str] = set()
        """Roles whose granted life has not started."""
        self.down: set[str] = set()
        """Roles that died, or were taken for dead, and have not started again."""
        self.dead: set[tuple[str, int]] = set()
        """Lives that are over for certain."""
        self.retired: set[str] = set()
        """Replicas that ended because there was nothing left to do."""
        self.paused: dict[str, int] = {}
        """The life in which each was stopped."""
        self.leaving: set[str] = set()
        """Machines that will be taken, and are not empty yet as far as the supervisor knows."""

        self.sent: defaultdict[str, dict[str, Sent]] = defaultdict(dict)
        """By shard and sender: what has not been acknowledged."""
        self.taken: defaultdict[str, dict[str, Taken]] = defaultdict(dict)
        self.updates: Counter[str] = Counter()
        """That each shard's latest life is made of."""
        self.promised: Counter[str] = Counter()
        """Of them, up to the last that was acknowledged."""
        self.restored: dict[str, int] = {}
        """The latest life of each shard that has read what was kept."""
        self.staged: Counter[str] = Counter()
        """Bundles that each shard's latest life has staged since the last point."""
        self.synced: dict[str, int] = {}
        """By shard, the life of its mirror that holds everything; 0 once that is gone."""
        self.over: dict[tuple[str, str], int] = {}
        """By event and shard: the life that was the last to say that it has `finished`, or is `warmed`."""

        self.covered = False
        """Has the coordinator a cover, and no step yet?"""
        self.stepping: set[str] = set()
        """The shards that the coordinator has asked to take the step under way."""
        self.stepped: set[str] = set()
        """Those of them that have taken it."""
        self.backups: set[str] = set()
        """Lives of replicas that work on a backup, as "replica/3#2"."""

        self.passes: defaultdict[str, dict[str, int]] = defaultdict(dict)
        """Of each replica on several machines: with how many minibatches of its latest life each machine was through."""
        self.broken: dict[str, int] = {}
        """The latest life of such a replica of which a machine was lost."""

    def take(self, record: Record) -> None:
        """What is true after it."""
        taker = TAKERS.get(record.event)
        if taker is not None:
            taker(self, record)

    def alive(self, role: str) -> bool:
        """Has it started, and is it not down?"""
        return role in self.begun and role not in self.down

    def latest(self, record: Record) -> bool:
        """Is the record about, as its peer, the latest life that has started of a role?"""
        return record.number > 0 and record.number >= self.begun.get(record.peer, 0)

    def awaiting(self, shard: str) -> bool:
        """Has a push to it not been acknowledged?"""
        return bool(self.sent.get(shard))

    # lives

    def on_granted(self, record: Record) -> None:
        self.lives[record.peer] = record.number
        self.pending.add(record.peer)
        self.homes[record.peer] = record.note.rpartition(" ")[2]  # "machine/3", or "mirror/0#1 on machine/3"
        self.retired.discard(record.peer)

    on_promoted = on_granted

    def on_started(self, record: Record) -> None:
        role = record.peer
        if record.number < self.begun.get(role, 0):
            return  # one that was held up, and begins after its successor
        self.begun[role] = record.number
        self.pending.discard(role)
        self.down.discard(role)
        if role == SUPERVISOR:
            self.homes[role] = record.note
        elif role_kind(role) == "shard":
            self.staged[role] = self.synced[role] = 0
        else:
            self.gone(role)
        if (unit := unit_of(role)) != role:
            self.passes[unit][role] = 0

    def on_crashed(self, record: Record) -> None:
        self.leaving.discard(record.peer)
        if record.number:
            self.dead.add((record.peer, record.number))
            self.fall(record)

    def on_lost(self, record: Record) -> None:
        if record.number:
            self.fall(record)

    def fall(self, record: Record) -> None:
        """A life is over, or counts as over."""
        role = record.peer
        if not self.latest(record):
            return
        self.down.add(role)
        self.gone(role)
        if role_kind(role) == "mirror":
            self.synced["shard" + role.removeprefix("mirror")] = 0
        elif (unit := unit_of(role)) != role:
            self.broken[unit] = max(record.number, self.broken.get(unit, 0))

    def on_ended(self, record: Record) -> None:
        """Of itself: there was nothing left to do, or a mirror has become the shard, or its machine will be taken."""
        role = record.peer
        self.dead.add((role, record.number))
        if role_kind(role) == "replica" and record.note.startswith(DONE):
            self.retired.add(role)
            self.gone(role)
        elif role_kind(role) != "evaluator":
            self.fall(record)

    def gone(self, sender: str) -> None:
        """What it had sent will not be acknowledged any more."""
        for sent in self.sent.values():
            sent.pop(sender, None)
        if sender == COORDINATOR:
            self.covered = False
            self.stepping, self.stepped = set(), set()

    def on_paused(self, record: Record) -> None:
        self.paused[record.peer] = record.number or self.begun.get(record.peer, 0)

    def on_resumed(self, record: Record) -> None:
        self.paused.pop(record.peer, None)

    def on_preempted(self, record: Record) -> None:
        self.leaving.add(record.peer)

    def on_left(self, record: Record) -> None:
        self.leaving.discard(record.peer)

    # pushes

    def on_pushed(self, record: Record) -> None:
        self.sent[record.peer][record.node] = Sent(record.life, record.number, self.begun.get(record.peer, 0))
        if record.node == COORDINATOR:
            self.stepping.add(record.peer)

    def on_acknowledged(self, record: Record) -> None:
        shard = record.peer
        self.sent[shard].pop(record.node, None)
        taken = self.taken[shard].get(record.node)
        if taken is not None and taken.shard_life >= self.begun.get(shard, 0):
            self.promised[shard] = max(self.promised[shard], taken.updates)

    def on_applied(self, record: Record) -> None:
        sender, life = sender_of(record)
        if record.life >= self.begun.get(record.node, 0):
            self.updates[record.node] += 1
        self.taken[record.node][sender] = Taken(life, record.number, record.life, self.updates[record.node])
        if sender == COORDINATOR:
            self.stepped.add(record.node)

    def on_staged(self, record: Record) -> None:
        sender, life = sender_of(record)
        self.taken[record.node][sender] = Taken(life, record.number, record.life, 0)
        self.staged[record.node] += 1

    def on_cleared(self, record: Record) -> None:
        """The point is over: whatever replicas still have on its way to it will be told so."""
        self.staged[record.node] = 0
        sent = self.sent[record.node]
        self.sent[record.node] = {COORDINATOR: sent[COORDINATOR]} if COORDINATOR in sent else {}

    def on_restored(self, record: Record) -> None:
        self.restored[record.node] = record.life
        self.updates[record.node] = record.number
        self.promised[record.node] = min(self.promised[record.node], record.number)

    def on_persisted(self, record: Record) -> None:
        if record.peer:
            self.synced[record.node] = int(record.value)

    def on_finished(self, record: Record) -> None:
        self.over[record.event, record.node] = record.life
        self.sent[record.node].clear()  # what comes now is answered with that

    on_warmed = on_finished

    # the coordinator

    def on_given(self, record: Record) -> None:
        (self.backups.add if record.note.startswith("backup") else self.backups.discard)(record.peer)

    def on_covered(self, _: Record) -> None:
        self.covered = True

    def on_stepped(self, _: Record) -> None:
        self.covered = False
        self.stepping, self.stepped = set(), set()

    on_reset = on_stepped

    # the machines of a replica

    def on_passed(self, record: Record) -> None:
        passes = self.passes[unit_of(record.node)]
        passes[record.node] = passes.get(record.node, 0) + 1


TAKERS: dict[str, Callable[[Scene, Record], None]] = {
    name.removeprefix("on_"): taker for name, taker in vars(Scene).items() if name.startswith("on_")
}
