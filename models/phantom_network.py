"""A network with a size and a cost and no contents, for timing-only runs; never imports torch."""

from __future__ import annotations

from core.vector import Phantom
from core.work import Cost, Gradient, Quality, Work


class PhantomNetwork:
    """`core.work.Network` whose every computation is a cost alone."""

    def __init__(self, parameters: int, flops_per_sample: float) -> None:
        self.flops_per_sample = flops_per_sample
        self._vector = Phantom(parameters)

    def __len__(self) -> int:
        return len(self._vector)

    def initial(self) -> Phantom:
        return self._vector

    def gradient(self, parameters: Phantom, batch: int) -> Work[Gradient]:
        """`batch` is a number of samples."""
        gradient = Gradient(parameters, None, batch)
        return Work(lambda: gradient, Cost(self.flops_per_sample * batch, 0.0))

    def evaluate(self, parameters: Phantom) -> Work[Quality]:
        raise NotImplementedError("a phantom has no quality; timing-only jobs have no evaluator")


class PhantomMinibatches:
    """Batches that are a number of samples."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def minibatch(self, _step: int) -> int:
        return self.batch


class PhantomPortions:
    """Portions that are a number of samples."""

    def __init__(self, samples: int, count: int) -> None:
        self.samples, self.count = samples, count

    def portion(self, number: int) -> int:
        return self.samples * (number + 1) // self.count - self.samples * number // self.count
