"""The losses: two layers each, what every part of the classes can say by itself, and what that comes to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from core.boxes import Box, Shape, intervals, whole
from core.graph import Graph, GraphError, Layer, Node, Part, Setting, shape_told
from models.errors import DataError
from models.layers import Source, one_input


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
