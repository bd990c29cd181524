"""The job at a glance, as an operator sees it: the live view of the launcher, and the answer of `execctl status`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from core.job import SUPERVISOR, role_kind
from core.reports import Overview, Status
from report.progress import Rate
from scenarios.units import in_words

if TYPE_CHECKING:
    from exec.launch import Launch

COLOURS = {
    "waiting": "red",
    "held": "red",
    "starting": "yellow",
    "up": "green",
    "ended": "blue",
    "given up": "red bold",
    "silent": "red",
    "left": "blue",
}
WINDOW_S = 5.0
"""Over which updates a second are averaged."""


def shards(overview: Overview) -> list[Status]:
    return [role.status for role in overview.roles if role_kind(role.name) == "shard"]


def headline(overview: Overview) -> list[str]:
    """Updates, loss, accuracy and staleness of now."""
    updates = min((status.updates for status in shards(overview)), default=0)
    staleness = sum(status.staleness for status in shards(overview)) / max(1, len(shards(overview)))
    quality = next((role.status for role in overview.roles if role.status.loss is not None), Status())
    return [
        f"{overview.phase} {in_words(overview.now_s)}" + (f": {overview.reason}" if overview.reason else ""),
        f"{updates:,} updates",
        f"loss {quality.loss:.4f}" if quality.loss is not None else "loss -",
        f"accuracy {quality.accuracy:.4f}" if quality.accuracy is not None else "accuracy -",
        f"staleness {staleness:.1f}",
    ]


def as_table(overview: Overview, folder: Path) -> RenderableType:
    """Everything the supervisor knows."""
    head = Table.grid(padding=(0, 3))
    head.add_row(*headline(overview))
    roles = Table("role", "state", "life", "machine", "process", "heard", "updates", "note", box=None)
    for role in overview.roles:
        roles.add_row(
            role.name, Text(role.state, COLOURS.get(role.state, "")), str(role.life), role.machine, str(pid(folder, role.name) or ""),
            f"{role.quiet_s:.1f} s ago", f"{role.status.updates:,}", role.note,
        )  # fmt: skip
    machines = Table("machine", "host", "state", "cores", "GPUs", "memory", "heard", box=None)
    for machine in overview.machines:
        memory = f"{machine.capacity.memory_bytes / 1e9:.0f} GB"
        machines.add_row(
            machine.name, machine.host, Text(machine.state, COLOURS.get(machine.state, "")), str(machine.capacity.cores),
            str(machine.capacity.gpus), memory, f"{machine.quiet_s:.1f} s ago",
        )  # fmt: skip
    told = [Text(role.status.progress) for role in overview.roles if role.status.progress]
    return Group(head, *told, roles, machines)


def to_json(overview: Overview, folder: Path) -> dict[str, Any]:
    """The same for machines."""
    return {
        "phase": overview.phase, "verdict": overview.verdict, "reason": overview.reason, "seconds": overview.now_s,
        "supervisor": {"process": pid(folder, SUPERVISOR)},
        "roles": {
            role.name: {
                "state": role.state, "life": role.life, "machine": role.machine, "process": pid(folder, role.name),
                "quiet_seconds": role.quiet_s, "updates": role.status.updates, "finished": role.status.finished,
                "synced": role.status.synced, "staleness": role.status.staleness, "loss": role.status.loss,
                "accuracy": role.status.accuracy, "note": role.note,
            }
            for role in overview.roles
        },
        "machines": {
            machine.name: {"host": machine.host, "state": machine.state, "quiet_seconds": machine.quiet_s, **machine.capacity._asdict()}
            for machine in overview.machines
        },
    }  # fmt: skip


def pid(folder: Path, role: str) -> int | None:
    """Its process, where that is of a machine that shares the run folder."""
    path = folder / "pids" / role.replace("/", "-")
    return int(path.read_text()) if path.exists() else None


class Progress:
    """Rendered anew four times a second."""

    def __init__(self, launched: Launch) -> None:
        self.launched = launched
        self._rate = Rate(WINDOW_S)

    def __rich__(self) -> RenderableType:
        overview = self.launched.seen
        if overview is None:
            return Text("starting: no word from the supervisor yet")
        updates = min((status.updates for status in shards(overview)), default=0)
        table = Table.grid(padding=(0, 3))
        table.add_row(*headline(overview), f"{self._rate(updates):.4g}/s")
        roles = Text("  ").join(
            Text(f"{role.name}{f'#{role.life}' if role.life > 1 else ''}", COLOURS.get(role.state, "")) for role in overview.roles
        )
        coordinator = [Text(role.status.progress) for role in overview.roles if role.status.progress]
        waiting = [Text(f"{role.name}: {role.note}", "yellow") for role in overview.roles if role.state == "waiting" and role.note]
        return Group(table, *coordinator, roles, *waiting[:5])
