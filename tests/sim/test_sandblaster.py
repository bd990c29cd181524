"""Whatever fails, the gradient that shards have gathered holds each portion exactly once, and the job comes to its end.

Schedules of faults hit replicas, shards, mirrors, coordinator, supervisor and machines.  `tests/sim/exact_network.py` makes every sum
exact, so that what lies on a shard after each gathering is compared by equality; with a mirror or a log the whole course of the
optimisation is that of an undisturbed run, number for number.  `make hunt-sandblaster` draws 10,000 schedules.
"""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from hypothesis import currently_in_test_context, given, note, settings

from core.checks import check
from core.coordination import Gather
from core.job import role_number
from core.journal import Record, read
from core.staging import POINT, StagingShard
from sim.run import Run
from sim.strategies import Tables, healed_s, scenario, tables, toml
from tests.sim.exact_network import exact_gradient, prepared

thoroughly = settings(max_examples=max(100, settings().max_examples))

LIMIT_S = 600.0
"""Of virtual time after the last fault has healed: a job takes some seconds."""


class Course:
    """One run: its records, and what was wrong with the gradients that its shards gathered."""

    def __init__(self, drawn: Tables, *, shuffle_ties: bool = False) -> None:
        if currently_in_test_context():
            note(toml(drawn))
        self.scenario = scenario(drawn)
        self.wrong: list[str] = []
        journal = io.BytesIO()
        gather = StagingShard.gather

        def checked(shard: StagingShard, asked: Gather) -> None:
            gather(shard, asked)
            self.check_gathered(shard, asked)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(StagingShard, "gather", checked)
            self.run = Run(self.scenario, journal, prepared=prepared(self.scenario), shuffle_ties=shuffle_ties)
            self.run.simulate()
        self.run.journal.flush()
        self.records = list(read(iter(journal.getvalue().decode().splitlines(keepends=True))))

    def check_gathered(self, shard: StagingShard, asked: Gather) -> None:
        part = self.run.plan.job.shards[role_number(shard.node.name)].part
        exact = exact_gradient(shard.vectors[POINT], self.scenario.protocol.portions, part)
        if not torch.equal(shard.vectors[asked.into], exact):
            self.wrong.append(f"{shard.node.name} gathered {shard.vectors[asked.into].tolist()}, not {exact.tolist()}")

    def of(self, event: str) -> list[Record]:
        return [record for record in self.records if record.event == event]

    def steps(self) -> list[tuple[int, float]]:
        """Iterations and their losses, each as it was taken first."""
        return list(dict.fromkeys((record.number, record.value) for record in self.of("stepped")))

    def complaints(self) -> list[str]:
        found = [*self.wrong, *map(str, check(self.records, durability=self.scenario.protocol.durability).violations)]
        cluster = self.run.cluster
        if cluster.failed:
            found.append(f"failed: {cluster.failed}")
        elif self.run.loop.time() > healed_s(self.scenario) + LIMIT_S:
            found.append(f"ended at {self.run.loop.time():g} s")
        shards = {shared.name: cluster.shard(shared.name) for shared in self.run.plan.job.shards}
        if not cluster.failed and not all(shard is not None and shard.finished for shard in shards.values()):
            found.append(f"not all shards have finished: {shards}")
        return found


def undisturbed(drawn: Tables) -> Course:
    return Course({key: value for key, value in drawn.items() if key != "fault"})


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
    assert Course(drawn).steps() == undisturbed(drawn).steps()


@given(tables(kind="sandblaster"))
def test_the_same_scenario_has_the_same_journal(drawn: Tables) -> None:
    assert Course(drawn).records == Course(drawn).records


def small(*faults: dict[str, Any], **protocol: Any) -> Tables:
    """Two shards, three replicas and six portions on machines that are all the same."""
    told = {"kind": "sandblaster", "replicas": 3, "shards": 2, "portions": 6, "bundle": 2, "stop": {"iterations": 4}, "detect_within": "100 ms"}
    return {
        "schema": 1, "seed": 1, "numerics": "timing",
        "model": {"layers": [64, 10], "cost": {"parameters": 12_000, "flops": "50 MFLOP"}},
        "protocol": told | {"deadline": "300 ms"} | protocol,
        "cluster": {"speed": "1 GFLOP/s", "memory": "100 MB/s", "disk": "2 MB/s", "start_up": "100 ms"},
        "network": {"model": "fifo", "nic": "10 MB/s", "latency": "50 us"},
        "fault": list(faults),
    }  # fmt: skip


def test_a_healthy_job_descends_and_ends_where_it_should() -> None:
    course = Course(small())
    assert course.complaints() == []
    losses = [record.value for record in course.of("stepped")]
    assert len(losses) == 4
    assert losses == sorted(losses, reverse=True)
    assert not course.of("reset")
