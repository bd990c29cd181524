"""The coordinator's server: gives replicas their work, and takes in what they report.

What is given to whom, and what of it counts, a ledger says: of Sandblaster's batch `core/portions.py`, of a step of synchronous SGD
`core/synchronous.py`.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from core.coordination import Done, Task, Want
from core.job import Job, role_kind, unit_of
from core.messages import Finished, Refusal, Request, Sender
from core.node import Node, Outcome
from core.portions import Assignment, BundleId, Counters, Decision
from core.reports import Member, Status


class Ledger(Protocol):
    """Who works on what at one point, and what of it counts: `core.portions.Portions` says what each of these means."""

    @property
    def complete(self) -> bool: ...
    @property
    def standing(self) -> str: ...
    @property
    def usual_s(self) -> float | None: ...
    @property
    def counters(self) -> Counters: ...
    def give(self, replica: str, life: int, /) -> Assignment | None: ...
    def arrived(self, bundle: BundleId, portions: tuple[int, ...], loss: float, samples: int, /) -> tuple[Decision, str]: ...
    def gone(self, replica: str, life: int, /) -> None: ...


class Desk:
    """One life of it."""

    def __init__(self, node: Node, job: Job) -> None:
        self.node, self.job = node, job
        self.portions: Ledger | None = None
        self.point = self.iteration = 0
        self.over = ""
        self.stands = "no step yet"
        """Where the optimisation is, for an operator."""
        self.news = asyncio.Event()
        """Is everything there that is wanted, or has a shard moved?"""
        self.moved = False
        self.asked = asyncio.Event()
        """Has any replica asked this life for work?"""
        self._idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._looking: asyncio.TimerHandle | None = None

    def open(self, point: int, portions: Ledger) -> None:
        """Work begins at that point."""
        self.point, self.portions = point, portions
        self.release()

    def close(self) -> None:
        """It is over: whoever asks waits for the next."""
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
        if request.done is not None:
            self.take(request.done, sender)
        assignment = self.portions.give(unit_of(sender.name), sender.incarnation) if self.portions is not None else None
        if assignment is None:
            return Outcome(Task(), durable=self.idle())
        self.node.record("given", sender.label, assignment.portions[0], len(assignment.portions), assignment.reason)
        return Outcome(Task(self.point, assignment.portions))

    def take(self, done: Done, sender: Sender) -> None:
        """A bundle is staged everywhere."""
        decision, reason = Decision.USELESS, "its batch is over"
        if self.portions is not None and done.point == self.point:
            bundle = BundleId(unit_of(sender.name), sender.incarnation, done.sequence)
            decision, reason = self.portions.arrived(bundle, done.portions, done.loss, done.samples)
            if self.portions.complete:
                self.news.set()
        self.node.record("arrived", sender.label, done.sequence, len(done.portions), f"{decision.value}: {reason}")

    def hear(self, member: Member) -> None:
        """Somebody has come or moved: what an earlier life of a replica had is given out again; shards may have lost something."""
        if role_kind(member.name) == "replica" and member.life > 1 and self.portions is not None:
            self.portions.gone(unit_of(member.name), member.life - 1)
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
        given = f"{self.portions.standing}, {in_words(self.portions)}" if self.portions is not None else "nothing given out"
        return Status(self.iteration, self.over, progress=self.over or f"iteration {self.iteration + 1}: {given}; {self.stands}")


def in_words(portions: Ledger) -> str:
    """For the journal, and for an operator."""
    counters = portions.counters
    return f"{counters.given} given, {counters.backups} backups, {counters.backups_won} won, {counters.wasted} portions wasted"
