"""Durable storage in virtual time: what is written is there once the disk has had the time for it.

A `Disk` holds what one role has kept in one place, and outlives lives and runs of machines; a `DiskStore` is one life's use
of it.  The first use by a later life fences the earlier ones.  A process that crashes loses what was under way, all of it;
what a paused one has begun goes on without it, since that is the disk's work, and only the news of it waits.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from core.messages import Entry, Push
from core.node import Fenced, Kept, StoreFailed
from sim.device import Machine
from sim.loop import Event, Future, Life, SimLoop


@dataclass(slots=True)
class Disk:
    """What one role has kept."""

    life: int = 0
    """The life that may write."""
    text: str = "null"
    """The manifest, as JSON."""
    position: int = 0
    """Of the last entry that the snapshot holds."""
    vectors: dict[str, Any] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    """After the snapshot, in order."""

    @property
    def manifest(self) -> dict[str, Any] | None:
        """The reader's own."""
        manifest: dict[str, Any] | None = json.loads(self.text)
        return manifest

    def nbytes(self) -> int:
        return size_of(self.vectors) + length_of(self.entries)

    def keep(self, manifest: str, position: int, vectors: dict[str, Any]) -> None:
        """A new snapshot, of copies: from now on its maker may change what it is of."""
        self.text, self.position = manifest, position
        self.vectors = {name: vector.clone() for name, vector in vectors.items()}
        self.entries = [entry for entry in self.entries if entry.number > position]

    def add(self, entries: Sequence[Entry]) -> None:
        """Entries that follow those there are; a snapshot that was begun later may hold some of them already."""
        self.entries += [copied(entry) for entry in entries if entry.number > self.position]

    def kept(self) -> Kept:
        return Kept(self.manifest, {name: vector.clone() for name, vector in self.vectors.items()}, self.following())

    def following(self) -> Iterator[Entry]:
        return (copied(entry) for entry in tuple(self.entries))


@dataclass(slots=True, eq=False)
class Operation:
    """Something the disk is to do: how many bytes that moves, what is then so, and who is to hear of it."""

    nbytes: Callable[[], int]
    effect: Callable[[], Any]
    writes: bool
    future: Future


class Stretch(Event):
    """One stretch of an operation at an unchanging speed."""

    __slots__ = ("store",)

    def __init__(self, store: DiskStore) -> None:
        self.store = store

    def __call__(self) -> None:
        if self.store.running is self:
            self.store.done()


class DiskStore:
    """`core.node.Store` on a simulated disk, for one life of a role; one operation after another."""

    def __init__(self, life: Life, disk: Disk, machine: Machine, payload_scale: float) -> None:
        """`payload_scale`: declared bytes for each byte of a real vector."""
        self.life, self.disk, self.machine, self.payload_scale = life, disk, machine, payload_scale
        self.loop: SimLoop = life.loop
        self._operations: deque[Operation] = deque()
        """The first is under way."""
        self.running: Stretch | None = None
        self._left_s = self._since = 0.0
        """What is left of it, on a healthy disk; since when that is so."""
        self._slowness = 1.0

    def read(self) -> Future:
        return self._begin(self.disk.nbytes, self.disk.kept, writes=False)

    def write(self, manifest: dict[str, Any], vectors: dict[str, Any]) -> Future:
        return self._write(json.dumps(manifest), manifest["position"], vectors)

    def _write(self, manifest: str, position: int, vectors: dict[str, Any]) -> Future:
        """The vectors alone weigh anything."""
        return self._begin(lambda: size_of(vectors), lambda: self.disk.keep(manifest, position, vectors))

    def append(self, entries: Sequence[Entry]) -> Future:
        return self._begin(lambda: length_of(entries), lambda: self.disk.add(entries))

    def _begin(self, nbytes: Callable[[], int], effect: Callable[[], Any], *, writes: bool = True) -> Future:
        """The future of an operation; of a life that is over it never ends."""
        operation = Operation(nbytes, effect, writes, self.loop.create_future())
        if self.life.up:
            self.disk.life = max(self.disk.life, self.life.incarnation)
            self._operations.append(operation)
            if len(self._operations) == 1:
                self._go()
        return operation.future

    def _go(self) -> None:
        machine = self.machine
        self._left_s = self._operations[0].nbytes() * self.payload_scale / machine.disk_bytes_per_s
        machine.storing.append(self)
        self.retime()

    def retime(self) -> None:
        """Time what is left at the present speed: call after the speed has changed."""
        self._since, self._slowness = self.loop.env.now, self.machine.disk_slowness
        self.running = Stretch(self)
        self.loop.after(self._left_s * self._slowness, self.running)

    def settle(self) -> None:
        """Deduct what has been done since the last look: call before the speed changes."""
        elapsed_s = self.loop.env.now - self._since
        self._left_s = max(0.0, self._left_s - elapsed_s / self._slowness)
        self.machine.account_disk(elapsed_s)

    def done(self) -> None:
        """The disk has had its time; its effect and its end are of one moment, and nothing is acknowledged after a fence."""
        if self.machine.slow_disk:
            self.settle()
        self.running = None
        self.machine.storing.remove(self)
        if not self.life.up:
            return
        operation = self._operations.popleft()
        fenced = self.disk.life > self.life.incarnation
        full = operation.writes and bool(self.machine.full_disk)
        result = None if fenced or full else operation.effect()
        if operation.future.done():
            pass  # whoever asked has been cancelled
        elif fenced:
            reason = f"the store of {self.life.name} belongs to life {self.disk.life} by now; this is {self.life.incarnation}"
            operation.future.set_exception(Fenced(reason))
            operation.future.exception()  # that nobody waits for it is nobody's error
        elif full:
            for cause in self.machine.full_disk:
                cause.bit["writes failed"] += 1
            operation.future.set_exception(StoreFailed(f"the store of {self.life.name} on {self.machine.name}: no space left on device"))
            operation.future.exception()
        else:
            operation.future.set_result(result)
        if self._operations:
            self._go()


def size_of(vectors: dict[str, Any]) -> int:
    return sum(vector.nbytes for vector in vectors.values())


def length_of(entries: Sequence[Entry]) -> int:
    """Bytes of a log of these entries."""
    return sum(entry.change.payload.nbytes for entry in entries if entry.change.payload is not None)


def copied(entry: Entry) -> Entry:
    """With a gradient of its own."""
    if isinstance(entry.change, Push):
        return replace(entry, change=replace(entry.change, gradient=entry.change.gradient.clone()))
    return entry
