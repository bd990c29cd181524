"""Does the same scenario give the same bytes, and what of it hangs on the order of what happens at once?  The product asks itself."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from sim.workers import workers

METRICS = ("seconds", "updates", "loss", "accuracy", "staleness.mean", "messages", "repeated", "lost_updates")
"""Of the summary, whose spread over tie orders is shown."""


class Parting(NamedTuple):
    """The first line at which two journals differ; None where one of them is at its end."""

    line: int
    first: str | None
    second: str | None

    def __str__(self) -> str:
        first, second = ("(its end)" if text is None else text for text in (self.first, self.second))
        return f"the journals part at line {self.line}:\n    first   {first}\n    second  {second}"


def parting(first: Path, second: Path) -> Parting | None:
    """None if they are the same."""
    with first.open(encoding="utf-8") as one, second.open(encoding="utf-8") as other:
        for number, (mine, theirs) in enumerate(zip_longest(one, other), start=1):
            if mine != theirs:
                return Parting(number, mine and mine.rstrip("\n"), theirs and theirs.rstrip("\n"))
    return None


def twice(file: str, overrides: Sequence[str], journal: Path) -> dict[str, Any]:
    """What stands in the summary of a run that was run again."""
    parted = run_again(file, overrides, journal)
    if parted is None:
        return {"same": True, "told": "a second run, which hashes differently, wrote the same journal"}
    return {"same": False, "told": str(parted), **parted._asdict()}


def run_again(file: str, overrides: Sequence[str], journal: Path) -> Parting | None:
    """Run it once more, in a process of its own that hashes differently; where the journals part, if they do.

    Raises ChildProcessError if the second run comes to no end of its own.
    """
    with tempfile.TemporaryDirectory(prefix="simctl-twice-") as folder:
        out = Path(folder) / "second"
        sets = [part for override in overrides for part in ("--set", override)]
        command = [sys.executable, "-P", "-m", "sim.cli", "run", file, *sets, "--out", str(out), "--no-report", "--json"]
        own = os.environ.get("PYTHONHASHSEED", "")
        another = str((int(own) if own.isdigit() else 0) + 1)
        done = subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": another}, capture_output=True, text=True, check=False)
        if not (out / "summary.json").exists():
            raise ChildProcessError(f"the second run ended with {done.returncode}: {done.stderr.strip()[-500:]}")
        return parting(journal, out / "journal.tsv")


class Spread(NamedTuple):
    """One metric: in the usual order of ties, and over the others."""

    metric: str
    usual: float | None
    least: float | None
    median: float | None
    most: float | None


def spreads(file: str, overrides: Sequence[str], summary: dict[str, Any], orders: int) -> Iterator[Spread]:
    """Run so many orders of ties, on all cores; `summary` is of the usual one, first come, first served."""
    with workers(min(orders, os.cpu_count() or 1)) as pool:
        found = list(pool.map(partial(metrics_of, file, tuple(overrides)), range(1, orders + 1)))
    for metric in METRICS:
        values = [value for one in found if (value := one[metric]) is not None]
        yield Spread(metric, looked_up(summary, metric), *((min(values), median(values), max(values)) if values else (None, None, None)))


def metrics_of(file: str, overrides: Sequence[str], order: int) -> dict[str, float | None]:
    from scenarios.load import load
    from sim.run import simulate

    summary = simulate(load(file, overrides), ties=order).summary()
    return {metric: looked_up(summary, metric) for metric in METRICS}


def looked_up(summary: dict[str, Any], metric: str) -> float | None:
    value: Any = summary
    for key in metric.split("."):
        value = value[key]
    return None if value is None else float(value)
