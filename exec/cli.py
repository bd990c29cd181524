"""`execctl`: run scenarios on real processes, on this machine or on many."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from report.commands import finish, report_options, run_options, scenario_arguments
from report.reading import READERS
from report.verdict import check_run

if TYPE_CHECKING:
    from exec.jobfile import JobFile
    from exec.launch import Launch
    from scenarios.schema import Scenario

RUN = click.argument("run", type=click.Path(path_type=Path, file_okay=False))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="opendistbelief")
def main() -> None:
    """Train for real: parameter shards, replicas and an evaluator as processes that survive each other's loss.

    RUN is the folder of a run. Exit codes: 0 done, 1 an expectation failed, 2 wrong scenario or command line,
    3 not started or not reachable, 4 training failed, 5 cannot write, 130 interrupted.
    """
    os.umask(0o077)  # whatever a run writes is its user's alone; what is started inherits it
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own lines would stand beside our one clear message


for reader in (*READERS, check_run):
    main.add_command(reader)


@main.command()
@scenario_arguments
@run_options
def launch(file: str, overrides: tuple[str, ...], out: Path | None, *, as_json: bool, report: bool) -> None:
    """Train a scenario, given as a file or by the name of a bundled one.

    Ctrl-C ends it and keeps what was learnt; twice ends it at once. If this command is killed the job goes on.
    """
    from report.exits import clear_errors

    with clear_errors():
        from exec.launch import prepare
        from report.folder import RunFolder
        from scenarios.load import find, load
        from scenarios.plan import plan

        scenario = load(file, overrides)
        device = choose_device(scenario)
        made = plan(scenario, numerics="real")  # whatever of the user's does not fit is told here, once, before anything starts
        overrides = (*overrides, *made.found_placement())
        folder = RunFolder.fresh(scenario.name, "exec", out)
        job = prepare(scenario, file, find(file).read_text(encoding="utf-8"), overrides, folder, device)
        folder.write_scenario(scenario)
        carry_out(job, scenario, as_json=as_json, report=report)


@main.command()
@RUN
@report_options
def resume(run: Path, *, as_json: bool, report: bool) -> None:
    """Go on with a job that was stopped, or whose processes are all gone."""
    from report.exits import clear_errors

    with clear_errors():
        from exec.jobfile import JobFile
        from exec.resuming import reopened

        job = reopened(JobFile.of(run))
        carry_out(job, job.load(), as_json=as_json, report=report)


def carry_out(job: JobFile, scenario: Scenario, *, as_json: bool, report: bool) -> None:
    """From the first process to the summary; exits with its code."""
    from exec.launch import Launch
    from report.exits import OF_VERDICT, StartError
    from report.findings import from_folder
    from report.folder import RunFolder

    async def train() -> None:
        launched = Launch(scenario, job)
        with live_table(launched):
            await launched.run()

    asyncio.run(train())
    folder = RunFolder(Path(job.folder))
    if not folder.summary.exists():
        raise StartError(f"the job ended without a summary; look into {folder.path / 'logs'}")
    summary = json.loads(folder.summary.read_text(encoding="utf-8"))
    verdict = summary.pop("verdict", None)
    if verdict in OF_VERDICT:
        folder.write_summary(summary)
        raise OF_VERDICT[verdict](summary["reason"])
    finish(summary, folder, (lambda: from_folder(folder.path)) if report else None, as_json=as_json)


def choose_device(scenario: Scenario) -> str:
    """The device to train on.  Raises InputError for one that is not here."""
    import torch

    from models.errors import InputError

    wanted = scenario.exec.device
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available() and scenario.placement.on == "local":
        raise InputError("exec.device = 'cuda': no CUDA device is here; allowed: auto, cpu")
    return wanted


@main.command()
@RUN
@click.option("--json", "as_json", is_flag=True, help="Print it as one JSON object.")
def status(run: Path, as_json: bool) -> None:
    """Who is up, where, in which life, and how the training goes."""
    from report.exits import clear_errors

    with clear_errors():
        from exec.jobfile import JobFile
        from exec.progress import as_table, to_json

        job = JobFile.of(run)
        overview = asyncio.run(ask(job, "inquire"))
        if as_json:
            click.echo(json.dumps(to_json(overview, Path(job.folder))))
        else:
            from rich.console import Console

            Console().print(as_table(overview, Path(job.folder)))


@main.command()
@RUN
def stop(run: Path) -> None:
    """End a running job: what was learnt is saved, and `execctl resume` can go on with it."""
    from report.exits import clear_errors

    with clear_errors():
        from exec.jobfile import JobFile

        overview = asyncio.run(ask(JobFile.of(run), "conclude", "execctl stop"))
        click.echo(f"the job is {overview.phase}: {overview.reason}")


async def ask(job: JobFile, what: str, *arguments: Any) -> Any:
    """One question to the supervisor.  Raises StartError if it does not answer."""
    from core.messages import CallFailed
    from exec.operating import operator
    from report.exits import StartError

    try:
        async with operator(job) as asking:
            return await getattr(asking, what)(*arguments)
    except CallFailed as failure:
        done = (Path(job.folder) / "summary.json").exists()
        hint = (
            "the job is over; its summary is in the run folder"
            if done
            else "is the job running? `execctl resume` goes on with one that is not"
        )
        raise StartError(f"the supervisor at {job.supervisor} does not answer ({failure}): {hint}") from None


@main.command()
@RUN
@click.argument("role", required=False)
@click.option("--lines", default=20, show_default=True, help="Of each log.")
def logs(run: Path, role: str | None, lines: int) -> None:
    """The last lines of every process's output, or of one role's lives."""
    from report.exits import clear_errors

    with clear_errors():
        from exec.jobfile import JobFile

        folder = Path(JobFile.of(run).folder) / "logs"
        wanted = f"{role.replace('/', '-')}.*log" if role else "*.log"
        for path in sorted(folder.glob(wanted)):
            text = path.read_text(errors="replace").splitlines()[-lines:]
            if text or role:
                click.echo(f"== {path.name}")
                click.echo("\n".join(text))


@main.command()
@scenario_arguments
def explain(file: str, overrides: tuple[str, ...]) -> None:
    """What follows from detect_within: every time after which something is taken for lost, repeated or given up."""
    from report.exits import clear_errors

    with clear_errors():
        from rich.console import Console
        from rich.table import Table

        from core.timings import GIVE_UP_AFTER, Timings
        from scenarios.load import load
        from scenarios.units import in_words

        protocol = load(file, overrides).protocol
        table = Table("time", "from detect_within", "meaning", title=f"{file}: detect_within = {in_words(protocol.detect_within)}")
        for name, seconds, meaning in Timings(protocol.detect_within).explain():
            table.add_row(name, in_words(seconds), meaning)
        if protocol.deadline is not None:
            table.add_row("protocol.deadline", in_words(protocol.deadline), "given in the scenario")
        table.add_row("give up after", f"{GIVE_UP_AFTER} lives", "in a row that were not steady")
        Console().print(table)


@main.command()
@RUN
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="A .safetensors file.")
def export(run: Path, out: Path) -> None:
    """Write the model of a run as the plain module's state: the final one, else what the shards kept last."""
    from report.exits import clear_errors

    with clear_errors():
        from exec.jobfile import JobFile
        from exec.resuming import write_model

        click.echo(asyncio.run(write_model(JobFile.of(run), out)))


@main.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of the authority and of what it issues; where there is one already, it is used again.",
)
@click.option(
    "--machine",
    "machines",
    multiple=True,
    required=True,
    metavar="NAME[=ADDRESS,...]",
    help="A machine, and the host names and IP addresses it has besides; repeatable.",
)
@click.option("--days", type=click.IntRange(1, 1825), default=365, show_default=True, help="How long the certificates are valid.")
@click.option("--force", is_flag=True, help="Replace certificates and keys of these machines that are there already.")
def certs(out: Path, machines: tuple[str, ...], days: int, *, force: bool) -> None:
    """Make certificates, so that machines of a job believe each other and nobody else.

    Writes NAME.pem and NAME.key for each machine, and at first ca.pem and ca.key, all readable by you alone.  A machine is to
    have ca.pem and its own two files; ca.key makes more machines, and leaves this folder for nowhere.
    """
    from report.exits import clear_errors

    with clear_errors():
        from exec.certificates import write_certificates

        for path in write_certificates(out, machines, days, force=force):
            click.echo(path)


@main.command()
@scenario_arguments
def doctor(file: str, overrides: tuple[str, ...]) -> None:
    """Test a cluster before a job: names, ports, certificates, clocks, disks against durability, the network between each pair."""
    from report.exits import clear_errors

    with clear_errors():
        from exec.doctor import examine
        from scenarios.load import load

        sys.exit(asyncio.run(examine(load(file, overrides), file, overrides)))


@main.command(hidden=True)
def agent() -> None:
    """Started by launch on each machine; reads what job it is of from standard input."""
    from exec.agent import main as serve

    serve()


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
