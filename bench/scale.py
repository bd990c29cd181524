"""How the simulator's cost grows: ten thousand machines that fail, one virtual hour, and the same with fewer.

    python -m bench.scale [--replicas 9980 --replicas 2980 ...] [--json]

Each size runs in a process of its own, and says its wall time, its messages, and the most memory it had.  What is to be seen is the last
column, microseconds of wall time a message: but for colder caches (a fifth at ten thousand machines) it does not grow with the cluster.
"""

from __future__ import annotations

import gc
import json
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context

import click

from scenarios.load import load
from sim.run import Run

REPLICAS = (980, 2980, 9980)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one simulation."""

    machines: int
    messages: int
    wall_s: float
    memory_gb: float
    struck: int
    """How often anything failed."""
    per_message_us: float


def measure(replicas: int, overrides: tuple[str, ...]) -> Cost:
    began = time.monotonic()
    run = Run(load("lanl-10000", [f"protocol.replicas={replicas}", *overrides]))
    run.simulate()
    summary = run.summary()
    wall_s = time.monotonic() - began
    gc.freeze()  # as simctl does: else this process takes ten seconds to end
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    struck = sum(fault["struck"] for fault in summary["faults"])
    messages = summary["messages"]
    return Cost(len(run.cluster.machines), messages, round(wall_s, 1), round(peak, 2), struck, round(1e6 * wall_s / messages, 1))


@click.command(help=__doc__.splitlines()[0] if __doc__ else "")
@click.option("--replicas", type=int, multiple=True, default=REPLICAS, show_default=True)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE")
@click.option("--json", "as_json", is_flag=True)
def main(replicas: tuple[int, ...], overrides: tuple[str, ...], as_json: bool) -> None:
    if not as_json:
        click.echo(f"{'machines':>9} {'messages':>12} {'wall s':>8} {'GB':>6} {'failures':>9} {'us a message':>13}")
    for count in replicas:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
            one = alone.submit(measure, count, overrides).result()
        if as_json:
            click.echo(json.dumps(asdict(one)))
        else:
            click.echo(
                f"{one.machines:>9,} {one.messages:>12,} {one.wall_s:>8} {one.memory_gb:>6} {one.struck:>9} {one.per_message_us:>13}"
            )


if __name__ == "__main__":
    main()
