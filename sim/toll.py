"""What the faults cost: processes, computations, time without a role, and updates that no surviving shard is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.journal import Journal
from core.shard import Shard
from sim.host import Host

if TYPE_CHECKING:
    from sim.cluster import Cluster
    from sim.faults import Injected


@dataclass(slots=True)
class Felled:
    """The last life of a role that a fault took."""

    fault: Injected
    since_s: float | None
    """None once it is back."""
    updates: int | None
    """At which it stood; None if it is no shard, or its next life has said what it begins with."""


class Toll:
    """Kept for the summary: the fault that took a life pays until the next one is there."""

    def __init__(self, cluster: Cluster, journal: Journal) -> None:
        self.cluster = cluster
        self._felled: dict[str, Felled] = {}
        self._durable: dict[str, int] = {}
        journal.watch("persisted", self._persisted)
        journal.watch("restored", self._restored)

    def felled(self, role: str, host: Host | None, fault: Injected) -> None:
        """That fault kills the process of a role; `host` is its present life, if it was up already."""
        fault.bit["processes"] += 1
        if host is None:
            return
        if host.device.running is not None:
            fault.bit["computations lost"] += 1
        if host in (self.cluster.hosts.get(role), self.cluster.head.host):  # not one that has a successor already
            updates = host.server.updates if isinstance(host.server, Shard) else None
            self._felled[role] = Felled(fault, self.cluster.now(), updates)

    def back(self, role: str) -> None:
        """A new life of that role begins."""
        felled = self._felled.get(role)
        if felled is not None and felled.since_s is not None:
            felled.fault.bit["seconds down"] += self.cluster.now() - felled.since_s  # type: ignore[assignment]
            felled.since_s = None

    def _persisted(self, _time_s: float, node: str, _life: int, _event: str, _peer: str, number: int, *_: object) -> None:
        self._durable[node] = number

    def _restored(self, _time_s: float, node: str, _life: int, _event: str, _peer: str, number: int, *_: object) -> None:
        felled = self._felled.pop(node, None)
        if felled is not None and felled.updates is not None:
            felled.fault.bit["updates lost"] += max(0, felled.updates - number)

    def surviving(self) -> int:
        """Of how many updates the shards' parameters are made; of one that is down, those that are durable."""
        shards = {shared.name: self.cluster.shard(shared.name) for shared in self.cluster.plan.job.shards}
        return sum(shard.updates if shard is not None else self._durable.get(name, 0) for name, shard in shards.items())

    def report(self) -> None:
        """The run is over: whoever is not back pays up to now."""
        for role, felled in self._felled.items():
            if felled.since_s is not None:
                felled.fault.bit["seconds down, still"] += self.cluster.now() - felled.since_s  # type: ignore[assignment]
            if felled.updates is not None:
                felled.fault.bit["updates lost"] += felled.updates - self._durable.get(role, 0)
        self._felled.clear()
