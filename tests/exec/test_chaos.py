"""Declared faults of processes, carried out in simulated time: whom they hit, for how long, and that nobody stays stopped."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from core.reports import Process
from exec.chaos import PERIOD_S, Faults, Interference
from exec.jobfile import Charge, JobFile
from exec.processes import Child, Processes, pid_file
from sim.loop import Life, SimLoop
from sim.strategies import scenario
from tests.sim.schedules import small

SHARD, SUCCESSOR, REPLICA = Process("shard/0", 1), Process("shard/0", 2), Process("replica/0", 1)


class Victims:
    """Processes that only note which signals they get, and when."""

    def __init__(self, loop: SimLoop, *running: Process) -> None:
        self.loop, self.running = loop, [*running]
        self.signals: dict[Process, list[tuple[float, int]]] = {}
        self.held: dict[Process, bool] = {}
        """Of those that were felled: may their role not begin again yet?"""

    def roles(self) -> dict[Process, str]:
        return {process: process.name for process in self.running}

    def send(self, process: Process, number: int) -> None:
        self.signals.setdefault(process, []).append((self.loop.time(), number))

    def fell(self, process: Process, _why: str, hold: asyncio.Future[None]) -> None:
        self.held[process] = not hold.done()
        self.send(process, signal.SIGKILL)
        self.running.remove(process)

    def stopped_s(self, process: Process) -> float:
        """For how long it stood still, altogether."""
        told = self.signals.get(process, [])
        return sum(later - earlier for (earlier, number), (later, _) in pairwise(told) if number == signal.SIGSTOP)


@pytest.fixture
def loop() -> SimLoop:
    return SimLoop()


def begin(loop: SimLoop, victims: Any, *tables: dict[str, Any], started_s: float = 0.0, machines: int = 2) -> asyncio.Task[None]:
    """Carry those faults out on the first of so many real machines, which came up at that time of the job."""
    tasks: list[asyncio.Task[None]] = []

    async def body() -> None:
        now = lambda: started_s + loop.time()  # noqa: E731
        job = scenario(small(*tables, durability="mirror") | {"placement": {"machines": machines}})
        faults = Faults(job, "machine/0", victims, now=now, record=lambda *_, **__: None)
        tasks.append(asyncio.ensure_future(faults.run()))

    Life("agent/0", 1, loop).start(body())
    loop.run(until=1e-9)
    return tasks[0]


def slowdown(at: str, lasts: str | None = None, target: str = "machine/0") -> dict[str, Any]:
    return {"kind": "slowdown", "target": target, "at": at, "factor": 4} | ({"for": lasts} if lasts else {})


def test_whoever_is_slowed_stands_still_for_its_part_of_the_time(loop: SimLoop) -> None:
    victims = Victims(loop, SHARD, REPLICA)
    begin(loop, victims, slowdown("1 s", "2 s", "shard/*"))
    loop.run(until=10.0)
    assert victims.stopped_s(SHARD) == pytest.approx(2.0 * 3 / 4, abs=PERIOD_S)
    assert not victims.signals.get(REPLICA)


def test_whoever_begins_while_it_lasts_is_as_slow(loop: SimLoop) -> None:
    victims = Victims(loop, SHARD)
    begin(loop, victims, slowdown("1 s", "2 s"))
    loop.run(until=2.0)
    victims.running[:] = [SUCCESSOR]
    loop.run(until=10.0)
    assert victims.stopped_s(SHARD) == pytest.approx(3 / 4, abs=PERIOD_S)
    assert victims.stopped_s(SUCCESSOR) == pytest.approx(3 / 4, abs=PERIOD_S)


@pytest.mark.parametrize(("lasts", "slow_s"), [("52 s", 2.0), ("40 s", 0.0), (None, 10.0)])
def test_a_machine_that_comes_up_after_its_beginning_is_slow_for_what_is_left_of_it(
    loop: SimLoop, lasts: str | None, slow_s: float
) -> None:
    victims = Victims(loop, SHARD)
    begin(loop, victims, slowdown("1 s", lasts), started_s=51.0)
    loop.run(until=10.0)
    assert victims.stopped_s(SHARD) == pytest.approx(slow_s * 3 / 4, abs=PERIOD_S)


@pytest.mark.parametrize("part", [0.1, 0.7, 0.8, 0.99])
@pytest.mark.parametrize(
    "fault", [slowdown("1 s"), {"kind": "pause", "target": "machine/0", "at": "1 s", "for": "9 s"}], ids=lambda one: one["kind"]
)
def test_whatever_ends_a_fault_nobody_stays_stopped(loop: SimLoop, fault: dict[str, Any], part: float) -> None:
    victims = Victims(loop, SHARD, REPLICA)
    task = begin(loop, victims, fault)
    loop.run(until=2.0 + part * PERIOD_S)
    task.cancel()
    loop.run(until=20.0)
    assert task.cancelled()
    assert victims.signals.keys() == {SHARD, REPLICA}
    assert all(signals[-1][1] == signal.SIGCONT for signals in victims.signals.values())


def test_whoever_is_promoted_while_it_is_stopped_does_not_stay_so(loop: SimLoop) -> None:
    class Promoted(Victims):
        def roles(self) -> dict[Process, str]:
            return {SHARD: "shard/0" if self.signals else "mirror/0"}

    victims = Promoted(loop, SHARD)
    begin(loop, victims, slowdown("1 s", "2 s", "mirror/0"))
    loop.run(until=10.0)
    assert [number for _, number in victims.signals[SHARD]] == [signal.SIGSTOP, signal.SIGCONT]


# on a process


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as child:
        yield child
        child.kill()


def crash(target: str) -> dict[str, Any]:
    return {"kind": "crash", "target": target, "at": "1 s", "repair": "1 h"}


@pytest.mark.parametrize("promoted", [True, False])
@pytest.mark.parametrize("target", ["shard/0", "mirror/0"])
def test_a_promoted_mirror_is_hit_as_the_shard_that_it_is_and_no_more_as_a_mirror(
    loop: SimLoop, tmp_path: Path, sleeper: subprocess.Popen[bytes], target: str, *, promoted: bool
) -> None:
    job = JobFile("0" * 32, "", "", (), "127.0.0.1:1", 0.0, str(tmp_path), "", "cpu", secure=False)
    hands = Processes(Charge(job, 0), tmp_path, lambda *_, **__: None, lambda *_: None)
    process = Process("mirror/0", 1)
    hands.children[process] = Child(process, tmp_path / "log", loop.create_future(), pid=sleeper.pid)
    for role in ("mirror/0", "shard/0") if promoted else ("mirror/0",):
        pid_file(tmp_path, role).write_text(f"{sleeper.pid}\n")
    begin(loop, hands, crash(target))
    loop.run(until=2.0)
    if promoted == (target == "shard/0"):
        assert sleeper.wait() == -signal.SIGKILL
        assert target in hands.holds
    else:
        assert sleeper.poll() is None


# one machine that plays all of them


@pytest.mark.parametrize(
    ("target", "hit", "held"), [("machine/0", SHARD, False), ("machine/4", REPLICA, False), ("replica/0", REPLICA, True)]
)
def test_a_machine_that_is_only_declared_is_that_of_its_role_which_begins_again_at_once(
    loop: SimLoop, target: str, hit: Process, *, held: bool
) -> None:
    victims = Victims(loop, SHARD, REPLICA)
    begin(loop, victims, crash(target), machines=1)
    loop.run(until=2.0)
    assert victims.held == {hit: held}


def test_of_several_real_machines_each_is_itself(loop: SimLoop) -> None:
    victims = Victims(loop, SHARD, REPLICA)
    begin(loop, victims, crash("machine/0"), crash("machine/4"))
    loop.run(until=2.0)
    assert victims.held == {SHARD: True, REPLICA: True}


RACKS = {"network": {"topology": {"kind": "racks", "racks": 2, "oversubscription": 2}}, "cluster": {"machines": 4}}
"""The shards and replica/2, which is beside shard/0, are in the first; replica/0 and replica/1 in the second."""


def fate(table: dict[str, Any], own: str, peer: str, at_s: float = 1.5) -> tuple[bool, bool, float]:
    """Whether the request is lost, and its reply; how long it takes longer."""
    job = scenario(small(table, replicas=3) | RACKS)
    interference = Interference.of(job, own, 1, "machine/0")
    assert interference is not None
    found = interference.judge(peer, at_s, lambda *_, **__: None)
    return found.request_lost, found.reply_lost, found.delay_s


@pytest.mark.parametrize(
    ("keys", "own", "peer", "lost"),
    [
        ({"target": "replica/0"}, "replica/0", "shard/0", (True, True)),
        ({"target": "replica/0"}, "replica/1", "shard/0", (False, False)),
        ({"target": "shard/*"}, "shard/0", "shard/1", (False, False)),
        ({"target": "replica/0", "direction": "out"}, "replica/0", "shard/0", (True, False)),
        ({"target": "replica/0", "direction": "in"}, "replica/0", "shard/0", (False, True)),
        ({"target": "shard/0", "direction": "out"}, "replica/0", "shard/0", (False, True)),
        ({"target": "replica/0", "from": "shard/1"}, "replica/0", "shard/0", (False, False)),
        ({"target": "replica/0", "from": "shard/1"}, "replica/0", "shard/1", (True, True)),
        ({"target": "machine/0"}, "replica/1", "shard/0", (True, True)),
        ({"target": "machine/0"}, "replica/0", "replica/1", (False, False)),
        ({"target": "rack/0"}, "replica/0", "shard/1", (True, True)),
        ({"target": "machine/0"}, "replica/2", "shard/0", (False, False)),
        ({"target": "rack/1"}, "replica/1", "supervisor", (True, True)),
    ],
)
def test_a_cut_loses_what_passes_between_inside_and_outside(keys: dict[str, Any], own: str, peer: str, lost: tuple[bool, bool]) -> None:
    table = {"kind": "cut", "at": "1 s", "for": "1 s"} | keys
    assert fate(table, own, peer)[:2] == lost
    assert fate(table, own, peer, at_s=2.5)[:2] == (False, False)


def test_whatever_shall_be_overtaken_is_held_up_for_a_time_that_is_drawn() -> None:
    table = {"kind": "reordering", "target": "replica/0", "probability": 1.0, "by": {"exponential": {"mean": "20 ms"}}}
    held_up = {fate(table, "replica/0", f"shard/{number}")[2] for number in range(2)}
    assert all(seconds > 0 for seconds in held_up)
    assert fate(table, "replica/1", "shard/0") == (False, False, 0.0)
