"""A piece of a file, from an agent to the supervisor: see `exec/relaying.py`."""

from __future__ import annotations

from dataclasses import dataclass, field

from core.messages import Reply, Request

PIECE_LIMIT = 512 << 10


@dataclass(slots=True, eq=False)
class Relayed(Reply):
    """It is written."""

    size_bytes: int


@dataclass(slots=True, eq=False)
class Relay(Request[Relayed]):
    """`path` is relative to the run folder."""

    path: str
    offset: int
    data: bytes = field(repr=False)
