"""Durable storage in virtual time: what is written takes as long as the disk does, and is there once that is over.

A disk belongs to a machine, or to whatever survives; a store is one life's use of it.  The first use by a later life fences
the earlier ones.  A process that crashes loses what was still on its way; what a paused one has handed over goes on.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.messages import Entry
from core.node import Fenced, Kept
from sim.device import Machine
from sim.loop import Future, Life, SimLoop


@dataclass(slots=True)
class Disk:
    """What one role has kept."""

    life: int = 0
    """The life that may write."""
    manifest: dict[str, Any] | None = None
    vectors: dict[str, Any] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    busy_until_s: float = 0.0

    def keep(self, manifest: dict[str, Any], vectors: dict[str, Any]) -> None:
        self.manifest, self.vectors = copy.deepcopy(manifest), vectors
        self.entries = [entry for entry in self.entries if entry.number > manifest["position"]]

    def add(self, entries: Sequence[Entry]) -> None:
        """A later life may have begun before numbers that an earlier one had appended and told nobody of."""
        self.entries = [entry for entry in self.entries if entry.number < entries[0].number] + list(entries)


class DiskStore:
    """`core.node.Store` on a simulated disk."""

    def __init__(self, life: Life, disk: Disk, machine: Machine, scale: float) -> None:
        """`scale`: declared bytes for each byte of a real vector."""
        self.life, self.disk, self.machine, self.scale = life, disk, machine, scale
        self.loop: SimLoop = life.loop

    def read(self) -> Future:
        self._begin()
        disk = self.disk
        size = sum(v.nbytes for v in disk.vectors.values()) + sum(nbytes(entry) for entry in disk.entries)

        def found() -> Kept:
            position = disk.manifest["position"] if disk.manifest is not None else 0
            vectors = {name: vector.clone() for name, vector in disk.vectors.items()}
            return Kept(copy.deepcopy(disk.manifest), vectors, [entry for entry in disk.entries if entry.number > position])

        return self._after(size, found)

    def write(self, manifest: dict[str, Any], vectors: dict[str, Any]) -> Future:
        self._begin()
        return self._after(sum(v.nbytes for v in vectors.values()), lambda: self.disk.keep(manifest, vectors))

    def append(self, entries: Sequence[Entry]) -> Future:
        self._begin()
        return self._after(sum(nbytes(entry) for entry in entries), lambda: self.disk.add(entries))

    def _begin(self) -> None:
        self.disk.life = max(self.disk.life, self.life.incarnation)

    def _after(self, size_bytes: float, then: Callable[[], Any]) -> Future:
        """One operation of the disk after the other; its effect and its end are of one moment."""
        future, disk = self.loop.create_future(), self.disk
        disk.busy_until_s = max(disk.busy_until_s, self.loop.now()) + size_bytes * self.scale / self.machine.disk_bytes_per_s

        def done() -> None:
            if not self.life.up:
                return
            if disk.life != self.life.incarnation:
                self._end(future, Fenced(f"the store of {self.life.name} belongs to life {disk.life}; this is {self.life.incarnation}"))
            else:
                self._end(future, then())

        self.loop.world(disk.busy_until_s, done)
        return future

    def _end(self, future: Future, result: Any) -> None:
        if future.done():
            return
        if isinstance(result, Exception):
            future.set_exception(result)
            future.exception()
        else:
            future.set_result(result)


def nbytes(entry: Entry) -> float:
    payload = entry.change.payload
    return 0 if payload is None else float(payload.nbytes)
