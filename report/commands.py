"""What the two command lines share: arguments, the listing of scenarios, and the end of a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from report.findings import Findings
    from report.folder import RunFolder


F = TypeVar("F", bound=Callable[..., Any])


def scenario_arguments(command: F) -> F:
    """FILE, --set and what else every command that reads a scenario takes."""
    command = click.option(
        "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a value, as protocol.replicas=4; repeatable."
    )(command)
    return click.argument("file")(command)


def run_options(command: F) -> F:
    """Where a run leaves its folder, and how it reports."""
    command = report_options(command)
    return click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Run folder; default: a new one under runs/.")(
        command
    )


def report_options(command: F) -> F:
    """How a run is told of when it is over."""
    command = click.option(
        "--no-report", "report", is_flag=True, flag_value=False, default=True, help="Write no report.html and no plots."
    )(command)
    return click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")(command)


def finish(
    summary: dict[str, Any], folder: RunFolder, findings: Callable[[], Findings] | None, *, as_json: bool, strict: bool = False
) -> None:
    """Write the summary, and the report if `findings` says what of; show the first, and exit with its status."""
    from report import exits

    summary["report"] = str(folder.report) if findings is not None else None
    folder.write_summary(summary)
    if findings is not None:
        from report.page import write_report

        try:
            write_report(folder, findings())
        except KeyboardInterrupt:
            folder.write_summary(summary | {"report": None})
            click.echo(f"interrupted while the report was written; everything else is in {folder.path}", err=True)
            sys.exit(exits.Exit.INTERRUPTED)
    if as_json:
        click.echo(json.dumps(summary))
    else:
        from rich.console import Console

        from report.summary import show

        show(Console(), summary)
        if summary["checks"] is not None:
            from report.verdict import show as show_checks

            show_checks(summary["checks"], folder.path, "simctl")
    sys.exit(exits.of(summary, strict=strict))
