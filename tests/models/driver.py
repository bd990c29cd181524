"""One minibatch over all machines of a replica, without any world: a bag of what may happen next, taken from in any order."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from core.boxes import volume
from core.partitioning import Partitioned, Task
from core.phases import Arrival, Ledger, Phases
from core.work import Cost, Work
from models.data import Batch
from models.partitioned import TorchPartition, gathered, scattered


class Nothing:
    """A computation that computes nothing; what it sends says what it is."""

    def work(self, task: Task, leaving: Sequence[Arrival]) -> Work[list[Any]]:
        return Work(lambda: list(leaving), Cost())

    def payload(self, arrival: Arrival) -> Arrival:
        return arrival

    def take(self, arrival: Arrival, vector: Any) -> None:
        assert vector == arrival


@dataclass
class Course:
    """What happened.  `stuck`: machines whose ledger was not done when nothing more could happen."""

    crossed: Counter[Arrival] = field(default_factory=Counter)
    computed: list[tuple[int, Task]] = field(default_factory=list)
    payloads: dict[Arrival, Any] = field(default_factory=dict)
    stuck: list[int] = field(default_factory=list)


def walk(
    partitioned: Partitioned, computations: Sequence[Any], order: random.Random | None = None, *, down: bool = True, drop: Arrival | None = None
) -> Course:  # fmt: skip
    """`order`: takes ready parts and messages under way as they come out of it, else the oldest first.  `drop`: a message that is lost."""
    ledgers: list[Ledger] = [Phases(partitioned, machine, down=down).begin() for machine in range(partitioned.machines)]
    course = Course()
    bag: list[tuple[int, Task] | tuple[Arrival, Any]] = []

    def send(arrival: Arrival, payload: Any) -> None:
        course.crossed[arrival] += 1
        course.payloads[arrival] = payload
        if arrival != drop:
            bag.append((arrival, payload))

    def gather(machine: int) -> None:
        while (task := ledgers[machine].next()) is not None:
            bag.append((machine, task))

    for machine, ledger in enumerate(ledgers):
        for arrival in ledger.phases.at_once:
            send(arrival, computations[machine].payload(arrival))
        gather(machine)
    while bag:
        first, second = bag.pop(0 if order is None else order.randrange(len(bag)))
        if isinstance(first, Arrival):
            message = partitioned.messages[first.message]
            machine = message.destination if first.phase == "up" else message.source
            expected = ledgers[machine].phases.expected[first]
            assert expected in ledgers[machine].missing()
            assert ledgers[machine].arrived(expected)
            assert not ledgers[machine].arrived(expected), "the second is none"
            assert expected not in ledgers[machine].missing()
            computations[machine].take(first, second)
        else:
            machine = first
            leaving = ledgers[machine].leaving(second)
            payloads = computations[machine].work([second], leaving).run()
            ledgers[machine].computed(second)
            course.computed.append((machine, second))
            for arrival, payload in zip(leaving, payloads, strict=True):
                send(arrival, payload)
        gather(machine)
    course.stuck = [machine for machine, ledger in enumerate(ledgers) if not ledger.done]
    return course


@dataclass
class Outcome:
    """`outputs`: of each layer that nobody takes from, whole; `flat`: the gradient as the machines have it, one after the other."""

    loss: float | None
    gradients: dict[str, torch.Tensor]
    outputs: dict[str, torch.Tensor]
    flat: torch.Tensor
    course: Course


def run_partitioned(
    partitioned: Partitioned, state: Mapping[str, torch.Tensor], batch: Batch, order: random.Random | None = None, *, down: bool = True
) -> Outcome:  # fmt: skip
    flat = gathered(partitioned, {node.key(weight): state[node.key(weight)] for node in partitioned.graph for weight in node.weights})
    machines = [TorchPartition(partitioned, machine, flat[partitioned.parameters_of(machine)]) for machine in range(partitioned.machines)]
    minibatches = [machine.begin(machine.initial(), batch) for machine in machines]
    course = walk(partitioned, minibatches, order, down=down)
    assert not course.stuck
    for arrival, payload in course.payloads.items():
        assert payload.numel() == partitioned.messages[arrival.message].count(len(batch.inputs))
    outputs: dict[str, torch.Tensor] = {}
    for minibatch in minibatches:
        for name, regions in minibatch.outputs().items():
            at = next(placed.part.at for placed in partitioned.parts if placed.node.name == name)
            into = outputs.setdefault(name, torch.full((len(batch.inputs), *at.output), torch.nan))
            for box, tensor in regions:
                assert tensor[0].numel() == volume(box)
                into[(slice(None), *(slice(*side) for side in box))] = tensor
    gradient = torch.cat([minibatch.gradient().vector for minibatch in minibatches])
    gradients = {node.key(weight): torch.full(shape, torch.nan) for node in partitioned.graph for weight, shape in node.weights.items()}
    scattered(partitioned, gradient, gradients)
    losses = [minibatch.loss for minibatch in minibatches if minibatch.loss is not None]
    return Outcome(losses[0] if losses else None, gradients, outputs, gradient, course)
