"""What staleness does to plain SGD, and what a rate divided by it mends (Zhang et al., arXiv 1511.05950): handwritten digits, simulated.

    python -m bench.staleness [--out runs/staleness] [--rate 0.2]

Equal machines, a minibatch a second, the same number of samples for every number of replicas.  A replica of Downpour begins a fetch
before it computes, and installs it before the next minibatch, so that a gradient is two computations old: of n replicas, 2 n - 1 updates.
"""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from scenarios.schema import Scenario
from sim.run import simulate

REPLICAS = (1, 2, 4, 8, 15, 30)
NOISE = 0.03
"""Of a computation's time: healthy workers (ByteDance's traces)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    replicas: int
    aware: bool
    accuracy: float
    """0 where the loss became no number."""
    mean: float
    beyond: float
    """Share of updates more than 4 n stale: twice what is usual."""


def scenario(replicas: int, rate: float, *, aware: bool, epochs: float = 40) -> Scenario:
    return Scenario.model_validate({
        "name": "staleness", "seed": 1,
        "model": {"layers": [64, 64, 10], "cost": {"parameters": 100_000, "flops": "10 MFLOP"}},
        "protocol": {
            "kind": "downpour", "replicas": replicas, "shards": 1, "batch": 32, "durability": "none", "detect_within": "10 s",
            "rule": {"kind": "sgd", "learning_rate": rate, "staleness_aware": aware}, "stop": {"epochs": epochs},
        },
        "cluster": {"speed": "320 MFLOP/s", "jitter": {"sigma": NOISE}},
    })  # fmt: skip


def measure(replicas: int, rate: float, *, aware: bool) -> Outcome:
    done = simulate(scenario(replicas, rate, aware=aware))
    counts, final = done.tally.staleness, done.cluster.final
    beyond = sum(count for value, count in counts.items() if value > 4 * replicas) / counts.total()
    accuracy = final.quality.accuracy if final is not None and not done.cluster.failed else 0.0
    return Outcome(replicas, aware, accuracy or 0.0, done.tally.mean_staleness(), beyond)


def draw(found: list[Outcome], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for aware, label in ((False, "rate"), (True, "rate / staleness")):
        own = [one for one in found if one.aware == aware]
        axes.plot([one.replicas for one in own], [one.accuracy for one in own], marker="o", label=label)
    axes.set(xlabel="replicas", ylabel="held-out accuracy after the same samples", ylim=(0, 1), title="Plain SGD, stale")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    figure.savefig(file, dpi=120)


@click.command(help=__doc__.splitlines()[0] if __doc__ else "")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/staleness"), show_default=True)
@click.option("--rate", default=0.2, show_default=True)
def main(out: Path, rate: float) -> None:
    found = []
    click.echo(f"{'replicas':>8}  {'rate':<17}{'accuracy':>9}{'staleness':>11}{'beyond 4 n':>12}")
    for replicas in REPLICAS:
        for aware in (False, True):
            one = measure(replicas, rate, aware=aware)
            found.append(one)
            name = f"{rate:g}{' / staleness' if aware else ''}"
            click.echo(f"{replicas:>8}  {name:<17}{one.accuracy:>9.3f}{one.mean:>11.2f}{one.beyond:>12.2g}")
    out.mkdir(parents=True, exist_ok=True)
    with (out / "staleness.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(asdict(found[0])))
        writer.writeheader()
        writer.writerows(asdict(one) for one in found)
    draw(found, out / "staleness.png")
    click.echo(f"written to {out}")


if __name__ == "__main__":
    main()
