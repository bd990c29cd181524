"""What must hold in every journal, whatever failed: an oracle that stands outside the system and reads only its record.

    acknowledged  ⊆  applied  ⊆  pushed,  each at most once

A push is identified by (sender, its life, shard, sequence).  Each life of a shard has a *history*, the pushes that its
parameters are made of: it begins with those of the life before that had been kept, the others are lost.  The history of the
latest life is the one that *survives*.  A push that was lost before its sender heard of it is sent again and rightly applied
again, and a life that was given up while it still ran may go on applying what counts for nobody: so "at most once" is said of
each history.

The same rules read a simulated journal and those of real processes.  Where the lines of different nodes were written by
different clocks, give `one_clock=False`: rules that need to know which of two nodes acted first are then left out.

The rules are in four files: of shards, of senders, of portions and steps, and of lives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from core import check_lives, check_portions, check_progress, check_senders, check_shards
from core.check_facts import Facts, PushId, Violation, push_of
from core.check_lives import LifeRules
from core.check_portions import PortionRules
from core.check_progress import stalled
from core.check_senders import SenderRules
from core.check_shards import ShardRules
from core.job import Durability
from core.journal import LEGEND, Record

__all__ = ["RULES", "Findings", "PushId", "Violation", "check", "push_of"]

RULES: dict[str, str] = check_senders.RULES | check_shards.RULES | check_portions.RULES | check_lives.RULES | check_progress.RULES


@dataclass(slots=True)
class Findings:
    """What a journal says: the violations, and of which pushes each shard's parameters are made in the end, in order."""

    violations: list[Violation]
    surviving: dict[str, list[PushId]]
    pushed: dict[PushId, int]
    """Every push that was sent, with its number of gradients."""


def check(
    records: Iterable[Record], *, one_clock: bool = True, durability: Durability | None = None, staged_limit: int | None = None,
    progress: tuple[float, float] | None = None,
) -> Findings:  # fmt: skip
    """Hold every rule against every record; an empty list of violations is a clean bill.

    Of each of these nothing is said where it is left out.  `durability`: what the job promised not to lose.  `staged_limit`: bundles
    that a shard may have staged at once (`core.job.Job.staged_limit`).  `progress`: the second when the last fault had healed, and
    within how many seconds after it, and ever again, there must be progress.
    """
    facts = Facts(one_clock, durability, staged_limit)
    lines = list(enumerate(records, start=1))
    for line, record in lines:
        if record.event == "pushed":
            facts.sent.setdefault(PushId(record.node, record.life, record.peer, record.number), line)
        elif record.event in ("applied", "staged") and not one_clock:
            facts.applied.setdefault(push_of(record), line)
        elif record.event in ("granted", "promoted") and not one_clock:
            facts.granted.setdefault((record.peer, record.number), line)
    lives, shards, senders = LifeRules(facts), ShardRules(facts), SenderRules(facts)
    rules = rules_of(lives, shards, senders, PortionRules(facts))
    for line, record in lines:
        lives.heard(line, record)
        shards.heard(line, record)
        for rule in rules[record.event]:
            rule(line, record)
    shards.at_the_end()
    if progress is not None:
        facts.violations += stalled(lines, *progress)
    return Findings(facts.violations, shards.surviving, senders.gradients)


def rules_of(*subjects: object) -> dict[str, list[Callable[[int, Record], None]]]:
    """What is to be called for each event: of each subject the method that is named after it."""
    return {event: [rule for subject in subjects if (rule := getattr(subject, f"on_{event}", None))] for event in LEGEND}
