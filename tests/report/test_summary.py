"""The summary: every key that is promised, true to the run, for machines and for people."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import pytest
from rich.console import Console

from core.journal import Journal
from report.summary import show, summarise
from report.tally import Tally
from scenarios.load import validate
from scenarios.schema import Scenario
from sim.run import simulate

KEYS = {
    "scenario", "seed", "world", "protocol", "seconds", "wall_seconds", "updates", "loss", "accuracy", "messages", "bytes", "staleness",
    "faults", "digest", "model",
}  # fmt: skip


def scenario(**tables: Any) -> Scenario:
    made, mistakes = validate(
        {
            "name": "small", "seed": 3, "model": {"layers": [64, 16, 10]}, "cluster": {"speed": "3 MFLOP/s", "start_up": "100 ms"},
            "protocol": {"kind": "downpour", "replicas": 2, "shards": 2, "evaluate_every": "200 ms", "stop": {"updates": 60}},
            "fault": [{"kind": "pause", "target": "replica/1", "at": "750 ms", "for": "200 ms"}, {"kind": "slowdown", "target": "replica/1", "at": "1 h", "factor": 2}],
        } | tables, "small",
    )  # fmt: skip
    assert made is not None, mistakes
    return made


@pytest.fixture(scope="module")
def summary() -> dict[str, Any]:
    return simulate(scenario()).summary()


def test_a_synchronous_job_counts_its_steps_and_the_gradients_that_were_dropped() -> None:
    protocol = {"kind": "sync", "replicas": 2, "backup_workers": 1, "shards": 2, "batch": 32, "stop": {"epochs": 2, "accuracy": 1}}
    run = simulate(scenario(protocol=protocol, fault=[]))
    summary, samples = run.summary(), 1437  # of the digits that are not held out
    steps = math.ceil(2 * samples / (2 * 32))
    assert (summary["updates"], summary["reason"]) == (steps, f"2 epochs, {steps * 64} samples")
    assert list(summary["pushes_by_replica"]) == ["replica/0", "replica/1", "replica/2"]
    assert summary["portions"]["wasted"] == summary["portions"]["given"] - 2 * steps > 0
    out = io.StringIO()
    show(Console(file=out, width=120), summary)
    assert f"{summary['portions']['wasted']:,} dropped" in out.getvalue()


def test_every_key_that_is_promised_is_there(summary: dict[str, Any]) -> None:
    assert summary.keys() >= KEYS
    assert summary["staleness"].keys() == {"mean", "p50", "p99", "max"}


def test_every_summary_of_either_world_has_the_same_keys(summary: dict[str, Any]) -> None:
    for world in ("sim", "exec"):
        assert summarise(scenario(), world, Tally()).keys() == summary.keys()


def test_the_summary_is_plain_json(summary: dict[str, Any]) -> None:
    text = json.dumps(summary, allow_nan=False)
    assert json.loads(text) == summary


def test_the_summary_says_what_happened(summary: dict[str, Any]) -> None:
    assert (summary["scenario"], summary["seed"], summary["world"], summary["protocol"], summary["numerics"]) == (
        "small",
        3,
        "sim",
        "downpour",
        "real",
    )
    assert (summary["status"], summary["reason"], summary["updates"]) == ("done", "60 updates", 60)
    assert 0 < summary["accuracy"] <= 1
    assert summary["loss"] > 0
    assert summary["seconds"] > 0
    assert summary["messages"] > 2 * 2 * 60
    assert summary["bytes"] > summary["messages"] * 64
    assert list(summary["pushes_by_replica"]) == ["replica/0", "replica/1"]
    assert sum(summary["pushes_by_replica"].values()) == 60
    assert len(summary["digest"]) == 32
    assert summary["cost"] == "own"


def test_faults_say_what_they_bit_and_that_they_bit_nothing(summary: dict[str, Any]) -> None:
    pause, slowdown = summary["faults"]
    assert (pause["kind"], pause["target"], pause["at_s"]) == ("pause", "replica/1", 0.75)
    assert pause["bit"]["processes"] == 1
    assert not any(slowdown["bit"].values())


def test_a_loss_that_is_no_number_is_none() -> None:
    journal, tally = Journal(), Tally()
    tally.attach(journal)
    for loss in (math.nan, math.inf):
        journal.recorder("evaluator", 1, lambda: 0.0)("evaluated", "", 1, loss)
        assert summarise(scenario(), "sim", tally)["loss"] is None


def test_a_shard_that_applied_nothing_is_the_one_with_the_least_updates() -> None:
    journal, tally = Journal(), Tally()
    tally.attach(journal)
    for number in range(5):
        journal.recorder("shard/0", 1, lambda: 0.0)("applied", "replica/0#1", number)
    summary = summarise(scenario(), "sim", tally)
    assert summary["updates"] == 0
    assert summary["pushes_by_replica"] == {"replica/0": 2.5, "replica/1": 0.0}


def test_lives_of_a_replica_are_counted_together() -> None:
    journal, tally = Journal(), Tally()
    tally.attach(journal)
    for shard in range(2):
        for life in (1, 2):
            journal.recorder(f"shard/{shard}", 1, lambda: 0.0)("applied", f"replica/1#{life}", 1)
    assert summarise(scenario(), "sim", tally)["pushes_by_replica"]["replica/1"] == 2.0


def test_what_the_world_measured_overrides() -> None:
    found = summarise(scenario(), "exec", Tally(), status="failed", reason="why", wall_seconds=3.5)
    assert (found["status"], found["reason"], found["wall_seconds"]) == ("failed", "why", 3.5)


def page(summary: dict[str, Any]) -> str:
    out = io.StringIO()
    show(Console(file=out, width=200), summary)
    return out.getvalue()


def test_the_page_for_people_says_the_same(summary: dict[str, Any]) -> None:
    text = page(summary)
    for said in (
        "small",
        "60 updates",
        summary["digest"],
        f"{summary['accuracy']:.4f}",
        "pause of replica/1",
        "bit nothing",
        "virtual time",
    ):
        assert said in text


@pytest.mark.parametrize("status", ["done", "failed", "interrupted"])
@pytest.mark.parametrize("world", ["sim", "exec"])
def test_the_page_of_a_run_that_did_nothing_is_no_error(world: str, status: str) -> None:
    text = page(summarise(scenario(), world, Tally(), status=status, wall_seconds=1.0, notes=["a note"]))
    assert status in text
    assert "a note" in text
