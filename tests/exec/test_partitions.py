"""Replicas of several real processes: what crosses is what the graph says, and the loss of one process costs its replica a life and nobody else anything."""

from __future__ import annotations

from collections import Counter

import pytest

from core.checks import check
from scenarios.load import load
from scenarios.plan import plan
from tests.exec.conftest import Job

pytestmark = [pytest.mark.timeout(400), pytest.mark.xdist_group("jobs")]  # whole jobs; where many share the machine, each takes its time

SCENARIO = """
schema = 1
seed = 5
[model]
network = "mlp"
layers = [64, 32, 10]
partitions = 2
[data]
source = "digits"
[protocol]
kind = "downpour"
replicas = 2
shards = 2
batch = 48
rule = { kind = "adagrad", learning_rate = 0.05 }
detect_within = "1 s"
evaluate_every = "2 s"
stop = { updates = 80 }
"""


def test_a_replica_that_loses_one_of_its_processes_begins_anew_and_the_other_goes_on(tmp_path):
    running = Job(tmp_path, scenario=SCENARIO).begin()
    try:
        running.until(lambda: running.updates() > 10)
        running.signal("replica/0/1")
        running.until(
            lambda: running.records("joined", "replica/0/0") and max(r.life for r in running.records("joined", "replica/0/0")) == 2
        )
        code, summary, complaint = running.end()
    finally:
        running.clear()
    assert (code, summary["status"]) == (0, "done"), complaint
    assert summary["updates"] == 80
    assert summary["accuracy"] > 0.6
    records = running.records()
    assert check(records, one_clock=False).violations == []
    lives = {record.node: max(r.life for r in records if r.node == record.node) for record in records if record.node.startswith("replica/")}
    assert lives == {"replica/0/0": 2, "replica/0/1": 2, "replica/1/0": 1, "replica/1/1": 1}
    assert bytes_of(records) == bytes_of_graph(running.file)


def bytes_of(records):
    """What each machine of a replica sent in each minibatch, where that is one and the same."""
    sent = {}
    for record in records:
        if record.event == "passed":
            sent.setdefault(int(record.node.rpartition("/")[2]), Counter())[int(record.value), record.number] += 1
    return {machine: next(iter(found)) if len(found) == 1 else found for machine, found in sent.items()}


def bytes_of_graph(file):
    """Bytes and messages of both phases."""
    partitioned = plan(load(str(file), ())).partitioned
    sent = {}
    for machine in range(partitioned.machines):
        there = [message for message in partitioned.messages if machine in (message.source, message.destination)]
        sent[machine] = sum(4 * message.count(48) for message in there), len(there)
    return sent
