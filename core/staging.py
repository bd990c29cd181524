"""The parameter shard of Sandblaster and of synchronous SGD: stages what is pushed, and does to its slices what the coordinator says.

Nothing that is staged counts by itself: the coordinator chooses bundles that hold each portion exactly once, the same on every
shard, and the sum of these is the gradient.  A shard that lacks one of them says so, and does nothing.  Requests of the
coordinator are numbered, carried out once and answered again; whoever has lost something notices that the number
before is not the last it knows.

With a warm start it is a shard of Downpour at first, and tells whoever pushes that this is over once it has made the updates or
seen the samples that were asked for, or has carried out anything for a coordinator.  To which of the two a push belongs is said by
its number, so that a log and a mirror do with it what the shard did.
"""

from __future__ import annotations

import math
from typing import Any, Self

from core.coordination import Gather, Memory, Missing, Operate, Recall, Values
from core.job import Job, unit_of
from core.messages import Behind, Entry, FetchPoint, Finished, Parameters, Push, Request, Sender
from core.node import Node, Outcome
from core.operations import Unknown, check, cost, run
from core.portions import BundleId
from core.pushes import Admission
from core.reports import Status
from core.rules import Rule
from core.shard import Shard
from core.vector import blocks
from core.work import Cost

POINT = "point"
"""The vector that replicas compute gradients at."""


class StagingShard(Shard):
    """One life of it."""

    def __init__(self, node: Node, job: Job, parameters: Any, rule: Rule) -> None:
        super().__init__(node, job, parameters, rule)
        self.vectors: dict[str, Any] = {"parameters": parameters}
        self.staged: dict[BundleId, Any] = {}
        self.staged_limit = job.staged_limit
        self.point = 0
        self.memo = ""
        self.answer = Values()
        """To the coordinator's last request."""
        self.bundles_from, warm = job.bundles_from, job.warm
        self.warm = warm is not None
        """Is it as yet a shard of Downpour?"""
        if warm is None:
            self.cost_of_update = self._cost_of_copy
        else:
            self._update_limit = math.inf if warm.updates is None else warm.updates
            self._sample_limit = math.inf if warm.samples is None else warm.samples

    def handle(self, request: Request[Any], sender: Sender) -> Outcome:
        """Carry out one request, atomically."""
        if isinstance(request, Operate):
            return self.operate(request, sender)
        if isinstance(request, Recall):
            if not self.pushes.join(sender):
                return self.refuse(sender, f"{sender.name} lives a later life than {sender.incarnation}")
            after = self.pushes.last[sender.name][1]
            return Outcome(Memory(self.memo, tuple(sorted(self.vectors)), self.finished, after), durable=self.trail.settled())
        if isinstance(request, FetchPoint):
            return self.fetch_point(request, sender)
        return super().handle(request, sender)

    # what replicas want

    def fetch_point(self, fetch: FetchPoint, sender: Sender) -> Outcome:
        """The slice at that point; Behind where this is not the point yet, or not any more."""
        if self.pushes.outlived(sender):
            return self.refuse(sender, f"{sender.name} lives a later life than {sender.incarnation}")
        shown = self.vectors.get(POINT)  # none, when a coordinator's next life has dropped what was under way
        if fetch.point != self.point or shown is None:
            return Outcome(Behind())
        vector = fetch.copied(shown) if fetch.room is None else fetch.room.copy_(shown)
        return Outcome(Parameters(vector, self.progress()), self._cost_of_copy)

    def unfit(self, push: Push) -> str:
        """Besides: there is no room for ever more bundles of one point, of which no coordinator has that many."""
        if self.is_bundle(push) and len(self.staged) >= self.staged_limit:
            return f"{len(self.staged)} bundles are staged already; the limit is {self.staged_limit}"
        return super().unfit(push)

    def is_bundle(self, push: Push) -> bool:
        return push.sequence > self.bundles_from

    def over(self, push: Push) -> str:
        """Why a push need not be staged or applied any more."""
        if not self.is_bundle(push):
            return self.warmed or super().over(push)
        return self.finished or ("" if push.based_on == self.point else f"point {push.based_on} is over")

    def apply(self, sender: Sender, push: Push) -> None:
        """Stage one bundle: a copy of one's own, in the parameters' type.  A push of Downpour is an update."""
        if not self.is_bundle(push):
            super().apply(sender, push)
            return
        self.pushes.count(sender, push.sequence)
        mine = self.parameters.clone()
        for into, part in blocks(mine, push.gradient):
            into.copy_(part)
        self.staged[BundleId(unit_of(sender.name), sender.incarnation, push.sequence)] = mine
        self.samples += push.samples
        self.position += 1

    def note(self, sender: Sender, push: Push) -> None:
        if self.is_bundle(push):
            self.node.record("staged", sender.label, push.sequence, push.gradients)
        else:
            super().note(sender, push)

    # the warm start

    @property
    def warmed(self) -> str:
        """Why no push of Downpour is applied any more ("": it is)."""
        if not self.warm:
            return "the warm start is over"
        if self.updates >= self._update_limit:
            return f"warm after {self.updates} updates"
        return f"warm after {self.samples} samples" if self.samples >= self._sample_limit else ""

    def judge_end(self) -> None:
        """Only of the warm start: when Sandblaster is over is the coordinator's to say."""
        if self.warm and self.warmed:
            self.node.record("warmed", "", self.updates, self.samples, self.warmed)

    def begin(self) -> None:
        """Updates are the coordinator's alone from now on."""
        self.warm = False
        self.rule.state.clear()
        self.cost_of_update = self._cost_of_copy

    # what the coordinator wants

    def operate(self, operate: Operate, sender: Sender) -> Outcome:
        admission = self.pushes.judge(sender, operate.number)
        if admission is Admission.STALE:
            return self.refuse(sender, f"request {operate.number} of life {sender.incarnation} is older than one carried out")
        if admission is Admission.REPEATED:
            return Outcome(self.answer, durable=self.trail.settled())
        if hindrance := self.hindrance(operate, sender):
            return Outcome(hindrance, durable=self.trail.settled())
        charged = self.cost_of(operate)
        if operate.point and self.staged:
            self.node.record("cleared", "", len(self.staged), len(self.staged) * self.parameters.nbytes)
        if self.warm and not self.warmed:
            self.node.record("warmed", "", self.updates, self.samples, f"{sender.label} has begun")
        self.carry_out(operate, sender)
        if operate.step:
            self.node.record("applied", sender.label, operate.step)
        return Outcome(self.answer, charged, self.trail.add(Entry(self.position, sender, operate, self.updates)))

    def hindrance(self, operate: Operate, sender: Sender) -> Finished | Behind | Missing | None:
        """Why this cannot be carried out here."""
        if self.finished:
            return Finished(self.finished)
        if self.pushes.last.get(sender.name) != (sender.incarnation, operate.after) or not self.knows(operate):
            return Behind()
        missing = tuple(one for one in operate.gather.bundles if one not in self.staged) if operate.gather else ()
        return Missing(missing) if missing else None

    def knows(self, operate: Operate) -> bool:
        """Are all the vectors here that it needs?"""
        try:
            check(operate.operations, {*self.vectors, *([operate.gather.into] if operate.gather else [])})
        except Unknown:
            return False
        return True

    def carry_out(self, operate: Operate, sender: Sender) -> None:
        self.pushes.count(sender, operate.number)
        self.position += 1
        if self.warm:
            self.begin()
        if operate.gather:
            self.gather(operate.gather)
        self.answer = Values(tuple(run(operate.operations, self.vectors, self.rule)))
        if operate.point:
            self.point = operate.point
            self.staged.clear()
        if operate.step:
            self.updates += 1
            self._published = None
        self.memo = operate.memo or self.memo

    def gather(self, gather: Gather) -> None:
        """In the order in which the coordinator lists them, so that every life of a shard gets the same bits."""
        if gather.into not in self.vectors:
            self.vectors[gather.into] = self.parameters.new_zeros(len(self.parameters))
        into = self.vectors[gather.into]
        for part, *bundles in blocks(into, *(self.staged[bundle] for bundle in gather.bundles)):
            part.zero_()
            for bundle in bundles:
                part.add_(bundle)
            part.mul_(gather.scale)

    def cost_of(self, operate: Operate) -> Cost:
        spent = cost(operate.operations, self.parameters.nbytes, self.rule.traffic)
        gathered = (len(operate.gather.bundles) + 1) * self.parameters.nbytes if operate.gather else 0.0
        return Cost(spent.flops, spent.bytes + gathered)

    def replay(self, entry: Entry) -> None:
        if isinstance(entry.change, Operate):
            assert entry.number == self.position + 1, f"entry {entry.number} after {self.position}"
            self.carry_out(entry.change, entry.sender)
        else:
            super().replay(entry)

    # what is kept

    @property
    def nbytes(self) -> int:
        return super().nbytes + int(self.parameters.nbytes) * (len(self.vectors) - 1 + len(self.staged))

    def status(self) -> Status:
        status = super().status()
        status.staged_bytes = len(self.staged) * int(self.parameters.nbytes)
        return status

    def snapshot(self) -> tuple[dict[str, Any], dict[str, Any]]:
        manifest, vectors = super().snapshot()
        more = {name: vector for name, vector in self.vectors.items() if name != "parameters"}
        more |= {f"staged.{number}": vector for number, vector in enumerate(self.staged.values())}
        manifest["vectors"] = sorted(vectors | more)
        manifest["sandblaster"] = {
            "point": self.point, "memo": self.memo, "answer": list(self.answer.numbers), "staged": [list(bundle) for bundle in self.staged],
            "warm": self.warm, "rule": sorted(vectors.keys() - {"parameters"}),
        }  # fmt: skip
        return manifest, vectors | {name: vector.clone() for name, vector in more.items()}

    @classmethod
    def restored(cls, node: Node, job: Job, rule: Rule, manifest: dict[str, Any], vectors: dict[str, Any]) -> Self:
        kept = manifest["sandblaster"]
        bundles = [BundleId(*bundle) for bundle in kept["staged"]]
        staged = {bundle: vectors[f"staged.{number}"] for number, bundle in enumerate(bundles)}
        of_rule = kept["rule"]
        shard = super().restored(node, job, rule, manifest, {name: vectors[name] for name in ("parameters", *of_rule)})
        shard.vectors |= {name: v for name, v in vectors.items() if name not in of_rule and not name.startswith("staged.")}
        shard.staged, shard.point, shard.memo = staged, kept["point"], kept["memo"]
        shard.answer = Values(tuple(kept["answer"]))
        if shard.warm and not kept["warm"]:
            shard.begin()
        return shard
