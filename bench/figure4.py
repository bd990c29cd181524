"""Figure 4 of the paper in kind: accuracy over virtual time of SGD, Downpour and Sandblaster, and which of them gets anywhere first.

    python -m bench.figure4 [--out runs/figure-4] [--quick] [--jobs 1] [--set KEY=VALUE]...
    python -m bench.figure4 --sweep [METHOD]...           # how the rates in the scenarios were found

The five bundled scenarios figure-4-* differ in their protocol alone: same task, same warmed-up network, same machines, same budget.
*Time* is the first evaluation that finds the accuracy; *staleness* the mean number of updates between a gradient's parameters and its
application.  Every rate is the best of its method's grid, `RATES`: the first to `COMPARED`, else the most accurate.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import click

from report.tally import Evaluation
from scenarios.load import load
from scenarios.schema import Scenario
from sim.run import simulate

METHODS = {
    "SGD": "figure-4-sgd",
    "Downpour 20": "figure-4-downpour-20",
    "Downpour + Adagrad 20": "figure-4-adagrad-20",
    "Sandblaster 200": "figure-4-sandblaster",
    "Downpour + Adagrad 200": "figure-4-adagrad-200",
}
"""In the paper's order, slowest first; its Sandblaster has 2,000 replicas."""

TARGETS = (0.6, 0.7, 0.8)
COMPARED = 0.8
"""The accuracy by whose time methods are ordered, as the paper's are by 16 %."""
RATES = {
    "SGD": (0.03, 0.1, 0.3, 1.0),
    "Downpour 20": (0.01, 0.03, 0.1, 0.3),
    "Downpour + Adagrad 20": (0.01, 0.03, 0.1),
    "Downpour + Adagrad 200": (0.003, 0.01, 0.03),
}
QUICK = ("protocol.stop.time='8 min'",)


@dataclass(frozen=True, slots=True)
class Job:
    """One simulation: a scenario and what is set in it."""

    method: str
    scenario: str
    overrides: tuple[str, ...] = ()


@dataclass(slots=True)
class Outcome:
    """What became of it."""

    method: str
    overrides: tuple[str, ...]
    replicas: int
    machines: int
    """All but the evaluator's."""
    curve: list[Evaluation]
    updates: int
    staleness: float
    status: str
    wall_s: float

    def seconds_to(self, accuracy: float) -> float | None:
        """When an evaluation first found that, if one did."""
        return next((point.time_s for point in self.curve if (point.accuracy or 0.0) >= accuracy), None)

    @property
    def accuracy(self) -> float:
        """Of the last evaluation."""
        return (self.curve[-1].accuracy or 0.0) if self.curve else 0.0


def run(job: Job) -> Outcome:
    scenario = load(job.scenario, job.overrides)
    done = simulate(scenario)
    summary = done.summary()
    return Outcome(
        job.method, job.overrides, scenario.protocol.all_replicas, machines(scenario), done.tally.curve, summary["updates"],
        summary["staleness"]["mean"], summary["status"], summary["wall_seconds"],
    )  # fmt: skip


def machines(scenario: Scenario) -> int:
    """One for each role, but for the evaluator, which a method does without."""
    protocol = scenario.protocol
    return protocol.all_replicas + protocol.shards + (protocol.kind != "downpour")


def outcomes(jobs: Sequence[Job], processes: int) -> Iterator[Outcome]:
    """In that order, each told as it ends."""
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        for outcome in pool.map(run, jobs):
            reached = "  ".join(f"{accuracy:g}: {told(outcome.seconds_to(accuracy))}" for accuracy in TARGETS)
            click.echo(f"  {outcome.method} {' '.join(outcome.overrides)}: {reached}   ({outcome.wall_s:.0f} s of wall time)", err=True)
            yield outcome


def told(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.0f} s"


def slowest_first(found: Sequence[Outcome], accuracy: float) -> list[Outcome]:
    """Those that never reach it before all others, the least accurate first."""
    return sorted(found, key=lambda one: (-(one.seconds_to(accuracy) or float("inf")), one.accuracy))


def table(found: Sequence[Outcome]) -> Iterator[str]:
    columns = "".join(f"{f'to {accuracy:g}':>10}" for accuracy in TARGETS)
    yield f"{'method':<24}{'replicas':>9}{'machines':>9}{columns}{'accuracy':>10}{'updates':>9}{'staleness':>10}{'wall':>8}"
    for one in found:
        times = "".join(f"{told(one.seconds_to(accuracy)):>10}" for accuracy in TARGETS)
        counts = f"{one.accuracy:>10.3f}{one.updates:>9,}{one.staleness:>10.1f}{one.wall_s:>6.0f} s"
        yield f"{one.method:<24}{one.replicas:>9}{one.machines:>9}{times}{counts}"
    yield ""
    yield f"slowest to fastest to {COMPARED:g}"
    yield f"  paper  {' > '.join(METHODS)}"
    yield f"  here   {' > '.join(one.method for one in slowest_first(found, COMPARED))}"


def save(found: Sequence[Outcome], out: Path) -> None:
    """Every outcome as JSON, every point of every curve as CSV."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "outcomes.json").write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n", encoding="utf-8")
    with (out / "curves.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("method", "replicas", *Evaluation._fields))
        writer.writerows((one.method, one.replicas, *point) for one in found for point in one.curve)


def draw(found: Sequence[Outcome], file: Path) -> None:
    """Accuracy over virtual time, as the paper's figure 4."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for one in found:
        axes.plot([p.time_s / 60 for p in one.curve], [p.accuracy or 0.0 for p in one.curve], label=one.method, linewidth=1.2)
    axes.axhline(COMPARED, color="grey", linestyle=":", linewidth=1)
    axes.set(xlabel="virtual time, min", ylabel="held-out accuracy", ylim=(0, 1), title="Accuracy of each method over time")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(file, dpi=120)


def sweep(methods: Sequence[str], overrides: tuple[str, ...], processes: int) -> None:
    """The best rate of each method that has one."""
    rates = [(method, rate) for method in methods for rate in RATES.get(method, ())]
    found = list(
        outcomes([Job(method, METHODS[method], (f"protocol.rule.learning_rate={rate}", *overrides)) for method, rate in rates], processes)
    )
    for method in dict.fromkeys(method for method, _ in rates):
        best = slowest_first([one for one in found if one.method == method], COMPARED)[-1]
        click.echo(f"{method:<24}{best.overrides[0]}: {COMPARED:g} after {told(best.seconds_to(COMPARED))}, {best.accuracy:.3f} in the end")


@click.command(help=__doc__.splitlines()[0] if __doc__ else "")
@click.argument("methods", nargs=-1, type=click.Choice(list(METHODS)))
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/figure-4"), show_default=True)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="In every scenario.")
@click.option("--quick", is_flag=True, help=f"With {', '.join(QUICK)}.")
@click.option("--jobs", "processes", default=1, show_default=True, help="Simulations at a time.")
@click.option("--sweep", "sweeping", is_flag=True, help="Find the best rates instead.")
def main(methods: tuple[str, ...], out: Path, overrides: tuple[str, ...], quick: bool, processes: int, sweeping: bool) -> None:
    chosen = methods or tuple(METHODS)
    overrides += QUICK if quick else ()
    if sweeping:
        sweep(chosen, overrides, processes)
        return
    found = list(outcomes([Job(method, METHODS[method], overrides) for method in chosen], processes))
    save(found, out)
    draw(found, out / "figure-4.png")
    click.echo("\n".join(table(found)))
    click.echo(f"\nwritten to {out}")


if __name__ == "__main__":
    main()
