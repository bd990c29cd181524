"""What passes between one replica and one shard: at most one push and one fetch in flight, gradients accrue meanwhile.

Shards are independent (paper, section 4.1), so each has a lane of its own: a slow or lost shard delays nobody else's
updates.  The driver looks at its lanes between minibatches, which is the only time at which parameters may change under it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from core.job import Job, Shared
from core.messages import Accepted, CallFailed, Fetch, Finished, Join, Parameters, Push, Request
from core.node import Node
from core.vector import narrowed
from core.work import Gradient

R = TypeVar("R")

FIRST_PAUSE, LONGEST_PAUSE = 1 / 16, 2.0
"""Of the deadline: the pause before the first repetition, doubled each time, and its limit."""


async def ended(future: asyncio.Future[Any]) -> None:
    """Wait until it has its result, or has failed.  `asyncio.wait` takes four times as long for one."""
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(_: asyncio.Future[Any]) -> None:
        if not over.done():  # else whoever waits has been cancelled
            over.set_result(None)

    future.add_done_callback(end)
    await over


class Flight(Generic[R]):
    """One request on its way to one peer, repeated unchanged until it is answered.

    A timeout says nothing about whether the request was carried out, so what is repeated must be the very same request.
    Pauses grow and are drawn from the node's stream, so that a crowd does not come back in step.
    """

    __slots__ = ("attempts", "deadline_s", "future", "node", "pausing", "peer", "request")

    def __init__(self, node: Node, peer: str, request: Request[R], deadline_s: float) -> None:
        self.node, self.peer, self.request = node, peer, request
        self.deadline_s, self.pausing, self.attempts = deadline_s, False, 1
        self.future: asyncio.Future[Any] = node.call(peer, request)

    def landed(self) -> R | None:
        """The reply, once there is one; begins the next attempt when its time has come.  Raises Refused."""
        if not self.future.done():
            return None
        if self.pausing:
            self.pausing, self.attempts = False, self.attempts + 1
            self.future = self.node.call(self.peer, self.request)
            return None
        try:
            return self.future.result()  # type: ignore[no-any-return]
        except CallFailed as failure:
            pause_s = self.deadline_s * min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self.attempts - 1, 16))
            pause_s *= 0.5 + self.node.random.random()
            self.node.record("repeated", self.peer, self.attempts, pause_s, f"{type(failure).__name__} {type(self.request).__name__}")
            self.future, self.pausing = asyncio.ensure_future(asyncio.sleep(pause_s)), True
            return None

    async def arrival(self) -> R:
        """Wait for the reply, however often it takes."""
        while (reply := self.landed()) is None:
            await ended(self.future)
        return reply


async def arrivals(flights: Sequence[Flight[R]]) -> list[R]:
    """All replies, in that order.  One that fails is repeated once the last has come, or failed: one deadline later at most.

    A task for each, as of `arrival`, would take twice the time of sending and receiving twenty small messages; and who waits for the last
    alone is woken once, for replies mostly come in the order of the requests.
    """
    while waiting := [flight for flight in flights if flight.landed() is None]:
        await ended(waiting[-1].future)
    return [reply for flight in flights if (reply := flight.landed()) is not None]


class Lane:
    """A replica's side of its traffic with one shard."""

    __slots__ = (
        "_fetch",
        "_fetching",
        "_mine",
        "_pushing",
        "_wire",
        "accrued",
        "based_on",
        "deadline_s",
        "fetched_updates",
        "finished",
        "gradients",
        "node",
        "part",
        "samples",
        "sequence",
        "shard",
        "steps_since_fetch",
    )

    def __init__(self, node: Node, shared: Shared, job: Job) -> None:
        self.node, self.shard, self.part, self.deadline_s = node, shared.name, shared.part, job.deadline_s
        self.finished, self._wire = "", job.wire
        self.sequence = 0
        self.accrued: Any = None
        self.gradients = self.samples = self.based_on = self.fetched_updates = self.steps_since_fetch = 0
        self._pushing: Flight[Accepted | Finished] | None = None
        self._fetching: Flight[Parameters] | None = None
        self._mine: Any = None
        self._fetch = Fetch()

    def bind(self, parameters: Any) -> None:
        """Fetches are installed in this lane's slice of these, the replica's own parameters."""
        self._mine = parameters[self.part]
        self._fetch = Fetch(into=narrowed(self._mine, self._wire))  # where one arrives while computation reads the current slice

    async def join(self) -> None:
        """Announce this life to the shard, so that earlier ones are refused from now on."""
        progress = await Flight(self.node, self.shard, Join(), self.deadline_s).arrival()
        self.node.record("joined", self.shard, progress.updates)

    def fetch(self) -> None:
        """Begin an asynchronous fetch, unless one is in flight already."""
        if self._fetching is None:
            self._fetching = Flight(self.node, self.shard, self._fetch, self.deadline_s)

    async def fetched(self) -> None:
        """Wait until the fetch in flight has landed and is installed."""
        while self._fetching is not None:
            await ended(self._fetching.future)
            self.install()

    def install(self) -> None:
        """Copy a fetched slice into the replica's parameters, if one has landed."""
        if self._fetching is None:
            return
        reply = self._fetching.landed()
        if reply is None:
            return
        self._fetching = None
        self.steps_since_fetch = 0
        self.fetched_updates = reply.progress.updates
        self.finished = self.finished or reply.progress.finished
        self._mine.copy_(reply.vector)

    def accrue(self, gradient: Gradient) -> None:
        """Add this shard's slice of a gradient to what the next push will carry."""
        mine = gradient.vector[self.part]
        if not self.gradients:
            self.based_on = self.fetched_updates
        if self.accrued is None:
            self.accrued = mine.clone()
        else:
            self.accrued.add_(mine)
        self.gradients += 1
        self.samples += gradient.samples
        self.steps_since_fetch += self._fetching is not None

    def push(self) -> None:
        """Begin an asynchronous push of what has accrued, unless one is in flight; then it accrues on."""
        self.settle()
        if self._pushing is not None or not self.gradients or self.finished:
            return
        self.sequence += 1
        push = Push(self.sequence, self.to_send(), self.gradients, self.samples, self.based_on)
        self.gradients = self.samples = 0
        self.node.record("pushed", self.shard, push.sequence, push.gradients)
        self._pushing = Flight(self.node, self.shard, push, self.deadline_s)

    def to_send(self) -> Any:
        """What has accrued, as it goes over the wire.  What a shorter type cannot say stays, for the next push to carry:
        error feedback (Seide et al., Interspeech 2014; Karimireddy et al., ICML 2019).
        """
        if self._wire == "float32":
            sent, self.accrued = self.accrued, None
        else:
            sent = narrowed(self.accrued, self._wire)
            self.accrued.add_(sent, alpha=-1)
        return sent

    async def drain(self) -> None:
        """Push what has accrued, and wait until the shard has it."""
        self.push()
        while self._pushing is not None:
            await ended(self._pushing.future)
            self.push()

    def settle(self) -> None:
        """Take note of what became of the push in flight."""
        if self._pushing is None:
            return
        reply = self._pushing.landed()
        if reply is None:
            return
        if isinstance(reply, Accepted):
            self.node.record("acknowledged", self.shard, self.sequence)
        else:
            self.finished = reply.reason
        self._pushing = None

    def behind(self, limit: int) -> bool:
        """Have `limit` gradients accrued behind a push in flight, or as many steps gone by since a fetch began?"""
        return (self.gradients >= limit or self.steps_since_fetch >= limit) and not self.finished

    async def catch_up(self, limit: int) -> None:
        """Wait until this lane is no longer behind."""
        while self._pushing is not None and self.gradients >= limit and not self.finished:
            await ended(self._pushing.future)
            self.push()
        while self._fetching is not None and self.steps_since_fetch >= limit and not self.finished:
            await ended(self._fetching.future)
            self.install()
