"""The parameter shard, called plainly.  Each push has a coordinate of its own, so that the parameters are the tally."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.job import Job, Shared, Stop
from core.messages import Accepted, Ask, Entry, Fetch, Finish, Finished, Join, Parameters, Progress, Push, Refusal, Request, Sender
from core.node import NOTHING
from core.rules import RULES, Adagrad, Momentum, Rule, Sgd
from core.shard import Shard
from core.vector import Phantom
from core.work import Cost
from tests.core.fakes import FakeNode

WIDTH = 64
REPLICA = Sender("replica/0", 1)


def job(stop: Stop | None = None, **others: Any) -> Job:
    return Job((Shared("shard/0", slice(0, WIDTH)),), 1, stop or Stop(), **others)


def mark(coordinate: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    gradient = torch.zeros(WIDTH, dtype=dtype)
    gradient[coordinate] = -1
    return gradient


def push(sequence: int, coordinate: int | None = None, *, samples: int = 10, based_on: int = 0) -> Push:
    return Push(sequence, mark(sequence if coordinate is None else coordinate), 1, samples, based_on)


def shard(stop: Stop | None = None, rule: Rule | None = None, **others: Any) -> tuple[Shard, FakeNode]:
    node = FakeNode()
    return Shard(node, job(stop, **others), torch.zeros(WIDTH, dtype=torch.float64), rule or Sgd(1.0)), node


def tally(one: Shard) -> dict[int, float]:
    return {i: value for i, value in enumerate(one.parameters.tolist()) if value}


def test_a_push_is_applied_and_acknowledged() -> None:
    one, node = shard()
    outcome = one.handle(push(1, based_on=0), REPLICA)
    assert isinstance(outcome.reply, Accepted)
    assert outcome.reply.updates == 1
    assert tally(one) == {1: 1}
    assert node.records == [("applied", "replica/0#1", 1, 0, "")]


def test_a_repeated_push_is_acknowledged_and_not_applied() -> None:
    one, node = shard()
    again = push(1)
    for _ in range(3):
        reply = one.handle(again, REPLICA).reply
        assert isinstance(reply, Accepted)
        assert reply.updates == 1
    assert tally(one) == {1: 1}
    assert (one.updates, one.samples) == (1, 10)
    assert len(node.events("duplicate")) == 2


def test_handling_a_repetition_costs_nothing_and_a_new_push_costs_its_rule_s_traffic() -> None:
    one, _ = shard(rule=Adagrad(1.0))
    assert one.handle(push(1), REPLICA).cost == Cost(0.0, Adagrad.traffic * WIDTH * 8)
    assert one.handle(push(1), REPLICA).cost is NOTHING


def test_a_push_of_an_earlier_life_is_refused_and_changes_nothing() -> None:
    one, node = shard()
    one.handle(Join(), Sender("replica/0", 2))
    reply = one.handle(push(1), REPLICA).reply
    assert isinstance(reply, Refusal)
    assert tally(one) == {}
    assert [record[:2] for record in node.records] == [("refused", "replica/0#1")]


@pytest.mark.parametrize("request_", [Fetch(), Ask(), Join(), Finish("over")], ids=lambda r: type(r).__name__)
def test_a_life_that_was_outlived_is_refused_everything(request_: Request[Any]) -> None:
    one, _ = shard()
    one.handle(Join(), Sender("replica/0", 2))
    assert isinstance(one.handle(request_, REPLICA).reply, Refusal)
    assert not one.finished
    assert not isinstance(one.handle(request_, Sender("replica/1", 1)).reply, Refusal)


def test_a_request_that_shards_do_not_serve_is_refused() -> None:
    one, _ = shard()
    reply = one.handle(Request(), REPLICA).reply
    assert isinstance(reply, Refusal)
    assert "Request" in reply.reason


@pytest.mark.parametrize(
    "unfit",
    [
        Push(1, torch.ones(WIDTH - 1, dtype=torch.float64), 1, 1, 0),
        Push(1, torch.ones(WIDTH + 1, dtype=torch.float64), 1, 1, 0),
        Push(1, torch.ones(0, dtype=torch.float64), 1, 1, 0),
        Push(1, torch.ones(WIDTH, dtype=torch.float32), 1, 1, 0),
        Push(1, torch.ones((WIDTH, 2), dtype=torch.float64), 1, 1, 0),
        Push(0, torch.ones(WIDTH, dtype=torch.float64), 1, 1, 0),
        Push(1, torch.ones(WIDTH, dtype=torch.float64), 0, 1, 0),
        Push(1, torch.ones(WIDTH, dtype=torch.float64), 1, -1, 0),
    ],
    ids=["shorter", "longer", "empty", "float32", "two dimensions", "sequence 0", "no gradients", "samples -1"],
)
def test_a_push_that_does_not_fit_is_refused_and_the_next_good_one_is_served(unfit: Push) -> None:
    one, node = shard()
    assert isinstance(one.handle(unfit, REPLICA).reply, Refusal)
    assert tally(one) == {}
    assert isinstance(one.handle(push(1), REPLICA).reply, Accepted)
    assert tally(one) == {1: 1}
    assert [record[0] for record in node.records] == ["refused", "applied"]


def test_staleness_is_how_many_updates_came_in_between() -> None:
    one, node = shard()
    for number in range(1, 5):
        one.handle(push(number, based_on=0), REPLICA)
    one.handle(push(1, 9, based_on=3), Sender("replica/1", 1))
    assert [record[3] for record in node.events("applied")] == [0, 1, 2, 3, 1]


def test_a_push_from_the_future_of_a_restored_shard_has_staleness_0() -> None:
    one, node = shard()
    one.handle(push(1, based_on=17), REPLICA)
    assert node.events("applied")[0][3] == 0


# the end of the job


def test_the_limit_of_updates_is_never_exceeded() -> None:
    one, node = shard(Stop(updates=3))
    replies = [one.handle(push(number), REPLICA).reply for number in range(1, 6)]
    assert [type(reply) for reply in replies] == [Accepted] * 3 + [Finished] * 2
    assert tally(one) == {1: 1, 2: 1, 3: 1}
    assert node.events("finished") == [("finished", "", 3, 30, "3 updates")]


def test_the_limit_of_samples_ends_with_the_push_that_reaches_it() -> None:
    one, node = shard(Stop(samples=25))
    replies = [one.handle(push(number), REPLICA).reply for number in range(1, 5)]
    assert [type(reply) for reply in replies] == [Accepted] * 3 + [Finished]
    assert node.events("finished") == [("finished", "", 3, 30, "30 samples")]


def test_the_limit_of_time_refuses_what_comes_at_it_and_after() -> None:
    one, node = shard(Stop(time_s=10.0))
    for time_s, expected in ((9.999, Accepted), (10.0, Finished), (11.0, Finished)):
        node.time_s = time_s
        assert type(one.handle(push(1 + one.updates), REPLICA).reply) is expected
    assert tally(one) == {1: 1}
    assert node.events("finished") == [("finished", "", 1, 10, "10 s")]


def test_the_first_of_several_limits_ends_the_job() -> None:
    one, _ = shard(Stop(updates=5, samples=20, time_s=100.0))
    for number in range(1, 7):
        one.handle(push(number), REPLICA)
    assert (one.updates, one.finished) == (2, "20 samples")


def test_a_repeated_push_is_acknowledged_even_when_the_job_is_over() -> None:
    one, _ = shard(Stop(updates=1))
    one.handle(push(1), REPLICA)
    assert isinstance(one.handle(push(1), REPLICA).reply, Accepted)


def test_finish_ends_the_job_and_its_first_reason_stays() -> None:
    one, node = shard()
    one.handle(Finish("loss 0.1"), Sender("evaluator", 1))
    reply = one.handle(Finish("later"), Sender("evaluator", 1)).reply
    assert isinstance(reply, Progress)
    assert reply.finished == "loss 0.1"
    reply = one.handle(push(1), REPLICA).reply
    assert isinstance(reply, Finished)
    assert reply.reason == "loss 0.1"
    assert tally(one) == {}
    assert len(node.events("finished")) == 1


def test_ask_join_and_fetch_say_how_far_the_shard_is() -> None:
    one, _ = shard(Stop(updates=2))
    for number in (1, 2):
        one.handle(push(number), REPLICA)
    for request in (Ask(), Join()):
        progress = one.handle(request, REPLICA).reply
        assert isinstance(progress, Progress)
        assert (progress.updates, progress.samples, progress.finished) == (2, 20, "2 updates")
    fetched = one.handle(Fetch(), REPLICA).reply
    assert isinstance(fetched, Parameters)
    assert (fetched.progress.updates, fetched.progress.finished) == (2, "2 updates")


# fetches


def test_a_fetched_slice_never_changes_afterwards() -> None:
    one, _ = shard()
    one.handle(push(1), REPLICA)
    reply = one.handle(Fetch(), REPLICA).reply
    assert isinstance(reply, Parameters)
    before = reply.vector.clone()
    one.handle(push(2), REPLICA)
    assert torch.equal(reply.vector, before)
    later = one.handle(Fetch(), REPLICA).reply
    assert isinstance(later, Parameters)
    assert later.vector[2] == 1
    assert (reply.progress.updates, later.progress.updates) == (1, 2)


def test_fetches_between_two_updates_share_one_copy_and_pay_for_it_once() -> None:
    one, _ = shard()
    first, second = one.handle(Fetch(), REPLICA), one.handle(Fetch(), REPLICA)
    assert second.reply is first.reply
    assert (first.cost, second.cost) == (Cost(0.0, 2 * WIDTH * 8), NOTHING)


def test_a_fetch_after_the_end_says_so_although_nothing_was_applied_since() -> None:
    one, _ = shard()
    one.handle(Fetch(), REPLICA)
    one.handle(Finish("over"), REPLICA)
    reply = one.handle(Fetch(), REPLICA).reply
    assert isinstance(reply, Parameters)
    assert reply.progress.finished == "over"


def test_a_copy_is_made_as_the_host_wants_it_and_does_not_change_afterwards() -> None:
    one, _ = shard()
    reply = one.handle(Fetch(copied=lambda vector: vector.tolist()), REPLICA).reply
    before = one.parameters.tolist()
    one.handle(push(1), REPLICA)
    assert reply.vector == before
    assert one.parameters.tolist() != before


# snapshots and entries


def test_without_durability_nobody_waits() -> None:
    one, _ = shard()
    assert one.handle(push(1), REPLICA).durable is None


def test_a_snapshot_never_changes_afterwards() -> None:
    one, _ = shard(rule=Momentum(1.0))
    one.handle(push(1), REPLICA)
    manifest, vectors = one.snapshot()
    before = {name: vector.clone() for name, vector in vectors.items()}
    one.handle(push(2), REPLICA)
    assert all(torch.equal(vectors[name], before[name]) for name in ("parameters", "velocity"))
    assert manifest["last"] == {"replica/0": [1, 1]}
    assert (manifest["updates"], manifest["samples"], manifest["position"]) == (1, 10, 1)


def aware(rule: Any) -> Any:
    return pytest.param(partial(rule, staleness_aware=True), id=f"{rule.__name__}, aware of staleness")


MAKERS = [*(pytest.param(rule, id=rule.__name__) for rule in RULES.values()), aware(Sgd), aware(Adagrad)]
each_rule = pytest.mark.parametrize("make", MAKERS)


@each_rule
def test_a_restored_shard_goes_on_exactly_as_if_nothing_had_happened(make: Callable[[float], Rule]) -> None:
    straight, _ = shard(rule=make(0.5))
    for number in range(1, 4):
        straight.handle(push(number), REPLICA)
    manifest, vectors = straight.snapshot()
    restored = Shard.restored(FakeNode(incarnation=2), job(), make(0.5), json.loads(json.dumps(manifest)), vectors)
    assert isinstance(restored.handle(push(3), REPLICA).reply, Accepted)  # a repetition: counted already
    for number in range(4, 8):
        for one in (straight, restored):
            one.handle(push(number, 3), REPLICA)
    assert torch.equal(restored.parameters, straight.parameters)
    assert (restored.updates, restored.samples, restored.pushes.last) == (straight.updates, straight.samples, straight.pushes.last)


def test_a_push_is_applied_at_the_rate_over_the_staleness_that_is_written_down() -> None:
    one, node = shard(rule=Sgd(1.0, staleness_aware=True))
    for sequence, based_on in ((1, 0), (2, 1), (3, 0), (4, 0), (5, 3), (6, 9)):
        one.handle(push(sequence, based_on=based_on), REPLICA)
    assert [value for _, _, _, value, _ in node.events("applied")] == [0, 0, 2, 3, 1, 0]
    assert tally(one) == {1: 1, 2: 1, 3: 1 / 2, 4: 1 / 3, 5: 1, 6: 1}


class Remembered:
    """A trail that only remembers."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)

    def settled(self) -> None:
        return None


@each_rule
def test_repeating_the_entries_gives_the_same_bits(make: Callable[[float], Rule]) -> None:
    one, _ = shard(Stop(updates=6), rule=make(0.3))
    one.trail = trail = Remembered()
    for number in range(1, 8):
        one.handle(Push(number, torch.rand(WIDTH, dtype=torch.float64), 1, 10, 0), REPLICA)
    assert [entry.number for entry in trail.entries] == list(range(1, 8)), "six pushes, and the end"
    again, _ = shard(Stop(updates=6), rule=make(0.3))
    for entry in trail.entries:
        again.replay(entry)
    assert torch.equal(again.parameters, one.parameters)
    assert (again.updates, again.samples, again.finished, again.position) == (6, 60, "6 updates", 7)
    assert isinstance(again.handle(push(8), REPLICA).reply, Finished)


def test_a_restored_shard_remembers_that_it_had_finished() -> None:
    one, _ = shard(Stop(updates=1))
    one.handle(push(1), REPLICA)
    again = Shard.restored(FakeNode(incarnation=2), job(Stop(updates=1)), Sgd(1.0), *one.snapshot())
    assert isinstance(again.handle(push(2), REPLICA).reply, Finished)


def test_phantoms_are_served_as_tensors_are() -> None:
    one = Shard(FakeNode(), job(Stop(updates=2)), Phantom(WIDTH), Adagrad(1.0))
    assert isinstance(one.handle(Push(1, Phantom(WIDTH), 1, 10, 0), REPLICA).reply, Accepted)
    assert one.snapshot()[0]["vectors"] == ["parameters", "squares"]
    assert isinstance(one.handle(Push(2, Phantom(WIDTH + 1), 1, 10, 0), REPLICA).reply, Refusal)
    assert isinstance(one.handle(Fetch(), REPLICA).reply, Parameters)


def test_a_fetch_is_laid_where_there_is_room_for_it() -> None:
    one, _ = shard()
    one.handle(push(1), REPLICA)
    room = torch.zeros(WIDTH, dtype=torch.float64)
    reply = one.handle(Fetch(room=room), REPLICA).reply
    assert isinstance(reply, Parameters)
    assert reply.vector is room
    assert torch.equal(room, one.parameters)


def test_shorter_types_travel_and_are_widened() -> None:
    node = FakeNode()
    one = Shard(node, job(wire="bfloat16"), torch.zeros(WIDTH), Sgd(1.0))
    assert isinstance(one.handle(Push(1, mark(3, torch.bfloat16), 1, 10, 0), REPLICA).reply, Accepted)
    assert tally(one) == {3: 1}
    reply = one.handle(Fetch(), REPLICA).reply
    assert isinstance(reply, Parameters)
    assert reply.vector.dtype is torch.bfloat16
    assert isinstance(one.handle(Push(2, mark(3, torch.float32), 1, 10, 0), REPLICA).reply, Refusal)


# everything at once

deliveries = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(("push", "push", "deliver", "deliver", "restart", "join"))), max_size=40)


@given(deliveries, st.randoms(use_true_random=False), st.none() | st.integers(1, 8))
def test_the_parameters_are_exactly_what_was_acknowledged_or_counted_once(
    taken: list[tuple[int, str]], chance: Any, limit: int | None
) -> None:
    """Pushes arrive late, twice or never; a sender sends the next one only when the last is answered."""
    one, node = shard(Stop(updates=limit))
    lives, sequences, answered = [1, 1, 1], [0, 0, 0], [True, True, True]
    travelling: list[tuple[int, int, Push]] = []
    acknowledged, sent = set[int](), 0
    for author, action in taken:
        if action == "restart":
            lives[author], sequences[author], answered[author] = lives[author] + 1, 0, True
        elif action == "join":
            one.handle(Join(), Sender(f"replica/{author}", lives[author]))
        elif action == "push" and answered[author]:
            sequences[author] += 1
            answered[author] = False
            travelling.append((author, lives[author], push(sequences[author], sent)))
            sent += 1
        elif action == "deliver" and travelling:
            who, life, request = chance.choice(travelling)
            coordinate = int((request.gradient == -1).nonzero()[0])
            reply = one.handle(request, Sender(f"replica/{who}", life)).reply
            if isinstance(reply, Accepted):
                acknowledged.add(coordinate)
            if (life, request.sequence) == (lives[who], sequences[who]) and chance.random() < 0.7:
                answered[who] = True
    assert tally(one) == dict.fromkeys(acknowledged, 1.0)
    assert one.updates == len(acknowledged) == len(node.events("applied"))
    assert limit is None or one.updates <= limit
    assert not [mark for mark, count in Counter(record[1:3] for record in node.events("applied")).items() if count > 1]
