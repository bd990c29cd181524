"""How fast and how true max-min sharing is, beside SimGrid's flow model in C++: the same traffic on both, in one run.

    python bench/simgrid.py [--case ps-20x4] [--json]

Needs SimGrid's headers and library (Debian: libsimgrid-dev) and g++; without them it says so and measures nothing.  SimGrid's
model is CM02 without cross-traffic: max-min fair, no penalty for distance where all latencies are equal.  "ps": each of
N replicas computes, sends its share of 168 MB to every shard and waits for all of it, then every shard sends as much back.
"star" and "racks": random messages between random hosts, each sender with several under way.  Seconds are of the processor.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import click

from core.chance import stream
from core.journal import Journal
from scenarios.distributions import constant
from scenarios.network import Network, Racks
from scenarios.topology import star, wire
from scenarios.wiring import Wiring, machine_names
from sim.device import Machine
from sim.loop import Event, SimLoop, rare_collections
from sim.network import MODELS, Message

NIC, LATENCY_S, PAYLOAD_BYTES, COMPUTE_S, SKEW_S = 1.25e9, 50e-6, 168e6, 1.0, 0.001
OPTIONS = ("--cfg=network/model:CM02", "--cfg=network/crosstraffic:0", "--log=root.thresh:error")


class Slot(NamedTuple):
    """A sender that waits for each of its messages before it sends the next."""

    source: int
    messages: Sequence[tuple[int, float]]
    """Destination and bytes."""
    start_s: float = 0.0


@dataclass(frozen=True)
class Case:
    """One traffic on one platform."""

    name: str
    wiring: Wiring
    bar: float
    """Times as many messages a second as SimGrid."""
    replicas: int = 0
    shards: int = 0
    steps: int = 0
    slots: tuple[Slot, ...] = ()

    @property
    def machines(self) -> list[str]:
        return [name for name in self.wiring.attachments if name.startswith("machine/")]

    @property
    def messages(self) -> int:
        return 2 * self.replicas * self.shards * self.steps + sum(len(slot.messages) for slot in self.slots)


def servers(replicas: int, shards: int, steps: int, bar: float) -> Case:
    machines = dict.fromkeys(machine_names(replicas + shards), NIC)
    return Case(f"ps-{replicas}x{shards}", star(machines), bar, replicas, shards, steps)


def random_star(hosts: int = 200, windows: int = 10, each: int = 5) -> Case:
    """2,000 messages of 1 to 20 MB under way at all times.

    They begin a microsecond apart: what begins at one and the same moment SimGrid 3.32 does not share max-min fairly, as a nanosecond shows.
    """
    draws = stream(0, "bench", "star")
    slots = [
        Slot(
            number % hosts,
            [(other(draws, number % hosts, hosts), float(draws.randint(1_000_000, 20_000_000))) for _ in range(each)],
            number * 1e-6,
        )
        for number in range(hosts * windows)
    ]
    return Case("star-200", star(dict.fromkeys(machine_names(hosts), NIC)), 5.0, slots=tuple(slots))


def random_racks(name: str, load: float, bar: float, racks: int = 8, hosts: int = 128, messages: int = 4000) -> Case:
    """Messages begin at random, so many that the uplinks, 4:1, are busy for that part of the time."""
    draws = stream(0, "bench", name)
    network = Network(topology=Racks(kind="racks", racks=racks, oversubscription=4.0))
    bytes_each, to_other_racks = 10_500_000, 1 - 1 / racks
    every_s = bytes_each * to_other_racks / (load * racks * (hosts / racks) * NIC / 4)
    slots, now = [], 0.0
    for _ in range(messages):
        now += draws.expovariate(1 / every_s)
        host = draws.randrange(hosts)
        slots.append(Slot(host, [(other(draws, host, hosts), float(draws.randint(1_000_000, 20_000_000)))], now))
    return Case(name, wire(network, machine_names(hosts)), bar, slots=tuple(slots))


def other(draws: Any, host: int, hosts: int) -> int:
    drawn: int = draws.randrange(hosts - 1)
    return drawn + (drawn >= host)


CASES: dict[str, Callable[[], Case]] = {
    "ps-20x4": lambda: servers(20, 4, 10, 0.25),
    "ps-100x10": lambda: servers(100, 10, 10, 1.5),
    "ps-1000x10": lambda: servers(1000, 10, 1, 25.0),
    "star-200": random_star,
    "racks-90%": lambda: random_racks("racks-90%", 0.9, 1.2),
    "racks-50%": lambda: random_racks("racks-50%", 0.5, 0.0),
}


@dataclass
class Outcome:
    virtual_s: float
    cpu_s: float
    finished_s: list[float] = field(default_factory=list)
    """When each message of the slots was there, in their order."""


# ours


class Parcel(Message):
    """A message that tells its sender when it is there."""

    __slots__ = ("destination", "nbytes", "then", "traffic", "waits")

    def __init__(self, traffic: Traffic, then: Callable[[], None]) -> None:
        self.traffic, self.then = traffic, then

    def __call__(self) -> None:
        if (self.waits or not self.destination.up) and not self.traffic.network.is_there(self):
            return
        if self.traffic.record is not None:
            self.traffic.record("counted", self.destination.name, 1, self.nbytes)
        self.then()


class Alarm(Event):
    __slots__ = ("then",)

    def __init__(self, then: Callable[[], None]) -> None:
        self.then = then

    def __call__(self) -> None:
        self.then()


class Replica:
    """Compute, push to all, and when that is there fetch from all."""

    def __init__(self, traffic: Traffic, number: int) -> None:
        self.traffic, self.number, self.step, self.outstanding = traffic, number, 0, 0
        self.compute()

    def compute(self) -> None:
        self.step += 1
        if self.step <= self.traffic.case.steps:
            self.traffic.loop.after(COMPUTE_S + SKEW_S * self.number, Alarm(self.push))

    def push(self) -> None:
        traffic = self.traffic
        self.outstanding = traffic.case.shards
        for shard in traffic.shards:
            traffic.network.send(Parcel(traffic, self.pushed), traffic.hosts[self.number], shard, traffic.slice_bytes)

    def pushed(self) -> None:
        self.outstanding -= 1
        if not self.outstanding:
            traffic = self.traffic
            self.outstanding = traffic.case.shards
            for shard in traffic.shards:
                traffic.network.send(Parcel(traffic, self.fetched), shard, traffic.hosts[self.number], traffic.slice_bytes)

    def fetched(self) -> None:
        self.outstanding -= 1
        if not self.outstanding:
            self.compute()


class Sender:
    """One slot."""

    def __init__(self, traffic: Traffic, slot: Slot, first: int) -> None:
        self.traffic, self.slot, self.first, self.sent = traffic, slot, first, 0
        traffic.loop.after(slot.start_s, Alarm(self.send))

    def send(self) -> None:
        destination, nbytes = self.slot.messages[self.sent]
        traffic = self.traffic
        traffic.network.send(Parcel(traffic, self.there), traffic.hosts[self.slot.source], traffic.hosts[destination], nbytes)

    def there(self) -> None:
        self.traffic.finished_s[self.first + self.sent] = self.traffic.loop.env._now
        self.sent += 1
        if self.sent < len(self.slot.messages):
            self.send()


class Traffic:
    """A case on the simulator's own network, without protocol."""

    def __init__(self, case: Case, model: str, journal: Journal | None = None) -> None:
        """`journal`: gets a record of each message that arrives."""
        self.case, self.loop = case, SimLoop()  # type: ignore[abstract]
        self.journal = journal
        self.record = journal.recorder("traffic", 0, self.loop.now) if journal is not None else None
        self.network = MODELS[model](self.loop, case.wiring, constant(LATENCY_S))
        self.hosts = [Machine(name, 1.0, 1.0, 1.0) for name in case.machines]
        self.shards, self.slice_bytes = self.hosts[case.replicas :], PAYLOAD_BYTES / max(1, case.shards)
        self.finished_s = [0.0] * sum(len(slot.messages) for slot in case.slots)
        self.actors: list[Any] = [Replica(self, number) for number in range(case.replicas)]
        first = 0
        for slot in case.slots:
            self.actors.append(Sender(self, slot, first))
            first += len(slot.messages)

    def run(self) -> Outcome:
        with rare_collections():
            began = time.process_time()
            self.loop.run()
            if self.journal is not None:
                self.journal.digest()
            return Outcome(self.loop.time(), time.process_time() - began, self.finished_s)


# SimGrid's


def described(case: Case) -> Iterator[str]:
    """What bench/simgrid.cpp reads."""
    machines = case.machines
    yield "full" if case.wiring.groups else "star"
    yield f"hosts {len(machines)}"
    for name, capacity in case.wiring.links.items():
        yield f"link {name.replace(' ', '-')} {capacity!r} {LATENCY_S if name.endswith(' out') else 0}"
    for number, machine in enumerate(machines):
        if not case.wiring.groups:
            yield f"ends {number} {machine}-out {machine}-in"
            continue
        for second, destination in enumerate(machines):
            if second != number:
                yield " ".join(
                    ["route", str(number), str(second), *(link.replace(" ", "-") for link in case.wiring.route(machine, destination))]
                )
    if case.replicas:
        yield f"ps {case.replicas} {case.shards} {case.steps} {PAYLOAD_BYTES / case.shards!r} {COMPUTE_S} {SKEW_S}"
    for slot in case.slots:
        yield f"slot {slot.start_s!r} {slot.source} " + " ".join(f"{destination} {nbytes!r}" for destination, nbytes in slot.messages)


def built(folder: Path) -> Path:
    """The program.  Raises CalledProcessError where SimGrid is not installed, FileNotFoundError where g++ is not."""
    program = folder / "simgrid"
    source = Path(__file__).with_suffix(".cpp")
    subprocess.run(["g++", "-O2", "-std=c++17", str(source), "-o", str(program), "-lsimgrid"], check=True, capture_output=True)  # noqa: S607
    return program


def simgrid(program: Path, case: Case) -> Outcome:
    described_in = program.with_suffix(".txt")
    described_in.write_text("\n".join(described(case)) + "\n", encoding="utf-8")
    told = subprocess.run([str(program), str(described_in), *OPTIONS], check=True, capture_output=True, text=True).stdout.split()
    values = [float(value) for value in told[1::2]]
    return Outcome(values[0], values[1], values[2:])


# side by side


def compare(case: Case, program: Path) -> dict[str, Any]:
    theirs = simgrid(program, case)
    ours = Traffic(case, "fair").run()
    errors = [abs(mine - its) / its for mine, its in zip(ours.finished_s, theirs.finished_s, strict=True)]
    return {
        "case": case.name, "messages": case.messages,
        "virtual_s": round(ours.virtual_s, 6), "simgrid_virtual_s": round(theirs.virtual_s, 6),
        "virtual_error": abs(ours.virtual_s / theirs.virtual_s - 1), "worst_message_error": max(errors, default=0.0),
        "messages_per_s": round(case.messages / ours.cpu_s), "simgrid_messages_per_s": round(case.messages / theirs.cpu_s),
        "ratio": round(theirs.cpu_s / ours.cpu_s, 3), "bar": case.bar,
    }  # fmt: skip


@click.command(help=__doc__.splitlines()[0] if __doc__ else "")
@click.option("--case", "names", multiple=True, type=click.Choice(list(CASES)), help="Which; all if left out.")
@click.option("--json", "as_json", is_flag=True)
def main(names: tuple[str, ...], as_json: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            program = built(Path(folder))
        except (FileNotFoundError, subprocess.CalledProcessError):
            print("SimGrid's headers and library, or g++, are not here (Debian: libsimgrid-dev); nothing is compared.")
            sys.exit(0)
        if not as_json:
            print(
                f"{'':<12}{'messages':>9}{'virtual s':>12}{'SimGrid':>12}{'error':>9}{'worst':>9}{'messages/s':>12}{'SimGrid':>10}{'ratio':>8}{'bar':>7}"
            )
        for name in names or CASES:
            told = compare(CASES[name](), program)
            if as_json:
                print(json.dumps(told), flush=True)
            else:
                print(
                    f"{told['case']:<12}{told['messages']:>9,}{told['virtual_s']:>12.6f}{told['simgrid_virtual_s']:>12.6f}"
                    f"{told['virtual_error']:>9.0e}{told['worst_message_error']:>9.0e}{told['messages_per_s']:>12,}"
                    f"{told['simgrid_messages_per_s']:>10,}{told['ratio']:>8.2f}{told['bar']:>7.2f}",
                    flush=True,
                )
    largest = servers(1000, 10, 10, 0.0)
    for model in MODELS:
        journal = Journal()
        rate = round(largest.messages / Traffic(largest, model, journal).run().cpu_s)
        told = {"case": largest.name, "network": model, "messages": largest.messages, "messages_per_s": rate, "digest": journal.digest()}
        print(
            json.dumps(told)
            if as_json
            else f"{largest.name} on {model}, {largest.messages:,} messages, each in a journal: {rate:,} messages/s, digest {told['digest']}"
        )


if __name__ == "__main__":
    main()
