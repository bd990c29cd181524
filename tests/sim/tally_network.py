"""A network whose parameters are the tally of the pushes that were counted: the exact oracle of the failure tests.

Each gradient is a mark of its own, (replica, life, step), -1 in every shard's slice; with plain SGD and rate 1 a shard's
parameters then say how often each gradient was counted there, and the only right answers are once and never.  Marks are
kept as whole numbers by name, so no sum depends on its order and no number of steps is too large.

It charges what the phantom network of the same scenario charges: `simctl run` of the scenario has the same digest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from core.job import Shared
from core.partitioning import Partitioned, Task
from core.phases import Arrival
from core.vector import Phantom
from core.work import Cost, Gradient, Minibatches, NoPortions, Quality, Work
from scenarios.plan import BYTES_OF_FLOAT32, Plan, job, plan, sharing
from scenarios.schema import Scenario


class Mark(NamedTuple):
    """One gradient."""

    replica: str
    life: int
    step: int


class Marks:
    """A vector (`core.vector`) with one element for each shard, which counts marks.  A slice is a view, as torch's is."""

    dtype = "marks"

    def __init__(self, elements: list[dict[Mark, float]], bytes_of_element: int) -> None:
        self.elements, self.bytes_of_element = elements, bytes_of_element

    @property
    def nbytes(self) -> int:
        return len(self.elements) * self.bytes_of_element

    def __len__(self) -> int:
        return len(self.elements)

    def __getitem__(self, part: slice) -> Marks:
        return Marks(self.elements[part], self.bytes_of_element)

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
        return Marks([dict(element) for element in self.elements], self.bytes_of_element)

    def new_zeros(self, count: int, /) -> Marks:
        return Marks([{} for _ in range(count)], self.bytes_of_element)


@dataclass(slots=True)
class TallyNetwork:
    """`core.work.Network`; remembers on which parameters each gradient was computed."""

    shards: int
    bytes_of_element: int
    flops: float
    seen: dict[Mark, list[dict[Mark, float]]] = field(default_factory=dict)
    """For each gradient, what its replica held of each shard."""
    again: list[Mark] = field(default_factory=list)
    """Those that were computed more than once: no two lives are the same."""

    def __len__(self) -> int:
        return self.shards

    def initial(self) -> Marks:
        return Marks([{} for _ in range(self.shards)], self.bytes_of_element)

    def gradient(self, parameters: Marks, batch: Mark) -> Work[Gradient]:
        def run() -> Gradient:
            self.again += [batch] if batch in self.seen else []
            self.seen[batch] = parameters.clone().elements
            return Gradient(Marks([{batch: -1.0} for _ in range(self.shards)], self.bytes_of_element), None, 1)

        return Work(run, Cost(self.flops, 0.0))

    def evaluate(self, parameters: Marks) -> Work[Quality]:
        """The more gradients the parameters hold, the better."""
        return Work(lambda: Quality(1 / (1 + sum(map(len, parameters.elements))), None), Cost(self.flops / 3, 0.0))


class Steps(NamedTuple):
    """One life's minibatches: the batch is the mark of its gradient."""

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

    def __getitem__(self, part: slice) -> Tagged:
        return Tagged(super().__getitem__(part).count, self.mark)


@dataclass(slots=True)
class TallyPartition:
    """`core.work.Partition`: one machine's share of a tally network; its marks have the name of the machine."""

    network: TallyNetwork
    partitioned: Partitioned
    number: int
    shards: range
    """Of the whole network's."""

    def __len__(self) -> int:
        return len(self.shards)

    def initial(self) -> Marks:
        return Marks([{} for _ in self.shards], self.network.bytes_of_element)

    def begin(self, parameters: Marks, batch: Mark) -> TallyComputation:
        mine = batch._replace(replica=f"{batch.replica}/{self.number}")
        self.network.again += [mine] if mine in self.network.seen else []
        self.network.seen[mine] = [{} for _ in range(self.network.shards)]
        for shard, seen in zip(self.shards, parameters.clone().elements, strict=True):
            self.network.seen[mine][shard] = seen
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
        return Gradient(Marks([{self.mine: -1.0} for _ in self.partition.shards], self.partition.network.bytes_of_element), None, 1)


@dataclass(slots=True)
class SplitTally(Plan):
    """A plan of a tally network that is split."""

    def partition(self, number: int) -> TallyPartition:
        assert self.partitioned is not None
        assert isinstance(self.network, TallyNetwork)
        own = [place for place, shared in enumerate(self.job.shards) if shared.partition == number]
        return TallyPartition(self.network, self.partitioned, number, range(own[0], own[-1] + 1))


def prepared_split(scenario: Scenario) -> Plan:
    """The same where replicas are split: the graph is the scenario's own, and so is what crosses; a shard's slice is one mark of its size."""
    phantom = plan(scenario)
    assert phantom.partitioned is not None
    count = len(phantom.job.shards)
    network = TallyNetwork(count, len(phantom.network) // count * BYTES_OF_FLOAT32, 0.0)
    shards = tuple(Shared(shared.name, slice(place, place + 1), shared.partition) for place, shared in enumerate(phantom.job.shards))
    data: Callable[[int, int], Minibatches] = lambda number, life: Steps(f"replica/{number}", life)  # noqa: E731
    return SplitTally(scenario, job(scenario, shards, 0), network, data, NoPortions, 1.0, partitioned=phantom.partitioned)


def prepared(scenario: Scenario) -> Plan:
    """A plan that trains a tally, at the cost that the scenario declares."""
    if scenario.model.partitions > 1:
        return prepared_split(scenario)
    cost, shards = scenario.model.cost, scenario.protocol.shards
    assert cost is not None
    assert cost.parameters % shards == 0
    assert (scenario.protocol.batch, scenario.protocol.rule.kind) == (1, "sgd")
    network = TallyNetwork(shards, cost.parameters // shards * BYTES_OF_FLOAT32, cost.flops)
    data: Callable[[int, int], Minibatches] = lambda number, life: Steps(f"replica/{number}", life)  # noqa: E731
    return Plan(scenario, job(scenario, sharing(scenario, len(network), None), 0), network, data, NoPortions, 1.0)
