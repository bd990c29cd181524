"""From the `[[fault]]` tables to what is carried out: presets are spelled out, traces read, and each fault gets a name and a key."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from core import chance
from scenarios.cluster import Cluster
from scenarios.faults import Aimed, Crash, Delay, Duplication, Loss, Pause, Plain, Preset, Slowdown, Trace
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


FOR_REAL = Crash | Pause | Slowdown | Loss | Delay | Duplication
"""What real processes and their messages can be made to suffer: at a given time, those of a role or a machine."""


class Real(NamedTuple):
    """A fault as real processes carry it out; `lasting_s` is infinite if it never ends."""

    name: str
    fault: FOR_REAL
    at_s: float
    lasting_s: float


def real_faults(tables: Iterable[Any], seed: int) -> list[Real]:
    """Those of a scenario that can be carried out for real.  Whoever asks draws the same lengths."""
    found = []
    for index, table in enumerate(tables):
        if isinstance(table, FOR_REAL) and not why_not(table):
            name = f"fault.{index} {table.kind}"
            lasting_s = math.inf if table.lasting is None else table.lasting.draw(chance.stream(seed, name, "draws"))
            found.append(Real(name, table, table.begins_s, lasting_s))
    return found


def why_not(table: Any) -> str:
    """Why a fault cannot be carried out for real, "" if it can."""
    if not isinstance(table, FOR_REAL):
        return "only the simulator can do that"
    if table.every is not None:
        return "only the simulator draws when it strikes"
    if any(target.startswith(("rack/", "power/", "pod/")) for target in table.target):
        return "real machines have names of their own alone, as 'machine/0'"
    return ""
