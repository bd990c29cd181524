"""What passes between roles: requests, their replies, and what can become of a call.

A request that changes state can be repeated safely, because of what it carries: a push its sequence, a join its sender's
life.  Requests and replies are values, never changed once made; they are not frozen only because that doubles the cost
of making one, and the simulator makes a hundred thousand a second.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

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


@dataclass(slots=True, eq=False)
class Progress:
    """How far a shard is: updates it applied, samples these were computed from, and why it finished ("" while it has not)."""

    updates: int
    samples: int
    finished: str = ""
    payload: ClassVar[Any] = None


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
class Parameters:
    """A shard's slice of the parameters after `progress.updates` updates.

    The vector does not change as long as this reply is held; whoever wants it for longer copies it.
    """

    vector: Any
    progress: Progress

    @property
    def payload(self) -> Any:
        return self.vector


@dataclass(slots=True, eq=False)
class Fetch(Request[Parameters]):
    """Ask a shard for its slice.  `into`, if given, is a buffer that a host may receive the answer in; it never travels."""

    into: Any = field(default=None, repr=False)


@dataclass(slots=True, eq=False)
class Accepted:
    """The push is counted, now or when it first came; `updates` counts the shard's updates up to this reply."""

    updates: int
    payload: ClassVar[Any] = None


@dataclass(slots=True, eq=False)
class Finished:
    """The push was not applied and never will be: the job is over."""

    reason: str
    payload: ClassVar[Any] = None


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
class Refusal:
    """The request was not carried out, and repeating it will not help."""

    reason: str
    payload: ClassVar[Any] = None


@dataclass(slots=True, eq=False)
class Entry:
    """One thing that changed a shard, in the order of `number`, which counts them from 1; what logs and mirrors are made of."""

    number: int
    sender: Sender
    change: Push | Finish


# What passes between a shard and its mirror.


@dataclass(slots=True, eq=False)
class Copy(Request["Accepted | Behind"]):
    """A shard's entry, for its mirror to hold before anybody is told of it."""

    entry: Entry

    @property
    def payload(self) -> Any:
        return self.entry.change.payload


@dataclass(slots=True, eq=False)
class Behind:
    """The mirror lacks what came before this entry: it holds none, or entries up to another one only."""

    payload: ClassVar[Any] = None


@dataclass(slots=True, eq=False)
class Install(Request[Accepted]):
    """One vector of a snapshot, for a mirror to begin from; `manifest` is the same JSON object with each of them.

    The mirror has it once every vector that the manifest lists under "vectors" is there.
    """

    manifest: dict[str, Any]
    name: str
    vector: Any = field(repr=False)

    @property
    def payload(self) -> Any:
        return self.vector


# What passes between the supervisor and everybody else: `core/membership.py`.


@dataclass(slots=True, eq=False)
class Status:
    """How a role is doing, as far as an operator wants to see it."""

    updates: int = 0
    finished: str = ""
    synced: bool = False
    """Of a mirror: does it hold all that its shard has acknowledged?"""
    staleness: float = 0.0
    """Mean, of a shard."""
    loss: float | None = None
    accuracy: float | None = None
    """Of the evaluator's last look."""


@dataclass(slots=True, eq=False)
class Beat(Request["Standing"]):
    """A role's sign of life.  `address`: where it serves, "" for nowhere; `known`: the version of the roster it has."""

    address: str
    known: int
    status: Status


class Member(NamedTuple):
    """One line of the roster: who lives where."""

    name: str
    life: int
    address: str


@dataclass(slots=True, eq=False)
class Standing:
    """What a role should know.  `members`: those that changed since the version it had.

    `outlived`: a later life of it has been granted, so it should be gone.  `conclude`: why it should come to its end, "" for
    not yet.  `promoted`: the life of the shard that this mirror is from now on, 0 for none.
    """

    version: int
    members: tuple[Member, ...] = ()
    begun: bool = False
    outlived: bool = False
    conclude: str = ""
    promoted: int = 0
    payload: ClassVar[Any] = None


class Process(NamedTuple):
    """A process by the role and the life it was started for."""

    name: str
    life: int


class End(NamedTuple):
    """How a process ended: `clean` if it came to its end by itself; `how` with its last words."""

    process: Process
    clean: bool
    how: str


class Capacity(NamedTuple):
    """What a machine has.  `storage` names where it keeps files: machines with the same one see each other's."""

    cores: int = 1
    memory_bytes: int = 0
    gpus: int = 0
    storage: str = ""


@dataclass(slots=True, eq=False)
class Report(Request["Orders"]):
    """An agent's sign of life.  `boot` tells its lives apart; what ran under an earlier one is gone with it."""

    boot: int
    host: str
    """As a person knows the machine."""
    capacity: Capacity
    running: tuple[Process, ...] = ()
    ended: tuple[End, ...] = ()
    """Repeated until the supervisor no longer wants them."""


@dataclass(slots=True, eq=False)
class Orders:
    """Which processes should run on the machine: the agent starts what is not there, and ends what is not wanted."""

    wanted: tuple[Process, ...] = ()
    conclude: bool = False
    """The job is over: end whatever is left, and yourself."""
    payload: ClassVar[Any] = None


@dataclass(slots=True, eq=False)
class Inquire(Request["Overview"]):
    """An operator asks how the job is."""


@dataclass(slots=True, eq=False)
class Conclude(Request["Overview"]):
    """An operator, or the launcher, ends the job: what was learnt so far is kept."""

    reason: str


class RoleRow(NamedTuple):
    """What the supervisor knows of a role; `quiet_s`: seconds since it was heard of, `note`: its last words, or what it waits for."""

    name: str
    state: str
    life: int
    machine: str
    quiet_s: float
    status: Status
    note: str


class MachineRow(NamedTuple):
    """What the supervisor knows of a machine."""

    name: str
    host: str
    state: str
    capacity: Capacity
    quiet_s: float


@dataclass(slots=True, eq=False)
class Overview:
    """The job at a glance.  `phase`: starting, running, concluding, over; `failed`: why it failed, "" if it has not."""

    phase: str
    reason: str
    failed: str
    since_s: float
    roles: tuple[RoleRow, ...]
    machines: tuple[MachineRow, ...]
    payload: ClassVar[Any] = None


Reply = Progress | Parameters | Accepted | Finished | Behind | Standing | Orders | Overview | Refusal


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
