"""Whole jobs of real processes: what becomes of them when a process is killed, Ctrl-C comes, or nothing can start."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exec.launch import Launch
from report.exits import StartError
from report.folder import RunFolder
from scenarios.load import load
from scenarios.plan import plan

SCENARIO = """
schema = 1
seed = 5
[model]
network = "mlp"
layers = [64, 64, 10]
[protocol]
kind = "downpour"
replicas = 2
shards = 1
batch = 16
rule = { kind = "adagrad", learning_rate = 0.05 }
deadline = "2 s"
evaluate_every = "1 s"
stop = { updates = 600 }
"""


class Job:
    """A launch in this process, and a way to do something to it once it has got so far."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        file = folder / "job.toml"
        file.write_text(SCENARIO)
        self.folder = RunFolder(folder / "run")
        self.overrides = overrides
        self.file = str(file)

    def run(self, after: int = 100, act: Callable[[Launch], Any] = lambda _: None) -> tuple[Launch, dict[str, Any]]:
        """To its end; `act` is called once `after` updates are applied."""

        async def job() -> Launch:
            launched = Launch(load(self.file, self.overrides), self.file, self.overrides, self.folder, "cpu")
            running = asyncio.create_task(launched.run())
            waiting = asyncio.create_task(launched.until(lambda: launched.seen["shard/0"].status.updates >= after))
            await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
            act(launched)
            waiting.cancel()
            await running
            return launched

        launched = asyncio.run(job())
        return launched, launched.summary(0.0)[0]


def kill(role: str) -> Callable[[Launch], None]:
    return lambda launched: os.kill(launched.processes[role].child.pid, signal.SIGKILL)


def nobody_is_left(launched: Launch) -> bool:
    return all(process.child.returncode is not None for process in launched.processes.values())


def test_a_killed_replica_does_not_stop_the_others(tmp_path):
    launched, summary = Job(tmp_path).run(act=kill("replica/1"))
    assert (summary["status"], summary["updates"]) == ("done", 600)
    assert summary["accuracy"] > 0.9
    assert [(death["kind"], death["target"]) for death in summary["faults"]] == [("crash", "replica/1")]
    assert "SIGKILL" in summary["faults"][0]["bit"]["process"]
    assert nobody_is_left(launched)


def test_a_killed_evaluator_is_started_again(tmp_path):
    _, summary = Job(tmp_path).run(act=kill("evaluator"))
    assert (summary["status"], summary["updates"]) == ("done", 600)
    assert summary["model"]


def test_a_killed_shard_ends_the_job_and_what_was_learnt_is_saved(tmp_path):
    launched, summary = Job(tmp_path).run(after=300, act=kill("shard/0"))
    assert summary["status"] == "failed"
    assert "shard/0 was killed by SIGKILL" in summary["reason"]
    assert summary["model"], "the evaluator keeps what it saw last"
    assert nobody_is_left(launched)


def test_ctrl_c_keeps_the_model_and_leaves_nobody_behind(tmp_path):
    launched, summary = Job(tmp_path, "protocol.stop.updates=1_000_000").run(act=Launch.interrupt)
    assert summary["status"] == "interrupted"
    assert Path(summary["model"]).exists()
    assert launched.folder.journal.stat().st_size > 0
    assert nobody_is_left(launched)


def test_all_replicas_killed_is_a_failed_job(tmp_path):
    def kill_all(launched: Launch) -> None:
        kill("replica/0")(launched)
        kill("replica/1")(launched)

    _, summary = Job(tmp_path, "protocol.stop.updates=1_000_000").run(act=kill_all)
    assert (summary["status"], summary["reason"]) == ("failed", "no replica is left")


def test_a_port_in_use_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=f"port {port} of 127.0.0.1: it is in use"):
            Job(tmp_path, f"exec.port={port}").run()


def test_a_process_that_cannot_start_is_named_with_its_last_words(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(StartError, match="shard/0 did not start: it ended with exit code 1"):
        Job(tmp_path).run()


def test_a_loss_that_is_no_number_fails_the_job_and_names_the_step(tmp_path):
    _, summary = Job(tmp_path, "protocol.rule={kind='sgd',learning_rate=1e30}").run()
    assert summary["status"] == "failed"
    assert "loss" in summary["reason"]


def test_the_summary_counts_what_passed_through_the_shards(tmp_path):
    job = Job(tmp_path, "protocol.replicas=1")
    _, summary = job.run()
    part = plan(load(job.file)).network.initial().nbytes
    assert summary["messages"] >= 4 * 600, "a push and a fetch, and their replies"
    assert summary["bytes"] > 2 * 600 * part * 0.9
