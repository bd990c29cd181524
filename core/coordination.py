"""What passes between the coordinator of Sandblaster, its replicas and its shards (paper, section 4.2); also in synchronous SGD.

A *point* is a place at which the loss is evaluated, numbered by whoever chose it.  A replica computes the gradient at the
point over some portions of the data, has every shard stage the sum, and then reports the *bundle* to the coordinator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from core.messages import Behind, Finished, Reply, Request
from core.operations import Operation
from core.portions import BundleId


class Done(NamedTuple):
    """A bundle that every shard has staged: `loss` is the sum over its samples, `sequence` that of its push."""

    point: int
    sequence: int
    portions: tuple[int, ...]
    loss: float
    samples: int


@dataclass(slots=True, eq=False)
class Task(Reply):
    """Compute the sum of the gradients of these portions at that point; none: ask again."""

    point: int = 0
    portions: tuple[int, ...] = ()


@dataclass(slots=True, eq=False)
class Want(Request[Task | Finished]):
    """A replica reports what it has done, if anything, and asks for more.  Repeating it changes nothing."""

    done: Done | None = None


class Gather(NamedTuple):
    """A vector becomes the sum of these staged bundles, times a number."""

    into: str
    bundles: tuple[BundleId, ...]
    scale: float


@dataclass(slots=True, eq=False)
class Values(Reply):
    """Carried out: the numbers that the operations yield, of this shard's slice."""

    numbers: tuple[float, ...] = ()


@dataclass(slots=True, eq=False)
class Missing(Reply):
    """Not carried out: these bundles are not staged here."""

    bundles: tuple[BundleId, ...]


@dataclass(slots=True, eq=False)
class Operate(Request[Values | Missing | Behind | Finished]):
    """What a shard shall do with its slices of named vectors, all of it or nothing: first gather, then the operations.

    `number` counts the requests of this life of the coordinator from 1; `after` is the last that this shard carried out, so that
    one which has lost something says Behind.  `point`: from now on the vector "point" is that one, and what was staged for an
    earlier one is dropped.  `step`: this is the coordinator's step of that number, a change of the parameters (0: none is).
    `memo`: what a later life of the coordinator must know from now on ("": as before).
    """

    number: int
    after: int
    operations: tuple[Operation, ...] = ()
    gather: Gather | None = None
    point: int = 0
    step: int = 0
    memo: str = ""


@dataclass(slots=True, eq=False)
class Memory(Reply):
    """What a shard knows: the memo it was given last ("": none), the names of its vectors, and why it finished ("": it has not)."""

    memo: str
    vectors: tuple[str, ...]
    finished: str
    after: int
    """The last request of this life of the coordinator that was carried out."""


@dataclass(slots=True, eq=False)
class Recall(Request[Memory]):
    """A life of the coordinator announces itself, so that earlier ones are refused, and asks what they left."""
