"""The simulated cluster: machines, the roles that live on them, and who starts, restarts and ends them.

It stands where a supervisor will stand: it grants incarnations, starts a new life after a repair, and knows when the job is
over.  A shard's new life begins from its last durable snapshot, or from the initial parameters if it has none.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from core import chance
from core.downpour import replica
from core.evaluator import Final, evaluator
from core.job import EVALUATOR, role_number
from core.journal import Journal, one_line
from core.messages import Refused
from core.shard import Shard, Snapshot
from core.work import Diverged
from scenarios.load import role_names
from scenarios.plan import Plan
from sim import faults
from sim.device import Device, Machine
from sim.host import Host
from sim.loop import Life, SimLoop
from sim.network import Network


@dataclass(slots=True, eq=False)
class Role:
    """A role, where it lives, and its present life if it has one."""

    name: str
    machine: Machine
    incarnation: int = 0
    host: Host | None = None
    ended: bool = False
    """It came to its end by itself; it is not started again."""
    restarting: bool = False
    """A new life will come, at the latest restart that was planned; a crash in between has a repair of its own."""
    restarts: int = 0
    snapshot: Snapshot | None = None
    """What of a shard is durable."""
    lost: tuple[faults.Injected, float] | None = None
    """Which fault took its last life, and when."""


class Cluster:
    """One job on simulated machines."""

    def __init__(self, plan: Plan, journal: Journal, loop: SimLoop) -> None:
        self.plan, self.journal, self.loop = plan, journal, loop
        scenario, self.seed = plan.scenario, plan.scenario.seed
        self.real = scenario.numerics == "real"
        self._record = journal.recorder("cluster", 0, loop.now)
        self.network = Network(loop, scenario.network.latency, fifo=scenario.network.model == "fifo")
        self.network.on_dropped = lambda message, why: self.record("dropped", message.destination.name, int(message.nbytes), note=why)
        names = role_names(scenario.protocol, real=self.real)
        self.machines = {m.name: m for m in (self.machine(number) for number in range(scenario.cluster.machines or len(names)))}
        machines = list(self.machines.values())
        self.roles = {name: Role(name, machines[index % len(machines)]) for index, name in enumerate(names)}
        self.done = loop.env.event()
        self.failed = ""
        self.final: Final | None = None
        self.over = asyncio.Event()
        self.lost_updates = 0
        self._initial = plan.network.initial()
        self._last_progress = (0, 0.0)
        self.faults = faults.schedule(scenario.fault, self, self.seed)
        journal.watch("finished", lambda *_: self.consider_end())

    # the world

    def machine(self, number: int) -> Machine:
        cluster, name = self.plan.scenario.cluster, f"machine/{number}"
        speed = chance.stream(self.seed, name, "speed").lognormvariate(0.0, cluster.speed.sigma) if cluster.speed.sigma else 1.0
        return Machine(name, round(cluster.speed.median * speed), cluster.memory, cluster.disk, self.plan.scenario.network.nic)

    def now(self) -> float:
        return self.loop.env.now

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        """Do it then, in no life's context."""
        self.loop.call_at(time_s, action)

    def record(self, event: str, peer: str = "", number: int = 0, value: float = 0.0, note: str = "") -> None:
        self._record(event, peer, number, value, note)

    # lives

    def begin(self) -> None:
        """Start every role, and look after the job from time to time."""
        for role in self.roles.values():
            self.restart(role)
        self.at(self.watch_s, self.watch)

    def restart(self, role: Role, after_s: float = 0.0) -> None:
        role.restarting, role.ended = True, False
        role.restarts += 1
        self.at(self.now() + after_s + self.plan.scenario.cluster.start_up, functools.partial(self.start, role, role.restarts))

    def start(self, role: Role, restart: int) -> None:
        """A new life of a role, with the next incarnation."""
        if restart != role.restarts:
            return
        assert role.machine.up and role.host is None  # noqa: PT018
        role.restarting = False
        role.incarnation += 1
        life = Life(role.name, role.incarnation, self.loop)
        protocol, sigma = self.plan.scenario.protocol, self.plan.scenario.cluster.jitter.sigma
        jitter = chance.stream(self.seed, role.name, f"jitter of life {role.incarnation}")
        own = chance.stream(self.seed, role.name, f"own draws of life {role.incarnation}")
        host = Host(
            life, role.machine, self.network, self.roles, self.journal, Device(self.loop, role.machine, jitter, sigma),
            own, protocol.deadline, self.plan.payload_scale,
        )  # fmt: skip
        role.host = host
        if role.lost is not None:
            fault, since = role.lost
            fault.bit["seconds down"] += self.now() - since  # type: ignore[assignment]
            role.lost = None
        self.record("started", role.name, role.incarnation, note=role.machine.name)
        job, network = self.plan.job, self.plan.network
        if role.name.startswith("shard/"):
            host.server = self.shard(role, host)
            host.persist = functools.partial(self.persist, role, host)
            self.consider_end()
            return
        if role.name == EVALUATOR:
            life.start(evaluator(host, job, network, self.over))
        else:
            number = role_number(role.name)
            life.start(replica(host, job, network, self.plan.data(number, role.incarnation)))
        life.exited.add_done_callback(functools.partial(self.exited, role))

    def shard(self, role: Role, host: Host) -> Shard:
        if role.snapshot is not None:
            return Shard.restored(host, self.plan.job, role.snapshot, self.plan.rule())
        part = self.plan.job.shards[role_number(role.name)].part
        if role.incarnation > 1:
            host.record("restored", "", 0)
        return Shard(host, self.plan.job, self._initial[part].clone(), self.plan.rule())

    def persist(self, role: Role, host: Host, snapshot: Snapshot) -> None:
        """It is durable once it is written whole; a crash in between leaves the one before."""
        nbytes = snapshot.parameters.nbytes * (1 + len(snapshot.state)) * self.plan.payload_scale

        def durable() -> None:
            role.snapshot = snapshot
            host.record("persisted", "", snapshot.updates)

        host.life.context.run(self.loop.call_later, nbytes / role.machine.disk_bytes_per_s, durable)

    def crash(self, role: Role, fault: faults.Injected, repair_s: float | None, *, silent: bool = False) -> None:
        """The process is gone.  Unless its machine is too, whoever waits for it hears of it."""
        if role.host is None:
            return
        host, role.host = role.host, None
        role.lost = fault, self.now()
        fault.bit["processes"] += 1
        if host.device.running is not None:
            fault.bit["computations lost"] += 1
        host.life.crash()
        host.record = lambda *_, **__: None
        self.record("crashed", role.name, role.incarnation, note=fault.name)
        if isinstance(host.server, Shard):
            kept = role.snapshot.updates if role.snapshot else 0
            fault.bit["updates lost"] += host.server.updates - kept
            self.lost_updates += host.server.updates - kept
        if not silent:
            for other in self.roles.values():
                if other.host is not None:
                    fault.bit["calls cut off"] += other.host.reset_calls_to(role)
        if repair_s is not None and not silent:
            self.restart(role, repair_s)
        self.consider_end()

    def lose_machine(self, machine: Machine, fault: faults.Injected, repair_s: float | None) -> None:
        """Everything on it is gone, and nobody is told."""
        if not machine.up:
            return
        machine.up = False
        there = [role for role in self.roles.values() if role.machine is machine]
        self.record("crashed", machine.name, note=fault.name)
        for role in there:
            role.restarting = repair_s is not None and not role.ended
            role.restarts += 1
            self.crash(role, fault, repair_s, silent=True)
        if repair_s is not None:
            self.at(self.now() + repair_s, lambda: self.repaired(machine, there))
        self.consider_end()

    def repaired(self, machine: Machine, roles: list[Role]) -> None:
        machine.up = True
        for role in roles:
            if role.host is None and not role.ended:
                self.restart(role)

    # the end

    def report_faults(self) -> list[faults.Injected]:
        """Every declared fault with what it bit, slowdowns with the computing time that they cost."""
        for role in self.roles.values():
            if role.lost is not None and role.host is None:
                fault, since = role.lost
                fault.bit["seconds down, still"] += self.now() - since  # type: ignore[assignment]
                role.lost = None
        for machine in self.machines.values():
            for index, lost_s in machine.lost_s.items():
                self.faults[index].bit["computing seconds lost"] += lost_s  # type: ignore[assignment]
            machine.lost_s.clear()
        return self.faults

    def exited(self, role: Role, exited: asyncio.Future[Any]) -> None:
        """A role came to its end by itself."""
        error = exited.exception()
        if error is not None and not isinstance(error, Diverged | Refused):
            raise error
        role.host, role.ended = None, True
        self.record("ended", role.name, role.incarnation, note=one_line(str(error)) if error else "done")
        if isinstance(error, Diverged):
            self.fail(str(error))
        elif role.name == EVALUATOR:
            self.final = exited.result()
            self.finish()
        self.consider_end()

    def consider_end(self) -> None:
        """With all shards finished, or no replica left, the evaluator has the last word.

        A shard may lose what it had finished, if it crashes before that is durable.  So nothing is decided while a shard is
        on its way back; and if it comes back unfinished, the replicas that thought the job was over are needed again.
        """
        shards = [role for role in self.roles.values() if role.name.startswith("shard/")]
        replicas = [role for role in self.roles.values() if role.name.startswith("replica/")]
        finished = self.finished
        alive = any(r.host is not None or r.restarting for r in replicas)
        if alive and not (finished and not self.real):
            return
        if not finished:
            if any(r.restarting for r in shards):
                return
            needed = [r for r in replicas if r.ended] if all(r.host is not None for r in shards) else []
            for role in needed:
                self.restart(role)
            if needed:
                return
            self.failed = self.failed or "no replica is left"
        if self.real and self.roles[EVALUATOR].host is not None:
            self.wake_evaluator(for_the_last_time=not finished)
        elif not (self.real and self.roles[EVALUATOR].restarting):
            self.finish()

    def wake_evaluator(self, *, for_the_last_time: bool) -> None:
        """Have it look now.  Of a finished job it ends by itself, when every shard has told it so, and must not give up before."""
        self.over.set()
        if not for_the_last_time:
            self.over.clear()  # whoever waits is woken all the same

    @property
    def finished(self) -> bool:
        """Is every shard up, and has it applied all that it was asked for?"""
        servers = [role.host and role.host.server for role in self.roles.values() if role.name.startswith("shard/")]
        return all(isinstance(server, Shard) and server.finished for server in servers)

    def parameters(self) -> Any:
        """What the shards hold at this moment; None if numerics are not real or a shard is down."""
        shards = [self.roles[shared.name].host for shared in self.plan.job.shards]
        if not self.real or any(host is None for host in shards):
            return None
        parameters = self.plan.network.initial()
        for shared, host in zip(self.plan.job.shards, shards, strict=True):
            if host is not None and isinstance(host.server, Shard):
                parameters[shared.part].copy_(host.server.parameters)
        return parameters

    def fail(self, reason: str) -> None:
        self.failed = self.failed or reason
        self.record("failed", note=one_line(reason))
        self.finish()

    def finish(self) -> None:
        if not self.done.triggered:
            self.done.succeed()

    @property
    def watch_s(self) -> float:
        return 100 * self.plan.job.deadline_s

    def watch(self) -> None:
        """A job that neither applies nor computes anything, with no fault or repair to come, is stuck: say so, and end."""
        applied = sum(r.host.server.updates for r in self.roles.values() if r.host and isinstance(r.host.server, Shard))
        hosts = [role.host for role in self.roles.values() if role.host is not None]
        computing = any(host.device.running is not None or host.serving is not None for host in hosts)
        to_come = any(fault.until_s > self.now() for fault in self.faults) or any(r.restarting for r in self.roles.values())
        paused = any(role.host is not None and role.host.life.paused for role in self.roles.values())
        if applied != self._last_progress[0] or computing or to_come or paused or self.finished:
            self._last_progress = (applied, self.now())
        elif self.now() > self._last_progress[1]:
            missing = ", ".join(role.name for role in self.roles.values() if role.host is None and not role.ended) or "nobody"
            self.fail(f"no update since {self._last_progress[1]:g} s; down: {missing}")
            return
        self.at(self.now() + self.watch_s, self.watch)
