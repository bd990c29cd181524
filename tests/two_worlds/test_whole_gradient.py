"""A model split over the machines of a replica, in both worlds: what is pushed to the shards is the gradient of the whole, tensor by tensor.

Replicas, teams, inboxes and shards are the real ones, in float64, over the simulated network or over gRPC; the whole is computed plainly, by
modules and functions that share nothing with `models/`, from what the machines began with.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.attendance import Attendance
from core.graph import Graph
from core.job import replica_name
from core.journal import Journal
from core.messages import Push, Sender
from core.roles import live_replica
from core.shard import Shard
from exec.codec import Identity
from exec.host import Host
from exec.role import limits
from models.bundled import Bundled
from models.catalogue import BUNDLED
from models.data import Batch
from models.losses import with_loss
from models.partitioned import TorchPartition, scattered
from models.torch_network import TorchNetwork
from scenarios.load import validate
from scenarios.plan import Plan, plan
from sim.run import Run
from tests.models.graphs import drawn_batch, lossless_graphs, placements, plain_loss, plain_outputs, staggered
from tests.models.plain_networks import SMALL, plain_gradient

CLOSE, NOTHING = 1e-9, 1e-12
UPDATES = 2
"""The second minibatch comes into rounds, inboxes and vectors that the first has used."""
WITHIN_S = 20.0

Wanted = Callable[[dict[str, torch.Tensor], Batch], tuple[float, Mapping[str, torch.Tensor]]]
"""The loss of a minibatch, and the gradients, at these parameters."""


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    threads = torch.get_num_threads()
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(threads)


@dataclass
class Seen:
    """By machine, what each minibatch was begun with; by shard, what was pushed; the losses."""

    begun: defaultdict[int, list[tuple[torch.Tensor, Batch]]] = field(default_factory=lambda: defaultdict(list))
    pushed: defaultdict[str, list[torch.Tensor]] = field(default_factory=lambda: defaultdict(list))
    losses: list[float] = field(default_factory=list)

    def journal(self) -> Journal:
        journal = Journal()
        self.watch(journal)
        return journal

    def watch(self, journal: Journal) -> None:
        journal.watch("computed", lambda *columns: self.losses.append(columns[6]))


@pytest.fixture
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def watched(patch: pytest.MonkeyPatch) -> Seen:
    seen = Seen()
    begin, gradient, apply = TorchPartition.begin, TorchNetwork.gradient, Shard.apply

    def begun(self: TorchPartition, parameters: torch.Tensor, batch: Batch) -> Any:
        seen.begun[self.machine].append((parameters.clone(), batch))
        return begin(self, parameters, batch)

    def begun_whole(self: TorchNetwork, parameters: torch.Tensor, batch: Batch) -> Any:
        seen.begun[0].append((parameters.clone(), batch))
        return gradient(self, parameters, batch)

    def applied(self: Shard, sender: Sender, push: Push) -> None:
        assert push.gradients == 1
        seen.pushed[self.node.name].append(push.gradient[0 : len(push.gradient)].clone())
        apply(self, sender, push)

    patch.setattr(TorchPartition, "begin", begun)
    patch.setattr(TorchNetwork, "gradient", begun_whole)
    patch.setattr(Shard, "apply", applied)
    return seen


def made(network: str, partitions: int, placement: Any, source: str = "synthetic", loss: str = "auto") -> Plan:
    """A plan of a job of one replica, which pushes the gradient of each minibatch by itself."""
    tables = {
        "model": {"network": network, "partitions": partitions, "placement": placement, "loss": loss},
        "data": {"source": source, "samples": 20},
        "protocol": {
            "kind": "downpour", "replicas": 1, "shards": partitions + 1, "batch": 3, "max_behind": 1, "durability": "none",
            "rule": {"kind": "sgd", "learning_rate": 0.1}, "local_rate": 0.1, "stop": {"updates": UPDATES},
        },
    }  # fmt: skip
    scenario, mistakes = validate(tables, "test")
    assert scenario is not None, mistakes
    return plan(scenario, shared=True)


# the two worlds


def simulated(it: Plan, seen: Seen) -> None:
    run = Run(it.scenario, prepared=it)
    seen.watch(run.journal)
    run.simulate()


def over_grpc(it: Plan, seen: Seen, *, shared_memory: bool = False) -> None:
    asyncio.run(on_hosts(it, seen, shared_memory=shared_memory))


class Introduced(Attendance):
    """Of a job without a supervisor: a sign of life introduces its role to all the others."""

    everybody: list[Host]

    def beat(self) -> None:
        for other in self.everybody:
            other.introduce(self.node.name, 1, self.address)


async def on_hosts(it: Plan, seen: Seen, *, shared_memory: bool) -> None:
    """Shards and the machines of the replica as hosts of this process."""
    machines = [replica_name(0, number) for number in range(it.job.partitions)] if it.partitioned else [replica_name(0)]
    async with AsyncExitStack() as stack:
        hosts = {
            name: await stack.enter_async_context(
                Host(Identity("job", name, 1), seen.journal(), deadline_s=WITHIN_S, limits=limits(it, name), shared_memory=shared_memory)
            )
            for name in [*(shared.name for shared in it.job.shards), *machines]
        }
        initial = it.network.initial()
        for shared in it.job.shards:
            address = hosts[shared.name].serve(Shard(hosts[shared.name], it.job, initial[shared.part].clone(), it.rule()))
            for machine in machines:
                hosts[machine].introduce(shared.name, 1, address)
        lives = []
        for machine in machines:
            attendance = Introduced(hosts[machine], it.job.timings)
            attendance.everybody = [hosts[other] for other in machines if other != machine]
            attendance.begun.set()
            lives.append(live_replica(hosts[machine], it, attendance, asyncio.Event()))
        async with asyncio.timeout(2 * WITHIN_S):
            await asyncio.gather(*lives)
        for host in hosts.values():
            assert not host.failure.done()
            assert not host.refusals


# what was seen, and what should have been


def tensors(it: Plan, flat: torch.Tensor) -> dict[str, torch.Tensor]:
    """A vector as long as all parameters, by the names of the plain module's."""
    parameters = dict(it.torch_network().module.named_parameters())
    if it.partitioned is None:
        parts = flat.split([parameter.numel() for parameter in parameters.values()])
        return {name: part.view_as(parameter) for (name, parameter), part in zip(parameters.items(), parts, strict=True)}
    found = {name: torch.full_like(parameter, torch.nan) for name, parameter in parameters.items()}
    scattered(it.partitioned, flat, found)
    return found


def compare(it: Plan, seen: Seen, wanted: Wanted, nothing: float = 0.0) -> None:
    """`nothing`: what rounding alone leaves where a true gradient is nothing."""
    assert seen.pushed.keys() == {shared.name for shared in it.job.shards}
    assert {len(pushed) for pushed in seen.pushed.values()} == {UPDATES}
    for step in range(UPDATES):
        begun = [seen.begun[machine][step] for machine in range(it.job.partitions)]
        batch = begun[0][1]
        assert all(torch.equal(batch.inputs, other.inputs) and torch.equal(batch.targets, other.targets) for _, other in begun)
        pushed = torch.cat([seen.pushed[shared.name][step] for shared in it.job.shards])
        assert pushed.dtype == torch.float64
        loss, gradients = wanted(tensors(it, torch.cat([parameters for parameters, _ in begun])), batch)
        assert seen.losses[step] == pytest.approx(loss, rel=CLOSE)
        found = tensors(it, pushed)
        assert found.keys() == gradients.keys()
        for name, gradient in gradients.items():
            apart = float((found[name] - gradient.view_as(found[name])).norm())
            assert apart <= CLOSE * float(gradient.norm()) + nothing, f"step {step}, {name}: {apart} of {float(gradient.norm())}"


# bundled networks

PLACEMENTS = ("balanced", "metis", "search", "by hand")

Case = tuple[str, int, str]

SIMULATED: list[Case] = [
    (name, partitions, PLACEMENTS[(partitions // 2 + number) % 4])
    for number, name in enumerate(BUNDLED) for partitions in range(1, 9) if (partitions + number) % 2
]  # fmt: skip
"""Each network over four numbers of machines, placed in each way; all else is slow."""

OVER_GRPC: list[Case] = [
    ("mlp", 1, "balanced"), ("image-80m", 2, "balanced"), ("image-330m", 3, "by hand"), ("image-1.7b", 4, "metis"),
    ("speech", 5, "metis"), ("local", 6, "search"), ("local", 7, "search"), ("mlp", 8, "search"),
]  # fmt: skip
"""Each network, each number of machines, each placement; calls cost a millisecond each, so all else is slow."""


def cases(every_time: list[Case]) -> list[Any]:
    return [
        pytest.param(*case, id="-".join(map(str, case)), marks=() if case in every_time else pytest.mark.slow)
        for case in product(BUNDLED, range(1, 9), PLACEMENTS)
    ]


@pytest.mark.parametrize(("name", "partitions", "placement"), cases(SIMULATED))
def test_a_bundled_network_pushes_the_gradient_of_a_plain_module_in_the_simulator(
    name: str, partitions: int, placement: str, patch: pytest.MonkeyPatch
) -> None:
    pushes_the_gradient(simulated, name, partitions, placement, patch)


@pytest.mark.parametrize(("name", "partitions", "placement"), cases(OVER_GRPC))
def test_a_bundled_network_pushes_the_gradient_of_a_plain_module_over_grpc(
    name: str, partitions: int, placement: str, patch: pytest.MonkeyPatch
) -> None:
    pushes_the_gradient(over_grpc, name, partitions, placement, patch)


def pushes_the_gradient(
    world: Callable[[Plan, Seen], None], name: str, partitions: int, placement: str, patch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    patch.setitem(BUNDLED, name, SMALL[name])
    seen = watched(patch)
    it = made(name, partitions, staggered(SMALL[name].graph(), partitions) if placement == "by hand" else placement)
    world(it, seen)
    compare(it, seen, lambda state, batch: plain_gradient(name, state, batch.inputs, batch.targets))


# graphs drawn at random


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn(Bundled):
    """One that a scenario can name."""

    drawn: Graph

    def graph(self, layers: tuple[int, ...] | None = None) -> Graph:
        return self.drawn


LOSSES = ("cross-entropy", "logistic", "mse")


def drawn_job(data: st.DataObject, folder: Path, patch: pytest.MonkeyPatch) -> tuple[Plan, Wanted]:
    graph, loss = data.draw(lossless_graphs()), data.draw(st.sampled_from(LOSSES))
    patch.setitem(BUNDLED, "drawn", Drawn(about="drawn", drawn=graph))
    partitions = data.draw(st.integers(1, 8))
    by_hand = data.draw(placements(graph, machines=partitions))
    used = sorted({machine for machines in by_hand.values() for machine in machines})
    by_hand = {name: tuple(map(used.index, machines)) for name, machines in by_hand.items()}
    inputs, targets = drawn_batch(with_loss(graph, loss), 20, data.draw(st.integers(0, 2**32 - 1)))
    np.savez(folder / "data.npz", x=inputs.numpy(), y=targets.numpy())

    def wanted(state: dict[str, torch.Tensor], batch: Batch) -> tuple[float, Mapping[str, torch.Tensor]]:
        own = {name: tensor.clone().requires_grad_() for name, tensor in state.items()}
        outputs = plain_outputs(graph, own, batch.inputs.double())
        found = plain_loss(loss, outputs, batch.targets.double() if loss == "mse" else batch.targets)
        gradients = torch.autograd.grad(found, list(own.values()), allow_unused=True, materialize_grads=True)
        return found.item(), dict(zip(own, gradients, strict=True))

    return made("drawn", len(used), by_hand, str(folder / "data.npz"), loss), wanted


@settings(max_examples=10)
@given(data=st.data())
def test_any_graph_pushes_the_gradient_of_the_whole_in_the_simulator(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        seen = watched(patch)
        it, wanted = drawn_job(data, tmp_path_factory.mktemp("drawn"), patch)
        simulated(it, seen)
    compare(it, seen, wanted, NOTHING)


@settings(max_examples=5)
@given(data=st.data(), shared_memory=st.booleans())
def test_any_graph_pushes_the_gradient_of_the_whole_over_grpc(
    data: st.DataObject, shared_memory: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        seen = watched(patch)
        it, wanted = drawn_job(data, tmp_path_factory.mktemp("drawn"), patch)
        over_grpc(it, seen, shared_memory=shared_memory)
    compare(it, seen, wanted, NOTHING)
