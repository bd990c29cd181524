"""What the checkers say of a run: each rule that is broken, the lines that prove it, and the story of the thing concerned.

`simctl run --check` holds a run against them, `execctl check RUN` and `simctl check RUN` one that is over, of whichever world.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from core.checks import RULES, Violation, check, push_of
from core.journal import Record
from models.errors import InputError
from report.exits import Exit, clear_errors
from report.folder import RunFolder
from report.search import Wanted, journals_of, search
from report.story import story

if TYPE_CHECKING:
    from scenarios.schema import Scenario

TOLD = 8
"""Sentences of a story, at most; the command that tells all of it stands below them."""


def verdict(
    violations: Sequence[Violation], records: Sequence[Record], paths: Collection[Path], meanings: Mapping[str, str]
) -> dict[str, Any]:  # fmt: skip
    """For the summary: how many rules there are, and all that is broken; `meanings`: the rules."""
    return {"rules": len(meanings), "violations": [told(violation, records, paths, meanings) for violation in violations]}


def told(
    violation: Violation, records: Sequence[Record], paths: Collection[Path], meanings: Mapping[str, str]
) -> dict[str, Any]:  # fmt: skip
    subject = subject_of([records[line - 1] for line in violation.lines])
    return {
        "rule": violation.rule, "meaning": meanings.get(violation.rule, ""), "what": violation.what,
        "lines": [{"number": line, "text": records[line - 1].line().rstrip("\n")} for line in violation.lines],
        "subject": subject,
        "story": [sentence.line() for chapter in story(paths, subject, 1) for sentence in chapter.sentences[-TOLD:]] if subject else [],
    }  # fmt: skip


def subject_of(proof: Sequence[Record]) -> str:
    """What `story` is to be asked about: the push that the last line is of, or else who wrote it; "" without lines."""
    if not proof:
        return ""
    last = proof[-1]
    if last.event in ("applied", "duplicate", "staged"):
        push = push_of(last)
        return f"push/{push.sender}#{push.life}/{push.shard}/{push.sequence}"
    if last.event in ("pushed", "acknowledged"):
        return f"push/{last.node}#{last.life}/{last.peer}/{last.number}"
    return last.node


def show(found: Mapping[str, Any], run: Path, program: str) -> None:
    """For people."""
    if not found["violations"]:
        click.echo(f"checked: {found['rules']} rules hold")
    for one in found["violations"]:
        click.secho(f"broken: {one['rule']}", fg="red", bold=True, nl=False)
        click.echo(f" ({one['meaning']})" if one["meaning"] else "")
        click.echo(f"  {one['what']}")
        for line in one["lines"]:
            click.echo(f"  line {line['number']}: {line['text']}")
        for sentence in one["story"]:
            click.echo(f"    {sentence}")
        if one["subject"]:
            click.echo(f"    all of it: {program} story {run} {one['subject']}")


def of_folder(run: Path) -> dict[str, Any]:
    """Of a run that is over, or was killed.  Raises InputError, ScenarioError."""
    from scenarios.load import load

    folder = RunFolder(run)
    if not folder.scenario.is_file():
        raise InputError(f"{run}: no {folder.scenario.name} is there; allowed: the folder of a run")
    scenario, paths = load(str(folder.scenario)), journals_of(run)
    records = list(search(paths, Wanted()))
    several_clocks = (run / RunFolder.JOURNALS).is_dir()
    findings = check(records, one_clock=not several_clocks, durability=scenario.protocol.durability)
    return verdict([*findings.violations, *own(scenario, records)], records, paths, RULES)


def own(scenario: Scenario, records: Sequence[Record]) -> list[Violation]:
    """What breaks the user's own rules, which are named after their functions."""
    from scenarios.parts import users

    return [
        Violation(Path(reference).name, what, ())
        for reference in scenario.invariants
        for what in users(scenario, reference, "invariants")(records)
    ]


def check_folder(run: Path, program: str, *, as_json: bool) -> None:
    """Tell, and exit with 0 if every rule holds, else 1."""
    found = of_folder(run)
    if as_json:
        click.echo(json.dumps(found))
    else:
        show(found, run, program)
    sys.exit(Exit.UNMET if found["violations"] else Exit.DONE)


@click.command("check")
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def check_run(run: Path, *, as_json: bool) -> None:
    """Hold every rule of the protocols against the journals of a run, also of one that was killed.

    Exit codes: 0 all rules hold, 1 one is broken, 2 RUN is no run's folder.
    """
    with clear_errors():
        check_folder(run, "execctl", as_json=as_json)
