"""`execctl`: run scenarios on real processes."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from report.commands import finish, run_options, scenario_arguments

if TYPE_CHECKING:
    from exec.launch import Launch


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="opendistbelief")
def main() -> None:
    """Train for real: parameter shards, replicas and an evaluator as processes of this machine.

    Exit codes: 0 done, 2 wrong scenario or command line, 3 not started, 4 training failed, 5 cannot write, 130 interrupted.
    """


@main.command()
@scenario_arguments
@run_options
def launch(file: str, overrides: tuple[str, ...], out: Path | None, as_json: bool) -> None:
    """Train a scenario, given as a file or by the name of a bundled one.

    Ctrl-C ends it and keeps what was learnt; twice ends it at once.
    """
    from report.exits import clear_errors

    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own lines would stand beside our one clear message
    with clear_errors():
        from exec.launch import Launch
        from models.errors import InputError
        from report.folder import RunFolder
        from scenarios.load import load
        from scenarios.plan import plan

        began = time.monotonic()
        scenario = load(file, overrides)
        device = choose_device(scenario.exec.device)
        plan(scenario, real=True)  # whatever of the user's does not fit is told here, once, before anything starts
        folder = RunFolder.fresh(scenario.name, "exec", out)

        async def train() -> Launch:
            launched = Launch(scenario, file, overrides, folder, device)
            with live_table(launched):
                await launched.run()
            return launched

        launched = asyncio.run(train())
        summary, tally = launched.summary(time.monotonic() - began)
        folder.write_curve(tally.curve, f"{scenario.name}, seed {scenario.seed}, trained on {device}", "time, s")
        summary |= {"journal": str(folder.journal), "run": str(folder.path)}
        if launched.wrong_input:
            folder.write_summary(summary)
            raise InputError(launched.wrong_input)
        finish(summary, folder, as_json=as_json)


def choose_device(wanted: str) -> str:
    """The device to train on.  Raises InputError for one that is not here."""
    import torch

    from models.errors import InputError

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("exec.device = 'cuda': no CUDA device is here; allowed: auto, cpu")
    return wanted


@contextmanager
def live_table(launched: Launch) -> Iterator[None]:
    """Who is up and how it goes, where someone is looking."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.live import Live

    from exec.progress import Progress

    with Live(Progress(launched), console=Console(stderr=True), refresh_per_second=4, transient=True):
        yield
