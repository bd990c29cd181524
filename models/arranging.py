"""The kinds of layers that compute nothing: they put the numbers of their inputs in another shape or order, or some of them together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.boxes import Box, Shape, extent, intervals, whole
from core.graph import GraphError, Layer, Part, Setting, shape_told
from models.layers import ByFirst, ByPlaces, one_input


@dataclass(frozen=True)
class Reshape(Layer):
    """The same numbers in the same order, split where rows of the input and of the output end together.  A fully connected layer has no
    need of a flat input.
    """

    to: Shape

    def shape(self, inputs: tuple[Shape, ...], parts: int = 1) -> Shape:
        if math.prod(one_input(inputs)) != math.prod(self.to):
            raise GraphError(f"{math.prod(self.to)} numbers come of as many, not of {math.prod(inputs[0])}")
        return self.to

    def rows(self, at: Setting) -> tuple[int, int]:
        """Of the input and of the output: the fewest that have the same numbers."""
        given, found = math.prod(at.inputs[0][1:]), math.prod(at.output[1:])
        together = math.lcm(given, found)
        return together // given, together // found

    def most_parts(self, at: Setting) -> int:
        return at.output[0] // self.rows(at)[1] if at.output else 1

    def split(self, at: Setting, parts: int) -> list[Box]:
        if not at.output:
            return [()]
        rows = self.rows(at)[1]
        return [((begin * rows, end * rows), *whole(at.output[1:])) for begin, end in intervals(self.most_parts(at), parts)]

    def needs(self, at: Setting, box: Box) -> tuple[Box, ...]:
        if not at.output or not at.inputs[0]:
            return (whole(at.inputs[0]),)
        given, found = self.rows(at)
        begin, end = box[0]
        return (((begin // found * given, end // found * given), *whole(at.inputs[0][1:])),)

    def forward(self, inputs: Sequence[Any], weights: Mapping[str, Any], part: Part) -> Any:
        return inputs[0].reshape(len(inputs[0]), *extent(part.box))


@dataclass(frozen=True)
class Permute(ByFirst):
    """Its input's dimensions in another order."""

    order: tuple[int, ...]

    def shape(self, inputs: tuple[Shape, ...], parts: int = 1) -> Shape:
        given = one_input(inputs)
        if sorted(self.order) != list(range(len(given))):
            raise GraphError(f"the order {self.order}; allowed: each of the dimensions 0 to {len(given) - 1} once")
        return tuple(given[axis] for axis in self.order)

    def needs(self, at: Setting, box: Box) -> tuple[Box, ...]:
        return (tuple(box[self.order.index(axis)] for axis in range(len(box))),)

    def forward(self, inputs: Sequence[Any], weights: Mapping[str, Any], part: Part) -> Any:
        return inputs[0].permute(0, *(1 + axis for axis in self.order))


@dataclass(frozen=True)
class Slice(ByPlaces):
    """What lies in a box of its input, perhaps with fewer or more dimensions of size 1."""

    box: Box
    to: Shape

    def shape(self, inputs: tuple[Shape, ...], parts: int = 1) -> Shape:
        given = one_input(inputs)
        if len(self.box) != len(given) or any(begin < 0 or end > size for (begin, end), size in zip(self.box, given, strict=True)):
            raise GraphError(f"the box {self.box}; allowed: one in {shape_told(given)}")
        if longer(extent(self.box)) != longer(self.to):
            raise GraphError(f"the box {self.box} as {shape_told(self.to)}; allowed: to leave out dimensions of size 1, and to add such")
        return self.to

    def needs(self, at: Setting, box: Box) -> tuple[Box, ...]:
        found = iter([side for side, size in zip(box, self.to, strict=True) if size > 1])

        def within(first: int, last: int) -> tuple[int, int]:
            begin, end = next(found) if last - first > 1 else (0, 1)
            return first + begin, first + end

        return (tuple(within(*side) for side in self.box),)

    def forward(self, inputs: Sequence[Any], weights: Mapping[str, Any], part: Part) -> Any:
        return inputs[0].reshape(len(inputs[0]), *extent(part.box))


def longer(shape: Shape) -> list[int]:
    return [size for size in shape if size != 1]


@dataclass(frozen=True)
class Concatenate(ByPlaces):
    """Its inputs one after the other along one dimension."""

    axis: int

    def shape(self, inputs: tuple[Shape, ...], parts: int = 1) -> Shape:
        axis = self.axis
        if len({(one[:axis], one[axis + 1 :]) for one in inputs}) != 1 or not 0 <= axis < len(inputs[0]):
            raise GraphError(f"it takes inputs of one shape apart from dimension {axis}")
        return (*inputs[0][:axis], sum(one[axis] for one in inputs), *inputs[0][axis + 1 :])

    def needs(self, at: Setting, box: Box) -> tuple[Box, ...]:
        (begin, end), found, first = box[self.axis], [], 0
        for shape in at.inputs:
            size = shape[self.axis]
            side = min(max(0, begin - first), size), min(max(0, end - first), size)
            found.append((*box[: self.axis], side, *box[self.axis + 1 :]))
            first += size
        return tuple(found)

    def forward(self, inputs: Sequence[Any], weights: Mapping[str, Any], part: Part) -> Any:
        from torch import cat

        return cat(list(inputs), 1 + self.axis)
