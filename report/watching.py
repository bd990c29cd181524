"""Whoever follows a journal: as its records are written, or from a file afterwards; what is learnt is the same."""

from __future__ import annotations

from collections.abc import Iterable

from core.journal import Journal, Record, Watcher


class Watching:
    """Takes the columns of some events, one by one."""

    __slots__ = ()

    @property
    def takers(self) -> dict[str, Watcher]:
        """Who takes which event."""
        raise NotImplementedError

    def attach(self, journal: Journal) -> None:
        """Take every record from now on."""
        for event, taker in self.takers.items():
            journal.watch(event, taker)

    def read(self, records: Iterable[Record]) -> None:
        """Take records that were written before."""
        takers = self.takers
        for record in records:
            if record.event in takers:
                takers[record.event](*record)
