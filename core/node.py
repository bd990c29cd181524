"""The only door out of the core: what a protocol may ask of the world it runs in.

`sim/host.py` and `exec/host.py` each provide one implementation.  A driver (`async def`) is handed a `Node`; a server
(`handle`) is called by its host, which charges the cost, makes the record durable, and only then sends the reply.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from core.messages import Entry, Reply, Request, Sender
from core.work import Cost, Work

R = TypeVar("R")


class Recorder(Protocol):
    """Write one line of the journal, stamped with this node's name, life and time.  `core/journal.py` has the legend."""

    def __call__(self, event: str, peer: str = "", number: int = 0, value: float = 0.0, note: str = "") -> None: ...


class StoreFailed(Exception):
    """Durable storage cannot be read or written; the message names the place and the cause."""


class Fenced(StoreFailed):
    """A later life of the role has opened its store: this one may write nothing more."""


@dataclass(slots=True, eq=False)
class Kept:
    """What a store holds: the last snapshot, and the entries appended after it, in order.

    `manifest` is None where there has been no snapshot.  `entries` is read while it is iterated over, once.
    """

    manifest: dict[str, Any] | None = None
    vectors: dict[str, Any] = field(default_factory=dict)
    entries: Iterable[Entry] = ()


class Store(Protocol):
    """A role's durable storage.  What a future that is done says is written outlives every crash; the rest may be gone.

    A store belongs to one life of its role.  The first thing done with it, in whatever order, makes everything that earlier
    lives still try to write fail with Fenced.  Futures end with StoreFailed where the storage is full, gone or corrupted.
    """

    def read(self) -> asyncio.Future[Kept]:
        """What earlier lives left, or this one so far."""

    def write(self, manifest: dict[str, Any], vectors: dict[str, Any]) -> asyncio.Future[None]:
        """Make this the snapshot, whole or not at all.

        `manifest` is JSON, with a whole number under "position": entries up to that number are in the snapshot, and need not
        be kept once it is durable.  Nothing in `vectors` changes until then.  One at a time.
        """

    def append(self, entries: Sequence[Entry]) -> asyncio.Future[None]:
        """Add entries to the log, all of them or a first part of them, and sync them together.  One at a time."""


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
    @property
    def store(self) -> Store: ...
    def now(self) -> float:
        """Seconds since the job began."""

    def call(self, peer: str, request: Request[R]) -> asyncio.Future[R]:
        """Ask a peer.  The future ends with its reply, or with Unreachable, TimedOut or Refused; the deadline is the host's."""

    def tell(self, peer: str, request: Request[Any]) -> None:
        """Send a peer what it need not answer.  It may get lost, of which nobody hears; its payload does not change any more."""

    def compute(self, work: Work[R]) -> asyncio.Future[R]:
        """Have this node's device do the work; one at a time."""

    def serve(self, server: Server) -> str:
        """Answer calls with this server from here on; the address at which others reach it."""

    def introduce(self, peer: str, life: int, address: str) -> None:
        """That life of a peer is at this address from now on; calls under way to an earlier one end with Unreachable."""


NOTHING = Cost()


@dataclass(slots=True, eq=False)
class Outcome:
    """What a server decided about one request.

    The host charges `cost`, waits for `durable` where given, and then sends `reply`, which does not change any more.  A
    `durable` that fails means that nobody may be told: the caller's call ends with Unreachable.
    """

    reply: Reply
    cost: Cost = NOTHING
    durable: asyncio.Future[None] | None = None


class Server(Protocol):
    """Whoever serves: one call at a time, never awaiting, hence atomic.

    A request's payload may be read until its reply is sent, and no longer: the caller writes there again.
    """

    def handle(self, request: Request[Any], sender: Sender) -> Outcome: ...
