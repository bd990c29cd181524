"""Who there is: the roles of a job, the life that each has, and the machines they live on.

A role lives one life after another.  Those of a unit, the machines that a replica is split over, live and die together.  What begins a life and
what ends it is decided in `core/membership.py`; here it is carried out, and everything has its durable form.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from core.job import role_kind, unit_of
from core.placement import NOTHING, Needs, Site
from core.reports import Capacity, Process, Status


class State(enum.StrEnum):
    """Of a role."""

    WAITING = "waiting"
    """For a machine, or for the pause after a crash."""
    STARTING = "starting"
    UP = "up"
    ENDED = "ended"
    """By itself: it has done what it was for."""
    GIVEN_UP = "given up"


@dataclass(slots=True)
class Role:
    """A role, and its present life if it has one."""

    name: str
    needs: Needs = NOTHING
    keeps: bool = False
    """Does it keep something on its machine's disk that its next life needs?"""
    state: State = State.WAITING
    life: int = 0
    machine: str = ""
    """Where it lives, or lived last, or shall live first."""
    storage: str = ""
    """Where what it has kept lies."""
    process: Process | None = None
    """Whom the agent knows it as."""
    address: str = ""
    crashes: int = 0
    """Lives in a row that were not steady."""
    not_before_s: float = 0.0
    began_s: float = 0.0
    heard_s: float = 0.0
    lively_s: float = -math.inf
    """When its agent last saw it use a processor."""
    held: bool = False
    """By a declared fault: it is not expected."""
    note: str = ""
    status: Status = field(default_factory=Status)


@dataclass(slots=True)
class Machine:
    """A machine, as its agent tells."""

    name: str
    boot: int
    host: str
    site: Site
    heard_s: float
    up: bool = True
    left: bool = False
    """Its agent has ended in order.  A later life of the supervisor takes it for silent, which comes to the same."""
    processes: dict[Process, Role] = field(default_factory=dict)
    """Those that should run there."""


class Lives:
    """Of one job."""

    def __init__(self, roles: Iterable[Role], now: Callable[[], float]) -> None:
        self.roles = {role.name: role for role in roles}
        self.now = now
        self.machines: dict[str, Machine] = {}
        self._kinds: dict[str, list[Role]] = {}
        self._units: dict[str, list[Role]] = {}
        """Roles that live and die together, since none of them can do anything without the others."""
        for role in self.roles.values():
            self._kinds.setdefault(role_kind(role.name), []).append(role)
            self._units.setdefault(unit_of(role.name), []).append(role)
        self.dirty = True
        """Has anything changed that must be durable before anybody hears of it?"""
        self.orders = 0
        """How often anything has changed that agents are told."""

    def of(self, *kinds: str) -> list[Role]:
        return [role for kind in kinds for role in self._kinds.get(kind, ())]

    def unit(self, role: Role) -> list[Role]:
        """Those that live and die with it, itself too."""
        return self._units[unit_of(role.name)]

    def units(self, kind: str) -> list[list[Role]]:
        """The roles of a kind, those together that live and die together."""
        return [unit for unit in self._units.values() if role_kind(unit[0].name) == kind]

    def settle(self, role: Role, machine: Machine, process: Process) -> None:
        """The next life of a role begins, in that process."""
        role.life += 1
        role.state, role.machine, role.process, role.began_s = State.STARTING, machine.name, process, self.now()
        role.storage = machine.site.capacity.storage if role.keeps else ""
        role.status, role.note = Status(), ""
        machine.processes[process] = role
        machine.site.taken[role.name] = role.needs
        self.orders += 1
        self.dirty = True

    def release(self, role: Role, state: State) -> None:
        """Its process is no longer wanted."""
        machine = self.machines[role.machine]
        if role.process is not None:
            machine.processes.pop(role.process, None)
            machine.site.taken.pop(role.name, None)
        role.process, role.address, role.state, role.held = None, "", state, False
        self.orders += 1
        self.dirty = True

    # durable form

    def to_json(self) -> dict[str, Any]:
        """Everything that a later life of the supervisor must know; times are not."""
        return {
            "roles": [
                {
                    "name": r.name, "state": r.state.value, "life": r.life, "machine": r.machine, "storage": r.storage,
                    "process": r.process, "crashes": r.crashes, "address": r.address, "note": r.note,
                }
                for r in self.roles.values()
            ],
            "machines": [{"name": m.name, "boot": m.boot, "host": m.host, "capacity": m.site.capacity} for m in self.machines.values()],
        }  # fmt: skip

    def restore(self, kept: dict[str, Any]) -> None:
        """Go on from there, as if everybody had been heard just now."""
        now = self.now()
        for one in kept["machines"]:
            site = Site(Capacity(*one["capacity"]))
            self.machines[one["name"]] = Machine(one["name"], one["boot"], one["host"], site, now)
        for one in kept["roles"]:
            role = self.roles[one["name"]]
            role.state, role.process = State(one["state"]), Process(*one["process"]) if one["process"] else None
            for key in ("life", "machine", "storage", "crashes", "address", "note"):
                setattr(role, key, one[key])
            role.began_s = role.heard_s = now
            if role.process is not None:
                machine = self.machines[role.machine]
                machine.processes[role.process] = role
                machine.site.taken[role.name] = role.needs
