"""Kill and stop everybody, at every moment, under every durability: what the journals say afterwards must hold.

One job for each durability, in which one process after another is felled; each time everything has to come back before the
next.  EXEC_MATRIX=night fells each in both ways at each moment; otherwise some of them, as fit into a minute and a half.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from itertools import product

import pytest

from core.checks import PushId, check

pytestmark = [pytest.mark.timeout(400), pytest.mark.xdist_group("jobs")]  # whole jobs; where many share the machine, each takes its time

NIGHT = os.environ.get("EXEC_MATRIX") == "night" or os.environ.get("HYPOTHESIS_PROFILE") == "night"
WAYS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
ROLES = ("shard/0", "replica/1", "evaluator", "supervisor", "nursery/0", "agent/0")
MOMENTS = ("early", "middle", "writing")

SOME = {
    "none": [("shard/0", "kill", "early"), ("shard/0", "stop", "middle"), ("agent/0", "kill", "middle")],
    "snapshot": [("shard/0", "kill", "writing"), ("replica/1", "stop", "middle"), ("supervisor", "kill", "middle"), ("nursery/0", "kill", "middle")],
    "mirror": [("shard/0", "kill", "early"), ("mirror/0", "kill", "middle"), ("shard/0", "stop", "middle"), ("mirror/0", "stop", "writing")],
    "log": [
        ("shard/0", "kill", "writing"), ("replica/1", "kill", "middle"), ("shard/0", "stop", "middle"), ("supervisor", "stop", "middle"),
        ("agent/0", "kill", "writing"),
    ],
}  # fmt: skip
"""Who is felled, how, and when: early, at the first push of its shard's life; in the middle; while something is written or sent."""


def felled(durability: str) -> list[tuple[str, str, str]]:
    if not NIGHT:
        return SOME[durability]
    roles = (*ROLES, "mirror/0") if durability == "mirror" else ROLES
    return [
        (who, way, moment)
        for who, way, moment in product(roles, WAYS, MOMENTS)
        if (who, way) not in {("nursery/0", "stop"), ("agent/0", "stop")}
    ]


def wait_for(moment, running):
    """Just now something is written, or sent to the mirror; or some pushes have passed; or the first of this life has."""
    lives, before = running.records("applied", "shard/0"), running.updates()
    if moment == "early":
        running.until(lambda: running.updates() > before)
    elif moment == "middle":
        running.until(lambda: running.updates() > before + 15)
    elif lives:
        known = len(running.records("persisted", "shard/0"))
        running.until(lambda: len(running.records("persisted", "shard/0")) > known or running.updates() > before + 30)


def whole_again(running, durability):
    """Everybody is up, and pushes are applied."""
    before = running.updates()

    def so() -> bool:
        overview = running.overview()
        if overview is None or overview.phase != "running" or running.updates() <= before + 3:
            return False
        mirrors = [row.status.synced for row in overview.roles if row.name.startswith("mirror/")]
        return all(row.state == "up" for row in overview.roles) and all(mirrors) and all(m.state == "up" for m in overview.machines)

    running.until(so)


@pytest.mark.parametrize(
    "durability", [pytest.param("none", marks=pytest.mark.slow), pytest.param("snapshot", marks=pytest.mark.slow), "mirror", "log"]
)
def test_whoever_is_felled_comes_back_and_nothing_that_was_promised_is_lost(job, durability):
    machines = 2 if durability == "mirror" else 1
    wanted = ("protocol.stop.updates=1_000_000", f"protocol.durability='{durability}'", f"placement.machines={machines}")
    running = job(*wanted, "protocol.detect_within='0.6 s'", "protocol.evaluate_every='2 s'").begin()
    running.until(lambda: running.updates() > 0)
    for who, way, moment in felled(durability):
        whole_again(running, durability)
        wait_for(moment, running)
        pid = running.signal(who, WAYS[way])
        if who == "supervisor" and way == "stop":
            running.until(lambda: running.overview() is None)
            os.kill(pid, signal.SIGCONT)
        else:
            running.until(lambda pid=pid, who=who: running.pid(who) not in (0, pid))
    whole_again(running, durability)
    running.signal("launcher", signal.SIGINT)
    code, summary, _ = running.end()
    assert (code, summary["reason"]) == (130, "Ctrl-C")
    assert not running.left()
    records = running.records()
    findings = check(records, one_clock=False, durability=durability)
    assert findings.violations == []
    if durability in ("mirror", "log"):
        acknowledged = {PushId(r.node, r.life, r.peer, r.number) for r in records if r.event == "acknowledged"}
        assert len(acknowledged) > 50
        assert acknowledged <= set(findings.surviving["shard/0"])


def test_a_stopped_shard_is_replaced_within_three_seconds_and_changes_nothing_when_it_wakes(job):
    running = job("protocol.stop.updates=1_000_000", "protocol.durability='log'").begin()
    running.until(lambda: running.updates() > 20)
    whole_again(running, "log")
    stopped_s = running.now()
    pid = running.signal("shard/0", signal.SIGSTOP)
    restored = running.until(lambda: running.records("restored", "shard/0"))[0]
    assert restored.time_s - stopped_s < 3.0
    with suppress(ProcessLookupError):  # its agent has ended it, stopped as it was
        os.kill(pid, signal.SIGCONT)
    running.until(lambda: running.updates() > restored.number + 20)
    running.signal("launcher", signal.SIGINT)
    running.end()
    old = [record for record in running.records(node="shard/0") if record.life == 1]
    assert max(record.time_s for record in old) < restored.time_s
    assert check(running.records(), one_clock=False, durability="log").violations == []
