"""`simctl criticality`, the command: one run for each single loss, on all cores, and what it costs."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from report.commands import scenario_arguments

if TYPE_CHECKING:
    from report.criticality import Criticality, Outcome
    from sim.criticality import Subject, Variant


@click.command()
@scenario_arguments
@click.option("--moments", type=click.IntRange(1), default=5, show_default=True, help="When each is lost: spread evenly over the run.")
@click.option("--targets", multiple=True, metavar="GLOB", help="Lose these alone, as 'machine/*' or '* out'; repeatable; default: all.")
@click.option(
    "--repair", metavar="DURATION", help="Until it is back, as '10 min'; default: never, but processes are started again at once."
)
@click.option("--most", type=click.IntRange(1), default=500, show_default=True, help="Runs; a scenario that needs more is refused.")
@click.option("--workers", type=click.IntRange(1), help="Processes; default: as many as there are cores.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder of the results; default: a new one under runs/.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON object.")
def criticality(
    file: str, overrides: tuple[str, ...], *, moments: int, targets: tuple[str, ...], repair: str | None, most: int, workers: int | None,
    out: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Which single loss hurts most, and when?

    Each machine, link, group (rack, power unit) and role is lost at each of some moments, one simulated run each: a table and a heat map
    of what that costs, worst first.  Exit codes: 0 done, 2 wrong scenario or command line, 5 cannot write, 130 interrupted.
    """
    from report.exits import Exit, clear_errors

    with clear_errors():
        from report.criticality import show, write
        from sim.criticality import begin, subject, undisturbed

        check(repair)
        on = subject(file, overrides, targets)
        enough(on, moments, most)
        folder = made(out, on.scenario.name)
        began = time.monotonic()
        undisturbed(on)
        found = begin(on, moments, repair or "")
        with shown() as look:
            run_all(on, found, workers=workers or os.cpu_count() or 1, look=look)
        write(found, folder)
        if as_json:
            click.echo(json.dumps(found.to_json() | {"folder": str(folder)}))
        else:
            from rich.console import Console

            show(Console(), found)
            runs = f"{len(found.outcomes):,} runs" if found.whole else f"{len(found.outcomes):,} of {found.wanted:,} runs, interrupted"
            click.echo(f"{runs}, in {time.monotonic() - began:.1f} s: {folder}")
        sys.exit(Exit.DONE if found.whole else Exit.INTERRUPTED)


def run_all(on: Subject, found: Criticality, *, workers: int, look: Callable[[Criticality], None]) -> None:
    """Every variant; Ctrl-C ends it early, and what was done counts."""
    from sim.criticality import variants

    try:
        with closing(examined(variants(on, found), workers)) as outcomes:
            for variant, outcome in outcomes:
                found.outcomes[variant.name, variant.moment] = outcome
                look(found)
    except KeyboardInterrupt:
        pass  # `found.whole` says so


def examined(variants: Sequence[Variant], workers: int) -> Generator[tuple[Variant, Outcome]]:
    """Each with what came of it, as they come; one worker is this process itself."""
    from sim.criticality import examine
    from sim.hunting import leave_interrupts_to_the_parent

    if workers == 1:
        yield from ((variant, examine(variant)) for variant in variants)
        return
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=leave_interrupts_to_the_parent)
    try:
        under_way = {pool.submit(examine, variant): variant for variant in variants}
        yield from ((under_way[future], future.result()) for future in as_completed(under_way))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.terminate()


def check(repair: str | None) -> None:
    from scenarios.units import positive_duration

    try:
        positive_duration(repair or "1 s")
    except ValueError as error:
        raise click.UsageError(f"--repair {repair}: {error}") from None


def enough(on: Subject, moments: int, most: int) -> None:
    """Nothing is left out silently."""
    if (runs := len(on.things) * moments) > most:
        raise click.UsageError(
            f"{len(on.things):,} things lost at {moments} moments are {runs:,} runs, more than --most {most}; allowed: fewer --moments,"
            f" some --targets as 'machine/*', or --most {runs}"
        )


def made(out: Path | None, name: str) -> Path:
    """The folder of the results.  Raises FolderError."""
    from report.criticality import STATE
    from report.folder import FolderError

    folder = out or Path("runs") / f"{name}-criticality-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    if (folder / STATE).exists():
        raise FolderError(f"{folder} holds such results already; choose another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderError(f"cannot make {folder}: {error.strerror}") from None
    return folder


@contextmanager
def shown() -> Iterator[Callable[[Criticality], None]]:
    """A line that says how far it is, where someone is looking."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status("losing one thing after the other") as status:
        yield lambda found: status.update(so_far(found))


def so_far(found: Criticality) -> str:
    from report.criticality import longer

    worst = max(found.outcomes.items(), key=lambda run: found.longer_s(run[1]), default=None)
    tail = f", worst so far: {worst[0][0]}, {longer(found.longer_s(worst[1]))}" if worst is not None else ""
    return f"{len(found.outcomes):,} of {found.wanted:,} runs{tail}"
