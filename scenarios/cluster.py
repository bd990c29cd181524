"""The `[cluster]` table: the simulated machines, and presets of whole machines with where their figures are from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt

from scenarios.distributions import Durations, Lasting, constant
from scenarios.table import Table
from scenarios.units import Bandwidth, Speed, bandwidth, quantity, size

Sigma = Annotated[float, Field(ge=0, le=3)]
"""With 3, one machine in a hundred is a thousand times as fast as the median, and one as slow."""


class SpeedSpread(Table):
    """Static speed of each machine, lognormal about the median."""

    median: Speed
    sigma: Sigma = 0.0


def spread(value: Any) -> Any:
    return {"median": value} if isinstance(value, str | int | float) else value


class Jitter(Table):
    """Noise of each task, lognormal with mean 1."""

    sigma: Sigma = 0.0


class SlowEpisodes(Table):
    """Each machine by itself is now and then slower for a while: on and off by turns, beginning with off."""

    every: Lasting
    for_: Annotated[Lasting, Field(alias="for")]
    factor: Annotated[float, Field(gt=1, allow_inf_nan=False)]


def not_a_bandwidth(value: object) -> int:
    """Bytes of memory, from whoever does not mean how fast it is."""
    try:
        bandwidth(value)
    except ValueError:
        return size(value)
    raise ValueError("that is a bandwidth: cluster.memory_bandwidth; allowed for memory: its size, as '64 GB'")


class Cluster(Table):
    """The simulated machines, all alike but for the spread of their speed.

    Processes that compute at once on a machine share its cores, processor sharing: with `cores_per_process` left out one alone has the
    whole speed, two have half of it each.  What a server does for a request is not slowed by that.
    """

    preset: Literal["distbelief-2011", "commodity", "h100", "h200"] | None = None
    """Fills in what is left out here, and `network.nic` and `network.latency`: see `PRESETS`."""
    machines: PositiveInt | None = None
    """Left out: one for each role."""
    speed: Annotated[SpeedSpread, BeforeValidator(spread)] = SpeedSpread.model_construct(median=40e9, sigma=0.0)
    """Of a whole machine, all its cores together."""
    cores: PositiveInt = 1
    cores_per_process: PositiveInt | None = None
    """At most so many compute for one process; left out: all."""
    jitter: Jitter = Jitter()
    slow_episodes: SlowEpisodes | None = None
    memory: Annotated[int | None, BeforeValidator(not_a_bandwidth), quantity("64 GB")] = None
    """Left out: whatever is needed."""
    memory_bandwidth: Bandwidth = 10e9
    disk: Bandwidth = 200e6
    """For snapshots and logs."""
    start_up: Durations = constant(1.0)
    """Until a process that is started is up."""


PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "distbelief-2011": {
        "cluster": {"cores": 20, "speed": "150 GFLOP/s", "memory": "64 GB", "memory_bandwidth": "35 GB/s", "disk": "100 MB/s"},
        "network": {"nic": "1 Gbit/s", "latency": "100 us"},
    },
    "commodity": {
        "cluster": {"cores": 16, "speed": "600 GFLOP/s", "memory": "128 GB", "memory_bandwidth": "150 GB/s", "disk": "1 GB/s"},
        "network": {"nic": "25 Gbit/s", "latency": "50 us"},
    },
    "h100": {
        "cluster": {"cores": 1, "speed": "400 TFLOP/s", "memory": "80 GB", "memory_bandwidth": "2.7 TB/s", "disk": "2 GB/s"},
        "network": {"nic": "400 Gbit/s", "latency": "5 us"},
    },
    "h200": {
        "cluster": {"cores": 1, "speed": "400 TFLOP/s", "memory": "141 GB", "memory_bandwidth": "3.8 TB/s", "disk": "2 GB/s"},
        "network": {"nic": "400 Gbit/s", "latency": "5 us"},
    },
}
"""Machines by name.  Speeds and bandwidths of memory are what training reaches: 40 % and 80 % of the peak, unless it says otherwise.

distbelief-2011: the paper tells of its machines only that "at most 20 cores" of each were used.  The rest is assumed: two Intel Xeon
    E7-2870 (Westmere-EX, 2011; 10 cores at 2.40 GHz each; Intel's data sheet), 8 single-precision operations a cycle with SSE: 384 GFLOP/s;
    35 GB/s of memory, one disk, gigabit Ethernet.
commodity: one AMD EPYC 7313P (16 cores at 3.0 GHz, eight channels of DDR4-3200: 204.8 GB/s; AMD's data sheet), 32 operations a cycle with
    AVX2: 1,536 GFLOP/s.  128 GB, one NVMe disk, 25 Gbit/s Ethernet and 50 us through kernel and switch are assumed.
h100: one H100 SXM5 with its own ConnectX-7 (400 Gbit/s), as a DGX H100 has eight of each: 989 TFLOP/s bfloat16 without sparsity, 80 GB of
    HBM3 at 3.35 TB/s (NVIDIA's data sheets).  The disk is one GPU's share of the node's NVMe, and 5 us is RDMA through two switches: both assumed.
h200: the same with 141 GB of HBM3e at 4.8 TB/s (NVIDIA's data sheet).
"""


def filled_in(raw: dict[str, Any]) -> dict[str, Any]:
    """The tables of a scenario with what its preset says wherever they say nothing; the given ones are left as they are."""
    cluster, network = raw.get("cluster"), raw.get("network", {})
    name = cluster.get("preset") if isinstance(cluster, dict) else None
    if not isinstance(name, str) or name not in PRESETS or not isinstance(cluster, dict) or not isinstance(network, dict):
        return raw
    preset = PRESETS[name]
    return raw | {"cluster": preset["cluster"] | cluster, "network": preset["network"] | network}
