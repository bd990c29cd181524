"""What one machine of a replica may compute next: the ledger of one minibatch.  Pure: no await, no world.

The upward phase computes parts from their inputs, the downward phase their gradients.  Each part is computed as soon as its inputs are
there (paper, section 3), whatever else is still under way; a message leaves as soon as its part is computed, and a gradient as
soon as every part here that used the message has had its turn.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Literal, NamedTuple
from weakref import WeakKeyDictionary

from core.partitioning import Partitioned, Placed, Task

Phase = Literal["up", "down"]


class Arrival(NamedTuple):
    """A message in one of the phases: of the upward phase it comes to its destination, of the downward phase back to its source."""

    phase: Phase
    message: int


@dataclass(slots=True, eq=False)
class Expected:
    """A message that is to come: from which machine, and a number that its elements are a multiple of."""

    arrival: Arrival
    machine: int
    multiple: int
    bit: int
    """Which of those that have come it is: sets would take ten times the room, for each machine of each replica."""
    after: list[int] = field(default_factory=list)
    """The tasks that wait for it, by place."""
    final: bool = False
    """Must it have come, though no task waits for it, before the minibatch is over?"""


class Phases:
    """What has to come before what, on one machine; `begin` makes the ledger of a minibatch."""

    def __init__(self, partitioned: Partitioned, machine: int, *, down: bool = True) -> None:
        """`down`: without it, it is inference."""
        self.machine = machine
        parts = partitioned.parts_of(machine)
        own = {placed.number for placed in parts}
        ways: tuple[Literal["forward", "backward"], ...] = ("forward", "backward") if down else ("forward",)
        self.tasks = sorted((Task(way, placed.number) for way in ways for placed in parts), key=order)
        """In the order in which they are computed, of those that may be."""
        self.place = {task: place for place, task in enumerate(self.tasks)}
        self.waits_for = [0] * len(self.tasks)
        """By place, as all that a ledger counts."""
        self.after: list[list[int]] = [[] for _ in self.tasks]
        """The tasks that wait for a task."""
        self.sends: defaultdict[Task, list[Arrival]] = defaultdict(list)
        self.uses: defaultdict[int, list[int]] = defaultdict(list)
        """Of each part: the messages that it uses."""
        self.goes = partitioned.messages_from(machine)
        self.expected: dict[Arrival, Expected] = {}
        """Every message that others may send here."""
        for message in partitioned.messages_to(machine):
            self.expect(Arrival("up", message.number), message.source, message.elements)
        for message in self.goes:
            self.expect(Arrival("down", message.number), message.destination, message.elements)
        self.at_once = [Arrival("up", message.number) for message in self.goes if message.weights]
        """Parameters that others need: they leave before anything is computed."""
        for message in self.goes:
            if not message.weights:
                self.sends[Task("forward", message.of)].append(Arrival("up", message.number))
        upward: list[tuple[Task, Task]] = []
        for placed in parts:
            forward = Task("forward", placed.number)
            takes = [take for region in placed.inputs if region is not None for take in region]
            takes += [take for region in placed.parameters.values() for take in region if take.message is not None]
            for number in sorted({take.message for take in takes if take.message is not None}):
                self.wait(Arrival("up", number), forward)
                self.uses[placed.number].append(number)
            local = {take.source for region in placed.inputs if region is not None for take in region if take.message is None}
            for producer in sorted(local & own):
                self.first(Task("forward", producer), forward)
                upward.append((Task("forward", producer), forward))
        self.users = Counter(number for used in self.uses.values() for number in used)
        """Of each message: how many parts here use it."""
        self.final = 0
        """So many messages are: gradients of parameters that others used."""
        if down:
            self.downward(parts, upward)

    def expect(self, arrival: Arrival, machine: int, multiple: int) -> None:
        self.expected[arrival] = Expected(arrival, machine, multiple, 1 << len(self.expected))

    def downward(self, parts: list[Placed], upward: list[tuple[Task, Task]]) -> None:
        """The same in the other direction; `upward`: which part is computed before which."""
        for placed in parts:
            self.first(Task("forward", placed.number), Task("backward", placed.number))
        for before, after in upward:
            self.first(Task("backward", after.part), Task("backward", before.part))
        for message in self.goes:
            if message.weights:
                self.expected[Arrival("down", message.number)].final = True
                self.final += 1
            else:
                self.wait(Arrival("down", message.number), Task("backward", message.of))

    def first(self, before: Task, after: Task) -> None:
        self.after[self.place[before]].append(self.place[after])
        self.waits_for[self.place[after]] += 1

    def wait(self, arrival: Arrival, after: Task) -> None:
        self.expected[arrival].after.append(self.place[after])
        self.waits_for[self.place[after]] += 1

    def begin(self) -> Ledger:
        return Ledger(self)


_KNOWN: WeakKeyDictionary[Partitioned, dict[tuple[int, bool], Phases]] = WeakKeyDictionary()


def phases_of(partitioned: Partitioned, machine: int, *, down: bool = True) -> Phases:
    """The same for every replica, and every life of one: ten replicas of 81 machines would else fill a gigabyte, and no cache."""
    known = _KNOWN.setdefault(partitioned, {})
    found = known.get((machine, down))
    if found is None:
        found = known[machine, down] = Phases(partitioned, machine, down=down)
    return found


class Ledger:
    """How far one minibatch is on one machine."""

    __slots__ = ("_come", "_left", "_missing", "_ready", "_users", "_waits_for", "phases")

    def __init__(self, phases: Phases) -> None:
        self.phases = phases
        self._waits_for = phases.waits_for.copy()
        self._left = len(self._waits_for)
        self._users = dict(phases.users)
        self._missing = phases.final
        self._come = 0
        self._ready = [place for place, count in enumerate(self._waits_for) if not count]

    @property
    def come(self) -> int:
        """What has come: a bit of each message."""
        return self._come

    @property
    def done(self) -> bool:
        """Is everything computed, and has everything come?"""
        return not self._left and not self._missing

    @property
    def waits(self) -> bool:
        """Is there nothing to do until a message comes?"""
        return not self._ready and bool(self._left or self._missing)

    def next(self) -> Task | None:
        """A part whose inputs are all there, the first in the order of the graph; None if all that is left waits for a message."""
        return self.phases.tasks[heappop(self._ready)] if self._ready else None

    def stretch(self) -> tuple[list[Task], list[Arrival]]:
        """Parts to be computed one after the other, whose inputs are all there by then, and the messages that leave after the last of them.

        It ends with the first that any message leaves after; no parts if all that is left waits for a message.  They count as computed.
        """
        tasks: list[Task] = []
        leaving: list[Arrival] = []
        while not leaving and (task := self.next()) is not None:
            tasks.append(task)
            leaving = self.leaving(task)
            self.computed(task)
        return tasks, leaving

    def arrived(self, expected: Expected) -> bool:
        """A message has come; False if it had come before."""
        if self._come & expected.bit:
            return False
        self._come |= expected.bit
        self._missing -= expected.final
        self._release(expected.after)
        return True

    def missing(self) -> list[Expected]:
        """The messages that must come before it is over, and have not."""
        return [one for one in self.phases.expected.values() if (one.after or one.final) and not self._come & one.bit]

    def leaving(self, task: Task) -> list[Arrival]:
        """The messages that leave once this is computed; to be asked once, for a part that is to be computed now."""
        if task.direction == "forward":
            return list(self.phases.sends.get(task, ()))
        found, users = [], self._users
        for number in self.phases.uses.get(task.part, ()):  # gradients of what no other part here has yet to use
            users[number] -= 1
            if not users[number]:
                found.append(Arrival("down", number))
        return found

    def computed(self, task: Task) -> None:
        """A part is computed."""
        self._left -= 1
        self._release(self.phases.after[self.phases.place[task]])

    def _release(self, places: list[int]) -> None:
        waits_for = self._waits_for
        for place in places:
            waits_for[place] -= 1
            if not waits_for[place]:
                heappush(self._ready, place)


def order(task: Task) -> tuple[int, int]:
    """Upward before downward; downward from the end of the graph."""
    return (0, task.part) if task.direction == "forward" else (1, -task.part)
