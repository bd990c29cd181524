"""The only door out of the core: what a protocol may ask of the world it runs in.

`sim/host.py` and `exec/host.py` each provide one implementation.  A driver (`async def`) is handed a `Node`; a server
(`handle`) is called by its host, which charges the cost, makes the record durable, and only then sends the reply.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from core.messages import Reply, Request, Sender
from core.work import Cost, Work

R = TypeVar("R")


class Recorder(Protocol):
    """Write one line of the journal, stamped with this node's name, life and time.  `core/journal.py` has the legend."""

    def __call__(self, event: str, peer: str = "", number: int = 0, value: float = 0.0, note: str = "") -> None: ...


class Node(Protocol):
    """One life of a role on some machine."""

    @property
    def name(self) -> str:
        """The role, as "replica/3" or "shard/0"; not a machine."""

    @property
    def incarnation(self) -> int:
        """Which life of the role this is, from 1."""

    @property
    def random(self) -> random.Random:
        """This node's own stream, for jitter."""

    @property
    def record(self) -> Recorder: ...
    def now(self) -> float:
        """Seconds since the job began."""

    def call(self, peer: str, request: Request[R]) -> asyncio.Future[R]:
        """Ask a peer.  The future ends with its reply, or with Unreachable, TimedOut or Refused; the deadline is the host's."""

    def compute(self, work: Work[R]) -> asyncio.Future[R]:
        """Have this node's device do the work; one at a time."""


NOTHING = Cost()


@dataclass(slots=True, eq=False)
class Outcome:
    """What a server decided about one request.

    The host charges `cost`, then sends `reply`; `persist`, where given, is a snapshot to write to durable storage.
    Nothing in `reply` or `persist` changes afterwards.
    """

    reply: Reply
    cost: Cost = NOTHING
    persist: Any = None


class Server(Protocol):
    """Whoever serves: one call at a time, never awaiting, hence atomic."""

    def handle(self, request: Request[Any], sender: Sender) -> Outcome: ...
