"""What the roles of one job have agreed on before it starts: who they are, how they share the work, when it is over."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import Literal

from core.pushes import BUNDLES
from core.timings import Timings

Durability = Literal["none", "snapshot", "mirror", "log"]
Wire = Literal["float32", "bfloat16", "float16"]

EVALUATOR = "evaluator"
SUPERVISOR = "supervisor"
COORDINATOR = "coordinator"

LIVES_STAGED = 8
"""Gradients of one replica that a shard stages in one step of synchronous SGD: so many of its lives may end in the midst of it."""


@functools.cache
def replica_name(number: int, partition: int | None = None) -> str:
    """Of a replica, or of one of the machines that it is split over: "replica/3", "replica/3/1".

    The same name is the same object: each of its machines knows all of them, and compares them with whoever sends it something.
    """
    return f"replica/{number}" if partition is None else f"replica/{number}/{partition}"


def shard_name(number: int) -> str:
    return f"shard/{number}"


def agent_name(number: int) -> str:
    return f"agent/{number}"


def mirror_of(shard: str) -> str:
    """The mirror/2 of "shard/2"."""
    return f"mirror/{role_number(shard)}"


def shard_of(mirror: str) -> str:
    """The shard/2 of "mirror/2"."""
    return f"shard/{role_number(mirror)}"


def role_kind(name: str) -> str:
    """The replica of "replica/3"."""
    return name.partition("/")[0]


def role_number(name: str) -> int:
    """The 3 of "replica/3", and of "replica/3/1"."""
    return int(name.split("/")[1])


def partition_number(name: str) -> int:
    """The 1 of "replica/3/1"; 0 of "replica/3"."""
    return int(number) if (number := "".join(name.split("/")[2:])) else 0


def unit_of(name: str) -> str:
    """Those that live and die together: the "replica/3" of "replica/3/1"; of all others, themselves."""
    return name if name.count("/") < 2 else name.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Stop:
    """When the job is over: whichever comes first.  Shards judge the first three, the evaluator the others."""

    updates: int | None = None
    samples: int | None = None
    time_s: float | None = None
    loss: float | None = None
    accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class Shared:
    """One shard and the slice of the parameters it owns; `partition`: the machine of each replica that has these."""

    name: str
    part: slice
    partition: int = 0


VECTORS_OF_A_SEARCH = 8
"""Parameters, direction, point, the gradients there and of the trials that bracket a step."""


@dataclass(frozen=True, slots=True)
class Sandblaster:
    """What Sandblaster L-BFGS is run with; `scenarios/schema.py` says what each means."""

    portions: int
    bundle: int = 4
    copies: int = 1
    minimum_age: float = 1.5
    memory: int = 10
    direction: Literal["vector-free", "two-loop"] = "vector-free"
    line_search: Literal["wolfe", "armijo"] = "wolfe"
    evaluations: int = 25
    iterations: int | None = None
    gradient: float = 1e-5
    relative_loss: float = 1e-9
    job_start_up_s: float = 0.0
    keeps: bool = True
    """Do replicas keep the parameters of a point, and come back to portions that they had before?  Tasks of MapReduce do not."""
    warm: Stop | None = None
    """When Downpour, which goes before it, is over on a shard: after updates or samples."""

    @property
    def vectors(self) -> int:
        """As long as a shard's slice, that it holds at once: the history's pairs, the bundles of a cover, and those of a line search."""
        return 2 * self.memory + -(-self.portions // self.bundle) + VECTORS_OF_A_SEARCH

    @property
    def staged_limit(self) -> int:
        """Bundles of one point that a shard stages: each portion in a bundle and singly, and as much again by copies."""
        return 2 * (1 + self.copies) * self.portions


@dataclass(frozen=True, slots=True)
class Synchronous:
    """What synchronous SGD is run with: `gradients` of a step, and when the coordinator ends it."""

    gradients: int
    updates: int | None = None
    samples: int | None = None
    """Of the gradients that steps were taken with."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job of Downpour, or of Sandblaster or synchronous SGD where that is given; with a warm start, of the first before the second.

    `n_fetch`, `n_push`: steps between fetches and between pushes (paper, section 4.1).  `local_rate`: the replica's own
    alpha.  `max_behind`: gradients a replica may accrue for a shard before it waits for that shard.  `warm_updates`:
    updates that one replica makes alone before the others begin.  `deadline_s`: after which a call counts as unanswered.
    `durability`: what an acknowledgement promises (`core/durability.py`).
    """

    shards: tuple[Shared, ...]
    replicas: int
    stop: Stop = field(default_factory=Stop)
    n_fetch: int = 1
    n_push: int = 1
    local_rate: float = 0.0
    max_behind: int = 8
    warm_updates: int = 0
    deadline_s: float = 10.0
    evaluate_every_s: float = 10.0
    durability: Durability = "none"
    snapshot_every_s: float = 30.0
    wire: Wire = "float32"
    timings: Timings = field(default_factory=Timings)
    sandblaster: Sandblaster | None = None
    synchronous: Synchronous | None = None
    partitions: int = 1
    """Machines of a replica."""

    @property
    def warm(self) -> Stop | None:
        """Of Sandblaster's warm start, if there is one."""
        return self.sandblaster.warm if self.sandblaster is not None else None

    @property
    def bundles_from(self) -> int:
        """A push with a higher number is a bundle, one with a lower is Downpour's."""
        return BUNDLES if self.warm is not None else 0

    @property
    def staged_limit(self) -> int:
        """Bundles of one point that a shard stages for the coordinator to choose from; 0 where it applies whatever comes."""
        if self.sandblaster is not None:
            return self.sandblaster.staged_limit
        return LIVES_STAGED * self.replicas if self.synchronous is not None else 0

    def of_partition(self, number: int) -> Job:
        """The job as that machine of a replica has it: with the shards of its own parameters, by their place in its own vector."""
        own = [shared for shared in self.shards if shared.partition == number]
        first = min((shared.part.start for shared in own), default=0)
        parts = [slice(shared.part.start - first, shared.part.stop - first) for shared in own]
        return replace(self, shards=tuple(replace(shared, part=part) for shared, part in zip(own, parts, strict=True)))

    @property
    def poll_s(self) -> float:
        """How often a replica that waits for its turn asks."""
        return self.deadline_s / 20
