"""The head: the machine on which the supervisor lives, one life after another.

No fault is aimed at it by its machine's name; the supervisor itself can be killed, stopped and cut off as anybody else.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from core.job import SUPERVISOR
from core.membership import Membership
from core.node import StoreFailed
from core.placement import NOTHING
from core.supervisor import supervisor
from core.vector import Phantom
from scenarios.plan import roles
from sim.calls import Place
from sim.device import Machine
from sim.host import Host
from sim.loop import Future
from sim.store import DiskStore

if TYPE_CHECKING:
    from sim.cluster import Cluster
    from sim.faults import Injected

START_WITHIN_S = 60.0
"""Besides what a process takes to start up: as `exec.start_within`."""


class Ledger(Membership):
    """The supervisor's, which lets the world know when the job is over."""

    on_over: Callable[[], None]

    def enter(self, phase: str) -> None:
        super().enter(phase)
        if phase == "over":
            self.on_over()


class LedgerStore(DiskStore):
    """The supervisor's: what it keeps is its manifest, so that is what the disk has to write."""

    def write(self, manifest: dict[str, Any], vectors: dict[str, Any]) -> Future:
        ledger = json.dumps(manifest)
        return self._write(ledger, manifest["position"], vectors | {"ledger": Phantom(len(ledger), 1)})


class Head:
    """Where the supervisor is."""

    def __init__(self, cluster: Cluster, machine: Machine) -> None:
        self.cluster, self.machine, self.place = cluster, machine, Place(SUPERVISOR, machine)
        self.lives = 0
        self.host: Host | None = None
        """Of its present life."""
        self.membership: Ledger | None = None
        """Of its latest."""

    def begin(self) -> None:
        """A life of the supervisor begins, on what the one before made durable."""
        self.lives += 1
        cluster, self.host = self.cluster, self.cluster.host(SUPERVISOR, self.lives, self.place)
        wanted = roles(cluster.plan.scenario, real=cluster.real)
        for role in wanted:
            role.needs, role.machine = NOTHING, cluster.home(role.name).name
        self.membership = Ledger(
            wanted, cluster.plan.job.timings, now=self.host.now, record=self.host.record, life=self.lives,
            start_within_s=START_WITHIN_S + 2 * cluster.plan.scenario.cluster.start_up.mean_s, needed=cluster.plan.scenario.protocol.needed_replicas,
        )  # fmt: skip
        self.membership.on_over = self.over
        cluster.record("started", SUPERVISOR, self.lives, note=self.machine.name)
        cluster.accounts.begins(SUPERVISOR, self.machine.name, self.host.account, cluster.now())
        cluster.toll.back(SUPERVISOR)
        cluster.clocks.back(SUPERVISOR)
        self.host.life.start(supervisor(self.host, self.membership))
        self.host.life.exited.add_done_callback(self.exited, context=contextvars.Context())

    def exited(self, exited: asyncio.Future[Any]) -> None:
        """It has come to its end by itself: only when everything is over, or its disk is."""
        error = exited.exception()
        if error is not None and not isinstance(error, StoreFailed):
            raise error
        if error is not None:
            self.cluster.fail(str(error))

    def crash(self, fault: Injected, repair_s: float) -> None:
        if self.host is None:
            return
        self.cluster.toll.felled(SUPERVISOR, self.host, fault)
        host, self.host = self.host, None
        fault.bit["calls cut off"] += self.cluster.close(host)
        self.cluster.record("crashed", SUPERVISOR, host.incarnation, note=fault.name)
        self.cluster.at(self.cluster.now() + repair_s + self.cluster.start_up_s(SUPERVISOR, self.lives + 1), self.begin)

    def over(self) -> None:
        """The ledger says that the job is."""
        assert self.membership is not None
        if self.membership.verdict == "done":
            self.cluster.finish()
        else:
            self.cluster.fail(self.membership.reason)

    def conclude(self, reason: str) -> None:
        """The job has failed for a reason that the supervisor cannot see."""
        if self.host is None or self.membership is None:
            self.cluster.fail(reason)
        else:
            self.host.life.context.run(self.membership.conclude, "failed", reason)

    def missing(self) -> str:
        """Who is not there, and why, as far as the supervisor knows."""
        assert self.membership is not None
        rows = [row for row in self.membership.overview().roles if row.state not in ("up", "ended")]
        return "; ".join(f"{row.name}: {row.state}{f', {row.note}' if row.note else ''}" for row in rows[:5]) or "nobody is missing"
