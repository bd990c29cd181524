"""Faults as a scenario declares them: what is refused and how that is told, presets spelled out, traces read."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from scenarios.declared import declared, real_faults
from scenarios.faults import Crash, Pause, Slowdown
from scenarios.load import load, validate
from scenarios.places import Places, places
from scenarios.plan import not_honoured
from scenarios.schema import Scenario

RACKS = {"topology": {"kind": "racks", "racks": 2, "oversubscription": 4, "power_units": 1}}


def tables(*faults: dict[str, Any], **others: Any) -> dict[str, Any]:
    made = {
        "numerics": "timing", "model": {"layers": [64, 10]}, "network": RACKS, "fault": list(faults),
        "protocol": {"kind": "downpour", "replicas": 3, "shards": 2, "stop": {"updates": 10, "time": "1 h"}},
    }  # fmt: skip
    return made | others


def complaints(*faults: dict[str, Any], **others: Any) -> dict[str, str]:
    _, mistakes = validate(tables(*faults, **others), "test")
    return {mistake.path: mistake.message for mistake in mistakes}


def loaded(*faults: dict[str, Any], **others: Any) -> Scenario:
    scenario, mistakes = validate(tables(*faults, **others), "test")
    assert scenario is not None, mistakes
    assert not mistakes
    return scenario


def there(scenario: Scenario) -> Places:
    return places(scenario.protocol, scenario.cluster, scenario.network, real=False)


ONCE: dict[str, Any] = {"kind": "crash", "target": "machine/0", "at": "1 s", "repair": "1 s"}
EVERY: dict[str, Any] = {"kind": "crash", "target": "machine/*", "every": {"exponential": {"mean": "1 h"}}, "repair": "1 s"}


@pytest.mark.parametrize(
    ("fault", "path", "said"),
    [
        (ONCE | {"every": "1 s"}, "every", "found both at and every; allowed: one of them"),
        ({"kind": "crash", "target": "machine/0"}, "at", "missing; allowed: at or every"),
        ({"kind": "pause", "target": "machine/0", "for": "1 s"}, "at", "missing; allowed: at or every"),
        ({"kind": "preemption", "target": "machine/0"}, "at", "missing; allowed: at or every"),
        (ONCE | {"frailty": 1.0}, "frailty", "frailty needs every"),
        (ONCE | {"until": "1 s"}, "until", "until needs every"),
        (ONCE | {"together": 2}, "together", "together needs every"),
        (EVERY | {"frailty": 0}, "frailty", "greater than 0"),
        (EVERY | {"every": "0 s"}, "every", "must be more than 0 s on average"),
        (EVERY | {"every": {"weibull": {"shape": 0.7}}}, "every.weibull.mean", "missing"),
        (EVERY | {"every": {"lognormal": {"sigma": 1}}}, "every.lognormal", "median or mean"),
        (EVERY | {"every": 30}, "every", "did you mean '30 s'?"),
        (ONCE | {"at": "2 h"}, "at", "can never fire: first at 2 h, and all is over at 1 h"),
        (EVERY | {"every": "2 h"}, "every", "can never fire: first at 2 h, and all is over at 1 h"),
        (EVERY | {"every": "2 min", "until": "1 min"}, "every", "can never fire: first at 2 min, and all is over at 1 min"),
        (ONCE | {"target": "machine/7"}, "target", "found 'machine/7', which is nobody; did you mean 'machine/"),
        (ONCE | {"target": "rack/2"}, "target", "did you mean 'rack/1'?"),
        (ONCE | {"target": ["machine/0", "replicas/*"]}, "target", "found 'replicas/*', which is nobody"),
        (ONCE | {"target": []}, "target", "allowed: a name or glob"),
        (ONCE | {"target": 3}, "target", "allowed: a name or glob"),
        (ONCE | {"target": "rack/0 up"}, "target", "a crash hits a role or a machine or a group"),
        ({"kind": "preemption", "target": "replica/0", "at": "1 s"}, "target", "a preemption hits a machine or a group"),
        ({"kind": "degraded", "target": "shard/0", "factor": 2}, "target", "a degraded hits a machine or a group or a link"),
        ({"kind": "cut", "target": "rack/0", "from": "rack/9"}, "from", "found 'rack/9', which is nobody"),
        ({"kind": "cut", "target": "rack/0", "direction": "sideways"}, "direction", "allowed: both, out, in"),
        ({"kind": "cut", "target": "rack/0", "flapping": {"up": "1 s"}}, "flapping.down", "missing"),
        ({"kind": "clock-drift", "target": "machine/0"}, "", "nothing is wrong with that clock"),
        ({"kind": "clock-drift", "target": "machine/0", "rate": 3}, "rate", "did you mean '3 ppm'?"),
        ({"kind": "clok-drift", "target": "machine/0"}, "kind", "did you mean 'clock-drift'?"),
        ({"kind": "reordering", "target": "machine/0", "probability": 0.5}, "by", "missing"),
        ({"kind": "crash", "target": "shard/0", "every": "1 min"}, "repair", "without shard/0 the job cannot go on"),
        ({"kind": "preset", "name": "lanel"}, "name", "did you mean 'lanl'?"),
        ({"kind": "preset", "name": "lanl", "target": "replica/0"}, "target", "a preset hits a machine"),
        ({"kind": "preset", "name": "lanl", "rate": 0}, "rate", "greater than 0"),
        ({"kind": "trace", "file": "nowhere.csv"}, "file", "nowhere.csv: cannot be read: No such file"),
    ],
)
def test_what_makes_no_sense_is_told_with_what_is_allowed(fault: dict[str, Any], path: str, said: str) -> None:
    found = complaints(ONCE, fault)
    assert [*found] == [f"fault.1.{path}".rstrip(".")], found
    assert said in next(iter(found.values()))


@pytest.mark.parametrize("durability", ["none", "mirror"])
def test_a_full_disk_under_a_job_that_writes_nothing_is_told(durability: str) -> None:
    protocol = {"kind": "downpour", "replicas": 3, "shards": 2, "durability": durability}
    full = {"kind": "full-disk", "target": "shard/0"}
    assert "writes nothing to disk" in complaints(full, protocol=protocol)["fault.0"]
    assert complaints(full | {"target": "supervisor"}, protocol=protocol) == {}
    assert complaints(full, protocol=protocol | {"durability": "log"}) == {}


def test_globs_reach_what_a_fault_can_hit_each_once_and_in_order() -> None:
    scenario = loaded(ONCE | {"target": ["machine/1", "machine/*", "replica/[01]"]})
    hit = there(scenario).hit(scenario.fault[0].target, scenario.fault[0].reaches)  # type: ignore[union-attr]
    assert hit == ("machine/1", "machine/0", "machine/2", "machine/3", "machine/4", "replica/0", "replica/1")


# presets


def test_a_preset_is_spelled_out_on_the_racks_and_power_units_that_there_are() -> None:
    scenario = loaded({"kind": "preset", "name": "google-first-year"})
    parts = list(declared(scenario.fault, there(scenario)))
    assert [(part.kind.split()[1], part.target) for part in parts] == [
        ("crash", ("machine/*",)), ("crash", ("rack/*",)), ("crash", ("power/*",)), ("loss", ("rack/*",)), ("loss", ("machine/*",)),
    ]  # fmt: skip
    flat = loaded({"kind": "preset", "name": "google-first-year"}, network={})
    assert [part.faults[0].together for part in declared(flat.fault, there(flat))] == [1, 60, 750, 60, 5]


def test_a_cluster_of_dean_s_size_has_as_many_failures_in_a_year_as_he_tells_of() -> None:
    """Machines 1000, racks 20, power units 1, racks that lose packets 5, maintenances 8."""
    scenario = loaded({"kind": "preset", "name": "google-first-year"}, cluster={"machines": 1800}, network={})
    year_s, machines = 365.25 * 86400, 1800
    counts = []
    for part in declared(scenario.fault, there(scenario)):
        (fault,) = part.faults
        assert fault.every is not None
        counts.append(year_s / fault.every.mean_s * machines / fault.together)
    assert counts == pytest.approx([1000, 20, 1, 5, 8], rel=0.01)


def test_a_preset_s_rate_makes_it_strike_so_many_times_as_often() -> None:
    for name in ("lanl", "spot"):
        once, often = (loaded({"kind": "preset", "name": name, "rate": rate}) for rate in (1, 50))
        means = [next(declared(one.fault, there(one))).faults[0].every for one in (once, often)]
        assert means[0] is not None
        assert means[1] is not None
        assert means[0].mean_s / means[1].mean_s == pytest.approx(50)


def test_the_figures_of_lanl_and_of_spot_instances_are_within_what_is_published() -> None:
    lanl, spot = (
        next(declared(one.fault, there(one))).faults[0] for one in (loaded({"kind": "preset", "name": n}) for n in ("lanl", "spot"))
    )
    assert lanl.every is not None
    assert spot.every is not None
    assert 3.0 <= 1000 * 86400 / lanl.every.mean_s <= 3.6
    assert 0.06 <= 3600 / spot.every.mean_s <= 0.5
    assert lanl.lasting is not None
    assert lanl.lasting.lognormal is not None
    assert (lanl.lasting.lognormal.median, lanl.lasting.lognormal.sigma) == (3600, 1.4)


# traces


def trace(tmp_path: Path, text: str) -> dict[str, Any]:
    (tmp_path / "events.csv").write_text(textwrap.dedent(text).lstrip(), encoding="utf-8")
    return {"kind": "trace", "file": str(tmp_path / "events.csv")}


def test_a_trace_is_the_faults_that_its_pairs_of_events_tell_of(tmp_path: Path) -> None:
    scenario = loaded(trace(tmp_path, """
        time,target,event
        90 s,machine/3,down
        2 min,machine/3,up
        3 min,replica/0,slow 2.5
        5 s,rack/1,pause
        6500 ms,rack/1,resume

        200 s,replica/0,normal
        300 s,machine/1,down
    """))  # fmt: skip
    (one,) = declared(scenario.fault, there(scenario))
    told = [(type(f), f.target, f.begins_s, f.lasting.mean_s if f.lasting is not None else None) for f in one.faults]
    assert told == [
        (Pause, ("rack/1",), 5.0, 1.5), (Crash, ("machine/3",), 90.0, 30.0), (Slowdown, ("replica/0",), 180.0, 20.0),
        (Crash, ("machine/1",), 300.0, None),
    ]  # fmt: skip


def test_a_trace_may_have_plain_seconds_if_its_column_says_so(tmp_path: Path) -> None:
    scenario = loaded(trace(tmp_path, "time_s,target,event\n1.5,machine/0,down\n2e3,machine/0,up\n"))
    (one,) = declared(scenario.fault, there(scenario))
    assert one.faults[0].begins_s == 1.5


def test_every_bad_row_of_a_trace_is_told_with_its_line(tmp_path: Path) -> None:
    found = complaints(trace(tmp_path, """
        time,target,event
        90,machine/3,down
        1 s,machine/9,down
        2 s,machine/3,dwon
        3 s,machine/3
        4 s,machine/2,up
        5 s,machine/1,slow
        6 s,machine/1,down 3
        7 s,machine/0,down
        8 s,machine/0,down
        9 s,replica/0,pause
    """))["fault.0.file"]  # fmt: skip
    for said in (
        "line 2: '90' is no time with a unit", "line 3: 'machine/9' is nobody; did you mean", "line 4: 'dwon' is no event; did you mean 'down'?",
        "line 5: 2 columns", "line 6: machine/2 is 'up' without having been 'down'", "line 7: 'slow': how many times slower?",
        "line 8: 'down 3'", "line 10: machine/0 is 'down' since line 9 already", "line 11: replica/0 is paused and never resumed",
    ):  # fmt: skip
        assert said in found
    assert "line 9:" not in found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("when,who,what\n", "found the columns when, who, what; allowed: time,target,event"),
        ("", "found the columns nothing"),
        ("time,target,event\n", "holds no event"),
        ("time,target,event\n1 s,shard/0,down\n", "without shard/0 the job cannot go on"),
    ],
)
def test_a_trace_that_cannot_be_replayed_is_told(tmp_path: Path, text: str, said: str) -> None:
    assert said in complaints(trace(tmp_path, text))["fault.0.file"]


def test_files_of_faults_are_beside_their_scenario(tmp_path: Path) -> None:
    trace(tmp_path, "time,target,event\n1 s,machine/0,down\n2 s,machine/0,up\n")
    (tmp_path / "gaps.csv").write_text("1 min\n", encoding="utf-8")
    (tmp_path / "mine.toml").write_text(textwrap.dedent("""
        numerics = "timing"
        model = { layers = [64, 10] }
        [[fault]]
        kind = "trace"
        file = "events.csv"
        [[fault]]
        kind = "pause"
        target = "replica/*"
        every = { empirical = { file = "gaps.csv" } }
        for = "1 s"
    """), encoding="utf-8")  # fmt: skip
    scenario = load(str(tmp_path / "mine.toml"))
    assert scenario.fault[0].file == str(tmp_path / "events.csv")  # type: ignore[union-attr]
    assert scenario.fault[1].every.mean_s == 60.0  # type: ignore[union-attr]


# keys, and what real processes can be made to suffer


def test_the_key_of_a_fault_says_what_it_is_and_not_where_it_stands() -> None:
    first = {"kind": "loss", "target": "machine/0", "probability": 0.5}
    alone, among = loaded(ONCE), loaded(first, ONCE, ONCE)
    keys = [one.key for one in declared(among.fault, there(among))]
    assert next(declared(alone.fault, there(alone))).key in keys
    assert len({*keys}) == 3


def test_whatever_real_processes_cannot_be_made_to_suffer_is_told() -> None:
    lasting = {"lognormal": {"median": "2 s", "sigma": 1}}
    faults: list[dict[str, Any]] = [
        ONCE | {"repair": lasting}, EVERY, {"kind": "cut", "target": "rack/0"}, {"kind": "preset", "name": "lanl"},
        {"kind": "delay", "target": "rack/0", "by": "1 s"}, {"kind": "loss", "target": ["replica/0", "machine/1"], "probability": 0.1},
        {"kind": "cut", "target": "replica/0", "from": "machine/1"}, {"kind": "slow-disk", "target": "shard/0", "factor": 2},
        {"kind": "cut", "target": "replica/0", "flapping": {"up": "1 s", "down": "1 s"}}, {"kind": "delay", "target": "rack/0 up", "by": "1 s"},
    ]  # fmt: skip

    def told(scenario: Scenario) -> list[int]:
        return [int(note.split()[0].removeprefix("fault.")) for note in not_honoured(scenario, "exec") if note.startswith("fault")]

    assert told(loaded(*faults)) == [1, 3, 7, 8, 9]
    scenario = loaded(*faults, placement={"machines": 2})
    assert told(scenario) == [1, 2, 3, 4, 6, 7, 8, 9]
    assert not any(note.startswith("fault") for note in not_honoured(scenario, "sim"))
    carried_out = real_faults(scenario)
    assert [(one.name, one.at_s) for one in carried_out] == [("fault.0 crash", 1.0), ("fault.5 loss", 0.0)]
    assert carried_out == real_faults(scenario)
    assert 0 < carried_out[0].lasting_s != 2.0
