"""`simctl hunt`, the command: searches on all cores, what they have done so far on disk, and what they found as a scenario."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sim.workers import workers

if TYPE_CHECKING:
    from sim.hunt import Found, Prey, Searched

ANY = ("downpour", "sandblaster", "mapreduce", "sync", "partitions")
"""Kinds of jobs that are drawn as a whole; the last: Downpour whose replicas are of several machines."""

STATE, SCENARIO = "hunt.json", "found.toml"


@dataclass(slots=True)
class Hunt:
    """What has been done of one."""

    prey: Prey
    done: set[int] = field(default_factory=set)
    """The searches."""
    runs: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    reached: Counter[str] = field(default_factory=Counter)
    reachable: set[str] = field(default_factory=set)
    ended: Counter[str] = field(default_factory=Counter)
    found: Found | None = None
    cut_short: str = ""
    """Why it ended early."""

    def add(self, searched: Searched) -> None:
        self.done.add(searched.number)
        self.runs += searched.runs
        self.cpu_s += searched.cpu_s
        self.reached.update(searched.reached)
        self.reachable |= searched.reachable
        self.ended.update(searched.ended)
        self.found = self.found or searched.found

    @property
    def never(self) -> list[str]:
        """Situations that could have been reached."""
        return sorted(self.reachable - self.reached.keys())

    def to_json(self) -> dict[str, Any]:
        rate = round(self.runs / self.cpu_s, 1) if self.cpu_s else None
        return {
            "prey": asdict(self.prey), "done": sorted(self.done), "runs": self.runs, "cpu_s": round(self.cpu_s, 3),
            "wall_s": round(self.wall_s, 3), "runs_per_cpu_s": rate, "ended": dict(sorted(self.ended.items())),
            "reached": dict(sorted(self.reached.items())), "never": self.never, "cut_short": self.cut_short,
            "found": asdict(self.found) if self.found is not None else None,
        }  # fmt: skip

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Hunt:
        """Raises KeyError or TypeError for what is no hunt's."""
        from sim.hunt import Prey

        prey = Prey(**told["prey"] | {"overrides": tuple(told["prey"]["overrides"])})
        reached = Counter(told["reached"])
        return cls(
            prey, set(told["done"]), told["runs"], told["cpu_s"], told["wall_s"], reached, set(told["never"]) | reached.keys(),
            Counter(told["ended"]),
        )  # fmt: skip


def pursue(hunt: Hunt, *, runs: int | None, time_s: float | None, count: int, look: Callable[[Hunt], None]) -> None:
    """Search until something is found, or so many runs or seconds are over, in so many processes.

    Ctrl-C, or the end of a process that was killed, ends it early, and what was done counts.
    """
    from sim.hunt import search

    began, before_s = time.monotonic(), hunt.wall_s
    numbers = (number for number in range(1_000_000_000) if number not in hunt.done)
    waiting: set[Future[Searched]] = set()
    try:
        with workers(count) as pool:
            while hunt.found is None:
                hunt.wall_s = before_s + time.monotonic() - began
                late = time_s is not None and hunt.wall_s >= time_s
                while not late and len(waiting) < 2 * count and (left := still_to_run(hunt, runs, len(waiting))):
                    waiting.add(pool.submit(search, hunt.prey, next(numbers), left))
                if late or not waiting:
                    break
                ready, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in ready:
                    hunt.add(future.result())
                look(hunt)
    except KeyboardInterrupt:
        hunt.cut_short = "interrupted"
    except BrokenProcessPool:
        hunt.cut_short = "a process that searched was killed, perhaps for want of memory; fewer --workers need less"
    finally:
        hunt.wall_s = before_s + time.monotonic() - began


def still_to_run(hunt: Hunt, runs: int | None, under_way: int) -> int:
    """By one more search."""
    return RUNS if runs is None else max(0, min(RUNS, runs - hunt.runs - under_way * RUNS))


RUNS = 50
"""Of one search."""


@click.command()
@click.argument("file", required=False)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a value, as protocol.replicas=4; repeatable.")
@click.option("--any", "kind", type=click.Choice(ANY), help="Draw whole jobs of that kind, instead of the faults of one scenario.")
@click.option("--runs", type=click.IntRange(1), help="Stop after so many; 1,000 if no --time is given either.")
@click.option("--time", "limit", metavar="DURATION", help="Stop after so long, as '10 min'.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the hunt: another one draws other schedules.")
@click.option("--faults", type=click.IntRange(0, 100), default=8, show_default=True, help="Of one run, at most.")
@click.option("--rule", default="", help="Look for this one alone, as 'counted once'.")
@click.option("--workers", "processes", type=click.IntRange(1), help="Processes; default: as many as there are cores.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder of the hunt; default: a new one under runs/.")
@click.option("--resume", type=click.Path(path_type=Path, file_okay=False, exists=True), help="Go on with the hunt in that folder.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as one JSON object.")
def hunt(
    file: str | None, overrides: tuple[str, ...], kind: str | None, *, runs: int | None, limit: str | None, seed: int, faults: int, rule: str,
    processes: int | None, out: Path | None, resume: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Search for the fewest faults that break a rule, or an [[expect]] of the scenario.

    Seeds and schedules of faults are drawn; the first that breaks something is shrunk and written as a scenario that `simctl run` replays
    to the bit.  Exit codes: 0 nothing was found, 1 something was, 2 wrong scenario or command line, 130 interrupted.
    """
    from report.exits import clear_errors

    with clear_errors():
        made, folder = resumed(resume) if resume is not None else begun(file, overrides, kind, seed, faults, rule, out)
        time_s = seconds(limit)
        runs = 1000 if runs is None and time_s is None else runs
        if made.found is None:
            with shown(folder) as look:
                pursue(made, runs=runs, time_s=time_s, count=processes or os.cpu_count() or 1, look=look)
        save(made, folder)
        if made.found is not None:
            (folder / SCENARIO).write_text(scenario_of(made.found, folder), encoding="utf-8")
        if as_json:
            click.echo(json.dumps(made.to_json() | {"folder": str(folder), "scenario": str(folder / SCENARIO) if made.found else None}))
        else:
            tell(made, folder)
        sys.exit(code(made))


def code(hunt: Hunt) -> int:
    from report.exits import Exit

    return Exit.UNMET if hunt.found is not None else Exit.INTERRUPTED if hunt.cut_short else Exit.DONE


def begun(
    file: str | None, overrides: tuple[str, ...], kind: str | None, seed: int, faults: int, rule: str, out: Path | None
) -> tuple[Hunt, Path]:  # fmt: skip
    """A new one; one that needs no faults at all to break something is over."""
    from report.folder import FolderError
    from sim.hunt import Prey, ground, judged

    if (file is None) == (kind is None):
        raise click.UsageError("either a scenario or --any KIND is hunted in")
    made = Hunt(Prey(seed, file or "", overrides, kind or "", faults, rule))
    name = kind or Path(file or "").stem
    if file is not None:
        on = ground(file, overrides)
        wrong = [violation for violation in on.violations if violation.rule == (rule or violation.rule)]
        if wrong:
            made.found = judged(on.given | {"fault": list(on.given.get("fault", ()))}, wrong[0].rule, 0)
    folder = out or Path("runs") / f"{name}-hunt-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    if (folder / STATE).exists():
        raise FolderError(f"{folder} holds a hunt already; choose another --out, or --resume it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderError(f"cannot make {folder}: {error.strerror}") from None
    return made, folder


def resumed(folder: Path) -> tuple[Hunt, Path]:
    try:
        return Hunt.from_json(json.loads((folder / STATE).read_text(encoding="utf-8"))), folder
    except (OSError, ValueError, KeyError, TypeError):
        raise click.UsageError(f"{folder} holds no hunt; its {STATE} is not there, or not one") from None


def seconds(limit: str | None) -> float | None:
    from scenarios.units import SECONDS, parse

    try:
        return None if limit is None else parse(limit, SECONDS, "10 min")
    except ValueError as error:
        raise click.UsageError(f"--time {limit}: {error}") from None


def save(hunt: Hunt, folder: Path) -> None:
    partial = folder / f".{STATE}.partial"
    partial.write_text(json.dumps(hunt.to_json(), indent=1), encoding="utf-8")
    partial.replace(folder / STATE)


def scenario_of(found: Found, folder: Path) -> str:
    """The file that replays it."""
    from sim.strategies import toml

    head = [
        f"{found.faults} faults that break: {found.rule}", found.what, f"journal digest {found.digest}",
        f"simctl run {folder / SCENARIO} --check",
    ]  # fmt: skip
    return "".join(f"# {line}\n" for line in head) + "\n" + toml(found.tables)


def tell(hunt: Hunt, folder: Path) -> None:
    """For people."""
    rate = f", {hunt.runs / hunt.cpu_s:.1f} a core and second" if hunt.cpu_s else ""
    click.echo(
        f"{hunt.runs:,} runs in {hunt.wall_s:.1f} s{rate}: {', '.join(f'{count:,} {how}' for how, count in sorted(hunt.ended.items()))}"
    )
    if hunt.reachable:
        click.echo(f"{len(hunt.reached)} of {len(hunt.reachable | hunt.reached.keys())} situations reached")
        for name, count in hunt.reached.most_common():
            click.echo(f"  {count:>7,}  {name}")
        for name in hunt.never:
            click.echo(f"    never  {name}")
    found = hunt.found
    if found is None:
        click.echo(f"{hunt.cut_short}; go on with: simctl hunt --resume {folder}" if hunt.cut_short else "nothing was found")
        return
    from core.checks import RULES
    from report.verdict import show
    from sim.oracles import ORACLES

    meanings = RULES | ORACLES
    lines = [{"number": number, "text": line} for number, line in zip(found.lines, found.told, strict=True)]
    broken = {"rule": found.rule, "meaning": meanings.get(found.rule, ""), "what": found.what, "lines": lines, "subject": "", "story": []}
    click.echo()
    show({"rules": len(meanings), "violations": [broken]}, folder, "simctl")
    click.echo(f"{found.faults} faults, digest {found.digest}: simctl run {folder / SCENARIO} --check")


@contextmanager
def shown(folder: Path) -> Iterator[Callable[[Hunt], None]]:
    """How far it is: on disk, and where someone is looking in a line."""
    if not sys.stderr.isatty():
        yield lambda hunt: save(hunt, folder)
        return
    from rich.console import Console

    with Console(stderr=True).status("hunting") as status:

        def look(hunt: Hunt) -> None:
            save(hunt, folder)
            status.update(told(hunt))

        yield look


def told(hunt: Hunt) -> str:
    """How far it is, in a line."""
    return (
        f"{hunt.runs:,} runs in {hunt.wall_s:.0f} s, {hunt.runs / max(hunt.wall_s, 1e-9):.0f} a second,"
        f" {len(hunt.reached)} of {len(hunt.reachable)} situations"
    )
