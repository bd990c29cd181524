"""Synchronous SGD with backup workers (Chen et al., Revisiting distributed synchronous SGD, 2016): what Downpour is measured by.

    until it has had its updates                              Steps.run
      N + b replicas: the gradient of a minibatch, all at     core/sandblaster.replica, over `OwnMinibatches`
        the same parameters
      take the first N that arrive, of distinct replicas;     Gradients
        the others are dropped
      shards: gather their mean, apply the rule to it, be     one request, with the memo of what it is
        at the next point

A step is one change of each shard, which a next life of the coordinator has the others take if some have: `core/tenure.py`.  A
gradient waits on the shards until it is chosen, as a bundle of Sandblaster's does, and what was not is forgotten with its point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from core.coordination import Gather
from core.job import Job
from core.lbfgs import GRADIENT, PARAMETERS
from core.node import Node
from core.operations import Combine, Update, total
from core.portions import Assignment, BundleId, Counters, Decision, Staged
from core.staging import POINT
from core.tenure import Setback, Tenure, Unstaged
from core.work import Diverged, Minibatches

NEXT = Combine(POINT, ((PARAMETERS, 1.0),))
"""Gradients are wanted where the parameters are now."""


@dataclass(frozen=True, slots=True)
class Taken:
    """So many steps, with gradients of so many samples; the mean loss of the last step's, where it began."""

    iteration: int = 0
    samples: int = 0
    loss: float = math.inf

    def anew(self) -> Taken:
        """Of what a step needs, nothing is lost with the vectors."""
        return self

    def in_words(self) -> str:
        return f"{self.samples} samples"


class Steps(Tenure[Taken]):
    """One life's work on the shards: step after step."""

    beginning = Taken

    def __init__(self, node: Node, job: Job) -> None:
        assert job.synchronous is not None
        super().__init__(node, job)
        self.options = job.synchronous

    async def run(self) -> str:
        taken = await self.take_over()
        point = self.next_point()
        await self.shards.carry_out([NEXT], point=point)
        while not (reason := self.over(taken)):
            gradients = Gradients(taken.iteration + 1, self.options.gradients)
            self.desk.open(point, gradients)
            await self.covered(gradients)
            self.desk.close()
            if not math.isfinite(gradients.loss()):
                raise Diverged(f"the loss of step {gradients.step} is {gradients.loss()}")
            point = self.next_point()
            taken = await self.take(gradients, Taken(gradients.step, taken.samples + gradients.samples(), gradients.loss()), point)
        return reason

    async def take(self, gradients: Gradients, taken: Taken, point: int) -> Taken:
        """One step with the mean of these, to that point.

        Where shards have lost one of them, others may have taken the step: it is for `take_over` to see what is to be done.
        """
        gather = Gather(GRADIENT, gradients.cover(), 1.0 / gradients.samples())
        try:
            await self.commit(taken, [Update(GRADIENT), NEXT], gather=gather, point=point)
        except Unstaged as unstaged:
            raise Setback(f"step {taken.iteration}: {unstaged} lost") from None
        return taken

    def over(self, taken: Taken) -> str:
        """Which stop condition has come, "" for none; time is `commit`'s to judge, loss and accuracy the evaluator's."""
        if self.options.updates is not None and taken.iteration >= self.options.updates:
            return f"{taken.iteration} updates"
        if self.options.samples is not None and taken.samples >= self.options.samples:
            return f"{taken.samples} samples"
        return ""


class Gradients:
    """Which gradients one step is taken with: the first so many, of distinct replicas (`core.desk.Ledger`).

    A replica has one minibatch in a step, and its portion has the step's number.
    """

    usual_s = None

    def __init__(self, step: int, wanted: int) -> None:
        self.step, self.wanted = step, wanted
        self._staged: dict[str, Staged] = {}
        """By replica, in the order of arrival."""
        self._at_work: set[tuple[str, int]] = set()
        self._too_many = 0

    def give(self, replica: str, life: int) -> Assignment | None:
        """None where it has done its part, or comes too late; one that asks again has not heard the answer."""
        if self.complete or replica in self._staged:
            return None
        again = (replica, life) in self._at_work
        self._at_work.add((replica, life))
        return Assignment((self.step,), again, f"step {self.step}")

    def arrived(self, bundle: BundleId, portions: tuple[int, ...], loss: float, samples: int) -> tuple[Decision, str]:
        """All shards hold this gradient: new (it counts), repeated (it was reported before) or useless (it never counts)."""
        mine = self._staged.get(bundle.replica)
        if mine is not None and mine.bundle == bundle:
            return Decision.REPEATED, "reported before"
        if portions != (self.step,) or (bundle.replica, bundle.life) not in self._at_work:
            return Decision.USELESS, f"{bundle.replica}#{bundle.life} was not given that"
        if mine is not None or self.complete:
            self._too_many += 1
            return Decision.USELESS, f"{mine.bundle.label} has come before" if mine else f"the step has its {self.wanted}"
        self._staged[bundle.replica] = Staged(bundle, portions, loss, samples, backup=False)
        return Decision.NEW, f"{len(self._staged)} of {self.wanted}"

    def gone(self, replica: str, life: int) -> None:
        """Its gradient counts if it has arrived, and its next life computes one if it has not: see `give`."""

    @property
    def standing(self) -> str:
        """For an operator."""
        return f"{len(self._staged)} of {self.wanted} gradients"

    @property
    def complete(self) -> bool:
        return len(self._staged) == self.wanted

    def cover(self) -> tuple[BundleId, ...]:
        """Those that count, in the order of arrival."""
        assert self.complete, f"{len(self._staged)} of {self.wanted} gradients have arrived"
        return tuple(staged.bundle for staged in self._staged.values())

    def loss(self) -> float:
        """The mean of the samples'; exactly, since `sum` rounds otherwise on Python 3.12 than on 3.11."""
        return total(staged.loss for staged in self._staged.values()) / self.samples()

    def samples(self) -> int:
        return sum(staged.samples for staged in self._staged.values())

    @property
    def counters(self) -> Counters:
        return Counters(len(self._at_work), 0, 0, self._too_many)


class OwnMinibatches:
    """A replica's minibatches, as portions that have the steps' numbers: `core.work.Portioned`."""

    def __init__(self, minibatches: Minibatches) -> None:
        self.portion = minibatches.minibatch
