"""The supervisor: answers agents, roles and operators out of its ledger, and makes the ledger durable before it does.

It can be killed at any moment.  Its next life reads the ledger, and agents and roles find it at the address they know; the
job has not noticed.
"""

from __future__ import annotations

import asyncio
from typing import Any

from core.membership import Membership
from core.messages import Refusal, Request, Sender
from core.node import Node, Outcome
from core.reports import Beat, Conclude, Inquire, Report


class Supervisor:
    """The server: one life of it."""

    def __init__(self, node: Node, membership: Membership) -> None:
        self.node, self.membership = node, membership
        self._saving: asyncio.Future[None] | None = None
        self._next: asyncio.Future[None] | None = None
        self.changed = asyncio.Event()

    def handle(self, request: Request[Any], sender: Sender) -> Outcome:
        """Carry out one request, atomically."""
        match request:
            case Beat():
                reply: Any = self.membership.beat(sender, request)
            case Report():
                reply = self.membership.report(sender, request)
            case Inquire():
                reply = self.membership.overview()
            case Conclude():
                self.membership.conclude("interrupted", request.reason)
                self.membership.look()
                reply = self.membership.overview()
            case _:
                return Outcome(Refusal(f"a supervisor does not serve {type(request).__name__}"))
        return Outcome(reply, durable=self.saved())

    def saved(self) -> asyncio.Future[None] | None:
        """Ends when everything decided so far is durable; None if it is already."""
        if self.membership.dirty:
            self.membership.dirty = False
            if self._next is None:
                self._next = asyncio.get_running_loop().create_future()
            self.changed.set()
        return self._next or self._saving

    async def save(self) -> None:
        """Write the ledger down whenever it has changed; what changes meanwhile goes into the next writing.

        Raises StoreFailed.
        """
        while True:
            await self.changed.wait()
            self.changed.clear()
            self._saving, self._next = self._next, None
            await self.node.store.write({"position": 0} | self.membership.to_json(), {})
            saving, self._saving = self._saving, None
            if saving is not None and not saving.done():
                saving.set_result(None)

    async def watch(self) -> None:
        """Look after everybody until the job is over and nobody is left."""
        while not self.membership.deserted:
            self.membership.look()
            self.saved()
            await asyncio.sleep(self.membership.timings.look_s)


async def supervisor(node: Node, membership: Membership) -> Membership:
    """One life of the supervisor; ends when the job is over, and every machine has fallen silent.

    Raises StoreFailed when the ledger cannot be written: nothing would be granted any more.
    """
    kept = await node.store.read()
    if kept.manifest is not None:
        membership.restore(kept.manifest)
        node.record("recovered", note=f"{len(membership.roles)} roles, {membership.phase}")
    server = Supervisor(node, membership)
    node.serve(server)
    saving = asyncio.ensure_future(server.save())
    watching = asyncio.ensure_future(server.watch())
    await asyncio.wait([saving, watching], return_when=asyncio.FIRST_COMPLETED)
    if saving.done():
        watching.cancel()
        saving.result()
    if (saved := server.saved()) is not None:
        await asyncio.wait([saved, saving], return_when=asyncio.FIRST_COMPLETED)
    saving.cancel()
    return membership
