"""Whatever fails, a step is taken once on each shard, with the exact mean of N distinct replicas' gradients at its point.

As `tests/sim/test_sandblaster.py`, with `models/parabolas.py` for an oracle: each replica has one minibatch, its number, so
what lies on a shard after each gathering says whose gradients are in it and where they were computed.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings

from core import tenure
from core.coordination import Gather
from core.staging import StagingShard
from models import parabolas
from sim.strategies import Tables, tables
from tests.sim.courses import Course, small, undisturbed

thoroughly = settings(max_examples=max(100, settings().max_examples))

KIND: dict[str, Any] = {
    "kind": "sync",
    "replicas": 2,
    "backup_workers": 1,
    "rule": {"kind": "sgd", "learning_rate": 0.05},
    "stop": {"updates": 12},
}
SANDBLASTER_S = ("portions", "bundle")


def job(*faults: Tables, **protocol: Any) -> Tables:
    """Two of three replicas, two shards, 12 steps."""
    drawn = small(*faults, **(KIND | protocol))
    for key in SANDBLASTER_S:
        del drawn["protocol"][key]
    return drawn


@thoroughly
@given(tables(kind="sync"))
def test_a_step_has_the_mean_of_distinct_gradients_and_the_job_ends_whatever_fails(drawn: Tables) -> None:
    assert Course(drawn).complaints() == []


@given(tables(kind="sync", numerics="real"))
def test_so_it_is_with_an_evaluator(drawn: Tables) -> None:
    assert Course(drawn).complaints() == []


@given(tables(kind="sync"))
def test_nothing_of_it_depends_on_the_order_of_what_happens_at_once(drawn: Tables) -> None:
    assert Course(drawn, ties=1).complaints() == []


@given(tables(kind="sync", durabilities=("log",)))
def test_with_a_log_every_shard_has_taken_every_step_once(drawn: Tables) -> None:
    course = Course(drawn)
    assert course.complaints() == []
    assume(not course.run.cluster.failed)
    wanted = drawn["protocol"]["stop"]["updates"]
    assert course.updates() == [wanted] * drawn["protocol"]["shards"]
    assert not [record for record in course.of("reset") if "on from the parameters" in record.note]


@given(tables(kind="sync", durabilities=("log",), backups=0))
def test_without_backup_workers_and_with_a_log_the_course_is_that_of_an_undisturbed_run(drawn: Tables) -> None:
    course = Course(drawn)
    assume(not course.run.cluster.failed)
    assert course.follows(undisturbed(drawn))


@given(tables(kind="sync"))
def test_the_same_scenario_has_the_same_journal(drawn: Tables) -> None:
    assert Course(drawn).records == Course(drawn).records


def test_a_healthy_job_takes_its_steps_and_ends() -> None:
    course = Course(job())
    assert course.complaints() == []
    assert [number for number, _ in course.steps()] == list(range(1, 13))
    losses = [loss for _, loss in course.steps()]
    assert losses[-1] < losses[0]
    assert course.updates() == [12, 12]
    assert not course.of("reset")


def test_a_loss_that_is_no_number_fails_the_job_before_the_step_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    slope = parabolas.gradient_of
    monkeypatch.setattr(parabolas, "gradient_of", lambda *where: slope(*where) * float("nan"))
    course = Course(job())
    assert "the loss of step 1 is nan" in course.run.cluster.failed
    assert not course.of("stepped")


def test_the_slowest_holds_nobody_up_where_there_is_a_backup_worker() -> None:
    slow = {"kind": "slowdown", "target": "replica/1", "factor": 10}
    with_one, without = Course(job(slow)), Course(job(slow, backup_workers=0))
    assert with_one.records[-1].time_s < without.records[-1].time_s / 3
    assert with_one.run.summary()["portions"]["wasted"] > 0 == without.run.summary()["portions"]["wasted"]


def test_a_replica_that_never_comes_back_is_done_without_where_there_is_a_backup_worker() -> None:
    course = Course(job({"kind": "crash", "target": "replica/0", "at": "400 ms"}))
    assert course.complaints() == []
    assert course.updates() == [12, 12]


def half_a_step() -> Tables:
    """The coordinator dies when one shard has taken its third step, and the other has not heard of it."""
    patient = {"durability": "log", "detect_within": "2 s"}
    told_s = next(record.time_s for record in Course(job(**patient)).of("pushed") if record.node == "coordinator" and record.number == 3)
    loss = {"kind": "loss", "target": "shard/1", "at": f"{told_s * 1e6 - 10:.0f} us", "for": "250 ms", "probability": 1.0}
    crash = {"kind": "crash", "target": "coordinator", "at": f"{told_s * 1e6 + 1e5:.0f} us", "repair": "200 ms"}
    return job(loss, crash, **patient)


def test_a_next_life_has_the_others_take_the_step_that_some_have_taken() -> None:
    course = Course(half_a_step())
    assert course.complaints() == []
    assert course.updates() == [12, 12]
    by_life = {(record.node, record.peer): 0 for record in course.of("applied")}
    for record in course.of("applied"):
        by_life[record.node, record.peer] += 1
    assert by_life == {
        ("shard/0", "coordinator#1"): 3, ("shard/1", "coordinator#1"): 2, ("shard/0", "coordinator#2"): 9, ("shard/1", "coordinator#2"): 10,
    }  # fmt: skip


def test_a_next_life_that_forgets_whose_gradients_they_were_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    made = half_a_step()
    monkeypatch.setattr(tenure, "gather_of", lambda _: None)
    assert any("took a step with a gradient that is not of these parameters" in complaint for complaint in Course(made).complaints())


def test_shards_that_take_whatever_has_come_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    gather = StagingShard.gather
    monkeypatch.setattr(StagingShard, "gather", lambda self, asked: gather(self, Gather(asked.into, tuple(self.staged), asked.scale)))
    assert any("gathered" in wrong for wrong in Course(job()).complaints())
