"""What must come once nothing fails any more (a rule of `core/checks.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from core.check_facts import Violation
from core.journal import Record

RULES: dict[str, str] = {
    "progress": "after the last fault has healed there is progress within the stated bound, again and again, until the job has ended",
}

PROGRESS = {"applied", "stepped", "warmed", "staged", "finished", "evaluated", "begun", "concluded"}
"""Events that bring a job nearer to its end, or tell that it is there."""


def stalled(lines: Iterable[tuple[int, Record]], healed_s: float, bound_s: float) -> Iterator[Violation]:
    """Gaps longer than `bound_s` after `healed_s`, each between two lines; the journal's end ends one too.  Seconds are its own."""
    last_s, before, line, now_s = healed_s, 0, 0, healed_s
    for line, record in lines:
        now_s = record.time_s
        if record.event in PROGRESS or record.event == "failed":
            yield from gap(last_s, now_s, bound_s, before, line)
            if record.event in ("concluded", "failed"):
                return
            last_s, before = max(last_s, now_s), line
    yield from gap(last_s, now_s, bound_s, before, line)


def gap(last_s: float, now_s: float, bound_s: float, *lines: int) -> Iterator[Violation]:
    if now_s - last_s > bound_s:
        what = f"nothing came nearer to the end from {last_s:.6g} s to {now_s:.6g} s; the bound is {bound_s:.6g} s"
        yield Violation("progress", what, tuple(line for line in lines if line))
