"""A network whose parameters are the tally of the pushes that were counted: exact numerics of Downpour.

Each gradient is a mark of its own, (replica, life, step), -1 in every shard's slice; each update counts, and a shard's
parameters then say how often each gradient was counted there: the only right answers are once and never.  Marks are
kept as whole numbers by name, so no sum depends on its order and no number of steps is too large.

It charges what the phantom network of the same scenario charges: a job takes the same course on either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple, Self

from core.job import Shared
from core.partitioning import Partitioned, Task
from core.phases import Arrival
from core.vector import BYTES_OF_FLOAT32, Phantom
from core.work import Cost, Gradient, Quality, Work


class Mark(NamedTuple):
    """One gradient."""

    replica: str
    life: int
    step: int


class Marks:
    """A vector (`core.vector`) with one element for each shard, which counts marks.  A slice is a view, as torch's is."""

    dtype = "marks"

    def __init__(self, elements: list[dict[Mark, float]], sizes: tuple[int, ...]) -> None:
        """`sizes`: bytes that each of them stands for."""
        self.elements, self.sizes = elements, sizes

    @property
    def nbytes(self) -> int:
        return sum(self.sizes)

    def __len__(self) -> int:
        return len(self.elements)

    def __getitem__(self, part: slice) -> Marks:
        return Marks(self.elements[part], self.sizes[part])

    def add_(self, other: Marks, /, *, alpha: float = 1) -> Self:
        for mine, theirs in zip(self.elements, other.elements, strict=True):
            for mark, count in theirs.items() if alpha else ():
                mine[mark] = mine.get(mark, 0) + alpha * count
        return self

    def copy_(self, other: Marks, /) -> Self:
        for mine, theirs in zip(self.elements, other.elements, strict=True):
            if mine is not theirs:
                mine.clear()
                mine.update(theirs)
        return self

    def clone(self) -> Marks:
        return Marks([dict(element) for element in self.elements], self.sizes)

    def new_zeros(self, count: int, /) -> Marks:
        return zeros(self.sizes[:count])


def zeros(sizes: tuple[int, ...]) -> Marks:
    """Nothing is counted yet."""
    return Marks([{} for _ in sizes], sizes)


class Counting:
    """`core.rules.Rule` that counts each gradient: plain descent at rate 1, whatever memory traffic the job's own rule has."""

    traffic: ClassVar[int] = 3

    def __init__(self, traffic: int) -> None:
        self.state: dict[str, Any] = {}
        self.traffic = traffic  # type: ignore[misc]  # of this one

    def start(self, parameters: Marks) -> None:
        """No state."""

    def apply(self, parameters: Marks, gradient: Marks, staleness: int = 0) -> None:  # noqa: ARG002  a rule's signature
        parameters.add_(gradient, alpha=-1)


@dataclass(slots=True)
class TallyNetwork:
    """`core.work.Network`; remembers on which parameters each gradient was computed."""

    flops: float
    """Of a minibatch."""
    sizes: tuple[int, ...] = ()
    """Bytes of each shard's slice."""
    seen: dict[Mark, list[dict[Mark, float]]] = field(default_factory=dict)
    """For each gradient, what its replica held of each shard."""
    again: list[Mark] = field(default_factory=list)
    """Those that were computed more than once: no two lives are the same."""

    def __len__(self) -> int:
        return len(self.sizes)

    def initial(self) -> Marks:
        return zeros(self.sizes)

    def gradient(self, parameters: Marks, batch: Mark) -> Work[Gradient]:
        def run() -> Gradient:
            self.again += [batch] if batch in self.seen else []
            self.seen[batch] = parameters.clone().elements
            return Gradient(Marks([{batch: -1.0} for _ in self.sizes], self.sizes), None, 1)

        return Work(run, Cost(self.flops, 0.0))

    def share(self, shares: Sequence[Shared]) -> tuple[Shared, ...]:
        """To each shard one element of that size, in the place of its slice of parameters."""
        self.sizes = tuple(BYTES_OF_FLOAT32 * (shared.part.stop - shared.part.start) for shared in shares)
        return tuple(replace(shared, part=slice(place, place + 1)) for place, shared in enumerate(shares))

    def partition(self, partitioned: Partitioned, number: int, shards: slice) -> TallyPartition:
        """What one machine of a replica has of it, whose parameters lie on these shards."""
        return TallyPartition(self, partitioned, number, shards)

    def evaluate(self, parameters: Marks) -> Work[Quality]:
        """The more gradients the parameters hold, the better."""
        return Work(lambda: Quality(1 / (1 + sum(map(len, parameters.elements))), None), Cost(self.flops / 3, 0.0))


class MarkedMinibatches(NamedTuple):
    """Of one life: a minibatch is the mark of its gradient."""

    replica: str
    life: int

    def minibatch(self, step: int) -> Mark:
        return Mark(self.replica, self.life, step)


class Tagged(Phantom):
    """What crosses between machines of a replica: it has a size, and says of which gradient it is."""

    __slots__ = ("mark",)

    def __init__(self, count: int, mark: Mark) -> None:
        super().__init__(count)
        self.mark = mark


@dataclass(slots=True)
class TallyPartition:
    """`core.work.Partition`: one machine's share of a tally network; its marks have the name of the machine."""

    network: TallyNetwork
    partitioned: Partitioned
    number: int
    shards: slice
    """Of the whole network's, those with its own parameters."""

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.network.sizes[self.shards]

    def __len__(self) -> int:
        return len(self.sizes)

    def initial(self) -> Marks:
        return zeros(self.sizes)

    def begin(self, parameters: Marks, batch: Mark) -> TallyComputation:
        mine = batch._replace(replica=f"{batch.replica}/{self.number}")
        self.network.again += [mine] if mine in self.network.seen else []
        seen = self.network.initial()
        seen[self.shards].copy_(parameters)
        self.network.seen[mine] = seen.elements
        return TallyComputation(self, batch, mine)


@dataclass(slots=True)
class TallyComputation:
    """`core.work.Computation`: takes nothing but what is of the same minibatch of the same life."""

    partition: TallyPartition
    batch: Mark
    mine: Mark

    def work(self, tasks: Sequence[Task], leaving: Sequence[Arrival]) -> Work[list[Tagged]]:
        flops = sum(map(self.partition.partitioned.flops, tasks))
        return Work(lambda: [self.payload(arrival) for arrival in leaving], Cost(flops, 0.0))

    def payload(self, arrival: Arrival) -> Tagged:
        return Tagged(self.partition.partitioned.messages[arrival.message].count(1), self.batch)

    def take(self, arrival: Arrival, vector: Tagged) -> None:
        assert vector.mark == self.batch, f"{arrival} of {vector.mark} came into {self.batch}"

    def gradient(self) -> Gradient:
        sizes = self.partition.sizes
        return Gradient(Marks([{self.mine: -1.0} for _ in sizes], sizes), None, 1)
