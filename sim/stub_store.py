"""A stand-in for `sim/store.py`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from core.messages import Entry
from core.node import Fenced, Kept
from sim.device import Machine
from sim.loop import Future, Life


@dataclass
class Disk:
    life: int = 0
    manifest: Any = None
    vectors: dict[str, Any] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)


class DiskStore:
    def __init__(self, life: Life, disk: Disk, machine: Machine, payload_scale: float) -> None:
        self.life, self.disk, self.machine, self.scale = life, disk, machine, payload_scale

    def _after(self, nbytes, then):
        self.disk.life = max(self.disk.life, self.life.incarnation)
        future = self.life.loop.create_future()

        def done():
            if not self.life.up or future.done():
                return
            if self.disk.life > self.life.incarnation:
                future.set_exception(Fenced("fenced"))
            else:
                future.set_result(then())

        self.life.loop.call_later(nbytes * self.scale / self.machine.disk_bytes_per_s, done)
        return future

    def read(self) -> Future:
        d = self.disk
        n = sum(v.nbytes for v in d.vectors.values()) + sum(e.change.payload.nbytes for e in d.entries if e.change.payload is not None)
        return self._after(n, lambda: Kept(deepcopy(d.manifest), {k: v.clone() for k, v in d.vectors.items()}, list(d.entries)))

    def write(self, manifest, vectors) -> Future:
        manifest = json.loads(json.dumps(manifest))

        def then():
            self.disk.manifest, self.disk.vectors = manifest, dict(vectors)
            self.disk.entries = [e for e in self.disk.entries if e.number > manifest["position"]]

        return self._after(sum(v.nbytes for v in vectors.values()) + len(str(manifest)), then)

    def append(self, entries: Sequence[Entry]) -> Future:
        entries = list(entries)
        return self._after(
            sum(e.change.payload.nbytes for e in entries if e.change.payload is not None), lambda: self.disk.entries.extend(entries)
        )
