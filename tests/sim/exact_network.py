"""A network whose gradients add up exactly in any order: the oracle of Sandblaster's failure tests.

Portion p has one sample, and the loss of a sum of parabolas about places of its own.  Parameters are looked at on a grid of 2^-8
and everything else is whole, so sums over portions are exact in float64, whoever computed which of them and however they
were bundled: the gradient that shards have gathered is compared by equality.  Coordinates do not depend on each other, so each shard's
slice is checked by itself, where it lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from core.work import Cost, Gradient, Quality, Work
from scenarios.plan import BYTES_OF_FLOAT32, Plan, job, sharing
from scenarios.protocols import Sandblaster, Synchronous
from scenarios.schema import Scenario

WIDTH = 12
"""Parameters; 1, 2, 3 and 4 shards share them equally."""
GRID = 2.0**-8


class ExactNetwork:
    """`core.work.Network` over portions that are their numbers."""

    def __init__(self, flops: float) -> None:
        self.flops = flops

    def __len__(self) -> int:
        return WIDTH

    def initial(self) -> torch.Tensor:
        return torch.zeros(WIDTH, dtype=torch.float64)

    def gradient(self, parameters: torch.Tensor, batch: int) -> Work[Gradient]:
        def run() -> Gradient:
            seen = on_grid(parameters)
            slope = gradient_of(seen, batch, slice(0, WIDTH))
            return Gradient(slope, float(slope @ (seen - centre(batch, slice(0, WIDTH)))) / 2, 1)

        return Work(run, Cost(self.flops, 0.0))

    def evaluate(self, parameters: torch.Tensor) -> Work[Quality]:
        return Work(lambda: Quality(float(parameters.abs().sum()), None), Cost(self.flops / 3, 0.0))


def on_grid(parameters: torch.Tensor) -> torch.Tensor:
    return (parameters / GRID).round() * GRID


def centre(portion: int, part: slice) -> torch.Tensor:
    """Where portion p's parabolas have their minimum: whole numbers."""
    places = torch.arange(WIDTH, dtype=torch.float64)
    return (places * 7 + portion * 5)[part] % 11 - 5


def gradient_of(seen: torch.Tensor, portion: int, part: slice) -> torch.Tensor:
    steepness = 1 + torch.arange(WIDTH, dtype=torch.float64)[part] % 4 + portion % 3
    return steepness * (seen - centre(portion, part))


def exact_gradient(point: torch.Tensor, portions: Sequence[int], part: slice) -> torch.Tensor:
    """Of the mean loss over these portions, as a shard that has gathered each once must have it."""
    seen = on_grid(point)
    return sum((gradient_of(seen, portion, part) for portion in portions), torch.zeros_like(seen)) * (1.0 / len(portions))


class Numbers:
    """Portions that are their numbers."""

    def portion(self, number: int) -> int:
        return number


class Minibatches:
    """Of a warm start: a replica's are single portions."""

    def __init__(self, replica: int, portions: int) -> None:
        self.replica, self.portions = replica, portions

    def minibatch(self, step: int) -> int:
        return (self.replica + step) % self.portions


class Own:
    """A replica's only minibatch: its number, whatever its life."""

    def __init__(self, number: int) -> None:
        self.number = number

    def minibatch(self, _: int) -> int:
        return self.number


def prepared(scenario: Scenario) -> Plan:
    """A plan that trains it, at the cost that the scenario declares."""
    cost = scenario.model.cost
    assert cost is not None
    assert isinstance(scenario.protocol, Sandblaster | Synchronous)
    network: Any = ExactNetwork(cost.flops)
    scale = cost.parameters * BYTES_OF_FLOAT32 / network.initial().nbytes
    return Plan(
        scenario, job(scenario, sharing(scenario, WIDTH, None), 0), network, partial(minibatches, scenario.protocol), Numbers, scale
    )


def minibatches(protocol: Sandblaster | Synchronous, number: int, _: int) -> Minibatches | Own:
    return Own(number) if isinstance(protocol, Synchronous) else Minibatches(number, protocol.portions)
