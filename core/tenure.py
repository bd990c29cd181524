"""What a coordinator's life does on the shards, whatever it optimises: asks them, and leaves a memo with every change.

What a next life must know is a *memo* that shards keep beside the vectors, under the same promise.  It is given with the very
request that changes the vectors, so it cannot say anything else than they do.  A new life asks every shard for its memo.  If
some took the last step and others did not, the others take it now; if a shard has lost more than that, everybody goes on from the
parameters as they are.  What was under way is done again: nothing provisional is ever used by two lives.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from core.coordination import Gather, Memory, Missing, Operate, Recall, Values
from core.desk import Desk, Ledger
from core.job import Job
from core.lane import Flight, arrivals
from core.lbfgs import PARAMETERS
from core.messages import Finished
from core.node import Node
from core.operations import Drop, Operation, Unknown, check, merged, operation_of
from core.portions import BundleId

KEPT = (PARAMETERS, "gradient", "s.", "y.")
"""Vectors that are not of an evaluation under way."""


class State(Protocol):
    """Between two steps, all there is to know beside the vectors; plain data, for JSON."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def iteration(self) -> int: ...
    @property
    def loss(self) -> float: ...
    def anew(self) -> Self:
        """What remains once the shards have only their parameters left, as they are."""

    def in_words(self) -> str:
        """For the journal."""


S = TypeVar("S", bound=State)


class Setback(Exception):
    """A shard has lost something: whatever was under way begins anew."""


class Over(Exception):
    """The job has finished; the message says why."""


class Unstaged(Exception):
    """Shards do not have these bundles any more."""

    def __init__(self, bundles: set[BundleId]) -> None:
        super().__init__(f"{len(bundles)} bundles")
        self.bundles = bundles


class Shards:
    """All shards as one space of vectors, of which only numbers come back (`core.lbfgs.Space`)."""

    def __init__(self, node: Node, job: Job) -> None:
        self.node, self.names, self.deadline_s = node, [shared.name for shared in job.shards], job.deadline_s
        self.after = dict.fromkeys(self.names, 0)
        """The last request that each has carried out."""
        self.steps = dict.fromkeys(self.names, 0)
        """Of this life."""
        self.number = 0

    async def recall(self) -> dict[str, Memory]:
        """Earlier lives are refused from now on; what they left.  Raises Over."""
        memories = await arrivals([Flight(self.node, name, Recall(), self.deadline_s) for name in self.names])
        self.after = {name: memory.after for name, memory in zip(self.names, memories, strict=True)}
        for memory in memories:
            if memory.finished:
                raise Over(memory.finished)
        return dict(zip(self.names, memories, strict=True))

    async def operate(self, *operations: Operation) -> list[float]:
        return await self.carry_out(operations)

    async def carry_out(
        self, operations: Sequence[Operation], *, gather: Gather | None = None, point: int = 0, step: bool = False, memo: str = "",
        only: Sequence[str] = (),
    ) -> list[float]:  # fmt: skip
        """Have every shard do it, or only some of them; the numbers.  Raises Unstaged, Setback and Over."""
        self.number += 1
        asked = list(only) or self.names
        flights = []
        for name in asked:
            if step:
                self.steps[name] += 1
                self.node.record("pushed", name, self.steps[name], 1)
            request = Operate(self.number, self.after[name], tuple(operations), gather, point, self.steps[name] if step else 0, memo)
            flights.append(Flight(self.node, name, request, self.deadline_s))
        replies = dict(zip(asked, await arrivals(flights), strict=True))
        for name, reply in replies.items():
            if isinstance(reply, Values):
                self.after[name] = self.number
                if step:
                    self.node.record("acknowledged", name, self.steps[name])
        for reply in replies.values():
            if isinstance(reply, Finished):
                raise Over(reply.reason)
        if lost := [name for name, reply in replies.items() if not isinstance(reply, Values | Missing)]:
            raise Setback(f"{', '.join(lost)} lost what it was asked for")
        if missing := {bundle for reply in replies.values() if isinstance(reply, Missing) for bundle in reply.bundles}:
            raise Unstaged(missing)
        return merged(operations, [reply.numbers for reply in replies.values() if isinstance(reply, Values)])


def known(operations: Sequence[Operation], vectors: Collection[str]) -> bool:
    """Are all the vectors there that these operations need?"""
    try:
        check(operations, vectors)
    except Unknown:
        return False
    return True


class Tenure(Generic[S]):
    """One life's work on the shards."""

    beginning: type[S]
    """Of a job that has no memo yet."""

    def __init__(self, node: Node, job: Job) -> None:
        self.node, self.job, self.desk, self.shards = node, job, Desk(node, job), Shards(node, job)
        self.serial = 0
        """Of the last memo."""

    async def run(self) -> str:
        """To the end; why.  Raises Setback, Over and Diverged."""
        raise NotImplementedError

    async def take_over(self) -> S:
        """What earlier lives left, with everybody at the same step; a new beginning if that cannot be.  Raises Setback and Over."""
        memories = await self.shards.recall()
        if self.job.warm is not None and not any(memory.memo or set(memory.vectors) - {PARAMETERS} for memory in memories.values()):
            await self.desk.asked.wait()  # nobody has begun: Downpour may still go on
        memos: dict[str, dict[str, Any]] = {name: json.loads(memory.memo or '{"serial": 0}') for name, memory in memories.items()}
        last = max(memos.values(), key=lambda memo: memo["serial"])
        self.serial = last["serial"]
        operations, gather = [operation_of(told) for told in last.get("operations", ())], gather_of(last.get("gather"))
        behind = [name for name, memo in memos.items() if memo["serial"] < self.serial]
        gathered = [gather.into] if gather else []
        lost = [
            name
            for name in behind
            if memos[name]["serial"] < self.serial - 1 or not known(operations, (*memories[name].vectors, *gathered))
        ]
        if behind and not lost:
            try:
                await self.shards.carry_out(operations, gather=gather, step=last["step"], memo=json.dumps(last), only=behind)
            except Unstaged:
                lost = behind
        if lost:
            return await self.begin_anew(self.beginning(**last["state"]), memories, f"{', '.join(lost)} lost steps")
        if leftover := {name for memory in memories.values() for name in memory.vectors if not name.startswith(KEPT)}:
            await self.shards.operate(Drop(tuple(sorted(leftover))))
        state = self.beginning(**last["state"]) if self.serial else self.beginning()
        self.desk.iteration = state.iteration
        return state

    async def begin_anew(self, last: S, memories: dict[str, Memory], why: str) -> S:
        """From the parameters as they are."""
        self.node.record("reset", "", last.iteration, note=f"{why}: on from the parameters as they are")
        everything: list[Operation] = [
            Drop(tuple(sorted({name for memory in memories.values() for name in memory.vectors} - {PARAMETERS})))
        ]
        state = last.anew()
        self.serial += 1
        await self.shards.carry_out(everything, memo=self.memo(state, everything, step=False))
        self.desk.iteration = state.iteration
        return state

    def next_point(self) -> int:
        """Of the very next request: no two lives choose the same."""
        return (self.node.incarnation << 32) + self.shards.number + 1

    async def covered(self, portions: Ledger) -> None:
        """Wait until everything is there that is wanted; whenever a shard has moved meanwhile, ask whether it has lost anything."""
        while True:
            if self.desk.moved:
                self.desk.moved = False
                await self.shards.operate()
            if portions.complete:
                return
            self.desk.news.clear()
            await self.desk.news.wait()

    async def commit(self, state: S, operations: Sequence[Operation], *, gather: Gather | None = None, point: int = 0) -> None:
        """Once this returns, the shards have done it once, and `state` is what a new life would begin with.

        Raises Unstaged, Setback and Over.
        """
        self.serial += 1
        step = state.iteration > self.desk.iteration
        memo = self.memo(state, operations, gather, step=step)
        await self.shards.carry_out(operations, gather=gather, point=point, step=step, memo=memo)
        self.desk.iteration = state.iteration
        if step:
            self.node.record("stepped", "", state.iteration, state.loss, state.in_words())
            self.desk.stands = f"loss {state.loss:.6g}, {state.in_words()}"
        limit_s = self.job.stop.time_s
        if limit_s is not None and self.node.now() >= limit_s:
            raise Over(f"{limit_s:g} s")

    def memo(self, state: S, operations: Sequence[Operation], gather: Gather | None = None, *, step: bool) -> str:
        """For a next life: where everybody is, and what whoever is not there has yet to do."""
        told = [asdict(operation) for operation in operations]
        return json.dumps({"serial": self.serial, "state": asdict(state), "operations": told, "gather": gather, "step": step})


def gather_of(told: Sequence[Any] | None) -> Gather | None:
    """Of what JSON made of it."""
    if told is None:
        return None
    into, bundles, scale = told
    return Gather(into, tuple(BundleId(*bundle) for bundle in bundles), scale)
