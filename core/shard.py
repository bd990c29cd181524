"""The parameter shard: the one server of Downpour (paper, section 4.1).

It owns a slice of the parameters, applies each push exactly once by its rule, and answers fetches.  Shards know nothing of
each other: a push to several of them is several pushes, and one may land where another is lost (allowed, and counted).
It also judges when the job is over, since every update passes here; it then applies nothing more and says so to whoever
pushes, so that each shard ends after exactly the updates that were asked for.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, Protocol, Self

from core.job import Job
from core.messages import Accepted, Ask, Entry, Fetch, Finish, Finished, Join, Parameters, Progress, Push, Refusal, Request, Sender
from core.node import Node, Outcome
from core.pushes import Admission, Pushes
from core.reports import Status
from core.rules import Rule
from core.vector import NARROW, narrowed
from core.work import Cost


class Trail(Protocol):
    """Where a shard's changes go, so that they outlive it: see `core/durability.py`."""

    def add(self, entry: Entry) -> asyncio.Future[None] | None:
        """Take the next entry; the future ends when it is durable, None if nobody is to wait for that."""

    def settled(self) -> asyncio.Future[None] | None:
        """Ends when everything added so far is durable; None if it is."""


class NoTrail:
    """Nothing outlives the shard but its snapshots."""

    def add(self, _: Entry) -> None:
        return None

    def settled(self) -> None:
        return None


class Shard:
    """One life of a parameter shard.

    `core/staging.py` is one that stages pushes instead; it overrides `over`, `note`, `apply` and `judge_end`.
    """

    def __init__(self, node: Node, job: Job, parameters: Any, rule: Rule) -> None:
        """`parameters` is this shard's own vector from here on; nobody else may hold it."""
        self.node, self.rule = node, rule
        self._update_limit = math.inf if job.stop.updates is None else job.stop.updates
        self._sample_limit = math.inf if job.stop.samples is None else job.stop.samples
        self._time_limit_s, self._narrow = job.stop.time_s, job.wire
        self.parameters = parameters
        self.pushes = Pushes()
        self.trail: Trail = NoTrail()
        self.on_finished: Callable[[], None] = lambda: None
        self.updates = self.samples = 0
        self.position = 0
        """Number of the last entry: whatever changed this shard is one."""
        self.finished = ""
        self._staleness = 0.0
        self._published: Parameters | None = None  # the copy that fetches between two updates share
        self._length = len(parameters)
        self._pushed_nbytes = NARROW[job.wire] * len(parameters) if job.wire in NARROW else parameters.nbytes
        self.cost_of_update = Cost(0.0, rule.traffic * parameters.nbytes)
        self._cost_of_copy = Cost(0.0, 2 * parameters.nbytes)
        rule.start(parameters)

    def handle(self, request: Request[Any], sender: Sender) -> Outcome:
        """Carry out one request, atomically."""
        if isinstance(request, Push):
            return self.push(request, sender)
        if self.pushes.outlived(sender):
            return self.refuse(sender, f"{sender.name} lives a later life than {sender.incarnation}")
        if isinstance(request, Fetch):
            return self.fetch(request)
        if isinstance(request, Join):
            self.pushes.join(sender)
        elif isinstance(request, Finish):
            self.finish(request.reason or "told to", sender)
            return Outcome(self.progress(), durable=self.trail.settled())
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
            return Outcome(Accepted(self.updates), durable=self.trail.settled())
        if reason := self.over(push):
            return Outcome(Finished(reason), durable=self.trail.settled())
        self.note(sender, push)
        self.apply(sender, push)
        durable = self.trail.add(Entry(self.position, sender, push, self.updates))
        self.judge_end()
        return Outcome(Accepted(self.updates), self.cost_of_update, durable)

    def over(self, _: Push) -> str:
        """Why this push will never be applied ("": it will be now)."""
        if self._time_limit_s is not None and self.node.now() >= self._time_limit_s:
            self.finish(f"{self._time_limit_s:g} s")
        return self.finished

    def note(self, sender: Sender, push: Push) -> None:
        """Write down that a push counts now."""
        staleness = self.staleness(push)
        self._staleness += staleness
        self.node.record("applied", sender.label, push.sequence, staleness)

    def staleness(self, push: Push) -> int:
        """Of a push that is to be applied next; the same when it is replayed, since that happens in the same place."""
        return max(0, self.updates - push.based_on)  # a restored shard may stand before what was based on

    def apply(self, sender: Sender, push: Push) -> None:
        """One update."""
        self.pushes.count(sender, push.sequence)
        self.rule.apply(self.parameters, push.gradient, self.staleness(push))
        self._published = None
        self.updates += 1
        self.samples += push.samples
        self.position += 1

    def judge_end(self) -> None:
        if self.updates >= self._update_limit:
            self.finish(f"{self.updates} updates")
        elif self.samples >= self._sample_limit:
            self.finish(f"{self.samples} samples")

    def replay(self, entry: Entry) -> None:
        """Do again what an earlier life did, or what the shard did whose mirror this is."""
        assert entry.number == self.position + 1, f"entry {entry.number} after {self.position}"
        if isinstance(entry.change, Push):
            self.apply(entry.sender, entry.change)
        elif isinstance(entry.change, Finish):
            self.position += 1
            self.finished = entry.change.reason
        else:
            raise AssertionError(f"a {type(entry.change).__name__} changes nothing here")

    def fetch(self, fetch: Fetch) -> Outcome:
        """What fetches between two updates are told is one and the same copy, unless they bring a place for one of their own."""
        if fetch.room is not None:
            return Outcome(Parameters(fetch.room.copy_(self.shown()), self.progress()), self._cost_of_copy)
        if self._published is not None and self._published.progress.finished == self.finished:
            return Outcome(self._published)
        self._published = Parameters(fetch.copied(self.shown()), self.progress())
        return Outcome(self._published, self._cost_of_copy)

    def shown(self) -> Any:
        """The parameters in the type in which they travel; to be copied at once."""
        return self.parameters if self._narrow == "float32" else narrowed(self.parameters, self._narrow)

    def progress(self) -> Progress:
        return Progress(self.updates, self.samples, self.finished)

    def unfit(self, push: Push) -> str:
        """Why this push cannot be applied, whoever sent it ("" if it can)."""
        if len(push.gradient) != self._length or push.gradient.nbytes != self._pushed_nbytes:
            found = f"{len(push.gradient)} elements, {push.gradient.nbytes} bytes"
            return f"a gradient of {found}; this shard takes {self._length}, {self._pushed_nbytes}"
        if push.sequence < 1 or push.gradients < 1 or push.samples < 0:
            return f"push {push.sequence} of {push.gradients} gradients, {push.samples} samples"
        return ""

    def refuse(self, sender: Sender, reason: str) -> Outcome:
        self.node.record("refused", sender.label, 0, 0.0, reason)
        return Outcome(Refusal(reason))

    def finish(self, reason: str, sender: Sender | None = None) -> None:
        """From now on nothing is applied; the first reason stays."""
        if not self.finished:
            self.finished = reason
            self.position += 1
            self.node.record("finished", "", self.updates, self.samples, reason)
            told_by = sender or Sender(self.node.name, self.node.incarnation)
            self.trail.add(Entry(self.position, told_by, Finish(reason), self.updates))
            self.on_finished()

    @property
    def nbytes(self) -> int:
        """Of a snapshot, nearly."""
        return int(self.parameters.nbytes) + sum(int(getattr(vector, "nbytes", 0)) for vector in self.rule.state.values())

    def status(self) -> Status:
        return Status(self.updates, self.finished, staleness=self._staleness / self.updates if self.updates else 0.0)

    def snapshot(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Everything a shard needs to come back, of one and the same moment: manifest and vectors, as `Store.write` takes them.

        The vectors are copies that later updates do not change.
        """
        vectors = {"parameters": self.parameters, **{key: value for key, value in self.rule.state.items() if hasattr(value, "clone")}}
        manifest = {
            "position": self.position, "updates": self.updates, "samples": self.samples, "finished": self.finished,
            "last": {sender: list(mark) for sender, mark in sorted(self.pushes.last.items())},
            "state": {key: value for key, value in self.rule.state.items() if not hasattr(value, "clone")},
            "vectors": sorted(vectors),
        }  # fmt: skip
        return manifest, {key: vector.clone() for key, vector in vectors.items()}

    @classmethod
    def restored(cls, node: Node, job: Job, rule: Rule, manifest: dict[str, Any], vectors: dict[str, Any]) -> Self:
        """A shard that goes on from a snapshot; the vectors are its own from here on."""
        rule.state.update(manifest["state"], **{key: vector for key, vector in vectors.items() if key != "parameters"})
        shard = cls(node, job, vectors["parameters"], rule)
        shard.pushes.last.update({sender: (life, sequence) for sender, (life, sequence) in manifest["last"].items()})
        for key in ("position", "updates", "samples", "finished"):
            setattr(shard, key, manifest[key])
        return shard
