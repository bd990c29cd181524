"""What a graph on the machines of a replica comes to: figures of each machine and layer, and what crosses between which of them.

Sizes are of one minibatch.  Whatever crosses in the upward phase comes back, as large, in the downward phase.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

from core.graph import Node
from core.partitioning import Partitioned, Placed
from scenarios.partitions import room

PREFIXES = {1e15: "P", 1e12: "T", 1e9: "G", 1e6: "M", 1e3: "k"}


@dataclass(slots=True)
class OfMachine:
    """One machine of a replica."""

    machine: int
    parts: list[str]
    parameters: int
    flops: float
    """Of one sample, both phases."""
    share: float
    """Of all FLOPs."""
    memory_bytes: float
    sends_messages: int
    sends_up_bytes: int
    sends_down_bytes: int
    receives_up_bytes: int
    receives_down_bytes: int


@dataclass(slots=True)
class Crossing:
    """What goes upward from parts of a layer on one machine to another machine, where parts of that layer are the first to use it."""

    layer: str
    source: int
    user: str
    destination: int
    weights: bool
    """Are they parameters?"""
    messages: int = 0
    nbytes: int = 0


class Figures:
    """Of a graph on its machines."""

    def __init__(self, partitioned: Partitioned, samples: int, bytes_of_element: int = 4) -> None:
        """`samples`: of a minibatch."""
        self.partitioned, self.samples, self.bytes_of_element = partitioned, samples, bytes_of_element
        self.layers: list[Node] = list(partitioned.graph)
        self.parts: dict[str, dict[int, list[Placed]]] = {node.name: {} for node in self.layers}
        """Of each layer, by machine; of what comes with the minibatch there are none."""
        for placed in partitioned.parts:
            self.parts[placed.node.name].setdefault(placed.machine, []).append(placed)
        self.owned: defaultdict[tuple[str, int], int] = defaultdict(int)
        """Parameters, by layer and machine."""
        for piece in partitioned.pieces:
            self.owned[piece.node, piece.machine] += piece.count
        self.crossings = crossings(partitioned, samples, bytes_of_element)
        self.flops = sum(placed.flops + placed.flops_down for placed in partitioned.parts)
        self.machines = [self.of(machine) for machine in range(partitioned.machines)]

    def of(self, machine: int) -> OfMachine:
        partitioned = self.partitioned
        out, into = (
            sum(message.count(self.samples) for message in found) * self.bytes_of_element
            for found in (partitioned.messages_from(machine), partitioned.messages_to(machine))
        )
        flops = partitioned.flops_of(machine)
        return OfMachine(
            machine, [placed.name for placed in partitioned.parts_of(machine)], partitioned.sizes[machine], flops,
            flops / self.flops if self.flops else 0.0, room(partitioned, machine, self.samples, self.bytes_of_element).total,
            len(partitioned.messages_from(machine)) + len(partitioned.messages_to(machine)), out, into, into, out,
        )  # fmt: skip

    @property
    def bytes_up(self) -> int:
        """That cross in one phase, on all machines together."""
        return sum(crossing.nbytes for crossing in self.crossings)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "samples": self.samples,
            "partitions": len(self.machines),
            "parameters": sum(self.partitioned.sizes),
            "flops_per_sample": self.flops,
            "messages_up": len(self.partitioned.messages),
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_up,
            "layers": [self.layer_as_json(node) for node in self.layers],
            "notes": list(self.partitioned.graph.notes),
            "machines": [asdict(machine) for machine in self.machines],
            "crossings": [asdict(crossing) for crossing in self.crossings],
        }

    def layer_as_json(self, node: Node) -> dict[str, Any]:
        placed = [one for found in self.parts[node.name].values() for one in found]
        return {
            "name": node.name, "kind": kind_of(node), "inputs": list(node.inputs), "shape": list(node.at.output), "parameters": node.parameters,
            "flops_per_sample": sum(one.flops + one.flops_down for one in placed),
            "machines": list(self.partitioned.placement.get(node.name, ())),
        }  # fmt: skip


def crossings(partitioned: Partitioned, samples: int, bytes_of_element: int) -> list[Crossing]:
    """Messages of one layer between the same two machines, together, in the order of the graph."""
    user: dict[int, str] = {}
    for placed, _, take in partitioned.takes():
        if take.message is not None:
            user.setdefault(take.message, placed.node.name)
    found: dict[tuple[str, int, str, int, bool], Crossing] = {}
    for message in partitioned.messages:
        layer = partitioned.pieces[message.of].node if message.weights else partitioned.parts[message.of].node.name
        key = layer, message.source, user[message.number], message.destination, message.weights
        crossing = found.setdefault(key, Crossing(*key))
        crossing.messages += 1
        crossing.nbytes += message.count(samples) * bytes_of_element
    return list(found.values())


def kind_of(node: Node) -> str:
    """As a person calls it."""
    function = getattr(node.layer, "function", None)
    return function if isinstance(function, str) else type(node.layer).__name__


def scaled(value: float, unit: str = "") -> str:
    """Three digits: "41.8 M", "39.3 MFLOP"."""
    size, prefix = next(((size, prefix) for size, prefix in PREFIXES.items() if value >= size), (1.0, ""))
    return f"{value / size:.3g} {prefix}{unit}".rstrip()
