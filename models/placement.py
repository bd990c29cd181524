"""Which machine of a replica has which part of the model: as somebody says, split evenly, cut by METIS, or searched for.

All of them place layers that decide for themselves.  Some follow another: a layer that is computed place by place is split as its input is
and lives where that lives, so that nothing crosses between the two, and so does the loss.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, groupby
from typing import NamedTuple

from core.graph import Graph, GraphError, Node, Setting
from core.partitioning import Partitioned, Placement, check
from models.losses import ByClasses

CHUNKS = 8, 3
"""Into how many pieces METIS may cut what one machine computes, of few machines and of many: one of them is what machines can differ by."""

VERTICES = 160
"""More pieces than that are only made where three for each machine are."""

EVENTS = 600_000
"""Parts and messages that a search simulates, all its evaluations together: about 20 s."""

Estimate = Callable[[Partitioned], float]
"""Seconds of a minibatch."""


def by_hand(graph: Graph, table: Mapping[str, int | Sequence[int]], partitions: int) -> Placement:
    """The machine of each layer, or of each part of it; the loss may be left out, and follows the outputs.

    Raises GraphError, which names the layer and what is allowed.
    """
    placement = {name: (machines,) if isinstance(machines, int) else tuple(machines) for name, machines in table.items()}
    for node in layers(graph):
        if node.name not in placement and is_loss(node) and (leader := outputs_of(graph, node)) in placement:
            placement[node.name] = as_far_as_it_can(node, placement[leader])
    check(graph, placement, partitions)
    return placement


def balanced(graph: Graph, partitions: int) -> Placement:
    """Each layer in as many parts as there are machines, one on each; what cannot be split so far goes to whoever has least to compute.

    Raises GraphError if there are not as many parts as machines.
    """
    units = units_of(graph)
    enough(units, partitions)
    placement: dict[str, tuple[int, ...]] = {}
    loads = [0.0] * partitions
    for unit in sorted(units, key=lambda unit: (unit.most < partitions, -unit.flops if unit.most < partitions else 0)):
        machines = idlest(loads, unit.most) if unit.most < partitions else tuple(range(partitions))
        for node, there in unit.placed(machines, placement):
            loads = [one + other for one, other in zip(loads, load_of(node, there, partitions), strict=True)]
    return ordered(graph, placement)


def metis(graph: Graph, partitions: int, seed: int = 0, samples: int = 1) -> Placement:
    """Cut by METIS into equal shares of FLOPs so that few bytes cross, those of both phases of a minibatch of so many samples.

    Cut are pieces of layers, three to eight for each machine.  Always the same for a seed.  Raises GraphError as `balanced` does.
    """
    units = units_of(graph)
    enough(units, partitions)
    share = sum(unit.flops for unit in units) / partitions / max(CHUNKS[1], min(CHUNKS[0], VERTICES // partitions))
    counts = [max(1, min(unit.most, round(unit.flops / share))) for unit in units]
    if sum(counts) < partitions:
        counts = [unit.most for unit in units]
    apart: dict[str, tuple[int, ...]] = {}
    for unit, count, end in zip(units, counts, accumulate(counts), strict=True):
        unit.placed(tuple(range(end - count, end)), apart)
    machine_of = cut(Partitioned(graph, apart), partitions, seed, samples)
    found = {unit.name: tuple(machine_of[vertex] for vertex in apart[unit.name]) for unit in units}
    variants = [
        found,
        {name: in_runs(machines) for name, machines in found.items()},
        {name: in_runs(sorted(machines)) for name, machines in found.items()},
    ]
    placements = [everywhere(graph, units, variant) for variant in variants]
    return min(placements, key=lambda one: (Partitioned(graph, one, partitions).elements(samples), sum(map(len, one.values()))))


class Tried(NamedTuple):
    """A placement that was looked at, in words, and what was estimated for it."""

    what: str
    seconds: float


class Found(NamedTuple):
    """The best placement there was, and all that were looked at on the way, in order."""

    placement: Placement
    seconds: float
    tried: list[Tried]


def search(
    graph: Graph, partitions: int, estimate: Estimate, *, seed: int = 0, samples: int = 1, evaluations: int | None = None
) -> Found:  # fmt: skip
    """From what `balanced` and `metis` find on to whatever is faster, one layer at a time, as long as that helps.

    `evaluations`: how many estimates at most; left out, as many as are simulated in about 20 s, and 200 at most.  Always the same for what
    it is given.  Raises GraphError as `balanced` does.
    """
    climb = Climb(graph, partitions, estimate, evaluations)
    climb.consider("balanced", balanced(graph, partitions))
    climb.consider("metis", metis(graph, partitions, seed, samples))
    while climb.round():
        pass
    return Found(climb.best, climb.seconds, climb.tried)


class Climb:
    """The search under way."""

    def __init__(self, graph: Graph, partitions: int, estimate: Estimate, evaluations: int | None) -> None:
        self.graph, self.partitions, self.estimate, self.left = graph, partitions, estimate, evaluations
        self.units = units_of(graph)
        self.best: Placement = {}
        self.seconds = math.inf
        self.tried: list[Tried] = []
        self._seen: set[tuple[tuple[str, tuple[int, ...]], ...]] = set()
        self._leads = {node.name: unit.name for unit in self.units for node in unit.nodes}
        around: defaultdict[str, set[str]] = defaultdict(set)
        for one, other in graph.nx.edges:
            ends = self._leads.get(one), self._leads.get(other)
            if ends[0] is not None and ends[1] is not None and ends[0] != ends[1]:
                around[ends[0]].add(ends[1])
                around[ends[1]].add(ends[0])
        self._around = {unit.name: [other for other in self.units if other.name in around[unit.name]] for unit in self.units}

    def consider(self, what: str, placement: Placement) -> bool:
        """Is it the best so far?"""
        key = tuple(placement.items())
        if key in self._seen or self.left == 0:
            return False
        self._seen.add(key)
        try:
            partitioned = Partitioned(self.graph, placement, self.partitions)
        except GraphError:  # it leaves some machine with nothing
            return False
        if self.left is None:
            self.left = max(10, min(200, EVENTS // (2 * len(partitioned.parts) + 2 * len(partitioned.messages))))
        self.left -= 1
        seconds = self.estimate(partitioned)
        self.tried.append(Tried(what, seconds))
        if seconds >= self.seconds * (1 - 1e-9):
            return False
        self.best, self.seconds = placement, seconds
        return True

    def round(self) -> bool:
        """Layer by layer, those that compute most first; was there anything better?"""
        found = False
        for unit in sorted(self.units, key=lambda unit: -unit.flops):
            found |= self.better(unit)
        return found

    def better(self, unit: Unit) -> bool:
        """Is there something better for one layer, the others being as they are?  The first that is, is taken, and then the next."""
        found = False
        for what, changed in self.moves(unit):
            chosen = {one.name: changed.get(one.name, self.best[one.name]) for one in self.units}
            found |= self.consider(what, everywhere(self.graph, self.units, chosen))
            if self.left == 0:
                break
        return found

    def moves(self, unit: Unit) -> Iterator[tuple[str, dict[str, tuple[int, ...]]]]:
        """In words, and which layers are placed anew."""
        for parts in steps(min(unit.most, self.partitions)):
            options = [idlest(self.loads({unit.name}), parts)]
            options += [self.best[other.name] for other in self._around[unit.name] if len(self.best[other.name]) == parts]
            if parts == 1 and self.partitions <= 8:
                options += [(machine,) for machine in range(self.partitions)]
            for machines in dict.fromkeys(options):
                yield f"{unit.name!r} {told(machines)}", {unit.name: machines}
        for other in self._around[unit.name]:
            for machine in idlest(self.loads({unit.name, other.name}), min(2, self.partitions)):
                yield f"{unit.name!r} and {other.name!r} whole on machine {machine}", dict.fromkeys((unit.name, other.name), (machine,))

    def loads(self, besides: set[str]) -> list[float]:
        """FLOPs of each machine, without some layers and what follows them."""
        loads = [0.0] * self.partitions
        for name, machines in self.best.items():
            if self._leads[name] not in besides:
                loads = [a + b for a, b in zip(loads, load_of(self.graph[name], machines, self.partitions), strict=True)]
        return loads


# layers that decide, and what follows them


class Unit(NamedTuple):
    """A layer that is placed, and those that follow it, in the order of the graph."""

    nodes: list[Node]

    @property
    def name(self) -> str:
        return self.nodes[0].name

    @property
    def most(self) -> int:
        return self.nodes[0].layer.most_parts(self.nodes[0].at)

    @property
    def flops(self) -> float:
        return sum(sum(flops_of(node, 1)) for node in self.nodes)

    def placed(self, machines: tuple[int, ...], into: dict[str, tuple[int, ...]]) -> list[tuple[Node, tuple[int, ...]]]:
        """Place it all; each layer, and where it is."""
        found = [(node, as_far_as_it_can(node, machines)) for node in self.nodes]
        into.update({node.name: there for node, there in found})
        return found


def units_of(graph: Graph) -> list[Unit]:
    """In the order of the graph."""
    found: dict[str, Unit] = {}
    lead: dict[str, str] = {}
    for node in layers(graph):
        followed = leader(graph, node)
        lead[node.name] = lead[followed] if followed else node.name
        found.setdefault(lead[node.name], Unit([])).nodes.append(node)
    return list(found.values())


def leader(graph: Graph, node: Node) -> str:
    """The layer that this one follows, "" if it decides for itself."""
    first = outputs_of(graph, node)
    if not first or is_loss(node):
        return first
    other = graph[first]
    most = other.layer.most_parts(other.at)
    if other.at.output != node.at.output or node.layer.most_parts(node.at) < most or is_loss(other):
        return ""
    for parts in (1, 2, 3, 5):  # whoever agrees on these agrees
        boxes = node.layer.split(node.at, min(parts, most))
        if boxes != other.layer.split(other.at, min(parts, most)):
            return ""
        if any(need != box for box in boxes for need in node.layer.needs(node.at, box)):
            return ""
    return first


def outputs_of(graph: Graph, node: Node) -> str:
    """Its first input that does not come with the minibatch; "" if all do."""
    return next((name for name in node.inputs if not graph[name].layer.source), "")


def is_loss(node: Node) -> bool:
    return node.layer.loss or isinstance(node.layer, ByClasses)


def layers(graph: Graph) -> list[Node]:
    """Those that are to be placed."""
    return [node for node in graph if not node.layer.source]


def as_far_as_it_can(node: Node, machines: tuple[int, ...]) -> tuple[int, ...]:
    """On the same machines; the first of them, where it cannot be split so far."""
    return machines[: node.layer.most_parts(node.at)]


def everywhere(graph: Graph, units: Iterable[Unit], chosen: Mapping[str, tuple[int, ...]]) -> Placement:
    """Those that decide, and what follows them."""
    placement: dict[str, tuple[int, ...]] = {}
    for unit in units:
        unit.placed(chosen[unit.name], placement)
    return ordered(graph, placement)


def ordered(graph: Graph, placement: Placement) -> Placement:
    return {node.name: placement[node.name] for node in layers(graph)}


def enough(units: Sequence[Unit], partitions: int) -> None:
    """Raises GraphError if there are more machines than parts."""
    possible = sum(unit.most for unit in units)
    if possible < partitions:
        most = max(units, key=lambda unit: unit.most)
        raise GraphError(
            f"{partitions} partitions are more than parts can be made for: layer {most.name!r} can be split furthest, into {most.most}, and all"
            f" layers together into {possible}; allowed: 1 to {possible} partitions"
        )


# FLOPs


def flops_of(node: Node, parts: int) -> list[float]:
    """Of each part, for one sample, both phases."""
    at = Setting(node.at.inputs, node.layer.shape(node.at.inputs, parts))
    return [node.layer.flops(at, box) + node.layer.flops_down(at, box) for box in node.layer.split(at, parts)]


def load_of(node: Node, machines: tuple[int, ...], partitions: int) -> list[float]:
    """What each machine computes of a layer."""
    loads = [0.0] * partitions
    for machine, flops in zip(machines, flops_of(node, len(machines)), strict=True):
        loads[machine] += flops
    return loads


def idlest(loads: Sequence[float], count: int) -> tuple[int, ...]:
    """So many machines, those with the least to compute, in their order."""
    return tuple(sorted(sorted(range(len(loads)), key=lambda machine: (loads[machine], machine))[:count]))


# METIS


def cut(apart: Partitioned, partitions: int, seed: int, samples: int) -> list[int]:
    """The machine of each vertex; of `apart` every machine is one."""
    import pymetis

    count = apart.machines
    if partitions == 1:
        return [0] * count
    edges: Counter[tuple[int, int]] = Counter()
    for message in apart.messages:
        edges[message.source, message.destination] += message.count(samples)
        edges[message.destination, message.source] += message.count(samples)
    neighbours: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    for (one, other), elements in sorted(edges.items()):
        neighbours[one].append((other, elements))
    flops = shared_out([apart.flops_of(vertex) for vertex in range(count)], partitions)
    loads, bytes_over = whole_numbers(flops), whole_numbers([elements for found in neighbours for _, elements in found])
    starts = [0, *accumulate(len(found) for found in neighbours)]
    adjacency = pymetis.CSRAdjacency(starts, [other for found in neighbours for other, _ in found])
    options = pymetis.Options(seed=seed % (1 << 31))
    _, found = pymetis.part_graph(partitions, adjacency, vweights=loads, eweights=bytes_over or None, options=options)
    return filled(list(found), loads, partitions)


def shared_out(flops: Sequence[float], partitions: int) -> list[float]:
    """The same, except that nothing counts for more than an equal share of what is left to the machines that have nothing larger.

    METIS is to make equal shares, and where one vertex is more than that it leaves machines empty instead.
    """
    ordered = sorted(flops, reverse=True)
    share = math.inf
    for larger in range(min(partitions, len(ordered))):
        share = sum(ordered[larger:]) / (partitions - larger)
        if ordered[larger] <= share:
            break
    return [min(one, share) for one in flops]


def whole_numbers(values: Sequence[float]) -> list[int]:
    """In proportion, none of them 0, and their sum well within 32 bits, with which METIS counts."""
    scale = 5e8 / max(1.0, sum(values))
    return [max(1, round(value * scale)) for value in values]


def filled(machine_of: list[int], loads: Sequence[int], partitions: int) -> list[int]:
    """METIS may leave a machine with nothing: it gets the smallest vertex of whoever has most of them."""
    for machine in range(partitions):
        if machine not in machine_of:
            giver = Counter(machine_of).most_common(1)[0][0]
            smallest = min((vertex for vertex, at in enumerate(machine_of) if at == giver), key=lambda vertex: loads[vertex])
            machine_of[smallest] = machine
    return machine_of


def in_runs(machines: Sequence[int]) -> tuple[int, ...]:
    """The fewest equal parts that have neighbours on one machine together."""
    lengths = [len(list(run)) for _, run in groupby(machines)]
    return tuple(machines[:: math.gcd(*lengths)])


# in words


def steps(most: int) -> list[int]:
    """Numbers of parts worth a try: 1, 2, 3, 4, 6, 8, 12, and so on, and as many as there can be, which comes first."""
    found = {most} | {base << power for base in (1, 3) for power in range(most.bit_length()) if base << power <= most}
    return sorted(found, reverse=True)


def told(machines: Sequence[int]) -> str:
    """In how many parts, and where."""
    if len(machines) == 1:
        return f"whole on machine {machines[0]}"
    different = sorted(set(machines))
    if len(different) == 1:
        return f"in {len(machines)} parts on machine {different[0]}"
    if different == list(range(different[0], different[-1] + 1)):
        return f"in {len(machines)} parts on machines {different[0]} to {different[-1]}"
    return f"in {len(machines)} parts on machines {', '.join(map(str, different[:6]))}{' and more' if len(different) > 6 else ''}"
