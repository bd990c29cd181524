"""A scenario file, or every mistake in it at once, each with its path, what was found, what is allowed, the nearest name."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from core.job import Stop, Synchronous
from core.rules import Momentum
from models.catalogue import BUNDLED
from scenarios.load import ScenarioError, bundled, load, validate
from scenarios.places import role_names
from scenarios.plan import not_honoured, plan, roles
from scenarios.protocols import Downpour, WarmStart
from scenarios.schema import HONOURED_BY, Scenario

TIMING = """
numerics = "timing"
[model]
layers = [64, 10]
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str, name: str = "mine.toml") -> str:
        (tmp_path / name).write_text(textwrap.dedent(text), encoding="utf-8")
        return str(tmp_path / name)

    return write


def complaints(file: str, *overrides: str) -> dict[str, str]:
    """Path and message of every mistake, without the file, which all must name."""
    with pytest.raises(ScenarioError) as caught:
        load(file, overrides)
    assert all(mistake.file in (file, "--set") for mistake in caught.value.mistakes)
    assert str(caught.value).splitlines() == [str(mistake) for mistake in caught.value.mistakes]
    return {mistake.path: mistake.message for mistake in caught.value.mistakes}


def loaded(tables: dict[str, Any]) -> Scenario:
    scenario, mistakes = validate(tables, "test")
    assert scenario is not None, mistakes
    assert not mistakes
    return scenario


# everything that is wrong, at once


def test_nine_mistakes_of_every_kind_are_told_at_once(write: Any) -> None:
    file = write("""
        schema = 1
        seeds = 7
        numerics = "reel"
        [model]
        network = "speach"
        [protocol]
        kind = "downpour"
        replicas = 0
        warmstart = 200
        rule = { kind = "adagrat", learning_rate = 0.1 }
        [network]
        latency = "50 usec"
        [[fault]]
        kind = "slowdown"
        target = "replica/0"
        factor = 0.5
        [[fault]]
        kind = "crash"
        target = "replica/1"
        at = "1 s"
        repare = "2 s"
    """)
    found = complaints(file)
    assert set(found) == {
        "seeds", "numerics", "model.network", "protocol.replicas", "protocol.warmstart", "protocol.rule.kind", "network.latency",
        "fault.0.factor", "fault.1.repare",
    }  # fmt: skip
    assert "did you mean 'seed'?" in found["seeds"]
    assert found["numerics"] == "found 'reel'; did you mean 'real'?; allowed: real, timing, exact"
    assert "found 'speach'; did you mean 'speech'?" in found["model.network"]
    assert all(name in found["model.network"] for name in BUNDLED)
    assert "found 0; allowed: greater than 0" in found["protocol.replicas"]
    assert "found 200; a bare number; did you mean '200 updates'?" in found["protocol.warmstart"]
    assert found["protocol.rule.kind"] == "found 'adagrat'; did you mean 'adagrad'?; allowed: sgd, momentum, adagrad, adam"
    assert "found '50 usec'" in found["network.latency"]
    assert "us" in found["network.latency"]
    assert "greater than 1" in found["fault.0.factor"]
    assert found["fault.1.repare"].startswith("unknown key; did you mean 'repair'?; allowed: target, at, every, ")


def test_the_mistakes_of_a_warm_start_are_told_beside_the_others(write: Any) -> None:
    file = write("""
        [protocol]
        kind = "sandblaster"
        portions = 0
        [protocol.warmstart]
        protocol = "downpour"
        epochs = 0
        batch = 1.5
        rule = { kind = "sgd", learning_rate = -1 }
        stop = { updates = 2 }
    """)
    found = complaints(file)
    assert set(found) == {
        "model.layers",
        "protocol.portions",
        *(f"protocol.warmstart.{key}" for key in ("epochs", "batch", "rule.learning_rate", "stop")),
    }
    assert "unknown key" in found["protocol.warmstart.stop"]


def test_a_warm_start_descends_as_downpour_does() -> None:
    """With the same defaults, and the job as its roles know it."""
    shared = {key: info.default for key, info in WarmStart.model_fields.items() if key not in ("protocol", "updates", "epochs")}
    assert shared == {key: Downpour.model_fields[key].default for key in shared}
    rule = {"kind": "momentum", "learning_rate": 0.25, "momentum": 0.5}
    warm = {"protocol": "downpour", "epochs": 1.5, "updates": 70, "n_fetch": 2, "n_push": 3, "rule": rule}
    scenario, mistakes = validate(
        {"numerics": "timing", "model": {"layers": [64, 10]}, "protocol": {"kind": "sandblaster", "warmstart": warm}}, "test"
    )
    assert scenario is not None, mistakes
    made = plan(scenario)
    assert made.job.sandblaster is not None
    assert made.job.sandblaster.warm == Stop(70, 2157)  # of 1438 samples
    assert (made.job.n_fetch, made.job.n_push, made.job.local_rate, made.job.stop.updates) == (2, 3, 0.25, None)
    assert made.rule() == Momentum(0.25, 0.5)


def test_a_message_begins_with_the_file_and_the_path(write: Any) -> None:
    file = write("seed = -1\n" + TIMING)
    with pytest.raises(ScenarioError, match=r"mine\.toml: seed: found -1; allowed: greater than or equal to 0"):
        load(file)


def test_mistakes_of_sense_are_told_beside_mistakes_of_form(write: Any) -> None:
    file = write("""
        sed = 1
        numerics = "timing"
        [model]
        layers = [64, 10]
        [protocol]
        kind = "downpour"
        replicas = 2
        stop = { accuracy = 0.9 }
        [[fault]]
        kind = "pause"
        target = "replica/7"
        at = "1 s"
        for = "1 s"
        [[fault]]
        kind = "crash"
        target = "shard/*"
        at = "1 s"
    """)
    found = complaints(file)
    assert {"sed", "protocol.stop", "fault.0.target", "fault.1.repair"} <= set(found)
    assert "did you mean 'replica/" in found["fault.0.target"]


@pytest.mark.parametrize(
    ("tables", "path", "said"),
    [
        ({"model": {}}, "model.layers", "missing; 'mlp' needs its widths"),
        ({"model": {"layers": [64]}}, "model.layers", "at least 2"),
        ({"model": {"layers": [63, 10]}}, "model.layers", "digits have 64 inputs and 10 classes"),
        ({"model": {"layers": [64, 0, 10]}}, "model.layers.1", "greater than 0"),
        ({"model": {"layers": [64, 10], "cost": "speach"}}, "model.cost", "allowed: speech"),
        ({"model": {"layers": [64, 10], "cost": {"parameters": 5}}}, "model.cost.flops", "missing"),
        ({"model": {"layers": [64, 10], "cost": {"parameters": 5, "flops": 7}}}, "model.cost.flops", "did you mean '7 MFLOP'?"),
        ({"model": {"network": "a.b:f", "layers": [64, 10]}}, "model.layers", "only bundled networks have layers"),
        ({"data": {"source": "digitz"}}, "data.source", "allowed: digits, synthetic"),
        ({"data": {"held_out": 1.0}}, "data.held_out", "less than 1"),
        ({"protocol": {"kind": "sandblastr"}}, "protocol.kind", "did you mean 'sandblaster'?; allowed: downpour, sandblaster, mapreduce, sync"),
        ({"protocol": {"kind": "sandblaster", "epochs": 3}}, "protocol.epochs", "unknown key"),
        ({"protocol": {"kind": "sandblaster", "stop": {"epochs": 3}}}, "protocol.stop.epochs", "allowed: iterations"),
        ({"protocol": {"kind": "sandblaster", "portions": 0}}, "protocol.portions", "found 0"),
        ({"protocol": {"kind": "sandblaster", "warmstart": {"updates": 3}}}, "protocol.warmstart.protocol", "missing"),
        ({"protocol": {"kind": "sandblaster", "warmstart": {"protocol": "downpur", "updates": 3}}}, "protocol.warmstart.protocol", "did you mean 'downpour'?"),
        ({"protocol": {"kind": "sandblaster", "warmstart": {"protocol": "downpour"}}}, "protocol.warmstart", "nothing here says when it ends; allowed: updates or epochs"),
        ({"protocol": {"kind": "sandblaster", "warmstart": {"protocol": "downpour", "update": 3}}}, "protocol.warmstart.update", "did you mean 'updates'?"),
        ({"protocol": {"kind": "sandblaster", "warmstart": "20 updates"}}, "protocol.warmstart", "found '20 updates'"),
        ({"protocol": {"kind": "sandblaster", "job_start_up": "10 s"}}, "protocol.job_start_up", "unknown key"),
        ({"protocol": {"kind": "mapreduce", "job_start_up": 10}}, "protocol.job_start_up", "did you mean '10 s'?"),
        ({"protocol": {"kind": "mapreduce", "stop": {"updates": 3}}}, "protocol.stop.updates", "allowed: iterations"),
        ({"protocol": {"kind": "sync", "backup_workers": -1}}, "protocol.backup_workers", "greater than or equal to 0"),
        ({"protocol": {"kind": "sync", "n_push": 2}}, "protocol.n_push", "unknown key"),
        ({"protocol": {"kind": "sync", "stop": {"iterations": 3}}}, "protocol.stop.iterations", "allowed: updates"),
        ({"protocol": {"kind": "sync", "stop": {"loss": 0.1}}}, "protocol.stop", "updates, epochs or time"),
        ({"protocol": {"kind": "sync", "rule": {"kind": "adagrat", "learning_rate": 1}}}, "protocol.rule.kind", "did you mean 'adagrad'?"),
        ({"protocol": {"kind": "sync", "replicas": 3, "backup_workers": 1}, "fault": [{"kind": "pause", "target": "replica/4", "at": "1 s", "for": "1 s"}]}, "fault.0.target", "which is nobody"),
        ({"protocol": {"kind": "sync", "replicas": 3, "backup_workers": 1}, "fault": [{"kind": "crash", "target": name, "at": "1 s"} for name in ("replica/3", "replica/0")]}, "fault.1.repair", "without 2 of 4 replicas no step has its 3"),
        ({"protocol": {"kind": "sync"}, "fault": [{"kind": "crash", "target": "coordinator", "at": "1 s"}]}, "fault.0.repair", "without coordinator the job cannot go on"),
        ({"protocol": {}}, "protocol.kind", "missing"),
        ({"protocol": {"kind": "downpour", "stop": {}}}, "protocol.stop", "nothing here is sure to happen"),
        ({"protocol": {"kind": "downpour", "stop": {"loss": 0.1}}}, "protocol.stop", "nothing here is sure to happen"),
        ({"protocol": {"kind": "sync", "rule": {"kind": "sgd", "learning_rate": 1, "staleness_aware": True}}}, "protocol.rule", "never stale; allowed: staleness_aware = false"),
        ({"protocol": {"kind": "downpour", "rule": {"learning_rate": 1}}}, "protocol.rule.kind", "missing; allowed: adagrad, adam, momentum, sgd"),
        ({"protocol": {"kind": "downpour", "rule": {"kind": "sgd"}}}, "protocol.rule.learning_rate", "missing"),
        ({"protocol": {"kind": "downpour", "rule": {"kind": "sgd", "learning_rate": 1, "momentum": 0.9}}}, "protocol.rule.momentum", "allowed: kind, learning_rate"),
        ({"protocol": {"kind": "downpour", "replicas": 1.5}}, "protocol.replicas", "found 1.5"),
        ({"protocol": {"kind": "downpour", "replicas": "4"}}, "protocol.replicas", "found '4'"),
        ({"cluster": {"speed": "4 GB/s"}}, "cluster.speed.median", "FLOP/s"),
        ({"cluster": {"speed": 40}}, "cluster.speed.median", "did you mean '40 GFLOP/s'?"),
        ({"cluster": {"jitter": {"sigma": -0.1}}}, "cluster.jitter.sigma", "greater than or equal to 0"),
        ({"network": {"model": "fare"}}, "network.model", "did you mean 'fair'?; allowed: latency, fifo, fair"),
        ({"fault": [{"target": "replica/0"}]}, "fault.0.kind", "missing; allowed: clock-drift, crash"),
        ({"fault": [{"kind": "crsh", "target": "replica/0"}]}, "fault.0.kind", "did you mean 'crash'?"),
        ({"fault": [{"kind": "loss", "target": "replica/0", "probability": 1.1}]}, "fault.0.probability", "less than or equal to 1"),
        ({"fault": [{"kind": "crash", "target": "nobody", "at": "1 s"}]}, "fault.0.target", "which is nobody"),
        ({"exec": {"port": 70000}}, "exec.port", "65535"),
        ({"schema": 2}, "schema", "found 2"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_path_and_what_is_allowed(tables: dict[str, Any], path: str, said: str) -> None:
    scenario, mistakes = validate({"model": {"layers": [64, 10]}} | tables, "test")
    assert scenario is None or mistakes
    assert [mistake.path for mistake in mistakes] == [path], mistakes
    assert said in mistakes[0].message


SPLIT: dict[str, Any] = {
    "model": {"layers": [64, 40, 10], "partitions": 2},
    "network": {"topology": {"kind": "racks", "racks": 2, "oversubscription": 4}},
    "fault": [
        {"kind": "crash", "target": "replica/1/1", "at": "1 s", "repair": "1 s"},
        {"kind": "crash", "target": "machine/3", "at": "1 s", "repair": "1 s"},
        {"kind": "crash", "target": "rack/1", "at": "1 s", "repair": "1 s"},
    ],
}


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("model", "layerz", [64, 10]), ("model", "layers", [63, 10]), ("model", "partitions", 0), ("model", "partitions", "two"),
        ("model", "placement", "best"), ("protocol", "kind", "downpur"), ("protocol", "shards", 0), ("cluster", "machines", 0),
        ("cluster", "sped", 1), ("network", "latency", 3), ("network", "topology", {"kind": "racks", "racks": 200, "oversubscription": 4}),
    ],
)  # fmt: skip
def test_one_mistake_brings_one_message_whomever_faults_are_aimed_at(table: str, key: str, value: Any) -> None:
    loaded(SPLIT)
    _, mistakes = validate(SPLIT | {table: SPLIT.get(table, {"kind": "downpour"} if table == "protocol" else {}) | {key: value}}, "test")
    assert [mistake.path.split(".")[:2] for mistake in mistakes] == [[table, key]], mistakes


def test_a_mistake_in_the_model_hides_none_of_a_fault() -> None:
    nobody = {"kind": "crash", "target": "replica/1/2", "at": "1 s", "repair": "1 s"}
    _, mistakes = validate(SPLIT | {"model": SPLIT["model"] | {"layerz": 1}, "fault": [*SPLIT["fault"], nobody]}, "test")
    assert [mistake.path for mistake in mistakes] == ["model.layerz", "fault.3.target"]
    assert "did you mean 'replica/1/1'?" in mistakes[1].message


def test_a_table_in_the_place_of_a_value_is_told_and_so_is_the_reverse() -> None:
    for tables, path in (({"seed": {"a": 1}}, "seed"), ({"protocol": 3}, "protocol"), ({"fault": {"kind": "crash"}}, "fault")):
        _, mistakes = validate({"model": {"layers": [64, 10]}} | tables, "test")
        assert path in {mistake.path for mistake in mistakes}


def test_a_file_that_is_no_toml_is_told_with_its_line(write: Any) -> None:
    found = complaints(write("schema = 1\nseed = = 7\n"))
    assert "cannot be read as TOML" in found[""]
    assert "line 2" in found[""]


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read as TOML" in complaints(str(tmp_path / "mine.toml"))[""]


def test_a_file_that_does_not_exist_is_told_with_the_nearest_bundled_one() -> None:
    found = complaints("quikstart.toml")[""]
    assert found.startswith("no such file; did you mean 'quickstart'?; bundled: ")
    assert all(name in found for name in bundled())


# overrides


def test_an_override_takes_the_place_of_what_the_file_says(write: Any) -> None:
    file = write(TIMING + "[[fault]]\nkind = 'pause'\ntarget = 'replica/0'\nat = '1 s'\nfor = '1 s'\n")
    scenario = load(
        file,
        ["seed=9", "protocol.kind=downpour", "protocol.replicas=3", "network.latency=5 ms", "fault.0.for=7 s", "model.layers=[64, 32, 10]"],
    )
    assert (scenario.seed, scenario.protocol.replicas, scenario.network.latency.mean_s) == (9, 3, 0.005)
    assert scenario.fault[0].for_.mean_s == 7.0  # type: ignore[union-attr]
    assert scenario.model.layers == (64, 32, 10)


@pytest.mark.parametrize("override", ["seed", "=1", "a..b=1", ".=1"])
def test_an_override_that_is_none_is_told(write: Any, override: str) -> None:
    assert "key.path=value" in complaints(write(TIMING), override)[override]


@pytest.mark.parametrize(("override", "path"), [("seed.x.y=1", "seed.x.y"), ("fault.3.at=1", "fault.3.at"), ("seed.x=1", "seed.x")])
def test_an_override_into_what_is_no_table_is_told(write: Any, override: str, path: str) -> None:
    file = write("seed = 1\nfault = []\n" + TIMING)
    assert "is not in a table" in complaints(file, override)[path]


def test_a_wrong_value_of_an_override_is_told_as_one_of_the_file(write: Any) -> None:
    assert "bare number" in complaints(write(TIMING), "network.latency=5")["network.latency"]


# files that come with us


@pytest.mark.parametrize("name", bundled())
def test_every_bundled_scenario_is_right_and_says_in_its_first_line_what_it_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    scenario = load(name)
    assert scenario.name == name
    assert scenario.model_dump() == load(f"scenarios/{name}.toml").model_dump() == load(f"{name}.toml").model_dump()
    first = bundled()[name].read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert len(first) > 20


def test_a_scenario_is_named_after_its_file_unless_it_says_otherwise(write: Any) -> None:
    assert load(write(TIMING)).name == "mine"
    assert load(write('name = "other"\n' + TIMING)).name == "other"


def test_files_that_a_scenario_names_are_beside_it(write: Any, tmp_path: Path) -> None:
    write("def f(): pass", "net.py")
    write("", "data.npz")
    write("", "saved.safetensors")
    scenario = load(write('[model]\nnetwork = "net.py:f"\nstart = "saved.safetensors"\n[data]\nsource = "data.npz"\n'))
    assert scenario.model.network == f"{tmp_path / 'net.py'}:f"
    assert scenario.data.source == str(tmp_path / "data.npz")
    assert scenario.model.start == str(tmp_path / "saved.safetensors")


def test_files_that_a_scenario_names_and_that_are_not_there_are_told(write: Any) -> None:
    write("def f(): pass", "network.py")
    with pytest.raises(ScenarioError) as caught:
        load(write('[model]\nnetwork = "netwrk.py:f"\nstart = "absent.safetensors"\n[data]\nsource = "none.npz"\n'))
    assert [mistake.path for mistake in caught.value.mistakes] == ["model.network", "model.start", "data.source"]
    assert all("no such file" in mistake.message for mistake in caught.value.mistakes)


# what only one world honours


def test_a_scenario_of_defaults_has_nothing_that_a_world_does_not_honour() -> None:
    scenario = loaded({"model": {"layers": [64, 10]}})
    for world in ("sim", "exec"):
        assert not_honoured(scenario, world) == []


def test_what_is_set_to_its_default_is_no_matter() -> None:
    scenario = loaded(
        {"model": {"layers": [64, 10]}, "numerics": "real", "fault": [], "protocol": {"kind": "downpour", "durability": "none"}}
    )
    assert not_honoured(scenario, "exec") == []


def test_each_world_says_what_it_does_not_honour() -> None:
    scenario = loaded(
        {
            "numerics": "timing",
            "model": {"layers": [64, 10], "cost": "speech"},
            "protocol": {"kind": "downpour", "durability": "snapshot", "snapshot_every": "5 s"},
            "cluster": {"machines": 3},
            "network": {"latency": "1 s"},
            "give_up_after": "1 h",
            "fault": [{"kind": "pause", "target": "replica/0", "at": "1 s", "for": "1 s"}],
            "placement": {"machines": 2},
            "exec": {"threads": 2},
        }
    )
    for world, other in (("sim", "exec"), ("exec", "sim")):
        notes = not_honoured(scenario, world)
        assert [note.split(" is not honoured by ")[0] for note in notes] == [key for key, (by, _) in HONOURED_BY.items() if by == other]
        assert all(f"{world}ctl" in note for note in notes)


# from the scenario to the job


def test_the_job_is_what_the_scenario_says() -> None:
    scenario = loaded(
        {
            "numerics": "timing",
            "model": {"layers": [64, 10]},
            "data": {"source": "synthetic", "samples": 1000, "held_out": 0.25},
            "protocol": {
                "kind": "downpour", "replicas": 3, "shards": 4, "n_fetch": 2, "n_push": 3, "warmstart": "50 updates", "deadline": "7 s",
                "max_behind": 5, "stop": {"epochs": 2.4999, "updates": 900, "time": "1 h"}, "durability": "snapshot", "snapshot_every": "9 s",
            },
        }
    )  # fmt: skip
    job = plan(scenario).job
    assert [shared.name for shared in job.shards] == [f"shard/{number}" for number in range(4)]
    assert (job.shards[0].part.start, job.shards[-1].part.stop) == (0, 650)
    assert dataclasses.asdict(job.stop) == {"updates": 900, "samples": 1875, "time_s": 3600.0, "loss": None, "accuracy": None}
    assert (job.replicas, job.n_fetch, job.n_push, job.warm_updates, job.deadline_s, job.max_behind, job.snapshot_every_s) == (
        3,
        2,
        3,
        50,
        7.0,
        5,
        9.0,
    )


def test_the_jobs_of_the_reference_protocols_are_what_the_scenario_says() -> None:
    base = {"numerics": "timing", "model": {"layers": [64, 10]}, "data": {"source": "synthetic", "samples": 1000, "held_out": 0.25}}
    sync = loaded(base | {"protocol": {"kind": "sync", "replicas": 3, "backup_workers": 2, "stop": {"epochs": 2, "time": "1 h"}}})
    job = plan(sync).job
    assert (job.replicas, job.synchronous, job.stop.samples, job.stop.time_s) == (5, Synchronous(3, None, 1500), None, 3600.0)
    assert [role.name for role in roles(sync, real=False)] == ["coordinator", "shard/0", "shard/1", *(f"replica/{n}" for n in range(5))]
    mapreduce = plan(loaded(base | {"protocol": {"kind": "mapreduce", "backup": "none"}})).job.sandblaster
    assert mapreduce is not None
    assert (mapreduce.job_start_up_s, mapreduce.keeps, mapreduce.copies) == (10.0, False, 0)
    sandblaster = plan(loaded(base | {"protocol": {"kind": "sandblaster"}})).job.sandblaster
    assert sandblaster is not None
    assert (sandblaster.job_start_up_s, sandblaster.keeps) == (0.0, True)


def test_every_time_follows_from_detect_within_unless_it_is_given() -> None:
    scenario = loaded({"numerics": "timing", "model": {"layers": [64, 10]}, "protocol": {"kind": "downpour", "detect_within": "2 s"}})
    job = plan(scenario).job
    assert (job.timings.beat_s, job.deadline_s, job.durability) == (0.5, 20.0, "snapshot")


def test_mirrors_are_roles_of_their_own() -> None:
    scenario = loaded({"model": {"layers": [64, 10]}, "protocol": {"kind": "downpour", "shards": 2, "durability": "mirror"}})
    assert [role.name for role in roles(scenario)][:4] == ["shard/0", "shard/1", "mirror/0", "mirror/1"]


def test_more_shards_than_parameters_is_a_mistake() -> None:
    scenario = loaded(
        {
            "numerics": "timing",
            "model": {"layers": [64, 10], "cost": {"parameters": 3, "flops": "1 FLOP"}},
            "protocol": {"kind": "downpour", "shards": 4},
        }
    )
    with pytest.raises(ScenarioError, match=r"protocol\.shards: found 4; the network has 3 parameters"):
        plan(scenario)


@pytest.mark.parametrize(("samples", "held_out"), [(10, 0.25), (5, 0.5), (7, 0.5), (2, 0.1), (3, 0.9), (1797, 0.2), (1000, 0.0305)])
def test_an_epoch_has_as_many_samples_for_timing_as_for_real(samples: int, held_out: float) -> None:
    counts = set()
    for numerics in ("timing", "real"):
        tables = {
            "numerics": numerics, "model": {"layers": [4, 3]}, "data": {"source": "synthetic", "samples": samples, "held_out": held_out},
            "protocol": {"kind": "downpour", "replicas": 1, "shards": 1, "stop": {"epochs": 1}},
        }  # fmt: skip
        counts.add(plan(loaded(tables)).job.stop.samples)
    assert len(counts) == 1


def test_roles_are_shards_then_replicas_then_the_evaluator() -> None:
    protocol = loaded({"model": {"layers": [64, 10]}, "protocol": {"kind": "downpour", "replicas": 2, "shards": 1}}).protocol
    assert role_names(protocol) == ["shard/0", "replica/0", "replica/1", "evaluator"]
    assert role_names(protocol, real=False) == ["shard/0", "replica/0", "replica/1"]


# the user's own protocol


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"shard": "own.py:rule"}, "allowed: a class that inherits core.shard.Shard"),
        ({"shard": "own.py:Nobody"}, "no 'Nobody' there; it has Mine, rule"),
        ({"replica": "own.py:rule"}, "allowed: an async function"),
    ],
)
def test_a_protocol_of_ones_own_that_is_none_is_one_clear_error(tmp_path: Path, given: dict[str, str], told: str) -> None:
    (tmp_path / "own.py").write_text(
        "import core.shard\nclass Mine(core.shard.Shard): pass\ndef rule(records): return []\n", encoding="utf-8"
    )
    own = {key: value.replace("own.py", str(tmp_path / "own.py")) for key, value in given.items()}
    scenario = loaded({"numerics": "timing", "model": {"layers": [64, 10]}, "protocol": {"kind": "downpour", "own": own}})
    with pytest.raises(ScenarioError, match=re.escape(told)):
        plan(scenario)


def test_a_protocol_of_ones_own_takes_the_place_of_ours(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("import core.shard\nclass Mine(core.shard.Shard): pass\n", encoding="utf-8")
    protocol = {"kind": "downpour", "own": {"shard": f"{tmp_path / 'own.py'}:Mine"}}
    made = plan(loaded({"numerics": "timing", "model": {"layers": [64, 10]}, "protocol": protocol}))
    assert made.kind_of_shard.__name__ == "Mine"
