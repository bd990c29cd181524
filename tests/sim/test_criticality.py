"""`simctl criticality` as a user meets it: what each single loss costs, which is worst, and what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result

from report.criticality import Cost, Criticality, Outcome, Thing
from sim.cli import main

SMALL = """
schema = 1
seed = 3
numerics = "timing"
[model]
layers = [64, 16, 10]
cost = { parameters = 12_000, flops = "50 MFLOP" }
[protocol]
kind = "downpour"
replicas = 2
shards = 1
batch = 1
detect_within = "200 ms"
deadline = "300 ms"
stop = { updates = 60 }
[cluster]
machines = 5
speed = "1 GFLOP/s"
start_up = "100 ms"
"""
"""The shard is on machine/0, the replicas on the next two, two are spare."""


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    file = tmp_path / "small.toml"
    file.write_text(SMALL)
    return str(file)


def lose(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["criticality", *arguments])


def found(folder: Path, *arguments: str, workers: int = 1) -> dict[str, Any]:
    result = lose(*arguments, "--json", "--workers", str(workers), "--out", str(folder))
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def by_name(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {cost["thing"]["name"]: cost for cost in told["costs"]}


def test_machines_are_told_apart_by_what_lives_there(scenario, tmp_path):
    told = found(tmp_path / "out", scenario, "--targets", "machine/*", "--moments", "2")
    costs = by_name(told)
    assert {cost["thing"]["kind"] for cost in told["costs"]} == {"machine"}  # and not their links
    assert costs["machine/0"]["thing"]["home_to"] == "shard/0"
    assert costs["machine/0"]["fails"] == 2  # what its shard knew is nowhere else
    assert told["costs"][0]["thing"]["name"] == "machine/0"
    assert told["costs"][0]["what"].startswith("fails: ")
    assert costs["machine/1"]["fails"] == 0
    assert costs["machine/1"]["worst_s"] > 0
    assert "replica/0 on machine/" in costs["machine/1"]["what"]
    for spare in ("machine/3", "machine/4"):
        assert costs[spare]["thing"]["home_to"] == "spare"
        assert (costs[spare]["fails"], costs[spare]["worst_s"], costs[spare]["lost_updates"]) == (0, 0, 0)
    assert (told["moments_s"][0] * 3) == pytest.approx(told["moments_s"][1])


def test_where_the_shard_is_kept_elsewhere_its_machine_costs_time(scenario, tmp_path):
    told = found(
        tmp_path / "out",
        scenario,
        "--set",
        "protocol.durability=mirror",
        "--targets",
        "machine/*",
        "--targets",
        "shard/0",
        "--moments",
        "1",
    )
    costs = by_name(told)
    assert costs["machine/0"]["fails"] == 0
    assert costs["machine/0"]["worst_s"] > costs["machine/4"]["worst_s"]


def test_a_link_costs_a_job_less_that_comes_back(scenario, tmp_path):
    arguments = (scenario, "--targets", "machine/0 out", "--moments", "1")
    for_good = found(tmp_path / "gone", *arguments)
    for_a_moment = found(tmp_path / "back", *arguments, "--repair", "50 ms")
    assert for_good["costs"][0]["fails"] == 1
    assert for_a_moment["costs"][0]["fails"] == 0
    assert for_a_moment["repair"] == "50 ms"


def test_the_scenarios_own_faults_stay_as_they_are(scenario, tmp_path):
    """The undisturbed run has them too: losing a spare machine costs nothing still."""
    fault = '[[fault]]\nkind = "crash"\ntarget = "replica/*"\nevery = { exponential = { mean = "1 s" } }\nrepair = "200 ms"\n'
    Path(scenario).write_text(SMALL + fault)
    told = found(tmp_path / "out", scenario, "--targets", "machine/4", "--moments", "3")
    plain = found(tmp_path / "plain", scenario, "--set", "fault=[]", "--targets", "machine/4", "--moments", "1")
    assert told["undisturbed"]["seconds"] > plain["undisturbed"]["seconds"]
    assert [run["longer_s"] for run in told["runs"]] == [0, 0, 0]


def test_the_same_comes_out_twice_and_every_thing_is_in_the_picture(scenario, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    told = found(first, scenario, "--moments", "1", workers=2)
    again = lose(scenario, "--moments", "1", "--workers", "1", "--out", str(second))
    assert again.exit_code == 0, again.output
    names = [f"machine/{number}" for number in range(5)]
    links = [f"{place} {way}" for place in (*names, "head") for way in ("out", "in")]
    assert {cost["thing"]["name"] for cost in told["costs"]} == {*names, *links, "shard/0", "replica/0", "replica/1", "supervisor"}
    for file in ("criticality.json", "criticality.csv", "criticality.svg"):
        assert (first / file).read_bytes() == (second / file).read_bytes()
    with (first / "criticality.csv").open(newline="", encoding="utf-8") as lines:
        assert len(list(csv.DictReader(lines))) == len(told["costs"])
    words = {"".join(text.itertext()).strip() for text in ET.parse(first / "criticality.svg").iter("{http://www.w3.org/2000/svg}text")}
    assert {cost["thing"]["name"] for cost in told["costs"]} <= {word.partition(":")[0] for word in words}
    assert "fails" in words
    assert "The loss that hurts most is that of " in again.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--moments", "0"), "--moments"),
        (("--targets", "rack/7"), "'rack/7': matches nothing; machines: machine/0, machine/1, machine/2 and 2 more; links: "),
        (("--targets", "shrad/0"), "did you mean 'shard/0'?"),
        (("--moments", "50"), "21 things lost at 50 moments are 1,050 runs, more than --most 500; allowed: fewer --moments"),
        (("--repair", "10"), "--repair 10: allowed: a number with a unit"),
        (("--set", "give_up_after='1 s'"), "fails without any further loss: not over after 1 s; nothing to compare with"),
    ],
)
def test_wrong_input_is_one_clear_error(scenario, tmp_path, arguments, message):
    result = lose(scenario, *arguments, "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert message in result.stderr
    assert sum("rror: " in line for line in result.stderr.splitlines()) == 1
    assert "Traceback" not in result.output


def test_a_folder_with_results_in_it_is_not_written_over(scenario, tmp_path):
    (tmp_path / "criticality.json").write_text("{}")
    result = lose(scenario, "--targets", "machine/4", "--out", str(tmp_path))
    assert result.exit_code == 5
    assert (tmp_path / "criticality.json").read_text() == "{}"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_was_done_before_ctrl_c_is_kept(scenario, tmp_path, monkeypatch, workers):
    @contextmanager
    def impatient() -> Iterator[Callable[[Criticality], None]]:
        def look(found: Criticality) -> None:
            if found.outcomes:
                raise KeyboardInterrupt

        yield look

    monkeypatch.setattr("sim.losing.shown", impatient)
    result = lose(scenario, "--targets", "machine/*", "--moments", "2", "--workers", workers, "--out", str(tmp_path / "out"))
    assert result.exit_code == 130, result.output
    told = json.loads((tmp_path / "out" / "criticality.json").read_text())
    assert not told["whole"]
    assert 1 <= len(told["runs"]) < 10
    assert f"{len(told['runs'])} of 10 runs, interrupted" in result.stdout
    assert "not run" in (tmp_path / "out" / "criticality.svg").read_text()


def ended(seconds: float, *, failed: str = "", loss: float = 0.5) -> Outcome:
    return Outcome(failed, seconds, loss, 0.9, 0, "")


def test_worst_comes_first_and_what_fails_above_all():
    things = tuple(Thing("machine", f"machine/{number}", "") for number in range(4))
    made = Criticality("made", 0, "", ended(10), (2.0, 5.0), things)
    made.outcomes = {
        ("machine/0", 0): ended(11), ("machine/0", 1): ended(12, loss=0.75),
        ("machine/1", 0): ended(3, failed="no replica is left"), ("machine/1", 1): ended(10),
        ("machine/2", 0): ended(40), ("machine/2", 1): ended(9),
    }  # fmt: skip
    costs: list[Cost] = made.costs()
    assert [cost.thing.name for cost in costs] == ["machine/1", "machine/2", "machine/0"]
    assert not made.whole
    assert (costs[0].what, costs[0].fails, costs[0].worst_at_s) == ("fails: no replica is left", 1, 2.0)
    assert (costs[2].worst_s, costs[2].median_s, costs[2].worst_at_s, costs[2].loss) == (2, 1.5, 5.0, 0.25)
    json.dumps(made.to_json(), allow_nan=False)
