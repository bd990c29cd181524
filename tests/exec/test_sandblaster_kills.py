"""Everybody of a real job of Sandblaster is killed, at every step of the protocol: it goes on, and ends with every step counted once."""

from __future__ import annotations

import pytest

from core.checks import PushId, check
from core.job import COORDINATOR

pytestmark = [pytest.mark.timeout(400), pytest.mark.xdist_group("jobs")]  # whole jobs; where many share the machine, each takes its time

SCENARIO = """
schema = 1
seed = 5
[model]
network = "mlp"
layers = [64, 256, 10]
[data]
source = "digits"
[protocol]
kind = "sandblaster"
replicas = 2
shards = 2
portions = 12
bundle = 2
detect_within = "1 s"
snapshot_every = "0.5 s"
evaluate_every = "2 s"
stop = { iterations = 60, gradient = 0, relative_loss = 0 }
"""

MOMENTS = [
    (COORDINATOR, "given"), (COORDINATOR, "covered"), (COORDINATOR, "pushed"), (COORDINATOR, "stepped"),
    ("shard/0", "staged"), ("shard/1", "applied"), ("shard/0", "persisted"), ("replica/0", "computed"), ("replica/1", "pushed"),
]  # fmt: skip
"""Who is killed just after it has written down what: nobody five times, for that would be given up."""


@pytest.mark.parametrize(
    "durability", [pytest.param("snapshot", marks=pytest.mark.slow), pytest.param("mirror", marks=pytest.mark.slow), "log"]
)
def test_whoever_is_killed_at_whichever_step_the_job_ends_with_each_step_counted_once(job, durability):
    machines = 2 if durability == "mirror" else 1
    running = job(f"protocol.durability='{durability}'", f"placement.machines={machines}", scenario=SCENARIO).begin()
    running.until(lambda: running.records("stepped"))
    for who, event in MOMENTS:
        before = len(running.records(event, who))
        running.until(lambda who=who, event=event, before=before: len(running.records(event, who)) > before)
        pid = running.signal(who)
        stepped = len(running.records("stepped"))
        running.until(lambda pid=pid, who=who: running.pid(who) not in (0, pid))
        running.until(lambda stepped=stepped: len(running.records("stepped")) > stepped)
    code, summary, complaints = running.end()
    assert (code, summary["status"], summary["reason"]) == (0, "done", "60 iterations"), complaints
    assert summary["training_loss"] < 0.01
    assert not running.left()
    records = running.records()
    findings = check(records, one_clock=False, durability=durability)
    assert findings.violations == []
    steps = {PushId(r.node, r.life, r.peer, r.number) for r in records if r.event == "acknowledged" and r.node == COORDINATOR}
    unheard = sum(who == COORDINATOR for who, _ in MOMENTS)  # each of its deaths may hide one step that its next life finds done
    assert len(steps) >= 2 * (60 - unheard)
    if durability in ("mirror", "log"):
        assert steps <= {push for history in findings.surviving.values() for push in history}
