"""The evaluator: looks now and then, tells the shards when a target is reached, and has the final parameters in hand."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
import torch

from core.evaluator import Final, evaluator, reached
from core.job import Job, Shared, Stop
from core.messages import Finish, Push, Request, Sender, TimedOut
from core.rules import Sgd
from core.shard import Shard
from core.work import Diverged, Quality
from tests.core.fakes import FakeNode, LoopNode, Unit, served_by

WIDTH = 4
DEADLINE_S, EVERY_S = 5.0, 10.0


def zeros(count: int) -> torch.Tensor:
    return torch.zeros(count, dtype=torch.float64)


class World:
    """An evaluator and two shards; every second until `trained_s` each shard's first coordinate grows by 1."""

    def __init__(self, stop: Stop, trained_s: float = 100.0) -> None:
        shards = tuple(Shared(f"shard/{n}", slice(n * WIDTH, (n + 1) * WIDTH)) for n in range(2))
        self.job = Job(shards, 1, stop, evaluate_every_s=EVERY_S, deadline_s=DEADLINE_S)
        self.network = Unit(WIDTH, 2, zeros, quality=lambda p: Quality(100.0 - float(p[0]), float(p[WIDTH]) / 100))
        self.node = LoopNode("evaluator", step_s=0.0)
        self.shards = {s.name: Shard(FakeNode(s.name), self.job, zeros(WIDTH), Sgd(1.0)) for s in self.job.shards}
        self.node.answer = self.served = served_by(dict(self.shards), Sender("evaluator", 1), 0.0)
        self.over = asyncio.Event()
        for second in range(1, int(trained_s) + 1):
            self.at(second - 0.5, self.train)

    def at(self, time_s: float, action: Any) -> None:
        self.node.loop.call_at(time_s, action)

    def train(self) -> None:
        gradient = torch.tensor([-1.0] + [0.0] * (WIDTH - 1), dtype=torch.float64)
        for shard in self.shards.values():
            shard.handle(Push(shard.updates + 1, gradient, 1, 1, 0), Sender("replica/0", 1))

    def run(self, until: float | None = None) -> Any:
        return self.node.run(self.watched(), until=until)

    async def watched(self) -> Final:
        final = await evaluator(self.node, self.job, self.network, self.over)
        self.ended_s = self.node.now()
        return final


def test_it_looks_at_once_and_then_every_interval_until_the_shards_have_finished() -> None:
    world = World(Stop(updates=25))
    final = world.run()
    assert isinstance(final, Final)
    assert [record[1:] for record in world.node.events("evaluated")] == [
        ("", 0, 100.0, "0.0"), ("", 10, 90.0, "0.1"), ("", 20, 80.0, "0.2"), ("", 25, 75.0, "0.25"),
    ]  # fmt: skip
    assert final.parameters.tolist() == [25, 0, 0, 0] * 2
    assert (final.updates, final.quality) == (25, Quality(75.0, 0.25))


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        (Stop(updates=90, loss=80.0), "loss 80 <= 80"),
        (Stop(updates=90, accuracy=0.2), "accuracy 0.2 >= 0.2"),
        (Stop(updates=90, loss=0.0, accuracy=0.15), "accuracy 0.2 >= 0.15"),
    ],
    ids=["loss", "accuracy", "either"],
)
def test_a_target_that_is_reached_finishes_every_shard(stop: Stop, reason: str) -> None:
    world = World(stop)
    final = world.run()
    assert [shard.finished for shard in world.shards.values()] == [reason] * 2
    assert (final.updates, [shard.updates for shard in world.shards.values()]) == (20, [20, 20])


def test_finish_is_repeated_to_a_shard_that_did_not_answer() -> None:
    world = World(Stop(updates=90, loss=80.0))
    lost = iter([True, True])

    def answer(peer: str, request: Request[Any]) -> tuple[float, Any]:
        if isinstance(request, Finish) and peer == "shard/1" and next(lost, False):
            return DEADLINE_S, TimedOut("silence")
        return world.served(peer, request)

    world.node.answer = answer
    world.run()
    assert all(shard.finished == "loss 80 <= 80" for shard in world.shards.values())


def test_when_the_world_says_that_it_is_over_it_looks_once_more_and_ends() -> None:
    world = World(Stop(), trained_s=13)
    world.at(13.2, world.over.set)
    final = world.run()
    assert (world.ended_s, final.updates) == (13.2, 13)


def test_when_it_is_over_and_no_shard_answers_it_ends_with_what_it_last_saw() -> None:
    world = World(Stop(), trained_s=20)
    world.node.answer = lambda peer, request: world.served(peer, request) if world.node.now() < 13 else (1e6, None)
    world.at(13.2, world.over.set)
    assert world.run().updates == 10
    assert world.ended_s == pytest.approx(13.2 + DEADLINE_S)


def test_a_held_out_loss_that_is_no_number_is_divergence_and_stands_in_the_journal() -> None:
    world = World(Stop(updates=25))
    world.network.quality = lambda parameters: Quality(math.nan, 0.1)
    with pytest.raises(Diverged, match="nan after 0 updates"):
        world.run()
    assert len(world.node.events("evaluated")) == 1


def test_without_an_accuracy_the_journal_has_none_and_no_target_is_met() -> None:
    world = World(Stop(updates=5, accuracy=0.0))
    world.network.quality = lambda parameters: Quality(1.0, None)
    world.run()
    assert {record[4] for record in world.node.events("evaluated")} == {""}
    assert {shard.finished for shard in world.shards.values()} == {"5 updates"}


@pytest.mark.parametrize(
    ("loss", "accuracy", "met"), [(0.5, 0.5, False), (0.1, 0.5, True), (0.5, 0.9, True), (0.1, None, True), (0.5, None, False)]
)
def test_a_target_is_met_at_its_very_value(loss: float, accuracy: float | None, met: bool) -> None:
    assert bool(reached(Quality(loss, accuracy), Stop(loss=0.1, accuracy=0.9))) is met
    assert reached(Quality(loss, accuracy), Stop()) == ""
