"""A job on the nodes of a Ray cluster, one of which is taken away; the nodes are processes of this host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'opendistbelief[ray]'")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray's own

PLACEMENT = "[placement]\non = 'ray'\n"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Three nodes; the first keeps the cluster together and cannot be missed."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "120")
    nodes = Cluster()
    try:
        for number in range(3):
            nodes.add_node(num_cpus=2, **({} if number else {"include_dashboard": False}))
        monkeypatch.setenv("RAY_ADDRESS", nodes.address)
        yield nodes
    finally:
        nodes.shutdown()


@pytest.mark.timeout(300)
def test_a_node_that_is_taken_away_takes_its_roles_along_and_the_job_goes_on(job, cluster):
    running = job("protocol.stop.updates=1500", extra=PLACEMENT).begin()
    running.until(lambda: running.updates() > 50, within_s=120)
    homes = {record.peer: record.note for record in running.records("granted", "supervisor")}
    others = {node: {raylet(node).pid} for node in cluster.worker_nodes}
    moving, taken = next(
        (role, node)
        for role, machine in sorted(homes.items(), reverse=True)  # shards before replicas
        for node, pids in others.items()
        if pids & {*ancestors(running.pid(machine.replace("machine", "agent")))}
    )
    at = running.now()
    cluster.remove_node(taken, allow_graceful=False)
    running.until(lambda: [one for one in running.records("granted") if one.time_s > at and one.peer == moving])
    running.until(lambda: len([one for one in running.records("applied") if one.time_s > at]) > 100)
    code, summary, complaints = running.end(within_s=120)
    assert (code, summary.get("status")) == (0, "done"), complaints
    assert summary["accuracy"] > 0.9
    assert not [one for one in running.records("enlisted") if one.time_s > at], "its agent is not started anywhere else"
    assert not running.left()


@pytest.mark.timeout(300)
def test_an_agent_that_dies_is_started_again_on_its_node(job, cluster):
    running = job("protocol.stop.updates=1500", extra=PLACEMENT).begin()
    running.until(lambda: running.updates() > 20, within_s=120)
    at = running.now()
    running.signal("agent/1")
    running.until(lambda: [one for one in running.records("enlisted") if one.time_s > at and one.peer == "machine/1"])
    code, summary, complaints = running.end(within_s=120)
    assert (code, summary.get("status")) == (0, "done"), complaints
    assert not running.left()


def test_without_a_cluster_it_says_so(job, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    code, _, complaint = job(extra=PLACEMENT).begin().end()
    assert code == 3
    assert "no cluster at '127.0.0.1:1'" in complaint
    assert "Traceback" not in complaint


def raylet(node: Any) -> Any:
    """The process that is a node."""
    return node.all_processes["raylet"][0].process


def ancestors(pid: int) -> list[int]:
    """Of a process, up to the first."""
    found = []
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(pid)
    return found
