"""Sandblaster, the coordinator (paper, section 4.2): it never sees a parameter, and nothing that it alone knows matters.

    while not settled                                           core/lbfgs.minimise
      cut the batch into portions, give them to replicas        Desk, core/portions.Portions
      near the end of the batch give what is out again
      have the shards add up an exact cover                     Batches.evaluate
      direction, line search, step: operations on the shards    Shards.operate

What a next life must know is a *memo* that shards keep beside the vectors, under the same promise.  It is given with the very
request that changes the vectors, so it cannot say anything else than they do.  A new life asks every shard for its memo.  If
some took the last step and others did not, the others take it now; if a shard has lost more than that, everybody goes on from the
parameters as they are, with a new history.  What was under way is done again: nothing provisional is ever used by two lives.

With a warm start the first batch waits until a replica asks for work: it does so when every shard has told it that Downpour is
over.  Whatever a coordinator then has a shard do ends Downpour there for good, so that one which has lost its last updates, or
all of them, is not waited for.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any

from core.attendance import Attendance
from core.coordination import Done, Gather, Memory, Missing, Operate, Recall, Task, Values, Want
from core.job import Job, role_kind
from core.lane import Flight, arrivals
from core.lbfgs import DIRECTION, PARAMETERS, Evaluate, Settings, State, Stopped, Trial, minimise, rehearse
from core.messages import Finish, Finished, Refusal, Request, Sender
from core.node import Node, Outcome
from core.operations import Combine, Dot, Drop, Operation, Unknown, check, merged, operation_of
from core.portions import Backups, BundleId, Portions
from core.reports import Member, Status
from core.staging import POINT
from core.work import Diverged

KEPT = (PARAMETERS, "gradient", "s.", "y.")
"""Vectors that are not of an evaluation under way."""


class Setback(Exception):
    """A shard has lost something: whatever was under way begins anew."""


class Over(Exception):
    """The job has finished; the message says why."""


class Unstaged(Exception):
    """Shards do not have these bundles any more."""

    def __init__(self, bundles: set[BundleId]) -> None:
        super().__init__(f"{len(bundles)} bundles")
        self.bundles = bundles


async def coordinator(node: Node, job: Job, attendance: Attendance, *, rehearsal: bool = False) -> None:
    """One life of the coordinator; it serves until the process is ended.

    Raises Refused when a later life is up, and Diverged when there is no number to descend from.

    `rehearsal`: the vectors have no contents, so that no number means anything.
    """
    assert job.sandblaster is not None
    desk = Desk(node, job)
    attendance.status, attendance.on_member = desk.status, desk.hear
    attendance.address = node.serve(desk)
    attendance.beat()
    await attendance.begun.wait()
    batches, reason = Batches(node, job, desk), ""
    while not reason:
        try:
            reason = await batches.run(rehearse if rehearsal else minimise)
        except Setback as setback:
            node.record("reset", "", desk.iteration, note=str(setback))
        except Over as over:
            reason = str(over)
    desk.finish(reason)
    while True:  # whoever asks is told that it is over, until the process is ended; so is a shard that has lost this as well
        desk.news.clear()
        await arrivals([Flight(node, shared.name, Finish(reason), job.deadline_s) for shared in job.shards])
        await desk.news.wait()


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


class Desk:
    """The coordinator's server: gives replicas their work, and takes in what they report."""

    def __init__(self, node: Node, job: Job) -> None:
        assert job.sandblaster is not None
        self.node, self.job, self.options = node, job, job.sandblaster
        self.portions: Portions | None = None
        self.point = self.iteration = 0
        self.over = ""
        self.stands = "no step yet"
        """Loss and gradient, for an operator."""
        self.news = asyncio.Event()
        """Is the batch covered, or has a shard moved?"""
        self.moved = False
        self.asked = asyncio.Event()
        """Has any replica asked this life for work?"""
        self._idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._looking: asyncio.TimerHandle | None = None
        self._usual_s: float | None = None
        self._affinity: dict[int, str] = {}

    def open(self, point: int) -> Portions:
        """A batch begins at that point."""
        backups = Backups(self.options.copies, self.options.minimum_age)
        self.point, self.portions = point, Portions(
            self.options.portions, bundle=self.options.bundle, backups=backups, now=self.node.now, affinity=self._affinity,
            usual_s=self._usual_s,
        )  # fmt: skip
        self.release()
        return self.portions

    def close(self) -> None:
        """The batch is over: whoever asks waits for the next."""
        assert self.portions is not None
        self._affinity, self._usual_s = self.portions.affinity_after(), self.portions.usual_s
        self.portions = None

    def finish(self, reason: str) -> None:
        self.over = reason
        self.release()

    def handle(self, request: Request[Any], sender: Sender) -> Outcome:
        """Carry out one request, atomically.  Who gets nothing is answered when there may be something."""
        if not isinstance(request, Want):
            return Outcome(Refusal(f"a coordinator does not serve {type(request).__name__}"))
        self.asked.set()
        if self.over:
            return Outcome(Finished(self.over))
        if request.done is not None and (fault := self.take(request.done, sender)):
            self.node.record("refused", sender.label, note=fault)
            return Outcome(Refusal(fault))
        assignment = self.portions.give(sender.name, sender.incarnation) if self.portions is not None else None
        if assignment is None:
            return Outcome(Task(), durable=self.idle())
        self.node.record("given", sender.label, assignment.portions[0], len(assignment.portions), assignment.reason)
        return Outcome(Task(self.point, assignment.portions))

    def take(self, done: Done, sender: Sender) -> str:
        """A bundle is staged everywhere; why it cannot be, "" if it can."""
        if not done.portions or not all(0 <= portion < self.options.portions for portion in done.portions):
            return f"portions {done.portions[:5]} of {self.options.portions}"
        if self.portions is None or done.point != self.point:
            self.node.record("arrived", sender.label, done.sequence, len(done.portions), "useless: its batch is over")
            return ""
        bundle = BundleId(sender.name, sender.incarnation, done.sequence)
        decision, reason = self.portions.arrived(bundle, done.portions, done.loss, done.samples)
        self.node.record("arrived", sender.label, done.sequence, len(done.portions), f"{decision.value}: {reason}")
        if self.portions.complete:
            self.news.set()
        return ""

    def hear(self, member: Member) -> None:
        """Somebody has come or moved: what an earlier life of a replica had is given out again; shards may have lost something."""
        if role_kind(member.name) == "replica" and member.life > 1 and self.portions is not None:
            self.portions.gone(member.name, member.life - 1)
            self.release()
        elif role_kind(member.name) == "shard" and member.life > 1:
            self.moved = True
            self.news.set()

    def idle(self) -> asyncio.Future[None]:
        """Ends when there may be something to do; looks again soon, since what is late today was not late yesterday."""
        if self._looking is None:
            usual_s = (self.portions.usual_s if self.portions is not None else None) or self.job.poll_s
            self._looking = asyncio.get_running_loop().call_later(min(self.job.poll_s, usual_s), self.release)
        return self._idle

    def release(self) -> None:
        """Answer whoever waits."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        idle, self._idle = self._idle, asyncio.get_running_loop().create_future()
        idle.set_result(None)

    def status(self) -> Status:
        done = (
            f"{self.portions.done} of {self.portions.count} portions, {in_words(self.portions)}"
            if self.portions is not None
            else "no batch"
        )
        return Status(
            self.iteration, self.over, progress=f"iteration {self.iteration + 1}: {done}; {self.stands}" if not self.over else self.over
        )


def in_words(portions: Portions) -> str:
    """For the journal, and for an operator."""
    counters = portions.counters
    return f"{counters.given} given, {counters.backups} backups, {counters.backups_won} won, {counters.wasted} portions wasted"


def known(operations: Sequence[Operation], vectors: Sequence[str]) -> bool:
    """Are all the vectors there that these operations need?"""
    try:
        check(operations, vectors)
    except Unknown:
        return False
    return True


class Batches:
    """One life's work on the shards: batch after batch."""

    def __init__(self, node: Node, job: Job, desk: Desk) -> None:
        assert job.sandblaster is not None
        self.node, self.job, self.desk, self.options = node, job, desk, job.sandblaster
        self.shards = Shards(node, job)
        self.serial = 0
        """Of the last memo."""

    async def run(self, protocol: Callable[..., Awaitable[Stopped]]) -> str:
        """To the end; why.  Raises Setback, Over and Diverged."""
        state = await self.take_over()
        options = self.options
        settings = Settings(
            memory=options.memory, direction=options.direction.replace("-", "_"), search={"wolfe": "strong_wolfe", "armijo": "armijo"}[options.line_search],  # type: ignore[arg-type]
            search_evaluations=options.evaluations, gradient=options.gradient, change=options.relative_loss,
            iterations=options.iterations if options.iterations is not None else float("inf"),
        )  # fmt: skip
        evaluate: Evaluate = self.evaluate
        stopped = await protocol(self.shards, evaluate, settings, state, self.commit)
        if not math.isfinite(state.loss):
            raise Diverged(stopped.reason)
        return stopped.reason if stopped.ok else f"gave up: {stopped.reason}"

    async def take_over(self) -> State:
        """What earlier lives left, with everybody at the same step; a new beginning if that cannot be.  Raises Setback and Over."""
        memories = await self.shards.recall()
        if self.options.warm is not None and not any(memory.memo or set(memory.vectors) - {PARAMETERS} for memory in memories.values()):
            await self.desk.asked.wait()  # nobody has begun: Downpour may still go on
        memos: dict[str, dict[str, Any]] = {name: json.loads(memory.memo or '{"serial": 0}') for name, memory in memories.items()}
        last = max(memos.values(), key=lambda memo: memo["serial"])
        self.serial = last["serial"]
        operations = [operation_of(told) for told in last.get("operations", ())]
        behind = [name for name, memo in memos.items() if memo["serial"] < self.serial]
        if lost := [name for name in behind if memos[name]["serial"] < self.serial - 1 or not known(operations, memories[name].vectors)]:
            return await self.begin_anew(State(**last["state"]).iteration, memories, f"{', '.join(lost)} lost steps")
        if behind:
            await self.shards.carry_out(operations, step=last["step"], memo=json.dumps(last), only=behind)
        if leftover := {name for memory in memories.values() for name in memory.vectors if not name.startswith(KEPT)}:
            await self.shards.operate(Drop(tuple(sorted(leftover))))
        state = State(**last["state"]) if self.serial else State()
        self.desk.iteration = state.iteration
        return state

    async def begin_anew(self, iteration: int, memories: dict[str, Memory], why: str) -> State:
        """From the parameters as they are, without a history."""
        self.node.record("reset", "", iteration, note=f"{why}: on from the parameters as they are")
        everything: list[Operation] = [
            Drop(tuple(sorted({name for memory in memories.values() for name in memory.vectors} - {PARAMETERS})))
        ]
        state = State(iteration=iteration)
        self.serial += 1
        await self.shards.carry_out(everything, memo=self.memo(state, everything, step=False))
        self.desk.iteration = iteration
        return state

    async def evaluate(self, step: float) -> Trial:
        """Loss and gradient at parameters + step * direction, by all replicas."""
        point = (self.node.incarnation << 32) + self.shards.number + 1
        name = f"trial.{point}"
        await self.shards.carry_out([Combine(POINT, ((PARAMETERS, 1.0), (DIRECTION, step)))], point=point)
        portions = self.desk.open(point)
        while True:
            await self.covered(portions)
            cover = portions.cover()
            try:
                (slope,) = await self.shards.carry_out([Dot(name, DIRECTION)], gather=Gather(name, cover, 1.0 / portions.samples()))
                break
            except Unstaged as unstaged:
                portions.unstaged(unstaged.bundles)
                self.desk.release()
        loss = portions.loss() / portions.samples()
        self.node.record("covered", "", len(cover), loss, in_words(portions))
        self.desk.close()
        self.node.record("tried", "", self.shards.number, loss, f"step {step:.6g}, slope {slope:.6g}")
        return Trial(step, loss, slope, name)

    async def covered(self, portions: Portions) -> None:
        """Wait until the batch has an exact cover; whenever a shard has moved meanwhile, ask whether it has lost anything."""
        while True:
            if self.desk.moved:
                self.desk.moved = False
                await self.shards.operate()
            if portions.complete:
                return
            self.desk.news.clear()
            await self.desk.news.wait()

    async def commit(self, state: State, operations: list[Operation]) -> None:
        """See `core.lbfgs.Commit`."""
        self.serial += 1
        step = state.iteration > self.desk.iteration
        await self.shards.carry_out(operations, step=step, memo=self.memo(state, operations, step=step))
        self.desk.iteration = state.iteration
        if step:
            self.node.record("stepped", "", state.iteration, state.loss, f"{state.evaluations} evaluations, gradient {state.steepest:.3g}")
            self.desk.stands = f"loss {state.loss:.6g}, gradient {state.steepest:.3g}"
        limit_s = self.job.stop.time_s
        if limit_s is not None and self.node.now() >= limit_s:
            raise Over(f"{limit_s:g} s")

    def memo(self, state: State, operations: Sequence[Operation], *, step: bool) -> str:
        """For a next life: where everybody is, and what whoever is not there has yet to do."""
        told = [asdict(operation) for operation in operations]
        return json.dumps({"serial": self.serial, "state": asdict(state), "operations": told, "step": step})
