"""Schedules made by hand, where each moment matters."""

from __future__ import annotations

from typing import Any

from sim.strategies import Tables


def small(*faults: Tables, **protocol: Any) -> Tables:
    """One replica and two shards on three machines, without luck; up at 100 ms, then a step every 50 ms."""
    return {
        "schema": 1,
        "numerics": "timing",
        "model": {"layers": [64, 10], "cost": {"parameters": 12_000, "flops": "50 MFLOP"}},
        "protocol": {
            "kind": "downpour", "replicas": 1, "shards": 2, "batch": 1, "rule": {"kind": "sgd", "learning_rate": 1}, "local_rate": 0,
            "detect_within": "100 ms", "deadline": "1 s", "evaluate_every": "400 ms", "stop": {"updates": 4},
        } | protocol,
        "cluster": {"speed": "1 GFLOP/s", "memory_bandwidth": "100 MB/s", "disk": "10 MB/s", "start_up": "100 ms"},
        "network": {"model": "fifo", "nic": "10 MB/s", "latency": "1 ms"},
        "fault": list(faults),
    }  # fmt: skip


def crash(target: str, at: str, repair: str) -> Tables:
    return {"kind": "crash", "target": target, "at": at, "repair": repair}


def slow_service() -> Tables:
    """Shard 0 would take 720 ms to apply the first push, at 160 ms; its snapshot is durable after 3 ms; it crashes before it replies."""
    slow = {"kind": "slowdown", "target": "shard/0", "at": "150 ms", "for": "200 ms", "factor": 1000}
    return small(slow, crash("shard/0", "300 ms", "100 ms"), durability="snapshot", snapshot_every="1 ms")


def slow_ledger() -> Tables:
    """The ledger takes longer than 0.1 s to be written, and its supervisor dies while it writes whom it granted a life at 10 ms."""
    made = small(crash("supervisor", "140 ms", "300 ms"))
    return made | {"cluster": made["cluster"] | {"disk": "10 kB/s", "start_up": "10 ms"}}
