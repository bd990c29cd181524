"""`simctl hunt` finds what is wrong, makes it small, and hands it over as a scenario; and finds nothing where nothing is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from scenarios.load import bundled, load
from sim.cli import main
from sim.hunt import Prey, search
from sim.oracles import trial
from sim.shrink import shrink
from sim.strategies import scenario
from tests.sim.planted import PLANTED, Planted, hunted

pytestmark = pytest.mark.timeout(600)


def simctl(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def hunt(*arguments: str) -> tuple[int, dict[str, Any]]:
    done = simctl("hunt", *arguments, "--workers", "1", "--json")
    return done.exit_code, json.loads(done.stdout)


def test_the_broken_example_is_found_shrunk_and_replayed_in_another_process(tmp_path: Path) -> None:
    code, told = hunt("own_protocol", "--out", str(tmp_path / "hunt"))
    assert code == 1
    found = told["found"]
    assert found["faults"] <= 3
    assert "counted once" in found["rule"] or "counted_once" in found["rule"]
    again = subprocess.run(
        [sys.executable, "-m", "sim.cli", "run", told["scenario"], "--check", "--no-report", "--json", "--out", str(tmp_path / "again")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    summary = json.loads(again.stdout)
    assert (again.returncode, summary["digest"]) == (1, found["digest"])
    violation = next(one for one in summary["checks"]["violations"] if one["rule"] == found["rule"])
    assert (violation["what"], [line["text"] for line in violation["lines"]]) == (found["what"], list(found["told"]))
    checked = simctl("check", str(tmp_path / "again"))
    assert checked.exit_code == 1
    assert found["what"] in checked.output


@pytest.mark.parametrize(
    "planted", [pytest.param(one, id=one.plant.__name__, marks=[pytest.mark.slow] if one.rare else []) for one in PLANTED]
)
def test_a_planted_bug_is_found_and_shrunk_and_the_right_code_has_no_complaint(planted: Planted) -> None:
    found, _ = hunted(planted)
    assert found is not None
    assert found.faults <= 4
    assert trial(scenario(found.tables)).violations() == []


@pytest.mark.parametrize("kind", ["downpour", "sandblaster", "mapreduce", "sync", "partitions"])
def test_nothing_is_found_where_nothing_is(kind: str) -> None:
    searched = search(Prey(7, kind=kind), 0, 30)
    assert searched.found is None
    assert searched.runs == 30
    assert searched.reached.keys() <= searched.reachable | searched.reached.keys()


def test_an_expectation_can_be_hunted(tmp_path: Path) -> None:
    """Which few faults make this job take longer than 1.5 seconds?"""
    file = tmp_path / "slow.toml"
    expected = '\n[[expect]]\nmetric = "seconds"\nat_most = "1500 ms"\n'
    file.write_text(bundled()["hunt-downpour"].read_text(encoding="utf-8") + expected, encoding="utf-8")
    code, told = hunt(str(file), "--out", str(tmp_path / "hunt"))
    assert code == 1
    assert told["found"]["rule"] == "expect seconds at most 1500 ms"
    assert 1 <= told["found"]["faults"] <= 4
    assert load(told["scenario"]).expect


def test_what_needs_no_fault_at_all_is_told_at_once(tmp_path: Path) -> None:
    code, told = hunt("hunt-downpour", "--set", "expect=[{metric='updates', at_most=1}]", "--out", str(tmp_path / "hunt"))
    assert (code, told["found"]["faults"], told["runs"]) == (1, 0, 0)


def test_a_hunt_goes_on_where_it_was(tmp_path: Path) -> None:
    folder = str(tmp_path / "hunt")
    code, first = hunt("hunt-downpour", "--runs", "50", "--out", folder)
    assert (code, first["runs"], first["done"]) == (0, 50, [0])
    code, second = hunt("--resume", folder, "--runs", "100")
    assert (code, second["runs"], second["done"]) == (0, 100, [0, 1])
    whole = hunt("hunt-downpour", "--runs", "100", "--out", str(tmp_path / "whole"))[1]
    assert {key: whole[key] for key in ("reached", "never", "ended")} == {key: second[key] for key in ("reached", "never", "ended")}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "either a scenario or --any KIND"),
        (["quickstart", "--any", "sync"], "either a scenario or --any KIND"),
        (["--any", "paxos"], "'downpour', 'sandblaster', 'mapreduce', 'sync', 'partitions'"),
        (["no-such"], "no-such"),
        (["hunt-downpour", "--time", "10"], "--time 10"),
    ],
)
def test_what_cannot_be_hunted_is_one_clear_error(arguments: list[str], told: str) -> None:
    done = simctl("hunt", *arguments)
    assert done.exit_code == 2
    assert told in done.output


def test_a_folder_that_holds_no_hunt_is_one_clear_error(tmp_path: Path) -> None:
    done = simctl("hunt", "--resume", str(tmp_path))
    assert done.exit_code == 2
    assert "holds no hunt" in done.output


def test_shrinking_leaves_what_is_needed_and_nothing_else() -> None:
    crash = {"kind": "crash", "target": "shard/0", "at": "1234 ms", "repair": "777 ms"}
    pause = {"kind": "pause", "target": "replica/0", "at": "17 ms", "for": "90 ms"}

    def breaks(tables: dict[str, Any]) -> bool:
        return any(one["kind"] == "crash" and int(one["at"].split()[0]) >= 1000 for one in tables["fault"])

    small, runs = shrink({"protocol": {"stop": {}}, "fault": [pause, crash, pause, pause]}, breaks)
    assert small["fault"] == [{"kind": "crash", "target": "shard/0", "at": "2000 ms", "repair": "1 ms"}]
    assert runs < 30
