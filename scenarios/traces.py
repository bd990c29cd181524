"""A trace of failures: a CSV file that is replayed.

    time,target,event
    90 s,machine/3,down
    2 min,machine/3,up
    3 min,replica/0,slow 2.5
    200 s,replica/0,normal

The events come in pairs: down and up, pause and resume, slow (with how many times) and normal.  One without its second lasts to the end.
Where the first column is called `time_s`, it holds plain seconds.  Rows need not be in order.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from scenarios.faults import Crash, Pause, Plain, Slowdown
from scenarios.units import duration
from scenarios.words import nearest

ENDS = {"up": "down", "resume": "pause", "normal": "slow"}
EVENTS = ("down", "up", "pause", "resume", "slow", "normal")


class TraceError(ValueError):
    """Rows that say nothing; the message names all of them by their lines."""


class Row(NamedTuple):
    """One row that is right by itself."""

    line: int
    time_s: float
    target: str
    event: str
    factor: float


def read_trace(file: str, targets: Iterable[str]) -> list[Plain]:
    """The faults that a file tells of, in order.  Raises TraceError with everything that is wrong with it.

    `targets`: the names that there are.
    """
    try:
        with Path(file).open(encoding="utf-8", newline="") as lines:
            table = list(csv.reader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    header = [name.strip() for name in table[0]] if table else []
    if header not in (["time", "target", "event"], ["time_s", "target", "event"]):
        raise TraceError(f"found the columns {', '.join(header) or 'nothing'}; allowed: time,target,event or time_s,target,event")
    wrong: list[str] = []
    rows, known = [], frozenset(targets)
    for line, cells in enumerate(table[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        try:
            rows.append(row(line, [cell.strip() for cell in cells], known, plain=header[0] == "time_s"))
        except ValueError as error:
            wrong.append(f"line {line}: {error}")
    faults = paired(sorted(rows, key=lambda one: (one.time_s, one.line)), wrong)
    if wrong:
        raise TraceError("; ".join(wrong))
    return faults


def row(line: int, cells: list[str], known: frozenset[str], *, plain: bool) -> Row:
    """One line.  Raises ValueError."""
    if len(cells) != 3:
        raise ValueError(f"{len(cells)} columns instead of 3")
    told, target, what = cells
    event, _, factor = what.partition(" ")
    try:
        time_s = duration(f"{told} s" if plain else told)
    except ValueError:
        raise ValueError(f"{told!r} is no time{'' if plain else ' with a unit, as 90 s'}") from None
    if target not in known:
        raise ValueError(f"{target!r} is nobody{nearest(target, known)}")
    if event not in EVENTS:
        raise ValueError(f"{what!r} is no event{nearest(event, EVENTS)}; allowed: {', '.join(EVENTS)}")
    try:
        times = float(factor) if factor else 1.0
    except ValueError:
        times = 0.0
    if (event == "slow") != (1.0 < times < float("inf")) or (event != "slow" and factor):
        raise ValueError(f"{what!r}: how many times slower? allowed: slow 2.5, or an event alone")
    return Row(line, time_s, target, event, times)


def paired(rows: list[Row], wrong: list[str]) -> list[Plain]:
    """Each beginning with its end; what has no beginning, or two, is added to what is wrong."""
    open_: dict[tuple[str, str], Row] = {}
    found: list[tuple[Row, float | None]] = []
    for one in rows:
        key = one.target, ENDS.get(one.event, one.event)
        if one.event in ENDS:
            if (begun := open_.pop(key, None)) is None:
                wrong.append(f"line {one.line}: {one.target} is {one.event!r} without having been {key[1]!r}")
            elif one.time_s > begun.time_s:
                found.append((begun, one.time_s - begun.time_s))
        elif key in open_:
            wrong.append(f"line {one.line}: {one.target} is {one.event!r} since line {open_[key].line} already")
        else:
            open_[key] = one
    for begun in open_.values():
        if begun.event == "pause":
            wrong.append(f"line {begun.line}: {begun.target} is paused and never resumed")
        found.append((begun, None))
    return [fault(begun, lasts_s) for begun, lasts_s in sorted(found, key=lambda one: (one[0].time_s, one[0].line))]


def fault(begun: Row, lasts_s: float | None) -> Plain:
    common: dict[str, Any] = {"target": begun.target, "at": f"{begun.time_s!r} s"}
    lasts = None if lasts_s is None else f"{round(lasts_s, 9)!r} s"
    if begun.event == "down":
        return Crash.model_validate({"kind": "crash", "repair": lasts, **common})
    if begun.event == "pause":
        return Pause.model_validate({"kind": "pause", "for": lasts or "0 s", **common})
    return Slowdown.model_validate({"kind": "slowdown", "for": lasts, "factor": begun.factor, **common})
