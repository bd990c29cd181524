"""How fast the simulator moves messages: a parameter-server job for its timing alone, beside a bare SimPy loop.

    python bench/messages.py [--replicas 1000] [--shards 10] [--updates 20000] [--json]

The job is the real one, from scenario to digest: in every step each replica pushes to and fetches from every shard, four
messages for each pair.  The reference is SimPy with 10,000 pending timers, one timeout and one callback for each message.
The two take turns of some tens of milliseconds, on the processor's clock, since a shared machine changes its speed from
one second to the next; compare the ratio, not the rates.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

import click
import simpy

from core.chance import stream
from scenarios.schema import Scenario
from sim.loop import rare_collections
from sim.network import MODELS
from sim.run import Run

PENDING = 10_000
TURN = 30_000
"""Events."""


class Bare:
    """SimPy and nothing else."""

    def __init__(self) -> None:
        self.environment = simpy.Environment()
        draws = stream(0, "bench", "timers")
        for _ in range(PENDING):
            self.environment.timeout(draws.random()).callbacks.append(self.again)

    def again(self, _: simpy.Event) -> None:
        self.environment.timeout(1.0).callbacks.append(self.again)

    def turn(self) -> float:
        """Seconds for so many messages."""
        step = self.environment.step
        began = time.process_time()
        for _ in range(TURN):
            step()
        return time.process_time() - began


class Job:
    """The simulated job."""

    def __init__(self, replicas: int, shards: int, updates: int, network: str) -> None:
        self.run = Run(Scenario.model_validate({
            "name": "messages", "numerics": "timing",
            "model": {"network": "mlp", "layers": [1000, 1000]},
            "data": {"source": "synthetic"},
            "protocol": {
                "kind": "downpour", "replicas": replicas, "shards": shards, "deadline": "60 s",
                "rule": {"kind": "sgd", "learning_rate": 0.1}, "stop": {"updates": updates},
            },
            "cluster": {"speed": {"median": "100 MFLOP/s", "sigma": 0.1}, "memory_bandwidth": "10 GB/s"},
            "network": {"model": network, "nic": "10 Gbit/s"},
        }))  # fmt: skip
        self.run.cluster.begin()

    def turn(self) -> float:
        """Seconds for so many events, or a few less once the job is done."""
        began = time.process_time()
        with self.run.loop.in_charge():
            for _ in range(TURN // 1000):
                self.run.loop.env.steps(1000)
                if self.run.cluster.done.triggered:
                    break
        return time.process_time() - began


@dataclass(slots=True)
class Figures:
    network: str
    messages: int
    messages_per_s: int
    bare_simpy_per_s: int
    ratio: float
    digest: str


def measure(replicas: int, shards: int, updates: int, network: str) -> Figures:
    """Run one job to its end, in turns with the reference."""
    job, bare = Job(replicas, shards, updates, network), Bare()
    bare.turn()
    job_s = bare_s = turns = 0.0
    with rare_collections():  # as in every run of the simulator; our objects are not to burden the reference
        while not job.run.cluster.done.triggered:
            job_s += job.turn()
            bare_s += bare.turn()
            turns += 1
    began = time.process_time()
    digest = job.run.journal.digest()
    job_s += time.process_time() - began
    messages = job.run.cluster.network.messages
    rate, reference = messages / job_s, turns * TURN / bare_s
    return Figures(network, messages, round(rate), round(reference), round(rate / reference, 3), digest)


@click.command(help=__doc__.splitlines()[0] if __doc__ else "")
@click.option("--replicas", default=1000, show_default=True)
@click.option("--shards", default=10, show_default=True)
@click.option("--updates", default=20_000, show_default=True, help="Of each shard.")
@click.option("--json", "as_json", is_flag=True)
def main(replicas: int, shards: int, updates: int, as_json: bool) -> None:
    if not as_json:
        click.echo(f"{replicas} replicas x {shards} shards, {PENDING:,} timers pending in bare SimPy")
    for network in MODELS:
        one = measure(replicas, shards, updates, network)
        if as_json:
            click.echo(json.dumps({name: getattr(one, name) for name in Figures.__slots__}))
        else:
            click.echo(
                f"  {network:<8} {one.messages:>9,} messages  {one.messages_per_s:>8,}/s  bare {one.bare_simpy_per_s:>8,}/s"
                f"  ratio {one.ratio:.3f}  digest {one.digest}"
            )


if __name__ == "__main__":
    main()
