"""The simulated world: machines, the processes on them, and what becomes of both.

Who lives where, who is started again and when the job is over is not decided here: a supervisor and agents do that, by the
very code that real machines run (`core/supervisor.py`, `core/agent.py`).  The supervisor has a machine of its own, the head.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
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
from scenarios.declared import declared, slow_episodes
from scenarios.places import places
from scenarios.plan import Plan, roles
from scenarios.wiring import HEAD
from sim.accounts import Accounts, State
from sim.calls import Place
from sim.device import Device, Machine
from sim.faults import Clocks, Injected, inject
from sim.hands import Hands, Running
from sim.head import Head, LedgerStore
from sim.host import Host
from sim.loop import Life, SimLoop
from sim.network import MODELS
from sim.outlook import Outlook
from sim.spans import Spans
from sim.store import Disk, DiskStore
from sim.toll import Toll
from sim.usage import Usage


class Cluster:
    """One job on simulated machines."""

    def __init__(self, plan: Plan, journal: Journal, loop: SimLoop) -> None:
        self.plan, self.journal, self.loop = plan, journal, loop
        scenario, self.seed = plan.scenario, plan.scenario.seed
        self.real = scenario.numerics == "real"
        self.there = places(scenario.protocol, scenario.cluster, scenario.network, real=self.real, partitions=scenario.model.partitions)
        self._record = journal.recorder("cluster", 0, loop.now)
        self.roles = [role.name for role in roles(scenario, real=self.real)]
        self.machines = {name: self.machine(name) for name in self.there.machines}
        self.first_homes = dict(zip(self.roles, itertools.cycle(self.machines.values()), strict=False))
        self.network = MODELS[scenario.network.model](loop, self.there.wiring, scenario.network.latency, self.seed)
        self.network.on_dropped = lambda message, why: self.record("dropped", message.destination.name, int(message.nbytes), note=why)
        self.hands = {name: Hands(self, machine, number) for number, (name, machine) in enumerate(self.machines.items())}
        self.processes: defaultdict[str, list[Running]] = defaultdict(list)
        """By role: those that agents have started, also one that has a successor and does not know."""
        self.head = Head(self, self.machine(HEAD))
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
        self.outlook, self.usage = Outlook(self), Usage(self)
        self.spans: Spans | None = None
        """Where a trace is wanted."""
        self.narrowed: dict[str, tuple[float, dict[Any, float]]] = {}
        """Of each link that is or was degraded: its full capacity, and by what that is divided."""
        self.clocks = Clocks(self)
        self.faults = inject(declared(scenario.fault, self.there), self, self.clocks)
        self.episodes = inject(slow_episodes(scenario.cluster), self, self.clocks)

    # the world

    def machine(self, name: str) -> Machine:
        cluster = self.plan.scenario.cluster
        lucky = cluster.speed.sigma and name != HEAD
        speed = chance.stream(self.seed, name, "speed").lognormvariate(0.0, cluster.speed.sigma) if lucky else 1.0
        share = min(1.0, (cluster.cores_per_process or cluster.cores) / cluster.cores)
        return Machine(name, round(cluster.speed.median * speed) * share, cluster.memory_bandwidth, cluster.disk, share)

    def start_up_s(self, name: str, life: int) -> float:
        """How long that life takes to be up."""
        start_up = self.plan.scenario.cluster.start_up
        return start_up.draw(chance.stream(self.seed, name, f"start-up of life {life}")) if start_up.drawn else start_up.mean_s

    def home(self, role: str) -> Machine:
        """Where a role lives, or lived last, or shall live first."""
        if role == SUPERVISOR:
            return self.head.machine
        if role in self.hosts:
            return self.hosts[role].machine
        return self.first_homes[role]

    def now(self) -> float:
        return self.loop.env.now

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        """Do it then, in no life's context."""
        self.loop.call_at(time_s, action, context=contextvars.Context())

    def record(self, event: str, peer: str = "", number: int = 0, value: float = 0.0, note: str = "") -> None:
        self._record(event, peer, number, value, note)

    # who is meant by a name

    def members(self, group: str) -> tuple[str, ...]:
        """The machines of a rack or power unit."""
        return self.there.wiring.groups[group]

    def machines_named(self, names: Iterable[str]) -> list[Machine]:
        """Machines, and those of groups, each once."""
        found = [
            one for name in names for one in (self.members(name) if name in self.there.wiring.groups else (name,)) if one in self.machines
        ]
        return [self.machines[name] for name in dict.fromkeys(found)]

    def homes(self, names: Iterable[str]) -> list[Machine]:
        """The same; of a role the machine on which it lives."""
        found: list[Machine] = []
        for name in names:
            found += [self.home(name)] if name == SUPERVISOR or name in self.first_homes else self.machines_named((name,))
        return list(dict.fromkeys(found))

    def processes_of(self, role: str) -> list[Running]:
        """Those of a role; the supervisor's is nobody's but the head's."""
        return list(self.processes[role]) if role in self.processes else []

    def hosts_on(self, machine: Machine) -> Iterator[Host]:
        """Every life of a role on that machine."""
        if machine is self.head.machine:
            yield from [self.head.host] if self.head.host is not None else []
        else:
            yield from (running.host for running in self.hands[machine.name].running.values() if running.host is not None)

    def hosts_named(self, names: Iterable[str]) -> list[Host]:
        """Every life of these roles, and what runs on these machines, agents too."""
        found: list[Host | None] = []
        for machine in self.machines_named(names):
            found += [*self.hosts_on(machine), self.hands[machine.name].host]
        for name in names:
            found += [self.head.host] if name == SUPERVISOR else [running.host for running in self.processes_of(name)]
        return list(dict.fromkeys(host for host in found if host is not None))

    def inside(self, names: Iterable[str]) -> frozenset[str]:
        """The names themselves, and of groups their machines."""
        return frozenset(one for name in names for one in (name, *self.there.wiring.groups.get(name, ())))

    def links_of(self, names: Iterable[str]) -> list[str]:
        """Links, and those that lead to and from these machines or out of these groups, each once."""
        attachments = self.there.wiring.attachments
        return list(dict.fromkeys(link for name in names for link in attachments.get(name, (name,))))

    def is_down(self, name: str) -> bool:
        """Is that machine down, or does nobody live in that role?"""
        if name in self.machines:
            return not self.machines[name].up
        if name == SUPERVISOR:
            return self.head.host is None
        return name in self.first_homes and not any(running.host is not None for running in self.processes_of(name))

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
        self.usage.begin()
        if (limit_s := self.plan.scenario.give_up_after) is not None:
            self.at(limit_s, lambda: self.fail(f"not over after {limit_s:g} s"))

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
        host = Host(
            begun, place, self.network, self.places, self.journal, device, own, store, job.deadline_s, self.plan.payload_scale
        )  # fmt: skip
        host.spans = self.spans
        return host

    def live(self, running: Running, name: str, life: int, inherited: Shard | None = None) -> None:
        """A life of a role begins in that process."""
        self.processes[running.role].remove(running)
        running.host = host = self.host(name, life, Place(name, running.hands.machine))
        self.processes[name].append(running)
        if name not in self.hosts or life > self.hosts[name].incarnation:  # one that was stopped may begin after its successor
            self.hosts[name] = host
        self.record("started", name, life, note=host.machine.name)
        self.accounts.begins(name, host.machine.name, host.account, self.now())
        self.toll.back(name)
        self.clocks.back(name)
        host.introduce(SUPERVISOR, 0, SUPERVISOR)
        host.life.start(live(host, self.plan, inherited, running.leaving))
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
        draining = running.hands.draining if error is None and result is None else None
        how = error or ("promoted" if isinstance(result, Promoted) else draining.name if draining is not None else "done")
        self.record("ended", host.name, host.incarnation, note=one_line(str(how)))
        if isinstance(result, Promoted):
            self.live(running, result.role, result.life, result.shard)
            return
        if isinstance(result, Final):
            self.final = result
        running.hands.forget(running)
        if draining is not None:  # that it must live on elsewhere is told for all of the machine, once nobody is left there
            draining.bit["drained"] += 1
            self.toll.felled(running.role, host, draining)
            running.hands.drained()
            return
        running.hands.tell(running.process, "failed" if isinstance(error, Diverged | StoreFailed) else "ended", str(error or "done"))

    def close(self, host: Host, becomes: State = State.DOWN) -> int:
        """Its doors are shut; unless its machine is down too, whoever waits for it hears of that.  How many calls this cuts off."""
        self.accounts.ends(host.name, host.account, self.now(), working=host.busy, state=becomes)
        host.device.stop()
        host.life.crash()
        host.record = lambda *_, **__: None
        host.place.host = None
        if host.server is None or not host.machine.up:
            return 0
        severing = [meddler for meddler in self.network.meddlers if meddler.severing]
        told = [other for other in self.callers() if not any(cut.severs(host, other) for cut in severing)]
        return sum(other.reset_calls_to(host.place) for other in told)

    def callers(self) -> Iterator[Host]:
        yield from self.living()
        yield from (hands.host for hands in self.hands.values() if hands.host is not None)

    def end(self, running: Running, why: str = "its machine is down") -> None:
        """A process is gone, whatever it was doing."""
        if running.host is not None and running.host.life.up:
            self.close(running.host)
            self.record("crashed", running.host.name, running.host.incarnation, note=why)

    # faults

    def crash(self, running: Running, fault: Injected, repair_s: float | None) -> None:
        """A process is killed.  Its agent hears of it at once, and may not start the role again before the repair is over."""
        role, host = running.role, running.host
        self.holds[role] = math.inf if repair_s is None else self.now() + repair_s
        running.hands.forget(running)
        self.toll.felled(role, host, fault)
        if host is not None:
            fault.bit["calls cut off"] += self.close(host)
            self.record("crashed", role, host.incarnation, note=fault.name)
        running.hands.tell(running.process, "fault", fault.name)
        if repair_s is None:
            self.outlook.somebody_is_gone()

    def lose_machine(self, machine: Machine, fault: Injected, repair_s: float | None) -> None:
        """Everything on it is gone, and nobody is told.  One that is down already stays so until the last repair."""
        machine.holds += 1
        if machine.up:
            machine.up = False
            self.network.tear_down(machine)
            self.accounts.machine_down(machine.name, self.now())
            self.record("crashed", machine.name, note=fault.name)
            for running in self.hands[machine.name].running.values():
                self.toll.felled(running.role, running.host, fault)
            self.hands[machine.name].down()
            self.hands[machine.name].draining = None
        if repair_s is not None:
            self.at(self.now() + repair_s, partial(self.repaired, machine))

    def repaired(self, machine: Machine) -> None:
        machine.holds -= 1
        if not machine.holds:
            machine.up = True
            self.accounts.machine_up(machine.name, self.now())
            self.hands[machine.name].boot()
            self.clocks.back(machine.name)

    def report_faults(self) -> list[dict[str, Any]]:
        """Every declared fault with what it bit."""
        self.toll.report()
        return [fault.report(self.now()) for fault in self.faults]

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
