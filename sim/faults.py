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
from scenarios.schema import Crash
from sim.device import Machine

if TYPE_CHECKING:
    from sim.cluster import Cluster, Role


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
        lasting: float | None = getattr(self.fault, "for_", None)
        return float(self.fault.at) + (lasting or 0.0)

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
    fault: Crash = one.fault
    for machine in fnmatch.filter(cluster.machines, fault.target):
        cluster.lose_machine(cluster.machines[machine], one, fault.repair)
    for role in fnmatch.filter(cluster.roles, fault.target):
        cluster.crash(cluster.roles[role], one, fault.repair)


def pause(one: Injected, cluster: Cluster, _: random.Random) -> None:
    """The processes that are paused are those that live now; one that is restarted meanwhile is another."""
    for role in targeted(one, cluster):
        if role.host is not None and not role.host.life.paused:
            host = role.host
            one.bit["processes"] += 1
            cluster.record("paused", role.name, note=one.name)
            host.device.pause()
            host.life.pause()
            cluster.at(cluster.now() + one.fault.for_, partial(resume, one, cluster, role, host))


def resume(one: Injected, cluster: Cluster, role: Role, host: Any) -> None:
    if host.life.up:
        one.bit["callbacks held"] += len(host.life.held)
        cluster.record("resumed", role.name, note=one.name)
        host.device.resume()
        host.life.resume()


def slow_down(one: Injected, cluster: Cluster, _: random.Random) -> None:
    machines = {role.machine.name: role.machine for role in targeted(one, cluster)}
    set_slowness(one, cluster, machines.values(), one.fault.factor)
    if one.fault.for_ is not None:
        cluster.at(cluster.now() + one.fault.for_, lambda: set_slowness(one, cluster, machines.values(), None))


def set_slowness(one: Injected, cluster: Cluster, machines: Iterable[Machine], factor: float | None) -> None:
    for machine in machines:
        hosts = [role.host for role in cluster.roles.values() if role.machine is machine and role.host is not None]
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


def lose(one: Injected, cluster: Cluster, stream: random.Random) -> None:
    machines = {role.machine.name for role in targeted(one, cluster)}

    def leak(source: Machine, destination: Machine) -> str:
        if (source.name in machines or destination.name in machines) and stream.random() < one.fault.probability:
            one.bit["messages"] += 1
            return one.name
        return ""

    cluster.network.leaks.append(leak)
    if one.fault.for_ is not None:
        cluster.at(cluster.now() + one.fault.for_, lambda: cluster.network.leaks.remove(leak))


def targeted(one: Injected, cluster: Cluster) -> list[Role]:
    """The roles that a fault is aimed at, by their names or by their machines'."""
    target = one.fault.target
    return [
        role for role in cluster.roles.values() if fnmatch.fnmatchcase(role.name, target) or fnmatch.fnmatchcase(role.machine.name, target)
    ]


BEGIN: dict[str, Callable[[Injected, Cluster, random.Random], None]] = {
    "crash": crash, "pause": pause, "slowdown": slow_down, "loss": lose,
}  # fmt: skip
"""What each kind of fault does when its time has come."""
