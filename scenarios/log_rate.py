"""Can the declared disk take the log that the declared replicas make?  Asked before a run, of the cluster that is simulated."""

from __future__ import annotations

from typing import NamedTuple

from core.vector import NARROW
from scenarios.plan import BYTES_OF_FLOAT32
from scenarios.schema import Scenario


class LogRate(NamedTuple):
    """Of one shard's log, in bytes a second."""

    required: float
    available: float


def log_rate(scenario: Scenario, parameters: int, flops_per_sample: float) -> LogRate:
    """What replicas push to a shard that never stop computing: one push each in the time of `n_push` minibatches.

    No more than the shard's network card takes in, where messages have to share that.
    """
    protocol, cluster, network = scenario.protocol, scenario.cluster, scenario.network
    push_bytes = -(-parameters // protocol.shards) * NARROW.get(protocol.wire, BYTES_OF_FLOAT32)
    between_pushes_s = protocol.n_push * protocol.batch * flops_per_sample / cluster.speed.median
    required = protocol.replicas * push_bytes / between_pushes_s
    return LogRate(min(required, network.nic) if network.model == "fifo" else required, cluster.disk)
