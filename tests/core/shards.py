"""All shards of a job in one process's memory, and functions to minimise over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from core.lbfgs import DIRECTION, PARAMETERS, State, Trial
from core.operations import Combine, Dot, Drop, Operation, merged, run
from core.vector import cut

Loss = Callable[[torch.Tensor], torch.Tensor]


class Shards:
    """`Space`, `Evaluate` and `Commit` at once.  `rounds` and `gradients` are what a test may want to count."""

    def __init__(self, start: torch.Tensor, loss: Loss, shards: int = 3) -> None:
        self.loss = loss
        self.parts = cut(len(start), shards)
        self.vectors: list[dict[str, Any]] = [{PARAMETERS: start[part].clone()} for part in self.parts]
        self.rounds: list[tuple[Operation, ...]] = []
        self.losses: list[float] = []
        self.steps: list[float] = []
        self.states: list[str] = []
        self.gradients = 0

    async def operate(self, *operations: Operation) -> list[float]:
        self.rounds.append(operations)
        numbers = merged(operations, [run(operations, vectors) for vectors in self.vectors])
        self.gradients = max(self.gradients, sum(name.startswith(("trial", "gradient")) for name in self.vectors[0]))
        return numbers

    async def evaluate(self, step: float) -> Trial:
        self.steps.append(step)
        name = f"trial.{len(self.steps)}"
        where = "trial parameters"
        await self.operate(Combine(where, ((PARAMETERS, 1.0), (DIRECTION, step))))
        point = self.whole(where).requires_grad_()
        loss = self.loss(point)
        [gradient] = torch.autograd.grad(loss, point)
        for vectors, part in zip(self.vectors, self.parts, strict=True):
            vectors[name] = gradient[part].clone()
        (slope,) = await self.operate(Drop((where,)), Dot(name, DIRECTION))
        return Trial(step, loss.item(), slope, name)

    async def commit(self, state: State, operations: list[Operation]) -> None:
        await self.operate(*operations)
        self.losses.append(state.loss)
        self.states.append(state.to_json())

    def whole(self, name: str) -> torch.Tensor:
        return torch.cat([vectors[name] for vectors in self.vectors])


def rosenbrock(x: torch.Tensor) -> torch.Tensor:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def valley(dimensions: int) -> torch.Tensor:
    """Where one begins on Rosenbrock's function: every coordinate a little different."""
    return torch.linspace(-1.2, 1.0, dimensions, dtype=torch.float64)


def quadratic(dimensions: int, condition: float = 1e3) -> Loss:
    """Random curvatures along the axes of a random reflection, and a random minimum."""
    generator = torch.Generator().manual_seed(1)
    curvature = condition ** torch.rand(dimensions, dtype=torch.float64, generator=generator)
    minimum, axis = torch.randn(2, dimensions, dtype=torch.float64, generator=generator)
    axis /= axis.norm()

    def loss(x: torch.Tensor) -> torch.Tensor:
        away = x - minimum
        away = away - 2 * axis * axis.dot(away)
        return 0.5 * (curvature * away * away).sum() / dimensions

    return loss
