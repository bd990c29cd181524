"""How fast the simulator moves messages: a parameter-server job for its timing alone, beside a bare SimPy loop.

    python bench/messages.py [--replicas 1000] [--shards 10] [--json]

The job is the real one, from scenario to digest: in every step each replica pushes to and fetches from every shard, four
messages for each pair.  The reference is SimPy with 10,000 pending timers, one timeout and one callback for each message.
Both are measured in turns in the same run; compare the ratio, not the figures.
"""

from __future__ import annotations

import json
import statistics
import time

import click
import simpy

from core.chance import stream
from scenarios.schema import Scenario
from sim.run import Run

PENDING = 10_000
ROUNDS = 3


def bare(messages: int) -> float:
    """Messages a second of a SimPy loop that does nothing else."""
    environment, draws = simpy.Environment(), stream(0, "bench", "timers")
    left = messages

    def again(_: simpy.Event) -> None:
        nonlocal left
        left -= 1
        environment.timeout(1.0).callbacks.append(again)

    for _ in range(PENDING):
        environment.timeout(draws.random()).callbacks.append(again)
    began = time.process_time()
    while left > 0:
        environment.step()
    return messages / (time.process_time() - began)


def job(replicas: int, shards: int, updates: int, network: str) -> tuple[float, int, str]:
    """Messages a second of the simulated job, how many there were, and the digest."""
    scenario = Scenario.model_validate({
        "name": "messages", "numerics": "timing",
        "model": {"network": "mlp", "layers": [1000, 1000]},
        "data": {"source": "synthetic"},
        "protocol": {
            "kind": "downpour", "replicas": replicas, "shards": shards, "deadline": "60 s",
            "rule": {"kind": "sgd", "learning_rate": 0.1}, "stop": {"updates": updates},
        },
        "cluster": {"speed": {"median": "100 MFLOP/s", "sigma": 0.1}, "memory": "10 GB/s"},
        "network": {"model": network, "nic": "10 Gbit/s"},
    })  # fmt: skip
    run = Run(scenario)
    began = time.process_time()
    run.simulate()
    digest = run.journal.digest()
    return run.cluster.network.messages / (time.process_time() - began), run.cluster.network.messages, digest


@click.command(help=__doc__.splitlines()[0] if __doc__ else "")
@click.option("--replicas", default=1000, show_default=True)
@click.option("--shards", default=10, show_default=True)
@click.option("--updates", default=5000, show_default=True, help="Of each shard.")
@click.option("--network", type=click.Choice(["latency", "fifo"]), default="fifo", show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(replicas: int, shards: int, updates: int, network: str, as_json: bool) -> None:
    references, rates, digests, messages = [], [], set(), 0
    for _ in range(ROUNDS):
        references.append(bare(500_000))
        rate, messages, digest = job(replicas, shards, updates, network)
        rates.append(rate)
        digests.add(digest)
    assert len(digests) == 1, "the same job gave two digests"
    ratio = statistics.median(r / b for r, b in zip(rates, references, strict=True))
    result = {
        "messages_per_s": round(statistics.median(rates)), "bare_simpy_per_s": round(statistics.median(references)),
        "ratio": round(ratio, 3), "messages": messages, "network": network, "digest": digests.pop(),
    }  # fmt: skip
    if as_json:
        click.echo(json.dumps(result))
    else:
        click.echo(f"{replicas} replicas x {shards} shards, {network}: {messages:,} messages, digest {result['digest']}")
        click.echo(f"  simulated job {result['messages_per_s']:>9,} messages/s")
        click.echo(f"  bare SimPy    {result['bare_simpy_per_s']:>9,} messages/s, {PENDING:,} timers pending")
        click.echo(f"  ratio         {ratio:9.3f}")


if __name__ == "__main__":
    main()
