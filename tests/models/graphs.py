"""Graphs drawn at random, placements drawn at random, and the whole model computed plainly: nothing here is shared with `models/`."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import torch
from hypothesis import strategies as st
from torch.nn import functional

from core.boxes import Shape, extent
from core.graph import Graph, Node
from models.arranging import Concatenate, Permute, Reshape, Slice
from models.layers import TINY, Add, Dense, Elementwise, LayerNorm, Linear, Mean, Normalised, Rows, Source, Whole
from models.losses import with_loss
from models.windows import Contrast, Convolution, LocallyConnected, Pool


def layer_norm(inputs: Any, weights: Mapping[str, Any]) -> torch.Tensor:
    (given,) = inputs
    return functional.layer_norm(given, given.shape[1:], weights["scale"])


def scaled(given: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    return given * scale + shift


def product(*inputs: torch.Tensor) -> torch.Tensor:
    return functools.reduce(torch.mul, inputs)


def broadcast(shape: Shape, to: Shape) -> bool:
    """Of this shape, or of size 1 where it is not."""
    return len(shape) == len(to) and all(size in (1, side) for size, side in zip(shape, to, strict=True))


def without(shape: Shape, axis: int) -> Shape:
    return (*shape[:axis], *shape[axis + 1 :])


@st.composite
def layers_on(draw: st.DrawFn, shape: Shape) -> Any:
    """A layer that takes one input of this shape."""
    either = [Elementwise("tanh"), Elementwise("sigmoid"), Elementwise(functional.silu), Normalised(affine=draw(st.booleans()))]
    either += [Whole(shape, (("scale", shape),), layer_norm), Dense(draw(st.integers(1, 7)), draw(st.booleans()))]
    either += [Reshape(draw(reshaped(math.prod(shape)))), draw(sliced(shape))]
    sizes = draw(st.tuples(*(st.sampled_from([1, size]) for size in shape)))
    parameters = ("scale", sizes[draw(st.integers(0, len(shape))) :]), ("shift", (1, *sizes))
    either += [Elementwise(scaled, parameters), Elementwise("mul", parameters[:1])]
    if len(shape) == 1:
        return draw(st.sampled_from([*either, Elementwise("relu")]))
    together = draw(st.integers(1, len(shape) - 1))
    axes = st.integers(0, len(shape) - 1)
    either += [
        Linear(draw(st.integers(1, 5)), draw(st.booleans())),
        LayerNorm(together, affine=draw(st.booleans()), bias=draw(st.booleans())),
        Permute(tuple(draw(st.permutations(range(len(shape)))))),
        Rows(shape, functools.partial(torch.softmax, dim=-1)),
        Mean(draw(st.booleans()), tuple(draw(st.lists(axes, min_size=1, max_size=len(shape) - 1, unique=True)))),
    ]
    if len(shape) == 2:
        return draw(st.sampled_from(either))
    smallest = min(shape[1:])
    window = draw(st.integers(1, min(3, smallest)))
    stride = draw(st.integers(1, 3))
    padding, any_padding = draw(st.integers(0, window // 2)), draw(st.integers(0, 3))
    filters, bias = draw(st.integers(1, 4)), draw(st.booleans())
    sides = draw(uneven(shape[1:]))
    dilation = tuple(draw(st.integers(1, max(1, (size - 1) // max(1, side - 1)))) for side, size in zip(sides[0], shape[1:], strict=True))
    groups = draw(st.sampled_from([1, shape[0]]))
    over = [
        Convolution(filters, window, stride, any_padding, bias),
        Convolution(filters * groups, *sides, bias, dilation, groups),
        LocallyConnected(filters, window, stride, any_padding, bias),
        Pool("max", window, stride, padding),
        Pool("max", *sides, dilation=dilation, ceil_mode=draw(st.booleans())),
        Pool("mean", window, stride, padding, counts_padding=draw(st.booleans())),
        Pool("mean", *sides, counts_padding=False, ceil_mode=True),
        Pool("l2", *sides),
        Contrast(draw(st.sampled_from([1, 3, 5]))),
        Mean(draw(st.booleans())),
    ]
    return draw(st.sampled_from([*over, *over, *either]))


@st.composite
def reshaped(draw: st.DrawFn, numbers: int) -> Shape:
    """So many numbers in one row, in several, or as an image."""
    left, found = numbers, []
    for _ in range(draw(st.integers(0, 2))):
        found.append(draw(st.sampled_from([size for size in range(1, left + 1) if left % size == 0])))
        left //= found[-1]
    return (*found, left)


@st.composite
def sliced(draw: st.DrawFn, shape: Shape) -> Slice:
    """A box, without some dimensions in which it has one place, and with one more."""
    sides = [sorted(draw(st.tuples(st.integers(0, size - 1), st.integers(1, size)))) for size in shape]
    box = tuple((begin, max(end, begin + 1)) for begin, end in sides)
    to = [size for size in extent(box) if size > 1 or draw(st.booleans())]
    if len(to) < 3 and (not to or draw(st.booleans())):
        to.insert(draw(st.integers(0, len(to))), 1)
    return Slice(box, tuple(to))


@st.composite
def uneven(draw: st.DrawFn, sizes: Shape) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Windows, strides and paddings that differ down and along."""
    down, along = ((window := draw(st.integers(1, size)), draw(st.integers(1, 3)), draw(st.integers(0, window // 2))) for size in sizes)
    return tuple(zip(down, along, strict=True))  # type: ignore[return-value]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """With a loss."""
    return with_loss(draw(lossless_graphs()), draw(st.sampled_from(["cross-entropy", "logistic", "mse"])))


@st.composite
def lossless_graphs(draw: st.DrawFn) -> Graph:
    """A chain with branches, which are put together again."""
    shape = draw(st.sampled_from([(6,), (4, 6), (1, 5, 6), (2, 6, 5), (3, 4, 4)]))
    graph = Graph([Node("inputs", Source(shape))])
    for number in range(draw(st.integers(1, 6))):
        before = graph[list(graph.nodes)[-1 - draw(st.sampled_from([0, 0, 0, 1, 2])) % len(graph.nodes)]]
        same = [node.name for node in graph if broadcast(node.at.output, before.at.output) and not node.layer.source]
        if same and draw(st.integers(0, 3)) == 0:
            others = draw(st.lists(st.sampled_from(same), min_size=1, max_size=2))
            kind = draw(st.sampled_from([Add(), Elementwise(product)]))
            node = Node(f"n{number}", kind, *draw(st.permutations([before.name, *others])))
        elif draw(st.integers(0, 7)) == 0:
            axis = draw(st.integers(0, len(before.at.output) - 1))
            rest = without(before.at.output, axis)
            fitting = [node.name for node in graph if without(node.at.output, axis) == rest and len(node.at.output) == len(rest) + 1]
            node = Node(f"n{number}", Concatenate(axis), before.name, *draw(st.lists(st.sampled_from(fitting), max_size=2)))
        elif len(before.at.output) > 1 and draw(st.integers(0, 5)) == 0:
            gate = Node(f"gate{number}", Mean(True, (draw(st.integers(0, len(before.at.output) - 1)),)), before.name)
            graph, node = graph.then([gate]), Node(f"n{number}", Elementwise(product), before.name, gate.name)
        else:
            node = Node(f"n{number}", draw(layers_on(before.at.output)), before.name)
        graph = graph.then([node])
    classes = draw(st.integers(2, 7))
    ends = [Node(f"end-{node.name}", Dense(classes), node.name) for node in graph.outputs]
    return graph.then([*ends, Node("outputs", Add(), *(node.name for node in ends))])


@st.composite
def placements(draw: st.DrawFn, graph: Graph, *, machines: int | None = None, parts: int = 6) -> dict[str, tuple[int, ...]]:
    """For each layer by itself any of the machines, in any order and as often as it comes; or all on as many machines as there are parts."""
    count = draw(st.integers(1, 8)) if machines is None else machines
    one = st.integers(0, count - 1)
    return {
        node.name: tuple(draw(st.lists(one, min_size=1, max_size=min(parts, node.layer.most_parts(node.at)))))
        for node in graph
        if not node.layer.source
    }


def spread(graph: Graph, machines: int) -> dict[str, tuple[int, ...]]:
    """Each layer over as many as there are, as far as it can be split."""
    return {node.name: tuple(range(min(machines, node.layer.most_parts(node.at)))) for node in graph if not node.layer.source}


def staggered(graph: Graph, machines: int) -> dict[str, tuple[int, ...]]:
    """The same, but each layer begins on another machine than the one before, so that nothing stays where it is."""
    return {
        name: tuple((number + place) % machines for number in there) for place, (name, there) in enumerate(spread(graph, machines).items())
    }


def drawn_state(graph: Graph, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        node.key(weight): torch.randn(shape, generator=generator, dtype=torch.float64) * 0.5
        for node in graph
        for weight, shape in node.weights.items()
    }


def drawn_batch(graph: Graph, samples: int, seed: int, outputs: str = "outputs") -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn((samples, *graph["inputs"].at.output), generator=generator, dtype=torch.float64)
    targets = graph["targets"].at.output
    if targets:
        return inputs, torch.randn((samples, *targets), generator=generator, dtype=torch.float64)
    classes = graph[outputs].at.output[0]
    return inputs, torch.randint(classes, (samples,), generator=generator)


# the whole model, plainly


def plain(layer: Any, inputs: list[torch.Tensor], weights: Mapping[str, torch.Tensor]) -> torch.Tensor:  # noqa: C901, PLR0911, PLR0912  one for each kind
    x = inputs[0]
    match layer:
        case Dense():
            return x.reshape(len(x), -1) @ weights["weight"].T + weights.get("bias", 0.0)
        case Convolution():
            shape = layer.stride, layer.padding, layer.dilation, layer.groups
            return functional.conv2d(x, weights["weight"], weights.get("bias"), *shape)
        case LocallyConnected():
            return locally_connected(layer, x, weights)
        case Pool():
            return pooled(layer, x)
        case Contrast():
            return contrasted(layer, x)
        case Normalised():
            over = [0, *range(2, x.dim())]
            mean, variance = x.mean(over, keepdim=True), x.var(over, unbiased=False, keepdim=True)
            y = (x - mean) / (variance + layer.epsilon).sqrt()
            side = (1, -1, *(1,) * (x.dim() - 2))
            return y * weights["weight"].view(side) + weights["bias"].view(side) if layer.affine else y
        case LayerNorm():
            over = list(range(x.dim() - layer.dimensions, x.dim()))
            y = (x - x.mean(over, keepdim=True)) / (x.var(over, unbiased=False, keepdim=True) + layer.epsilon).sqrt()
            return y * weights.get("weight", 1.0) + weights.get("bias", 0.0)
        case Mean():
            over = [1 + axis for axis in layer.over]
            return x.sum(over, keepdim=layer.keepdim) / math.prod(x.shape[axis] for axis in over)
        case Rows():
            return torch.stack([layer.function(x[:, place : place + 1])[:, 0] for place in range(x.shape[1])], dim=1)
        case Linear():
            return torch.einsum("n...i,oi->n...o", x, weights["weight"]) + weights.get("bias", 0.0)
        case Slice():
            return x[(slice(None), *(slice(*side) for side in layer.box))].reshape(len(x), *layer.to)
        case Concatenate():
            return torch.cat(inputs, 1 + layer.axis)
        case Reshape():
            return x.reshape(len(x), *layer.to)
        case Permute():
            return torch.einsum(x, [9, *range(x.dim() - 1)], [9, *layer.order])
        case Add():
            return functools.reduce(torch.add, inputs)
        case Whole():
            return layer.function(inputs, weights)
        case Elementwise():
            inputs = [*inputs, *weights.values()]
            return layer.function(*inputs) if callable(layer.function) else getattr(torch, layer.function)(*inputs)
    raise AssertionError(layer)


def locally_connected(layer: LocallyConnected, x: torch.Tensor, weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Place by place."""
    x = functional.pad(x, (layer.padding,) * 4)
    rows, columns = weights["weight"].shape[:2]
    found = []
    for row in range(rows):
        for column in range(columns):
            top, left = row * layer.stride, column * layer.stride
            patch = x[:, :, top : top + layer.window, left : left + layer.window].reshape(len(x), -1)
            one = patch @ weights["weight"][row, column].T
            found.append(one + weights["bias"][row, column] if layer.bias else one)
    return torch.stack(found, dim=2).reshape(len(x), layer.filters, rows, columns)


def pooled(layer: Pool, x: torch.Tensor) -> torch.Tensor:
    shape = layer.window, layer.stride, layer.padding
    if layer.kind == "max":
        return functional.max_pool2d(x, *shape, layer.dilation, ceil_mode=layer.ceil_mode)
    if layer.kind == "mean":
        return functional.avg_pool2d(x, *shape, ceil_mode=layer.ceil_mode, count_include_pad=layer.counts_padding)
    return (functional.avg_pool2d(x * x, *shape, divisor_override=1) + TINY).sqrt()


def contrasted(layer: Contrast, x: torch.Tensor) -> torch.Tensor:
    """Place by place."""
    half, (height, width) = layer.window // 2, x.shape[2:]
    found = []
    for row in range(height):
        for column in range(width):
            around = x[:, :, max(0, row - half) : row + half + 1, max(0, column - half) : column + half + 1]
            mean = around.mean((1, 2, 3))
            variance = ((around - mean.view(-1, 1, 1, 1)) ** 2).mean((1, 2, 3))
            found.append((x[:, :, row, column] - mean.view(-1, 1)) / (variance.view(-1, 1) + layer.epsilon).sqrt())
    return torch.stack(found, dim=2).reshape(x.shape)


def plain_outputs(graph: Graph, state: Mapping[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
    """What comes out before the loss."""
    values = {"inputs": inputs}
    for node in graph:
        if not node.layer.source and values.keys() >= set(node.inputs):
            weights = {weight: state[node.key(weight)] for weight in node.weights}
            values[node.name] = plain(node.layer, [values[name] for name in node.inputs], weights)
    return values["outputs"]


def plain_loss(name: str, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    if name == "cross-entropy":
        return functional.cross_entropy(outputs, targets)
    if name == "mse":
        return functional.mse_loss(outputs, targets)
    ones = functional.one_hot(targets, outputs.shape[1]).to(outputs.dtype)
    return functional.binary_cross_entropy_with_logits(outputs, ones, reduction="sum") / len(outputs)
