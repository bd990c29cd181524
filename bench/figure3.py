"""Figure 3 of the paper: how many times faster one replica computes a minibatch on several machines than on one.

    python -m bench.figure3 [--out runs/figure-3] [--quick] [--jobs 1] [--batch 100] [NETWORK]...
    python -m bench.figure3 --fit                 # which clusters fit what the paper says of speech

The simulator runs Downpour with one replica split over so many machines, timing only.  What is measured is the time from one minibatch to
the next: both phases, and the word among its machines that all are through.  Parameters are fetched once, before that, and never pushed.

FITTED to the speech network alone, which the paper says to be fastest on 8 machines, 2.2 times as fast as one: the speed of a machine, and
the median latency of a message.  A whole family of clusters fits; drawn is the one in the middle (`CLUSTER`).  The other networks are
PREDICTED.  Their sizes (`models/image.py`) were frozen before; the family, and what all of it predicts, were known when the middle was taken.
"""

from __future__ import annotations

import csv
import itertools
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import click

from core.messages import Fetch
from scenarios.load import ScenarioError, validate
from sim.accounts import State
from sim.run import Run

Tables = dict[str, Any]

NETWORKS = {"speech": "speech, 42M", "image-80m": "images, 80M", "image-330m": "images, 330M", "image-1.7b": "images, 1.7B"}
MACHINES = (1, 2, 4, 6, 8, 10, 12, 16, 24, 32, 48, 64, 81, 100, 128)
QUICK = (1, 2, 4, 8, 16, 32)
SEEDS, MOST_SEEDS, ERROR = 12, 40, 0.015
"""Other machines, other luck: so many, and more until the standard error of the mean is so small a part of it."""
MEASURED = 3
"""Minibatches of each."""

BATCH = 100
"""Of all four networks.  The paper does not say; a hundred was usual.  Computing and bytes grow with it and latency does not, so larger ones
gain more from machines; too large ones learn little from each sample."""

CLUSTER: Tables = {
    "cluster": {"cores": 16, "speed": {"median": "50 GFLOP/s", "sigma": 0.09}, "jitter": {"sigma": 0.03}},
    "network": {"model": "fair", "nic": "1 Gbit/s", "latency": {"lognormal": {"median": "1280 us", "sigma": 1.0}}},
}
"""One for all.

cores: 16,000 on 1,000 machines (Le et al., ICML 2012, of the same system).
speed: FITTED.  With 40 to 60 GFLOP/s speech is fastest on exactly 8 machines, with 70 to 110 on 10; 50 is the middle, and 17 % of 16 cores that
are ASSUMED to do 8 single-precision operations a cycle (SSE) at 2.3 GHz.
spread of it: the coefficient of variation among the workers of a job, median of Alibaba's traces (0.09); jitter: that of healthy computation
at ByteDance (0.03).  Both are of later clusters.
nic: ASSUMED, gigabit Ethernet; switches that are never full.
latency: the median FITTED to 2.2 times on 8 machines.  It is all that a message costs besides its bytes: the system's calls, packing and
unpacking, being woken up, queues in switches.  Lognormal with sigma 1.0 is ASSUMED; 1.2 and 1.5 fit as well, with smaller medians.
"""

FITTED = "speech"
PAPER = (("speech", 8, 2.2), ("image-1.7b", 81, 12.0))
"""What it says in numbers: 2.2 times, and more than 12 times."""


NEVER = 1_000_000_000
"""Steps."""


class Point(NamedTuple):
    network: str
    machines: int
    seconds: float
    """For a minibatch."""
    error: float
    """The standard error of that, a mean over so many seeds."""
    seeds: int
    computing: float
    """Share of the time that its machines compute."""
    wall_s: float


def scenario_of(network: str, machines: int, cluster: Tables, seed: int, batch: int) -> Tables:
    return cluster | {
        "numerics": "timing",
        "seed": seed,
        "model": {"network": network, "partitions": machines},
        "data": {"source": "synthetic", "samples": 10_000_000},
        "protocol": {
            "kind": "downpour", "replicas": 1, "shards": machines, "batch": batch, "deadline": "1 h", "detect_within": "1 min",
            "n_fetch": NEVER, "n_push": NEVER if machines > 1 else MEASURED, "max_behind": NEVER, "stop": {"updates": 1},
        },
    }  # fmt: skip


def minibatch_seconds(network: str, machines: int, cluster: Tables, seed: int, batch: int = BATCH) -> tuple[float, float]:
    """From one minibatch to the next, and the share of it that the machines compute; without the traffic of parameters."""
    scenario, mistakes = validate(scenario_of(network, machines, cluster, seed, batch), "figure 3")
    if scenario is None or mistakes:
        raise ScenarioError(mistakes)
    run = Run(scenario)
    if machines == 1:  # nobody to wait for
        run.simulate()
        accounts = run.cluster.settle()
        computing = sum(spent[State.COMPUTING] for role, spent in accounts.roles.items() if role.startswith("replica/"))
        return computing * batch / sum(accounts.samples.values()), 1.0
    ends: list[tuple[float, float]] = []

    def passed(time_s: float, node: str, *_: object) -> None:
        if node != "replica/0/0" or (not ends and fetching(run)):
            return
        accounts = run.cluster.settle()
        ends.append((time_s, sum(spent[State.COMPUTING] for role, spent in accounts.roles.items() if role.startswith("replica/"))))
        if len(ends) == MEASURED + 1:
            run.cluster.done.succeed()

    run.journal.watch("passed", passed)
    run.simulate()
    (began_s, before), (ended_s, after) = ends[0], ends[-1]
    return (ended_s - began_s) / MEASURED, (after - before) / (ended_s - began_s) / machines


def fetching(run: Run) -> bool:
    """Are parameters still under way?"""
    return any(
        isinstance(call.request, Fetch) and not call.done()
        for role, host in run.cluster.hosts.items() if role.startswith("replica/") for call in host._outstanding.values()
    )  # fmt: skip


# one figure


def point(network: str, machines: int, cluster: Tables, batch: int) -> Point:
    began = time.monotonic()
    seconds: list[float] = []
    shares: list[float] = []
    while len(seconds) < SEEDS or (len(seconds) < MOST_SEEDS and standard_error(seconds) > ERROR * fmean(seconds)):
        one, share = minibatch_seconds(network, machines, cluster, len(seconds), batch)
        seconds.append(one)
        shares.append(share)
    return Point(network, machines, fmean(seconds), standard_error(seconds), len(seconds), fmean(shares), time.monotonic() - began)


def standard_error(found: Sequence[float]) -> float:
    return float(stdev(found) / len(found) ** 0.5)


def points(networks: Sequence[str], machines: Sequence[int], cluster: Tables, batch: int, processes: int) -> Iterator[Point]:
    """In any order; the longest begin first."""
    jobs = [(network, count, cluster, batch) for count in sorted(machines, reverse=True) for network in networks]
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        for future in as_completed([pool.submit(point, *job) for job in jobs]):
            one = future.result()
            told = f"{one.network} on {one.machines}: {one.seconds:.4g} s, give or take {one.error:.2g} ({one.seeds} seeds)"
            click.echo(f"  {told}   {one.wall_s:.0f} s of wall time", err=True)
            yield one


def speedups(found: Sequence[Point], network: str) -> dict[int, float]:
    """By machines, in their order; seconds are means, so it is how much more is done in a long time."""
    own = {one.machines: one.seconds for one in sorted(found, key=lambda one: one.machines) if one.network == network}
    return {machines: own[1] / seconds for machines, seconds in own.items()}


def table(found: Sequence[Point]) -> Iterator[str]:
    networks = list(dict.fromkeys(one.network for one in sorted(found, key=lambda one: list(NETWORKS).index(one.network))))
    by_network = {network: speedups(found, network) for network in networks}
    yield f"{'machines':>8}" + "".join(f"{network:>14}" for network in networks)
    for machines in sorted({one.machines for one in found}):
        yield f"{machines:>8}" + "".join(f"{by_network[network][machines]:>14.2f}" for network in networks)
    yield ""
    for network, found_here in by_network.items():
        best = max(found_here, key=found_here.__getitem__)
        last = max(found_here)
        end = "still rising" if best == last else f"{found_here[last]:.2f} on {last}"
        alone = next(one.seconds for one in found if (one.network, one.machines) == (network, 1))
        yield f"{network:<12}{alone:>8.3g} s alone; fastest on {best:>3} machines, {found_here[best]:.2f} times; {end}"
    for network, machines, said in PAPER:
        ours = by_network.get(network, {}).get(machines)
        if ours is not None:
            how = "fitted" if network == FITTED else "predicted"
            one = next(one for one in found if (one.network, one.machines) == (network, machines))
            more, give = "" if network == FITTED else " or more", ours * one.error / one.seconds
            yield f"paper: {network} on {machines} machines {said:g}{more}; here {ours:.2f}, give or take {give:.2f}, {how}"


def save(found: Sequence[Point], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with (out / "figure-3.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow((*Point._fields, "speed_up"))
        for one in sorted(found):
            writer.writerow((*one, speedups(found, one.network)[one.machines]))


def draw(found: Sequence[Point], file: Path) -> None:
    """Speed-up over machines, as the paper's figure 3, with what it says in numbers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    colours = {}
    for network, name in NETWORKS.items():
        here = speedups(found, network) if any(one.network == network for one in found) else {}
        if here:
            (line,) = axes.plot(list(here), list(here.values()), marker=".", label=name)
            colours[network] = line.get_color()
    for network, machines, said in PAPER:
        if network in colours:
            marker = "*" if network == FITTED else "^"
            label = f"the paper: {said:g}" + ("" if network == FITTED else " or more")
            axes.plot([machines], [said], marker, color=colours[network], markersize=12, markeredgecolor="black", label=label)
    axes.set(xlabel="machines of one replica", ylabel="speed-up", title="Fitted to speech alone; the others are predicted", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    figure.savefig(file, dpi=120)


# how it was fitted


def fits(speeds: Sequence[int], sigmas: Sequence[float], batch: int) -> Iterator[str]:
    """For each speed of machines and spread of latency, the median with which 8 machines are 2.2 times as fast: where is the peak then, and what
    of the largest network?
    """
    (_, at, wanted), (other, others_at, _) = PAPER
    yield (
        f"{'GFLOP/s':>8}{'sigma':>6}{'median':>10}"
        + "".join(f"{machines:>7}" for machines in NEAR_THE_PEAK)
        + f"{f'{other} on {others_at}':>20}"
    )
    for speed, sigma in itertools.product(speeds, sigmas):
        low, high = 1.0, 3000.0
        while high / low > 1.02:
            median = (low * high) ** 0.5
            cluster = with_numbers(speed, median, sigma)
            alone, here = (point(FITTED, machines, cluster, batch).seconds for machines in (1, at))
            low, high = (median, high) if alone / here > wanted else (low, median)
        cluster = with_numbers(speed, (low * high) ** 0.5, sigma)
        found = [point(FITTED, machines, cluster, batch) for machines in (1, *NEAR_THE_PEAK)]
        found += [point(other, machines, cluster, batch) for machines in (1, others_at)]
        curve = speedups(found, FITTED)
        told = "".join(f"{curve[machines]:>7.2f}" for machines in NEAR_THE_PEAK)
        yield f"{speed:>8}{sigma:>6}{(low * high) ** 0.5:>7.0f} us{told}{speedups(found, other)[others_at]:>20.1f}"


NEAR_THE_PEAK = (2, 4, 6, 8, 10, 12, 16, 24)


def with_numbers(speed: float, median_us: float, sigma: float) -> Tables:
    """The cluster with others in the place of the numbers in question."""
    cluster = CLUSTER["cluster"] | {"speed": CLUSTER["cluster"]["speed"] | {"median": f"{speed} GFLOP/s"}}
    latency = {"lognormal": {"median": f"{median_us} us", "sigma": sigma}}
    return CLUSTER | {"cluster": cluster, "network": CLUSTER["network"] | {"latency": latency}}


@click.command(help=__doc__.splitlines()[0] if __doc__ else "")
@click.argument("networks", nargs=-1, type=click.Choice(list(NETWORKS)))
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/figure-3"), show_default=True)
@click.option("--batch", default=BATCH, show_default=True)
@click.option("--quick", is_flag=True, help=f"On {', '.join(map(str, QUICK))} machines alone.")
@click.option("--jobs", "processes", default=1, show_default=True, help="Simulations at a time.")
@click.option("--fit", "fitting", is_flag=True, help="Which clusters fit instead.")
@click.option("--speeds", default="40,50,60,70,80,85,100,110,118", show_default=True, help="GFLOP/s, for --fit.")
@click.option("--sigmas", default="1.0", show_default=True, help="Of latency, for --fit.")
def main(networks: tuple[str, ...], out: Path, batch: int, quick: bool, processes: int, fitting: bool, speeds: str, sigmas: str) -> None:
    if fitting:
        for line in fits([int(one) for one in speeds.split(",")], [float(one) for one in sigmas.split(",")], batch):
            click.echo(line)
        return
    found = list(points(networks or tuple(NETWORKS), QUICK if quick else MACHINES, CLUSTER, batch, processes))
    save(found, out)
    draw(found, out / "figure-3.png")
    click.echo("\n".join(table(found)))
    click.echo(f"\nwritten to {out}")


if __name__ == "__main__":
    main()
