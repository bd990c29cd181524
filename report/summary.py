"""The summary of a run: one JSON object for machines, a page for people."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from core.job import replica_name, unit_of
from report.tally import Tally, distribution
from scenarios.expectations import as_told, judge
from scenarios.protocols import Downpour, Synchronous
from scenarios.schema import Scenario
from scenarios.units import in_words

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def summarise(scenario: Scenario, world: str, tally: Tally, **measured: Any) -> dict[str, Any]:
    """The summary; `measured` holds what the world knows and the journal does not, and overrides what stands here.

    Keys are those of the README, "The summary"; a loss that is no finite number is None.
    """
    last = tally.curve[-1] if tally.curve else None
    learns = world == "exec" or scenario.numerics == "real"
    senders: Counter[str] = Counter({replica_name(number): 0 for number in range(scenario.protocol.all_replicas)})
    for sender, count in tally.by_sender.items():
        senders[unit_of(sender.partition("#")[0])] += count
    shards = scenario.protocol.shards
    summary: dict[str, Any] = {
        "scenario": scenario.name,
        "seed": scenario.seed,
        "world": world,
        "protocol": scenario.protocol.kind,
        "numerics": scenario.numerics,
        "status": "done",
        "reason": in_epochs(scenario, tally.reason()),
        "seconds": tally.finished_at(),
        "wall_seconds": None,
        "updates": tally.updates if len(tally.by_shard) == shards else 0,  # a shard that applied nothing has no record of it
        "warm_updates": tally.warm_updates,
        "batches": tally.batches,
        "portions": portions(scenario, tally),
        "staged_bytes": int(tally.staged_bytes),
        "training_loss": finite(tally.steps[-1].loss) if tally.steps and learns else None,
        "loss": finite(last.loss) if last else None,
        "accuracy": last.accuracy if last else None,
        "messages": 0,
        "bytes": 0,
        "staleness": distribution(tally.staleness),
        "n_push": getattr(scenario.protocol, "n_push", 1),
        "gradients_per_push": gradients_per_push(scenario, tally),
        "pushes_by_replica": {name: round(count / shards, 1) for name, count in sorted(senders.items(), key=by_number)},
        "repeated": tally.events["repeated"],
        "duplicates": tally.events["duplicate"],
        "refused": tally.events["refused"],
        "lost_updates": 0,
        "goodput": None,
        "accounts": None,
        "links": None,
        "waits": [],
        "faults": [],
        "expectations": [],
        "checks": None,
        "twice": None,
        "ties": [],
        "cost": declared_cost(scenario) if world == "sim" else "real",
        "notes": [],
        "digest": None,
        "model": None,
        "journal": None,
        "run": None,
        "report": None,
    } | measured
    summary["expectations"] = judge(scenario, summary)
    return summary


def declared_cost(scenario: Scenario) -> str:
    """Whose work and size the simulation charges."""
    cost = scenario.model.cost
    return "own" if cost is None else f"{cost.parameters} parameters, {cost.flops:.4g} FLOP a sample"


def portions(scenario: Scenario, tally: Tally) -> dict[str, int]:
    """How many were given out, how many of them as backups, and how many in vain; gradients where each is one minibatch's."""
    found = dict(tally.portions)
    if isinstance(scenario.protocol, Synchronous):
        found["wasted"] = max(0, found["given"] - scenario.protocol.replicas * len(tally.steps))
    return found


def gradients_per_push(scenario: Scenario, tally: Tally) -> float | None:
    """How many minibatches went into a push on average: n_push, and more where pushes take longer than computing."""
    if not isinstance(scenario.protocol, Downpour):
        return None
    updates = sum(tally.by_shard[shard] for shard in tally.samples)
    return round(sum(tally.samples.values()) / scenario.protocol.batch / updates, 2) if updates else None


def in_epochs(scenario: Scenario, reason: str) -> str:
    """Shards count samples; whoever asked for epochs reads epochs."""
    epochs: float | None = getattr(scenario.protocol.stop, "epochs", None)
    return f"{epochs:g} epochs, {reason}" if epochs is not None and reason.endswith(" samples") else reason


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def by_number(item: tuple[str, int]) -> tuple[str, int]:
    role, _, number = item[0].rpartition("/")
    return role, int(number) if number.isdigit() else 0


def show(console: Console, summary: dict[str, Any]) -> None:
    """The page for people."""
    from rich.markup import escape
    from rich.table import Table

    status = summary["status"]
    colour = {"done": "green", "interrupted": "yellow"}.get(status, "red")
    console.print(
        f"\n[bold]{summary['scenario']}[/]  seed {summary['seed']}  [{colour}]{status}[/]: {escape(summary['reason'])}",
        highlight=False,
        soft_wrap=True,
    )
    table = Table(show_header=False, box=None, padding=(0, 2))
    kind = "virtual time" if summary["world"] == "sim" else "time"
    for name, value in rows(summary, kind):
        table.add_row(name, value)
    console.print(table, highlight=False)
    for fault in summary["faults"]:
        console.print(f"  {in_one_line(fault)}", highlight=False, soft_wrap=True)
    if summary["expectations"]:
        console.print(judged(summary["expectations"]), highlight=False)
    if summary["ties"]:
        console.print(spread(summary["ties"]), highlight=False)
    if summary["twice"]:
        console.print(f"  twice   {escape(summary['twice']['told'])}", highlight=False, soft_wrap=True)
    for note in summary["notes"]:
        console.print(f"  [yellow]note[/]   {escape(note)}", highlight=False, soft_wrap=True)
    for key in ("model", "journal", "report", "run"):
        if summary[key]:
            console.print(f"  {key:<8}{summary[key]}", highlight=False, soft_wrap=True)


def spread(ties: list[dict[str, Any]]) -> Table:
    """What hangs on the order of what happens at once."""
    from rich.table import Table

    table = Table(
        "metric", "as usual", "least", "median", "most", box=None, padding=(0, 2), title="other orders of ties", title_justify="left"
    )
    for one in ties:
        table.add_row(one["metric"], *("-" if one[key] is None else f"{one[key]:,.6g}" for key in ("usual", "least", "median", "most")))
    return table


def in_one_line(fault: dict[str, Any]) -> str:
    """A fault and what it bit; that it bit nothing is a warning, since then the scenario does not test what its author believes."""
    from rich.markup import escape

    bit = bites(fault)
    when = f" at {in_words(fault['at_s'])}" if fault["at_s"] is not None else ""
    times = f" ({fault['struck']} times)" if fault.get("struck", 1) != 1 else ""
    told = escape(f"{fault['kind']} of {fault['target']}{when}{times}")
    return f"[dim]fault[/]   {told}: {escape(bit)}" if bit else f"[yellow]warning[/] {told} [yellow]bit nothing[/]"


def bites(fault: dict[str, Any]) -> str:
    """What a fault bit; "" if nothing."""
    return ", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in fault["bit"].items())


def judged(expectations: list[dict[str, Any]]) -> Table:
    """Each expectation, and whether it is met."""
    from rich.table import Table
    from rich.text import Text

    table = Table("expected", "allowed", "found", "", box=None, padding=(0, 2), header_style="bold")
    for one in expectations:
        found = one["note"] if one["found"] is None else as_told(one["metric"], one["found"])
        verdict = Text("met", "green") if one["met"] else Text("not met", "bold red")
        table.add_row(Text(one["metric"]), Text(one["allowed"]), Text(found), verdict)
    return table


def rows(summary: dict[str, Any], kind: str) -> list[tuple[str, str]]:
    found = []
    if summary["seconds"] is not None:
        wall = f"   ({in_words(summary['wall_seconds'])} of wall time)" if summary["world"] == "sim" else ""
        found.append((kind, in_words(summary["seconds"]) + wall))
    found += learnt(summary) + traffic(summary) + whereabouts(summary)
    odd = {key: summary[key] for key in ("repeated", "duplicates", "refused", "lost_updates") if summary[key]}
    if odd:
        found.append(("failures met", ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in odd.items())))
    if summary["world"] == "sim" and summary["cost"] != "own":
        found.append(("charged cost", summary["cost"]))
    if summary["digest"]:
        found.append(("digest", summary["digest"]))
    return found


def learnt(summary: dict[str, Any]) -> list[tuple[str, str]]:
    rate = f"   ({summary['updates'] / summary['seconds']:.4g}/s)" if summary["seconds"] else ""
    found = [("updates", f"{summary['updates']:,}{rate}")]
    if summary["protocol"] == "sync":
        found.append(("gradients", "{given:,} given out; {wasted:,} dropped".format(**summary["portions"])))
    elif summary["batches"]:
        warm = [("warm start", f"{summary['warm_updates']:,} updates")] if summary["warm_updates"] else []
        iterations = summary["updates"] - summary["warm_updates"]
        rate = f"   ({iterations / summary['seconds']:.4g}/s)" if summary["seconds"] else ""
        found = [*warm, ("iterations", f"{iterations:,}{rate}, {summary['batches']} passes over the data")]
        found.append(("portions", "{given:,} given, {backups:,} as backups; {wasted:,} came in vain".format(**summary["portions"])))
        found.append(("staged at most", f"{summary['staged_bytes'] / 1e6:,.1f} MB on a shard"))
    if summary["training_loss"] is not None:
        found.append(("training loss", f"{summary['training_loss']:.6g}"))
    if summary["loss"] is not None:
        found.append(("held-out loss", f"{summary['loss']:.4f}"))
    if summary["accuracy"] is not None:
        found.append(("held-out accuracy", f"{summary['accuracy']:.4f}"))
    return found


def whereabouts(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Where the time went, and the busiest link."""
    found = []
    accounts = summary["accounts"] or {"by_kind": {}}
    for kind in ("replica", "shard"):
        if told := spent(accounts["by_kind"].get(kind, {})):
            found.append((f"time of {kind}s", told))
        if kind == "replica":
            found += [(f"of machine {number}", spent(accounts["by_partition"][number])) for number in worth_telling(accounts)]
    if summary["links"]:
        busiest = summary["links"][0]
        found.append(
            ("busiest link", f"{busiest['link']}, {busiest['utilisation']:.0%} used, {busiest['busiest_utilisation']:.0%} at most")
        )
    return found


def spent(states: dict[str, float]) -> str:
    """Shares of time, the largest first."""
    return ", ".join(
        f"{state.replace('_', ' ')} {share:.0%}" for state, share in sorted(states.items(), key=lambda one: -one[1]) if share >= 0.005
    )


FEW_MACHINES = 8
"""Of a replica, that are told of one by one; else of the one that computes most, and the one that computes least."""


def worth_telling(accounts: dict[str, Any]) -> list[int]:
    """Machines of a replica."""
    machines: list[dict[str, float]] = accounts.get("by_partition", [])
    if len(machines) <= FEW_MACHINES:
        return list(range(len(machines)))
    busy = sorted(range(len(machines)), key=lambda number: machines[number].get("computing", 0.0))
    return [busy[-1], busy[0]]


def traffic(summary: dict[str, Any]) -> list[tuple[str, str]]:
    found, staleness = [], summary["staleness"]
    if summary["protocol"] == "downpour" or summary["warm_updates"]:
        told = f"mean {staleness['mean']:.2f}, p50 {staleness['p50']}, p99 {staleness['p99']}, max {staleness['max']}"
        found.append(("staleness", told))
    found.append(("messages", f"{summary['messages']:,} of together {summary['bytes'] / 1e6:,.1f} MB"))
    pushes = list(summary["pushes_by_replica"].values())
    if pushes:
        found.append(
            ("pushes by replica", f"{min(pushes):g} to {max(pushes):g}" if len(pushes) > 16 else " ".join(f"{p:g}" for p in pushes))
        )
    if summary["gradients_per_push"] is not None and summary["gradients_per_push"] > 1.1 * summary["n_push"]:
        found.append(("gradients a push", f"{summary['gradients_per_push']:g} on average: pushing takes longer than computing"))
    return found
