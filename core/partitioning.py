"""A graph placed on the machines of one replica: parts, the parameters each machine owns, and the messages of both phases.

A placement says for each layer which machines hold a part of it.  What crosses is worked out here, once for both worlds: whatever a
machine needs of a part that lives elsewhere crosses to it once in a phase, however many edges lead there (paper, section 3).  The
downward phase sends gradients back along the very same messages.

Parameters are vertices too: a piece of one belongs to the first machine that needs it, and in the rare case that others
need it as well (the filters of a convolution that is split into tiles), it crosses upward, and its gradient downward, like a state.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from core import boxes
from core.boxes import Box, meet, union, volume
from core.graph import Graph, GraphError, Node, Part, Setting, shape_told

Placement = Mapping[str, tuple[int, ...]]
"""Layer -> machine of each of its parts; a machine may hold several."""


class Task(NamedTuple):
    """A part to be computed."""

    direction: Literal["forward", "backward"]
    part: int


@dataclass(slots=True, eq=False)
class Piece:
    """A region of a parameter, and who owns it; `first`: where it begins in the vector of that machine's parameters."""

    node: str
    weight: str
    box: Box
    machine: int
    first: int

    @property
    def count(self) -> int:
        return volume(self.box)


class Take(NamedTuple):
    """Where a region comes from that a part needs: a part's output, or a piece of a parameter; `message` if it comes from another machine."""

    source: int
    box: Box
    message: int | None


@dataclass(slots=True, eq=False)
class Placed:
    """A part of a layer on its machine.  `inputs`: for each input what it is put together from, None for what comes with the minibatch;
    `parameters`: the same by name.  `number` counts parts in an order in which each comes after all that it takes.
    """

    number: int
    node: Node
    part: Part
    machine: int
    inputs: tuple[list[Take] | None, ...] = ()
    parameters: dict[str, list[Take]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As a person reads it."""
        if self.part.box == boxes.whole(self.part.at.output):
            return self.node.name
        return f"{self.node.name}[{', '.join(f'{begin}:{end}' for begin, end in self.part.box)}]"

    @property
    def flops(self) -> float:
        return self.node.layer.flops(self.part.at, self.part.box)

    @property
    def flops_down(self) -> float:
        return self.node.layer.flops_down(self.part.at, self.part.box)


@dataclass(slots=True, eq=False)
class Message:
    """What crosses from one machine to another in the upward phase; its gradient comes back in the downward phase.

    `of`: the number of the part, or of the piece where `weights`; `boxes`: what of it, nothing twice.
    """

    number: int
    of: int
    weights: bool
    source: int
    destination: int
    boxes: list[Box]

    @property
    def elements(self) -> int:
        """Of one sample; of a parameter, whatever the samples."""
        return sum(map(volume, self.boxes))

    def count(self, samples: int) -> int:
        """Elements, for a minibatch of so many."""
        return self.elements if self.weights else self.elements * samples


class Partitioned:
    """A graph on so many machines."""

    def __init__(self, graph: Graph, placement: Placement, machines: int | None = None) -> None:
        """`machines`: how many there are; left out, as many as have parts.  Raises GraphError for a placement that leaves out a layer, names
        one that is none, or splits one further than can be; or that names a machine that is none, or has nothing for one.
        """
        check(graph, placement, machines)
        self.graph, self.placement = graph, dict(placement)
        self.machines = machines or 1 + max((machine for places in placement.values() for machine in places), default=0)
        self.parts: list[Placed] = []
        self.pieces: list[Piece] = []
        self.messages: list[Message] = []
        self._of: dict[str, list[Placed]] = {}
        self._pieces: dict[tuple[str, str], list[Piece]] = {}
        self._by_machine: list[list[Placed]] = [[] for _ in range(self.machines)]
        self._from: list[list[Message]] = [[] for _ in range(self.machines)]
        self._to: list[list[Message]] = [[] for _ in range(self.machines)]
        counts = {name: len(machines) for name, machines in placement.items()}
        settings: dict[str, Setting] = {}
        for node in graph:
            if node.layer.source:
                settings[node.name] = node.at
                continue
            inputs = tuple(settings[name].output for name in node.inputs)
            at = settings[node.name] = Setting(inputs, node.layer.shape(inputs, counts[node.name]))
            self.place(node, at, placement[node.name])
        self.sizes = self.own()
        self.connect()

    def place(self, node: Node, at: Setting, machines: Sequence[int]) -> None:
        """The parts of a layer."""
        placed = self._of[node.name] = []
        for machine, box in zip(machines, node.layer.split(at, len(machines)), strict=True):
            part = Part(at, box, node.layer.needs(at, box), node.layer.weight_boxes(at, box))
            placed.append(Placed(len(self.parts), node, part, machine))
            self.parts.append(placed[-1])
            self._by_machine[machine].append(placed[-1])

    def own(self) -> list[int]:
        """Give each region of a parameter to the first machine that needs it; how many parameters each machine has."""
        owned: dict[int, list[Piece]] = {machine: [] for machine in range(self.machines)}
        for node in self.graph:
            for weight in node.layer.weights(node.at) if not node.layer.source else ():
                regions = {id(placed): placed.part.weights[weight] for placed in self._of[node.name]}
                known: list[Piece] = []
                for placed in self._of[node.name]:
                    fresh = [regions[id(placed)]]
                    for piece in known:
                        if meet(piece.box, regions[id(placed)]) is not None:
                            fresh = [rest for one in fresh for rest in boxes.without(one, piece.box)]
                    known += [Piece(node.name, weight, box, placed.machine, 0) for box in fresh if volume(box)]
                self._pieces[node.name, weight] = known
                for piece in known:
                    owned[piece.machine].append(piece)
        sizes = []
        for pieces in owned.values():
            first = 0
            for piece in pieces:
                piece.first = first
                first += piece.count
            sizes.append(first)
        self.pieces = [piece for pieces in owned.values() for piece in pieces]
        return sizes

    def connect(self) -> None:
        """Find what each part takes from where, and put what goes from one part to one machine into one message."""
        numbers = {id(piece): number for number, piece in enumerate(self.pieces)}
        for placed in self.parts:
            placed.inputs = tuple(
                None if self.graph[name].layer.source
                else [Take(other.number, both, None) for other in self._of[name] if (both := meet(other.part.box, need)) is not None]
                for name, need in zip(placed.node.inputs, placed.part.needs, strict=True)
            )  # fmt: skip
            placed.parameters = {
                weight: [
                    Take(numbers[id(piece)], both, None)
                    for piece in self._pieces[placed.node.name, weight]
                    if (both := meet(piece.box, need)) is not None
                ]
                for weight, need in placed.part.weights.items()
            }
        wanted: dict[tuple[bool, int, int], list[Box]] = {}
        for placed, is_weight, take in self.takes():
            if self.home(is_weight, take.source) != placed.machine:
                wanted.setdefault((is_weight, take.source, placed.machine), []).append(take.box)
        for (is_weight, of, destination), needed in wanted.items():
            message = Message(len(self.messages), of, is_weight, self.home(is_weight, of), destination, union(needed))
            self.messages.append(message)
            self._from[message.source].append(message)
            self._to[destination].append(message)
        ways = {(message.weights, message.of, message.destination): message.number for message in self.messages}
        for placed in self.parts:
            for is_weight, regions in ((False, placed.inputs), (True, placed.parameters.values())):
                for takes in regions:
                    for place, take in enumerate(takes or ()):
                        takes[place] = take._replace(message=ways.get((is_weight, take.source, placed.machine)))  # type: ignore[index]

    def takes(self) -> Iterator[tuple[Placed, bool, Take]]:
        """Everything that any part takes, and whether it is of a parameter."""
        for placed in self.parts:
            for is_weight, regions in ((False, placed.inputs), (True, placed.parameters.values())):
                yield from ((placed, is_weight, take) for takes in regions for take in takes or ())

    def home(self, is_weight: bool, source: int) -> int:
        """The machine of a part, or of a piece."""
        return self.pieces[source].machine if is_weight else self.parts[source].machine

    # what one machine has to do with

    def parts_of(self, machine: int) -> list[Placed]:
        return self._by_machine[machine]

    def messages_from(self, machine: int) -> list[Message]:
        """What leaves it in the upward phase, and comes back as gradients."""
        return self._from[machine]

    def messages_to(self, machine: int) -> list[Message]:
        return self._to[machine]

    def pieces_of(self, machine: int) -> list[Piece]:
        return [piece for piece in self.pieces if piece.machine == machine]

    def parameters_of(self, machine: int) -> slice:
        """Where its parameters lie in the vector of all of them, which is ordered by machine."""
        first = sum(self.sizes[:machine])
        return slice(first, first + self.sizes[machine])

    def flops(self, task: Task) -> float:
        """Of one sample."""
        placed = self.parts[task.part]
        return placed.flops if task.direction == "forward" else placed.flops_down

    def flops_of(self, machine: int) -> float:
        """Of one sample, both phases."""
        return sum(placed.flops + placed.flops_down for placed in self.parts_of(machine))

    def elements(self, samples: int) -> int:
        """That cross in one phase, for a minibatch of so many."""
        return sum(message.count(samples) for message in self.messages)


def check(graph: Graph, placement: Placement, machines: int | None = None) -> None:
    """`machines`: how many there are, where that is given.  Raises GraphError, which names the layer and what is allowed."""
    layers = [node for node in graph if not node.layer.source]
    names = [node.name for node in layers]
    for name in placement:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            said = "it comes with the minibatch, and is everywhere" if name in graph.nodes else "there is no such layer"
            raise GraphError(
                f"layer {name!r} cannot be placed: {said}" + (f"; did you mean {near[0]!r}?" if near else f"; allowed: {', '.join(names)}")
            )
    for node in layers:
        places = placement.get(node.name, ())
        if not places:
            raise GraphError(f"layer {node.name!r} has no place; each layer needs at least one machine")
        most = node.layer.most_parts(node.at)
        if len(places) > most:
            raise GraphError(
                f"layer {node.name!r} of {shape_told(node.at.output)} outputs in {len(places)} parts; allowed: {'1' if most == 1 else f'1 to {most}'}"
            )
        if min(places) < 0:
            raise GraphError(f"layer {node.name!r} on machine {min(places)}; machines count from 0")
        if machines is not None and max(places) >= machines:
            raise GraphError(
                f"layer {node.name!r} on machine {max(places)}; there are {machines} partitions; allowed: {'0' if machines == 1 else f'0 to {machines - 1}'}"
            )
    idle = sorted(set(range(machines or 0)) - {machine for places in placement.values() for machine in places})
    if idle:
        raise GraphError(f"no layer has a part on machine {idle[0]}; allowed: something on each of the {machines} partitions")
