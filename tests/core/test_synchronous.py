"""Synchronous SGD: the ledger of one step, and a shard that takes steps, each called plainly."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.coordination import Gather, Operate, Recall, Values
from core.job import Job, Shared, Synchronous
from core.messages import Accepted, Push, Sender
from core.operations import Combine, Drop, Update, cost, operation_of
from core.portions import BundleId, Decision
from core.rules import RULES, Rule, Sgd
from core.staging import StagingShard
from core.synchronous import NEXT, Gradients
from tests.core.fakes import FakeNode

WIDTH = 6
COORDINATOR, REPLICA = Sender("coordinator", 1), Sender("replica/0", 1)


# the ledger


def arrive(step: Gradients, replica: str, life: int = 1, sequence: int = 1, number: int = 7) -> Decision:
    return step.arrived(BundleId(replica, life, sequence), (number,), 1.0, 32)[0]


def test_a_step_is_taken_with_the_first_gradients_in_the_order_of_arrival() -> None:
    step = Gradients(7, 2)
    for replica in "abc":
        assignment = step.give(replica, 1)
        assert assignment is not None
        assert assignment.portions == (7,)
    assert [arrive(step, replica) for replica in "cab"] == [Decision.NEW, Decision.NEW, Decision.USELESS]
    assert [bundle.replica for bundle in step.cover()] == ["c", "a"]
    assert (step.samples(), step.loss()) == (64, 2 / 64)


def test_a_replica_is_in_a_step_once_whichever_of_its_lives() -> None:
    step = Gradients(7, 2)
    assert step.give("a", 1) is not None
    assert step.give("a", 2) is not None, "nothing of the earlier life has arrived"
    assert [arrive(step, "a", 1), arrive(step, "a", 2), arrive(step, "a", 1)] == [Decision.NEW, Decision.USELESS, Decision.REPEATED]
    assert step.give("a", 3) is None
    assert not step.complete


def test_what_was_not_asked_for_is_useless() -> None:
    step = Gradients(7, 1)
    assert arrive(step, "a") is Decision.USELESS
    assert step.give("a", 1) is not None
    assert arrive(step, "a", number=6) is Decision.USELESS
    assert arrive(step, "a", life=2) is Decision.USELESS
    assert not step.complete
    assert step.give("a", 1) is not None, "it may not have heard the answer"


@given(st.integers(1, 4), st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 2), st.booleans()), max_size=40))
def test_whoever_asks_and_reports_a_step_has_distinct_replicas_and_no_more_than_it_wants(
    wanted: int, told: list[tuple[str, int, bool]]
) -> None:
    step, first = Gradients(7, wanted), list[str]()
    asked = set[tuple[str, int]]()
    for replica, life, reports in told:
        if reports:
            new = arrive(step, replica, life) is Decision.NEW
            assert new == ((replica, life) in asked and replica not in first and len(first) < wanted)
            first += [replica] if new else []
        elif step.give(replica, life) is not None:
            asked.add((replica, life))
    assert step.complete == (len(first) == wanted)
    if step.complete:
        assert [bundle.replica for bundle in step.cover()] == first


# the shard


def shard(rule: Rule | None = None) -> StagingShard:
    job = Job((Shared("shard/0", slice(0, WIDTH)),), 3, synchronous=Synchronous(2))
    return StagingShard(FakeNode(), job, torch.zeros(WIDTH, dtype=torch.float64), rule or Sgd(1.0))


def gradient(number: int) -> torch.Tensor:
    return (torch.arange(WIDTH, dtype=torch.float64) * 5 + number * 3) % 7 - 3


def begin(one: StagingShard) -> None:
    one.handle(Recall(), COORDINATOR)
    assert isinstance(one.handle(Operate(1, 0, (NEXT,), point=1), COORDINATOR).reply, Values)


def step(one: StagingShard, number: int) -> Operate:
    """Step k, with one gradient."""
    assert isinstance(one.handle(Push(number, gradient(number), 1, 4, number), REPLICA).reply, Accepted)
    gather = Gather("gradient", (BundleId("replica/0", 1, number),), 0.25)
    asked = Operate(number + 1, number, (Update("gradient"), NEXT), gather, point=number + 1, step=number, memo=f"step {number}")
    assert isinstance(one.handle(asked, COORDINATOR).reply, Values)
    return asked


def by_hand(rule: Rule, steps: int) -> torch.Tensor:
    parameters = torch.zeros(WIDTH, dtype=torch.float64)
    rule.start(parameters)
    for number in range(1, steps + 1):
        rule.apply(parameters, gradient(number) * 0.25)
    return parameters


@pytest.mark.parametrize("kind", RULES)
def test_a_step_is_the_shard_s_rule_applied_to_the_mean_and_the_next_point(kind: str) -> None:
    make: Any = RULES[kind]
    one = shard(make(0.1))
    begin(one)
    for number in (1, 2, 3):
        step(one, number)
    assert torch.equal(one.parameters, by_hand(make(0.1), 3))
    assert torch.equal(one.vectors["point"], one.parameters)
    assert (one.updates, one.memo, one.point, one.staged) == (3, "step 3", 4, {})


def test_a_step_that_is_asked_for_again_is_answered_and_not_taken() -> None:
    one = shard()
    begin(one)
    asked = step(one, 1)
    before = one.parameters.clone()
    assert isinstance(one.handle(asked, COORDINATOR).reply, Values)
    assert torch.equal(one.parameters, before)
    assert one.updates == 1


@pytest.mark.parametrize("kind", RULES)
def test_the_rule_s_state_comes_back_with_the_snapshot(kind: str) -> None:
    make: Any = RULES[kind]
    one = shard(make(0.1))
    begin(one)
    step(one, 1)
    step(one, 2)
    manifest, vectors = one.snapshot()
    job = Job((Shared("shard/0", slice(0, WIDTH)),), 3, synchronous=Synchronous(2))
    again = StagingShard.restored(FakeNode(), job, make(0.1), json.loads(json.dumps(manifest)), vectors)
    assert set(again.vectors) == {"parameters", "point", "gradient"}
    step(again, 3)
    assert torch.equal(again.parameters, by_hand(make(0.1), 3))


def test_a_step_costs_what_its_rule_does() -> None:
    batch = [Update("gradient"), Combine("point", (("parameters", 1.0),)), Drop(("gradient",))]
    assert cost(batch, 100, 5).bytes == 100 * (5 + 2)


def test_an_update_can_be_told() -> None:
    assert operation_of({"gradient": "gradient", "kind": "update"}) == Update("gradient")
