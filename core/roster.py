"""Where every role is to be found, and who is told of it.

A role says with each sign of life which version of the roster it knows, and is told what has come since: a state and not a change, so that an
answer that is lost or repeated does no harm.
"""

from __future__ import annotations

from core.job import COORDINATOR, role_kind, unit_of
from core.reports import Member


class Roster:
    """As one life of the supervisor has it."""

    def __init__(self, first: int) -> None:
        """`first`: its first version, beyond all those of earlier lives."""
        self._first = first
        self._members: list[Member] = []
        """In the order in which they came."""
        self._news: dict[tuple[str, int], tuple[Member, ...]] = {}

    @property
    def version(self) -> int:
        return self._first + len(self._members)

    def add(self, member: Member) -> None:
        """Everybody whom it concerns shall hear where this role is now."""
        self._members.append(member)
        self._news.clear()

    def news(self, name: str, known: int) -> tuple[Member, ...]:
        """What has changed since the version that a role knows, of those it has to do with: shards hear of everybody, to
        fence earlier lives, and the coordinator, to give out again what they had; all others of these two, and of their own unit.
        """
        since = known - self._first if known >= self._first else 0
        if since == len(self._members):
            return ()
        unit = unit_of(name)
        key = "" if hears_all(name) else unit if unit != name else "replica", since
        if key not in self._news:  # at the beginning everybody asks the same
            members = {member.name: member for member in self._members[since:]}
            self._news[key] = tuple(
                member for member in members.values()
                if not key[0] or role_kind(member.name) in ("shard", COORDINATOR) or unit_of(member.name) == key[0]
            )  # fmt: skip
        return self._news[key]


def serves(name: str) -> bool:
    """Does that role have an address?"""
    return hears_all(name) or unit_of(name) != name


def hears_all(name: str) -> bool:
    """Is that role told of everybody?"""
    return role_kind(name) in ("shard", "mirror", COORDINATOR)
