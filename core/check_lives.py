"""What must hold of lives: who may begin, who has begun, and whose life is over (rules of `core/checks.py`)."""

from __future__ import annotations

from core.check_facts import Facts
from core.job import SUPERVISOR, unit_of
from core.journal import Record

RULES: dict[str, str] = {
    "the dead are silent": "a life that crashed records nothing more",
    "lives are granted once": "a life begins once, after it was granted, and is not granted again afterwards",
}


class LifeRules:
    """Of every role, as supervisor and cluster tell of it."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.started: dict[tuple[str, int], int] = {}

    def heard(self, line: int, record: Record) -> None:
        """Does it live that writes?"""
        if (fatal := self.facts.crashed.get((record.node, record.life))) is not None and self.facts.one_clock:
            self.facts.broken("the dead are silent", f"{record.node}#{record.life} {record.event} after it crashed", fatal, line)

    def on_granted(self, line: int, record: Record) -> None:
        key = record.peer, record.number
        if key in self.started and self.facts.one_clock:
            self.facts.broken("lives are granted once", f"{key[0]}#{key[1]} is granted and has begun", self.started[key], line)
        self.facts.granted.setdefault(key, line)
        if (unit := unit_of(record.peer)) != record.peer:
            self.facts.units.setdefault(unit, set()).add(record.peer)

    on_promoted = on_granted

    def on_started(self, line: int, record: Record) -> None:
        key = record.peer, record.number
        if key in self.started:
            self.facts.broken("lives are granted once", f"{key[0]}#{key[1]} begins again", self.started[key], line)
        elif key not in self.facts.granted and key[0] != SUPERVISOR:
            self.facts.broken("lives are granted once", f"{key[0]}#{key[1]} begins and was not granted", line)
        self.started[key] = line

    def on_crashed(self, line: int, record: Record) -> None:
        if record.number:
            self.facts.crashed.setdefault((record.peer, record.number), line)
