"""A network whose gradients add up exactly in any order: exact numerics of Sandblaster and of synchronous SGD.

Portion p has one sample, and the loss of a sum of parabolas about places of its own.  Parameters are looked at on a grid of 2^-8
and everything else is whole, so sums over portions are exact in float64, whoever computed which of them and however they
were bundled: the gradient that shards have gathered is compared by equality.  Coordinates do not depend on each other, so each shard's
slice is checked by itself, where it lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from core.coordination import Gather, Operate
from core.job import Job, role_number
from core.lbfgs import PARAMETERS
from core.messages import Sender
from core.operations import Update
from core.shard import Shard
from core.staging import POINT, StagingShard
from core.work import Cost, Gradient, Quality, Work

LEAST_WIDTH = 12
"""Parameters: 1, 2, 3 and 4 shards share them equally."""
GRID = 2.0**-8


@dataclass(slots=True)
class Parabolas:
    """`core.work.Network` over portions that are their numbers."""

    width: int
    flops: float
    """Of a portion, or a minibatch."""
    wrong: list[str] = field(default_factory=list)
    """Whatever shards gathered that is not the sum of each portion once, and steps that were not taken with it."""

    def __len__(self) -> int:
        return self.width

    def initial(self) -> torch.Tensor:
        return torch.zeros(self.width, dtype=torch.float64)

    def gradient(self, parameters: torch.Tensor, batch: int) -> Work[Gradient]:
        def run() -> Gradient:
            seen, whole = on_grid(parameters), slice(0, self.width)
            slope = gradient_of(seen, batch, whole)
            return Gradient(slope, float(slope @ (seen - centre(batch, whole))) / 2, 1)

        return Work(run, Cost(self.flops, 0.0))

    def evaluate(self, parameters: torch.Tensor) -> Work[Quality]:
        return Work(lambda: Quality(float(parameters.abs().sum()), None), Cost(self.flops / 3, 0.0))


def on_grid(parameters: torch.Tensor) -> torch.Tensor:
    return (parameters / GRID).round() * GRID


def centre(portion: int, part: slice) -> torch.Tensor:
    """Where portion p's parabolas have their minimum: whole numbers."""
    return (torch.arange(part.start, part.stop, dtype=torch.float64) * 7 + portion * 5) % 11 - 5


def gradient_of(seen: torch.Tensor, portion: int, part: slice) -> torch.Tensor:
    steepness = 1 + torch.arange(part.start, part.stop, dtype=torch.float64) % 4 + portion % 3
    return steepness * (seen - centre(portion, part))


def exact_gradient(point: torch.Tensor, portions: Sequence[int], part: slice) -> torch.Tensor:
    """Of the mean loss over these portions, as a shard that has gathered each once must have it."""
    seen = on_grid(point)
    return sum((gradient_of(seen, portion, part) for portion in portions), torch.zeros_like(seen)) * (1.0 / len(portions))


def watched(kind: type[Shard], network: Parabolas, job: Job) -> type[Shard]:
    """A shard of that kind which, besides, looks at whatever it has gathered, and at each step that it takes with that."""
    assert issubclass(kind, StagingShard)

    class Watched(kind):  # type: ignore[misc, valid-type]
        fresh = False
        """Has this life gathered a gradient that no step was taken with?"""

        def gather(self, gather: Gather) -> None:
            super().gather(gather)
            self.fresh = True
            part = job.shards[role_number(self.node.name)].part
            exact = exact_gradient(self.vectors[POINT], wanted(gather, job, network), part)
            if not torch.equal(self.vectors[gather.into], exact):
                network.wrong.append(f"{self.node.name} gathered {self.vectors[gather.into].tolist()}, not {exact.tolist()}")

        def carry_out(self, operate: Operate, sender: Sender) -> None:
            if any(isinstance(operation, Update) for operation in operate.operations):
                here = torch.equal(self.vectors[POINT], self.vectors[PARAMETERS])
                if not here or not (self.fresh or operate.gather):
                    network.wrong.append(f"{self.node.name} took a step with a gradient that is not of these parameters")
                super().carry_out(operate, sender)
                self.fresh = False
            else:
                super().carry_out(operate, sender)

    return Watched


def wanted(gather: Gather, job: Job, network: Parabolas) -> Sequence[int]:
    """Which portions, or replicas, must be in there, each once."""
    if job.sandblaster is not None:
        return range(job.sandblaster.portions)
    assert job.synchronous is not None
    replicas = sorted({role_number(bundle.replica) for bundle in gather.bundles})
    if len(replicas) != job.synchronous.gradients:
        network.wrong.append(f"a step with the gradients of {replicas}")
    return replicas


class NumberedPortions:
    """Portions that are their numbers."""

    def portion(self, number: int) -> int:
        return number


class SharedMinibatches:
    """Of a warm start: a replica's are single portions, one after the other."""

    def __init__(self, replica: int, portions: int) -> None:
        self.replica, self.portions = replica, portions

    def minibatch(self, step: int) -> int:
        return (self.replica + step) % self.portions


class OwnMinibatch:
    """A replica's only minibatch: its number, whatever its life."""

    def __init__(self, number: int) -> None:
        self.number = number

    def minibatch(self, _: int) -> int:
        return self.number
