"""The replica's side of Downpour, with shards that are plain objects: every gradient has a coordinate of its own."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
import torch

from core.downpour import replica, turn_to_start
from core.job import Job, Shared, Stop
from core.messages import Ask, Fetch, Join, Progress, Push, Refused, Request, Sender
from core.rules import Sgd
from core.shard import Shard
from core.team import Alone
from core.work import Diverged
from tests.core.fakes import FakeNode, LoopNode, Steps, Unit, served_by

WIDTH = 32


def zeros(count: int) -> torch.Tensor:
    return torch.zeros(count, dtype=torch.float64)


def job(shards: int, stop: Stop, **others: Any) -> Job:
    return Job(tuple(Shared(f"shard/{n}", slice(n * WIDTH, (n + 1) * WIDTH)) for n in range(shards)), 1, stop, **others)


class World:
    """One replica and its shards; a call takes `latency_s`, a step 1 s."""

    def __init__(self, made: Job, latency_s: float = 0.1) -> None:
        self.job, self.network = made, Unit(WIDTH, len(made.shards), zeros)
        self.node, self.leaving = LoopNode("replica/0"), asyncio.Event()
        self.shards = {s.name: Shard(FakeNode(s.name), made, zeros(WIDTH), Sgd(1.0)) for s in made.shards}
        self.node.answer = served_by(dict(self.shards), Sender("replica/0", 1), latency_s)

    def run(self) -> None:
        self.node.run(replica(self.node, self.job, self.network, Steps(), self.leaving, Alone(self.node, self.network)))

    def asked(self, kind: type[Request[Any]], shard: str = "shard/0") -> list[tuple[float, Any]]:
        return [(time_s, request) for time_s, peer, request in self.node.calls if isinstance(request, kind) and peer == shard]


def test_every_gradient_is_counted_once_in_every_shard() -> None:
    world = World(job(3, Stop(updates=10)))
    world.run()
    for shard in world.shards.values():
        assert shard.parameters.tolist() == [1.0] * 10 + [0.0] * (WIDTH - 10)


@pytest.mark.parametrize("n_push", [1, 2, 5])
def test_a_push_carries_the_sum_of_n_push_gradients(n_push: int) -> None:
    world = World(job(2, Stop(updates=4), n_push=n_push))
    world.run()
    pushes = [request for _, request in world.asked(Push)][:4]
    assert [request.gradients for request in pushes] == [n_push] * 4
    assert [request.samples for request in pushes] == [10 * n_push] * 4
    assert world.shards["shard/1"].parameters.tolist() == [1.0] * (4 * n_push) + [0.0] * (WIDTH - 4 * n_push)


@pytest.mark.parametrize("n_fetch", [1, 3])
def test_parameters_are_fetched_every_n_fetch_steps(n_fetch: int) -> None:
    world = World(job(1, Stop(updates=9), n_fetch=n_fetch))
    world.run()
    _, *others = [time_s for time_s, _ in world.asked(Fetch)]
    steps = [time_s - others[0] for time_s in others]
    assert steps == pytest.approx([float(n_fetch * k) for k in range(len(steps))])
    assert len(steps) >= 9 // n_fetch


def test_the_replica_takes_its_own_steps_between_fetches() -> None:
    world = World(job(1, Stop(updates=4), n_fetch=100, local_rate=0.5))
    world.run()  # the fetch that begins at step 0 lands before step 1
    assert [parameters[:4].tolist() for parameters in world.network.computed_on[1:4]] == [[0, 0, 0, 0], [0, 0.5, 0, 0], [0, 0.5, 0.5, 0]]


def test_a_fetched_slice_replaces_what_the_replica_had_made_of_it() -> None:
    world = World(job(1, Stop(updates=4), local_rate=0.5))
    world.run()  # each fetch begins before its step is computed and lands after it, so the local step is always replaced
    assert [parameters[:3].tolist() for parameters in world.network.computed_on[:4]] == [[0, 0, 0], [0, 0, 0], [1, 0, 0], [1, 1, 0]]


def test_a_replica_announces_itself_to_every_shard_before_it_fetches() -> None:
    world = World(job(2, Stop(updates=1)))
    world.run()
    kinds = [(type(request), peer) for _, peer, request in world.node.calls[:4]]
    assert kinds == [(Join, "shard/0"), (Join, "shard/1"), (Fetch, "shard/0"), (Fetch, "shard/1")]
    assert len(world.node.events("joined")) == 2


def test_a_slow_shard_delays_the_replica_by_max_behind_and_nobody_is_skipped() -> None:
    world = World(job(1, Stop(updates=3), max_behind=4), latency_s=20.0)
    world.run()
    assert [request.gradients for _, request in world.asked(Push)][:3] == [1, 4, 4]
    assert world.shards["shard/0"].parameters.tolist() == [1.0] * 9 + [0.0] * (WIDTH - 9)


def test_a_loss_that_is_no_number_stops_the_replica_before_it_is_pushed() -> None:
    world = World(job(1, Stop(updates=3)))
    world.network.loss = math.nan
    with pytest.raises(Diverged, match=r"minibatch 0 is nan"):
        world.run()
    assert not world.asked(Push)


def test_a_replica_whose_later_life_is_up_ends_with_the_refusal() -> None:
    world = World(job(1, Stop(updates=3)))
    world.shards["shard/0"].handle(Join(), Sender("replica/0", 2))
    with pytest.raises(Refused, match="later life"):
        world.run()


# warm start

DEADLINE_S = 2.0
WARM = Job((Shared("shard/0", slice(0, 1)),), 4, warm_updates=100, deadline_s=DEADLINE_S)


def waits(number: int, updates_at: Any, until: float | None = None) -> LoopNode:
    """A replica's wait for its turn, beside a shard whose updates are a function of time."""
    node = LoopNode(f"replica/{number}")
    node.answer = lambda peer, request: (0.0, Progress(*updates_at(node.now())))
    node.run(turn_to_start(node, WARM), until=until)
    assert all(type(request) is Ask for _, _, request in node.calls)
    return node


def test_replica_0_begins_at_once_and_asks_nobody() -> None:
    assert waits(0, lambda now: (0, 0)).calls == []


def test_the_others_begin_when_the_warm_updates_are_made() -> None:
    node = waits(3, lambda now: (int(now), 0))
    assert 100 <= node.now() <= 100 + WARM.poll_s + 1e-9


def test_a_replica_takes_over_when_replica_0_never_makes_progress() -> None:
    for number in (1, 2, 3):
        node = waits(number, lambda now: (0, 0))
        patience_s = 10 * DEADLINE_S * number
        assert patience_s < node.now() <= patience_s + WARM.poll_s + 1e-9


def test_slow_progress_is_progress() -> None:
    """An update just within each patience: nobody takes over, up to the last warm update."""
    node = waits(1, lambda now: (int(now // 19), 0))
    assert 1900 <= node.now() <= 1900 + WARM.poll_s + 1e-9


def test_patience_is_counted_from_the_last_progress() -> None:
    node = waits(1, lambda now: (min(int(now), 50), 0))
    assert 70 < node.now() <= 70 + 2 * WARM.poll_s


def test_a_job_that_is_over_keeps_nobody_waiting() -> None:
    node = waits(3, lambda now: (5, 0, "10 s" if now > 7 else ""))
    assert 7 < node.now() <= 7 + WARM.poll_s + 1e-9
