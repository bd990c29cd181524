"""How fast the simulator moves what passes between the machines of a replica: the 1.7B network of figure 3 on 81 machines, ten replicas of it.

    python -m bench.split [--network image-1.7b] [--machines 81] [--replicas 10] [--minibatches 100] [--sharing fair] [--plain] [--whole] [--json]

Downpour, timing only, on the cluster of `bench/figure3.py`, or on that of a scenario that says nothing of it (`--plain`): every minibatch is some 20,000 messages between the machines of its replica,
beside pushes and fetches of 84 MB a machine, which share the same wires.  The run ends with the minibatch asked for; `--whole`
has the shards end it, once they have applied the samples of so many: replicas compute on meanwhile, so it is more of them.

The reference is SimPy with 10,000 pending timers, one timeout and one callback for each message, measured before and after: seconds are of
the processor's clock, and the ratio says how many such events a message costs.
"""

from __future__ import annotations

import json
import resource
import time
from dataclasses import asdict, dataclass

import click

from bench.figure3 import CLUSTER, Tables
from bench.messages import TURN, Bare
from scenarios.load import ScenarioError, validate
from sim.network import MODELS
from sim.run import Run

BATCH, EPOCH = 16, 1 << 20
"""Samples."""

TURNS = 10
"""Of the reference, before and after."""


@dataclass(frozen=True, slots=True)
class Figures:
    minibatches: int
    messages: int
    virtual_s: float
    set_up_s: float
    """Of the processor, until the simulation can begin."""
    processor_s: float
    wall_s: float
    """All of it, set-up and digest included."""
    per_message_us: float
    """Of the processor, set-up included."""
    bare_us: float
    """An event of the reference."""
    ratio: float
    peak_gb: float
    digest: str


def scenario_of(network: str, machines: int, replicas: int, minibatches: int, sharing: str, *, plain: bool = False) -> Tables:
    cluster: Tables = {"network": {}} if plain else CLUSTER
    return {
        **cluster,
        "numerics": "timing",
        "network": {**cluster["network"], "model": sharing},
        "model": {"network": network, "partitions": machines},
        "data": {"source": "synthetic", "samples": 2 * EPOCH, "held_out": 0.5},
        "protocol": {
            "kind": "downpour", "replicas": replicas, "shards": machines, "batch": BATCH, "deadline": "1 h", "detect_within": "1 min",
            "stop": {"epochs": minibatches * BATCH / EPOCH},
        },
    }  # fmt: skip


def measure(network: str, machines: int, replicas: int, minibatches: int, sharing: str, *, plain: bool, whole: bool) -> Figures:
    bare = Bare()
    bare_s = sum(bare.turn() for _ in range(TURNS))
    began, began_wall = time.process_time(), time.monotonic()
    scenario, mistakes = validate(scenario_of(network, machines, replicas, minibatches, sharing, plain=plain), "bench/split.py")
    if scenario is None or mistakes:
        raise ScenarioError(mistakes)
    run = Run(scenario)
    computed = 0

    def passed(_time_s: float, node: str, *_: object) -> None:
        nonlocal computed
        if node.endswith("/0"):
            computed += 1
            if computed == minibatches and not whole:
                run.cluster.finish()

    run.journal.watch("passed", passed)
    set_up_s = time.process_time() - began
    run.simulate()
    digest, virtual_s, messages = run.journal.digest(), run.loop.time(), run.cluster.network.messages
    processor_s, wall_s = time.process_time() - began, time.monotonic() - began_wall
    bare_us = 1e6 * (bare_s + sum(bare.turn() for _ in range(TURNS))) / (2 * TURNS * TURN)
    per_message_us = 1e6 * processor_s / messages
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return Figures(
        computed, messages, round(virtual_s, 3), round(set_up_s, 2), round(processor_s, 1), round(wall_s, 1), round(per_message_us, 2),
        round(bare_us, 2), round(per_message_us / bare_us, 2), round(peak, 2), digest,
    )  # fmt: skip


@click.command(help=__doc__.splitlines()[0] if __doc__ else "")
@click.option("--network", default="image-1.7b", show_default=True)
@click.option("--machines", default=81, show_default=True, help="Of a replica.")
@click.option("--replicas", default=10, show_default=True)
@click.option("--minibatches", default=100, show_default=True, help="Of all replicas together.")
@click.option("--sharing", type=click.Choice(list(MODELS)), default="fair", show_default=True, help="Model of the network.")
@click.option("--plain", is_flag=True, help="On the default cluster and network.")
@click.option("--whole", is_flag=True, help="To the end of the job.")
@click.option("--json", "as_json", is_flag=True)
def main(network: str, machines: int, replicas: int, minibatches: int, sharing: str, *, plain: bool, whole: bool, as_json: bool) -> None:
    one = measure(network, machines, replicas, minibatches, sharing, plain=plain, whole=whole)
    if as_json:
        click.echo(json.dumps(asdict(one)))
        return
    click.echo(
        f"{network} on {machines} machines x {replicas} replicas, {sharing}: {one.minibatches} minibatches in {one.virtual_s:,} s of virtual time"
    )
    click.echo(
        f"  {one.messages:,} messages in {one.processor_s} s of the processor ({one.set_up_s} s of it to set up), {one.wall_s} s of wall time,"
        f" {one.peak_gb} GB"
    )  # fmt: skip
    click.echo(f"  {one.per_message_us} us a message; an event of bare SimPy {one.bare_us} us; ratio {one.ratio}; digest {one.digest}")


if __name__ == "__main__":
    main()
