"""`simctl criticality`: which single loss hurts most, and when?"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from report.commands import scenario_arguments
from report.reading import seconds

if TYPE_CHECKING:
    from report.criticality_findings import Criticality
    from scenarios.schema import Scenario


@click.command()
@scenario_arguments
@click.option(
    "--targets", multiple=True, metavar="GLOB",
    help="What is lost: a glob as 'machine/*' or 'machine/* out' (links), or machine, group, role, link; repeatable.  [default: everything]",
)  # fmt: skip
@click.option(
    "--moments", type=click.IntRange(1, 1000), default=5, show_default=True, metavar="K", help="At which it is lost, spread over the run."
)
@click.option(
    "--most", type=click.IntRange(min=1), default=500, show_default=True, metavar="N",
    help="No more runs than that: of more things that are alike a sample is taken, and told of.",
)  # fmt: skip
@click.option(
    "--repair", "repair_s", callback=seconds, metavar="TIME",
    help="What is lost is there again after so long, as '10 min'.  [default: never; the process of a role at once]",
)  # fmt: skip
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Runs side by side.  [default: one for each core]")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Write criticality.json, .csv and .svg, a heat map, there.",
)
@click.option("--json", "as_json", is_flag=True, help="Print all that was found as one JSON object.")
def criticality(
    file: str, overrides: tuple[str, ...], targets: tuple[str, ...], moments: int, most: int, repair_s: float | None, workers: int | None,
    out: Path | None, *, as_json: bool,
) -> None:  # fmt: skip
    """Lose each machine, link, group and role at each of some moments, and tell what that costs, the worst first."""
    from report.exits import Exit, clear_errors

    if most < moments:
        raise click.UsageError(
            f"--most: found {most}, in which nothing can be lost at each of {moments} moments; allowed: {moments} or more"
        )
    with clear_errors():
        from report.criticality_table import fresh, show, write
        from scenarios.load import load
        from sim.criticality import Study, things

        scenario = load(file, overrides)
        there = things(scenario, targets)
        folder = fresh(out) if out is not None else None
        workers = workers or os.cpu_count() or 1
        with telling() as tell:
            began = time.monotonic()
            study = Study(scenario, undisturbed(scenario, tell), there, moments, most=most, repair_s=repair_s)
            found = study.run(workers, pace(tell, time.monotonic() - began, workers))
        written = write(found, folder) if folder is not None else []
        if as_json:
            click.echo(json.dumps(found.as_json()))
        else:
            from rich.console import Console

            show(Console(), found)
            for path in written:
                click.echo(f"{path}: {WHAT[path.suffix]}")
        sys.exit(Exit.INTERRUPTED if found.cut_short else Exit.DONE)


WHAT = {".json": "all that was found", ".csv": "a line for each run", ".svg": "the heat map"}

Tell = Callable[[str], None]


@contextmanager
def telling() -> Iterator[Tell]:
    """A line that changes, where someone is looking."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status("simulating") as status:
        yield status.update


def undisturbed(scenario: Scenario, tell: Tell) -> dict[str, Any]:
    """The summary of the scenario as it is.  One that fails ends the command: there is nothing to compare a loss with."""
    from report.exits import Exit
    from sim.progress import Progress
    from sim.run import Run

    shown = Progress()
    run = Run(scenario, on_progress=lambda run: tell(f"undisturbed: {shown.line(run) or 'simulating'}"))
    run.simulate()
    summary = run.summary()
    if summary["status"] == "failed":
        click.echo(f"error: {scenario.file}: the job fails with nothing lost: {summary['reason']}", err=True)
        sys.exit(Exit.FAILED)
    return summary


def pace(tell: Tell, wall_s: float, workers: int) -> Callable[[Criticality], None]:
    """How many runs are over, and how long the others will take: at first as long as the undisturbed one, then as long as those."""
    from scenarios.units import in_words

    began = time.monotonic()

    def progress(found: Criticality) -> None:
        done, left = found.done, found.runs - found.done
        each_s = (time.monotonic() - began) / done if done >= workers else wall_s / workers
        failed = sum(row.failures for row in found.rows.values())
        told = f", {failed:,} of them failed" if failed else ""
        tell(f"{done:,} of {found.runs:,} runs{told}; about {in_words(max(1.0, round(left * each_s)))} left")

    return progress
