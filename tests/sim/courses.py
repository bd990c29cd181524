"""One run of Sandblaster, or of synchronous SGD, on a network whose sums are exact, and everything that is wrong with it."""

from __future__ import annotations

from typing import Any

from hypothesis import currently_in_test_context, note

from core.journal import Record
from sim.oracles import given_up
from sim.strategies import Tables, samples_for, scenario, toml
from tests.sim.trials import trial


class Course:
    """One run: its records, and what was wrong with the gradients that its shards gathered."""

    def __init__(self, drawn: Tables, *, ties: int = 0) -> None:
        if currently_in_test_context():
            note(toml(drawn))
        self.scenario = scenario(drawn)
        done = trial(self.scenario, ties=ties)
        self.run, self.records, self.found = done.run, done.records, done.violations()

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
        found = [str(violation) for violation in self.found]
        cluster = self.run.cluster
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
        "data": {"source": "synthetic", "samples": samples_for(protocol.get("portions", 6))},
        "protocol": told | {"deadline": "300 ms"} | protocol,
        "cluster": {"speed": "1 GFLOP/s", "memory_bandwidth": "100 MB/s", "disk": "2 MB/s", "start_up": "100 ms"},
        "network": {"model": "fifo", "nic": "10 MB/s", "latency": "50 us"},
        "fault": list(faults),
    }  # fmt: skip
