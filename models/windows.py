"""Layers whose windows move over an image, and are split into tiles with halos."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from core.boxes import Box, Shape, extent, slices, volume
from core.graph import GraphError, Part, Setting, shape_told
from models.layers import TINY, ByPlaces, one_input


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
