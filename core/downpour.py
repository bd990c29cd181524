"""Downpour SGD, the replica's side (paper, section 4.1 and algorithm 1 of its appendix).

    procedure DOWNPOURSGDCLIENT(alpha, n_fetch, n_push)         here
      loop
        if step mod n_fetch = 0: start fetching parameters      lane.fetch, installed between minibatches
        data = next minibatch; gradient = compute(data)         team.gradient
        accruedgradients += gradient                            lane.accrue
        parameters -= alpha gradient                            parameters.add_
        if step mod n_push = 0: start pushing, accrued = 0      lane.push
        step += 1

What the paper leaves open is decided in `docs/PAPER.md`.  The other half is `core/shard.py`.
"""

from __future__ import annotations

import asyncio
import math

from core.job import Job, role_number
from core.lane import Flight, Lane
from core.messages import Ask
from core.node import Node
from core.team import Team
from core.work import Diverged, Minibatches, Model


async def replica(node: Node, job: Job, model: Model, data: Minibatches, leaving: asyncio.Event, team: Team) -> None:
    """One life of a model replica, or of one of its machines, whose parameters `model` has and whose shards `job`; ends when every shard says that the job is finished, or when it is `leaving` and the shards have
    everything that it has computed.

    Raises Diverged when the loss of a minibatch is no finite number, and Refused when a later life of this role is up.
    """
    lanes = [Lane(node, shared, job) for shared in job.shards]
    await asyncio.gather(*(lane.join() for lane in lanes))
    await turn_to_start(node, job)
    parameters = model.initial()
    for lane in lanes:
        lane.bind(parameters)
        lane.fetch()
    await asyncio.gather(*(lane.fetched() for lane in lanes))

    step = 0
    while not team.over(finished=all(lane.finished for lane in lanes), leaving=leaving.is_set()):
        for lane in lanes:
            lane.install()
            if step % job.n_fetch == 0:
                lane.fetch()
        gradient = await team.gradient(parameters, data.minibatch(step))
        if gradient.loss is not None:
            node.record("computed", "", step, gradient.loss)
            if not math.isfinite(gradient.loss):
                raise Diverged(f"{node.name}: the loss of minibatch {step} is {gradient.loss}")
        parameters.add_(gradient.vector, alpha=-job.local_rate)
        step += 1
        for lane in lanes:
            lane.accrue(gradient)
            if step % job.n_push == 0:
                lane.push()
        for lane in lanes:
            if lane.behind(job.max_behind):
                await lane.catch_up(job.max_behind)
    if not all(lane.finished for lane in lanes):
        await asyncio.gather(*(lane.drain() for lane in lanes))


async def turn_to_start(node: Node, job: Job) -> None:
    """Warm start: replica 0 trains alone for the first `warm_updates`, then all do.

    Nobody is appointed, so nobody's death stops the job: replica k begins by itself once it has seen no update for k
    times ten deadlines.
    """
    number, seen, since = role_number(node.name), -1, node.now()
    while number > 0 and job.shards and seen < job.warm_updates:
        progress = await Flight(node, job.shards[0].name, Ask(), job.deadline_s).arrival()
        if progress.updates >= job.warm_updates or progress.finished:
            return
        if progress.updates > seen:
            seen, since = progress.updates, node.now()
        elif node.now() - since > 10 * job.deadline_s * number:
            return
        await asyncio.sleep(job.poll_s)
