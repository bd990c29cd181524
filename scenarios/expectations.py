"""The `[[expect]]` tables: what the summary of a run must say, so that a scenario is a test that can stand in anyone's CI.

    [[expect]]
    metric = "staleness.p99"             # any number of the summary, by dotted path
    at_most = 40

    [[expect]]
    metric = "accuracy"
    within = { of = 0.95, by = 0.02 }

A metric in seconds or bytes is held against quantities with units, every other against plain numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator

from scenarios.table import Table
from scenarios.units import BYTES, SECONDS, in_words, parse, size_in_words
from scenarios.words import nearest

if TYPE_CHECKING:
    from scenarios.schema import Scenario

SUMMARY: dict[str, str] = {
    "scenario": "text", "seed": "number", "world": "text", "protocol": "text", "numerics": "text", "status": "text", "reason": "text",
    "seconds": "number", "wall_seconds": "number", "updates": "number", "warm_updates": "number", "batches": "number",
    "portions": "given, backups, wasted", "staged_bytes": "number", "training_loss": "number", "loss": "number", "accuracy": "number",
    "messages": "number", "bytes": "number", "staleness": "mean, p50, p99, max", "n_push": "number", "gradients_per_push": "number",
    "pushes_by_replica": "table", "repeated": "number", "duplicates": "number", "refused": "number", "lost_updates": "number",
    "goodput": "table", "accounts": "table", "links": "table", "waits": "table", "faults": "table", "expectations": "table", "checks": "table", "twice": "table", "ties": "table",
    "cost": "text", "notes": "text", "digest": "text", "model": "text", "journal": "text", "run": "text", "report": "text",
}  # fmt: skip
"""Every key of a summary, and what is there: a number, text, a table of known keys, or a table that only the run can fill."""

BITES = (
    "callbacks held", "calls cut off", "computations lost", "computing seconds lost", "disk seconds lost", "drained", "messages", "processes",
    "readings", "seconds down", "seconds down, still", "updates lost", "writes failed",
)  # fmt: skip
"""What a simulated fault may have bitten; its record holds those that it did."""

LEARNT = ("loss", "accuracy", "training_loss")
"""Which a run that is timing only has none of."""


def amount(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("allowed: a number, or text with a unit as '30 s' where the metric is in seconds or bytes")
    return value


Amount = Annotated[Any, BeforeValidator(amount)]


class Within(Table):
    """No further from `of` than `by`."""

    of: Amount
    by: Amount


class Expectation(Table):
    """One number of the summary, and what it may be; all that are given must hold."""

    metric: str
    at_least: Amount | None = None
    at_most: Amount | None = None
    within: Within | None = None

    def bounds(self) -> tuple[float, float]:
        """Least and most that is allowed.  Raises ValueError for a unit that does not fit the metric."""
        least = [quantity(self.metric, self.at_least)] if self.at_least is not None else []
        most = [quantity(self.metric, self.at_most)] if self.at_most is not None else []
        if self.within is not None:
            of, by = quantity(self.metric, self.within.of), quantity(self.metric, self.within.by)
            least.append(of - by)
            most.append(of + by)
        return max(least, default=-math.inf), min(most, default=math.inf)

    def allowed(self) -> str:
        """What may be found, in words."""
        told = [f"at least {self.at_least}"] if self.at_least is not None else []
        told += [f"at most {self.at_most}"] if self.at_most is not None else []
        told += [f"within {self.within.by} of {self.within.of}"] if self.within is not None else []
        return ", ".join(told)

    def judge(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        """For the summary: `found` is None where there is no number, and `note` says why; that meets nothing."""
        found, note = look_up(summary, self.metric)
        least, most = self.bounds()
        slack = 1e-12 * max((abs(bound) for bound in (least, most) if math.isfinite(bound)), default=0.0)  # 0.95 - 0.02 is not 0.93
        met = found is not None and least - slack <= found <= most + slack
        return {"metric": self.metric, "allowed": self.allowed(), "found": found, "met": met, "note": note}


def unit_of(metric: str) -> str:
    """Base unit of a metric: "s", "B", or "" for a plain number."""
    last = metric.rpartition(".")[2]
    if "per_s" in last:
        return ""
    if "seconds" in last or last.endswith("_s"):
        return "s"
    return "B" if last.endswith("bytes") else ""


def quantity(metric: str, value: float | str) -> float:
    """The amount in the metric's base unit.  Raises ValueError."""
    match unit_of(metric):
        case "s":
            return parse(value, SECONDS, "30 s")
        case "B":
            return parse(value, BYTES, "2 GB")
    if isinstance(value, str) or not math.isfinite(value):
        raise ValueError("allowed: a number, without a unit")
    return float(value)


def as_told(metric: str, value: float) -> str:
    """A metric's value for people."""
    match unit_of(metric):
        case "s":
            return in_words(value)
        case "B":
            return size_in_words(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def look_up(summary: Mapping[str, Any], metric: str) -> tuple[float | None, str]:
    """The number at that path, or None and the reason why there is none."""
    value: Any = summary
    path: list[str] = []
    for part in metric.split("."):
        keys = list(value) if isinstance(value, Mapping) else list(map(str, range(len(value)))) if isinstance(value, list) else []
        if part in BITES and part not in keys and path[-1:] == ["bit"]:
            return 0, ""
        if part not in keys:
            where = ".".join(path) or "the summary"
            return None, f"nothing is at {part!r} of {where}{nearest(part, keys)}" + (f"; there: {some(keys)}" if keys else "")
        value = value[int(part)] if isinstance(value, list) else value[part]
        path.append(part)
    if value is None:
        return None, "there is no such number of this run"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None, "not a number" + (f"; there: {some(list(value))}" if isinstance(value, Mapping) else "")
    return value, ""


def some(keys: Sequence[str], limit: int = 12) -> str:
    return ", ".join(keys[:limit]) + (", …" if len(keys) > limit else "")


def judge(scenario: Scenario, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every expectation of the scenario, and whether it is met."""
    return [expectation.judge(summary) for expectation in scenario.expect]


def senseless(expectations: Iterable[Expectation | None], *, real: bool, replicas: Sequence[str]) -> Iterable[tuple[str, str]]:
    """What can be told before the run: metrics that no summary has, units that do not fit, bounds that exclude each other."""
    for number, one in enumerate(expectations):
        if one is None:
            continue
        if (wrong := unknown(one.metric, replicas)) or (wrong := "" if real or one.metric not in LEARNT else "needs numerics = 'real'"):
            yield f"expect.{number}.metric", f"found {one.metric!r}{wrong if wrong.startswith(';') else f'; {wrong}'}"
            continue
        if one.at_least is None and one.at_most is None and one.within is None:
            yield f"expect.{number}", "nothing is expected; allowed: at_least, at_most, within = { of = 0.95, by = 0.02 }"
            continue
        try:
            least, most = one.bounds()
        except ValueError as error:
            yield f"expect.{number}", f"{one.metric} is held against {one.allowed()}: {error}"
            continue
        if least > most:
            yield f"expect.{number}", f"{one.allowed()}: nothing can be both"


def unknown(metric: str, replicas: Sequence[str]) -> str:
    """Why no summary has that number, as far as that is known before a run; "" if one may."""
    key, _, rest = metric.partition(".")
    what = SUMMARY.get(key)
    if what is None:
        numbers = [name for name, what in SUMMARY.items() if what != "text"]
        return f"{nearest(key, numbers)}; allowed: {', '.join(numbers)}"
    if what == "text":
        return "; it is text; allowed: a number of the summary"
    if what == "number":
        return f"; {key} is a number and has no {rest!r}" if rest else ""
    known = list(replicas) if key == "pushes_by_replica" else [] if what == "table" else what.split(", ")
    if rest and (not known or rest in known):
        return ""
    allowed = some([f"{key}.{name}" for name in known]) or f"{key}.… down to a number"
    return f"{nearest(rest, known) if rest else '; it is a table'}; allowed: {allowed}"
