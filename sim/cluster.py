"""The simulated world: machines, the processes on them, and what becomes of both.

Who lives where, who is started again and when the job is over is not decided here: a supervisor and agents do that, by the
very code that real machines run (`core/supervisor.py`, `core/agent.py`).  The supervisor has a machine of its own, the head.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from core import chance
from core.attendance import Outlived
from core.desk import Desk
from core.evaluator import Final
from core.job import COORDINATOR, SUPERVISOR
from core.journal import Journal, one_line
from core.messages import Refused
from core.node import StoreFailed
from core.roles import Promoted, live
from core.shard import Shard
from core.work import Diverged
from scenarios.plan import Plan, roles
from sim import faults
from sim.accounts import Accounts, State
from sim.device import Device, Machine
from sim.hands import Hands, Running
from sim.head import Head, LedgerStore
from sim.host import Host, Place
from sim.loop import Life, SimLoop
from sim.network import Network
from sim.outlook import Outlook
from sim.store import Disk, DiskStore
from sim.toll import Toll


class Cluster:
    """One job on simulated machines."""

    def __init__(self, plan: Plan, journal: Journal, loop: SimLoop) -> None:
        self.plan, self.journal, self.loop = plan, journal, loop
        scenario, self.seed = plan.scenario, plan.scenario.seed
        self.real, self.start_up_s = scenario.numerics == "real", scenario.cluster.start_up
        self._record = journal.recorder("cluster", 0, loop.now)
        self.network = Network(loop, scenario.network.latency, fifo=scenario.network.model == "fifo")
        self.network.on_dropped = lambda message, why: self.record("dropped", message.destination.name, int(message.nbytes), note=why)
        self.roles = [role.name for role in roles(scenario, real=self.real)]
        self.machines = {m.name: m for m in (self.machine(number) for number in range(scenario.cluster.machines or len(self.roles)))}
        self.hands = {name: Hands(self, machine, number) for number, (name, machine) in enumerate(self.machines.items())}
        self.head = Head(self, self.machine(None))
        self.accounts = Accounts((*self.roles, SUPERVISOR), (*self.machines, self.head.machine.name))
        self.places: dict[str, Place] = {SUPERVISOR: self.head.place}
        self.disks: dict[tuple[str, str], Disk] = {}
        """By machine and role; they outlive every life."""
        self.hosts: dict[str, Host] = {}
        """The latest life of each role, up or not."""
        self.holds: dict[str, float] = {}
        """Until when a declared fault keeps a role from starting."""
        self.done = loop.env.event()
        self.failed = ""
        self.final: Final | None = None
        self.toll = Toll(self, journal)
        self.outlook = Outlook(self)
        self.faults = faults.schedule(scenario.fault, self, self.seed)

    # the world

    def machine(self, number: int | None) -> Machine:
        cluster, name = self.plan.scenario.cluster, "head" if number is None else f"machine/{number}"
        lucky = cluster.speed.sigma and number is not None
        speed = chance.stream(self.seed, name, "speed").lognormvariate(0.0, cluster.speed.sigma) if lucky else 1.0
        return Machine(name, round(cluster.speed.median * speed), cluster.memory, cluster.disk, self.plan.scenario.network.nic)

    def home(self, role: str) -> Machine:
        """Where a role lives, or lived last, or shall live first."""
        if role == SUPERVISOR:
            return self.head.machine
        if role in self.hosts:
            return self.hosts[role].machine
        machines = list(self.machines.values())
        return machines[self.roles.index(role) % len(machines)]

    def now(self) -> float:
        return self.loop.env.now

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        """Do it then, in no life's context."""
        self.loop.call_at(time_s, action, context=contextvars.Context())

    def record(self, event: str, peer: str = "", number: int = 0, value: float = 0.0, note: str = "") -> None:
        self._record(event, peer, number, value, note)

    def running(self) -> Iterator[Running]:
        """Every process that an agent has started."""
        for hands in self.hands.values():
            yield from hands.running.values()

    def living(self) -> Iterator[Host]:
        """Every life of a role, the supervisor's too; also one that is over, and does not know."""
        yield from (running.host for running in self.running() if running.host is not None)
        if self.head.host is not None:
            yield self.head.host

    # lives

    def begin(self) -> None:
        """The supervisor and every agent begin; what follows is theirs."""
        self.head.begin()
        for hands in self.hands.values():
            hands.boot()
        self.outlook.begin()

    def host(self, name: str, life: int, place: Place) -> Host:
        """A new life of a role, an agent or the supervisor."""
        scenario, job = self.plan.scenario, self.plan.job
        jitter = chance.stream(self.seed, name, f"jitter of life {life}")
        own = chance.stream(self.seed, name, f"own draws of life {life}")
        device = Device(self.loop, place.machine, jitter, scenario.cluster.jitter.sigma)
        disk = self.disks.setdefault((place.machine.name, name), Disk())
        begun = Life(name, life, self.loop)
        if name == SUPERVISOR:
            store: DiskStore = LedgerStore(begun, disk, place.machine, 1.0)
        else:
            store = DiskStore(begun, disk, place.machine, self.plan.payload_scale)
        return Host(
            begun, place, self.network, self.places, self.journal, device, own, store, job.deadline_s, self.plan.payload_scale
        )  # fmt: skip

    def live(self, running: Running, name: str, life: int, inherited: Shard | None = None) -> None:
        """A life of a role begins in that process."""
        running.host = host = self.host(name, life, Place(name, running.hands.machine))
        if name not in self.hosts or life > self.hosts[name].incarnation:  # one that was stopped may begin after its successor
            self.hosts[name] = host
        self.record("started", name, life, note=host.machine.name)
        self.accounts.begins(name, host.machine.name, host.account, self.now())
        self.toll.back(name)
        host.introduce(SUPERVISOR, 0, SUPERVISOR)
        host.life.start(live(host, self.plan, inherited))
        host.life.exited.add_done_callback(partial(self.exited, running, host), context=contextvars.Context())

    def exited(self, running: Running, host: Host, exited: asyncio.Future[Any]) -> None:
        """A life came to its end by itself, and with it the process, unless that goes on as the shard it mirrored."""
        error = exited.exception()
        if not host.life.up:
            return  # it was killed at the very moment
        if error is not None and not isinstance(error, Diverged | StoreFailed | Outlived | Refused):
            raise error
        self.close(host, State.DOWN if error is not None else State.IDLE)
        result = None if error is not None else exited.result()
        self.record(
            "ended", host.name, host.incarnation, note=one_line(str(error or ("promoted" if isinstance(result, Promoted) else "done")))
        )
        if isinstance(result, Promoted):
            self.live(running, result.role, result.life, result.shard)
            return
        if isinstance(result, Final):
            self.final = result
        running.hands.running.pop(running.process, None)
        running.hands.tell(running.process, "failed" if isinstance(error, Diverged | StoreFailed) else "ended", str(error or "done"))

    def close(self, host: Host, becomes: State = State.DOWN) -> int:
        """Its doors are shut; unless its machine is down too, whoever waits for it hears of that.  How many calls this cuts off."""
        self.accounts.ends(host.name, host.account, self.now(), working=host.busy, state=becomes)
        host.life.crash()
        host.record = lambda *_, **__: None
        host.place.host = None
        if host.server is None or not host.machine.up:
            return 0
        return sum(other.reset_calls_to(host.place) for other in self.callers())

    def callers(self) -> Iterator[Host]:
        yield from self.living()
        yield from (hands.host for hands in self.hands.values() if hands.host is not None)

    def end(self, running: Running, why: str = "its machine is down") -> None:
        """A process is gone, whatever it was doing."""
        if running.host is not None and running.host.life.up:
            self.close(running.host)
            self.record("crashed", running.host.name, running.host.incarnation, note=why)

    # faults

    def crash(self, running: Running, fault: faults.Injected, repair_s: float | None) -> None:
        """A process is killed.  Its agent hears of it at once, and may not start the role again before the repair is over."""
        role, host = running.role, running.host
        self.holds[role] = math.inf if repair_s is None else self.now() + repair_s
        running.hands.running.pop(running.process)
        self.toll.felled(running.role, running.host, fault)
        if host is not None:
            fault.bit["calls cut off"] += self.close(host)
            self.record("crashed", role, host.incarnation, note=fault.name)
        running.hands.tell(running.process, "fault", fault.name)
        self.outlook.somebody_is_gone()

    def lose_machine(self, machine: Machine, fault: faults.Injected, repair_s: float | None) -> None:
        """Everything on it is gone, and nobody is told."""
        if not machine.up:
            return
        machine.up = False
        self.accounts.machine_down(machine.name, self.now())
        self.record("crashed", machine.name, note=fault.name)
        for running in list(self.hands[machine.name].running.values()):
            self.toll.felled(running.role, running.host, fault)
        self.hands[machine.name].down()
        if repair_s is not None:
            self.at(self.now() + repair_s, partial(self.repaired, machine))

    def repaired(self, machine: Machine) -> None:
        machine.up = True
        self.accounts.machine_up(machine.name, self.now())
        self.hands[machine.name].boot()

    def report_faults(self) -> list[dict[str, Any]]:
        """Every declared fault with what it bit."""
        self.toll.report()
        return [fault.report() for fault in self.faults]

    # the end

    def settle(self) -> Accounts:
        """Everybody's account up to now."""
        up = {host.name: host for host in self.living() if host.life.up}
        self.accounts.settle(self.now(), lambda role: up[role].busy)
        return self.accounts

    def fail(self, reason: str) -> None:
        self.failed = self.failed or reason
        self.record("failed", note=one_line(reason))
        self.finish()

    def finish(self) -> None:
        if not self.done.triggered:
            self.done.succeed()

    def shard(self, name: str) -> Shard | None:
        """The shard of that name, if it is up."""
        host = self.hosts.get(name)
        return host.server if host is not None and host.life.up and isinstance(host.server, Shard) else None

    def standing(self) -> str:
        """How a coordinator is doing, in words; "" where there is none."""
        host = self.hosts.get(COORDINATOR)
        return host.server.status().progress if host is not None and isinstance(host.server, Desk) else ""

    @property
    def finished(self) -> bool:
        """Is every shard up, and has it applied all that it was asked for?"""
        shards = [self.shard(shared.name) for shared in self.plan.job.shards]
        return all(shard is not None and shard.finished for shard in shards)

    def parameters(self) -> Any:
        """What the shards hold at this moment; None if numerics are not real or a shard is down."""
        return self.parameters_of_shards() if self.real else None

    def parameters_of_shards(self) -> Any:
        """The same of whatever the network's vectors are."""
        parameters = self.plan.network.initial()
        for shared in self.plan.job.shards:
            shard = self.shard(shared.name)
            if shard is None:
                return None
            parameters[shared.part].copy_(shard.parameters)
        return parameters
