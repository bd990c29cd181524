"""What backup copies at the end of a batch are worth, in simulated time: Sandblaster with slow replicas among many.

    python -m bench.backup [--replicas 50] [--portions 200] [--slow 3] [--factor 20] [--seeds 10] [--json]

Each seed draws who is slow, every machine's speed and the noise of each computation.  *Ideal* is the work of a batch over the
speed of all replicas together, as if it could be spread perfectly and travelled in no time; what portions that cannot be cut
allow at best (*whole*) is the earliest time by which the replicas can have done so many of them.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass

import click

from core.chance import stream
from core.job import replica_name
from core.journal import Record
from scenarios.schema import Scenario
from sim.run import Run

FLOPS = 1e9
"""Of a portion, on machines of about as many a second."""


@dataclass(slots=True)
class Figures:
    """Medians over batches, in seconds; work in portions computed for each that counts."""

    seed: int
    ideal_s: float
    whole_s: float
    backups_s: float
    none_s: float
    backups_work: float
    none_work: float

    @property
    def ratio(self) -> float:
        """Batch time with backups over the ideal."""
        return self.backups_s / self.ideal_s


def victims_of(seed: int, replicas: int, slow: int) -> list[int]:
    return stream(seed, "bench", "slow").sample(range(replicas), slow)


def job(seed: int, replicas: int, portions: int, slow: int, factor: float, iterations: int, backup: str) -> Run:
    return Run(Scenario.model_validate({
        "name": "backup", "seed": seed, "numerics": "timing",
        "model": {"cost": {"parameters": 1_000_000, "flops": "1 GFLOP"}},
        "data": {"source": "synthetic", "samples": 2 * portions, "held_out": 0.5},
        "protocol": {
            "kind": "sandblaster", "replicas": replicas, "shards": 4, "portions": portions, "bundle": 1, "backup": backup,
            "stop": {"iterations": iterations}, "detect_within": "10 s", "durability": "none",
        },
        "cluster": {"speed": {"median": "1 GFLOP/s", "sigma": 0.1}, "jitter": {"sigma": 0.05}},
        "fault": [{"kind": "slowdown", "target": replica_name(number), "factor": factor} for number in victims_of(seed, replicas, slow)],
    }))  # fmt: skip


def batch_times(run: Run) -> list[float]:
    """From each evaluation's beginning to its cover, but for the first, in which nobody knows yet what is usual."""
    begun: list[float] = []
    times: list[float] = []

    def given(record: Record) -> None:
        if len(begun) == len(times):
            begun.append(record.time_s)

    run.journal.watch("given", lambda *fields: given(Record(*fields)))
    run.journal.watch("covered", lambda *fields: times.append(fields[0] - begun[-1]))
    run.simulate()
    return times[1:]


def measure(seed: int, replicas: int, portions: int, slow: int, factor: float, iterations: int) -> Figures:
    found = {}
    for backup in ("end-of-batch", "none"):
        run = job(seed, replicas, portions, slow, factor, iterations, backup)
        times = batch_times(run)
        computed = run.tally.portions["given"] / (portions * run.tally.batches)
        found[backup] = statistics.median(times), computed
    victims = victims_of(seed, replicas, slow)
    speeds = [run.cluster.home(replica_name(number)).flops_per_s / (factor if number in victims else 1) for number in range(replicas)]
    return Figures(
        seed, portions * FLOPS / sum(speeds), whole(speeds, portions), found["end-of-batch"][0], found["none"][0],
        found["end-of-batch"][1], found["none"][1],
    )  # fmt: skip


def whole(speeds: list[float], portions: int) -> float:
    """The earliest time by which these replicas can have computed so many portions, none of them cut."""
    ends = sorted(count * FLOPS / speed for speed in speeds for count in range(1, portions + 1))
    return ends[portions - 1]


@click.command(help=__doc__.splitlines()[0] if __doc__ else "")
@click.option("--replicas", default=50, show_default=True)
@click.option("--portions", default=200, show_default=True)
@click.option("--slow", default=3, show_default=True, help="Replicas.")
@click.option("--factor", default=20.0, show_default=True, help="How many times slower.")
@click.option("--iterations", default=10, show_default=True)
@click.option("--seeds", default=10, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(replicas: int, portions: int, slow: int, factor: float, iterations: int, seeds: int, as_json: bool) -> None:
    if not as_json:
        click.echo(f"{replicas} replicas, {slow} of them {factor:g} times slower, {portions} portions; medians of batches")
    everything = []
    for seed in range(seeds):
        one = measure(seed, replicas, portions, slow, factor, iterations)
        everything.append(one)
        if as_json:
            click.echo(json.dumps(asdict(one) | {"ratio": one.ratio}))
        else:
            click.echo(
                f"  seed {seed:<3} ideal {one.ideal_s:6.3f} s  whole {one.whole_s:6.3f} s   with backups {one.backups_s:6.3f} s"
                f" ({one.ratio:.2f} of ideal, work {one.backups_work:.3f})   without {one.none_s:7.3f} s"
                f" ({one.none_s / one.ideal_s:.2f}, work {one.none_work:.3f})"
            )
    if not as_json:
        ratios = sorted(one.ratio for one in everything)
        click.echo(f"  with backups: median {statistics.median(ratios):.3f} of the ideal, worst {ratios[-1]:.3f}")


if __name__ == "__main__":
    main()
