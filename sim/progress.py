"""The line that shows how far a simulation is: virtual time, messages a second, the share that is done, and the expected end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from report.progress import Rate, left_s
from scenarios.protocols import Synchronous
from scenarios.units import in_words

if TYPE_CHECKING:
    from sim.run import Run

PATIENCE_S = 2.0
"""A run that takes no longer is over before anybody has read the line."""
WINDOW_S = 10.0
"""Over which rates are taken: a job's parts are not all equally fast."""


class Progress:
    """Asked every now and then; tells nothing in the first seconds."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self._messages, self._share = Rate(WINDOW_S), Rate(WINDOW_S)

    def line(self, run: Run) -> str:
        """What is to be shown now; "" for nothing."""
        share, cluster = done(run), run.cluster
        messages = self._messages(cluster.network.messages)
        share_per_s = self._share(share or 0.0)
        if time.monotonic() - self.began < PATIENCE_S:
            return ""
        told = [
            f"{in_words(cluster.now())} of virtual time",
            f"{cluster.network.messages:,} messages, {messages:,.0f}/s",
            cluster.standing(),
        ]
        if share is not None:
            left = left_s(share, share_per_s)
            told.append(f"{share:.0%} done" + (f", {in_words(left)} left" if left is not None and left >= 1 else ""))
        return "; ".join(filter(None, told))


def done(run: Run) -> float | None:
    """The share of the job that is done, by the stop condition that is nearest; None if none of them can be counted down."""
    job, tally, cluster = run.plan.job, run.tally, run.cluster
    shares = []
    if job.stop.updates:
        shares.append(tally.updates / job.stop.updates)
    if job.stop.samples:
        shards = [cluster.shard(shared.name) for shared in job.shards]
        shares.append(min((shard.samples for shard in shards if shard is not None), default=0) / job.stop.samples)
    if job.stop.time_s:
        shares.append(cluster.now() / job.stop.time_s)
    if job.sandblaster is not None and job.sandblaster.iterations and tally.steps:
        shares.append(tally.steps[-1].updates / job.sandblaster.iterations)
    if job.synchronous is not None and tally.steps:
        steps, protocol = tally.steps[-1].updates, run.scenario.protocol
        assert isinstance(protocol, Synchronous)
        if job.synchronous.updates:
            shares.append(steps / job.synchronous.updates)
        if job.synchronous.samples:
            shares.append(steps * job.synchronous.gradients * protocol.batch / job.synchronous.samples)
    return min(1.0, max(shares)) if shares else None
