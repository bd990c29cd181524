"""The evaluator: fetches the parameters now and then, and measures them on held-out data (not in the paper's text).

It holds nobody up: a fetch costs a shard one copy.  It is also who notices that a target loss or accuracy is reached, and
tells the shards; and who has the final parameters in hand when the job is over.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Any

from core.job import Job, Stop
from core.lane import Flight, arrivals
from core.messages import Fetch, Finish, Parameters
from core.node import Node
from core.reports import Status
from core.work import Diverged, Network, Quality


@dataclass(slots=True)
class Final:
    """What the job ends with: the parameters, their quality, and the least updates any shard had applied."""

    parameters: Any
    quality: Quality
    updates: int


async def evaluator(node: Node, job: Job, network: Network, over: asyncio.Event, status: Status | None = None) -> Final:
    """Measure every `evaluate_every_s` until all shards have finished, or until `over` is set by the world.

    Raises Diverged when the held-out loss is no finite number.  Once `over` is set it gives the shards one deadline to
    answer, and ends with what it last saw of them if they do not.  `status`, if given, is kept up to date.
    """
    final: Final | None = None
    status = status or Status()
    while True:
        last = over.is_set()
        try:
            async with asyncio.timeout(job.deadline_s if last and final else None):
                replies = await fetch_all(node, job)
        except TimeoutError:
            assert final is not None
            return final
        final = await measure(node, job, network, replies)
        status.updates, status.loss, status.accuracy = final.updates, final.quality.loss, final.quality.accuracy
        if last or all(reply.progress.finished for reply in replies):
            return final
        if reason := reached(final.quality, job.stop):
            await arrivals([Flight(node, s.name, Finish(reason), job.deadline_s) for s in job.shards])
            continue
        try:
            async with asyncio.timeout(job.evaluate_every_s):
                await over.wait()
        except TimeoutError:
            pass  # time for the next look


async def fetch_all(node: Node, job: Job) -> list[Parameters]:
    """Every shard's slice; no two of them need be of the same moment."""
    return await arrivals([Flight(node, s.name, Fetch(), job.deadline_s) for s in job.shards])


async def measure(node: Node, job: Job, network: Network, replies: list[Parameters]) -> Final:
    parameters = network.initial()
    for shared, reply in zip(job.shards, replies, strict=True):
        parameters[shared.part].copy_(reply.vector)
    quality = await node.compute(network.evaluate(parameters))
    updates = min(reply.progress.updates for reply in replies)
    node.record("evaluated", "", updates, quality.loss, "" if quality.accuracy is None else repr(quality.accuracy))
    if not math.isfinite(quality.loss):
        raise Diverged(f"the held-out loss is {quality.loss} after {updates} updates")
    return Final(parameters, quality, updates)


def reached(quality: Quality, stop: Stop) -> str:
    """Which target this quality meets, "" for none."""
    if stop.loss is not None and quality.loss <= stop.loss:
        return f"loss {quality.loss:.6g} <= {stop.loss:g}"
    if stop.accuracy is not None and quality.accuracy is not None and quality.accuracy >= stop.accuracy:
        return f"accuracy {quality.accuracy:.6g} >= {stop.accuracy:g}"
    return ""
