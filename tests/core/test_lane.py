"""What passes between a replica and a shard: repetition of one request, and gradients that accrue behind a push in flight."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.job import Job, Shared
from core.lane import FIRST_PAUSE, LONGEST_PAUSE, Flight, Lane
from core.messages import (
    Accepted,
    Ask,
    CallFailed,
    Fetch,
    Finished,
    Parameters,
    Progress,
    Push,
    Refused,
    Request,
    TimedOut,
    Unreachable,
)
from core.work import Gradient
from tests.core.fakes import LoopNode

DEADLINE_S = 10.0


def fails(times: int, failure: CallFailed, reply: Any, after_s: float = 0.0) -> Any:
    """An answer that fails so often first."""
    left = iter([failure] * times)
    return lambda peer, request: (after_s, next(left, reply))


# Flight


@pytest.mark.parametrize("failure", [TimedOut("silence"), Unreachable("reset")], ids=["timed out", "unreachable"])
def test_the_very_same_request_is_repeated_until_it_is_answered(failure: CallFailed) -> None:
    request, reply = Push(1, torch.ones(2), 1, 1, 0), Accepted(1)
    node = LoopNode(answer=fails(5, failure, reply))
    assert node.run(Flight(node, "shard/0", request, DEADLINE_S).arrival()) is reply
    assert len(node.calls) == 6
    assert all(peer == "shard/0" and sent is request for _, peer, sent in node.calls)


def test_pauses_double_from_the_first_to_the_longest() -> None:
    node = LoopNode(answer=fails(12, Unreachable("reset"), Progress(0, 0)))
    node.run(Flight(node, "shard/0", Ask(), DEADLINE_S).arrival())
    times = [time_s for time_s, _, _ in node.calls]
    expected = [DEADLINE_S * min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt) for attempt in range(12)]
    assert [b - a for a, b in pairwise(times)] == pytest.approx(expected, rel=1e-12)
    assert expected[-1] == 20.0


def test_the_journal_tells_of_each_repetition_how_long_it_waits_and_why() -> None:
    node = LoopNode(answer=fails(3, TimedOut("silence"), Progress(0, 0), after_s=DEADLINE_S))
    node.run(Flight(node, "shard/0", Ask(), DEADLINE_S).arrival())
    assert [record[:3] + record[4:] for record in node.records] == [("repeated", "shard/0", n, "TimedOut Ask") for n in (1, 2, 3)]
    times = [time_s for time_s, _, _ in node.calls]
    assert [b - a - DEADLINE_S for a, b in pairwise(times)] == pytest.approx([record[3] for record in node.records])


def test_pauses_are_drawn_from_the_node_s_stream_between_half_and_one_and_a_half() -> None:
    node = LoopNode(answer=fails(300, Unreachable("reset"), Progress(0, 0)), random=random.Random(1))
    node.run(Flight(node, "shard/0", Ask(), DEADLINE_S).arrival())
    pauses = [record[3] for record in node.records][10:]
    assert len(set(pauses)) == len(pauses)
    assert all(0.5 * 20 <= pause <= 1.5 * 20 for pause in pauses)


def test_two_nodes_do_not_come_back_in_step() -> None:
    pauses = []
    for seed in (1, 2):
        node = LoopNode(answer=fails(5, Unreachable("reset"), Progress(0, 0)), random=random.Random(seed))
        node.run(Flight(node, "shard/0", Ask(), DEADLINE_S).arrival())
        pauses.append([record[3] for record in node.records])
    assert not set(pauses[0]) & set(pauses[1])


def test_a_refusal_is_not_repeated() -> None:
    node = LoopNode(answer=lambda peer, request: (0.1, Refused("a later life is up")))
    with pytest.raises(Refused, match="later life"):
        node.run(Flight(node, "shard/0", Ask(), DEADLINE_S).arrival())
    assert len(node.calls) == 1


def test_a_flight_that_is_looked_at_often_still_makes_one_call_at_a_time() -> None:
    node = LoopNode(answer=fails(1, Unreachable("reset"), Progress(3, 0), after_s=1.0))

    async def look() -> Any:
        flight = Flight[Progress](node, "shard/0", Ask(), DEADLINE_S)
        while (reply := flight.landed()) is None:  # noqa: ASYNC110  this is how a driver looks, between minibatches
            await asyncio.sleep(0.01)
        return reply

    assert node.run(look()).updates == 3
    assert len(node.calls) == 2


# Lane

JOB = Job((Shared("shard/0", slice(1, 3)),), 1, deadline_s=DEADLINE_S)


def lane(node: LoopNode, parameters: torch.Tensor | None = None) -> Lane:
    made = Lane(node, JOB.shards[0], JOB)
    made.bind(torch.zeros(4) if parameters is None else parameters)
    return made


def gradient(value: float) -> Gradient:
    return Gradient(torch.full((4,), value), 0.0, 10)


class Shelf:
    """Calls whose replies the test gives by hand; `replies` are the answers to come, None for one that takes for ever."""

    def __init__(self, *replies: Any) -> None:
        self.replies: Iterator[Any] = iter(replies)

    def __call__(self, peer: str, request: Request[Any]) -> tuple[float, Any]:
        reply = next(self.replies)
        return (1e9, None) if reply is None else (1.0, reply)


def test_one_push_is_in_flight_and_gradients_accrue_meanwhile() -> None:
    node = LoopNode(answer=Shelf(Accepted(1), Accepted(2)))

    async def drive() -> None:
        one = lane(node)
        one.accrue(gradient(1.0))
        one.push()
        for value in (2.0, 3.0):
            one.accrue(gradient(value))
            one.push()
        assert len(node.calls) == 1
        await asyncio.sleep(1.5)
        one.push()
        assert len(node.calls) == 2

    node.run(drive())
    first, second = (request for _, _, request in node.calls)
    assert isinstance(first, Push)
    assert isinstance(second, Push)
    assert (first.sequence, first.gradients, first.samples, first.gradient.tolist()) == (1, 1, 10, [1.0, 1.0])
    assert (second.sequence, second.gradients, second.samples, second.gradient.tolist()) == (2, 2, 20, [5.0, 5.0])
    assert node.events("acknowledged") == [("acknowledged", "shard/0", 1, 0.0, "")]


def test_what_is_in_flight_does_not_change_while_more_accrues() -> None:
    """The gradient that was computed is overwritten by the next, and a push may be repeated much later."""
    node, shared = LoopNode(answer=Shelf(None)), torch.ones(4)

    async def drive() -> None:
        one = lane(node)
        one.accrue(Gradient(shared, 0.0, 10))
        one.push()
        shared.fill_(7)
        one.accrue(Gradient(shared, 0.0, 10))

    node.run(drive(), until=2.0)
    assert node.calls[0][2].payload.tolist() == [1.0, 1.0]


def test_a_push_is_based_on_the_oldest_of_its_gradients() -> None:
    node = LoopNode(answer=Shelf(Parameters(torch.zeros(2), Progress(5, 0)), Parameters(torch.zeros(2), Progress(9, 0)), None))

    async def drive() -> None:
        one = lane(node)
        one.fetch()
        await one.fetched()
        one.accrue(gradient(1.0))
        one.fetch()
        await one.fetched()
        one.accrue(gradient(1.0))
        one.push()

    node.run(drive(), until=5.0)
    assert [request.based_on for _, _, request in node.calls if isinstance(request, Push)] == [5]


def test_a_fetch_is_installed_only_when_the_driver_looks_and_only_in_its_slice() -> None:
    node, parameters = LoopNode(answer=Shelf(Parameters(torch.tensor([5.0, 6.0]), Progress(3, 0)))), torch.zeros(4)

    async def drive() -> None:
        one = lane(node, parameters)
        one.fetch()
        one.fetch()
        await asyncio.sleep(2.0)
        assert parameters.tolist() == [0, 0, 0, 0]
        one.install()
        assert parameters.tolist() == [0, 5, 6, 0]
        assert one.fetched_updates == 3

    node.run(drive())
    assert len(node.calls) == 1


def test_a_fetch_may_be_received_in_a_buffer_that_the_computation_does_not_read() -> None:
    node, parameters = LoopNode(answer=Shelf(None)), torch.zeros(4)

    async def drive() -> None:
        lane(node, parameters).fetch()

    node.run(drive(), until=1.0)
    request = node.calls[0][2]
    assert isinstance(request, Fetch)
    request.into.fill_(3)
    assert parameters.tolist() == [0, 0, 0, 0]


def test_after_the_job_is_over_nothing_is_pushed_any_more() -> None:
    node = LoopNode(answer=Shelf(Finished("9 updates")))

    async def drive() -> str:
        one = lane(node)
        one.accrue(gradient(1.0))
        one.push()
        one.accrue(gradient(1.0))
        await asyncio.sleep(2.0)
        one.push()
        one.push()
        return one.finished

    assert node.run(drive()) == "9 updates"
    assert len(node.calls) == 1
    assert not node.events("acknowledged")


# shorter types

numbers = st.floats(-1e6, 1e6, width=32)


@pytest.mark.parametrize("wire", ["bfloat16", "float16"])
@given(st.lists(st.lists(numbers, min_size=4, max_size=4), min_size=1, max_size=8))
def test_what_is_sent_and_what_stays_are_exactly_what_had_accrued(wire: Any, drawn: list[list[float]]) -> None:
    node = LoopNode()
    one = Lane(node, JOB.shards[0], replace(JOB, wire=wire))
    for values in drawn:
        one.accrue(Gradient(torch.tensor(values), 0.0, 10))
        before = one.accrued.clone()
        sent = one.to_send()
        assert sent.element_size() == 2
        assert torch.isfinite(sent).all()
        assert torch.equal(sent.double() + one.accrued.double(), before.double())


@pytest.mark.parametrize("wire", ["bfloat16", "float16"])
def test_what_a_shorter_type_rounds_away_arrives_in_the_end(wire: Any) -> None:
    """256 + 1 is 256 in bfloat16, and a thousandth of 1 is nothing beside 1: without feedback none of it would ever arrive."""
    node = LoopNode(answer=lambda peer, request: (0.1, Accepted(1)))
    pushed = torch.zeros(2, dtype=torch.float64)

    async def drive() -> None:
        one = Lane(node, JOB.shards[0], replace(JOB, wire=wire))
        for _ in range(1024):
            one.accrue(Gradient(torch.tensor([0.0, 257.0, 1.0 + 2.0**-10, 0.0]), 0.0, 10))
            one.push()
            await asyncio.sleep(1.0)

    node.run(drive())
    for _, _, request in node.calls:
        pushed += request.payload.double()
    exact = torch.tensor([1024 * 257.0, 1024 + 1.0], dtype=torch.float64)
    assert (pushed - exact).abs().max() < 2.0
    assert len(node.calls) == 1024


def test_in_float32_everything_that_accrued_is_sent_as_it_is() -> None:
    one = lane(LoopNode())
    one.accrue(gradient(1.0))
    accrued = one.accrued
    assert one.to_send() is accrued
    assert one.accrued is None


def test_a_fetch_that_arrives_in_a_shorter_type_is_installed_in_the_replica_s_own() -> None:
    node = LoopNode(answer=Shelf(Parameters(torch.tensor([5.0, 6.0]).bfloat16(), Progress(3, 0))))

    async def drive() -> None:
        parameters = torch.zeros(4)
        one = Lane(node, JOB.shards[0], replace(JOB, wire="bfloat16"))
        one.bind(parameters)
        one.fetch()
        await one.fetched()
        assert parameters.tolist() == [0, 5, 6, 0]

    node.run(drive())


def test_a_replica_waits_for_a_shard_that_lets_it_run_too_far_ahead() -> None:
    node = LoopNode(answer=Shelf(Accepted(1), Accepted(2)))

    async def drive() -> float:
        one = lane(node)
        one.accrue(gradient(1.0))
        one.push()
        one.accrue(gradient(1.0))
        assert not one.behind(2)
        one.accrue(gradient(1.0))
        assert one.behind(2)
        await one.catch_up(2)
        assert not one.behind(2)
        return node.now()

    assert node.run(drive()) == 1.0
    assert [request.gradients for _, _, request in node.calls if isinstance(request, Push)] == [1, 2]


def test_a_replica_waits_for_a_fetch_that_takes_too_many_steps() -> None:
    node = LoopNode(answer=Shelf(Parameters(torch.ones(2), Progress(3, 0))))

    async def drive() -> float:
        parameters = torch.zeros(4)
        one = lane(node, parameters)
        one.fetch()
        for _ in range(3):
            one.accrue(gradient(1.0))
        assert not one.behind(4)
        one.accrue(gradient(1.0))
        assert one.behind(4)
        await one.catch_up(4)
        assert parameters.tolist() == [0, 1, 1, 0]
        return node.now()

    assert node.run(drive()) == 1.0
