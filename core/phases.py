"""What one machine of a replica may compute next: the ledger of one minibatch.  Pure: no await, no world.

The upward phase computes parts from their inputs, the downward phase their gradients.  Each part is computed as soon as its inputs are
there (paper, section 3), whatever else is still under way; a message leaves as soon as its part is computed, and a gradient as
soon as every part here that used the message has had its turn.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from typing import Literal, NamedTuple

from core.partitioning import Partitioned, Placed, Task

Phase = Literal["up", "down"]


class Arrival(NamedTuple):
    """A message in one of the phases: of the upward phase it comes to its destination, of the downward phase back to its source."""

    phase: Phase
    message: int


class Phases:
    """What has to come before what, on one machine; `begin` makes the ledger of a minibatch."""

    def __init__(self, partitioned: Partitioned, machine: int, *, down: bool = True) -> None:
        """`down`: without it, it is inference."""
        self.machine = machine
        parts = partitioned.parts_of(machine)
        own = {placed.number for placed in parts}
        self.after: defaultdict[Task | Arrival, list[Task]] = defaultdict(list)
        self.waits_for: dict[Task, int] = {Task("forward", placed.number): 0 for placed in parts}
        self.sends: defaultdict[Task, list[Arrival]] = defaultdict(list)
        self.uses: defaultdict[int, list[int]] = defaultdict(list)
        """Of each part: the messages that it uses."""
        self.comes = partitioned.messages_to(machine)
        self.goes = partitioned.messages_from(machine)
        self.at_once = [Arrival("up", message.number) for message in self.goes if message.weights]
        """Parameters that others need: they leave before anything is computed."""
        for message in self.goes:
            if not message.weights:
                self.sends[Task("forward", message.of)].append(Arrival("up", message.number))
        for placed in parts:
            takes = [take for region in placed.inputs if region is not None for take in region]
            takes += [take for region in placed.parameters.values() for take in region if take.message is not None]
            for number in sorted({take.message for take in takes if take.message is not None}):
                self.first(Arrival("up", number), Task("forward", placed.number))
                self.uses[placed.number].append(number)
            local = {take.source for region in placed.inputs if region is not None for take in region if take.message is None}
            for producer in sorted(local & own):
                self.first(Task("forward", producer), Task("forward", placed.number))
        self.final: set[Arrival] = set()
        """What must have come besides, before the minibatch is over: gradients of parameters that others used."""
        if down:
            self.downward(parts)

    def downward(self, parts: list[Placed]) -> None:
        """The same in the other direction."""
        upward = [(before, after) for before, found in list(self.after.items()) for after in found]
        for placed in parts:
            down = Task("backward", placed.number)
            self.waits_for[down] = 0
            self.first(Task("forward", placed.number), down)
        for before, after in upward:
            if isinstance(before, Task):
                self.first(Task("backward", after.part), Task("backward", before.part))
        for message in self.goes:
            if message.weights:
                self.final.add(Arrival("down", message.number))
            else:
                self.first(Arrival("down", message.number), Task("backward", message.of))

    def first(self, before: Task | Arrival, after: Task) -> None:
        self.after[before].append(after)
        self.waits_for[after] = self.waits_for.get(after, 0) + 1

    def begin(self) -> Ledger:
        return Ledger(self)


class Ledger:
    """How far one minibatch is on one machine."""

    def __init__(self, phases: Phases) -> None:
        self.phases = phases
        self._waits_for = dict(phases.waits_for)
        self._left = len(self._waits_for)
        self._uses = Counter(number for used in phases.uses.values() for number in used)
        self._final = set(phases.final)
        self._come: set[Arrival] = set()
        self._ready = [order(task) for task, count in self._waits_for.items() if not count]
        heapq.heapify(self._ready)

    @property
    def done(self) -> bool:
        """Is everything computed, and has everything come?"""
        return not self._left and not self._final

    def next(self) -> Task | None:
        """A part whose inputs are all there, the first in the order of the graph; None if all that is left waits for a message."""
        return heapq.heappop(self._ready)[-1] if self._ready else None

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

    def arrived(self, arrival: Arrival) -> bool:
        """A message has come; False if it had come before."""
        if arrival in self._come:
            return False
        self._come.add(arrival)
        self._final.discard(arrival)
        self._release(arrival)
        return True

    @property
    def ready(self) -> bool:
        """Is there a part that may be computed now?"""
        return bool(self._ready)

    def leaving(self, task: Task) -> list[Arrival]:
        """The messages that leave once this is computed; to be asked once, for a part that is to be computed now."""
        if task.direction == "forward":
            return list(self.phases.sends.get(task, ()))
        found = []
        for number in self.phases.uses.get(task.part, ()):  # gradients of what no other part here has yet to use
            self._uses[number] -= 1
            if not self._uses[number]:
                found.append(Arrival("down", number))
        return found

    def computed(self, task: Task) -> None:
        """A part is computed."""
        self._left -= 1
        self._release(task)

    def _release(self, event: Task | Arrival) -> None:
        for task in self.phases.after.get(event, ()):
            self._waits_for[task] -= 1
            if not self._waits_for[task]:
                heapq.heappush(self._ready, order(task))


def order(task: Task) -> tuple[int, int, Task]:
    """Upward before downward; downward from the end of the graph."""
    return (0, task.part, task) if task.direction == "forward" else (1, -task.part, task)
