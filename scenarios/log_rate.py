"""Can the declared disk take the log that the declared replicas make?  Asked before a run, of the cluster that is simulated."""

from __future__ import annotations

from typing import NamedTuple

from core.vector import BYTES_OF_FLOAT32, NARROW
from scenarios.parts import total_samples
from scenarios.protocols import Downpour, Synchronous
from scenarios.schema import Scenario


class LogRate(NamedTuple):
    """Of one shard's log, in bytes a second."""

    required: float
    available: float


def log_rate(scenario: Scenario, parameters: int, flops_per_sample: float) -> LogRate:
    """What replicas push to a shard that never stop computing: one push each in the time that its samples take.

    No more than the shard's network card takes in, where messages have to share that.
    """
    protocol, cluster, network = scenario.protocol, scenario.cluster, scenario.network
    wire = protocol.wire if isinstance(protocol, Downpour) else "float32"
    push_bytes = -(-parameters // protocol.shards) * NARROW.get(wire, BYTES_OF_FLOAT32)
    between_pushes_s = samples_of_push(scenario) * flops_per_sample / cluster.speed.median
    required = protocol.all_replicas * push_bytes / between_pushes_s
    return LogRate(required if network.model == "latency" else min(required, network.nic), cluster.disk)


def samples_of_push(scenario: Scenario) -> float:
    """From how many samples the gradient is that one push carries."""
    protocol = scenario.protocol
    if isinstance(protocol, Downpour):
        return protocol.n_push * protocol.batch
    if isinstance(protocol, Synchronous):
        return protocol.batch
    bundle = protocol.bundle * protocol.fraction * total_samples(scenario) * (1 - scenario.data.held_out) / protocol.portions
    warm = protocol.warmstart
    return bundle if warm is None else min(bundle, warm.n_push * warm.batch)  # whichever of the two pushes more often
