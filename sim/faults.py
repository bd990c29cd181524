"""Faults, as the scenario declares them, carried out on the simulated cluster at their times.

Each keeps count of what it bit (processes, messages, computing time), because a fault that bit nothing says that the
scenario did not test what its author believes.
"""

from __future__ import annotations

import fnmatch
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from core import chance
from core.job import SUPERVISOR
from scenarios.faults import Crash
from sim.device import Machine
from sim.host import REQUEST, Call, Host, Twin

if TYPE_CHECKING:
    from sim.cluster import Cluster


@dataclass(slots=True)
class Injected:
    """One declared fault and what it has bitten so far."""

    index: int
    fault: Any
    bit: Counter[str] = field(default_factory=Counter)

    @property
    def name(self) -> str:
        return f"fault.{self.index} {self.fault.kind}"

    @property
    def until_s(self) -> float:
        """When it is over, or the last moment at which it may still do something new."""
        lasting: float | None = getattr(self.fault, "for_", None) or getattr(self.fault, "repair", None)
        return float(self.fault.at) + (lasting or 0.0)

    def hits(self, name: str) -> bool:
        return fnmatch.fnmatchcase(name, self.fault.target)

    def report(self) -> dict[str, Any]:
        """For the summary: what was declared, and what it did."""
        at = getattr(self.fault, "at", None)
        bit = {key: round(value, 9) if isinstance(value, float) else value for key, value in sorted(self.bit.items()) if value}
        return {"kind": self.fault.kind, "target": self.fault.target, "at_s": at, "bit": bit}


def schedule(faults: Iterable[Any], cluster: Cluster, seed: int) -> list[Injected]:
    """Plan every fault; returns them, to be read when the run is over."""
    injected = [Injected(index, fault) for index, fault in enumerate(faults)]
    for one in injected:
        cluster.at(one.fault.at, partial(BEGIN[one.fault.kind], one, cluster, chance.stream(seed, one.name, "draws")))
    return injected


def crash(one: Injected, cluster: Cluster, _: random.Random) -> None:
    """Processes that run, or are about to; the supervisor's is one of them."""
    fault: Crash = one.fault
    for name in filter(one.hits, cluster.machines):
        cluster.lose_machine(cluster.machines[name], one, fault.repair)
    for running in [running for running in cluster.running() if one.hits(running.role)]:
        cluster.crash(running, one, fault.repair)
    if one.hits(SUPERVISOR) and fault.repair is not None:
        cluster.head.crash(one, fault.repair)


def pause(one: Injected, cluster: Cluster, _: random.Random) -> None:
    """The processes that are paused are those that live now; one that is started meanwhile is another."""
    hosts = [host for host in cluster.living() if one.hits(host.name) or one.hits(host.machine.name)]
    hosts += [hands.host for name, hands in cluster.hands.items() if one.hits(name) and hands.host is not None]
    for host in hosts:
        if not host.life.paused:
            one.bit["processes"] += 1
            cluster.record("paused", host.name, host.incarnation, note=one.name)
            host.pause()
            cluster.at(cluster.now() + one.fault.for_, partial(resume, one, cluster, host))


def resume(one: Injected, cluster: Cluster, host: Host) -> None:
    if host.life.up:
        one.bit["callbacks held"] += len(host.life.held)
        cluster.record("resumed", host.name, host.incarnation, note=one.name)
        host.resume()


def slow_down(one: Injected, cluster: Cluster, _: random.Random) -> None:
    """A machine; where a role is meant, the one it lives on, or shall live on first."""
    hit = [machine for name, machine in cluster.machines.items() if one.hits(name)]
    hit += [cluster.home(role) for role in (*cluster.roles, SUPERVISOR) if one.hits(role)]
    machines = list(dict.fromkeys(hit))
    set_slowness(one, cluster, machines, one.fault.factor)
    if one.fault.for_ is not None:
        cluster.at(cluster.now() + one.fault.for_, lambda: set_slowness(one, cluster, machines, None))


def set_slowness(one: Injected, cluster: Cluster, machines: Iterable[Machine], factor: float | None) -> None:
    for machine in machines:
        hosts = [host for host in cluster.living() if host.machine is machine]
        before = machine.slowness
        for host in hosts:
            host.device.settle()
        if factor is None:
            del machine.slowdowns[one.index]
        else:
            machine.slowdowns[one.index] = factor
        for host in hosts:
            host.device.retime()
            host.retime(machine.slowness / before)
        cluster.record("slowed", machine.name, value=machine.slowness, note=one.name)


class Meddling:
    """A fault of messages: of those to and from the roles and machines that it is aimed at."""

    def __init__(self, one: Injected, cluster: Cluster, stream: random.Random) -> None:
        self.one, self.cluster, self.stream, self.name = one, cluster, stream, one.name
        self.names = frozenset(filter(one.hits, (*cluster.roles, SUPERVISOR, *cluster.machines)))

    def concerns(self, call: Call) -> bool:
        names, source, destination = self.names, call.caller, call.to
        return source.name in names or destination.name in names or source.machine.name in names or destination.machine.name in names


class Loss(Meddling):
    def __call__(self, call: Call) -> float | None:
        if self.concerns(call) and self.stream.random() < self.one.fault.probability:
            self.one.bit["messages"] += 1
            return None
        return 0.0


class Delay(Meddling):
    def __call__(self, call: Call) -> float | None:
        if not self.concerns(call):
            return 0.0
        self.one.bit["messages"] += 1
        return float(self.one.fault.by)


class Duplication(Meddling):
    def __call__(self, call: Call) -> float | None:
        if call.stage == REQUEST and type(call) is not Twin and self.concerns(call) and self.stream.random() < self.one.fault.probability:
            self.one.bit["messages"] += 1
            self.cluster.record("doubled", call.to.name, note=self.name)
            twin = call.twin()
            self.cluster.network.send(twin, call.caller.machine, call.to.machine, call.nbytes)
        return 0.0


def meddle(kind: type[Meddling], one: Injected, cluster: Cluster, stream: random.Random) -> None:
    meddler: Any = kind(one, cluster, stream)
    meddlers = cluster.network.meddlers
    meddlers.append(meddler)
    if one.fault.for_ is not None:
        cluster.at(cluster.now() + one.fault.for_, lambda: meddlers.remove(meddler))


BEGIN: dict[str, Callable[[Injected, Cluster, random.Random], None]] = {
    "crash": crash, "pause": pause, "slowdown": slow_down,
    "loss": partial(meddle, Loss), "delay": partial(meddle, Delay), "duplication": partial(meddle, Duplication),
}  # fmt: skip
"""What each kind of fault does when its time has come."""
