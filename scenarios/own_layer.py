"""A kind of layer of one's own: what it computes, how it is split, and what a part of it needs; placed on two machines it just works."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.boxes import Box, Shape, intervals
from core.graph import Graph, GraphError, Layer, Node, Part, Setting
from models.layers import Dense, Source


@dataclass(frozen=True)
class Maxout(Layer):
    """Maxout (Goodfellow et al., ICML 2013): the largest of `pieces` neighbouring inputs, each with a gain that is learnt."""

    pieces: int

    def shape(self, inputs: tuple[Shape, ...], parts: int = 1) -> Shape:
        if len(inputs) != 1 or len(inputs[0]) != 1 or inputs[0][0] % self.pieces:
            raise GraphError(f"it takes units, {self.pieces} for each of its own")
        return (inputs[0][0] // self.pieces,)

    def weights(self, at: Setting) -> dict[str, Shape]:
        return {"gain": at.inputs[0]}

    def most_parts(self, at: Setting) -> int:
        return at.output[0]

    def split(self, at: Setting, parts: int) -> list[Box]:
        return [(units,) for units in intervals(at.output[0], parts)]

    def needs(self, at: Setting, box: Box) -> tuple[Box, ...]:
        """A unit needs its own pieces.  What lies on another machine crosses by itself, once in each phase."""
        ((begin, end),) = box
        return (((begin * self.pieces, end * self.pieces),),)

    def weight_boxes(self, at: Setting, box: Box) -> dict[str, Box]:
        return {"gain": self.needs(at, box)[0]}

    def flops(self, at: Setting, box: Box) -> float:
        ((begin, end),) = box
        return 2.0 * self.pieces * (end - begin)

    def initialise(self, at: Setting, name: str, tensor: Any) -> None:
        tensor.fill_(1.0)

    def forward(self, inputs: Sequence[Any], weights: Mapping[str, Any], part: Part) -> Any:
        return (inputs[0] * weights["gain"]).unflatten(1, (-1, self.pieces)).amax(2)


def network() -> Graph:
    return Graph([
        Node("inputs", Source((64,))),
        Node("hidden", Dense(120), "inputs"),
        Node("maxout", Maxout(pieces=3), "hidden"),
        Node("classes", Dense(10), "maxout"),
    ])  # fmt: skip
