"""Sandblaster that begins with Downpour in the same job: what both do, and that nobody waits for ever where one becomes the other.

`tests/sim/test_sandblaster.py` draws warm starts too; here failures are put about the change of phase.
"""

from __future__ import annotations

from typing import Any

import pytest

from core.job import Job
from core.journal import Record
from core.pushes import BUNDLES
from report.summary import summarise
from report.tally import Tally
from sim.run import simulate
from sim.strategies import DURABILITIES, Tables, scenario
from tests.sim.courses import Course, small

UPDATES = 12
WARM = {"protocol": "downpour", "updates": UPDATES, "batch": 1, "rule": {"kind": "sgd", "learning_rate": 2.0**-6}}


def warm(*faults: dict[str, Any], **protocol: Any) -> Tables:
    return small(*faults, warmstart=WARM, **protocol)


def of_replicas(records: list[Record], event: str) -> list[Record]:
    return [record for record in records if record.event == event and not record.peer.startswith("coordinator")]


def test_downpour_makes_its_updates_and_sandblaster_goes_on_from_there() -> None:
    course = Course(warm())
    assert course.complaints() == []
    applied = of_replicas(course.records, "applied")
    assert [sum(record.node == shard for record in applied) for shard in ("shard/0", "shard/1")] == [UPDATES, UPDATES]
    assert [(record.number, record.note) for record in course.of("warmed")] == [(UPDATES, f"warm after {UPDATES} updates")] * 2
    first = min(record.time_s for record in course.of("staged"))
    assert max(record.time_s for record in applied) < first
    assert all(record.number > BUNDLES for record in course.of("staged"))
    assert not course.of("reset")
    losses = [record.value for record in course.of("stepped")]
    assert len(losses) == 4
    assert losses == sorted(losses, reverse=True)


def test_it_begins_nearer_to_the_minimum() -> None:
    def begins_with(course: Course) -> float:
        return next(record.value for record in course.of("tried"))

    assert begins_with(Course(warm())) < begins_with(Course(small()))


def test_the_summary_says_how_many_updates_the_warm_start_made() -> None:
    course, tally = Course(warm()), Tally()
    tally.read(course.records)
    summary = summarise(course.scenario, "sim", tally)
    assert (summary["updates"], summary["warm_updates"]) == (UPDATES + 4, UPDATES)
    assert summary["reason"] == "4 iterations"


def test_a_real_loss_falls_in_both_phases() -> None:
    told = warm(evaluate_every="100 ms") | {"numerics": "real"}
    told["protocol"] |= {"warmstart": WARM | {"batch": 16, "rule": {"kind": "adagrad", "learning_rate": 0.02}}, "stop": {"iterations": 5}}
    run = simulate(
        scenario(told | {"data": {"source": "digits"}, "model": {"layers": [64, 10], "cost": {"parameters": 12_000, "flops": "3 MFLOP"}}})
    )
    curve = run.tally.curve
    before, between, after = (next(e.loss for e in reversed(curve) if e.updates <= most) for most in (0, UPDATES, UPDATES + 5))
    assert before > between > after


def test_phantoms_have_a_warm_start_too() -> None:
    summary = simulate(scenario(warm())).summary()
    assert (summary["status"], summary["warm_updates"], summary["loss"]) == ("done", UPDATES, None)


def test_time_may_end_the_job_before_downpour_has() -> None:
    course = Course(warm(stop={"time": "300 ms", "iterations": 4}))
    assert course.complaints() == []
    assert {record.note for record in course.of("finished")} == {"0.3 s"}
    assert not course.of("staged")


def crash(target: str, at_s: float) -> dict[str, Any]:
    return {"kind": "crash", "target": target, "at": f"{at_s * 1e6:.0f} us", "repair": "250 ms"}


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("targets", [("shard/1",), ("coordinator",), ("replica/0",), ("shard/1", "coordinator"), ("shard/*", "replica/*")])
def test_whoever_dies_about_the_change_of_phase_keeps_nobody_waiting(targets: tuple[str, ...], durability: str) -> None:
    promised = {"durability": durability, "snapshot_every": "100 ms"}
    healthy = Course(warm(**promised))
    change_s = max(record.time_s for record in healthy.of("warmed"))
    begun_s = min(record.time_s for record in healthy.of("given"))
    assert change_s < begun_s
    for at_s in (
        change_s - 0.1,
        change_s - 0.001,
        change_s + 0.001,
        (change_s + begun_s) / 2,
        begun_s - 0.0001,
        begun_s + 0.001,
        begun_s + 0.1,
    ):
        course = Course(warm(*(crash(target, at_s) for target in targets), **promised))
        assert course.complaints() == [], at_s
        assert {record.note for record in course.of("finished")} == {"4 iterations"}, at_s
        assert {record.node for record in course.of("warmed")} == {"shard/0", "shard/1"}, at_s


def test_a_shard_that_has_lost_its_updates_when_the_others_are_through_is_not_waited_for() -> None:
    """All replicas ask for work; nobody is left who would train it up to its updates."""
    told: dict[str, Any] = {"durability": "none", "detect_within": "2 s", "deadline": "300 ms"}
    healthy = Course(warm(**told))
    change_s = max(record.time_s for record in healthy.of("warmed"))
    course = Course(warm(crash("coordinator", change_s - 0.1), crash("shard/0", change_s + 0.2), **told))
    assert course.complaints() == []
    assert [record.number for record in course.of("warmed") if record.node == "shard/0"] == [UPDATES, 0]


def test_numbering_bundles_as_pushes_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle is then taken for a repetition of a push of Downpour, or for one."""
    monkeypatch.setattr(Job, "bundles_from", property(lambda _: 0))
    assert Course(warm()).complaints() != []
