"""What passes between the supervisor and everybody else: signs of life, and what to do.  See `core/membership.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from core.messages import Reply, Request


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
    staged_bytes: int = 0
    """Of a shard of Sandblaster."""
    progress: str = ""
    """Of the coordinator: batch, portions, backups, in words."""


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
class Standing(Reply):
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


class Process(NamedTuple):
    """A process by the role and the life it was started for."""

    name: str
    life: int


class End(NamedTuple):
    """How a process ended, in words.

    `outcome`: "ended" by itself; "failed", and with it the job; "wrong", the same because of the user's input; or "crashed".
    """

    process: Process
    outcome: str
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
    lively: tuple[Process, ...] = ()
    """Those that have used a processor since the last report: if they are silent, they may only be short of it."""
    held: tuple[Process, ...] = ()
    """Wanted, and kept from starting for a while by a declared fault."""
    ended: tuple[End, ...] = ()
    """Repeated until the supervisor no longer wants them."""
    leaving: bool = False
    """The agent's last word: whatever it started has ended, and so does it.  If that is lost, it falls silent all the same."""


@dataclass(slots=True, eq=False)
class Orders(Reply):
    """Which processes should run on the machine: the agent starts what is not there, and ends what is not wanted.

    An agent that has seen orders of a later `version` ignores these.
    """

    version: int
    wanted: tuple[Process, ...] = ()
    conclude: bool = False
    """The job is over: end whatever is left, and yourself."""


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
class Overview(Reply):
    """The job at a glance.

    `phase`: "starting", "running", "concluding" or "over".  `verdict`: "" until it is known, then "done", "interrupted",
    "failed" or "wrong" (the user's input), with its `reason`.  `now_s`: seconds since the job was launched.
    """

    phase: str
    verdict: str
    reason: str
    now_s: float
    roles: tuple[RoleRow, ...]
    machines: tuple[MachineRow, ...]
