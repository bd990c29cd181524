"""What an operator does to a job: looks at it, stops it, goes on with it, takes its model out; and what a stranger cannot do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file
from torch import nn

from core.checks import check
from core.job import SUPERVISOR
from core.journal import read
from core.messages import TimedOut
from exec.resuming import ASKED, answers
from tests.core.fakes import LoopNode
from tests.exec.conftest import Job, execctl

pytestmark = [pytest.mark.timeout(400), pytest.mark.xdist_group("jobs")]  # whole jobs; where many share the machine, each takes its time

UPDATES = 3000
"""Of the job that is looked at: some ten seconds."""
ENDLESS = "protocol.stop.updates=1_000_000"


def loads_into_the_plain_module(model: Path) -> bool:
    plain = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    plain.load_state_dict(load_file(model))
    return True


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """One job: looked at, stopped, exported, resumed, done; and what each command said."""
    folder = tmp_path_factory.mktemp("story")
    running = Job(folder, f"protocol.stop.updates={UPDATES}").begin()
    try:
        running.until(lambda: running.updates() > 60)
        running.until(lambda: running.records("evaluated"))
        told = SimpleNamespace(job=running, folder=folder)
        told.status, told.table = execctl("status", running.path, "--json"), execctl("status", running.path)
        told.logs = execctl("logs", running.path)
        told.resume_while_running = execctl("resume", running.path)
        asleep = running.signal(SUPERVISOR, signal.SIGSTOP)
        told.resume_while_asleep, told.asleep = execctl("resume", running.path), asleep
        os.kill(asleep, signal.SIGCONT)
        stranger = folder / "stranger"
        stranger.mkdir()
        replace(running.file_of_job, job="f" * 32, folder=str(stranger)).write()
        told.stranger, told.stop_of_stranger = execctl("status", stranger), execctl("stop", stranger)
        running.until(running.overview)
        told.stop = execctl("stop", running.path)
        told.stopped = running.end()
        told.left = running.left()
        told.export_stopped = execctl("export", running.path, "--out", folder / "stopped.safetensors")
        (running.path / "model.safetensors").unlink()
        told.export_kept = execctl("export", running.path, "--out", folder / "kept.safetensors")
        told.kept = max(record.number for record in running.records("persisted", "shard/0"))
        running.begin("resume", running.path)
        told.resumed = running.end()
        told.resume_when_done = execctl("resume", running.path)
        told.export_done = execctl("export", running.path, "--out", folder / "done.safetensors")
        told.status_when_done = execctl("status", running.path)
        yield told
    finally:
        running.clear()


def test_status_shows_everybody_with_process_and_life(story):
    told = json.loads(story.status.stdout)
    assert told["phase"] == "running"
    assert told["roles"].keys() == {"shard/0", "replica/0", "replica/1", "evaluator"}
    assert all(role["state"] == "up" and role["process"] and role["life"] == 1 for role in told["roles"].values())
    assert told["roles"]["shard/0"]["updates"] > 0
    assert told["machines"]["machine/0"]["state"] == "up"
    assert all(name in story.table.stdout for name in told["roles"])


def test_logs_shows_the_files_of_a_job(story):
    assert story.logs.exit_code == 0, story.logs.stderr


def test_stop_saves_what_was_learnt_and_leaves_nobody(story):
    code, summary, _ = story.stopped
    assert story.stop.exit_code == 0, story.stop.stderr
    assert "execctl stop" in story.stop.stdout
    assert (code, summary["status"], summary["reason"]) == (130, "interrupted", "execctl stop")
    assert not story.left


def test_resume_goes_on_from_what_was_kept_to_the_end(story):
    code, summary, complaint = story.resumed
    assert (code, summary["status"]) == (0, "done"), complaint
    restored = story.job.records("restored", "shard/0")
    assert [(record.life, record.number) for record in restored] == [(2, story.kept)]
    finished = story.job.records("finished", "shard/0")[-1]
    assert finished.number == UPDATES
    assert summary["accuracy"] > 0.9
    assert check(story.job.records(), one_clock=False).violations == []


@pytest.mark.parametrize(
    ("when", "why"),
    [("resume_while_running", "is running"), ("resume_while_asleep", "does not answer just now"), ("resume_when_done", "is done")],
)
def test_what_cannot_be_resumed_is_refused_with_one_clear_message(story, when, why):
    said = getattr(story, when)
    assert said.exit_code in (2, 3)
    assert said.stderr.startswith("error: the job of ")
    assert why in said.stderr
    assert len(said.stderr.splitlines()) == 1


def test_whoever_may_not_resume_because_the_supervisor_sleeps_is_told_what_to_do(story):
    assert f"kill -9 {story.asleep}" in story.resume_while_asleep.stderr


@dataclass
class Busy:
    """A supervisor that does not answer the first calls."""

    calls: int

    async def inquire(self) -> None:
        self.calls -= 1
        if self.calls >= 0:
            raise TimedOut("supervisor did not answer in time")


@pytest.mark.parametrize(("busy", "answered"), [(0, True), (ASKED - 1, True), (ASKED, False)])
def test_a_supervisor_that_is_busy_for_a_moment_is_asked_again(busy, answered):
    assert LoopNode().run(answers(Busy(busy))) == answered


def test_a_status_of_a_job_that_is_over_says_so(story):
    assert story.status_when_done.exit_code == 3
    assert "the job is over" in story.status_when_done.stderr


@pytest.mark.parametrize("which", ["stopped", "kept", "done"])
def test_an_exported_model_loads_into_the_plain_module(story, which):
    said = getattr(story, f"export_{which}")
    assert said.exit_code == 0, said.stderr
    assert loads_into_the_plain_module(story.folder / f"{which}.safetensors")


@pytest.mark.parametrize("which", ["stranger", "stop_of_stranger"])
def test_a_stranger_with_another_jobs_identity_is_refused_and_the_journal_says_so(story, which):
    said = getattr(story, which)
    assert said.exit_code == 3
    assert said.stderr.startswith("error: ")
    assert "Traceback" not in said.stderr
    refused = [record for record in story.job.records("refused", SUPERVISOR) if "job" in record.note]
    assert len(refused) >= 2


def test_explain_prints_every_time_that_follows():
    said = execctl("explain", "quickstart", "--set", "protocol.detect_within='2 s'")
    assert said.exit_code == 0, said.stderr
    for name in ("beat", "silence", "deadline", "steady", "orphan"):
        assert name in said.stdout


@pytest.fixture(scope="module", params=["snapshot", "log"])
def ruin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    """A job all of whose processes were killed at once."""
    running = Job(tmp_path_factory.mktemp("ruin"), "protocol.stop.updates=500", f"protocol.durability='{request.param}'").begin()
    try:
        running.until(lambda: len(running.records("persisted", "shard/0")) > 1 and running.updates() > 60)
        everybody = [running.pid("launcher"), running.pid("nursery/0"), *running.processes()]
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in everybody:
                os.kill(pid, number)
        running.end()
        running.until(lambda: not running.left())
        yield running
    finally:
        running.clear()


def copy_of(ruin: Job, folder: Path) -> Job:
    """Another job with the same past."""
    shutil.copytree(ruin.path, folder / "run")
    copied = Job(folder)
    copied.file.write_bytes(ruin.file.read_bytes())
    return copied


@pytest.mark.slow
def test_a_job_whose_processes_were_all_killed_goes_on_where_it_was(ruin, tmp_path):
    running = copy_of(ruin, tmp_path)
    try:
        code, summary, complaint = running.begin("resume", running.path).end()
    finally:
        running.clear()
    assert (code, summary["status"]) == (0, "done"), complaint
    restored = running.records("restored", "shard/0")[0]
    assert restored.number > 0
    assert summary["accuracy"] > 0.9
    assert check(running.records(), one_clock=False).violations == []


@pytest.mark.slow
def test_a_corrupted_store_is_named_and_nothing_is_made_of_it(ruin, tmp_path):
    running = copy_of(ruin, tmp_path)
    store = running.path / "store" / "shard-0"
    damaged = next(iter([*sorted(store.glob("log.*")), *store.glob("snapshot.*/vectors.safetensors")]))
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    try:
        code, summary, complaint = running.begin("resume", running.path).end()
    finally:
        running.clear()
    assert code == 4
    assert str(damaged.relative_to(running.path)) in summary["reason"], complaint
    assert summary["model"] is None
    assert [record for record in running.records("applied", "shard/0") if record.life > 1] == []


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """The folder of a shard's store, on a disk that holds next to nothing."""
    folder = tmp_path / "run" / "store" / "shard-0"
    folder.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_ends_a_job_whose_pushes_are_logged_and_the_message_names_it(full_disk, tmp_path):
    running = Job(tmp_path, ENDLESS, "protocol.durability='log'")
    try:
        code, summary, _ = running.begin().end()
    finally:
        running.clear()
    assert code == 4
    assert str(full_disk) in summary["reason"]
    assert "No space left" in summary["reason"]
    assert not running.left()


@pytest.mark.slow
def test_a_full_disk_does_not_end_a_job_that_only_makes_snapshots(full_disk, tmp_path):
    (full_disk / "ballast").write_bytes(bytes(48 << 10))
    running = Job(tmp_path, "protocol.stop.updates=150", "protocol.durability='snapshot'")
    try:
        code, summary, complaint = running.begin().end()
    finally:
        running.clear()
    assert (code, summary["status"]) == (0, "done"), complaint
    assert running.records("unwritten", "shard/0")
    with Path(summary["journal"]).open(encoding="utf-8") as lines:
        assert check(read(lines), one_clock=False).violations == []
