"""Commands that read the folder of a run afterwards, the same in both command lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from core.journal import Record

RUN = click.argument("run", type=click.Path(path_type=Path, exists=True))


def seconds(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """A duration with its unit."""
    if value is None:
        return None
    from scenarios.units import duration

    try:
        return duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def tell_legend(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    """Instead of anything else, so that no RUN is needed."""
    if not wanted:
        return
    from core.journal import COLUMNS, LEGEND

    click.echo(f"one line for each event; columns, separated by tabs: {', '.join(COLUMNS)}")
    click.echo("node and life: who writes, and in which of its lives; #1 is a life, as in replica/3#1\n")
    for event, meaning in LEGEND.items():
        click.echo(f"{event:<14}{meaning}")
    context.exit()


@click.command()
@RUN
@click.option("--node", "nodes", multiple=True, metavar="PATTERN", help="Who writes, as replica/3, 'replica/*' or replica/3#2; repeatable.")
@click.option("--kind", "kinds", multiple=True, metavar="PATTERN", help="Which event, as crashed or 're*'; repeatable.")
@click.option("--peer", "peers", multiple=True, metavar="PATTERN", help="Whom it concerns; repeatable.")
@click.option("--from", "from_s", callback=seconds, metavar="TIME", help="As 10s.")
@click.option("--to", "to_s", callback=seconds, metavar="TIME", help="As '2 min'.")
@click.option("--limit", type=click.IntRange(min=1), help="No more lines than that.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object for each line.")
@click.option(
    "--legend", is_flag=True, is_eager=True, expose_value=False, callback=tell_legend, help="What the columns mean for each event."
)
def journal(
    run: Path, nodes: tuple[str, ...], kinds: tuple[str, ...], peers: tuple[str, ...], from_s: float | None, to_s: float | None,
    limit: int | None, *, as_json: bool,
) -> None:  # fmt: skip
    """Read the journal of a run: RUN is its folder, or a journal's file."""
    from report.exits import clear_errors

    with clear_errors():
        from itertools import islice

        from report.search import Wanted, check_kinds, check_names, journals_of, search

        check_kinds(kinds)
        wanted = Wanted(nodes, kinds, peers, from_s or float("-inf"), float("inf") if to_s is None else to_s)
        paths, found = journals_of(run), False
        for record in islice(search(paths, wanted), limit):
            if not found and not as_json:
                click.echo(HEADER)
            found = True
            click.echo(json.dumps(record._asdict()) if as_json else in_columns(record))
        if not found:
            check_names(paths, wanted)
            click.echo("nothing there is like that", err=True)


HEADER = f"{'time_s':>16}  {'node#life':<16}{'event':<14}{'peer':<16}{'number':>8}  {'value':<12}note"


def in_columns(record: Record) -> str:
    time_s, node, life, event, peer, number, value, note = record
    who = f"{node}#{life}" if life < 1_000_000_000 else node  # an agent's is the time at which it began
    return f"{time_s:16.9f}  {who:<16}{event:<14}{peer:<16}{number:>8}  {value:<12.6g}{note}".rstrip()


@click.command()
@RUN
@click.argument("subject")
@click.option("--limit", type=click.IntRange(min=1), help="How many pushes are told, where there are more.  [default: 10]")
@click.option("--json", "as_json", is_flag=True, help="A JSON object for each sentence.")
def story(run: Path, subject: str, limit: int | None, *, as_json: bool) -> None:
    r"""Follow one thing from beginning to end.

    \b
    SUBJECT is one of
      push/17                      every push with sequence 17; push/replica/3/17 of one sender,
                                   push/replica/3#1/shard/0/17 of one life of it to one shard
      portion/12, batch/4          of Sandblaster
      replica/3, shard/0, …        a role and its lives; replica/3#2 one of them
      machine/2                    a machine
      fault/0                      whatever a declared fault did
    """
    from report.exits import clear_errors

    with clear_errors():
        from report.search import journals_of
        from report.story import story as tell

        for chapter in tell(journals_of(run), subject, limit):
            if not as_json:
                click.secho(f"\n{chapter.heading}", bold=True)
            for told in chapter.sentences:
                click.echo(json.dumps({"of": chapter.heading} | told._asdict()) if as_json else told.line())


@click.command()
@RUN
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Where to; default: trace.json beside the journal.")
def trace(run: Path, out: Path | None) -> None:
    """Make a trace for https://ui.perfetto.dev from a run's journal.

    `simctl run --trace` makes a better one, with every message and computation.
    """
    from report.exits import clear_errors

    with clear_errors():
        from models.errors import InputError
        from report.folder import RunFolder
        from report.search import Wanted, journals_of, search
        from report.trace import TraceWriter
        from report.tracing import from_journal

        path = out or RunFolder(run if run.is_dir() else run.parent).trace
        if out is None and path.exists():
            raise InputError(f"{path} is there already; --out writes another")
        with TraceWriter.to(path) as writer:
            from_journal(search(journals_of(run), Wanted()), writer)
        click.echo(f"{path}: {writer.events:,} events; open it at https://ui.perfetto.dev")


@click.command()
@RUN
def report(run: Path) -> None:
    """Write the report of a run again: report.html, and its plots as pictures and numbers."""
    from report.exits import clear_errors

    with clear_errors():
        from report.findings import from_folder
        from report.folder import RunFolder
        from report.page import write_report

        click.echo(write_report(RunFolder(run), from_folder(run)))


READERS: tuple[Any, ...] = (journal, story, trace, report)
"""What both command lines have."""
