"""One life of any role: what its name says, beside its signs of life.  Both worlds run their processes through here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from core import sandblaster
from core.attendance import Attendance
from core.coordinator import Batches, coordinator
from core.durability import Mirror, keep_last, keeping, recovered
from core.evaluator import Final, evaluator
from core.job import COORDINATOR, Job, partition_number, role_kind, role_number, shard_of
from core.messages import Sender
from core.node import Node
from core.partitioning import Partitioned
from core.reports import Member, Status
from core.rules import Rule
from core.shard import Shard
from core.synchronous import OwnMinibatches, Steps
from core.team import Alone, Team, Together
from core.tenure import Tenure
from core.vector import Phantom
from core.work import Minibatches, Model, Network, Partition, Portioned


class Making(Protocol):
    """What roles are made of, in whichever world: `scenarios.plan.Plan`."""

    @property
    def job(self) -> Job: ...
    @property
    def network(self) -> Network: ...
    @property
    def partitioned(self) -> Partitioned | None: ...
    @property
    def kind_of_shard(self) -> type[Shard]: ...
    @property
    def descend(self) -> Callable[..., Coroutine[Any, Any, None]]:
        """What a replica of Downpour does: `core.downpour.replica`, or what a user has in its place."""

    def partition(self, number: int, /) -> Partition: ...
    def data(self, number: int, life: int, /) -> Minibatches: ...
    def portions(self) -> Portioned: ...
    def rule(self) -> Rule: ...


@dataclass(slots=True)
class Promoted:
    """A mirror's life is over: its process goes on as the shard, in that life, with what the mirror held, if it held anything."""

    role: str
    life: int
    shard: Shard | None


async def live(
    node: Node, making: Making, inherited: Shard | None = None, leaving: asyncio.Event | None = None
) -> Final | Promoted | None:  # fmt: skip
    """To its end: of the evaluator with the final parameters, of a mirror perhaps with its promotion.

    `inherited`: what a promoted mirror leaves to the shard.  `leaving`: set by a world that asks the process to end, and
    leaves it a moment for that: a shard writes down what it has, a replica has its pushes counted, all others just end.  Raises Outlived, Diverged, StoreFailed, and Refused when a peer
    knows a later life of this role.
    """
    attendance, leaving = Attendance(node, making.job.timings), leaving or asyncio.Event()
    kind = role_kind(node.name)
    role: Coroutine[Any, Any, Any]
    if kind == "shard":
        role = live_shard(node, making, attendance, inherited, leaving)
    elif kind == "mirror":
        role = live_mirror(node, making, attendance)
    elif kind == "replica":
        role = live_replica(node, making, attendance, leaving)
    elif kind == COORDINATOR:
        role = coordinator(node, making.job, attendance, tenure(node, making))
    else:
        role = live_evaluator(node, making, attendance)
    doing, beating = asyncio.ensure_future(role), asyncio.ensure_future(attendance.run())
    ends: list[asyncio.Future[Any]] = [doing, beating]
    if kind != "shard":
        ends.append(asyncio.ensure_future(asked_to_leave(leaving, making.job.deadline_s if kind == "replica" else 0.0)))
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for end in ends:
        if not end.done():
            end.cancel()
    if doing.done():
        return doing.result()
    if beating.done():
        beating.result()
    return None


async def asked_to_leave(leaving: asyncio.Event, grace_s: float) -> None:
    """Ends so long after that."""
    await leaving.wait()
    await asyncio.sleep(grace_s)


async def live_shard(
    node: Node, making: Making, attendance: Attendance, inherited: Shard | None, leaving: asyncio.Event
) -> None:  # fmt: skip
    """Serve until the process is ended: whoever has the last word may still ask.

    Once it is told that the job, or the process, comes to its end, it writes down what it has.
    """
    job = making.job
    if inherited is None:
        shard = await recovered(node, job, making.network.initial(), making.rule(), making.kind_of_shard)
    else:
        shard, inherited.node = inherited, node
        node.record("restored", "", shard.updates)

    def fence(member: Member) -> None:
        """An earlier life of somebody who has been replaced is stale here, whether or not the new one has joined."""
        if role_kind(member.name) == "replica":
            shard.pushes.join(Sender(member.name, member.life))

    attendance.status = shard.status
    attendance.tell(fence)
    durable = asyncio.ensure_future(keeping(node, job, shard, attendance))
    attendance.address = node.serve(shard)
    attendance.beat()
    ends = [asyncio.ensure_future(leaving.wait()), asyncio.ensure_future(attendance.concluded.wait())]
    await asyncio.wait([durable, *ends], return_when=asyncio.FIRST_COMPLETED)
    if durable.done():
        durable.result()
    await keep_last(node, shard, final=leaving.is_set())
    await leaving.wait()


async def live_mirror(node: Node, making: Making, attendance: Attendance) -> Promoted:
    """Hold what the shard sends, until told to be it."""
    mirror = Mirror(node, making.job, making.rule, attendance.beat, making.kind_of_shard)
    attendance.status, attendance.address = mirror.status, node.serve(mirror)
    life = await attendance.promoted
    return Promoted(shard_of(node.name), life, mirror.shard)


async def live_replica(node: Node, making: Making, attendance: Attendance, leaving: asyncio.Event) -> None:
    """On one machine, or as one of several that the model is split over."""
    job, model, team = team_of(node, making, attendance)
    await attendance.begun.wait()
    if job.sandblaster is None or job.sandblaster.warm is not None:
        minibatches = making.data(role_number(node.name), node.incarnation)
        if job.synchronous is not None:
            await sandblaster.replica(node, job, model, OwnMinibatches(minibatches), team)
        else:
            await making.descend(node, job, model, minibatches, leaving, team)
    if job.sandblaster is not None and not leaving.is_set():
        team.anew()
        await sandblaster.replica(node, job, model, making.portions(), team)


def team_of(node: Node, making: Making, attendance: Attendance) -> tuple[Job, Model, Team]:
    """The job, the parameters and the company that this machine has; of several, each serves the others."""
    if making.partitioned is None:
        return making.job, making.network, Alone(node, making.network)
    number = partition_number(node.name)
    partition, job = making.partition(number), making.job.of_partition(number)
    team = Together(node, job, making.partitioned, partition)
    attendance.address = node.serve(team.inbox)
    attendance.beat()
    return job, partition, team


def tenure(node: Node, making: Making) -> Tenure[Any]:
    """What the coordinator's life has to do."""
    if making.job.synchronous is not None:
        return Steps(node, making.job)
    return Batches(node, making.job, rehearsal=isinstance(making.network.initial(), Phantom))


async def live_evaluator(node: Node, making: Making, attendance: Attendance) -> Final:
    status = Status()
    attendance.status = lambda: status
    await attendance.begun.wait()
    return await evaluator(node, making.job, making.network, attendance.concluded, status)
