"""Will anything more come of this job?  Who looks from outside can know that; a supervisor, who waits for repairs, cannot."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from core.job import role_kind
from core.shard import Shard

if TYPE_CHECKING:
    from sim.cluster import Cluster

DEADLINES = 100
"""Without an update, after which a job counts as stuck; a replica that waits for its turn to start may wait for many."""


class Outlook:
    """Looks now and then, and when somebody is gone for good."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.every_s = cluster, DEADLINES * cluster.plan.job.deadline_s
        self._changes, self._since_s = 0, 0.0

    def begin(self) -> None:
        self.cluster.at(self.cluster.now() + self.every_s, self.look)

    def look(self) -> None:
        """A job that neither changes a shard nor computes anything, with no fault or repair to come, is stuck: say so, and end it."""
        cluster, now = self.cluster, self.cluster.now()
        hosts = list(cluster.living())
        changes = sum(host.server.position for host in hosts if isinstance(host.server, Shard))
        working = any(host.working or host.life.paused for host in hosts)
        to_come = any(now < fault.until_s < math.inf for fault in cluster.faults) or cluster.head.host is None
        repairing = any(now < until_s < math.inf for until_s in cluster.holds.values())
        if changes != self._changes or working or to_come or repairing:
            self._changes, self._since_s = changes, now
        elif now > self._since_s:
            cluster.head.conclude(f"no update since {self._since_s:g} s; {cluster.head.missing()}")
        self.begin()

    def somebody_is_gone(self) -> None:
        """With too few replicas left that may ever start again nothing more is learnt."""
        left = sum(role_kind(name) == "replica" and self.cluster.holds.get(name) != math.inf for name in self.cluster.roles)
        if left < self.cluster.plan.scenario.protocol.needed_replicas and not self.cluster.finished:
            self.cluster.head.conclude(f"only {left} replicas are left" if left else "no replica is left")
