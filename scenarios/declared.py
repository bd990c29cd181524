"""From the `[[fault]]` tables to what is carried out: presets are spelled out, traces read, and each fault gets a name and a key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from scenarios.cluster import Cluster
from scenarios.faults import Aimed, Plain, Preset, Slowdown, Trace
from scenarios.places import Places
from scenarios.presets import spelled_out
from scenarios.traces import read_trace


@dataclass(frozen=True, slots=True)
class Declared:
    """One fault that is carried out.

    `name`: as the journal has it ("fault.3 crash"); `key`: of its random streams.  The key says what the fault is, not where it
    stands, so that one more fault in the file moves nobody's draws.
    """

    index: int
    """Of its table."""
    name: str
    key: str
    kind: str
    target: tuple[str, ...]
    faults: tuple[Plain, ...]
    """One; of a trace all."""


def declared(tables: Iterable[Any], places: Places) -> Iterator[Declared]:
    """All of them, in order.  Raises TraceError."""
    seen: Counter[str] = Counter()
    for index, table in enumerate(tables):
        for part, (label, fault) in enumerate(parts(table, places)):
            target = fault.target if isinstance(fault, Aimed) else (fault.file,)
            key = f"{label} of {' '.join(target)}"
            seen[key] += 1
            number = f"{index}.{part}" if isinstance(table, Preset) else f"{index}"
            faults = tuple(read_trace(fault.file, places.of("role", "machine", "group"))) if isinstance(fault, Trace) else (fault,)
            yield Declared(index, f"fault.{number} {label}", f"{key} #{seen[key]}", label, target, faults)


def parts(table: Any, places: Places) -> list[tuple[str, Any]]:
    """What a table comes to, with what it is called."""
    if isinstance(table, Preset):
        return [(f"{table.name} {fault.kind}", fault) for fault in spelled_out(table, places)]
    return [(table.kind, table)]


def slow_episodes(cluster: Cluster) -> list[Declared]:
    """Those of each machine, as slowdowns that are nobody's fault."""
    given, target = cluster.slow_episodes, ("machine/*",)
    if given is None:
        return []
    fault = Slowdown.model_validate(
        {"kind": "slowdown", "target": target, "every": given.every, "for": given.for_, "factor": given.factor}
    )  # fmt: skip
    return [Declared(-1, "slow episode", "slow episode", "slowdown", target, (fault,))]


def told(index: int, table: Any) -> str:
    """A table as a person would point at it."""
    what = table.name if isinstance(table, Preset) else table.file if isinstance(table, Trace) else f"of {', '.join(table.target)}"
    return f"fault.{index} {table.kind} {what}"
