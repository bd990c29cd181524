"""The machines of a replica on one simulated loop: what they compute together is what the whole computes, also where a message is lost."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from core.graph import Graph, Node
from core.job import Job
from core.messages import Refusal, Refused, Request, Sender
from core.partitioning import Partitioned
from core.passing import Overdue, Pass
from core.team import Together
from models.data import Batch
from models.graph_module import GraphModule
from models.layers import Dense, Elementwise, Source
from models.losses import with_loss
from models.partitioned import TorchPartition, gathered, scattered
from models.placement import balanced
from sim.loop import Life, SimLoop
from tests.core.fakes import LoopNode

MACHINES, SAMPLES, LATENCY_S, DEADLINE_S = 3, 4, 0.1, 5.0
BODY = (Node("x", Source((6,))), Node("hidden", Dense(9), "x"), Node("on", Elementwise("tanh"), "hidden"), Node("y", Dense(5), "on"))


@dataclass
class Beside(LoopNode):
    """One of several, all on one loop; `loses` is asked about what is told."""

    teams: dict[str, Together] = field(default_factory=dict)
    loses: Any = None
    asked: list[Overdue] = field(default_factory=list)

    def call(self, peer: str, request: Request[Any]) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self.loop.create_future()
        if isinstance(request, Overdue):
            self.asked.append(request)

        def arrive() -> None:
            reply = self.teams[peer].inbox.handle(request, Sender(self.name, 1)).reply
            if isinstance(reply, Refusal):
                future.set_exception(Refused(reply.reason))
            else:
                future.set_result(reply)

        self.loop.call_later(LATENCY_S, arrive)
        return future

    def tell(self, peer: str, request: Request[Any]) -> None:
        if self.loses is None or not self.loses(peer, request):
            self.loop.call_later(LATENCY_S, self.teams[peer].inbox.handle, request, Sender(self.name, 1))


@dataclass
class Replica:
    """Three machines, their parameters drawn; `lost`: the first of what is told of those messages that do not arrive."""

    graph: Graph
    lost: list[Pass] = field(default_factory=list)

    def __post_init__(self) -> None:
        torch.manual_seed(3)
        self.state = {
            node.key(name): torch.randn(shape, dtype=torch.float64) for node in self.graph for name, shape in node.weights.items()
        }
        self.batch = Batch(torch.randn(SAMPLES, 6, dtype=torch.float64), torch.randint(5, (SAMPLES,)), seed=0)
        self.partitioned = Partitioned(self.graph, balanced(self.graph, MACHINES))
        self.flat = gathered(self.partitioned, self.state)
        self.loop = SimLoop()
        self.nodes: list[Beside] = []
        self.partitions: list[TorchPartition] = []
        teams: dict[str, Together] = {}
        for machine in range(MACHINES):
            partition = TorchPartition(self.partitioned, machine, self.flat[self.partitioned.parameters_of(machine)])
            node = Beside(name=f"replica/0/{machine}", loop=self.loop, teams=teams)
            teams[node.name] = Together(node, Job((), 1, partitions=MACHINES, deadline_s=DEADLINE_S), self.partitioned, partition)
            self.nodes.append(node)
            self.partitions.append(partition)

    def lose(self, phase: str) -> None:
        """The first message of that phase that the second machine tells does not arrive."""

        def loses(_: str, request: Pass) -> bool:
            if self.lost or request.phase != phase:
                return False
            self.lost.append(request)
            return True

        self.nodes[1].loses = loses

    def together(self, what: str) -> list[Any]:
        """What each machine has of it: of the gradient, or of inference."""
        lives = [Life(node.name, 1, self.loop) for node in self.nodes]
        for life, node, partition in zip(lives, self.nodes, self.partitions, strict=True):
            life.start(getattr(node.teams[node.name], what)(partition.initial(), self.batch))
        self.loop.run(until=100.0)
        assert all(life.exited.done() for life in lives), "it comes to its end"
        return [life.exited.result() for life in lives]


def plain(graph: Graph, state: dict[str, torch.Tensor]) -> GraphModule:
    module = GraphModule(graph).double()
    module.load_state_dict(state)
    return module


@pytest.mark.parametrize("lost", ["", "up"])
def test_inference_gives_each_machine_its_share_of_the_outputs(lost: str) -> None:
    replica = Replica(Graph(list(BODY)))
    if lost:
        replica.lose(lost)
    wanted = plain(replica.graph, replica.state)(replica.batch.inputs).detach()
    found = torch.full_like(wanted, torch.nan)
    for computation in replica.together("infer"):
        for box, tensor in computation.outputs()["y"]:
            found[:, slice(*box[0])] = tensor
    assert torch.allclose(found, wanted, rtol=1e-12)
    assert len(replica.lost) == bool(lost)
    assert bool(lost) == any(node.asked for node in replica.nodes), "whoever lacks it asks, and nobody else does"


@pytest.mark.parametrize("lost", ["", "up", "down"])
def test_the_gradient_is_that_of_the_whole_and_only_the_first_machine_has_the_loss(lost: str) -> None:
    replica = Replica(with_loss(Graph(list(BODY)), "cross-entropy"))
    if lost:
        replica.lose(lost)
    body = plain(Graph(list(BODY)), replica.state)
    loss = torch.nn.functional.cross_entropy(body(replica.batch.inputs), replica.batch.targets)
    loss.backward()
    gradients = replica.together("gradient")
    found = {key: torch.full_like(value, torch.nan) for key, value in replica.state.items()}
    scattered(replica.partitioned, torch.cat([one.vector for one in gradients]), found)
    for key, parameter in body.named_parameters():
        assert torch.allclose(found[key], parameter.grad, rtol=1e-9), key
    assert [one.loss for one in gradients] == [pytest.approx(loss.item()), None, None]
    assert len(replica.lost) == bool(lost)
    assert bool(lost) == any(node.asked for node in replica.nodes)
