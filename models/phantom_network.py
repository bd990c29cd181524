"""A network with a size and a cost and no contents, for timing-only runs; never imports torch."""

from __future__ import annotations

from collections.abc import Sequence

from core.partitioning import Partitioned, Task
from core.phases import Arrival
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


class PhantomPartition:
    """`core.work.Partition` of the same kind."""

    def __init__(self, partitioned: Partitioned, machine: int) -> None:
        self.partitioned, self._vector = partitioned, Phantom(partitioned.sizes[machine])
        self.vectors: dict[int, Phantom] = {}
        """Of so many elements: there is nothing to tell two of them apart."""

    def __len__(self) -> int:
        return len(self._vector)

    def initial(self) -> Phantom:
        return self._vector

    def begin(self, parameters: Phantom, batch: int) -> PhantomComputation:
        """`batch` is a number of samples."""
        return PhantomComputation(self, parameters, batch)


class PhantomComputation:
    """`core.work.Computation` of a minibatch of so many samples."""

    def __init__(self, partition: PhantomPartition, parameters: Phantom, samples: int) -> None:
        self.partition, self.parameters, self.samples = partition, parameters, samples

    def work(self, tasks: Sequence[Task], leaving: Sequence[Arrival]) -> Work[list[Phantom]]:
        flops = sum(self.partition.partitioned.flops(task) for task in tasks)
        vectors = [self.payload(arrival) for arrival in leaving]
        return Work(lambda: vectors, Cost(flops * self.samples, 0.0))

    def payload(self, arrival: Arrival) -> Phantom:
        count = self.partition.partitioned.messages[arrival.message].count(self.samples)
        return self.partition.vectors.setdefault(count, Phantom(count))

    def take(self, arrival: Arrival, vector: Phantom) -> None:
        pass

    def gradient(self) -> Gradient:
        return Gradient(self.parameters, None, self.samples)


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
