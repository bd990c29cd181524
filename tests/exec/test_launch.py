"""Whole jobs of real processes: what becomes of them when a process is killed, Ctrl-C comes, or nothing can start."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from core.checks import check
from scenarios.load import load
from scenarios.plan import plan

pytestmark = [pytest.mark.timeout(400), pytest.mark.xdist_group("jobs")]  # whole jobs; where many share the machine, each takes its time

ENDLESS = "protocol.stop.updates=1_000_000"


def test_a_killed_replica_and_a_killed_evaluator_come_back_and_the_summary_tells_of_them(job):
    running = job().begin()
    running.until(lambda: running.updates() > 50)
    running.signal("replica/1")
    running.signal("evaluator")
    code, summary, _ = running.end()
    assert (code, summary["status"], summary["updates"]) == (0, "done", 400)
    assert summary["accuracy"] > 0.9
    told = {fault["target"]: fault["bit"]["process"] for fault in summary["faults"] if fault["kind"] == "crash"}
    assert told.keys() == {"replica/1", "evaluator"}
    assert all("SIGKILL" in how for how in told.values())
    assert running.records("computed", "replica/1")[-1].life >= 2
    assert not running.left()
    part = plan(load(str(running.file))).network.initial().nbytes
    assert summary["messages"] >= 4 * 400, "a push and a fetch, and their replies"
    assert summary["bytes"] > 2 * 400 * part * 0.9


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["none", "snapshot"])
def test_a_killed_shard_comes_back_alone(job, durability):
    running = job(f"protocol.durability='{durability}'").begin()
    running.until(lambda: running.records("persisted", "shard/0") if durability == "snapshot" else running.updates() > 50)
    running.signal("shard/0")
    code, summary, _ = running.end()
    assert (code, summary["updates"]) == (0, 400)
    restored = running.records("restored", "shard/0")
    assert [record.life for record in restored] == [2]
    assert (restored[0].number > 0) == (durability == "snapshot")
    assert not [record for record in running.records("started") if record.peer.startswith("replica") and record.number > 1]
    assert check(running.records(), one_clock=False).violations == []


def test_a_job_without_its_launcher_ends_by_itself_with_a_summary(job):
    running = job().begin()
    running.until(lambda: running.updates() > 20)
    running.signal("launcher")
    running.end()
    running.until((running.path / "summary.json").exists)
    running.until(lambda: not running.left())
    assert '"status": "done"' in (running.path / "summary.json").read_text()
    assert (running.path / "model.safetensors").exists()


def test_ctrl_c_keeps_the_model_and_leaves_nobody_behind(job):
    running = job(ENDLESS).begin()
    running.until(lambda: running.records("evaluated"))
    assert running.pid("nursery/0")
    running.signal("launcher", signal.SIGINT)
    code, summary, _ = running.end()
    assert (code, summary["status"], summary["reason"]) == (130, "interrupted", "Ctrl-C")
    assert Path(summary["model"]).exists()
    assert Path(summary["journal"]).stat().st_size > 0
    assert not running.left()


@pytest.mark.slow
def test_ctrl_c_twice_ends_it_at_once(job):
    running = job(ENDLESS).begin()
    running.until(lambda: running.updates() > 20)
    running.signal("evaluator", signal.SIGSTOP)  # somebody who would be waited for
    assert running.pid("nursery/0")
    running.signal("launcher", signal.SIGINT)
    running.until(lambda: running.records("concluded", "supervisor"))
    running.signal("launcher", signal.SIGINT)
    code, summary, _ = running.end()
    assert (code, summary["status"]) == (130, "interrupted")
    running.until(lambda: not running.left())


def test_a_port_in_use_is_named(job):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, complaint = job(f"exec.port={port}").begin().end()
    assert code == 3
    assert f"port {port} of 127.0.0.1: it is in use" in complaint
    assert "Traceback" not in complaint


def test_a_machine_on_which_nothing_can_start_is_named(job):
    running = job("placement.python='/bin/false'").begin()
    code, _, complaint = running.end()
    assert code == 3
    assert "the agent of local ended with exit code 1" in complaint
    assert "Traceback" not in complaint
    assert not running.left()


def test_a_loss_that_is_no_number_fails_the_job_and_names_the_minibatch(job):
    code, summary, _ = job("protocol.rule={kind='sgd',learning_rate=1e30}").begin().end()
    assert (code, summary["status"]) == (4, "failed")
    assert "loss" in summary["reason"]
    assert "minibatch" in summary["reason"]


@pytest.mark.slow
def test_replicas_that_die_again_and_again_are_given_up_and_the_job_fails(job):
    running = job(ENDLESS).begin()
    running.until(lambda: running.updates() > 5)

    def kill_both() -> bool:
        for replica in ("replica/0", "replica/1"):
            if pid := running.pid(replica):
                os.kill(pid, signal.SIGKILL)
        return bool(running.records("concluded", "supervisor"))

    running.until(kill_both)
    code, summary, _ = running.end()
    assert (code, summary["status"]) == (4, "failed")
    assert "no replica is left" in summary["reason"]
    assert "SIGKILL" in summary["reason"]
    assert not running.left()


FAULTS = """
[[fault]]
kind = "crash"
target = "replica/0"
at = "12 s"
repair = "0.5 s"
[[fault]]
kind = "pause"
target = "replica/1"
at = "12.2 s"
for = "0.4 s"
[[fault]]
kind = "slowdown"
target = "replica/1"
at = "13 s"
for = "1 s"
factor = 4
[[fault]]
kind = "loss"
target = "replica/*"
at = "14 s"
for = "2 s"
probability = 0.2
[[fault]]
kind = "delay"
target = "replica/0"
by = "5 ms"
[[fault]]
kind = "duplication"
target = "shard/0"
probability = 0.2
[[fault]]
kind = "crash"
target = "supervisor"
at = "13.5 s"
repair = "0.3 s"
"""


def test_declared_faults_are_carried_out_and_reported_with_what_they_bit(job):
    running = job("protocol.stop={ time = '17 s' }", "protocol.deadline='1 s'", extra=FAULTS).begin()
    code, summary, _ = running.end()
    assert (code, summary["status"]) == (0, "done")
    crash, pause, slowdown, loss, delay, duplication, supervisor = summary["faults"][:7]
    assert crash["bit"]["crashed"] == 1
    assert pause["bit"] == {"paused": 1, "resumed": 1}
    assert slowdown["bit"]["slowed"] == 2
    assert loss["bit"]["dropped"] > 0
    assert delay["bit"]["delayed"] > 0
    assert duplication["bit"]["doubled"] > 0
    assert supervisor["bit"]["crashed"] == 1
    assert summary["duplicates"] > 0
    assert summary["accuracy"] > 0.8
    assert running.records("recovered", "supervisor")
    assert check(running.records(), one_clock=False).violations == []
