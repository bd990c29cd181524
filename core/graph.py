"""A model as a graph of layers (paper, section 3): the user describes what each layer computes and what it needs; the rest follows.

    Graph([
        Node("pixels", Source((1, 8, 8))),
        Node("filters", LocallyConnected(filters=8, patch=3), "pixels"),
        Node("classes", Dense(10), "filters"),
    ])

A kind of layer is one small class that says four things: the shape of its output, its parameters, how its output can be split, and which
region of its inputs and parameters a region of its output needs.  From these follow, for any placement, the parts of each machine, the
messages of both phases and their sizes (`core/partitioning.py`), their cost, and the computation of each part (`forward`, in torch; never
called where numerics are timing alone).  The kinds that come with us are in `models/layers.py`.

Shapes are of one sample.  Regions are boxes: see `core/boxes.py`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import networkx as nx

from core.boxes import Box, Shape, volume, whole


class GraphError(ValueError):
    """A graph that cannot be, or cannot be split or placed so; the message names the layer and what is allowed."""


class Setting(NamedTuple):
    """Where a layer stands: the shapes of its inputs, and of its output."""

    inputs: tuple[Shape, ...]
    output: Shape


class Part(NamedTuple):
    """What `forward` is to compute: a box of the output, from these boxes of the inputs and of the parameters."""

    at: Setting
    box: Box
    needs: tuple[Box, ...]
    weights: Mapping[str, Box]


class Layer:
    """A kind of layer.  Subclasses are frozen dataclasses; what they leave as it is here suits a layer that is kept whole."""

    source: ClassVar[bool] = False
    """Does it come with the minibatch, which every machine of a replica reads for itself?"""
    loss: ClassVar[bool] = False
    """Is its output the loss of each sample, whose mean is what training descends?"""

    def shape(self, inputs: tuple[Shape, ...], parts: int = 1) -> Shape:
        """Of the output.  `parts`: into how many it is split, where that matters.  Raises GraphError for inputs that do not fit."""
        raise NotImplementedError

    def weights(self, at: Setting) -> dict[str, Shape]:
        """The parameters, by name."""
        return {}

    def most_parts(self, at: Setting) -> int:
        """Into how many parts it can be split."""
        return 1

    def split(self, at: Setting, parts: int) -> list[Box]:
        """So many boxes that cover the output; `parts` is at most `most_parts`."""
        assert parts == 1, f"{type(self).__name__} cannot be split"
        return [whole(at.output)]

    def needs(self, at: Setting, box: Box) -> tuple[Box, ...]:
        """What a box of the output needs of each input."""
        return tuple(whole(shape) for shape in at.inputs)

    def weight_boxes(self, at: Setting, box: Box) -> dict[str, Box]:
        """What it needs of each parameter."""
        return {name: whole(shape) for name, shape in self.weights(at).items()}

    def flops(self, at: Setting, box: Box) -> float:
        """Floating-point operations of a box of the output of one sample, in the upward phase."""
        return float(volume(box))

    def flops_down(self, at: Setting, box: Box) -> float:
        """The same in the downward phase: gradients of the inputs, and of the parameters where there are any."""
        return self.flops(at, box) * (2 if self.weights(at) else 1)

    def forward(self, inputs: Sequence[Any], weights: Mapping[str, Any], part: Part) -> Any:
        """Compute `part.box` of the output of a minibatch; tensors have the samples in their first dimension, parameters do not.

        The downward phase is torch's own: what is computed here is differentiated there.
        """
        raise NotImplementedError

    def initialise(self, at: Setting, name: str, tensor: Any) -> None:
        """Fill a parameter, a torch tensor, to begin from: uniform up to 1 / sqrt(fan-in), as torch's own layers do."""
        bound = 1 / math.sqrt(max(1, self.fan_in(at)))
        tensor.uniform_(-bound, bound)

    def fan_in(self, at: Setting) -> int:
        """How many inputs one unit has."""
        return math.prod(at.inputs[0]) if at.inputs else 1


class Node:
    """A layer of a graph by its name, with the names of its inputs.

    `keys`: by the name of a parameter, its name in the torch module that this was taken from; left out: "name.parameter".
    `at`: where it stands, once it is in a graph.
    """

    def __init__(self, name: str, layer: Layer, *inputs: str, keys: Mapping[str, str] | None = None) -> None:
        self.name, self.layer, self.inputs, self.keys, self.at = name, layer, inputs, dict(keys or {}), Setting((), ())

    def key(self, weight: str) -> str:
        return self.keys.get(weight, f"{self.name}.{weight}")

    @property
    def weights(self) -> dict[str, Shape]:
        return self.layer.weights(self.at)

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.weights.values())


class Graph:
    """Layers and what flows between them: a networkx graph under `nx`, whose nodes have their `Node` as "node"."""

    def __init__(self, nodes: Iterable[Node], *, notes: Iterable[str] = ()) -> None:
        """In any order.  `notes`: what whoever made it has to say of it.  Raises GraphError for a graph that cannot be."""
        nodes = list(nodes)
        self.notes = list(notes)
        self.nx: Any = nx.DiGraph()
        for node in nodes:
            if node.name in self.nx:
                raise GraphError(f"layer {node.name!r} is there twice; each needs a name of its own")
            self.nx.add_node(node.name, node=node)
        for node in nodes:
            for name in node.inputs:
                if name not in self.nx:
                    near = difflib.get_close_matches(name, self.nx, 1)
                    raise GraphError(
                        f"layer {node.name!r} takes {name!r}, which is no layer" + (f"; did you mean {near[0]!r}?" if near else "")
                    )
                self.nx.add_edge(name, node.name)
        try:
            order = list(
                nx.lexicographical_topological_sort(self.nx, key={node.name: place for place, node in enumerate(nodes)}.__getitem__)
            )
        except nx.NetworkXUnfeasible:
            around = [edge[0] for edge in nx.find_cycle(self.nx)]
            raise GraphError(f"layer {around[0]!r} needs its own output: {' -> '.join([*around, around[0]])}; allowed: no cycles") from None
        self.nodes: dict[str, Node] = {name: self.nx.nodes[name]["node"] for name in order}
        """In an order in which each comes after its inputs."""
        for node in self:
            node.at = self.setting(node)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def setting(self, node: Node) -> Setting:
        """Where a layer stands.  Raises GraphError, which names the layer."""
        inputs = tuple(self.nodes[name].at.output for name in node.inputs)
        try:
            return Setting(inputs, node.layer.shape(inputs))
        except GraphError as error:
            told = ", ".join(f"{name} of {shape_told(shape)}" for name, shape in zip(node.inputs, inputs, strict=True))
            raise GraphError(f"layer {node.name!r} does not take {told or 'no input'}: {error}") from None

    @property
    def parameters(self) -> int:
        return sum(node.parameters for node in self)

    @property
    def flops(self) -> float:
        """Of one sample, both phases."""
        return sum(
            node.layer.flops(node.at, whole(node.at.output)) + node.layer.flops_down(node.at, whole(node.at.output))
            for node in self if not node.layer.source
        )  # fmt: skip

    @property
    def loss(self) -> Node | None:
        """The layer whose output is the loss, if the graph has one."""
        return next((node for node in self if node.layer.loss), None)

    @property
    def outputs(self) -> list[Node]:
        """Layers that nobody takes from."""
        return [node for node in self if not self.nx.succ[node.name]]

    def then(self, nodes: Iterable[Node]) -> Graph:
        """The same with further layers."""
        return Graph([*(Node(n.name, n.layer, *n.inputs, keys=n.keys) for n in self), *nodes], notes=self.notes)


def shape_told(shape: Shape) -> str:
    """As a person writes it: 3x32x32."""
    return "x".join(map(str, shape)) or "a number"
