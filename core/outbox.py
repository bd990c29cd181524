"""What one machine of a replica sends to the others: words, until they are there, and states and gradients, which nobody acknowledges.

These are kept until the round is over, since whoever has waited for one for long asks for it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from core.lane import Flight
from core.messages import Accepted, CallFailed, Refused, Request
from core.node import Node
from core.passing import Overdue, Pass


class Outbox:
    """Of one life of one machine of a replica."""

    def __init__(self, node: Node, deadline_s: float, turned_away: Callable[[Refused], None]) -> None:
        """`turned_away`: is told when another machine says that it lives a later life."""
        self.node, self.deadline_s, self.turned_away = node, deadline_s, turned_away
        self._told: list[tuple[str, Pass]] = []
        self._sending: set[asyncio.Future[Any]] = set()
        self._repeating: set[asyncio.Task[None]] = set()

    def tell(self, peer: str, crossing: Pass) -> None:
        """Have it arrive, if need be by being asked for it again."""
        self._told.append((peer, crossing))
        self.node.tell(peer, crossing)

    def again(self, overdue: Overdue, peer: str) -> None:
        """Another machine has waited for long: what it was told may be lost.  What has not been computed yet it will be told.

        Once more, for it will ask once more: what is only slow to come would else be sent ever more often, and be ever slower.
        """
        asked = {("up", number) for number in overdue.up} | {("down", number) for number in overdue.down}
        for to, told in self._told:
            if to == peer and told.round == overdue.round and (told.phase, told.message) in asked:
                self.node.tell(peer, told)

    def forget(self) -> None:
        """All that was told has come."""
        self._told.clear()

    def ask(self, peer: str, overdue: Overdue) -> None:
        """Once: it is asked again as long as it is overdue."""
        self.node.call(peer, overdue).add_done_callback(self.failed)

    def send(self, peer: str, request: Request[Any]) -> None:
        """Have it arrive, however often that takes."""

        def answered(call: asyncio.Future[Any]) -> None:
            self._sending.discard(call)
            if self.failed(call):
                task = asyncio.ensure_future(self.repeat(peer, request))
                self._repeating.add(task)
                task.add_done_callback(self._repeating.discard)

        call = self.node.call(peer, request)
        self._sending.add(call)
        call.add_done_callback(answered)

    async def sent(self) -> None:
        """Wait for what becomes of the words that are under way: whoever ends breaks them off."""
        if self._sending:
            await asyncio.wait(self._sending)

    def failed(self, call: asyncio.Future[Any]) -> bool:
        """Is it worth repeating?"""
        if call.cancelled():
            return False
        error = call.exception()
        if isinstance(error, Refused):
            self.turned_away(error)
            return False
        if error is not None and not isinstance(error, CallFailed):
            raise error
        return error is not None or not isinstance(call.result(), Accepted)

    async def repeat(self, peer: str, request: Request[Any]) -> None:
        """Until it is there, or of no use any more."""
        pause_s = self.deadline_s / 16
        while True:
            await asyncio.sleep(pause_s * (0.5 + self.node.random.random()))
            pause_s = min(2 * pause_s, self.deadline_s)
            try:
                if isinstance(await Flight(self.node, peer, request, self.deadline_s).arrival(), Accepted):
                    return
            except Refused as error:
                self.turned_away(error)
                return
