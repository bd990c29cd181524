"""A peer's nonsense: what can be wrong with a message, and what every text and name in one must be like."""

from __future__ import annotations

import enum
import re

ROLE = re.compile(r"[a-z][a-z-]{0,40}(/[0-9]{1,9}){0,2}")
TEXT_LIMIT = 1000
"""Characters of a reason; one is a line of the journal at most."""


class Fault(enum.StrEnum):
    """What can be wrong with a message, as far as anybody counts it."""

    UNDECODABLE = "undecodable"
    MISADDRESSED = "misaddressed"
    DTYPE = "dtype"
    OVERSIZED = "oversized"
    SHORT = "short"
    SURPLUS = "surplus"
    UNEVEN = "uneven chunks"
    BROKEN = "broken off"
    NOT_MAPPED = "a ticket for nothing"
    STRANGER = "no fitting certificate"
    DECLINED = "declined by the server"


class Malformed(Exception):
    """What kind of nonsense, and in words."""

    def __init__(self, fault: Fault, reason: str) -> None:
        super().__init__(reason)
        self.fault, self.reason = fault, reason


def check_text(*texts: str) -> None:
    """A peer's texts may end up in the journal, which a tab or a line end would break.  Raises Malformed."""
    for text in texts:
        if len(text) > TEXT_LIMIT or not text.isprintable():
            raise Malformed(Fault.UNDECODABLE, f"a text of {len(text)} characters, too long or not all printable")


def check_role(name: str, life: int) -> None:
    """Raises Malformed."""
    if not ROLE.fullmatch(name):
        raise Malformed(Fault.UNDECODABLE, f"{fit(name)!r} is no role")
    if life < 1:
        raise Malformed(Fault.UNDECODABLE, f"life {life} of {name}: lives count from 1")


def fit(text: str) -> str:
    """Any text as `check_text` takes it."""
    return "".join(character if character.isprintable() else " " for character in text[:TEXT_LIMIT])
