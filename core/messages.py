"""What passes between roles: requests, their replies, and what can become of a call.

A request that changes state can be repeated safely, because of what it carries: a push its sequence, a join its sender's
life.  Requests and replies are values, never changed once made; they are not frozen only because that doubles the cost
of making one, and the simulator makes a hundred thousand a second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

R = TypeVar("R")


@dataclass(slots=True, eq=False)
class Sender:
    """Who asks: a role, and which life of it; `label` is both, as the journal writes them."""

    name: str
    incarnation: int
    label: str = ""

    def __post_init__(self) -> None:
        self.label = f"{self.name}#{self.incarnation}"


@dataclass(slots=True, eq=False)
class Request(Generic[R]):
    """Something asked of a peer, to be answered with an `R`."""

    payload: ClassVar[Any] = None
    """The vector that travels with it, if any does; replies have the same."""


class Reply:
    """What a request is answered with."""

    __slots__ = ()
    payload: ClassVar[Any] = None


@dataclass(slots=True, eq=False)
class Progress(Reply):
    """How far a shard is: updates it applied, samples these were computed from, and why it finished ("" while it has not)."""

    updates: int
    samples: int
    finished: str = ""


@dataclass(slots=True, eq=False)
class Join(Request[Progress]):
    """A replica's new life announces itself to a shard: from now on every earlier life of it is stale there."""


@dataclass(slots=True, eq=False)
class Ask(Request[Progress]):
    """How far are you?"""


@dataclass(slots=True, eq=False)
class Finish(Request[Progress]):
    """The job has reached what it was for: apply nothing more, and tell whoever pushes."""

    reason: str


@dataclass(slots=True, eq=False, weakref_slot=True)
class Parameters(Reply):
    """A shard's slice of the parameters after `progress.updates` updates.

    The vector does not change as long as this reply is held; whoever wants it for longer copies it.
    """

    vector: Any
    progress: Progress

    @property
    def payload(self) -> Any:
        return self.vector


def clone(vector: Any) -> Any:
    """A copy that is of the same kind."""
    return vector.clone()


@dataclass(slots=True, eq=False)
class Fetching(Request[R]):
    """Ask a shard for a slice.

    `into`: a buffer that the asking host may receive the answer in.  `room`: memory of the asking process in which the shard
    may lay its slice at once, where the serving host can see that.  `copied`: how the serving host wants the shard's copy else,
    for instance cut as it will travel.  None of them travels.
    """

    into: Any = field(default=None, repr=False)
    room: Any = field(default=None, repr=False)
    copied: Callable[[Any], Any] = field(default=clone, repr=False)


@dataclass(slots=True, eq=False)
class Fetch(Fetching[Parameters]):
    """Of the parameters as they are now."""


@dataclass(slots=True, eq=False)
class FetchPoint(Fetching["Parameters | Behind"]):
    """Of the parameters at a point where a coordinator wants gradients; Behind where the shard is not there, or not any more."""

    point: int = 0


@dataclass(slots=True, eq=False)
class Accepted(Reply):
    """The push is counted, now or when it first came; `updates` counts the shard's updates up to this reply."""

    updates: int


@dataclass(slots=True, eq=False)
class Finished(Reply):
    """The push was not applied and never will be: the job is over."""

    reason: str


@dataclass(slots=True, eq=False)
class Push(Request["Accepted | Finished"]):
    """Accrued gradients for one shard.

    `sequence` counts this sender's pushes to this shard from 1, within one life; `gradient` is their sum over `gradients`
    minibatches of together `samples` samples; `based_on` is how many updates the oldest of them had seen.
    """

    sequence: int
    gradient: Any = field(repr=False)
    gradients: int
    samples: int
    based_on: int

    @property
    def payload(self) -> Any:
        return self.gradient


@dataclass(slots=True, eq=False)
class Refusal(Reply):
    """The request was not carried out, and repeating it will not help."""

    reason: str


@dataclass(slots=True, eq=False)
class Entry:
    """One thing that changed a shard, in the order of `number`, which counts them from 1; what logs and mirrors are made of."""

    number: int
    sender: Sender
    change: Push | Finish | Request[Any]
    """The last is of Sandblaster: `core.coordination.Operate`."""
    updates: int = 0
    """Of the shard once it was changed so, for its own journal; does not travel."""


# What passes between a shard and its mirror.


@dataclass(slots=True, eq=False)
class Copy(Request["Accepted | Behind"]):
    """A shard's entry, for its mirror to hold before anybody is told of it."""

    entry: Entry

    @property
    def payload(self) -> Any:
        return self.entry.change.payload


@dataclass(slots=True, eq=False)
class Behind(Reply):
    """Whoever answers does not hold everything up to this: it never had, has lost it, or some of it has yet to come."""


@dataclass(slots=True, eq=False)
class Install(Request["Accepted | Behind"]):
    """One vector of a snapshot, for a mirror to begin from; `manifest` is the same JSON object with each of them.

    The mirror has it, and says so, once every vector that the manifest lists under "vectors" is there.
    """

    manifest: dict[str, Any]
    name: str
    vector: Any = field(repr=False)

    @property
    def payload(self) -> Any:
        return self.vector


class CallFailed(Exception):
    """Nothing is known about what became of the request: it may have been carried out."""


class Unreachable(CallFailed):
    """The peer's side is closed: no such process, a reset connection, or it lives another life by now."""


class TimedOut(CallFailed):
    """No answer within the deadline."""


class Refused(Exception):
    """The peer answered that it will not: a request out of its protocol, or a sender whose life is over."""


def misaddressed(job: str, own_job: str, addressee_life: int, own_life: int) -> str:
    """Why a host must not even look at a request ("" if it may): another job's, or meant for another life of this role.

    A caller that does not know the addressee's life yet says 0.
    """
    if job != own_job:
        return f"job {job!r} is not this job"
    if addressee_life not in (0, own_life):
        return f"meant for life {addressee_life}, this is life {own_life}"
    return ""
