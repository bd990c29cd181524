"""Declared faults in simulated time: when they strike, whom, for how long, and what they bite."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, pvariance
from typing import Any

import pytest

from core.journal import Record
from scenarios.declared import declared
from scenarios.load import validate
from scenarios.places import places
from sim import faults
from sim.faults import Clocks, Injected, Strike, inject
from sim.loop import SimLoop
from sim.strategies import Tables, scenario
from tests.sim.courses import Course
from tests.sim.courses import small as sandblaster
from tests.sim.schedules import crash, small
from tests.sim.trials import Trial, trial, wrong

RACKS = {"kind": "racks", "racks": 2, "uplink": "10 MB/s", "power_units": 1}


def run(*given: Tables, cluster: Tables | None = None, network: Tables | None = None, numerics: str = "timing", **protocol: Any) -> Trial:
    made = small(*given, **{"stop": {"updates": 40}, "durability": "snapshot", "snapshot_every": "200 ms"} | protocol)
    made |= {
        "cluster": made["cluster"] | {"machines": 3} | (cluster or {}),
        "network": made["network"] | (network or {}),
        "numerics": numerics,
    }
    done = trial(scenario(made))
    assert wrong(done) == []
    return done


def bit(done: Trial, number: int = 0) -> dict[str, Any]:
    return told(done)[number]["bit"]


def told(done: Trial) -> list[dict[str, Any]]:
    return done.run.summary()["faults"]


def of(done: Trial, event: str, peer: str = "") -> list[Record]:
    return [record for record in done.records if record.event == event and peer in ("", record.peer)]


# every kind bites what it says

LASTS = {"at": "300 ms", "for": "600 ms"}

BITES: list[tuple[Tables, str]] = [
    ({"kind": "crash", "target": "replica/0", "at": "500 ms", "repair": "200 ms"}, "processes"),
    ({"kind": "crash", "target": "machine/2", "at": "500 ms", "repair": "200 ms"}, "processes"),
    ({"kind": "crash", "target": "rack/1", "at": "500 ms", "repair": "200 ms"}, "processes"),
    ({"kind": "crash", "target": "power/0", "at": "500 ms", "repair": "200 ms"}, "processes"),
    ({"kind": "preemption", "target": "machine/2", "at": "500 ms", "notice": "300 ms", "repair": "200 ms"}, "drained"),
    ({"kind": "pause", "target": "rack/1", **LASTS}, "processes"),
    ({"kind": "slowdown", "target": "rack/1", "factor": 2, **LASTS}, "computing seconds lost"),
    ({"kind": "loss", "target": "rack/1", "probability": 0.5, **LASTS}, "messages"),
    ({"kind": "loss", "target": "rack/0 up", "probability": 0.5, **LASTS}, "messages"),
    ({"kind": "delay", "target": "machine/2 in", "by": "5 ms", **LASTS}, "messages"),
    ({"kind": "duplication", "target": ["shard/0", "shard/1"], "probability": 1, **LASTS}, "messages"),
    ({"kind": "reordering", "target": "shard/0", "probability": 0.5, "by": {"exponential": {"mean": "50 ms"}}, **LASTS}, "messages"),
    ({"kind": "degraded", "target": "rack/1", "factor": 5, **LASTS}, "messages"),
    ({"kind": "cut", "target": "machine/2", "from": "machine/0", **LASTS}, "messages"),
    ({"kind": "full-disk", "target": "shard/0", **LASTS}, "writes failed"),
    ({"kind": "slow-disk", "target": "shard/0", "factor": 10, **LASTS}, "disk seconds lost"),
    ({"kind": "clock-drift", "target": "supervisor", "rate": "200 ppm", **LASTS}, "readings"),
]


@pytest.mark.parametrize(("fault", "what"), BITES, ids=[f"{fault['kind']} of {fault['target']}" for fault, _ in BITES])
def test_every_kind_of_fault_bites_what_it_says(fault: Tables, what: str) -> None:
    done = run(fault, network={"topology": RACKS})
    (one,) = told(done)
    assert one["bit"][what] > 0
    assert (one["kind"], one["at_s"], one["struck"]) == (fault["kind"], float(fault["at"].split()[0]) / 1000, 1)
    ((begin_s, end_s),) = one["times"]
    lasting_s = sum(float(fault.get(key, "0 ms").split()[0]) / 1000 for key in ("for", "repair", "notice"))
    assert (begin_s, end_s) == (one["at_s"], pytest.approx(one["at_s"] + lasting_s))


def test_a_strike_that_is_not_over_at_the_end_has_no_end() -> None:
    (one,) = told(run({"kind": "slowdown", "target": "replica/0", "factor": 2}))
    assert one["times"] == [[0.0, None]]


def test_a_rack_that_crashes_takes_all_of_its_machines_and_nobody_else() -> None:
    done = run(crash("rack/0", "500 ms", "200 ms"), network={"topology": RACKS})
    assert {record.peer for record in of(done, "crashed") if record.peer.startswith("machine")} == {"machine/0", "machine/1"}


def test_a_machine_under_two_crashes_is_back_when_both_are_over() -> None:
    done = run(crash("machine/2", "300 ms", "200 ms"), crash("rack/1", "400 ms", "900 ms"), network={"topology": RACKS})
    assert len(of(done, "crashed", "machine/2")) == 1
    assert min(record.time_s for record in of(done, "enlisted", "machine/2") if record.time_s > 0.3) >= 1.3


# cuts


def cut(**more: Any) -> Trial:
    return run({"kind": "cut", "at": "300 ms", "for": "600 ms"} | more)


def dropped(done: Trial) -> set[str]:
    return {record.peer for record in of(done, "dropped")}


def test_a_cut_goes_the_way_it_says() -> None:
    """Of a replica's machine: what it sends out, what comes in, or both."""
    assert dropped(cut(target="machine/2", direction="out")) == {"machine/0", "machine/1", "head"}
    assert dropped(cut(target="machine/2", direction="in")) == {"machine/2"}
    assert dropped(cut(target="machine/2")) == {"machine/0", "machine/1", "head"}  # who is not heard is not answered


def test_a_cut_between_two_sides_leaves_everybody_else_alone() -> None:
    done = cut(target="machine/2", **{"from": "machine/1"})
    assert dropped(done) <= {"machine/1", "machine/2"}
    assert of(done, "dropped")


def test_those_inside_hear_each_other() -> None:
    done = cut(target=["machine/0", "machine/1", "machine/2"])
    assert dropped(done) <= {"machine/0", "machine/1", "machine/2", "head"}
    assert all("head" in (record.peer, record.node) or record.number < 2000 for record in of(done, "dropped"))  # signs of life alone
    assert any(record.event == "applied" and 0.35 < record.time_s < 0.9 for record in done.records)


def test_a_process_that_dies_behind_a_cut_is_not_heard_to_die() -> None:
    """Its machine would say that the connection is closed, and cannot."""
    slowly = {"durability": "log", "cluster": {"disk": "100 kB/s"}}
    with_cut = run({"kind": "cut", "target": "machine/0", "at": "490 ms", "for": "400 ms"}, crash("shard/0", "500 ms", "200 ms"), **slowly)
    assert "calls cut off" not in bit(with_cut, 1)
    assert bit(run(crash("shard/0", "500 ms", "200 ms"), **slowly))["calls cut off"] > 0


def test_a_cut_that_flaps_is_whole_by_turns() -> None:
    flapping = {"up": "100 ms", "down": "50 ms"}
    done = run({"kind": "cut", "target": "machine/2", "at": "300 ms", "for": "600 ms", "flapping": flapping})
    times = [record.time_s for record in of(done, "dropped")]
    assert times
    assert all(0 <= (time_s - 0.3) % 0.15 <= 0.05 + 1e-9 for time_s in times)
    assert {int((time_s - 0.3) // 0.15) for time_s in times} > {0}


# messages and links


def test_a_message_that_is_held_up_is_overtaken() -> None:
    held = {"kind": "reordering", "target": "machine/*", "probability": 0.3, "by": "150 ms", "at": "0 s"}
    done = run(held, replicas=3, stop={"updates": 60})
    assert bit(done)["messages"] > 10
    assert of(done, "duplicate") or of(done, "repeated") or done.run.loop.time() > run(replicas=3, stop={"updates": 60}).run.loop.time()


def test_degraded_links_multiply_and_are_as_wide_as_before_in_the_end() -> None:
    first = {"kind": "degraded", "target": "machine/2", "at": "300 ms", "for": "600 ms", "factor": 50}
    done = run(first, {"kind": "degraded", "target": "machine/2 in", "at": "500 ms", "for": "200 ms", "factor": 2})
    factors = [(record.time_s, record.value) for record in of(done, "narrowed", "machine/2 in")]
    assert factors == [(0.3, 50.0), (0.5, 100.0), (0.7, 50.0), (pytest.approx(0.9), 1.0)]
    assert done.run.cluster.network.links["machine/2 in"].capacity == 10e6
    assert done.run.loop.time() > run().run.loop.time()


# disks and clocks


def test_a_full_disk_costs_a_snapshot_and_a_log_the_job() -> None:
    full = {"kind": "full-disk", "target": "shard/0", "at": "300 ms", "for": "10 s"}
    done = run(full)
    assert {record.node for record in of(done, "unwritten")} == {"shard/0"}
    failed = trial(scenario(small(full, durability="log", stop={"updates": 40})))
    assert "no space left on device" in failed.run.cluster.failed


def test_a_clock_that_is_wrong_is_right_again_afterwards_and_the_journal_knows_better() -> None:
    """A machine's clock ten times too fast for 0.5 s, and 3 s ahead."""
    fast = {"kind": "clock-drift", "target": "machine/0", "at": "500 ms", "for": "500 ms", "rate": "9000000 ppm", "step": "3 s"}
    made = small(fast, stop={"updates": 40})
    done = trial(scenario(made))
    host = done.run.cluster.hosts["shard/0"]
    assert host.now() == done.run.loop.time()
    times = [record.time_s for record in done.records]
    assert times == sorted(times)

    seen: list[float] = []
    cluster = trial(scenario(small(stop={"updates": 1}))).run.cluster
    machine, one = cluster.machines["machine/0"], Injected(next(declared(scenario(made).fault, cluster.there)))
    undo = faults.BEGIN["clock-drift"](Strike(one, one.declared.faults[0], ("machine/0",), None, cluster.hosts["shard/0"].random), cluster)
    began = cluster.now()
    seen += [machine.clock(began) - began, machine.clock(began + 0.5) - began]
    assert undo is not None
    undo()
    assert seen == pytest.approx([3.0, 3.0 + 5.0])
    assert not machine.drifts


# a machine that will be taken


def preempt(target: str, notice: str, **protocol: Any) -> Trial:
    return run({"kind": "preemption", "target": target, "at": "600 ms", "notice": notice, "repair": "2 s"}, **protocol)


def test_whoever_has_notice_loses_nothing() -> None:
    """A shard that is drained writes down what it has acknowledged since its last snapshot; one that is not has lost that."""
    drained = preempt("machine/0", "300 ms", snapshot_every="10 s")
    assert bit(drained) == {"drained": 1, "processes": 1, "seconds down": pytest.approx(2.4, abs=0.3)}
    assert drained.run.summary()["lost_updates"] == 0
    taken = preempt("machine/0", "0 s", snapshot_every="10 s")
    assert bit(taken)["updates lost"] > 0
    assert "drained" not in bit(taken)


def test_a_replica_that_is_drained_has_its_pushes_counted_and_goes_on_elsewhere_at_once() -> None:
    done = preempt("machine/2", "400 ms", n_push=3, cluster={"machines": 4}, stop={"updates": 30})
    (left,) = of(done, "left", "machine/2")
    assert 0.6 < left.time_s < 1.0
    pushed = {record.number for record in done.records if record.event == "pushed" and record.life == 1 and record.node == "replica/0"}
    counted = {
        record.number for record in done.records if record.event == "acknowledged" and record.life == 1 and record.node == "replica/0"
    }
    assert pushed == counted
    second = of(done, "started", "replica/0")[1]
    assert left.time_s < second.time_s < 1.3
    assert second.note != "machine/2"


def test_a_mirror_takes_over_as_soon_as_its_shard_has_left() -> None:
    done = preempt("machine/0", "400 ms", durability="mirror", cluster={"machines": 5})
    (left,) = of(done, "left", "machine/0")
    (promoted,) = of(done, "promoted", "shard/0")
    assert promoted.time_s == left.time_s
    assert done.run.summary()["lost_updates"] == 0


def test_roles_that_have_nothing_to_save_just_go() -> None:
    made = sandblaster({"kind": "preemption", "target": "machine/0", "at": "500 ms", "notice": "1 s", "repair": "500 ms"}, durability="log")
    course = Course(made)
    assert course.complaints() == []
    assert [record.peer for record in course.of("ended")][0] == "coordinator"  # noqa: RUF015


def test_a_machine_that_crashes_under_notice_comes_back_when_the_preemption_is_over() -> None:
    done = run(
        {"kind": "preemption", "target": "machine/2", "at": "500 ms", "notice": "400 ms", "repair": "1 s"},
        crash("machine/2", "600 ms", "600 ms"),
    )
    assert [round(record.time_s, 9) for record in of(done, "crashed", "machine/2")] == [0.6]
    assert min(record.time_s for record in of(done, "enlisted", "machine/2") if record.time_s > 0.6) >= 1.9


# clocks


class Yard:
    """Machines and nothing on them: what is struck when."""

    def __init__(self, machines: int, *given: Tables, seed: int = 1, network: Tables | None = None) -> None:
        self.loop, self.seed, self.record = SimLoop(), seed, lambda *_, **__: None
        made, mistakes = validate(
            {
                "numerics": "timing", "model": {"layers": [64, 10]}, "cluster": {"machines": machines}, "network": network or {},
                "protocol": {"kind": "downpour", "replicas": 1, "shards": 1}, "fault": list(given),
            }, "yard",
        )  # fmt: skip
        assert made is not None, mistakes
        self.there = places(made.protocol, made.cluster, made.network, real=False)
        self.down: Counter[str] = Counter()
        self.struck: list[tuple[float, tuple[str, ...]]] = []
        self.clocks = Clocks(self)  # type: ignore[arg-type]
        self.faults = inject(declared(made.fault, self.there), self, self.clocks)  # type: ignore[arg-type]

    def now(self) -> float:
        return self.loop.time()

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        self.loop.world(time_s, action)

    def is_down(self, name: str) -> bool:
        return self.down[name] > 0

    def strike(self, strike: Strike, _: object) -> Callable[[], None]:
        """Takes them down, whatever it is."""
        self.struck.append((self.now(), strike.names))
        for name in strike.names:
            self.down[name] += 1
        return lambda: [self.repaired(name) for name in strike.names] and None

    def repaired(self, name: str) -> None:
        self.down[name] -= 1
        if not self.down[name]:
            self.clocks.back(name)

    def run(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> Counter[str]:
        """How often each was struck."""
        for kind in ("crash", "preemption", "pause"):
            monkeypatch.setitem(faults.BEGIN, kind, self.strike)
        self.loop.run(until=seconds)
        return Counter(name for _, names in self.struck for name in names)


def test_gaps_are_of_their_law_and_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exponential gaps make Poisson counts: variance = mean."""
    counts = Yard(2000, {"kind": "crash", "target": "machine/*", "every": {"exponential": {"mean": "1 h"}}, "repair": "1 us"}).run(
        monkeypatch, 4 * 3600
    )
    found = [counts[f"machine/{number}"] for number in range(2000)]
    assert fmean(found) == pytest.approx(4, rel=0.05)
    assert pvariance(found) / fmean(found) == pytest.approx(1, rel=0.12)


def test_frailty_makes_counts_over_dispersed_by_as_much_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gamma mixture of Poisson counts is negative binomial: variance / mean = 1 + frailty x mean."""
    fault = {"kind": "crash", "target": "machine/*", "every": {"exponential": {"mean": "1 h"}}, "repair": "1 us", "frailty": 1.5}
    counts = Yard(4000, fault).run(monkeypatch, 4 * 3600)
    found = [counts[f"machine/{number}"] for number in range(4000)]
    assert fmean(found) == pytest.approx(4, rel=0.08)
    assert pvariance(found) / fmean(found) == pytest.approx(1 + 1.5 * 4, rel=0.15)


def test_lanl_s_nodes_fail_as_often_and_as_unevenly_as_los_alamos_(monkeypatch: pytest.MonkeyPatch) -> None:
    """3.0 to 3.6 failures in 1,000 node-days, from the first year on, and variance / mean of the counts of four years 6 to 11."""
    yard = Yard(2000, {"kind": "preset", "name": "lanl"})
    counts = yard.run(monkeypatch, 4 * 365 * 86400)
    found = [counts[f"machine/{number}"] for number in range(2000)]
    first = sum(time_s < 365 * 86400 for time_s, _ in yard.struck)
    assert 3.0 <= first / (2000 * 365) * 1000 <= 3.6
    assert 6 <= pvariance(found) / fmean(found) <= 11


def test_whoever_is_down_does_not_fail_and_its_clock_begins_again_after_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    timetable = {"kind": "crash", "target": "machine/0", "every": "10 s", "repair": "4 s"}
    yard = Yard(2, timetable)
    yard.run(monkeypatch, 50)
    assert [time_s for time_s, _ in yard.struck] == [10, 24, 38]
    yard = Yard(2, timetable, {"kind": "crash", "target": "machine/0", "at": "8 s", "repair": "7 s"})
    yard.run(monkeypatch, 50)
    assert [time_s for time_s, _ in yard.struck] == [8, 25, 39]


def test_what_lasts_begins_again_when_it_is_over_and_until_is_the_end_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    yard = Yard(2, {"kind": "pause", "target": "machine/0", "every": "10 s", "for": "4 s", "until": "30 s"})
    yard.run(monkeypatch, 100)
    assert [time_s for time_s, _ in yard.struck] == [10, 24]


def test_neighbours_that_share_a_clock_are_hit_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    yard = Yard(10, {"kind": "preset", "name": "spot"})
    counts = yard.run(monkeypatch, 1000 * 3600)
    assert {names for _, names in yard.struck} == {tuple(f"machine/{n}" for n in some) for some in (range(8), (8, 9))}
    assert 0.06 <= sum(counts.values()) / (10 * 1000) <= 0.5


def test_each_target_has_a_stream_of_its_own_which_another_fault_does_not_move(monkeypatch: pytest.MonkeyPatch) -> None:
    fault = {"kind": "crash", "target": "machine/*", "every": {"weibull": {"shape": 0.7, "mean": "1 min"}}, "repair": "1 s", "frailty": 1.0}
    other = {"kind": "pause", "target": "machine/1", "every": {"exponential": {"mean": "1 h"}}, "for": "1 ns"}
    alone, among = Yard(3, fault), Yard(3, other, fault)
    alone.run(monkeypatch, 600)
    among.run(monkeypatch, 600)
    assert alone.faults[0].times[:5] == among.faults[1].times[:5]
    moved = Yard(3, fault, seed=2)
    moved.run(monkeypatch, 600)
    assert moved.faults[0].times[:5] != alone.faults[0].times[:5]


def test_a_fault_that_is_added_moves_no_other_s_draws_in_a_whole_run() -> None:
    """Nor what it does: but for its number, the journal is the same."""
    lossy = {"kind": "loss", "target": "shard/0", "probability": 0.2, "at": "0 s", "for": "1 s"}
    late = {"kind": "pause", "target": "shard/1", "at": "1 h", "for": "1 s"}
    alone, before, after = run(lossy), run(late, lossy), run(lossy, late)
    assert of(alone, "dropped")
    assert alone.records == after.records
    assert alone.records == [record._replace(note=record.note.replace("fault.1", "fault.0")) for record in before.records]


def test_a_role_s_clock_begins_with_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    del monkeypatch
    done = run({"kind": "crash", "target": "replica/0", "every": "500 ms", "repair": "200 ms", "until": "2 s"})
    started = [record.time_s for record in of(done, "started", "replica/0")]
    crashed = [record.time_s for record in of(done, "crashed", "replica/0")]
    assert len(crashed) == 2
    assert crashed == pytest.approx([time_s + 0.5 for time_s in started[: len(crashed)]])


def test_ten_thousand_machines_that_may_fail_cost_almost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only whoever is struck is looked at: an hour's failures are a handful of events."""
    began = time.process_time()
    yard = Yard(10_000, {"kind": "preset", "name": "lanl"})
    counts = yard.run(monkeypatch, 3600)
    assert time.process_time() - began < 5
    assert len(yard.clocks._due) >= 10_000 - 1000
    assert 0 <= sum(counts.values()) < 20


# traces, episodes, machines


def test_a_trace_is_replayed_at_its_times(tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    file.write_text("time,target,event\n500 ms,machine/2,down\n800 ms,machine/2,up\n1500 ms,replica/0,slow 3\n1700 ms,replica/0,normal\n")
    done = trial(scenario(small({"kind": "trace", "file": str(file)}, stop={"updates": 40})))
    assert [record.time_s for record in of(done, "crashed", "machine/2")] == [0.5]
    assert [(record.time_s, record.value) for record in of(done, "slowed")] == [(1.5, 3.0), (1.7, 1.0)]
    (one,) = told(done)
    assert (one["kind"], one["target"], one["struck"], one["times"]) == ("trace", str(file), 2, [[0.5, 0.8], [1.5, 1.7]])
    assert one["bit"]["processes"] == 1
    assert one["bit"]["computing seconds lost"] > 0


def test_slow_episodes_come_and_go_on_every_machine_and_are_nobody_s_fault() -> None:
    episodes = {"every": {"exponential": {"mean": "400 ms"}}, "for": {"exponential": {"mean": "200 ms"}}, "factor": 3}
    done = run(cluster={"slow_episodes": episodes})
    assert {record.peer for record in of(done, "slowed")} >= {"machine/0", "machine/1", "machine/2"}
    assert {record.value for record in of(done, "slowed")} == {3.0, 1.0}
    assert told(done) == []
    assert done.run.loop.time() > run().run.loop.time()


def test_start_up_may_be_drawn_for_each_life() -> None:
    done = run(crash("replica/0", "500 ms", "100 ms"), cluster={"start_up": {"lognormal": {"median": "100 ms", "sigma": 0.5}}})
    began = [record.time_s for record in of(done, "started")]
    assert len(set(began)) == len(began)


def test_roles_on_one_machine_share_its_cores_and_the_account_says_so() -> None:
    def time_s(**cluster: Any) -> Trial:
        return run(cluster={"machines": 1} | cluster, replicas=4, durability="none")

    crowded, roomy = time_s(), time_s(speed="4 GFLOP/s", cores=4, cores_per_process=1)
    assert crowded.run.loop.time() > 2 * roomy.run.loop.time()
    shares = [done.run.summary()["accounts"]["by_kind"]["replica"]["contention"] for done in (crowded, roomy)]
    assert shares[0] > 0.5
    assert shares[1] < 0.2
