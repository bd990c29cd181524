"""Will anything more come of this job, and if not, who waits for whom?  Who looks from outside can know that; a supervisor, who waits for
repairs, cannot.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from core.job import SUPERVISOR, role_kind, unit_of
from core.journal import one_line
from core.shard import Shard
from scenarios.units import in_words
from sim.calls import REPLY, REQUEST, SERVED, Call

if TYPE_CHECKING:
    from sim.cluster import Cluster

DEADLINES = 100
"""Without an update, after which a job counts as stuck; a replica that waits for its turn to start may wait for many."""


class Wait(NamedTuple):
    """Somebody waits for somebody."""

    who: str
    for_whom: str
    since_s: float
    what: str

    def __str__(self) -> str:
        waits = self.who if self.who == self.for_whom else f"{self.who} waits for {self.for_whom}"
        return f"{waits} since {in_words(self.since_s)}: {self.what}"

    def to_json(self) -> dict[str, Any]:
        return {"who": self.who, "for": self.for_whom, "since_s": round(self.since_s, 9), "what": self.what}


def waits(cluster: Cluster) -> list[Wait]:
    """Of each role what it has waited for the longest, and of those that are down since when; longest first."""
    found = [Wait(role, role, since_s, "no life of it is up") for role, since_s in cluster.accounts.without() if role in cluster.roles]
    for host in cluster.living():
        if host.life.up and host.name != SUPERVISOR:
            if host.life.paused:
                found.append(Wait(host.name, host.name, host.account.since_s, "it is stopped"))
            elif (call := host.oldest_call()) is not None:
                since_s = (
                    min(call.sent_s, host.account.since_s) if role_kind(host.name) == "replica" else call.sent_s
                )  # a repeated call is younger
                found.append(Wait(host.name, call.to.name, since_s, f"{type(call.request).__name__}, {whereabouts(call)}"))
    return sorted(found, key=lambda wait: (wait.since_s, wait.who))


def whereabouts(call: Call) -> str:
    """Where a call that is not answered is."""
    if call.to.host is None or not call.to.host.life.up:
        return "nobody is there"
    if call.to.host.life.paused:
        return "whose process is stopped"
    if call.stage == REQUEST:
        return "on its way or queued there"
    if call.stage == SERVED and call.addressee.serving is call:
        return "being served"
    return "on its way back" if call.stage == REPLY else "not durable yet"


def in_brief(found: list[Wait], most: int = 5) -> str:
    """For people: those who wait for the same, together."""
    crowds: dict[tuple[str, str], list[Wait]] = defaultdict(list)
    for wait in found:
        crowds[wait.for_whom, wait.what].append(wait)

    def told() -> Iterator[str]:
        for crowd in list(crowds.values())[:most]:
            others = f" (and {len(crowd) - 1} more)" if len(crowd) > 1 else ""
            yield f"{crowd[0]}{others}"

    return "; ".join(told())


class Outlook:
    """Looks now and then, and when somebody is gone for good."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.every_s = cluster, DEADLINES * cluster.plan.job.deadline_s
        self._changes, self._since_s, self._told = 0, 0.0, ""

    def begin(self) -> None:
        self.cluster.at(self.cluster.now() + self.every_s, self.look)

    def look(self) -> None:
        """A job that neither changes a shard nor computes anything, with no fault or repair to come, is stuck: say so, and end it.

        One that merely makes no progress is told of, with who waits for whom.
        """
        cluster, now = self.cluster, self.cluster.now()
        hosts = list(cluster.living())
        changes = sum(host.server.position for host in hosts if isinstance(host.server, Shard))
        working = any(host.working or host.life.paused for host in hosts)
        to_come = any(now < fault.until_s < math.inf for fault in cluster.faults) or cluster.head.host is None
        repairing = any(now < until_s < math.inf for until_s in cluster.holds.values())
        stands_still = changes == self._changes
        told = in_brief(found := waits(cluster)) if stands_still and now > self._since_s else ""
        if told and told != self._told:
            cluster.record("stalled", number=len(found), value=self._since_s, note=one_line(told))
            self._told = told
        if not stands_still or working or to_come or repairing:
            self._changes, self._since_s = changes, now
        elif now > self._since_s:
            missing = "; ".join(filter(None, (cluster.head.missing(), told)))
            cluster.head.conclude(f"no shard that is up has more updates than at {self._since_s:g} s; {missing}")
        self.begin()

    def somebody_is_gone(self) -> None:
        """With too few replicas left that may ever start again nothing more is learnt."""
        replicas = [name for name in self.cluster.roles if role_kind(name) == "replica"]
        left = len({unit_of(name) for name in replicas} - {unit_of(name) for name in replicas if self.cluster.holds.get(name) == math.inf})
        if left < self.cluster.plan.scenario.protocol.needed_replicas and not self.cluster.finished:
            self.cluster.head.conclude(f"only {left} replicas are left" if left else "no replica is left")
