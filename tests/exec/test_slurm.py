"""A job in an allocation of Slurm, with daemons of its own, all of them on this host."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.exec.conftest import EXECCTL

if os.getuid() != 0 or not all(map(shutil.which, ("srun", "salloc", "slurmctld", "slurmd", "munged"))):
    pytest.skip("Slurm's daemons need root, and slurm-wlm and munge", allow_module_level=True)

CONFIGURATION = """
ClusterName=distbelief
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
SwitchType=switch/none
NodeName=n0 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1
PartitionName=all Nodes=n0,n1 Default=YES State=UP
"""


@pytest.fixture
def nodes(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two nodes that are idle."""
    folder = tmp_path_factory.mktemp("slurm")
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    (folder / "state").mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, ports=ports))
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    commands = (
        ["munged", "-F", "--force", f"--socket={folder}/munge.socket", *munge],
        ["slurmctld", "-D"],
        ["slurmd", "-D", "-N", "n0"],
        ["slurmd", "-D", "-N", "n1"],
    )
    daemons: list[subprocess.Popen[bytes]] = []
    with (folder / "log").open("wb") as log:
        try:
            for command in commands:
                daemons.append(subprocess.Popen(command, stdout=log, stderr=log))
                until((folder / "munge.socket").exists, folder)
            until(lambda: idle() == "2", folder)
            yield folder
        finally:
            subprocess.run(["scancel", "--me"], check=False)
            until(lambda: idle() == "2" or any(daemon.poll() is not None for daemon in daemons), folder)  # steps outlive their daemon
            for daemon in reversed(daemons):
                daemon.terminate()
            for daemon in daemons:
                daemon.wait(timeout=10)


def idle() -> str:
    """How many nodes are."""
    return subprocess.run(
        ["sinfo", "--noheader", "--states=idle", "--format=%D"], capture_output=True, text=True, check=False
    ).stdout.strip()


def until(condition, folder: Path) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, (folder / "log").read_text(errors="replace")[-2000:]
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_each_node_of_an_allocation_has_an_agent_that_is_started_again_if_it_dies(job, nodes):
    running = job("protocol.stop.updates=1000", extra="[placement]\non = 'slurm'\n")
    command = [*EXECCTL, "launch", str(running.file), "--out", str(running.path), *running.sets, "--json"]
    running.launcher = subprocess.Popen(
        ["salloc", "--quiet", "--nodes=2", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    running.until(lambda: running.updates() > 20, within_s=120)
    at = running.now()
    running.signal("agent/1")
    running.until(lambda: [one for one in running.records("enlisted") if one.time_s > at and one.peer == "machine/1"])
    code, summary, complaints = running.end(within_s=120)
    assert (code, summary.get("status")) == (0, "done"), complaints
    assert summary["accuracy"] > 0.9
    assert not running.left()


def test_outside_an_allocation_it_says_so(job, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_NODELIST", raising=False)
    code, _, complaint = job(extra="[placement]\non = 'slurm'\n").begin().end()
    assert code == 3
    assert "salloc" in complaint
