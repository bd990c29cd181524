"""Faults of processes and machines: crashed, taken away, stopped, slowed; of their disks and clocks.

Each begins when a strike of it does (`sim/faults.py`), and returns what undoes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from core.job import SUPERVISOR
from sim.device import Cause, Machine
from sim.host import Host

if TYPE_CHECKING:
    from sim.cluster import Cluster
    from sim.faults import Strike

Undo = Callable[[], None]


def crash(strike: Strike, cluster: Cluster) -> None:
    """Machines with all that is on them, and processes that run, or are about to; the supervisor's is one of them."""
    for machine in cluster.machines_named(strike.names):
        cluster.lose_machine(machine, strike.injected, strike.lasting_s)
    for running in [running for name in strike.names for running in cluster.processes_of(name)]:
        cluster.crash(running, strike.injected, strike.lasting_s)
    if SUPERVISOR in strike.names and strike.lasting_s is not None:
        cluster.head.crash(strike.injected, strike.lasting_s)


def preempt(strike: Strike, cluster: Cluster) -> None:
    """Its agent is told, and when the notice is over, the machine is gone."""
    for machine in cluster.machines_named(strike.names):
        if machine.up:
            cluster.record("preempted", machine.name, value=strike.fault.notice, note=strike.name)
            cluster.hands[machine.name].drain(strike.injected)
            cluster.at(cluster.now() + strike.fault.notice, partial(cluster.lose_machine, machine, strike.injected, strike.lasting_s))


def pause(strike: Strike, cluster: Cluster) -> Undo:
    """The processes that are paused are those that live now; one that is started meanwhile is another."""
    paused = [host for host in cluster.hosts_named(strike.names) if not host.life.paused]
    for host in paused:
        strike.bit["processes"] += 1
        cluster.record("paused", host.name, host.incarnation, note=strike.name)
        host.pause()
    return partial(resume, strike, cluster, paused)


def resume(strike: Strike, cluster: Cluster, paused: Iterable[Host]) -> None:
    for host in paused:
        if host.life.up:
            strike.bit["callbacks held"] += len(host.life.held)
            cluster.record("resumed", host.name, host.incarnation, note=strike.name)
            host.resume()


def slow_down(strike: Strike, cluster: Cluster) -> Undo:
    """A machine; where a role is meant, the one it lives on, or shall live on first."""
    machines = cluster.homes(strike.names)
    set_slowness(strike, cluster, machines, strike.fault.factor)
    return lambda: set_slowness(strike, cluster, machines, None)


def set_slowness(strike: Strike, cluster: Cluster, machines: Iterable[Machine], factor: float | None) -> None:
    for machine in machines:
        hosts = list(cluster.hosts_on(machine))
        before = machine.slowness
        for host in hosts:
            host.device.settle()
        if factor is None:
            del machine.slowdowns[strike]
        else:
            machine.slowdowns[strike] = factor
        for host in hosts:
            host.device.retime()
            host.retime(machine.slowness / before)
        cluster.record("slowed", machine.name, value=machine.slowness, note=strike.name)


def fill_disk(strike: Strike, cluster: Cluster) -> Undo:
    machines = cluster.homes(strike.names)
    for machine in machines:
        machine.full_disk[strike] = None
        cluster.record("filled", machine.name, note=strike.name)
    return partial(forget, strike, [machine.full_disk for machine in machines])


def slow_disk(strike: Strike, cluster: Cluster) -> Undo:
    machines = cluster.homes(strike.names)
    for machine in machines:
        set_disk_slowness(strike, machine, strike.fault.factor)
        cluster.record("choked", machine.name, value=strike.fault.factor, note=strike.name)

    def undo() -> None:
        for machine in machines:
            set_disk_slowness(strike, machine, None)

    return undo


def set_disk_slowness(strike: Strike, machine: Machine, factor: float | None) -> None:
    """What the disk has begun goes on at its new speed."""
    for store in machine.storing:
        store.settle()
    if factor is None:
        del machine.slow_disk[strike]
    else:
        machine.slow_disk[strike] = factor
    for store in machine.storing:
        store.retime()


def drift(strike: Strike, cluster: Cluster) -> Undo:
    """From now on, and right again at once when it is over.  The journal keeps true time."""
    machines, fault, since_s = cluster.homes(strike.names), strike.fault, cluster.now()
    for machine in machines:
        machine.drifts[strike] = lambda now_s: fault.step + fault.rate * (now_s - since_s)
        cluster.record("misled", machine.name, value=fault.rate, note=strike.name)
    return partial(forget, strike, [machine.drifts for machine in machines])


def forget(strike: Strike, kept: Iterable[dict[Cause, Any]]) -> None:
    for of_machine in kept:
        del of_machine[strike]
