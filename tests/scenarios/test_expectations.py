"""Expectations: whatever number of the summary is asked for, and every mistake that can be told before the run."""

from __future__ import annotations

from typing import Any

import pytest

from report import exits
from report.summary import summarise
from report.tally import Tally
from scenarios.expectations import SUMMARY, Expectation
from scenarios.load import validate
from scenarios.schema import Scenario

FOUND: dict[str, Any] = {
    "status": "done", "accuracy": 0.93, "loss": None, "seconds": 234.5, "bytes": 5_000_000_000, "staleness": {"p99": 58},
    "pushes_by_replica": {"replica/0": 10.0, "replica/3": 7.5}, "faults": [{"bit": {"processes": 1, "seconds down": 42.0}}],
}  # fmt: skip
MODEL = {"model": {"layers": [64, 10]}}


def met(metric: str, **conditions: object) -> bool:
    return bool(Expectation.model_validate({"metric": metric} | conditions).judge(FOUND)["met"])


def mistakes(*expectations: dict[str, Any], **tables: Any) -> list[str]:
    return [str(mistake) for mistake in validate(MODEL | tables | {"expect": list(expectations)}, "mine.toml")[1]]


@pytest.mark.parametrize(
    ("metric", "least"),
    [
        ("accuracy", 0.93), ("staleness.p99", 58), ("pushes_by_replica.replica/3", 7.5), ("faults.0.bit.processes", 1),
        ("seconds", "234500 ms"), ("faults.0.bit.seconds down", "42 s"), ("bytes", "5 GB"),
    ],
)  # fmt: skip
def test_any_number_of_the_summary_is_held_against_its_bounds_inclusive(metric: str, least: float | str) -> None:
    assert met(metric, at_least=least)
    assert met(metric, at_most=least)
    assert met(metric, at_least=least, at_most=least)


def test_a_number_beyond_its_bounds_does_not_do() -> None:
    assert not met("accuracy", at_least=0.931)
    assert not met("accuracy", at_most=0.929)
    assert not met("seconds", at_most="3 min")
    assert not met("accuracy", at_least=0.9, within={"of": 0.5, "by": 0.1})


def test_within_includes_its_ends_whatever_floats_make_of_them() -> None:
    assert met("accuracy", within={"of": 0.95, "by": 0.02})
    assert met("accuracy", within={"of": 0.91, "by": 0.02})
    assert not met("accuracy", within={"of": 0.95, "by": 0.019})
    assert met("seconds", within={"of": "4 min", "by": "6 s"})


def test_a_metric_that_the_run_has_no_number_of_fails() -> None:
    judged = Expectation(metric="loss", at_most=1.0).judge(FOUND)
    assert (judged["met"], judged["found"]) == (False, None)


def test_what_a_fault_did_not_bite_is_none_of_it_and_a_word_that_no_fault_has_fails() -> None:
    assert met("faults.0.bit.messages", at_most=0)
    assert not met("faults.0.bit.messages", at_least=1)
    assert not met("faults.0.bit.message", at_most=0)


def test_a_metric_that_the_run_does_not_know_fails_and_names_the_nearest() -> None:
    judged = Expectation(metric="pushes_by_replica.replica/33", at_least=1).judge(FOUND)
    assert not judged["met"]
    assert "did you mean 'replica/3'?" in judged["note"]


@pytest.mark.parametrize("metric", ["status", "staleness", "faults", "accuracy.p99", "faults.7.at_s"])
def test_what_is_no_number_fails(metric: str) -> None:
    judged = Expectation(metric=metric, at_least="1 s" if metric.endswith("_s") else 1).judge(FOUND)
    assert (judged["met"], judged["found"]) == (False, None)
    assert judged["note"]


def test_the_list_of_metrics_is_that_of_the_summary() -> None:
    scenario, _ = validate(MODEL, "mine")
    assert scenario is not None
    summary = summarise(scenario, "sim", Tally())
    assert summary.keys() == SUMMARY.keys()
    for key, what in SUMMARY.items():
        if ", " in what:
            assert list(summary[key]) == what.split(", ")


def test_every_mistake_is_told_before_the_run() -> None:
    told = mistakes(
        {"metric": "acuracy", "at_least": 0.9},
        {"metric": "staleness.p95", "at_most": 3},
        {"metric": "pushes_by_replica.replica/9", "at_least": 1},
        {"metric": "seconds", "at_most": 3},
        {"metric": "updates", "at_least": "3 s"},
        {"metric": "updates"},
        {"metric": "updates", "at_least": 5, "at_most": 4},
        {"metric": "digest", "at_least": 5},
        {"metric": "updates", "atleast": 5},
        {"metric": "updates", "at_least": True},
        protocol={"kind": "downpour", "replicas": 4},
    )
    for path, said in (
        ("expect.0.metric", "found 'acuracy'; did you mean 'accuracy'?"),
        ("expect.1.metric", "did you mean 'p99'?"),
        ("expect.2.metric", "allowed: pushes_by_replica.replica/0"),
        ("expect.3", "did you mean '3 s'?"),
        ("expect.4", "allowed: a number, without a unit"),
        ("expect.5", "nothing is expected"),
        ("expect.6", "nothing can be both"),
        ("expect.7.metric", "it is text"),
        ("expect.8.atleast", "did you mean 'at_least'?"),
        ("expect.9.at_least", "allowed: a number"),
    ):
        assert any(one.startswith(f"mine.toml: {path}: ") and said in one for one in told), (path, said, told)
    assert len(told) == 10


def test_a_run_that_is_timing_only_learns_nothing_that_could_be_expected() -> None:
    assert mistakes({"metric": "accuracy", "at_least": 0.9}, numerics="timing") == [
        "mine.toml: expect.0.metric: found 'accuracy'; needs numerics = 'real'"
    ]


def test_what_only_the_run_can_know_is_left_to_it() -> None:
    assert not mistakes(
        {"metric": "faults.3.bit.seconds down", "at_most": "1 min"}, {"metric": "accounts.by_kind.shard.idle", "at_most": 0.5}
    )


def scenario(**conditions: object) -> Scenario:
    made, told = validate(MODEL | {"expect": [{"metric": "updates"} | conditions]}, "mine")
    assert made is not None, told
    return made


def test_an_expectation_that_failed_is_exit_code_1_unless_there_is_something_worse() -> None:
    unmet = scenario(at_least=1)
    assert exits.of(summarise(scenario(at_least=0), "sim", Tally())) == exits.Exit.DONE
    assert exits.of(summarise(unmet, "exec", Tally())) == exits.Exit.UNMET
    assert exits.of(summarise(unmet, "sim", Tally(), status="failed")) == exits.Exit.FAILED
    assert exits.of(summarise(unmet, "sim", Tally(), status="interrupted")) == exits.Exit.INTERRUPTED
