"""One run of Sandblaster, or of synchronous SGD, on a network whose sums are exact, and everything that is wrong with it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import currently_in_test_context, note

from core.checks import check
from core.coordination import Gather
from core.job import role_number
from core.journal import Record, read
from core.lbfgs import PARAMETERS
from core.operations import Update
from core.rules import Rule
from core.staging import POINT, StagingShard
from scenarios.protocols import Sandblaster
from sim.run import Run
from sim.strategies import Tables, healed_s, scenario, toml
from tests.sim.exact_network import exact_gradient, prepared
from tests.sim.oracles import given_up

LIMIT_S = 1000.0
"""Of virtual time after the last fault has healed: a job takes some seconds, but near the minimum, where the network's grid ends a
line search only after all its evaluations, minutes on the slowest disk and network."""


class Endless(Exception):
    """The run goes on and on."""


class Course:
    """One run: its records, and what was wrong with the gradients that its shards gathered."""

    def __init__(self, drawn: Tables, *, ties: int = 0) -> None:
        if currently_in_test_context():
            note(toml(drawn))
        self.scenario = scenario(drawn)
        self.wrong: list[str] = []
        journal = io.BytesIO()
        gather, do, fresh = StagingShard.gather, Update.do, set[int]()

        def checked(shard: StagingShard, asked: Gather) -> None:
            gather(shard, asked)
            self.check_gathered(shard, asked)
            fresh.add(id(shard.vectors))

        def at_point(update: Update, vectors: dict[str, Any], rule: Rule) -> None:
            if id(vectors) not in fresh or not torch.equal(vectors[POINT], vectors[PARAMETERS]):
                self.wrong.append("a step with a gradient that is not of these parameters")
            fresh.discard(id(vectors))
            do(update, vectors, rule)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(StagingShard, "gather", checked)
            patch.setattr(Update, "do", at_point)
            self.run = Run(self.scenario, journal, prepared=prepared(self.scenario), ties=ties, on_progress=self.end_in_time)
            try:
                self.run.simulate()
            except Endless:
                self.wrong.append(f"goes on at {self.run.loop.time():g} s")
        self.run.journal.flush()
        self.run.cluster.settle()  # raises where accounts do not add up
        self.records = list(read(iter(journal.getvalue().decode().splitlines(keepends=True))))

    def check_gathered(self, shard: StagingShard, asked: Gather) -> None:
        part = self.run.plan.job.shards[role_number(shard.node.name)].part
        exact = exact_gradient(shard.vectors[POINT], self.wanted(asked), part)
        if not torch.equal(shard.vectors[asked.into], exact):
            self.wrong.append(f"{shard.node.name} gathered {shard.vectors[asked.into].tolist()}, not {exact.tolist()}")

    def wanted(self, asked: Gather) -> Sequence[int]:
        """Which portions, or replicas, must be in there, each once."""
        protocol = self.scenario.protocol
        if isinstance(protocol, Sandblaster):
            return range(protocol.portions)
        replicas = {role_number(bundle.replica) for bundle in asked.bundles}
        if len(replicas) != protocol.replicas:
            self.wrong.append(f"a step with the gradients of {sorted(replicas)}")
        return sorted(replicas)

    def end_in_time(self, _: Run) -> None:
        if self.run.loop.time() > healed_s(self.scenario) + LIMIT_S:
            raise Endless

    def of(self, event: str) -> list[Record]:
        return [record for record in self.records if record.event == event]

    def steps(self) -> list[tuple[int, float]]:
        """Iterations and their losses, each as it was taken first."""
        return list(dict.fromkeys((record.number, record.value) for record in self.of("stepped")))

    def updates(self) -> list[int]:
        """Of each shard, in the end."""
        shards = [self.run.cluster.shard(shared.name) for shared in self.run.plan.job.shards]
        return [-1 if shard is None else shard.updates for shard in shards]

    def parameters(self) -> list[float]:
        """What the shards ended with."""
        found = self.run.cluster.parameters_of_shards()
        return [] if found is None else found.tolist()

    def follows(self, other: Course) -> bool:
        """Did it take the same steps to the same end, unless it was given up on the way?

        A step whose coordinator died before it wrote that down may be missing.
        """
        given_up_early = bool(self.run.cluster.failed) and given_up(self.records)
        return set(self.steps()) <= set(other.steps()) and (given_up_early or self.parameters() == other.parameters())

    def complaints(self) -> list[str]:
        found = [*self.wrong, *map(str, check(self.records, durability=self.scenario.protocol.durability).violations)]
        cluster = self.run.cluster
        if cluster.failed and not given_up(self.records):
            found.append(f"failed: {cluster.failed}")
        shards = {shared.name: cluster.shard(shared.name) for shared in self.run.plan.job.shards}
        if not cluster.failed and not all(shard is not None and shard.finished for shard in shards.values()):
            found.append(f"not all shards have finished: {shards}")
        return found


def undisturbed(drawn: Tables) -> Course:
    return Course({key: value for key, value in drawn.items() if key != "fault"})


def small(*faults: dict[str, Any], **protocol: Any) -> Tables:
    """Two shards, three replicas and six portions on machines that are all the same."""
    told = {
        "kind": "sandblaster",
        "replicas": 3,
        "shards": 2,
        "portions": 6,
        "bundle": 2,
        "stop": {"iterations": 4},
        "detect_within": "100 ms",
    }
    return {
        "schema": 1, "seed": 1, "numerics": "timing",
        "model": {"layers": [64, 10], "cost": {"parameters": 12_000, "flops": "50 MFLOP"}},
        "protocol": told | {"deadline": "300 ms"} | protocol,
        "cluster": {"speed": "1 GFLOP/s", "memory_bandwidth": "100 MB/s", "disk": "2 MB/s", "start_up": "100 ms"},
        "network": {"model": "fifo", "nic": "10 MB/s", "latency": "50 us"},
        "fault": list(faults),
    }  # fmt: skip
