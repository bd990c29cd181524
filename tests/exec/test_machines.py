"""Jobs on several machines: agents side by side on this one, and network namespaces, each with a cable that can be pulled.

The launcher has a namespace too, so that nothing here ever touches a network of the host's.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.exec.conftest import EXECCTL, Job

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("jobs"),
]  # several machines' processes at once, on as few cores as there are

LONGER = "protocol.stop.updates=1500"


def home(running: Job, role: str) -> str:
    """The machine on which a role lives, or lived last."""
    granted = [record for record in running.records("granted", "supervisor") if record.peer == role]
    return granted[-1].note if granted else ""


def since(running: Job, at: float, event: str, peer: str = "") -> Callable[[], Any]:
    """Has that happened since?  Its records."""
    return lambda: [record for record in running.records(event) if record.time_s > at and peer in ("", record.peer)]


def good_end(running: Job, updates: int = 1500) -> dict[str, Any]:
    """It ends by itself, has learnt what it should, and nothing of it is left."""
    code, summary, complaints = running.end()
    assert (code, summary.get("status")) == (0, "done"), complaints
    assert summary["updates"] >= updates
    assert summary["accuracy"] > 0.9
    assert (running.path / "model.safetensors").stat().st_size > 0
    assert not running.left()
    return summary


# side by side on this machine


@pytest.mark.slow
def test_a_killed_agent_takes_its_roles_along_and_the_job_goes_on(job):
    running = job(LONGER, extra="[placement]\nmachines = 3\n").begin()
    running.until(lambda: running.updates() > 100, within_s=90)
    assert len({home(running, role) for role in ("shard/0", "replica/0", "replica/1")}) == 3, "roles are spread"
    lost = home(running, "shard/0")
    running.signal(lost.replace("machine", "agent"))
    at = running.now()
    running.until(since(running, at, "granted", "shard/0"))
    running.until(since(running, at, "enlisted", lost))
    again = running.now()
    running.until(lambda: len(since(running, again, "applied")()) > 100)
    hurt = [record for record in since(running, at, "crashed")() if record.node != lost.replace("machine", "agent")]
    assert not hurt, "other machines' roles live on"
    good_end(running)


@pytest.mark.slow
def test_an_agent_that_is_told_to_end_leaves_its_roles_to_others_and_the_job_goes_on(job):
    running = job(LONGER, extra="[placement]\nmachines = 3\n").begin()
    running.until(lambda: running.updates() > 100, within_s=90)
    leaving, at = home(running, "evaluator"), running.now()
    running.signal(leaving.replace("machine", "agent"), signal.SIGTERM)
    running.until(since(running, at, "left", leaving))
    running.until(since(running, at, "granted", "evaluator"))
    good_end(running)


@pytest.mark.slow
def test_what_machines_write_on_their_own_disks_is_brought_to_the_run_folder(job):
    running = job(extra="[placement]\nmachines = 3\nstorage = 'machine'\n").begin()
    good_end(running, 400)
    homes = {role: home(running, role) for role in ("shard/0", "replica/0", "replica/1", "evaluator")}
    for role, machine in homes.items():
        theirs = running.path / "machines" / machine.rpartition("/")[2]
        name = f"journals/{role.replace('/', '-')}.1.tsv"
        assert (theirs / name).read_bytes() == (running.path / name).read_bytes()
    assert [path.name for path in (running.path / "store").iterdir()] == ["supervisor"], "what a shard keeps stays where it is"


@pytest.mark.slow
def test_a_job_that_fits_nowhere_says_what_is_missing(job):
    running = job("placement.shard={gpus=1}", "exec.start_within='3 s'", extra="[placement]\nmachines = 2\n").begin()
    code, _, complaints = running.end()
    assert code == 3
    assert "shard/0" in complaints
    assert "gpus: 1 wanted, 0 free" in complaints
    assert not running.left()


# cables


class Cables:
    """Machines as namespaces of this host's network, on one switch; the launcher's is the switch itself."""

    ADDRESS = "10.77.0.1"

    def __init__(self, count: int) -> None:
        self.hub = f"odb{os.getpid()}-hub"
        self.machines = [f"odb{os.getpid()}-{number}" for number in range(count)]
        self.made: list[str] = []

    def lay(self) -> None:
        for namespace in (self.hub, *self.machines):
            ip("netns", "add", namespace)
            self.made.append(namespace)
            ip("-n", namespace, "link", "set", "lo", "up")
        ip("-n", self.hub, "link", "add", "switch", "type", "bridge")
        ip("-n", self.hub, "address", "add", f"{self.ADDRESS}/24", "dev", "switch")
        ip("-n", self.hub, "link", "set", "switch", "up")
        for number, machine in enumerate(self.machines):
            ip("-n", self.hub, "link", "add", f"cable{number}", "type", "veth", "peer", "name", "eth0", "netns", machine)
            ip("-n", self.hub, "link", "set", f"cable{number}", "master", "switch", "up")
            ip("-n", machine, "address", "add", f"10.77.0.{number + 2}/24", "dev", "eth0")
            ip("-n", machine, "link", "set", "eth0", "up")

    def pull(self, machine: str) -> None:
        ip("-n", self.hub, "link", "set", f"cable{machine.rpartition('/')[2]}", "down")

    def plug(self, machine: str) -> None:
        ip("-n", self.hub, "link", "set", f"cable{machine.rpartition('/')[2]}", "up")

    def remove(self) -> None:
        for namespace in self.made:
            ip("netns", "delete", namespace)

    def placement(self) -> str:
        return f"""
[placement]
on = "ssh"
hosts = {self.machines}
through = ["ip", "netns", "exec", "{{host}}"]
[exec]
listen = "{self.ADDRESS}"
"""

    def begin(self, running: Job) -> None:
        """Launch it at the switch."""
        command = [*through(self.hub), *EXECCTL, "launch", str(running.file), "--out", str(running.path), *running.sets, "--json"]
        running.launcher = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )  # fmt: skip


def through(namespace: str) -> list[str]:
    return ["ip", "netns", "exec", namespace]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def cables() -> Iterator[Cables]:
    if os.getuid() != 0 or not shutil.which("ip"):
        pytest.skip("network namespaces need root and ip(8)")
    cables = Cables(4)
    try:
        cables.lay()
    except subprocess.CalledProcessError as error:
        cables.remove()
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    yield cables
    cables.remove()


STRANGER = """
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.set_alpn_protocols(["h2"])
if sys.argv[3:]:
    context.load_cert_chain(*sys.argv[3:])
with context.wrap_socket(socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)) as way:
    way.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n")
    sys.exit(0 if way.recv(100) else "not heard")
"""


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["snapshot", "mirror"])
def test_a_pulled_cable_moves_its_roles_elsewhere_until_it_is_plugged_in_again(job, cables, durability):
    running = job(LONGER, f"protocol.durability='{durability}'", extra=cables.placement())
    cables.begin(running)
    running.until(lambda: running.updates() > 100, within_s=90)
    lost = home(running, "shard/0")
    cables.pull(lost)
    at = running.now()
    moved = "promoted" if durability == "mirror" else "granted"
    assert durability != "mirror" or home(running, "mirror/0") != lost
    running.until(since(running, at, moved, "shard/0"))
    running.until(lambda: len(since(running, at + 3, "applied")()) > 100)
    cables.plug(lost)
    healed = running.now()
    running.until(since(running, healed, "enlisted", lost))
    good_end(running)


@pytest.mark.slow
def test_on_a_network_nobody_without_a_certificate_of_the_job_is_heard(job, cables):
    running = job(extra=cables.placement())
    cables.begin(running)
    running.until(lambda: running.updates() > 10, within_s=90)
    assert (running.path / "certificates" / "operator.key").stat().st_mode & 0o077 == 0
    address = running.file_of_job.supervisor.split(":")
    ours = [str(running.path / "certificates" / f"operator.{kind}") for kind in ("pem", "key")]
    for shown, heard in (([], False), (ours, True)):
        stranger = subprocess.run([*through(cables.hub), EXECCTL[0], "-c", STRANGER, *address, *shown], check=False, timeout=20)
        assert (stranger.returncode == 0) == heard
    operator = subprocess.run(
        [*through(cables.hub), *EXECCTL, "status", str(running.path), "--json"], capture_output=True, text=True, check=False, timeout=20
    )
    assert operator.returncode == 0, operator.stderr
    good_end(running, 400)
