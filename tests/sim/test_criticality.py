"""Which single loss hurts most: what is lost, what becomes of the job, and how that is told."""

from __future__ import annotations

import csv
import json
import multiprocessing
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from models.errors import InputError
from report.criticality_findings import Thing
from report.exits import Exit
from scenarios.load import load
from scenarios.schema import Scenario
from sim import criticality
from sim.cli import main
from sim.criticality import Variant, loss, moments, sample, survive, things
from sim.run import Run, simulate
from sim.workers import workers

SMALL = """
seed = 3
numerics = "timing"
[model]
network = "mlp"
layers = [64, 16, 10]
[protocol]
kind = "downpour"
replicas = 2
shards = 1
durability = "none"
detect_within = "1 s"
stop = { updates = 100 }
[cluster]
machines = 4
speed = "10 MFLOP/s"
"""
SHARD, SPARE = "machine/0", "machine/3"
"""Where the shard lives when the job begins, and where nobody does."""


@pytest.fixture
def file(tmp_path: Path) -> str:
    made = tmp_path / "small.toml"
    made.write_text(SMALL, encoding="utf-8")
    return str(made)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs, one after the other in this process."""

    def one_by_one(
        scenario: Scenario, variants: Sequence[Variant], limit_s: float, workers: int
    ) -> Iterator[tuple[Variant, dict[str, Any]]]:  # fmt: skip
        yield from ((variant, survive(scenario, variant[2], limit_s)) for variant in variants)

    monkeypatch.setattr(criticality, "side_by_side", one_by_one)


def simctl(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["criticality", *arguments])


def found_by(*arguments: str) -> dict[str, Any]:
    result = simctl(*arguments, "--json")
    assert result.exit_code == Exit.DONE, result.output
    return json.loads(result.stdout)


# what it finds


@pytest.mark.usefixtures("here")
def test_the_loss_of_the_only_shard_costs_most_and_that_of_a_spare_machine_nothing(file: str) -> None:
    found = found_by(file, "--targets", "machine/*", "--moments", "2")
    assert [thing["name"] for thing in found["things"]] == [SHARD, "machine/1", "machine/2", SPARE]
    worst, spare = found["things"][0], found["things"][-1]
    late = worst["moments"][-1]
    assert (worst["lives_there"], spare["lives_there"]) == (["shard/0"], [])
    assert late["updates_lost"] > 0
    assert late["lost_s"] == max(one["lost_s"] for thing in found["things"] for one in thing["moments"]) > 0
    assert found["undisturbed"]["digest"] == simulate(load(file)).journal.digest()
    for one in spare["moments"]:
        assert (one["failed"], one["lost_s"], one["updates_lost"], one["bit"]) == ("", 0.0, 0, {})


@pytest.mark.usefixtures("here")
def test_whoever_fails_the_job_is_on_top_with_the_reason(file: str) -> None:
    kept = ("--set", "protocol.durability=snapshot", "--moments", "2")
    result = simctl(file, *kept, "--targets", "machine")
    lines = result.stdout.splitlines()
    failing = lines.index("the job fails without")
    assert lines[failing + 1].startswith(f"  {SHARD} (shard/0): lost at any moment: not over after ")
    assert "machine/1 does not hold what shard/0 has kept" in lines[failing + 1]
    assert all(SHARD not in line for line in lines[failing + 2 :])
    found = found_by(file, *kept, "--targets", "machine")
    first, second = found["things"][:2]
    assert (first["name"], first["failures"], first["median"], second["failures"]) == (SHARD, 2, None, 0)
    assert {one["lost_s"] for one in first["moments"]} == {None}


@pytest.mark.usefixtures("here")
def test_a_repair_brings_back_what_is_lost(file: str) -> None:
    kept = ("--set", "protocol.durability=snapshot", "--moments", "1", "--targets", SHARD)
    (forever,), (back,) = (found_by(file, *kept, *repair)["things"] for repair in ((), ("--repair", "2 s")))
    assert (forever["failures"], back["failures"]) == (1, 0)
    assert back["moments"][0]["lost_s"] > 2


@pytest.mark.usefixtures("here")
def test_a_fault_that_is_reported_is_what_the_file_would_say(file: str) -> None:
    found = found_by(file, "--moments", "1", "--targets", "shard/0")
    (one,) = found["things"][0]["moments"]
    table = "".join(f"{key} = {json.dumps(value)}\n" for key, value in one["fault"].items())
    Path(file).write_text(f"{SMALL}[[fault]]\n{table}", encoding="utf-8")
    summary = simulate(load(file)).summary()
    assert summary["faults"][0]["bit"] == one["bit"]
    assert round(summary["seconds"] - found["undisturbed"]["seconds"], 9) == one["lost_s"]


def test_the_same_is_found_every_time_in_whatever_order_the_runs_come(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (file, "--moments", "2", "--targets", "machine/[03]", "--targets", "machine/0 *")
    on_all_cores = found_by(*arguments, "--workers", "2")
    assert on_all_cores["runs"] == on_all_cores["done"] == 8

    def backwards(
        scenario: Scenario, variants: Sequence[Variant], limit_s: float, workers: int
    ) -> Iterator[tuple[Variant, dict[str, Any]]]:
        yield from ((variant, survive(scenario, variant[2], limit_s)) for variant in reversed(variants))

    monkeypatch.setattr(criticality, "side_by_side", backwards)
    assert found_by(*arguments) == on_all_cores


@pytest.mark.usefixtures("here")
def test_where_the_job_ends_by_the_clock_a_loss_costs_updates(file: str) -> None:
    found = found_by(file, "--set", "protocol.stop={time='3 s'}", "--moments", "1", "--targets", "machine/1", "--targets", SPARE)
    one, spare = (thing["moments"][0] for thing in found["things"])
    assert (found["measure"], spare["updates_fewer"]) == ("updates_fewer", 0)
    assert one["updates_fewer"] == found["things"][0]["median"] > 0
    told = simctl(file, "--set", "protocol.stop={time='3 s'}", "--moments", "1", "--targets", "machine/1").stdout
    assert f" {-one['updates_fewer']:+,} " in told
    assert "told in updates" in told


# what there is to be lost


def test_without_targets_everything_is_lost_and_a_glob_means_links_only_where_nothing_else_is_like_that(file: str) -> None:
    scenario = load(file, ("network.topology={kind='racks',racks=2,oversubscription=2}",))
    everything = {thing.name: thing for thing in things(scenario)}
    assert {thing.kind for thing in everything.values()} == {"machine", "group", "role", "link"}
    assert everything["rack/0"].lives_there == everything["rack/0 up"].lives_there == ("shard/0", "replica/0")
    assert everything["machine/2 in"].lives_there == everything["machine/2"].lives_there == ("replica/1",)
    assert everything["replica/1"].lives_there == ("machine/2",)
    homes = {role: machine.name for role, machine in Run(scenario).cluster.first_homes.items()}
    assert {name: (home,) for name, home in homes.items()} == {name: everything[name].lives_there for name in homes}
    assert [thing.kind for thing in things(scenario, ["machine/*"])] == ["machine"] * 4
    assert [thing.name for thing in things(scenario, ["rack/* up", "rack/1"])] == ["rack/0 up", "rack/1 up", "rack/1"]
    with pytest.raises(InputError, match=r"found 'replica/x'.*did you mean 'replica/\d'"):
        things(scenario, ["replica/x"])


def test_hardware_stays_lost_and_processes_are_started_again() -> None:
    machine, role, link = (Thing(kind, kind, ()) for kind in ("machine", "role", "link"))
    assert loss(machine, 1.5, None) == {"kind": "crash", "target": "machine", "at": "1.5 s"}
    assert loss(role, 1.5, None) == {"kind": "crash", "target": "role", "at": "1.5 s", "repair": "0 s"}
    assert loss(link, 1.5, None) == {"kind": "loss", "target": "link", "at": "1.5 s", "probability": 1.0}
    assert [loss(one, 0, 60).get("repair", loss(one, 0, 60).get("for")) for one in (machine, role, link)] == ["60 s"] * 3


def test_moments_are_the_middles_of_equal_parts() -> None:
    assert moments(10.0, 1) == [5.0]
    assert moments(100 / 3, 4) == [4.16667, 12.5, 20.8333, 29.1667]


def test_of_too_many_things_a_sample_has_some_of_every_sort_and_is_told() -> None:
    replicas = [Thing(f"machine/{number}", "machine", (f"replica/{number}",)) for number in range(100)]
    shards = [Thing(f"machine/{number}", "machine", (f"shard/{number}",)) for number in range(100, 102)]
    assert sample([*replicas, *shards], 102) == ([*replicas, *shards], [])
    taken, told = sample([*replicas, *shards], 6)
    assert [thing.name for thing in taken] == ["machine/0", "machine/25", "machine/50", "machine/75", "machine/100", "machine/101"]
    assert list(map(str, told)) == ["4 of 100 machine/* (replica)", "2 of 2 machine/* (shard)"]


@pytest.mark.usefixtures("here")
def test_a_sample_is_said_to_be_one(file: str) -> None:
    told = simctl(file, "--moments", "1", "--most", "2", "--targets", "replica/*", "--targets", "machine/[12]")
    assert "a sample of things that are alike: 1 of 2 replica/*, 1 of 2 machine/* (replica); --most allows more runs" in told.stdout


# files


@pytest.mark.usefixtures("here")
def test_the_heat_map_has_everything_by_name(file: str, tmp_path: Path) -> None:
    result = simctl(file, "--set", "protocol.durability=snapshot", "--moments", "1", "--out", str(tmp_path / "out"))
    assert result.exit_code == Exit.DONE
    assert str(tmp_path / "out" / "criticality.svg") in result.stdout
    picture = ET.parse(tmp_path / "out" / "criticality.svg")
    words = [text.text or "" for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    names = {thing.name for thing in things(load(file))}
    assert names <= {text.partition(" (")[0] for text in words}
    found = json.loads((tmp_path / "out" / "criticality.json").read_text())
    assert words.count("job fails") == sum(thing["failures"] for thing in found["things"]) > 0
    with (tmp_path / "out" / "criticality.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["thing"] for row in rows] == [thing["name"] for thing in found["things"]]
    assert len(rows) == found["runs"]


@pytest.mark.usefixtures("here")
def test_findings_are_not_written_over(file: str, tmp_path: Path) -> None:
    arguments = (file, "--moments", "1", "--targets", SPARE, "--out", str(tmp_path / "out"))
    assert simctl(*arguments).exit_code == Exit.DONE
    again = simctl(*arguments)
    assert again.exit_code == Exit.NOT_WRITTEN
    assert "choose another --out" in again.stderr


# what goes wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--moments", "0"), "Invalid value for '--moments': 0 is not in the range"),
        (("--targets", "machine/9"), "error: --targets: found 'machine/9', which is nobody here; did you mean 'machine/"),
        (("--targets", "group"), "error: --targets: found 'group', which is nobody here; allowed: machine, role, link, a name or a glob"),
        (("--repair", "10"), "Invalid value for '--repair': allowed: a number with a unit"),
        (("--most", "4"), "--most: found 4, in which nothing can be lost at each of 5 moments; allowed: 5 or more"),
        (("--set", "protocol.shards=0"), "protocol.shards"),
    ],
)
def test_bad_input_is_one_clear_error(file: str, arguments: tuple[str, ...], message: str) -> None:
    result = simctl(file, *arguments)
    assert result.exit_code == Exit.WRONG_INPUT
    errors = [line for line in result.stderr.splitlines() if line.lower().startswith("error:")]
    assert len(errors) == 1
    assert message in errors[0]


def test_a_job_that_fails_undisturbed_has_nothing_to_compare_with(file: str) -> None:
    result = simctl(file, "--set", "fault=[{kind='crash',target='replica/*',at='1500 ms'}]")
    assert result.exit_code == Exit.FAILED
    assert "the job fails with nothing lost: no replica is left" in result.stderr


@pytest.mark.parametrize(
    ("end", "why"),
    [(KeyboardInterrupt(), "interrupted"), (BrokenProcessPool(), "a process that ran them was killed, perhaps for want of memory")],
)
def test_what_is_done_is_kept_and_shown_though_it_comes_to_no_end(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: BaseException, why: str
) -> None:
    def interrupted(
        scenario: Scenario, variants: Sequence[Variant], limit_s: float, workers: int
    ) -> Iterator[tuple[Variant, dict[str, Any]]]:
        for variant in variants[:3]:
            yield variant, survive(scenario, variant[2], limit_s)
        raise end

    monkeypatch.setattr(criticality, "side_by_side", interrupted)
    result = simctl(file, "--moments", "2", "--targets", "machine", "--out", str(tmp_path / "out"))
    assert result.exit_code == Exit.INTERRUPTED
    assert f"only 3 of 8 runs: {why}" in result.stdout
    found = json.loads((tmp_path / "out" / "criticality.json").read_text())
    assert (found["status"], found["done"], len(found["things"])) == ("interrupted", 3, 3)
    assert "not run" in (tmp_path / "out" / "criticality.svg").read_text()


def test_nobody_waits_for_runs_that_are_not_wanted_any_more() -> None:
    others = set(multiprocessing.active_children())
    ours: set[Any] = set()

    def give_up() -> None:
        with workers(1) as pool:
            pool.submit(int).result()
            pool.submit(signal.pause)
            ours.update(set(multiprocessing.active_children()) - others)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        give_up()
    assert len(ours) == 1
    for child in ours:
        child.join()  # it never would, were it waited for


WITHOUT_TORCH = """
import sys
import sim.cli
try:
    sim.cli.main(["criticality", sys.argv[1], "--moments", "1", "--targets", "machine/3"])
except SystemExit as done:
    assert not done.code, done.code
print("arrived:", *sorted({"torch", "matplotlib", "grpc", "sklearn"} & {name.partition(".")[0] for name in sys.modules}))
"""


def test_timing_and_no_picture_need_neither_torch_nor_matplotlib(file: str) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, file], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "arrived:"
