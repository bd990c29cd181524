"""A role's side of membership: its signs of life, and what the supervisor answers them with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from core.job import SUPERVISOR
from core.node import Node
from core.reports import Beat, Member, Standing, Status
from core.timings import Timings


class Outlived(Exception):
    """A later life of this role has been granted: this one has nothing to say any more."""


class Attendance:
    """What one life of a role knows of the job."""

    def __init__(self, node: Node, timings: Timings) -> None:
        self.node, self._beat_s = node, timings.beat_s
        self.address = ""
        """Where this role serves, "" for nowhere."""
        self.status: Callable[[], Status] = Status
        self._members: dict[str, Member] = {}
        self._listeners: list[Callable[[Member], None]] = []
        self.begun, self.concluded = asyncio.Event(), asyncio.Event()
        self.promoted: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """Ends with the life of the shard that this mirror is from then on."""
        self.outlived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._version = 0
        self._beating: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """A sign of life once a beat, whether or not earlier ones were answered.  Raises Outlived."""
        self._beat_again()
        try:
            await self.outlived
        finally:
            if self._beating is not None:
                self._beating.cancel()
        raise Outlived(f"a later life of {self.node.name} than {self.node.incarnation} is up")

    def _beat_again(self) -> None:
        self.beat()
        self._beating = asyncio.get_running_loop().call_later(self._beat_s, self._beat_again)

    def beat(self) -> None:
        """A sign of life now, because there is news."""
        self.node.call(SUPERVISOR, Beat(self.address, self._version, self.status())).add_done_callback(self._answered)

    def _answered(self, call: asyncio.Future[Any]) -> None:
        if not call.cancelled() and call.exception() is None:
            self.learn(call.result())

    def tell(self, listener: Callable[[Member], None]) -> None:
        """It hears of every role that comes or moves, and at once of those that have done so before."""
        self._listeners.append(listener)
        for member in list(self._members.values()):
            listener(member)

    def hear(self, member: Member) -> None:
        """That role is there now."""
        self._members[member.name] = member
        for listener in self._listeners:
            listener(member)

    def learn(self, standing: Standing) -> None:
        """Take in an answer.  One that comes late says nothing new, and nothing that is wrong."""
        if standing.outlived and not self.outlived.done():
            self.outlived.set_result(None)
        if standing.promoted and not self.promoted.done():
            self.promoted.set_result(standing.promoted)
        if standing.version >= self._version:
            for member in standing.members:
                self.node.introduce(member.name, member.life, member.address)
                self.hear(member)
            if standing.begun:
                self._version = standing.version
        if standing.begun:
            self.begun.set()
        if standing.conclude:
            self.concluded.set()
