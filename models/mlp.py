"""Fully connected networks of any widths: `mlp`, whose widths the scenario gives."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

from core.boxes import Shape
from core.graph import Graph, Node
from models.bundled import Bundled
from models.layers import Dense, Elementwise, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Layered(Bundled):
    """A fully connected network, the plain torch module of which is a `Sequential` (`models/torch_network.py`).

    `layers` are the widths, inputs first; None: the scenario says.
    """

    layered: ClassVar[bool] = True
    activation: Literal["relu", "sigmoid"]
    layers: tuple[int, ...] | None = None

    def widths(self, layers: tuple[int, ...] | None = None) -> tuple[int, ...]:
        widths = layers or self.layers
        assert widths is not None, "the scenario is checked for layers when it is loaded"
        return widths

    def graph(self, layers: tuple[int, ...] | None = None) -> Graph:
        """Its layers; the keys are those of the plain torch module."""
        inputs, *widths = self.widths(layers)
        nodes = [Node("inputs", Source((inputs,)))]
        for number, width in enumerate(widths):
            keys = {"weight": f"{2 * number}.weight", "bias": f"{2 * number}.bias"}
            last = number + 1 == len(widths)
            name = "classes" if last else f"hidden-{number + 1}"
            nodes.append(Node(name, Dense(width), nodes[-1].name, keys=keys))
            if not last:
                nodes.append(Node(f"{self.activation}-{number + 1}", Elementwise(self.activation), name))
        return Graph(nodes)

    def flops_per_sample(self, layers: tuple[int, ...] | None = None) -> float:
        """Forward 2 for each weight; backward twice as many (gradients of inputs and of weights).  As torch counts: activations are not."""
        return 6.0 * sum(a * b for a, b in pairwise(self.widths(layers)))

    def inputs(self, layers: tuple[int, ...] | None = None) -> Shape:
        return (self.widths(layers)[0],)

    def classes(self, layers: tuple[int, ...] | None = None) -> int:
        return self.widths(layers)[-1]

    @property
    def complete(self) -> bool:
        return self.layers is not None


MLP = Layered(about="fully connected, rectified; give its layers", activation="relu")
