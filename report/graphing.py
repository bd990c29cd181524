"""`graph`: a scenario's model on the machines of a replica, as a table and as a picture; nothing is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from report.commands import scenario_arguments

if TYPE_CHECKING:
    from report.graph_figures import Figures
    from scenarios.partitions import Chosen
    from scenarios.schema import Scenario


@click.command()
@scenario_arguments
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.svg", help="Draw it there.")
@click.option("--json", "as_json", is_flag=True, help="Print every figure as one JSON object.")
def graph(file: str, overrides: tuple[str, ...], out: Path | None, *, as_json: bool) -> None:
    """Show how a scenario's model is split over the machines of a replica, and what crosses between them."""
    from report.exits import clear_errors

    with clear_errors():
        from report.graph_figures import Figures
        from scenarios.load import load

        scenario = load(file, overrides)
        made = placed(scenario)
        figures = Figures(made.partitioned, samples_of(scenario))
        times = estimated(scenario, made)
        if out is not None:
            from report.folder import FolderError
            from report.graph_picture import draw

            try:
                out.write_text(draw(figures, title(scenario), [in_words(times)]), encoding="utf-8")
            except OSError as error:
                raise FolderError(f"cannot write {out}: {error.strerror}") from None
        if as_json:
            told = {"picture": str(out) if out is not None else None, "tried": [one._asdict() for one in made.tried]}
            click.echo(json.dumps({"name": scenario.name} | times | figures.as_json() | told))
            return
        show(scenario, figures, made, times)
        if out is not None:
            click.echo(f"\n{out}: the picture")


def samples_of(scenario: Scenario) -> int:
    """Of what a replica computes at once."""
    from scenarios.parts import total_samples
    from scenarios.plan import at_once

    total = total_samples(scenario)
    return at_once(scenario, total - round(total * scenario.data.held_out))


def placed(scenario: Scenario) -> Chosen:
    """Raises ScenarioError."""
    from core.graph import GraphError
    from scenarios.partitions import check_parts_memory, chosen
    from scenarios.parts import complaint, phantom_parts
    from scenarios.plan import graph_of

    try:
        found = graph_of(scenario, phantom_parts(scenario).network)
    except GraphError as error:
        raise complaint(scenario, "model.network", str(error)) from error
    try:
        made = chosen(scenario, found, samples_of(scenario))
    except GraphError as error:
        raise complaint(scenario, "model.placement", str(error)) from error
    if scenario.cluster.memory is not None:
        try:
            check_parts_memory(made.partitioned, samples_of(scenario), scenario.cluster.memory)
        except GraphError as error:
            raise complaint(scenario, "cluster.memory", str(error)) from error
    return made


def estimated(scenario: Scenario, made: Chosen) -> dict[str, float]:
    """Seconds of a minibatch: so placed, and on one machine."""
    from core.partitioning import Partitioned
    from models.placement import balanced
    from scenarios.estimate import minibatch_seconds

    whole = Partitioned(made.partitioned.graph, balanced(made.partitioned.graph, 1))
    samples = samples_of(scenario)
    return {
        "minibatch_s": minibatch_seconds(made.partitioned, scenario, samples),
        "minibatch_on_one_machine_s": minibatch_seconds(whole, scenario, samples),
    }


def in_words(times: dict[str, float]) -> str:
    from scenarios.units import in_words as told

    here, alone = times["minibatch_s"], times["minibatch_on_one_machine_s"]
    if here == alone:
        return f"A minibatch is estimated to take {told(here)}."
    ratio = f"{alone / here:.3g} times as fast" if here < alone else f"{here / alone:.3g} times as slow"
    return f"A minibatch is estimated to take {told(here)}, {ratio} as on one machine ({told(alone)})."


def title(scenario: Scenario) -> str:
    model = scenario.model
    how = "by hand" if isinstance(model.placement, dict) else model.placement
    where = "one machine" if model.partitions == 1 else f"{model.partitions} machines, {how}"
    return f"{model.network} of {scenario.name}, on {where}"


def show(scenario: Scenario, figures: Figures, made: Chosen, times: dict[str, float]) -> None:
    """Layers, machines, and what was tried."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from core.graph import shape_told
    from models.placement import told
    from report.graph_figures import kind_of, scaled
    from scenarios.units import in_words as seconds_told
    from scenarios.units import size_in_words

    def table(*heads: str) -> Any:
        made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for number, head in enumerate(heads):
            made.add_column(head, justify="left" if not number else "right", overflow="fold")
        return made

    console = Console()
    console.print(title(scenario), style="bold", highlight=False)
    console.print(in_words(times), highlight=False)
    if figures.bytes_up:
        told_up = f"{len(figures.partitioned.messages):,} messages, {size_in_words(figures.bytes_up)}"
        console.print(
            f"For a minibatch of {figures.samples}, {told_up} cross upward, and as much comes back as gradients.", highlight=False
        )
    layers = table("layer", "kind", "outputs", "parameters", "where")
    for node in figures.layers:
        machines = figures.partitioned.placement.get(node.name)
        layers.add_row(
            node.name, kind_of(node), shape_told(node.at.output), scaled(node.parameters) if node.parameters else "",
            told(machines) if machines else "everywhere, with the minibatch",
        )  # fmt: skip
    console.print(layers)
    for note in figures.partitioned.graph.notes:
        console.print(note, highlight=False, markup=False)
    machines_table = table("machine", "parts", "parameters", "FLOPs", "needs", "sends up", "receives up")
    for one in figures.machines:
        machines_table.add_row(
            str(one.machine), str(len(one.parts)), scaled(one.parameters), f"{100 * one.share:.3g} %", size_in_words(one.memory_bytes),
            size_in_words(one.sends_up_bytes), size_in_words(one.receives_up_bytes),
        )  # fmt: skip
    console.print(machines_table)
    if made.tried:
        tried = table("tried", "minibatch")
        best = min(one.seconds for one in made.tried)
        for attempt in made.tried:
            tried.add_row(attempt.what, seconds_told(attempt.seconds), style="bold" if attempt.seconds == best else "")
        console.print(tried)
