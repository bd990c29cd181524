"""What an acknowledgement promises, and how a lost shard comes back alone.

    none       nothing: a new life begins with the initial parameters
    snapshot   now and then everything is written to disk; a crash loses what came since
    mirror     a second shard, elsewhere, holds a push before it is acknowledged; a lost shard lives on in it
    log        a push is synced to disk before it is acknowledged

A shard's changes are *entries*, numbered from 1.  They leave it in that order, one batch at a time, and a reply waits for its
entry.  Whoever repeats the entries on the same beginning gets the same parameters to the bit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from core.attendance import Attendance
from core.job import Job, mirror_of, role_number, shard_of
from core.lane import Flight
from core.messages import Accepted, Behind, Copy, Entry, Install, Refusal, Request, Sender
from core.node import Node, Outcome, StoreFailed
from core.reports import Member, Status
from core.rules import Rule
from core.shard import Shard
from core.staging import StagingShard
from core.work import Cost

LOG_LIMIT = 8
"""A log longer than so many snapshots is replaced by a new snapshot: what a restart reads stays bounded."""


class Trail:
    """Entries on their way to where they outlive the shard, in order; what comes while a batch is under way is the next."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Entry, asyncio.Future[None]]] = []
        self._under_way: list[tuple[Entry, asyncio.Future[None]]] = []
        self._more = asyncio.Event()

    def add(self, entry: Entry) -> asyncio.Future[None]:
        """See `core.shard.Trail`."""
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, durable))
        self._more.set()
        return durable

    def settled(self) -> asyncio.Future[None] | None:
        """See `core.shard.Trail`."""
        outstanding = self._waiting or self._under_way
        return outstanding[-1][1] if outstanding else None

    def wake(self) -> None:
        """Have `carry` called even if there is no entry."""
        self._more.set()

    def held_by(self, position: int) -> None:
        """Whatever waits, up to that number, is durable by other means."""
        for entry, durable in self._waiting:
            if entry.number <= position and not durable.done():
                durable.set_result(None)
        self._waiting = [(entry, durable) for entry, durable in self._waiting if entry.number > position]

    async def run(self, carry: Callable[[list[Entry]], Awaitable[None]]) -> None:
        """Carry batch after batch; what `carry` raises ends it."""
        while True:
            await self._more.wait()
            self._more.clear()
            self._under_way, self._waiting = self._waiting, []
            await carry([entry for entry, _ in self._under_way])
            for _, durable in self._under_way:
                if not durable.done():
                    durable.set_result(None)
            self._under_way = []


def kind_of_shard(job: Job) -> type[Shard]:
    """Of the job's protocol."""
    return StagingShard if job.staged_limit else Shard


async def recovered(node: Node, job: Job, initial: Any, rule: Rule, kind: type[Shard] | None = None) -> Shard:
    """A shard as its store has it; one that has kept nothing begins with its slice of `initial`.  Raises StoreFailed.

    `kind`: of shard; left out, the one of the job's protocol.
    """
    kept, kind = await node.store.read(), kind or kind_of_shard(job)
    if kept.manifest is None:
        shard = kind(node, job, initial[job.shards[role_number(node.name)].part].clone(), rule)
    else:
        shard = kind.restored(node, job, rule, kept.manifest, kept.vectors)
    for entry in kept.entries:
        shard.replay(entry)
    if node.incarnation > 1:
        node.record("restored", "", shard.updates)
    return shard


def keeping(node: Node, job: Job, shard: Shard, attendance: Attendance) -> Coroutine[Any, Any, None]:
    """From this call on nothing is acknowledged that is not as durable as was promised, as long as what is returned runs.

    It never ends by itself.  Raises StoreFailed, and Refused when the mirror knows a later life of this shard.
    """
    if job.durability == "snapshot":
        return Snapshots(node, job, shard).run()
    if job.durability == "none":
        return forever()
    shard.trail = trail = Trail()
    if job.durability == "log":
        return trail.run(Log(node, shard).carry)
    mirroring = Mirroring(node, job, mirror_of(node.name), shard, trail)
    attendance.tell(mirroring.heard)
    return trail.run(mirroring.carry)


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def keep_last(node: Node, shard: Shard, *, final: bool) -> None:
    """Write down what there is, whatever was promised: the next life goes on from here.

    `final`: nothing is acknowledged any more.  Where there is no such moment, as in a crash, this does not happen.
    """
    manifest, vectors = shard.snapshot()
    if final:
        shard.trail = Silence()
    try:
        await node.store.write(manifest, vectors)
        node.record("persisted", "", manifest["updates"])
    except StoreFailed as failure:
        node.record("unwritten", "", manifest["updates"], note=str(failure))


class Silence:
    """Nothing that comes now will ever be acknowledged."""

    def add(self, _: Entry) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()

    def settled(self) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()


class Snapshots:
    """Everything is written every `snapshot_every_s`, and when the shard has finished; the shard goes on meanwhile."""

    def __init__(self, node: Node, job: Job, shard: Shard) -> None:
        self.node, self.shard, self.every_s = node, shard, job.snapshot_every_s
        self._finished = asyncio.Event()
        self._written = shard.position
        shard.on_finished = self._finished.set

    async def run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self.every_s):
                    await self._finished.wait()
            except TimeoutError:
                pass  # time for the next one
            self._finished.clear()
            if self.shard.position > self._written:
                await self.write()

    async def write(self) -> None:
        """A disk that is full or gone is no reason to stop: nobody was promised more than the snapshot before."""
        manifest, vectors = self.shard.snapshot()
        try:
            await self.node.store.write(manifest, vectors)
        except StoreFailed as failure:
            self.node.record("unwritten", "", manifest["updates"], note=str(failure))
            return
        self._written = manifest["position"]
        self.node.record("persisted", "", manifest["updates"])


class Log:
    """Every entry is synced before it is acknowledged; a long log is replaced by a snapshot, while it goes on growing."""

    def __init__(self, node: Node, shard: Shard) -> None:
        self.node, self.shard = node, shard
        self._logged_bytes = 0
        self._writing: asyncio.Future[None] | None = None

    async def carry(self, batch: list[Entry]) -> None:
        await self.node.store.append(batch)
        self.node.record("persisted", "", batch[-1].updates)
        self._logged_bytes += sum(entry.change.payload.nbytes for entry in batch if entry.change.payload is not None)
        if self._writing is not None and self._writing.done():
            self._writing.result()
            self._writing = None
        if self._writing is None and self._logged_bytes > LOG_LIMIT * self.shard.nbytes:
            self._logged_bytes = 0
            self._writing = self.node.store.write(*self.shard.snapshot())


class Mirroring:
    """The shard's side of its mirror: first the mirror gets everything, then every entry."""

    def __init__(self, node: Node, job: Job, mirror: str, shard: Shard, trail: Trail) -> None:
        self.node, self.mirror, self.shard, self.trail, self.deadline_s = node, mirror, shard, trail, job.deadline_s
        self._life = self._synced = 0
        """Life of the mirror that this shard has heard of, and of the one that holds everything."""
        self._moved: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Ends when there is another life of it."""

    def heard(self, member: Member) -> None:
        """A new mirror is filled at once, whether or not anybody pushes."""
        if member.name == self.mirror:
            moved, self._moved = self._moved, asyncio.get_running_loop().create_future()
            self._life = member.life
            moved.set_result(None)
            self.trail.wake()

    async def carry(self, batch: list[Entry]) -> None:
        """Until the mirror holds these entries, whichever life of it that is in the end."""
        for entry in batch:
            if not self.full or not isinstance(await self.ask(Copy(entry)), Accepted):
                self._synced = 0
                break
        else:
            if batch:
                self.node.record("persisted", self.mirror, batch[-1].updates, self._synced)
        while not self.full:
            await self.install()

    @property
    def full(self) -> bool:
        """Does the mirror, as far as is known, hold everything that was carried?"""
        return 0 < self._life == self._synced

    async def install(self) -> None:
        """Give the mirror everything there is."""
        while self._life == 0:
            await asyncio.wait([self._moved])
        life, reply = self._life, None
        manifest, vectors = self.shard.snapshot()
        for name, vector in vectors.items():
            reply = await self.ask(Install(manifest, name, vector))
            if reply is None:
                return
        if isinstance(reply, Accepted):
            self._synced = life
            self.node.record("persisted", self.mirror, manifest["updates"], life)
            self.trail.held_by(manifest["position"])

    async def ask(self, request: Request[Any]) -> Any:
        """The mirror's answer, None if there is another life of it meanwhile: one that is gone must not be waited for."""
        flight: Flight[Any] = Flight(self.node, self.mirror, request, self.deadline_s)
        life = self._life
        while (reply := flight.landed()) is None and self._life == life:
            await asyncio.wait([flight.future, self._moved], return_when=asyncio.FIRST_COMPLETED)
        return reply


class Mirror:
    """A shard's second copy: the server of a mirror's life."""

    def __init__(
        self, node: Node, job: Job, rule: Callable[[], Rule], on_synced: Callable[[], None], kind: type[Shard] | None = None
    ) -> None:  # fmt: skip
        self.node, self.job, self.rule, self.on_synced = node, job, rule, on_synced
        self.kind = kind or kind_of_shard(job)
        self.shard: Shard | None = None
        self._life = 0
        """Of the shard that this is the copy of."""
        self._parts: tuple[tuple[int, int], dict[str, Any]] = (0, 0), {}
        """Vectors of a snapshot that is arriving, under its shard's life and position."""

    def handle(self, request: Request[Any], sender: Sender) -> Outcome:
        """Carry out one request, atomically."""
        if sender.name != shard_of(self.node.name) or sender.incarnation < self._life:
            reason = f"this mirror is of {shard_of(self.node.name)}#{self._life}, not of {sender.label}"
            self.node.record("refused", sender.label, note=reason)
            return Outcome(Refusal(reason))
        if isinstance(request, Copy):
            return self.copy(request.entry, sender)
        if isinstance(request, Install):
            return self.install(request, sender)
        return Outcome(Refusal(f"a mirror does not serve {type(request).__name__}"))

    def copy(self, entry: Entry, sender: Sender) -> Outcome:
        if self.shard is None or sender.incarnation != self._life or entry.number > self.shard.position + 1:
            return Outcome(Behind())
        if entry.number <= self.shard.position:
            return Outcome(Accepted(self.shard.updates))
        self.shard.replay(entry)
        return Outcome(Accepted(self.shard.updates), self.shard.cost_of_update)

    def install(self, install: Install, sender: Sender) -> Outcome:
        """Accepted once everything is here, Behind as long as it is not; what comes late changes nothing."""
        key = sender.incarnation, install.manifest["position"]
        if self.shard is not None and self._life == key[0] and self.shard.position >= key[1]:
            return Outcome(Accepted(self.shard.updates))  # a repetition of what is here already
        if key < self._parts[0]:
            return Outcome(Behind())
        if self._parts[0] != key:
            self._parts = key, {}
        parts = self._parts[1]
        parts[install.name] = whole(install.vector)
        cost = Cost(0.0, 2 * install.vector.nbytes)
        if sorted(parts) != install.manifest["vectors"]:
            return Outcome(Behind(), cost)
        self.shard = self.kind.restored(self.node, self.job, self.rule(), install.manifest, parts)
        self._life, self._parts = sender.incarnation, ((0, 0), {})
        self.on_synced()
        return Outcome(Accepted(self.shard.updates), cost)

    def status(self) -> Status:
        return Status(self.shard.updates if self.shard else 0, self.shard.finished if self.shard else "", synced=self.shard is not None)


def whole(vector: Any) -> Any:
    """A vector of one's own, of what was received in pieces or is somebody else's."""
    return vector[0 : len(vector)].clone()
