"""What single losses cost a job: of each thing that was lost, at each moment, against the run in which it was not."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Thing:
    """What can be lost by itself."""

    name: str
    kind: str
    """machine, group, role or link."""
    lives_there: tuple[str, ...]
    """When the job begins: the roles on it or behind it; of a role, its machine."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the job when one thing was lost at one moment."""

    at_s: float
    failed: str
    """Why the job came to no end; "" if it did, and then the costs are numbers, as far as the job has them."""
    lost_s: float | None
    """How much longer than undisturbed the job took."""
    loss_change: float | None
    """Of the held-out loss at the end; None without real numerics."""
    accuracy_change: float | None
    updates_lost: int
    """More than undisturbed: they were applied, and no surviving shard is made of them."""
    updates_fewer: int
    """Than undisturbed, at the end."""
    bit: dict[str, float]
    """What the loss bit, as in a summary; empty if it hit nothing."""
    fault: dict[str, Any]
    """As it would stand in the scenario's file."""
    digest: str


@dataclass(slots=True)
class Row:
    """One thing, and what its loss costs at every moment that was run."""

    thing: Thing
    measure: str
    """What that costs first of all: "lost_s", or "updates_fewer"."""
    outcomes: dict[float, Outcome] = field(default_factory=dict)
    """By moment."""

    @property
    def failures(self) -> int:
        return sum(bool(one.failed) for one in self.outcomes.values())

    @property
    def worst(self) -> Outcome:
        """At the moment that costs most; the earliest of several."""
        return max(self.outcomes.values(), key=lambda one: (self.costs(one), -one.at_s))

    @property
    def median(self) -> float:
        """Of what it costs over the moments; infinite if at half of them or more the job fails."""
        return median(map(self.price, self.outcomes.values()))

    @property
    def harmless(self) -> bool:
        """Does its loss, at any moment, cost nothing at all?"""
        return not any(any(self.costs(one)) for one in self.outcomes.values())

    def price(self, one: Outcome) -> float:
        """By the measure; infinite if the job fails."""
        return math.inf if one.failed else float(getattr(one, self.measure) or 0.0)

    def costs(self, one: Outcome) -> tuple[float, ...]:
        """What is worse is greater: a job that fails, then what it costs first of all, then whatever else."""
        if one.failed:
            return (math.inf,)
        return (self.price(one), one.lost_s or 0.0, one.updates_fewer, one.loss_change or 0.0, one.updates_lost)

    def as_json(self) -> dict[str, Any]:
        middle = self.median
        return asdict(self.thing) | {
            "failures": self.failures,
            "worst_at_s": self.worst.at_s,
            "median": middle if math.isfinite(middle) else None,
            "moments": [asdict(one) for _, one in sorted(self.outcomes.items())],
        }


@dataclass(frozen=True, slots=True)
class Sampled:
    """Of things that are alike, how many are lost in turn."""

    like: str
    taken: int
    of: int

    def __str__(self) -> str:
        return f"{self.taken:,} of {self.of:,} {self.like}"


@dataclass(slots=True)
class Criticality:
    """All that was found, as far as it was run."""

    scenario: str
    seed: int
    undisturbed: dict[str, Any]
    """Of its summary: seconds, updates, lost_updates, loss, accuracy, digest."""
    own_faults: int
    """`[[fault]]` tables of the scenario itself, which are there in every run."""
    learns: bool
    """Are numerics real, so that losses mean something?"""
    measure: str
    """What a loss costs first of all: "lost_s", or where the job ends by the clock "updates_fewer"."""
    repair_s: float | None
    limit_s: float
    """At which a run counts as one that never ends."""
    moments_s: list[float]
    runs: int
    """How many there are to be."""
    sampled: list[Sampled]
    """Where not everything is lost in turn, what is; else empty."""
    rows: dict[str, Row] = field(default_factory=dict)
    """By the thing's name."""
    cut_short: str = ""
    """Why not all of them were run; "" if they were."""

    def add(self, thing: Thing, outcome: Outcome) -> None:
        self.rows.setdefault(thing.name, Row(thing, self.measure)).outcomes[outcome.at_s] = outcome

    @property
    def done(self) -> int:
        """Runs so far."""
        return sum(len(row.outcomes) for row in self.rows.values())

    def worst_first(self) -> list[Row]:
        """Those whose loss fails the job at most moments, then those that cost most at their worst moment."""
        return sorted(
            self.rows.values(), key=lambda row: (-row.failures, [-part for part in row.costs(row.worst)], -row.median, row.thing.name)
        )

    def as_json(self) -> dict[str, Any]:
        """The same for the same scenario and seed, on whatever machine the numerics allow that."""
        return {
            "scenario": self.scenario, "seed": self.seed, "status": "interrupted" if self.cut_short else "done",
            "cut_short": self.cut_short,
            "undisturbed": self.undisturbed, "own_faults": self.own_faults, "measure": self.measure, "repair_s": self.repair_s, "limit_s": self.limit_s,
            "moments_s": self.moments_s, "runs": self.runs, "done": self.done, "sampled": [asdict(one) for one in self.sampled],
            "things": [row.as_json() for row in self.worst_first()],
        }  # fmt: skip

    def table(self) -> Iterator[Sequence[object]]:
        """A line for each run, the worst thing first; below the names of the columns."""
        yield (
            "rank", "thing", "kind", "lives_there", "at_s", "failed", "lost_s", "loss_change", "accuracy_change", "updates_lost",
            "updates_fewer", "bit", "digest",
        )  # fmt: skip
        for rank, row in enumerate(self.worst_first(), start=1):
            for _, one in sorted(row.outcomes.items()):
                thing = row.thing
                yield (
                    rank, thing.name, thing.kind, " ".join(thing.lives_there), one.at_s, one.failed, one.lost_s, one.loss_change,
                    one.accuracy_change, one.updates_lost, one.updates_fewer, json.dumps(one.bit), one.digest,
                )  # fmt: skip
