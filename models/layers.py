"""The kinds of layers that come with us: what each computes, how it is split, and what a part of it needs.

Torch is imported where something is computed, and nowhere else: the simulator's timing-only runs need sizes alone.
Outputs of one sample are (units,), (places, units) or (channels, height, width); kinds that only move numbers are in `models/arranging.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from core.boxes import Box, Shape, intervals, tiles, volume, whole
from core.graph import GraphError, Layer, Part, Setting, shape_told

T = TypeVar("T")
TINY = 1e-6
"""Under square roots, so that they have a slope at nothing."""


def one_input(inputs: tuple[Shape, ...]) -> Shape:
    if len(inputs) != 1:
        raise GraphError(f"{len(inputs)} inputs; it takes one")
    return inputs[0]


def several(inputs: tuple[Shape, ...]) -> Shape:
    shape = one_input(inputs)
    if len(shape) < 2:
        raise GraphError(f"it takes several dimensions, not {shape_told(shape)}")
    return shape


@dataclass(frozen=True)
class Source(Layer):
    """What comes with the minibatch: the inputs, or the targets."""

    source: ClassVar[bool] = True
    of: Shape
    what: Literal["inputs", "targets"] = "inputs"

    def shape(self, inputs: tuple[Shape, ...], parts: int = 1) -> Shape:
        if inputs:
            raise GraphError("it comes with the minibatch and takes nothing")
        return self.of

    def fitted(self, given: Any) -> Any:
        """A minibatch, in this shape: images come flat, or without their one channel.  Raises GraphError for one of another shape."""
        shape = tuple(given.shape[1:])
        if shape == self.of:
            return given
        bare = [tuple(size for size in one if size != 1) for one in (shape, self.of)]
        if math.prod(shape) != math.prod(self.of) or (bare[0] != bare[1] and len(shape) != 1 and len(self.of) != 1):
            raise GraphError(f"{self.what} of {shape_told(shape)}; the graph takes {shape_told(self.of)}, or as many numbers in one row")
        return given.reshape(len(given), *self.of)


def from_last(shape: Shape, sides: Sequence[T]) -> Iterator[tuple[int, T]]:
    """Its sizes with as many sides, the last with the last."""
    return zip(shape, sides[len(sides) - len(shape) :], strict=True)


class ByFirst(Layer):
    """Split by the first dimension of its output."""

    def most_parts(self, at: Setting) -> int:
        return at.output[0] if at.output else 1

    def split(self, at: Setting, parts: int) -> list[Box]:
        return [(first, *whole(at.output[1:])) for first in intervals(at.output[0], parts)] if at.output else [()]


class ByPlaces(ByFirst):
    """An image is split into tiles, all else by its first dimension."""

    def most_parts(self, at: Setting) -> int:
        return math.prod(at.output[1:]) if len(at.output) == 3 else super().most_parts(at)

    def split(self, at: Setting, parts: int) -> list[Box]:
        if len(at.output) == 3:
            return [((0, at.output[0]), *tile) for tile in tiles(at.output[1], at.output[2], parts)]
        return super().split(at, parts)


class Pointwise(ByPlaces):
    """Each output needs the inputs at its own place.

    Several inputs are of one shape; or, where they differ, of size 1, and then their one place is everyone's.
    """

    def shape(self, inputs: tuple[Shape, ...], parts: int = 1) -> Shape:
        if len({len(one) for one in inputs}) != 1 or any(len({*sizes} - {1}) > 1 for sizes in zip(*inputs, strict=True)):
            raise GraphError("it takes inputs of one shape, or of size 1 where they differ")
        return tuple(map(max, zip(*inputs, strict=True)))

    def needs(self, at: Setting, box: Box) -> tuple[Box, ...]:
        return tuple(tuple((0, 1) if size == 1 else side for size, side in zip(shape, box, strict=True)) for shape in at.inputs)


@dataclass(frozen=True)
class Elementwise(Pointwise):
    """A function of each element.  `function`: its name in `torch`, or `torch.nn.functional`; or one that can be called.

    `parameters`: further arguments that are trained, by name; of size 1, or as the output is in its last dimensions, and split as that is.
    """

    function: str | Callable[..., Any]
    parameters: tuple[tuple[str, Shape], ...] = ()

    def shape(self, inputs: tuple[Shape, ...], parts: int = 1) -> Shape:
        output = super().shape(inputs)
        for name, shape in self.parameters:
            if len(shape) > len(output) + 1 or any(size not in (1, side) for size, side in from_last(shape, (1, *output))):
                raise GraphError(
                    f"parameter {name!r} of {shape_told(shape)}; allowed: sizes of 1, or of the last ones of {shape_told(output)}"
                )
        return output

    def weights(self, at: Setting) -> dict[str, Shape]:
        return dict(self.parameters)

    def weight_boxes(self, at: Setting, box: Box) -> dict[str, Box]:
        return {
            name: tuple((0, 1) if size == 1 else side for size, side in from_last(shape, ((0, 1), *box))) for name, shape in self.parameters
        }

    def forward(self, inputs: Sequence[Any], weights: Mapping[str, Any], part: Part) -> Any:
        given = (*inputs, *weights.values())
        if callable(self.function):
            return self.function(*given)
        import torch

        return getattr(torch if hasattr(torch, self.function) else torch.nn.functional, self.function)(*given)


@dataclass(frozen=True)
class Add(Pointwise):
    """The sum of its inputs."""

    def forward(self, inputs: Sequence[Any], weights: Mapping[str, Any], part: Part) -> Any:
        return sum(inputs[1:], start=inputs[0])


@dataclass(frozen=True)
class Dense(Layer):
    """Fully connected, split by output units: each part needs all inputs, of whatever shape."""

    units: int
    bias: bool = True

    def shape(self, inputs: tuple[Shape, ...], parts: int = 1) -> Shape:
        one_input(inputs)
        return (self.units,)

    def weights(self, at: Setting) -> dict[str, Shape]:
        found: dict[str, Shape] = {"weight": (self.units, math.prod(at.inputs[0]))}
        return found | ({"bias": (self.units,)} if self.bias else {})

    def most_parts(self, at: Setting) -> int:
        return self.units

    def split(self, at: Setting, parts: int) -> list[Box]:
        return [(units,) for units in intervals(self.units, parts)]

    def weight_boxes(self, at: Setting, box: Box) -> dict[str, Box]:
        found: dict[str, Box] = {"weight": (box[0], (0, math.prod(at.inputs[0])))}
        return found | ({"bias": box} if self.bias else {})

    def flops(self, at: Setting, box: Box) -> float:
        return 2.0 * math.prod(at.inputs[0]) * volume(box)

    def forward(self, inputs: Sequence[Any], weights: Mapping[str, Any], part: Part) -> Any:
        from torch.nn.functional import linear

        return linear(inputs[0].flatten(1), weights["weight"], weights.get("bias"))


@dataclass(frozen=True)
class Linear(ByFirst):
    """Of the last of several dimensions, alike at all places of the others.  Each part needs all weights, as a tile does of a convolution."""

    units: int
    bias: bool = True

    def shape(self, inputs: tuple[Shape, ...], parts: int = 1) -> Shape:
        return (*several(inputs)[:-1], self.units)

    def weights(self, at: Setting) -> dict[str, Shape]:
        found: dict[str, Shape] = {"weight": (self.units, at.inputs[0][-1])}
        return found | ({"bias": (self.units,)} if self.bias else {})

    def needs(self, at: Setting, box: Box) -> tuple[Box, ...]:
        return ((*box[:-1], (0, at.inputs[0][-1])),)

    def flops(self, at: Setting, box: Box) -> float:
        return 2.0 * self.fan_in(at) * volume(box)

    def fan_in(self, at: Setting) -> int:
        return int(at.inputs[0][-1])

    def forward(self, inputs: Sequence[Any], weights: Mapping[str, Any], part: Part) -> Any:
        from torch.nn.functional import linear

        return linear(inputs[0], weights["weight"], weights.get("bias"))


@dataclass(frozen=True)
class Normalised(ByFirst):
    """Batch normalisation by the statistics of the minibatch, split by channels."""

    epsilon: float = 1e-5
    affine: bool = True

    def shape(self, inputs: tuple[Shape, ...], parts: int = 1) -> Shape:
        return one_input(inputs)

    def weights(self, at: Setting) -> dict[str, Shape]:
        return {"weight": (at.output[0],), "bias": (at.output[0],)} if self.affine else {}

    def initialise(self, at: Setting, name: str, tensor: Any) -> None:
        tensor.fill_(1.0 if name == "weight" else 0.0)

    def needs(self, at: Setting, box: Box) -> tuple[Box, ...]:
        return (box,)

    def weight_boxes(self, at: Setting, box: Box) -> dict[str, Box]:
        return dict.fromkeys(self.weights(at), (box[0],))

    def flops(self, at: Setting, box: Box) -> float:
        return 6.0 * volume(box)

    def forward(self, inputs: Sequence[Any], weights: Mapping[str, Any], part: Part) -> Any:
        from torch.nn.functional import batch_norm

        return batch_norm(inputs[0], None, None, weights.get("weight"), weights.get("bias"), training=True, eps=self.epsilon)


@dataclass(frozen=True)
class LayerNorm(ByFirst):
    """Normalisation of so many last dimensions, at each place of those before; these are split, and each part needs all weights."""

    dimensions: int = 1
    epsilon: float = 1e-5
    affine: bool = True
    bias: bool = True

    def shape(self, inputs: tuple[Shape, ...], parts: int = 1) -> Shape:
        shape = several(inputs)
        if not 0 < self.dimensions < len(shape):
            raise GraphError(f"{self.dimensions} dimensions together; allowed: 1 to {len(shape) - 1}")
        return shape

    def weights(self, at: Setting) -> dict[str, Shape]:
        names = [*["weight"] * self.affine, *["bias"] * (self.affine and self.bias)]
        return dict.fromkeys(names, at.output[-self.dimensions :])

    def initialise(self, at: Setting, name: str, tensor: Any) -> None:
        tensor.fill_(1.0 if name == "weight" else 0.0)

    def needs(self, at: Setting, box: Box) -> tuple[Box, ...]:
        return (box,)

    def flops(self, at: Setting, box: Box) -> float:
        return 6.0 * volume(box)

    def forward(self, inputs: Sequence[Any], weights: Mapping[str, Any], part: Part) -> Any:
        from torch.nn.functional import layer_norm

        together = part.at.output[-self.dimensions :]
        return layer_norm(inputs[0], together, weights.get("weight"), weights.get("bias"), self.epsilon)


@dataclass(frozen=True)
class Mean(ByFirst):
    """Over some dimensions: of each channel over the whole image, if nothing else is said.  `keepdim`: these stay, with one place each."""

    keepdim: bool = False
    over: tuple[int, ...] = (1, 2)

    def shape(self, inputs: tuple[Shape, ...], parts: int = 1) -> Shape:
        shape = one_input(inputs)
        if not {*self.over} <= {*range(len(shape))}:
            raise GraphError(f"a mean over the dimensions {self.over}; allowed: of 0 to {len(shape) - 1}")
        return tuple(1 if axis in self.over else size for axis, size in enumerate(shape) if self.keepdim or axis not in self.over)

    def needs(self, at: Setting, box: Box) -> tuple[Box, ...]:
        rest = iter([side for axis, side in enumerate(box) if not self.keepdim or axis not in self.over])
        return (tuple((0, size) if axis in self.over else next(rest) for axis, size in enumerate(at.inputs[0])),)

    def flops(self, at: Setting, box: Box) -> float:
        return float(volume(self.needs(at, box)[0]))

    def forward(self, inputs: Sequence[Any], weights: Mapping[str, Any], part: Part) -> Any:
        return inputs[0].mean([1 + axis for axis in self.over], keepdim=self.keepdim)


@dataclass(frozen=True)
class Rows(ByFirst):
    """A function that computes each place of the first dimension from the same place of its inputs, such as attention with several heads.

    `output`: its shape; `operations`: of all of it, if they are known.
    """

    output: Shape
    function: Callable[..., Any]
    operations: float = 0.0

    def shape(self, inputs: tuple[Shape, ...], parts: int = 1) -> Shape:
        if not self.output or any(one[:1] != self.output[:1] for one in inputs):
            raise GraphError(f"it takes inputs whose first dimension is that of its output, {shape_told(self.output)}")
        return self.output

    def needs(self, at: Setting, box: Box) -> tuple[Box, ...]:
        return tuple((box[0], *whole(shape[1:])) for shape in at.inputs)

    def flops(self, at: Setting, box: Box) -> float:
        return self.operations * volume(box) / math.prod(self.output) or super().flops(at, box)

    def forward(self, inputs: Sequence[Any], weights: Mapping[str, Any], part: Part) -> Any:
        return self.function(*inputs)


@dataclass(frozen=True)
class Whole(Layer):
    """Whatever cannot be split: a function of the inputs and parameters, with the shapes that it was seen to have."""

    output: Shape
    parameters: tuple[tuple[str, Shape], ...]
    function: Callable[[Sequence[Any], Mapping[str, Any]], Any]
    operations: float = 0.0

    def shape(self, inputs: tuple[Shape, ...], parts: int = 1) -> Shape:
        return self.output

    def weights(self, at: Setting) -> dict[str, Shape]:
        return dict(self.parameters)

    def flops(self, at: Setting, box: Box) -> float:
        return self.operations or super().flops(at, box)

    def forward(self, inputs: Sequence[Any], weights: Mapping[str, Any], part: Part) -> Any:
        return self.function(inputs, weights)


# the loss
