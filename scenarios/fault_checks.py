"""What is wrong with `[[fault]]` tables whose form is right: nobody is there, it can never happen, the job could not go on."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from core.job import COORDINATOR, SUPERVISOR
from scenarios.faults import Aimed, ClockDrift, Crash, Cut, OfDisks, Preset, Trace
from scenarios.places import Places
from scenarios.traces import TraceError, read_trace
from scenarios.units import in_words
from scenarios.words import nearest

VITAL = ("shard", "mirror", COORDINATOR, SUPERVISOR)
"""What the names of roles begin with that the job cannot do without."""

Mistakes = Iterator[tuple[str, str]]


def senseless_faults(tables: Sequence[Any], protocol: Any, places: Places | None) -> Mistakes:
    """Path and message of every mistake; a table whose form is wrong is None.

    `places`: None where a mistake elsewhere leaves open who there is; then nobody is asked whom a fault hits.
    """
    gone: set[str] = set()
    for number, table in enumerate(tables):
        path = f"fault.{number}"
        if isinstance(table, Aimed):
            yield from senseless_times(path, table, protocol.stop.time)
            yield from pointless(path, table, protocol)
        if table is not None and places is not None:
            yield from misaimed(path, table, protocol, places, gone)


def misaimed(path: str, table: Any, protocol: Any, places: Places, gone: set[str]) -> Mistakes:
    """Whom it hits: somebody who is there, whom a fault of this kind can hit, and the job can do without."""
    if isinstance(table, Trace):
        yield from senseless_trace(path, table, protocol, places, gone)
    elif isinstance(table, Preset):
        yield from unknown(f"{path}.target", table.target, ("machine",), "a preset", places)
    else:
        yield from unknown(f"{path}.target", table.target, table.reaches, f"a {table.kind}", places)
        if isinstance(table, Cut) and table.from_ is not None:
            yield from unknown(f"{path}.from", table.from_, table.reaches, "a cut", places)
        if isinstance(table, Crash):
            yield from fatal(f"{path}.repair", table, protocol, places, gone)


def senseless_trace(path: str, table: Trace, protocol: Any, places: Places, gone: set[str]) -> Mistakes:
    try:
        faults = read_trace(table.file, places.of("role", "machine", "group"))
    except TraceError as error:
        yield f"{path}.file", f"{table.file}: {error}"
        return
    if not faults:
        yield f"{path}.file", f"{table.file}: holds no event"
    for fault in faults:
        if isinstance(fault, Crash):
            yield from fatal(f"{path}.file", fault, protocol, places, gone)


def senseless_times(path: str, table: Aimed, stop_s: float | None) -> Mistakes:
    """Both or neither of `at` and `every`, what only `every` can have, and what comes after the end."""
    if table.at is not None and table.every is not None:
        yield f"{path}.every", "found both at and every; allowed: one of them"
    elif table.at is None and table.every is None and not table.at_once:
        yield f"{path}.at", "missing; allowed: at or every"
    if table.every is None:
        for key in ("until", "frailty", "together"):
            if key in table.model_fields_set:
                yield f"{path}.{key}", f"{key} needs every: what strikes at one time does so once, all its targets together"
    elif table.every.mean_s <= 0:
        yield f"{path}.every", "must be more than 0 s on average"
    timetable = table.every is not None and not table.every.drawn
    first_s = table.every.mean_s if timetable and table.every is not None else table.at
    last_s = min(table.until if table.until is not None else float("inf"), stop_s if stop_s is not None else float("inf"))
    if first_s is not None and first_s > last_s:
        key = "every" if timetable else "at"
        yield f"{path}.{key}", f"can never fire: first at {in_words(first_s)}, and all is over at {in_words(last_s)}"


def unknown(path: str, targets: Iterable[str], kinds: Sequence[str], what: str, places: Places) -> Mistakes:
    """Targets that are nobody, or nothing that a fault of this kind can hit."""
    names = places.of(*kinds)
    for target in targets:
        if target in names or fnmatch.filter(names, target):
            continue
        everything = places.of("role", "machine", "group", "link")
        if fnmatch.filter(everything, target):
            yield path, f"found {target!r}; {what} hits {' or '.join(f'a {kind}' for kind in kinds)}, as {names[0]!r}"
        else:
            example = (
                f"a {kinds[0]} as {names[0]!r}" if len(kinds) == 1 else f"a {' or '.join(kinds)} as {names[0]!r}, 'replica/*', 'machine/0'"
            )
            yield path, f"found {target!r}, which is nobody{nearest(target, names)}; allowed: {example}"


def pointless(path: str, table: Aimed, protocol: Any) -> Mistakes:
    """What would do nothing."""
    if isinstance(table, OfDisks) and protocol.durability in ("none", "mirror") and SUPERVISOR not in table.target:
        yield (
            path,
            f"durability = {protocol.durability!r} writes nothing to disk before the end; allowed: snapshot or log, or target = 'supervisor'",
        )
    if isinstance(table, ClockDrift) and not table.rate and not table.step:
        yield path, "nothing is wrong with that clock; allowed: rate, as '200 ppm', or step, as '-3 s'"


def fatal(path: str, fault: Crash, protocol: Any, places: Places, gone: set[str]) -> Mistakes:
    """Is a role lost for ever that the job cannot do without?  `gone`: replicas of a synchronous job that are lost already."""
    if fault.repair is not None:
        return
    hit = places.hit(fault.target, ("role",))
    vital = [name for name in hit if name.startswith(VITAL)]
    if vital:
        yield path, f"missing; without {vital[0]} the job cannot go on"
    elif protocol.kind == "sync":
        gone |= {name for name in hit if name.startswith("replica")}
        if len(gone) > protocol.backup_workers:
            yield path, f"missing; without {len(gone)} of {protocol.all_replicas} replicas no step has its {protocol.replicas}"
