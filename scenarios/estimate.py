"""How long a minibatch takes on the machines of one replica, without simulating the job around it: what a search for a placement asks again and again.

Everything is as in the simulated world when nothing fails and nobody else is there: the ledgers of `core/phases.py` say what may be
computed, machines have the speeds that the simulator draws for them, a message takes latency + bytes / bandwidth of the narrowest link
of its route, and network cards send one message after the other and receive one after the other.  Left out are jitter, other replicas and
shards, answers, and what `fair` shares otherwise than by turns.
"""

from __future__ import annotations

import heapq
from itertools import cycle
from typing import NamedTuple

from core import chance
from core.job import replica_name
from core.partitioning import Partitioned, Task
from core.phases import Arrival, Ledger, Phases
from scenarios.network import HEADER_BYTES
from scenarios.places import role_names
from scenarios.schema import Scenario
from scenarios.topology import wire
from scenarios.wiring import machine_names


class Machine(NamedTuple):
    """Of a replica: where it lives, how fast it is, and its network card."""

    name: str
    flops_per_s: float
    sends_bytes_per_s: float
    receives_bytes_per_s: float


class Replica:
    """The machines on which one replica of a scenario lives first, and what joins them."""

    def __init__(self, scenario: Scenario, partitions: int, number: int = 0) -> None:
        """Raises Unwired where the scenario's network does."""
        real = scenario.numerics == "real"
        roles = role_names(scenario.protocol, real=real, partitions=partitions)
        names = machine_names(scenario.cluster.machines or len(roles))
        homes = dict(zip(roles, cycle(names), strict=False))
        self.wiring, self.shared = wire(scenario.network, names), scenario.network.model != "latency"
        self.latency_s, self.memory = scenario.network.latency.mean_s, scenario.cluster.memory_bandwidth
        parts = range(partitions) if partitions > 1 else (None,)
        self.machines = [self.machine(scenario, homes[replica_name(number, part)]) for part in parts]
        self._ways: dict[tuple[int, int], tuple[float, float]] = {}

    def machine(self, scenario: Scenario, name: str) -> Machine:
        cluster = scenario.cluster
        luck = chance.stream(scenario.seed, name, "speed").lognormvariate(0.0, cluster.speed.sigma) if cluster.speed.sigma else 1.0
        share = min(1.0, (cluster.cores_per_process or cluster.cores) / cluster.cores)
        out, into = (
            [self.wiring.links[link] for link in self.wiring.attachments[name] if not self.wiring.ends or link == f"{name} {way}"]
            for way in ("out", "in")
        )
        return Machine(name, round(cluster.speed.median * luck) * share, max(out), max(into))

    def way(self, source: int, destination: int) -> tuple[float, float]:
        """Seconds of latency, and bytes a second of the narrowest link.  What stays on one machine goes through its memory."""
        found = self._ways.get((source, destination))
        if found is None:
            one, other = self.machines[source].name, self.machines[destination].name
            if one == other:
                found = 0.0, self.memory
            else:
                links = self.wiring.route(one, other)
                found = (
                    self.latency_s + sum(self.wiring.latencies.get(link, 0.0) for link in links),
                    min(self.wiring.links[link] for link in links),
                )
            self._ways[source, destination] = found
        return found


DUE, THERE, COMPUTED = range(3)


class Minibatch:
    """One minibatch, as events in the order of their times."""

    def __init__(self, partitioned: Partitioned, replica: Replica, samples: int, bytes_of_element: int) -> None:
        self.partitioned, self.replica, self.samples = partitioned, replica, samples
        count = partitioned.machines
        phases = [Phases(partitioned, machine) for machine in range(count)]
        self.ledgers = [one.begin() for one in phases]
        self.nbytes = [HEADER_BYTES + message.count(samples) * bytes_of_element for message in partitioned.messages]
        self.computing = [False] * count
        self.sent_until, self.received_until = [0.0] * count, [0.0] * count
        self.through = 0
        """Machines of which the first has heard that they are."""
        self.told = 0
        self.events: list[tuple[float, int, int, int, Arrival | Task | str]] = []
        """When, in which order of one instant, what, of which machine, and of what."""
        self._number = 0
        self.now = 0.0
        for machine, one in enumerate(phases):
            self.leave(machine, one.at_once)
        for machine in range(count):
            self.go_on(machine)

    def seconds(self) -> float:
        """Until every machine knows that all are through."""
        while self.events:
            self.now, _, what, machine, of = heapq.heappop(self.events)
            if what == DUE:
                self.due(machine, of)
            elif what == THERE:
                self.there(machine, of)
            else:
                self.computed(machine, of)
        assert self.told == self.partitioned.machines, "something was never computed"
        return self.now

    def after(self, delay_s: float, what: int, machine: int, of: Arrival | Task | str) -> None:
        self._number += 1
        heapq.heappush(self.events, (self.now + delay_s, self._number, what, machine, of))

    # computing

    def go_on(self, machine: int) -> None:
        """Compute what comes next, if it is there; or say that all is through."""
        if self.computing[machine]:
            return
        ledger: Ledger = self.ledgers[machine]
        task = ledger.next()
        if task is not None:
            placed = self.partitioned.parts[task.part]
            flops = (placed.flops if task.direction == "forward" else placed.flops_down) * self.samples
            self.computing[machine] = True
            self.after(flops / self.replica.machines[machine].flops_per_s, COMPUTED, machine, task)
        elif ledger.done:
            self.computing[machine] = True  # it has nothing more to do
            self.say(machine)

    def computed(self, machine: int, task: Task | Arrival | str) -> None:
        assert isinstance(task, Task)
        ledger = self.ledgers[machine]
        leaving = ledger.leaving(task)
        ledger.computed(task)
        self.computing[machine] = False
        self.leave(machine, leaving)
        self.go_on(machine)

    # messages

    def leave(self, machine: int, arrivals: list[Arrival]) -> None:
        for arrival in arrivals:
            message = self.partitioned.messages[arrival.message]
            to = message.destination if arrival.phase == "up" else message.source
            self.send(machine, to, self.nbytes[arrival.message], arrival)

    def send(self, source: int, destination: int, nbytes: float, of: Arrival | str) -> None:
        replica = self.replica
        latency_s, bandwidth = replica.way(source, destination)
        delay_s = latency_s + nbytes / bandwidth
        one, other = replica.machines[source], replica.machines[destination]
        if replica.shared and one.name != other.name:
            begin = max(self.now, self.sent_until[source])
            self.sent_until[source] = begin + nbytes / one.sends_bytes_per_s
            delay_s += begin - self.now
        self.after(delay_s, DUE if replica.shared and one.name != other.name else THERE, destination, of)

    def due(self, machine: int, of: Arrival | Task | str) -> None:
        """Its last byte could be there, unless the network card is still taken by another message."""
        nbytes = self.nbytes[of.message] if isinstance(of, Arrival) else HEADER_BYTES
        through = self.received_until[machine] + nbytes / self.replica.machines[machine].receives_bytes_per_s
        self.received_until[machine] = max(through, self.now)
        if through > self.now:
            self.after(through - self.now, THERE, machine, of)
        else:
            self.there(machine, of)

    def there(self, machine: int, of: Arrival | Task | str) -> None:
        if isinstance(of, Arrival):
            ledger = self.ledgers[machine]
            ledger.arrived(ledger.phases.expected[of])
            self.go_on(machine)
        elif of == "through":
            self.heard()
        else:
            self.told += 1

    # the end

    def say(self, machine: int) -> None:
        """To the first machine, which tells all once all have said so."""
        if machine:
            self.send(machine, 0, HEADER_BYTES, "through")
        else:
            self.heard()

    def heard(self) -> None:
        self.through += 1
        if self.through == self.partitioned.machines:
            self.told += 1
            for other in range(1, self.partitioned.machines):
                self.send(0, other, HEADER_BYTES, "all are")


def minibatch_seconds(
    partitioned: Partitioned, scenario: Scenario, samples: int, bytes_of_element: int = 4, *, replica: Replica | None = None
) -> float:  # fmt: skip
    """Of one replica of a scenario, whose model is split so, on the machines where it lives first.

    `replica`: its machines, where many placements are asked about.  Raises Unwired where the scenario's network does.
    """
    replica = replica or Replica(scenario, partitioned.machines)
    return Minibatch(partitioned, replica, samples, bytes_of_element).seconds()
