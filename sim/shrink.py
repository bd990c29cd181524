"""Make a failing scenario small: fewer faults, shorter, at rounder times, fewer machines, as long as it breaks the same rule.

What is tried is known beforehand, and each is tried until none helps any more: that takes some hundred runs of a small scenario, where a
shrinker that knows nothing of faults takes thousands and leaves in what does no harm.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import count, product
from typing import Any

Tables = dict[str, Any]

MOST_RUNS = 400
"""Of the scenario, until what there is counts as small enough."""

MOVES = (10, -10, 30, -30, 60, -60, 100, -100, 150, -150, 200, -200, 300, -300)
"""Milliseconds by which a fault is moved where another is left out."""

SIMPLEST: dict[str, dict[str, tuple[Any, ...]]] = {
    "protocol": {
        "replicas": (1, 2, 3), "shards": (1, 2), "backup_workers": (0,), "n_fetch": (1,), "n_push": (1,), "max_behind": (1,), "portions": (1, 2, 4),
        "bundle": (1,), "copies": (1,), "memory": (1,), "minimum_age": (0,), "warmstart": (None, "0 updates"), "job_start_up": ("0 ms",),
        "rule": ({"kind": "sgd", "learning_rate": 1},), "snapshot_every": ("100 ms",), "deadline": ("1 s",), "detect_within": ("200 ms",),
    },
    "cluster": {"speed": ("1 GFLOP/s",), "jitter": (None,), "start_up": ("100 ms", "0 ms"), "disk": ("2 MB/s",)},
    "network": {"latency": ("5 ms", "50 us"), "topology": (None,), "model": ("fair",)},
}  # fmt: skip
"""What is simple, of jobs that are drawn as a whole; the first that still fails stays.  None: leave it out."""


class Shrinking:
    """One scenario on its way."""

    def __init__(self, tables: Tables, breaks: Callable[[Tables], bool]) -> None:
        """`breaks` says whether such a scenario, if it is one at all, still breaks the rule."""
        self.tables, self.breaks, self.runs = tables, breaks, 0

    def accept(self, tables: Tables) -> bool:
        """Go on with these if they still fail."""
        if tables == self.tables or self.runs >= MOST_RUNS:
            return False
        self.runs += 1
        if not self.breaks(tables):
            return False
        self.tables = tables
        return True

    def faults(self) -> list[Tables]:
        return list(self.tables["fault"])

    def with_faults(self, faults: list[Tables]) -> bool:
        return self.accept(self.tables | {"fault": faults})

    def fewer(self, kept: int) -> bool:
        """Leave out as many faults at once as do no harm, but not the first `kept`."""
        before, size = len(self.faults()), max(1, (len(self.faults()) - kept) // 2)
        while size:
            start = kept
            while start < len(self.faults()):
                faults = self.faults()
                if not self.with_faults(faults[:start] + faults[start + size :]):
                    start += size
            size //= 2
        return len(self.faults()) < before

    def simpler(self, kept: int) -> bool:
        """Each fault by itself."""
        better = False
        for place in count(kept):
            if place >= len(self.faults()):
                return better
            for key in list(self.faults()[place]):
                better |= key in self.faults()[place] and self.simpler_key(place, key)
        return better

    def simpler_key(self, place: int, key: str) -> bool:
        faults = self.faults()
        before, after = faults[:place], faults[place + 1 :]
        return any(self.with_faults([*before, other, *after]) for other in simpler_faults(faults[place], key))

    def one_less(self, kept: int) -> bool:
        """Without one of them, another may do if it comes a little earlier or later: what was left out may have moved it there."""
        faults = self.faults()
        for place, other in product(range(kept, len(faults)), repeat=2):
            if place == other or (at := milliseconds(faults[other].get("at"))) is None:
                continue
            for by in MOVES:
                moved = faults[other] | {"at": f"{max(0, at + by)} ms"}
                if self.with_faults([moved if one is faults[other] else one for one in faults if one is not faults[place]]):
                    return True
        return False

    def plainer(self) -> bool:
        """The job and its cluster."""
        better = False
        for table, keys in SIMPLEST.items():
            for key, values in keys.items():
                better |= self.plainer_key(table, key, values)
        stop = self.tables["protocol"]["stop"]
        for what, limit in stop.items():
            if isinstance(limit, int):
                smaller = (value for value in (limit // 4, limit // 2, limit - limit // 4, limit - 1) if 0 < value < limit)
                better |= any(
                    self.accept(self.tables | {"protocol": self.tables["protocol"] | {"stop": {what: value}}}) for value in smaller
                )
        return better

    def plainer_key(self, table: str, key: str, values: tuple[Any, ...]) -> bool:
        there = self.tables.get(table, {})
        if key not in there:
            return False
        for value in values:
            if there[key] == value:
                return False
            without = {name: one for name, one in there.items() if name != key}
            if self.accept(self.tables | {table: without if value is None else there | {key: value}}):
                return True
        return False


def shrink(tables: Tables, breaks: Callable[[Tables], bool], *, kept: int = 0, whole: bool = False) -> tuple[Tables, int]:
    """The smallest that was found, and after how many runs.  The first `kept` faults stay as they are; `whole`: also the job."""
    on = Shrinking(tables, breaks)
    while True:
        better = on.fewer(kept)
        if whole:
            better |= on.plainer()
        better |= on.simpler(kept)
        better = better or on.one_less(kept)
        if not better or on.runs >= MOST_RUNS:
            return on.tables, on.runs


def simpler_faults(one: Tables, key: str) -> Iterator[Tables]:
    """What to try instead, the simplest first."""
    value = one[key]
    if key == "every":
        for at in ("0 ms", one["until"]):
            yield {name: told for name, told in one.items() if name not in ("every", "until")} | {"at": at}
    elif key in ("repair", "for", "by", "notice", "until"):
        yield from (one | {key: shorter} for shorter in shorter_than(value))
    elif key == "at":
        yield from (one | {key: rounder} for rounder in rounder_than(value))
    elif key == "probability":
        yield from [one | {key: 1.0}] if value != 1.0 else []
    elif key in ("flapping", "direction"):
        yield {name: told for name, told in one.items() if name != key}
    elif key == "kind" and value != "crash" and "at" in one and "*" not in one["target"] and not one["target"].endswith((" in", " out")):
        yield {"kind": "crash", "target": one["target"], "at": one["at"], "repair": one.get("repair") or one["for"]}


def milliseconds(value: Any) -> int | None:
    """Of a duration that is drawn."""
    match = re.fullmatch(r"(\d+) ms", value) if isinstance(value, str) else None
    return int(match[1]) if match else None


def shorter_than(value: Any) -> Iterator[str]:
    """Round ones first."""
    now = milliseconds(value)
    if now is not None:
        yield from (f"{one} ms" for one in (1, 10, 100, 200, 500, 1000, now // 4, now // 2, now * 3 // 4) if 0 < one < now)


def rounder_than(value: Any) -> Iterator[str]:
    """The same moment in fewer digits, the later first."""
    now = milliseconds(value)
    if now is not None:
        for unit in (1000, 100, 50, 10):
            if now % unit:
                yield from (f"{one} ms" for one in (now // unit * unit + unit, now // unit * unit))
