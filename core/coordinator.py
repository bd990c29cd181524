"""Sandblaster, the coordinator (paper, section 4.2): it never sees a parameter, and nothing that it alone knows matters.

    while not settled                                           core/lbfgs.minimise
      cut the batch into portions, give them to replicas        core/desk.Desk, core/portions.Portions
      near the end of the batch give what is out again
      have the shards add up an exact cover                     Batches.evaluate
      direction, line search, step: operations on the shards    core/tenure.Shards

What a life of it leaves to the next is `core/tenure.py`; its conversation with the replicas `core/desk.py`.

With a warm start the first batch waits until a replica asks for work: it does so when every shard has told it that Downpour is
over.  Whatever a coordinator then has a shard do ends Downpour there for good, so that one which has lost its last updates, or
all of them, is not waited for.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

from core.attendance import Attendance
from core.coordination import Gather
from core.desk import in_words
from core.job import Job
from core.lane import Flight, arrivals
from core.lbfgs import DIRECTION, PARAMETERS, Evaluate, Settings, State, Trial, minimise, rehearse
from core.messages import Finish
from core.node import Node
from core.operations import Combine, Dot
from core.portions import Backups, Portions
from core.staging import POINT
from core.tenure import Over, Setback, Tenure, Unstaged
from core.work import Diverged


async def coordinator(node: Node, job: Job, attendance: Attendance, tenure: Tenure[Any]) -> None:
    """One life of the coordinator, whatever its work is; it serves until the process is ended.

    Raises Refused when a later life is up, and Diverged when there is no number to descend from.
    """
    desk = tenure.desk
    attendance.status = desk.status
    attendance.tell(desk.hear)
    attendance.address = node.serve(desk)
    attendance.beat()
    await attendance.begun.wait()
    reason = ""
    while not reason:
        try:
            reason = await tenure.run()
        except Setback as setback:
            node.record("reset", "", desk.iteration, note=str(setback))
        except Over as over:
            reason = str(over)
    desk.finish(reason)
    while True:  # until the process is ended whoever asks is told that it is over, and so is a shard that comes back without knowing
        desk.news.clear()
        await arrivals([Flight(node, shared.name, Finish(reason), job.deadline_s) for shared in job.shards])
        await desk.news.wait()


class Batches(Tenure[State]):
    """One life's work on the shards: batch after batch."""

    beginning = State

    def __init__(self, node: Node, job: Job, *, rehearsal: bool = False) -> None:
        """`rehearsal`: the vectors have no contents, so that no number means anything."""
        assert job.sandblaster is not None
        super().__init__(node, job)
        self.options, self.rehearsal = job.sandblaster, rehearsal
        self.affinity: dict[int, str] = {}
        self.usual_s: float | None = None

    async def run(self) -> str:
        state = await self.take_over()
        options = self.options
        settings = Settings(
            memory=options.memory, direction=options.direction.replace("-", "_"), search={"wolfe": "strong_wolfe", "armijo": "armijo"}[options.line_search],  # type: ignore[arg-type]
            search_evaluations=options.evaluations, gradient=options.gradient, change=options.relative_loss,
            iterations=options.iterations if options.iterations is not None else float("inf"),
        )  # fmt: skip
        evaluate: Evaluate = self.evaluate
        stopped = await (rehearse if self.rehearsal else minimise)(self.shards, evaluate, settings, state, self.commit)
        if not math.isfinite(state.loss):
            raise Diverged(stopped.reason)
        return stopped.reason if stopped.ok else f"gave up: {stopped.reason}"

    async def evaluate(self, step: float) -> Trial:
        """Loss and gradient at parameters + step * direction, by all replicas."""
        point = self.next_point()
        name = f"trial.{point}"
        await self.shards.carry_out([Combine(POINT, ((PARAMETERS, 1.0), (DIRECTION, step)))], point=point)
        if self.options.job_start_up_s:
            await asyncio.sleep(self.options.job_start_up_s)
        portions = self.portions()
        self.desk.open(point, portions)
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
        self.affinity, self.usual_s = portions.affinity_after() if self.options.keeps else {}, portions.usual_s
        self.node.record("tried", "", self.shards.number, loss, f"step {step:.6g}, slope {slope:.6g}")
        return Trial(step, loss, slope, name)

    def portions(self) -> Portions:
        """A batch begins."""
        options = self.options
        backups = Backups(options.copies, options.minimum_age)
        return Portions(
            options.portions, bundle=options.bundle, backups=backups, now=self.node.now, affinity=self.affinity, usual_s=self.usual_s
        )
