"""Whatever fails, the gradient that shards have gathered holds each portion exactly once, and the job comes to its end.

Schedules of faults hit replicas, shards, mirrors, coordinator, supervisor and machines.  `tests/sim/exact_network.py` makes every sum
exact, so that what lies on a shard after each gathering is compared by equality; with a mirror or a log the whole course of the
optimisation is that of an undisturbed run, number for number.  `make hunt-sandblaster` draws 10,000 schedules.
"""

from __future__ import annotations

from hypothesis import given, settings

from sim.strategies import Tables, tables
from tests.sim.courses import Course, small, undisturbed

thoroughly = settings(max_examples=max(100, settings().max_examples))


@thoroughly
@given(tables(kind="sandblaster"))
def test_each_portion_counts_once_and_the_job_ends_whatever_fails(drawn: Tables) -> None:
    assert Course(drawn).complaints() == []


@thoroughly
@given(tables(kind="sandblaster", numerics="real"))
def test_so_it_is_with_an_evaluator(drawn: Tables) -> None:
    assert Course(drawn).complaints() == []


@given(tables(kind="sandblaster"))
def test_nothing_of_it_depends_on_the_order_of_what_happens_at_once(drawn: Tables) -> None:
    assert Course(drawn, shuffle_ties=True).complaints() == []


@given(tables(kind="sandblaster", durabilities=("log",)))
def test_with_a_log_the_course_is_that_of_an_undisturbed_run(drawn: Tables) -> None:
    assert Course(drawn).follows(undisturbed(drawn))


@given(tables(kind="sandblaster"))
def test_the_same_scenario_has_the_same_journal(drawn: Tables) -> None:
    assert Course(drawn).records == Course(drawn).records


def test_a_healthy_job_descends_and_ends_where_it_should() -> None:
    course = Course(small())
    assert course.complaints() == []
    losses = [record.value for record in course.of("stepped")]
    assert len(losses) == 4
    assert losses == sorted(losses, reverse=True)
    assert not course.of("reset")


def test_a_shard_that_has_lost_that_it_is_over_is_told_again() -> None:
    promised = {"durability": "snapshot", "snapshot_every": "300 ms"}
    finished_s = next(record.time_s for record in Course(small(**promised)).of("finished"))
    crash = {"kind": "crash", "target": "shard/0", "at": f"{finished_s * 1e6 + 1000:.0f} us", "repair": "200 ms"}
    course = Course(small(crash, **promised))
    assert course.complaints() == []
    assert [record.node for record in course.of("finished")] == ["shard/0", "shard/1", "shard/0"]
