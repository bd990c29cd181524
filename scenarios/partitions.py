"""From a scenario's `[model]` table to the parts of its graph on the machines of a replica, and whether they fit there."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

from core.boxes import volume
from core.graph import Graph, GraphError
from core.partitioning import Partitioned, Placed
from models import placement
from scenarios.estimate import Replica, minibatch_seconds
from scenarios.schema import Scenario
from scenarios.units import size_in_words

VECTORS = 4
"""A replica's own, as long as its parameters: they themselves, the gradient, what has accrued, and where a fetch arrives."""


class Chosen(NamedTuple):
    """A placement, and what a search looked at on the way to it, in order; nothing where none was wanted."""

    partitioned: Partitioned
    tried: list[placement.Tried]


def placement_of(scenario: Scenario, graph: Graph, samples: int) -> Partitioned:
    """The graph on the machines of a replica, as `model.placement` and `model.partitions` have it.  Raises GraphError.

    `samples`: of the minibatch for which METIS cuts, and a search looks for what is fastest.
    """
    return chosen(scenario, graph, samples).partitioned


def chosen(scenario: Scenario, graph: Graph, samples: int) -> Chosen:
    """The same, and what was tried."""
    wanted, partitions, tried = scenario.model.placement, scenario.model.partitions, list[placement.Tried]()
    if isinstance(wanted, dict):
        found = placement.by_hand(graph, wanted, partitions)
    elif wanted == "metis":
        found = placement.metis(graph, partitions, scenario.seed, samples)
    elif wanted == "search":
        estimate = partial(minibatch_seconds, scenario=scenario, samples=samples, replica=Replica(scenario, partitions))
        found, _, tried = placement.search(graph, partitions, estimate, seed=scenario.seed, samples=samples)
    else:
        found = placement.balanced(graph, partitions)
    return Chosen(Partitioned(graph, found, partitions), tried)


class Room(NamedTuple):
    """Bytes that a machine of a replica needs."""

    parts: list[tuple[Placed, float]]
    """Of each part: vectors of its parameters, what it takes and what it gives in both phases."""
    messages: float
    """What others send, kept for the way back."""

    @property
    def total(self) -> float:
        return sum(nbytes for _, nbytes in self.parts) + self.messages


def room(partitioned: Partitioned, machine: int, samples: int, bytes_of_element: int = 4) -> Room:
    """For a minibatch of so many samples.

    Of a parameter that several machines need, each counts what it needs; what comes with the minibatch counts once for each part that takes it.
    """
    parts = []
    for placed in partitioned.parts_of(machine):
        weights = sum(map(volume, placed.part.weights.values()))
        taken = sum(map(volume, placed.part.needs))
        parts.append((placed, float(bytes_of_element * (VECTORS * weights + samples * (taken + 2 * volume(placed.part.box))))))
    received = sum(message.count(samples) for message in partitioned.messages_to(machine))
    returned = sum(message.count(samples) for message in partitioned.messages_from(machine))
    return Room(parts, float(bytes_of_element * (received + returned)))


def check_parts_memory(partitioned: Partitioned, samples: int, memory_bytes: float, bytes_of_element: int = 4) -> None:
    """Raises GraphError for the machine that lacks most, with its largest part and all sizes."""
    rooms = [room(partitioned, machine, samples, bytes_of_element) for machine in range(partitioned.machines)]
    machine = max(range(len(rooms)), key=lambda number: rooms[number].total)
    worst = rooms[machine]
    if worst.total <= memory_bytes:
        return
    largest, nbytes = max(worst.parts, key=lambda one: one[1], default=(None, -math.inf))
    assert largest is not None
    raise GraphError(
        f"machine {machine} of a replica would need {size_in_words(worst.total)} for its {len(worst.parts)} parts and a minibatch of {samples},"
        f" {size_in_words(nbytes)} of it for {largest.name!r}; it has {size_in_words(memory_bytes)};"
        " allowed: more partitions, another placement, a smaller batch, or more memory"
    )
