"""Whatever fails, the gradient that shards have gathered holds each portion exactly once, and the job comes to its end.

Schedules of faults hit replicas, shards, mirrors, coordinator, supervisor and machines.  `models/parabolas.py` makes every sum
exact, so that what lies on a shard after each gathering is compared by equality; with a mirror or a log the whole course of the
optimisation is that of an undisturbed run, number for number.  `make hunt-sandblaster` draws 10,000 schedules.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

from core.work import Gradient, Work
from models import parabolas
from models.parabolas import LEAST_WIDTH, Parabolas
from sim.strategies import Tables, tables
from tests.sim.courses import Course, small, undisturbed

thoroughly = settings(max_examples=max(100, settings().max_examples))


@thoroughly
@given(tables(kind="sandblaster"))
def test_each_portion_counts_once_and_the_job_ends_whatever_fails(drawn: Tables) -> None:
    assert Course(drawn).complaints() == []


@thoroughly
@given(tables(kind="sandblaster", numerics="real"))
def test_so_it_is_with_an_evaluator_whatever_fails(drawn: Tables) -> None:
    assert Course(drawn).complaints() == []


@given(tables(kind="sandblaster"))
def test_nothing_of_it_depends_on_the_order_of_what_happens_at_once(drawn: Tables) -> None:
    assert Course(drawn, ties=1).complaints() == []


@given(tables(kind="sandblaster", durabilities=("log",), warmstarts=False))
def test_with_a_log_the_course_is_that_of_an_undisturbed_run(drawn: Tables) -> None:
    assert Course(drawn).follows(undisturbed(drawn))


@given(tables(kind="sandblaster"))
def test_the_same_scenario_has_the_same_journal(drawn: Tables) -> None:
    assert Course(drawn).records == Course(drawn).records


def test_a_shard_that_forgets_the_end_before_the_job_is_concluded_is_told_again() -> None:
    told = {"durability": "none", "evaluate_every": "5 s"}
    ended_s = max(record.time_s for record in Course(small(**told) | {"numerics": "real"}).of("finished"))
    crash = {"kind": "crash", "target": "shard/1", "at": f"{ended_s + 0.5} s", "repair": "200 ms"}
    course = Course(small(crash, **told) | {"numerics": "real"})
    assert course.complaints() == []
    assert [record.life for record in course.of("finished") if record.node == "shard/1"] == [1, 2]


def test_a_healthy_job_descends_and_ends_where_it_should() -> None:
    course = Course(small())
    assert course.complaints() == []
    losses = [record.value for record in course.of("stepped")]
    assert len(losses) == 4
    assert losses == sorted(losses, reverse=True)
    assert not course.of("reset")


def test_where_the_loss_only_rises_the_job_gives_up_and_keeps_the_best_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    gradient = Parabolas.gradient

    def uphill(network: Parabolas, parameters: torch.Tensor, portion: int) -> Work[Gradient]:
        work = gradient(network, parameters, portion)
        return Work(lambda: (found := work.run())._replace(vector=-found.vector), work.cost)

    monkeypatch.setattr(Parabolas, "gradient", uphill)
    course = Course(small())
    summary = course.run.summary()
    assert summary["status"] == "done"
    assert summary["reason"].startswith("gave up: no lower loss")
    assert course.parameters() == [0.0] * LEAST_WIDTH


def test_a_loss_that_is_no_number_at_the_first_parameters_fails_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    slope = parabolas.gradient_of
    monkeypatch.setattr(parabolas, "gradient_of", lambda *where: slope(*where) * float("nan"))
    course = Course(small())
    assert "the loss of the first parameters is nan" in course.run.cluster.failed


def test_a_shard_that_has_lost_that_it_is_over_is_told_again() -> None:
    promised = {"durability": "snapshot", "snapshot_every": "300 ms"}
    finished_s = next(record.time_s for record in Course(small(**promised)).of("finished"))
    crash = {"kind": "crash", "target": "shard/0", "at": f"{finished_s * 1e6 + 1000:.0f} us", "repair": "200 ms"}
    course = Course(small(crash, **promised))
    assert course.complaints() == []
    assert [record.node for record in course.of("finished")] == ["shard/0", "shard/1", "shard/0"]
