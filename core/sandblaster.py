"""Sandblaster, the replica's side (paper, section 4.2): gradients over small portions of the batch, for as long as there are any.

    loop                                                        here
      ask the coordinator for portions                          Want, which also reports what is done
      fetch the parameters, once for each point                 fetch_point
      for each portion: accumulate its gradient                 team.gradient
      send the sum to the shards                                push_everywhere

A replica knows nothing of batches, backups and line searches.  Whatever it does twice, or too late, counts once or not at all:
the ledger of that is `core/portions.py`, and the other side of this conversation `core/coordinator.py`.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from core.coordination import Done, Task, Want
from core.job import COORDINATOR, Job
from core.lane import Flight, arrivals
from core.messages import Accepted, FetchPoint, Finished, Parameters, Push
from core.node import Node
from core.team import Team
from core.work import Model, Portioned


async def replica(node: Node, job: Job, model: Model, data: Portioned, team: Team) -> None:
    """One life of a model replica, or of one of its machines, whose parameters `model` has and whose shards `job`; ends when the coordinator says that the job is finished.

    Raises Refused when a later life of this role is up.
    """
    parameters, point, sequence = model.initial(), 0, job.bundles_from
    gradient = parameters.new_zeros(len(parameters))
    done: Done | None = None
    keeps = job.sandblaster is None or job.sandblaster.keeps
    while True:
        task = await team.told(partial(ask, node, job, done))
        done = None
        if isinstance(task, Finished):
            return
        if task.point != point or not keeps:
            if not await team.agree(well=await fetch_point(node, job, task.point, parameters)):
                await asyncio.sleep(job.poll_s)  # the shards are not there yet, or there no more: the coordinator will know
                continue
            point = task.point
        loss, samples = await accumulate(node, team, data, parameters, task.portions, gradient)
        sequence += 1
        if await team.agree(well=await push_everywhere(node, job, gradient, sequence, point, len(task.portions), samples)):
            done = Done(point, sequence, task.portions, loss, samples)


async def ask(node: Node, job: Job, done: Done | None) -> Task | Finished:
    """Report to the coordinator, and hear what to do next; asks again for as long as that is nothing."""
    while True:
        answer = await Flight(node, COORDINATOR, Want(done), job.deadline_s).arrival()
        if isinstance(answer, Finished) or answer.portions:
            return answer
        done = None


async def fetch_point(node: Node, job: Job, point: int, parameters: Any) -> bool:
    """The parameters at that point, all of them; False if a shard does not have them."""
    flights = [Flight(node, shared.name, FetchPoint(parameters[shared.part], point=point), job.deadline_s) for shared in job.shards]
    replies = await arrivals(flights)
    for shared, reply in zip(job.shards, replies, strict=True):
        if not isinstance(reply, Parameters):
            return False
        parameters[shared.part].copy_(reply.vector)
    return True


async def accumulate(
    node: Node, team: Team, data: Portioned, parameters: Any, portions: tuple[int, ...], into: Any
) -> tuple[float, int]:  # fmt: skip
    """The sum of the gradients of these portions' samples; the sum of their losses, and how many they are."""
    loss, samples = 0.0, 0
    for place, portion in enumerate(portions):
        found = await team.gradient(parameters, data.portion(portion))
        if place == 0:
            into.copy_(found.vector).mul_(found.samples)
        else:
            into.add_(found.vector, alpha=found.samples)
        samples += found.samples
        if found.loss is not None:
            loss += found.loss * found.samples
            node.record("computed", "", portion, found.loss)
    return loss, samples


async def push_everywhere(node: Node, job: Job, gradient: Any, sequence: int, point: int, portions: int, samples: int) -> bool:
    """Have every shard stage its slice; False if one says that the point is over."""
    flights = []
    for shared in job.shards:
        node.record("pushed", shared.name, sequence, portions)
        push = Push(sequence, gradient[shared.part], portions, samples, point)
        flights.append(Flight(node, shared.name, push, job.deadline_s))
    replies = await arrivals(flights)
    for shared, reply in zip(job.shards, replies, strict=True):
        if isinstance(reply, Accepted):
            node.record("acknowledged", shared.name, sequence)
    return all(isinstance(reply, Accepted) for reply in replies)
