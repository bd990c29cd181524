"""What single losses cost: a page for people, and the files of `--out`."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from report.criticality_findings import Criticality, Row
from report.folder import FolderError
from scenarios.units import in_words
from scenarios.words import listed

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SHOWN = 30
"""Things that fail the job, and things in the table, for people; the files have all."""
WIDE = 100
"""Columns of a terminal in which there is room for what happened."""


def told(price: float, measure: str) -> str:
    """A change of a duration or of a count of updates, as a person would say it."""
    if math.isinf(price):
        return "job fails"
    if measure == "updates_fewer":
        return f"{-price:+,.0f}" if price else "0"
    return f"{'-' if price < 0 else '+'}{in_words(abs(price))}" if price else "0 s"


def in_few(reason: str, most: int = 200) -> str:
    """Some reasons name everybody who waits for somebody."""
    return reason if len(reason) <= most else f"{reason[: most - 1]}…"


def show(console: Console, found: Criticality) -> None:
    """What fails the job first, then what costs most; whatever costs nothing, or is left out, is told below."""
    from rich.markup import escape

    def say(line: str, style: str = "") -> None:
        console.print(escape(line), style=style, highlight=False, soft_wrap=True)

    for number, line in enumerate(heading(found)):
        say(line, "bold" if not number else "")
    rows = found.worst_first()
    failing, harmless = [row for row in rows if row.failures], [row for row in rows if row.harmless]
    costly = [row for row in rows if not row.failures and not row.harmless]
    if failing:
        say("\nthe job fails without", "bold red")
    for row in failing[:SHOWN]:
        say(f"  {named(row)}: lost at {moments_told(row, found)}: {in_few(row.worst.failed)}")
    if costly:
        console.print(table(found, costly[:SHOWN], wide=console.width >= WIDE), highlight=False)
    for line in (*left_out(failing, costly, harmless), *below(found)):
        console.print(f"[yellow]note[/]   {escape(line)}", highlight=False, soft_wrap=True)


def named(row: Row) -> str:
    """With who lives there."""
    where = listed(row.thing.lives_there, 2)
    return f"{row.thing.name} ({where})" if where else row.thing.name


def moments_told(row: Row, found: Criticality) -> str:
    """Those at which the job fails."""
    if row.failures == len(found.moments_s):
        return "any moment"
    return listed([in_words(at_s) for at_s, one in sorted(row.outcomes.items()) if one.failed])


def happened(row: Row) -> str:
    """In a few words, what the loss bit at the worst moment."""
    bit = row.worst.bit
    down_s = bit.get("seconds down", 0.0) + bit.get("seconds down, still", 0.0)
    told = [f"{bit['processes']:,} process{'es' if bit['processes'] > 1 else ''}"] if "processes" in bit else []
    told += [f"down {in_words(down_s)}"] if down_s else []
    told += [f"{bit['messages']:,} messages lost"] if "messages" in bit else []
    return ", ".join(told) or ", ".join(bit) or f"no {'message passed' if row.thing.kind == 'link' else 'process was there'}"


def heading(found: Criticality) -> Iterator[str]:
    """What was run, and against what."""
    things, moments = found.runs // len(found.moments_s), len(found.moments_s)
    when = f"{moments} moments" if moments > 1 else "one moment"
    yield f"{found.scenario}  seed {found.seed}: {things:,} things, each lost at {when}, a run each: {found.runs:,} runs"
    undisturbed = found.undisturbed
    learnt = ""
    if found.learns and undisturbed["loss"] is not None:
        learnt = f", held-out loss {undisturbed['loss']:.4f}"
        learnt += f", accuracy {undisturbed['accuracy']:.4f}" if undisturbed["accuracy"] is not None else ""
    faults = "fault" if found.own_faults == 1 else f"{found.own_faults} faults"
    own = f"; the scenario's own {faults} {'is' if found.own_faults == 1 else 'are'} there in every run" if found.own_faults else ""
    yield f"undisturbed: {in_words(undisturbed['seconds'])}{learnt}{own}"
    yield lasting(found)
    yield f"a run that is not over after {in_words(found.limit_s)} counts as one that never ends"


def lasting(found: Criticality) -> str:
    """How things are lost, and for how long."""
    if found.repair_s is None:
        return "machines, groups and links are lost for good; the process of a role crashes, and is started again at once"
    return f"whatever is lost is there again {in_words(found.repair_s)} later"


def below(found: Criticality) -> Iterator[str]:
    """What was not run, and what its numbers do not say."""
    if found.cut_short:
        yield f"only {found.done:,} of {found.runs:,} runs: {found.cut_short}"
    if found.sampled:
        yield f"a sample of things that are alike: {', '.join(map(str, found.sampled))}; --most allows more runs"
    if found.measure == "updates_fewer":
        yield "the job ends by the clock: what a loss costs is told in updates, not in time"


def left_out(failing: list[Row], costly: list[Row], harmless: list[Row]) -> Iterator[str]:
    """Of the page; --json and --out have all."""
    if len(failing) > SHOWN:
        yield f"the job fails without {len(failing) - SHOWN:,} more; --json and --out have all"
    if len(costly) > SHOWN:
        least = costly[SHOWN]
        yield f"{len(costly) - SHOWN:,} more things cost {told(least.price(least.worst), least.measure)} or less; --json and --out have all"
    if harmless:
        things = f"{len(harmless):,} things" if len(harmless) > 1 else "one thing"
        yield f"the loss of {things} costs nothing: {listed([row.thing.name for row in harmless], 8)}"


def table(found: Criticality, rows: list[Row], *, wide: bool) -> Table:
    """A line for each thing whose loss the job survives; `wide`: is there room for what happened?"""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("lost", no_wrap=True)
    made.add_column("lives there", overflow="fold")
    for head, _ in columns(found, rows):
        made.add_column(head, justify="right")
    if wide:
        made.add_column("what happened", overflow="fold")
    for row in rows:
        cells = [row.thing.name, listed(row.thing.lives_there, 2), *(cell(row) for _, cell in columns(found, rows))]
        made.add_row(*map(Text, cells + [happened(row)] * wide))
    return made


def columns(found: Criticality, rows: list[Row]) -> Iterator[tuple[str, Callable[[Row], str]]]:
    """Of numbers; those that nothing stands in are left out.  All but the median are of the worst moment."""
    unit = "updates, " if found.measure == "updates_fewer" else ""
    yield f"{unit}at worst", lambda row: told(row.price(row.worst), row.measure)
    yield "median", lambda row: told(row.median, row.measure)
    yield "worst at", lambda row: in_words(row.worst.at_s)
    if found.learns:
        yield "loss", lambda row: "-" if row.worst.loss_change is None else f"{row.worst.loss_change:+.4f}"
    if any(row.worst.updates_lost for row in rows):
        yield "updates lost", lambda row: f"{row.worst.updates_lost:,}"


# files


def fresh(out: Path) -> Path:
    """The folder, made if need be.  Raises FolderError, also if there are such findings in it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderError(f"cannot make the folder {out}: {error.strerror}") from None
    if (out / "criticality.json").exists():
        raise FolderError(f"{out} holds a criticality.json already; choose another --out")
    return out


def write(found: Criticality, out: Path) -> list[Path]:
    """criticality.json, .csv and .svg, and where they are."""
    from report.criticality_picture import draw

    paths = [out / f"criticality.{kind}" for kind in ("json", "csv", "svg")]
    paths[0].write_text(json.dumps(found.as_json(), indent=2) + "\n", encoding="utf-8")
    with paths[1].open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(found.table())
    paths[2].write_text(draw(found), encoding="utf-8")
    return paths
