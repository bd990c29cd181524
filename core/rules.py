"""Update rules: how a shard folds a pushed gradient into its parameters (paper, section 4.1).

Each rule keeps its state as vectors as long as the shard's slice, in place, block by block while the block is in cache.
`traffic` says how many vector lengths one application reads and writes: an update is bound by memory, and the simulator
charges it so.  Symbols: w parameters, g gradient, gamma the learning rate.

`staleness`: updates between a gradient's parameters and its application.  A rule that is aware of it divides gamma by it (Zhang, Gupta,
Lian, Liu, *Staleness-aware async-SGD for distributed deep learning*, arXiv 1511.05950); what it keeps as its state is not divided.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from core.vector import adagrad_, blocks

TINY = 1e-20
"""Above the root of the least float32 square (3.7e-23), below any gradient that matters: see `Adagrad`."""


class Rule(Protocol):
    """One shard's rule with its state."""

    traffic: ClassVar[int]
    state: dict[str, Any]

    def start(self, parameters: Any) -> None:
        """Make the state for a slice, unless it was restored."""

    def apply(self, parameters: Any, gradient: Any, staleness: int = 0) -> None:
        """One update, in place."""


@dataclass(slots=True)
class Descent:
    """What all rules have that step down a gradient."""

    learning_rate: float
    staleness_aware: bool = field(default=False, kw_only=True)
    state: dict[str, Any] = field(default_factory=dict, kw_only=True)

    def rate(self, staleness: int) -> float:
        """For one update."""
        return self.learning_rate / max(1, staleness) if self.staleness_aware else self.learning_rate


@dataclass(slots=True)
class Sgd(Descent):
    """w -= gamma g."""

    traffic: ClassVar[int] = 3

    def start(self, parameters: Any) -> None:
        """No state."""

    def apply(self, parameters: Any, gradient: Any, staleness: int = 0) -> None:
        for w, g in blocks(parameters, gradient):
            w.add_(g, alpha=-self.rate(staleness))


@dataclass(slots=True)
class Momentum(Descent):
    """v = mu v + g;  w -= gamma v  (heavy ball, as torch.optim.SGD)."""

    momentum: float = 0.9
    traffic: ClassVar[int] = 5

    def start(self, parameters: Any) -> None:
        self.state.setdefault("velocity", parameters.new_zeros(len(parameters)))

    def apply(self, parameters: Any, gradient: Any, staleness: int = 0) -> None:
        for w, g, v in blocks(parameters, gradient, self.state["velocity"]):
            v.mul_(self.momentum).add_(g)
            w.add_(v, alpha=-self.rate(staleness))


@dataclass(slots=True)
class Adagrad(Descent):
    """w_i -= gamma g_i / sqrt(sum over all pushes j, this one included, of g_ij^2)  (paper, section 4.1, no epsilon).

    A coordinate whose gradients were all zero would divide zero by zero; the root is `TINY` more, where the quotient is 0 for
    a zero gradient and less than 1 for one so small that its square vanished, and every other root stays what it is.
    """

    traffic: ClassVar[int] = 5

    def start(self, parameters: Any) -> None:
        self.state.setdefault("squares", parameters.new_zeros(len(parameters)))

    def apply(self, parameters: Any, gradient: Any, staleness: int = 0) -> None:
        adagrad_(blocks(parameters, gradient, self.state["squares"]), self.rate(staleness), TINY)


@dataclass(slots=True)
class Adam(Descent):
    """Kingma and Ba, 2015, algorithm 1, with its bias correction; t counts this shard's updates."""

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    traffic: ClassVar[int] = 7

    def start(self, parameters: Any) -> None:
        self.state.setdefault("mean", parameters.new_zeros(len(parameters)))
        self.state.setdefault("square", parameters.new_zeros(len(parameters)))
        self.state.setdefault("t", 0)

    def apply(self, parameters: Any, gradient: Any, staleness: int = 0) -> None:
        self.state["t"] += 1
        t = self.state["t"]
        rate = self.rate(staleness) / (1 - self.beta1**t)
        root = math.sqrt(1 - self.beta2**t)
        for w, g, m, v in blocks(parameters, gradient, self.state["mean"], self.state["square"]):
            m.mul_(self.beta1).add_(g, alpha=1 - self.beta1)
            v.mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)
            w.addcdiv_(m, v.sqrt().div_(root).add_(self.epsilon), value=-rate)


@dataclass(slots=True)
class NoRule:
    """Nothing is ever applied: in Sandblaster the coordinator says what becomes of the parameters."""

    state: dict[str, Any] = field(default_factory=dict)
    traffic: ClassVar[int] = 0

    def start(self, parameters: Any) -> None:
        """No state."""

    def apply(self, parameters: Any, gradient: Any, staleness: int = 0) -> None:  # noqa: ARG002  a rule's signature
        raise AssertionError("a gradient reached a shard that applies none")


RULES: dict[str, type[Rule]] = {"sgd": Sgd, "momentum": Momentum, "adagrad": Adagrad, "adam": Adam}
