"""Figure 5 of the paper in kind: the time to a fixed accuracy against the machines that each method is given.

    python -m bench.figure5 [--out runs/figure-5] [--quick] [--jobs 1]

The scenarios of figure 4 with other numbers of replicas, on the same task and shards.  Each rate is the scenario's own, times the root of
the ratio of replicas where there are others: as many times staler, and the noise of as many gradients averaged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from bench.figure4 import COMPARED, METHODS, Job, Outcome, outcomes, save, told
from scenarios.load import load

REPLICAS = {
    "SGD": (1,),
    "Downpour 20": (5, 10, 20, 50),
    "Downpour + Adagrad 20": (5, 10, 20, 50, 100, 200),
    "Sandblaster 200": (50, 100, 200, 400),
}
QUICK = {"SGD": (1,), "Downpour 20": (20,), "Downpour + Adagrad 20": (10, 20, 100), "Sandblaster 200": (100, 200)}


def jobs(replicas: dict[str, tuple[int, ...]]) -> Iterator[Job]:
    for method, counts in replicas.items():
        protocol = load(METHODS[method]).protocol
        for count in counts:
            overrides = [f"protocol.replicas={count}", f"protocol.stop.accuracy={COMPARED}"]
            if protocol.kind == "downpour" and count != protocol.replicas:
                overrides.append(f"protocol.rule.learning_rate={protocol.rule.learning_rate * math.sqrt(protocol.replicas / count):.3g}")
            elif protocol.kind == "sandblaster":
                overrides.append(f"protocol.portions={protocol.bundle * count}")
            yield Job(method.rstrip(" 0123456789"), METHODS[method], tuple(overrides))


def draw(found: Sequence[Outcome], file: Path) -> None:
    """Time over machines; what never came there within the budget is not drawn."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.add_subplot()
    for method in dict.fromkeys(one.method for one in found):
        points = [
            (one.machines, seconds / 60) for one in found if one.method == method and (seconds := one.seconds_to(COMPARED)) is not None
        ]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", label=method)
    axes.set(xlabel="machines", ylabel=f"virtual time to accuracy {COMPARED:g}, min", ylim=(0, None), title="Time to a fixed accuracy")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=120)


@click.command(help=__doc__.splitlines()[0] if __doc__ else "")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/figure-5"), show_default=True)
@click.option("--quick", is_flag=True, help="Fewer numbers of machines.")
@click.option("--jobs", "processes", default=1, show_default=True, help="Simulations at a time.")
def main(out: Path, quick: bool, processes: int) -> None:
    found = list(outcomes(list(jobs(QUICK if quick else REPLICAS)), processes))
    save(found, out)
    draw(found, out / "figure-5.png")
    click.echo(f"{'method':<20}{'replicas':>9}{'machines':>9}{f'to {COMPARED:g}':>10}{'accuracy':>10}{'staleness':>10}{'wall':>8}")
    for one in found:
        figures = f"{told(one.seconds_to(COMPARED)):>10}{one.accuracy:>10.3f}{one.staleness:>10.1f}{one.wall_s:>6.0f} s"
        click.echo(f"{one.method:<20}{one.replicas:>9}{one.machines:>9}{figures}")
    click.echo(f"\nwritten to {out}")


if __name__ == "__main__":
    main()
