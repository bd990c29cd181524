"""The parameter shard: the one server of Downpour (paper, section 4.1).

It owns a slice of the parameters, applies each push exactly once by its rule, and answers fetches.  Shards know nothing of
each other: a push to several of them is several pushes, and one may land where another is lost (allowed, and counted).
It also judges when the job is over, since every update passes here; it then applies nothing more and says so to whoever
pushes, so that each shard ends after exactly the updates that were asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from core.job import Job
from core.messages import Accepted, Ask, Fetch, Finish, Finished, Join, Parameters, Progress, Push, Refusal, Request, Sender
from core.node import Node, Outcome
from core.pushes import Admission, Pushes
from core.rules import Rule
from core.vector import Buffers
from core.work import Cost


@dataclass(slots=True)
class Snapshot:
    """Everything a shard needs to come back: parameters, the rule's state and the ledger, of one and the same moment."""

    parameters: Any
    state: dict[str, Any]
    last: dict[str, tuple[int, int]]
    updates: int
    samples: int
    finished: str


class Shard:
    """One life of a parameter shard."""

    def __init__(self, node: Node, job: Job, parameters: Any, rule: Rule) -> None:
        """`parameters` is this shard's own vector from here on; nobody else may hold it."""
        self.node, self.rule = node, rule
        self._update_limit = math.inf if job.stop.updates is None else job.stop.updates
        self._sample_limit = math.inf if job.stop.samples is None else job.stop.samples
        self._time_limit_s, self._snapshot_every_s = job.stop.time_s, job.snapshot_every_s
        self.parameters = parameters
        self.pushes = Pushes()
        self.updates = self.samples = 0
        self.finished = ""
        self.snapshot_at = node.now()
        self._buffers = Buffers()
        self._reuses = Buffers.worth(parameters)
        self._published: Parameters | None = None  # the copy that fetches between two updates share
        self._length, self._nbytes = len(parameters), parameters.nbytes
        self._cost_of_update = Cost(0.0, rule.traffic * parameters.nbytes)
        self._cost_of_copy = Cost(0.0, 2 * parameters.nbytes)
        rule.start(parameters)

    @classmethod
    def restored(cls, node: Node, job: Job, snapshot: Snapshot, rule: Rule) -> Shard:
        """A new life that starts from what an earlier one made durable."""
        rule.state.update({key: value.clone() if hasattr(value, "clone") else value for key, value in snapshot.state.items()})
        shard = cls(node, job, snapshot.parameters.clone(), rule)
        shard.pushes.last.update(snapshot.last)
        shard.updates, shard.samples, shard.finished = snapshot.updates, snapshot.samples, snapshot.finished
        node.record("restored", "", snapshot.updates)
        return shard

    def handle(self, request: Request[Any], sender: Sender) -> Outcome:
        """Carry out one request, atomically."""
        if isinstance(request, Push):
            return self.push(request, sender)
        if self.pushes.outlived(sender):
            return self.refuse(sender, f"{sender.name} lives a later life than {sender.incarnation}")
        if isinstance(request, Fetch):
            return self.fetch()
        if isinstance(request, Join):
            self.pushes.join(sender)
        elif isinstance(request, Finish):
            self.finish(request.reason)
        elif not isinstance(request, Ask):
            return self.refuse(sender, f"a shard does not serve {type(request).__name__}")
        return Outcome(self.progress())

    def push(self, push: Push, sender: Sender) -> Outcome:
        if fault := self.unfit(push):
            return self.refuse(sender, fault)
        admission = self.pushes.judge(sender, push.sequence)
        if admission is Admission.STALE:
            return self.refuse(sender, f"push {push.sequence} of life {sender.incarnation} is older than one counted")
        if admission is Admission.REPEATED:
            self.node.record("duplicate", sender.label, push.sequence)
            return Outcome(Accepted(self.updates))
        if self._time_limit_s is not None and self.node.now() >= self._time_limit_s:
            self.finish(f"{self._time_limit_s:g} s")
        if self.finished:
            return Outcome(Finished(self.finished))
        self.pushes.count(sender, push.sequence)
        self.rule.apply(self.parameters, push.gradient)
        self._published = None
        staleness = max(0, self.updates - push.based_on)  # a restored shard may stand before what was based on
        self.updates += 1
        self.samples += push.samples
        self.node.record("applied", sender.label, push.sequence, staleness)
        if self.updates >= self._update_limit:
            self.finish(f"{self.updates} updates")
        elif self.samples >= self._sample_limit:
            self.finish(f"{self.samples} samples")
        persist = self.due_snapshot() if self._snapshot_every_s is not None else None
        return Outcome(Accepted(self.updates), self._cost_of_update, persist)

    def fetch(self) -> Outcome:
        if self._published is not None and self._published.progress.finished == self.finished:
            return Outcome(self._published)
        self._published = None  # nobody else may hold it: then its buffer takes the next copy
        self._published = Parameters(self._buffers.copy(self.parameters), self.progress())
        if self._reuses:
            self._buffers.lend(self._published.vector, self._published)
        return Outcome(self._published, self._cost_of_copy)

    def progress(self) -> Progress:
        return Progress(self.updates, self.samples, self.finished)

    def unfit(self, push: Push) -> str:
        """Why this push cannot be applied, whoever sent it ("" if it can)."""
        if len(push.gradient) != self._length or push.gradient.nbytes != self._nbytes:
            return (
                f"a gradient of {len(push.gradient)} elements, {push.gradient.nbytes} bytes; this shard has {self._length}, {self._nbytes}"
            )
        if push.sequence < 1 or push.gradients < 1 or push.samples < 0:
            return f"push {push.sequence} of {push.gradients} gradients, {push.samples} samples"
        return ""

    def refuse(self, sender: Sender, reason: str) -> Outcome:
        self.node.record("refused", sender.label, 0, 0.0, reason)
        return Outcome(Refusal(reason))

    def finish(self, reason: str) -> None:
        """From now on nothing is applied; the first reason stays."""
        if not self.finished:
            self.finished = reason
            self.node.record("finished", "", self.updates, self.samples, reason)

    def due_snapshot(self) -> Snapshot | None:
        assert self._snapshot_every_s is not None
        if self.node.now() - self.snapshot_at < self._snapshot_every_s and not self.finished:
            return None
        self.snapshot_at = self.node.now()
        return self.snapshot()

    def snapshot(self) -> Snapshot:
        """A copy that later updates do not change."""
        state = {key: value.clone() if hasattr(value, "clone") else value for key, value in self.rule.state.items()}
        return Snapshot(self.parameters.clone(), state, dict(self.pushes.last), self.updates, self.samples, self.finished)
