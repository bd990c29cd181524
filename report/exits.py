"""Exit codes of both commands, and how their errors reach a person: one clear message each, no traceback."""

from __future__ import annotations

import enum
import errno
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click

from models.errors import InputError
from report.folder import FolderError
from scenarios.load import ScenarioError


class Exit(enum.IntEnum):
    """What a command ends with; the README has the same table."""

    DONE = 0
    UNMET = 1
    """The run is done and did not do what was asked of it: an expectation failed, under --strict a fault bit nothing, or
    --twice found that a second run parts from the first."""
    WRONG_INPUT = 2
    """The scenario, the command line, or the user's network or data is wrong; nothing was run, or not to its end."""
    NOT_STARTED = 3
    """A process could not start, or a port is taken."""
    FAILED = 4
    """The training failed: the loss is no number, a shard was lost, no replica is left, nothing moves."""
    NOT_WRITTEN = 5
    """The run folder cannot be made or written."""
    INTERRUPTED = 130
    """Ctrl-C; the journal, the summary and what was learnt so far are kept."""


class StartError(Exception):
    """A process could not start, or a port is taken; the message says which and why."""


OF_VERDICT: dict[str, type[Exception]] = {"wrong": InputError, "unstarted": StartError}
"""How a job that never trained, or not on what was meant, is told of."""

OF_STATUS = {"done": Exit.DONE, "failed": Exit.FAILED, "interrupted": Exit.INTERRUPTED}


def of(summary: Mapping[str, Any], *, strict: bool = False) -> Exit:
    """What a run ends with: its status before its expectations."""
    code = OF_STATUS[summary["status"]]
    unmet = any(not expectation["met"] for expectation in summary["expectations"]) or (strict and toothless(summary))
    unmet |= summary["twice"] is not None and not summary["twice"]["same"]
    unmet |= summary["checks"] is not None and bool(summary["checks"]["violations"])
    return Exit.UNMET if code is Exit.DONE and unmet else code


def toothless(summary: Mapping[str, Any]) -> bool:
    """Has any declared fault bitten nothing?  A preset is one, whatever its parts."""
    bit = {fault["declared"]: False for fault in summary["faults"]}
    for fault in summary["faults"]:
        bit[fault["declared"]] |= bool(fault["bit"])
    return not all(bit.values())


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turn every error that a user can do something about into its message and exit code."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo("interrupted before there was anything to keep", err=True)
        sys.exit(Exit.INTERRUPTED)
    except InputError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(Exit.WRONG_INPUT)
    except ScenarioError as error:
        for mistake in error.mistakes:
            click.echo(f"error: {mistake}", err=True)
        sys.exit(Exit.WRONG_INPUT)
    except StartError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(Exit.NOT_STARTED)
    except FolderError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(Exit.NOT_WRITTEN)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        click.echo(f"error: cannot write {error.filename or 'the run folder'}: {error.strerror}", err=True)
        sys.exit(Exit.NOT_WRITTEN)
