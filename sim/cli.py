"""`simctl`: run, check and list scenarios in the simulated world."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from report.commands import finish, run_options, scenario_arguments
from report.graphing import graph
from report.reading import READERS
from sim.criticality_command import criticality
from sim.hunting import hunt

if TYPE_CHECKING:
    from scenarios.schema import Scenario
    from sim.run import Run


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="opendistbelief")
def main() -> None:
    """Simulate distributed training on a cluster whose machines fail.

    Exit codes: 0 done, 1 an expectation failed or under --strict a fault bit nothing, 2 wrong scenario or command line, 4 training failed, 5 cannot write,
    130 interrupted.
    """


for other in (*READERS, graph, hunt, criticality):
    main.add_command(other)


@main.command()
@scenario_arguments
@run_options
@click.option("--twice", is_flag=True, help="Run it again in a process of its own and compare; exit code 1 where the journals part.")
@click.option(
    "--shuffle-ties", type=click.IntRange(1, 1000), metavar="N", help="Run N other orders of what happens at once, and show the spread."
)
@click.option("--strict", is_flag=True, help="A declared fault that bit nothing is an error: exit code 1.")
@click.option("--check", "checked", is_flag=True, help="Hold every rule of the protocols against it; exit code 1 where one is broken.")
@click.option("--trace", is_flag=True, help="Write trace.json for https://ui.perfetto.dev as the run goes.")
def run(
    file: str, overrides: tuple[str, ...], out: Path | None, *,
    as_json: bool, checked: bool, report: bool, shuffle_ties: int | None, strict: bool, trace: bool, twice: bool,
) -> None:  # fmt: skip
    """Run a scenario, given as a file or by the name of a bundled one."""
    from report.exits import clear_errors

    with clear_errors():
        from report.findings import from_memory
        from report.folder import RunFolder
        from report.trace import TraceWriter
        from scenarios.load import load
        from sim import repeat
        from sim.run import Run, prepare

        scenario = load(file, overrides)
        prepared = prepare(scenario)  # whatever of the user's does not fit is told before there is a folder
        folder = RunFolder.fresh(scenario.name, "sim", out)
        folder.write_scenario(scenario)
        interrupted = False
        with ExitStack() as open_till_the_end:
            journal = open_till_the_end.enter_context(folder.journal.open("wb"))
            writer = open_till_the_end.enter_context(TraceWriter.to(folder.trace)) if trace else None
            show = open_till_the_end.enter_context(progress())
            run = Run(scenario, journal, prepared=prepared, on_progress=show, trace=writer)
            records = run.journal.records() if checked else []
            try:
                run.simulate()
            except KeyboardInterrupt:
                interrupted = True
            finally:
                run.journal.flush()
            summary = run.summary(interrupted=interrupted)
        run.write_tables(folder)
        summary |= {"journal": str(folder.journal), "run": str(folder.path)}
        if checked:
            from sim.oracles import Trial, judged

            summary["checks"] = judged(Trial(run, records), folder.journal)
        if run.save_model(folder.model):
            summary["model"] = str(folder.model)
        try:
            if shuffle_ties and not interrupted:
                summary["ties"] = [spread._asdict() for spread in repeat.spreads(file, overrides, summary, shuffle_ties)]
            if twice and not interrupted:
                summary["twice"] = repeat.twice(file, overrides, folder.journal)
        except KeyboardInterrupt:
            summary["status"] = "interrupted"
            summary["notes"] = [*summary["notes"], "this run came to its end; running it again was interrupted"]
        gc.freeze()  # the cluster is never looked through again: with ten thousand machines that takes ten seconds at the end
        finish(
            summary,
            folder,
            (lambda: from_memory(folder, summary, run.tally, run.chronicle)) if report else None,
            as_json=as_json,
            strict=strict,
        )


@main.command()
@scenario_arguments
def check(file: str, overrides: tuple[str, ...]) -> None:
    """Say whether a scenario is right and fits the memory of its machines, and every mistake in it if not.

    Of the folder of a run: whether its journal keeps every rule of the protocols.
    """
    from report.exits import clear_errors

    with clear_errors():
        if Path(file).is_dir():
            from report.verdict import check_folder

            check_folder(Path(file), "simctl", as_json=False)
        from scenarios.load import load
        from scenarios.memory import check_declared
        from scenarios.plan import plan

        scenario = load(file, overrides)
        check_declared(plan(scenario, numerics="timing"))
        protocol = scenario.protocol
        remarks = on_the_log(scenario) if protocol.durability == "log" else []
        click.echo(
            f"{file}: right: {protocol.kind}, {protocol.all_replicas} replicas, {protocol.shards} shards, {len(scenario.fault)} faults"
        )
        for remark in remarks:
            click.echo(f"{file}: {remark}")


def on_the_log(scenario: Scenario) -> list[str]:
    """Will each shard's disk keep up with the pushes that are logged before they are acknowledged?"""
    from models.phantom_network import PhantomNetwork
    from scenarios.log_rate import log_rate
    from scenarios.plan import plan
    from scenarios.units import rate_in_words

    network = plan(scenario, numerics="timing").network
    assert isinstance(network, PhantomNetwork)
    rate = log_rate(scenario, len(network), network.flops_per_sample)
    found = [f"the log of a shard takes up to {rate_in_words(rate.required)}; cluster.disk has {rate_in_words(rate.available)}"]
    if rate.required > rate.available:
        found.append("note: the disk cannot keep up: acknowledgements wait for it, so pushes come fewer and staler")
    return found


@main.command()
def scenarios() -> None:
    """List the bundled scenarios."""
    from scenarios.load import bundled

    for name, path in bundled().items():
        first = path.read_text(encoding="utf-8").splitlines()[0]
        click.echo(f"{name:<24}{first.removeprefix('#').strip()}")


@contextmanager
def progress() -> Iterator[Callable[[Run], None] | None]:
    """A line that shows how far the simulation is, where someone is looking."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    from sim.progress import Progress

    shown = Progress()
    with Console(stderr=True).status("simulating") as status:
        yield lambda run: status.update(shown.line(run) or "simulating")


if __name__ == "__main__":
    main()
