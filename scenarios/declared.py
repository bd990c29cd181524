"""From the `[[fault]]` tables to what is carried out: presets are spelled out, traces read, and each fault gets a name and a key."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from core import chance
from scenarios.cluster import Cluster
from scenarios.faults import Aimed, Crash, Cut, Delay, Duplication, Loss, Pause, Plain, Preset, Reordering, Slowdown, Trace
from scenarios.places import Places
from scenarios.presets import spelled_out
from scenarios.traces import read_trace

if TYPE_CHECKING:
    from scenarios.schema import Scenario


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


GROUPS = ("rack/", "power/", "pod/")

FOR_REAL = Crash | Pause | Slowdown | Loss | Delay | Duplication | Reordering | Cut
"""What real processes and their messages can be made to suffer, at a given time."""


class Real(NamedTuple):
    """A fault as real processes carry it out; `lasting_s` is infinite if it never ends."""

    name: str
    fault: FOR_REAL
    at_s: float
    lasting_s: float


def real_faults(scenario: Scenario) -> list[Real]:
    """Those of a scenario that can be carried out for real.  Whoever asks draws the same lengths."""
    found = []
    for index, table in enumerate(scenario.fault):
        if isinstance(table, FOR_REAL) and not why_not(table, alone=scenario.placement.alone):
            name = f"fault.{index} {table.kind}"
            lasting_s = math.inf if table.lasting is None else table.lasting.draw(chance.stream(scenario.seed, name, "draws"))
            found.append(Real(name, table, table.begins_s, lasting_s))
    return found


def why_not(table: Any, *, alone: bool) -> str:
    """Why a fault cannot be carried out for real, "" if it can.

    `alone`: one machine plays all that are declared, and knows which role stands for which; several have names of their own alone.
    """
    if not isinstance(table, FOR_REAL):
        return "only the simulator can do that"
    cut = table if isinstance(table, Cut) else None
    targets = (*table.target, *(cut.from_ or () if cut else ()))
    reasons = {
        "only the simulator draws when it strikes": table.every is not None,
        "only the simulator cuts by turns": cut is not None and cut.flapping is not None,
        "only simulated networks have links": any(" " in target for target in targets),
        "real machines have names of their own alone, as 'machine/0'": not alone and any(target.startswith(GROUPS) for target in targets),
        "real machines are cut off by their own network": not alone
        and cut is not None
        and any(target.startswith("machine/") for target in targets),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")
