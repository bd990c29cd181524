"""One machine's agent, and the processes it starts: what runs on a simulated machine, and ends with it."""

from __future__ import annotations

import asyncio
import contextvars
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from core.agent import Agent
from core.job import SUPERVISOR, agent_name
from core.reports import Capacity, Process
from sim.calls import Place
from sim.device import Machine
from sim.host import Host

if TYPE_CHECKING:
    from sim.cluster import Cluster
    from sim.faults import Injected


@dataclass(slots=True, eq=False)
class Running:
    """A process that an agent was told to start.  It may live one life after another: a mirror that is promoted does."""

    process: Process
    hands: Hands
    host: Host | None = None
    """Its present life; none before it has started up."""
    leaving: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it is asked to end, and has a moment for that."""

    @property
    def role(self) -> str:
        return self.host.name if self.host is not None else self.process.name


class Hands:
    """`core.agent.Hands` on one machine."""

    def __init__(self, cluster: Cluster, machine: Machine, number: int) -> None:
        self.cluster, self.machine, self.number = cluster, machine, number
        self.running: dict[Process, Running] = {}
        self.boots = 0
        self.host: Host | None = None
        """Of the agent."""
        self.agent: Agent | None = None
        self.draining: Injected | None = None
        """The fault that will take the machine soon."""

    # the agent

    def boot(self) -> None:
        """A new life of the agent begins, if the machine is up, and will be, and nobody was faster."""
        if not self.machine.up or self.host is not None or self.draining is not None:
            return
        self.boots += 1
        name = agent_name(self.number)
        self.host = self.cluster.host(name, self.boots, Place(name, self.machine))
        self.host.introduce(SUPERVISOR, 0, SUPERVISOR)
        self.host.life.start(self.serve(self.host))
        self.host.life.exited.add_done_callback(self.orphaned, context=contextvars.Context())

    async def serve(self, host: Host) -> str:
        timings, capacity = self.cluster.plan.job.timings, Capacity(storage=self.machine.name)
        self.agent = Agent(host, self, boot=self.boots, host=self.machine.name, capacity=capacity, timings=timings)
        return await self.agent.run()

    def orphaned(self, _: asyncio.Future[str]) -> None:
        """It has heard of no supervisor for too long, or the job is over; whatever it started ends with it, and it is begun anew."""
        self.down()
        self.cluster.at(self.cluster.now() + self.cluster.start_up_s(agent_name(self.number), self.boots + 1), self.boot)

    def down(self) -> None:
        """Nothing runs here any more."""
        if self.host is not None:
            self.host.life.crash()
            self.host = None
        for running in list(self.running.values()):
            self.forget(running)
            self.cluster.end(running)

    def forget(self, running: Running) -> None:
        """That process is over."""
        if self.running.get(running.process) is running:
            del self.running[running.process]
            self.cluster.processes[running.role].remove(running)

    # the machine will be taken

    def drain(self, fault: Injected) -> None:
        """All that runs here is asked to end, nothing begins here any more, and then the agent says so, and ends."""
        if self.draining is None:
            self.draining = fault
            for running in list(self.running.values()):
                running.leaving.set()
                if running.host is None:
                    self.forget(running)
            self.drained()

    def drained(self) -> None:
        """Is everybody gone?  Then so is the agent."""
        if self.draining is not None and not self.running and self.host is not None and self.agent is not None:
            agent = self.agent
            if self.host.life.admits(self.drained):
                self.host.life.context.run(lambda: agent.farewell().add_done_callback(lambda _: agent.end("")))

    def tell(self, process: Process, outcome: str, how: str) -> None:
        """The agent hears that one of its processes is over."""
        if self.host is not None and self.agent is not None and self.host.life.admits(partial(self.tell, process, outcome, how)):
            self.host.life.context.run(self.agent.ended, process, outcome, how)

    # core.agent.Hands

    def start(self, process: Process) -> None:
        if self.draining is None:
            self.running[process] = running = Running(process, self)
            self.cluster.processes[running.role].append(running)
            self.schedule(running)

    def schedule(self, running: Running) -> None:
        """It is up after `start_up`, counted from when nothing keeps it from starting; that may be never.

        As its agent's child: on a machine that stands still nothing starts up.
        """
        assert self.host is not None
        held_until_s = max(self.cluster.now(), self.cluster.holds.get(running.process.name, 0.0))
        begins_s = held_until_s + self.cluster.start_up_s(*running.process)
        if begins_s < float("inf"):
            self.cluster.loop.call_at(begins_s, self.begin, running, context=self.host.life.context)

    def begin(self, running: Running) -> None:
        if self.running.get(running.process) is not running:
            return  # it was killed before it was up
        if self.held(running.process):
            self.schedule(running)
        else:
            self.cluster.live(running, *running.process)

    def kill(self, process: Process) -> None:
        running = self.running.get(process)
        if running is not None:
            self.forget(running)
            self.cluster.end(running, "killed: it is not wanted any more")

    def held(self, process: Process) -> bool:
        running = self.running.get(process)
        return running is not None and running.host is None and self.cluster.holds.get(process.name, 0.0) > self.cluster.now()

    def lively(self) -> tuple[Process, ...]:
        return tuple(process for process, running in self.running.items() if running.host is not None and running.host.working)
