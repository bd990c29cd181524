"""The kinds of layers that come with us: what each computes, how it is split, and what a part of it needs.

Torch is imported where something is computed, and nowhere else: the simulator's timing-only runs need sizes alone.
Outputs of one sample are (units,), (places, units) or (channels, height, width); kinds that only move numbers are in `models/arranging.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from core.boxes import Box, Shape, extent, intervals, slices, tiles, volume, whole
from core.graph import Graph, GraphError, Layer, Node, Part, Setting, shape_told
from models.errors import DataError

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


def image(inputs: tuple[Shape, ...]) -> Shape:
    shape = one_input(inputs)
    if len(shape) != 3:
        raise GraphError(f"it takes channels x height x width, not {shape_told(shape)}")
    return shape


Sides = int | tuple[int, int]
"""One number for both, or one down and one along."""


def both(sides: Sides) -> tuple[int, int]:
    return (sides, sides) if isinstance(sides, int) else sides


def window_steps(size: int, window: int, stride: int, padding: int = 0, *, ceil_mode: bool = False) -> int:
    """How many places a window has along one side; `ceil_mode`: also one at which it hangs over, if it begins before the padding behind does.

    Raises GraphError if it has none.
    """
    left = size + 2 * padding - window
    steps = left // stride + 1
    if ceil_mode:
        steps = min(-(-left // stride), (size + padding - 1) // stride) + 1
    if steps < 1:
        raise GraphError(f"a window of {window} does not fit into {size}" + (f" and a padding of {padding}" if padding else ""))
    return steps


def windows_need(interval: tuple[int, int], size: int, window: int, stride: int, padding: int = 0) -> tuple[int, int]:
    """What windows at these places see of a side, its padding apart; of no length where they see padding alone."""
    first, last = interval[0] * stride - padding, (interval[1] - 1) * stride + window - padding
    return min(max(0, first), size), max(0, min(size, last))


def padding_left(interval: tuple[int, int], size: int, window: int, stride: int, padding: int) -> tuple[int, int]:
    """How much of the padding they see before and behind it."""
    first, last = interval[0] * stride - padding, (interval[1] - 1) * stride + window - padding
    return max(0, min(0, last) - first), max(0, last - max(size, first))


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


class Tiled(ByPlaces):
    """A window that moves over an image; split into tiles, each of which needs what its windows see: itself and a halo."""

    window: Sides
    stride: Sides
    padding: Sides
    dilation: Sides = 1
    """From one place that a window sees to the next."""
    ceil_mode: bool = False
    """May the last windows hang over the border?"""

    @property
    def sides(self) -> list[tuple[int, int, int]]:
        """Down and along: how far a window reaches, its step, and the padding."""
        ways = zip(both(self.window), both(self.dilation), both(self.stride), both(self.padding), strict=True)
        return [((window - 1) * dilation + 1, stride, padding) for window, dilation, stride, padding in ways]

    @property
    def places(self) -> int:
        """That a window sees of one channel."""
        return math.prod(both(self.window))

    def channels(self, given: int) -> int:
        """Of the output."""
        return given

    def shape(self, inputs: tuple[Shape, ...], parts: int = 1) -> Shape:
        channels, *sizes = image(inputs)
        steps = (window_steps(size, *side, ceil_mode=self.ceil_mode) for size, side in zip(sizes, self.sides, strict=True))
        return (self.channels(channels), *steps)

    def needs(self, at: Setting, box: Box) -> tuple[Box, ...]:
        channels, *sizes = at.inputs[0]
        seen = (windows_need(places, size, *side) for places, size, side in zip(box[1:], sizes, self.sides, strict=True))
        return (((0, channels), *seen),)

    def padded(self, tile: Any, part: Part, value: float = 0.0) -> Any:
        """A tile with what it sees of the padding, and beyond."""
        rows, columns = (
            padding_left(places, size, *side) for places, size, side in zip(part.box[1:], part.at.inputs[0][1:], self.sides, strict=True)
        )
        if not any((*rows, *columns)):
            return tile
        from torch.nn.functional import pad

        return pad(tile, (*columns, *rows), value=value)

    def fan_in(self, at: Setting) -> int:
        return int(at.inputs[0][0]) * self.places


@dataclass(frozen=True)
class LocallyConnected(Tiled):
    """Filters that are not shared: each place of the image has its own (paper, section 5: 10 x 10 patches).

    Parameters lie by place, so that a tile owns those of its places and nobody else needs them.
    """

    filters: int
    window: int
    stride: int = 1
    padding: int = 0
    bias: bool = True

    def channels(self, given: int) -> int:
        return self.filters

    def weights(self, at: Setting) -> dict[str, Shape]:
        places = at.output[1:]
        found: dict[str, Shape] = {"weight": (*places, self.filters, at.inputs[0][0] * self.window**2)}
        return found | ({"bias": (*places, self.filters)} if self.bias else {})

    def weight_boxes(self, at: Setting, box: Box) -> dict[str, Box]:
        found: dict[str, Box] = {"weight": (*box[1:], (0, self.filters), (0, at.inputs[0][0] * self.window**2))}
        return found | ({"bias": (*box[1:], (0, self.filters))} if self.bias else {})

    def flops(self, at: Setting, box: Box) -> float:
        return 2.0 * at.inputs[0][0] * self.window**2 * volume(box)

    def forward(self, inputs: Sequence[Any], weights: Mapping[str, Any], part: Part) -> Any:
        filters, rows, columns = extent(part.box)
        seen = self.padded(inputs[0], part)
        seen = seen.unfold(2, self.window, self.stride).unfold(3, self.window, self.stride)  # samples, channels, rows, columns, patch
        patches = seen.permute(2, 3, 0, 1, 4, 5).reshape(rows * columns, len(inputs[0]), -1)
        found = patches @ weights["weight"].reshape(rows * columns, filters, -1).transpose(1, 2)
        if self.bias:
            found = found + weights["bias"].reshape(rows * columns, 1, filters)
        return found.reshape(rows, columns, -1, filters).permute(2, 3, 0, 1)


@dataclass(frozen=True)
class Convolution(Tiled):
    """Filters shared by all places.  Each tile needs all of them: they belong to the first machine that has one, and cross to the others.

    `groups`: into so many the channels are divided, and each has filters that see no other.
    """

    filters: int
    window: Sides
    stride: Sides = 1
    padding: Sides = 0
    bias: bool = True
    dilation: Sides = 1
    groups: int = 1

    def shape(self, inputs: tuple[Shape, ...], parts: int = 1) -> Shape:
        if image(inputs)[0] % self.groups or self.filters % self.groups:
            raise GraphError(f"{self.groups} groups; allowed: what divides its {image(inputs)[0]} channels and {self.filters} filters")
        return super().shape(inputs, parts)

    def channels(self, given: int) -> int:
        return self.filters

    def weights(self, at: Setting) -> dict[str, Shape]:
        found: dict[str, Shape] = {"weight": (self.filters, at.inputs[0][0] // self.groups, *both(self.window))}
        return found | ({"bias": (self.filters,)} if self.bias else {})

    def flops(self, at: Setting, box: Box) -> float:
        return 2.0 * self.fan_in(at) * volume(box)

    def fan_in(self, at: Setting) -> int:
        return super().fan_in(at) // self.groups

    def forward(self, inputs: Sequence[Any], weights: Mapping[str, Any], part: Part) -> Any:
        from torch.nn.functional import conv2d

        seen = self.padded(inputs[0], part)
        return conv2d(seen, weights["weight"], weights.get("bias"), self.stride, 0, self.dilation, self.groups)


@dataclass(frozen=True)
class Pool(Tiled):
    """The greatest, the mean, or the root of the sum of squares ("l2": Le et al., ICML 2012) of each window of each channel.

    `counts_padding`: does a mean count it, as zeros?  Else it is of what lies in the image.
    """

    kind: Literal["max", "mean", "l2"]
    window: Sides
    stride: Sides
    padding: Sides = 0
    counts_padding: bool = True
    dilation: Sides = 1
    ceil_mode: bool = False

    def shape(self, inputs: tuple[Shape, ...], parts: int = 1) -> Shape:
        for window, padding in zip(both(self.window), both(self.padding), strict=True):
            if 2 * padding > window:
                raise GraphError(f"a padding of {padding} around windows of {window}; allowed: at most half of a window")
        if self.kind != "max" and both(self.dilation) != (1, 1):
            raise GraphError(f"a dilation of {self.dilation} with {self.kind!r}; allowed: with 'max'")
        if self.kind == "mean" and self.ceil_mode and self.counts_padding:
            raise GraphError("ceil_mode with a mean that counts the padding; allowed: either")
        return super().shape(inputs, parts)

    def flops(self, at: Setting, box: Box) -> float:
        return float(self.places * volume(box)) * (2 if self.kind == "l2" else 1)

    def forward(self, inputs: Sequence[Any], weights: Mapping[str, Any], part: Part) -> Any:
        from torch.nn.functional import avg_pool2d, max_pool2d

        if self.kind == "max":
            return max_pool2d(self.padded(inputs[0], part, -math.inf), self.window, self.stride, 0, self.dilation)
        seen = self.padded(inputs[0], part)
        if self.kind == "mean":
            mean = avg_pool2d(seen, self.window, self.stride)
            if self.counts_padding or seen is inputs[0]:
                return mean
            inside = self.padded(inputs[0].new_ones((1, 1, *inputs[0].shape[2:])), part)
            return mean / avg_pool2d(inside, self.window, self.stride)
        return (avg_pool2d(seen * seen, self.window, self.stride) * self.places + TINY).sqrt()


@dataclass(frozen=True)
class Contrast(ByPlaces):
    """Local contrast normalisation (Jarrett et al., ICCV 2009): what stands out from its surroundings, in units of how much these vary.

        (x - mean) / sqrt(variance + epsilon), over all channels of a window of `window` x `window` around each place

    Windows weigh all places alike (theirs are Gaussian), and at the border only those count that are in the image.
    """

    window: int = 5
    epsilon: float = 0.01

    def shape(self, inputs: tuple[Shape, ...], parts: int = 1) -> Shape:
        if self.window % 2 == 0:
            raise GraphError(f"a window of {self.window} has no middle; allowed: odd numbers")
        return image(inputs)

    def needs(self, at: Setting, box: Box) -> tuple[Box, ...]:
        seen = (windows_need(side, size, self.window, 1, self.window // 2) for side, size in zip(box[1:], at.output[1:], strict=True))
        return ((box[0], *seen),)

    def flops(self, at: Setting, box: Box) -> float:
        return float(volume(box)) * (4 * self.window + 8)
        # sums of x and of x squared, along rows and then along columns; and the normalisation

    def forward(self, inputs: Sequence[Any], weights: Mapping[str, Any], part: Part) -> Any:
        from torch import ones_like
        from torch.nn.functional import avg_pool2d

        seen, half = inputs[0], self.window // 2
        here = (slice(None), slice(None), *slices(part.box, part.needs[0])[1:])

        def around(values: Any) -> Any:
            return avg_pool2d(values, self.window, 1, half)[here]

        level = seen.mean(1, keepdim=True)
        inside = around(ones_like(level))  # what part of each window is in the image
        mean = around(level) / inside
        variance = (around((seen * seen).mean(1, keepdim=True)) / inside - mean * mean).clamp_min(0.0)
        return (seen[here] - mean) / (variance + self.epsilon).sqrt()


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


class ByClasses(Layer):
    """What a loss needs to know of some of the outputs: its own output is a row of `width` numbers for each part."""

    width: ClassVar[int]

    def shape(self, inputs: tuple[Shape, ...], parts: int = 1) -> Shape:
        if len(inputs) != 2:
            raise GraphError("it takes outputs and targets")
        return (parts, self.width)

    def most_parts(self, at: Setting) -> int:
        return at.inputs[0][0]

    def split(self, at: Setting, parts: int) -> list[Box]:
        return [((part, part + 1), (0, self.width)) for part in range(parts)]

    def classes(self, at: Setting, box: Box) -> tuple[int, int]:
        return intervals(at.inputs[0][0], at.output[0])[box[0][0]]

    def needs(self, at: Setting, box: Box) -> tuple[Box, ...]:
        return ((self.classes(at, box), *whole(at.inputs[0][1:])), whole(at.inputs[1]))

    def flops(self, at: Setting, box: Box) -> float:
        begin, end = self.classes(at, box)
        return 4.0 * (end - begin)


def check_classes(targets: Any, classes: int) -> None:
    """Raises DataError for a target that is none of so many classes: no part of them would have it, and the loss would be another."""
    least, most = int(targets.min()), int(targets.max())
    if least < 0 or most >= classes:
        raise DataError(f"data.source: a target of {least if least < 0 else most}; the network has classes 0 to {classes - 1}")


@dataclass(frozen=True)
class Softmax(ByClasses):
    """Of some classes: the logarithm of their exponentials' sum, and the target's output if it is one of them."""

    width: ClassVar[int] = 2

    def forward(self, inputs: Sequence[Any], weights: Mapping[str, Any], part: Part) -> Any:
        import torch

        outputs, targets = inputs
        begin, end = self.classes(part.at, part.box)
        if begin == 0:
            check_classes(targets, part.at.inputs[0][0])
        here = (targets >= begin) & (targets < end)
        picked = outputs.gather(1, (targets.clamp(begin, end - 1) - begin).long().unsqueeze(1)).squeeze(1)
        return torch.stack([outputs.logsumexp(1), picked * here], dim=1).unsqueeze(1)


@dataclass(frozen=True)
class Logistic(ByClasses):
    """Of some classes, one against all: the sum of their binary cross-entropies."""

    width: ClassVar[int] = 1

    def forward(self, inputs: Sequence[Any], weights: Mapping[str, Any], part: Part) -> Any:
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits

        outputs, targets = inputs
        begin, end = self.classes(part.at, part.box)
        if begin == 0:
            check_classes(targets, part.at.inputs[0][0])
        wanted = (targets.unsqueeze(1) == torch.arange(begin, end, device=outputs.device)).to(outputs.dtype)
        return binary_cross_entropy_with_logits(outputs, wanted, reduction="none").sum(1).reshape(-1, 1, 1)


@dataclass(frozen=True)
class Squares(ByClasses):
    """Of some outputs: the sum of the squares of what they are wrong by, over how many outputs there are in all."""

    width: ClassVar[int] = 1

    def needs(self, at: Setting, box: Box) -> tuple[Box, ...]:
        mine = (self.classes(at, box), *whole(at.inputs[0][1:]))
        return (mine, mine)

    def forward(self, inputs: Sequence[Any], weights: Mapping[str, Any], part: Part) -> Any:
        outputs, targets = inputs
        return ((outputs - targets) ** 2).flatten(1).sum(1).reshape(-1, 1, 1) / math.prod(part.at.inputs[0])


@dataclass(frozen=True)
class CrossEntropy(Layer):
    """The loss of each sample, from what each part of a softmax says."""

    loss: ClassVar[bool] = True

    def shape(self, inputs: tuple[Shape, ...], parts: int = 1) -> Shape:
        one_input(inputs)
        return ()

    def forward(self, inputs: Sequence[Any], weights: Mapping[str, Any], part: Part) -> Any:
        return inputs[0][:, :, 0].logsumexp(1) - inputs[0][:, :, 1].sum(1)


@dataclass(frozen=True)
class Total(Layer):
    """The loss of each sample: the sum of what the parts say."""

    loss: ClassVar[bool] = True

    def shape(self, inputs: tuple[Shape, ...], parts: int = 1) -> Shape:
        one_input(inputs)
        return ()

    def forward(self, inputs: Sequence[Any], weights: Mapping[str, Any], part: Part) -> Any:
        return inputs[0].flatten(1).sum(1)


LOSSES: dict[str, tuple[type[ByClasses], type[Layer]]] = {
    "cross-entropy": (Softmax, CrossEntropy),
    "logistic": (Logistic, Total),
    "mse": (Squares, Total),
}
"""By the name that a scenario gives it: what each part of the classes computes, and how that becomes the loss."""


def with_loss(graph: Graph, loss: str, targets: Shape | None = None) -> Graph:
    """The graph with its targets, of this shape for each sample (left out: what the loss needs), and its loss.

    Raises GraphError unless it has one output, which has one dimension and a class for each of its numbers; or is as the targets are, for
    "mse".
    """
    outputs = graph.outputs
    if len(outputs) != 1:
        raise GraphError(f"the graph has the outputs {', '.join(node.name for node in outputs)}; allowed: one, whose loss is descended")
    output = outputs[0]
    if targets is None:
        targets = output.at.output if loss == "mse" else ()
    if loss == "mse" and output.at.output != targets:
        raise GraphError(
            f"output {output.name!r} of {shape_told(output.at.output)}; allowed for mse: what the targets are, {shape_told(targets)}"
        )
    if loss != "mse" and (len(output.at.output) != 1 or targets != ()):
        raise GraphError(
            f"output {output.name!r} of {shape_told(output.at.output)}, targets of {shape_told(targets)}; "
            f"allowed for {loss}: one row of classes, and for each sample the number of one"
        )
    parts, whole_loss = LOSSES[loss]
    return graph.then([
        Node("targets", Source(targets, "targets")),
        Node(f"{loss}-parts", parts(), output.name, "targets"),
        Node(loss, whole_loss(), f"{loss}-parts"),
    ])  # fmt: skip
