"""What a bundled network says of itself.  It is a graph, which is quickly made and needs no torch; all else follows from that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from core.boxes import Shape
from core.graph import Graph
from models.layers import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundled:
    """`about`: in a line.  Methods take the widths of layers that a scenario gives, of those that can be given any."""

    layered: ClassVar[bool] = False
    """Can they?"""
    about: str
    loss: Literal["cross-entropy", "logistic"] = "cross-entropy"
    """Where a scenario leaves it open and targets are classes."""

    def graph(self, layers: tuple[int, ...] | None = None) -> Graph:
        """Its layers, without a loss."""
        raise NotImplementedError

    def parameters(self, layers: tuple[int, ...] | None = None) -> int:
        """Weights and biases."""
        return self.graph(layers).parameters

    def flops_per_sample(self, layers: tuple[int, ...] | None = None) -> float:
        """Forward and backward."""
        return self.graph(layers).flops

    def inputs(self, layers: tuple[int, ...] | None = None) -> Shape:
        """The shape of one sample."""
        return next(node.at.output for node in self.graph(layers) if isinstance(node.layer, Source))

    def classes(self, layers: tuple[int, ...] | None = None) -> int:
        """How many outputs it has."""
        return self.graph(layers).outputs[0].at.output[0]

    @property
    def complete(self) -> bool:
        """Is it a network without any word of the scenario's?"""
        return True
