"""Who is who, where they live, and what becomes of them: the supervisor's ledger.  Pure: no await, no world.

Everybody else calls the supervisor; it calls nobody.  An agent reports what runs on its machine and is told what should;
a role gives signs of life and is told who lives where.  Whatever is told is a state, not a change, so that an answer that
is lost or repeated does no harm.  `core/supervisor.py` makes the ledger durable before anybody hears of a new life, and so
no life is ever granted twice.

Every decision is recorded with its reason.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from core.job import COORDINATOR, EVALUATOR, mirror_of, role_kind, role_number, shard_of, unit_of
from core.messages import Sender
from core.node import Recorder
from core.placement import NOTHING, Needs, Site, place
from core.reports import Beat, Capacity, End, MachineRow, Member, Orders, Overview, Process, Report, RoleRow, Standing, Status
from core.timings import GIVE_UP_AFTER, Timings, pause_before

BUSY = 5
"""So many times longer may be silent who is seen to work."""
MACHINE = 3
"""So many times longer may be silent an agent: its roles speak for themselves, and nothing begins where nobody is heard."""


GATHERING = 6
"""The part of the time to start within that roles wait for machines, so as to be spread over them: one in so many."""


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


class Membership:
    """One job's roles and machines."""

    def __init__(
        self, roles: Iterable[Role], timings: Timings, *, now: Callable[[], float], record: Recorder, life: int = 1, start_within_s: float = 60.0,
        machines: int = 1, needed: int = 1,
    ) -> None:  # fmt: skip
        """`life`: the supervisor's own, which orders what its lives say.  `machines`: how many are to come, over which roles are spread.

        `needed`: so many replicas the job cannot go on without.
        """
        self.roles = {role.name: role for role in roles}
        self.timings, self.now, self.record, self.start_within_s = timings, now, record, start_within_s
        self.machines: dict[str, Machine] = {}
        self.expected, self.needed = machines, needed
        self.phase, self.verdict, self.reason = "starting", "", ""
        self.since_s = now()
        """When the phase began."""
        self._looked_s = now()
        self._absent = set(self.roles)
        """Those that have not been there yet: it pays to look at once when the last of them comes, and no sooner."""
        self._kinds: dict[str, list[Role]] = {}
        self._units: dict[str, list[Role]] = {}
        """Roles that live and die together, since none of them can do anything without the others."""
        for role in self.roles.values():
            self._kinds.setdefault(role_kind(role.name), []).append(role)
            self._units.setdefault(unit_of(role.name), []).append(role)
        self.dirty = True
        """Has anything changed that must be durable before anybody hears of it?"""
        self._life = life << 32
        self._orders = 0
        self._roster: list[Member] = []
        self._news: dict[tuple[str, int], tuple[Member, ...]] = {}
        self._promotions: dict[Process, int] = {}

    # what agents say

    def report(self, agent: Sender, report: Report) -> Orders:
        """An agent's sign of life; what should run on its machine."""
        name = f"machine/{agent.name.rpartition('/')[2]}"
        machine = self.machines.get(name)
        if machine is not None and (report.boot < machine.boot or (machine.left and report.boot == machine.boot)):
            return Orders(self._life + self._orders, conclude=True)  # a second agent, of before; or said before its last word
        if machine is None or report.boot != machine.boot:
            machine = self.enlist(name, report)
        if not machine.up:
            machine.up = True
            self.record("enlisted", name, note=f"{machine.host} is heard again")
        self.wake(machine)
        for process in report.lively:
            if process in machine.processes:
                machine.processes[process].lively_s = self.now()
        for process in machine.processes.keys() & {*report.held}:
            machine.processes[process].held, machine.processes[process].began_s = True, self.now()
        ended = [(role, end) for end in report.ended if (role := machine.processes.get(end.process)) is not None]
        for role, end in ended:
            self.ended(role, end)
        urgent = bool(report.held) or any(end.outcome != "ended" or role_kind(role.name) != "replica" for role, end in ended)
        if report.leaving:
            urgent |= bool(machine.processes)
            self.leave(machine)
            urgent |= not any(other.up for other in self.machines.values())
        if urgent:  # else the next look is soon enough, and does not cost as much for each of thousands that end together
            self.look()
        return Orders(self._life + self._orders, tuple(machine.processes), conclude=self.phase == "over")

    def wake(self, machine: Machine) -> None:
        """An agent speaks.  If it was silent before, so was its whole machine, and its roles have yet to find their voices."""
        now = self.now()
        asleep_s = now - machine.heard_s - 2 * self.timings.beat_s
        machine.heard_s = now
        if asleep_s > 0:
            for role in machine.processes.values():
                role.heard_s = min(now, role.heard_s + asleep_s)

    def enlist(self, name: str, report: Report) -> Machine:
        """A machine's agent begins: what ran under an earlier one is gone with it."""
        before = self.machines.get(name)
        if before is not None:
            for role in list(before.processes.values()):
                self.lost(role, f"the agent of {name} began anew", felled=True)
        machine = self.machines[name] = Machine(name, report.boot, report.host, Site(report.capacity), self.now())
        if before is None and any(role_number(other) > role_number(name) for other in list(self.machines)[-2:]):
            self.machines = dict(sorted(self.machines.items(), key=lambda item: role_number(item[0])))
        self.record("enlisted", name, note=report.host)
        self.dirty = True
        return machine

    def leave(self, machine: Machine) -> None:
        """An agent ends, and nothing runs there any more."""
        for role in list(machine.processes.values()):
            self.lost(role, f"the agent of {machine.name} has ended", felled=True)
        machine.up, machine.left = False, True
        self.record("left", machine.name, note=machine.host)

    def ended(self, role: Role, end: End) -> None:
        """A process is over."""
        if end.outcome in ("failed", "wrong"):
            self.release(role, State.ENDED)
            role.note = end.how
            self.conclude(end.outcome, end.how)
        elif end.outcome == "ended":
            self.release(role, State.ENDED)
            role.heard_s = self.now()
        else:
            self.lost(role, end.how, felled=end.outcome == "fault")

    # what roles say

    def beat(self, sender: Sender, beat: Beat) -> Standing:
        """A role's sign of life; who lives where."""
        role, version = self.roles.get(sender.name), self._life + len(self._roster)
        promoted = self._promotions.get(Process(sender.name, sender.incarnation), 0) if self._promotions else 0
        if promoted:
            shard = self.roles[shard_of(sender.name)]
            wanted = shard.life == promoted and shard.process is not None
            return Standing(version, promoted=promoted) if wanted else Standing(version, outlived=True)
        if role is not None and sender.incarnation == role.life and self.phase == "over":
            return Standing(version, begun=True, conclude=self.reason)  # its agent ends it, and lets it write down what it has
        if role is None or sender.incarnation != role.life or role.process is None:
            return Standing(version, outlived=True)
        role.heard_s, role.status = self.now(), beat.status
        if role.state is State.STARTING or beat.address != role.address:
            self.heard_first(role, beat.address)
        begun = self.phase != "starting"
        return Standing(
            self._life + len(self._roster),
            self.news(role, beat.known) if begun else (),
            begun,
            conclude=self.reason if self.phase in ("concluding", "over") else "",
        )

    def heard_first(self, role: Role, address: str) -> None:
        """A life is there, unless it is one that will serve, and does not yet: then it is only known to be on its way."""
        role.began_s, role.note, role.held = self.now(), "", False
        if address or not serves(role.name):
            role.state, role.address = State.UP, address
            self.tell(role)
            self._absent.discard(role.name)
            if not self._absent:
                self.look()

    def tell(self, role: Role) -> None:
        """Everybody whom it concerns shall hear where this role is now."""
        self._roster.append(Member(role.name, role.life, role.address))
        self._news.clear()

    def news(self, role: Role, known: int) -> tuple[Member, ...]:
        """What has changed since the version that a role knows, of those it has to do with: shards hear of everybody, to
        fence earlier lives, and the coordinator, to give out again what they had; all others of these two, and of their own unit.
        """
        since = known - self._life if known >= self._life else 0
        if since == len(self._roster):
            return ()
        unit = unit_of(role.name)
        key = "" if hears_all(role.name) else unit if unit != role.name else "replica", since
        if key not in self._news:  # at the beginning everybody asks the same
            members = {member.name: member for member in self._roster[since:]}
            self._news[key] = tuple(
                member for member in members.values()
                if not key[0] or role_kind(member.name) in ("shard", COORDINATOR) or unit_of(member.name) == key[0]
            )  # fmt: skip
        return self._news[key]

    # decisions

    def look(self) -> None:
        """Whoever is silent is lost, whoever is wanted is placed, and a job that is over ends; called now and then."""
        now = self.now()
        self.excuse(now)
        silent_since_s = now - self.timings.silence_s
        for machine in self.machines.values():
            if machine.heard_s < silent_since_s and machine.up and now - machine.heard_s > self.timings.silence_s * MACHINE:
                machine.up = False
                if self.phase != "over":
                    self.record("lost", machine.name, note=f"{machine.host} has been silent for {now - machine.heard_s:.3g} s")
        for role in self.roles.values():
            if role.state is State.UP:
                if role.heard_s < silent_since_s and now - role.heard_s > self.patience_s(role):
                    self.lost(role, f"silent for {now - role.heard_s:.3g} s", felled=not self.hears(self.machines[role.machine]))
            elif role.state is State.STARTING and not self.machines[role.machine].up:
                self.lost(role, f"{role.machine} is silent", felled=True)
            elif role.state is State.STARTING and now - role.began_s > self.start_within_s:
                self.lost(role, f"not there after {self.start_within_s:g} s")
        if self.phase in ("starting", "running"):
            self.promote()
            self.fill()
        self.consider_phase()

    def excuse(self, now: float) -> None:
        """Whoever was asleep himself must not hold it against others that he did not hear them."""
        asleep_s = now - self._looked_s - 2 * self.timings.beat_s
        self._looked_s = now
        if asleep_s > 0:
            both: tuple[Role | Machine, ...] = (*self.roles.values(), *self.machines.values())
            for one in both:
                one.heard_s += asleep_s

    def patience_s(self, role: Role) -> float:
        """How long a role may be silent; longer while it is seen to work, for it may only be short of a processor.

        One that is stopped, or waits for ever, is not.  Longer, too, where nobody else holds what it holds: to take for dead
        who is only slow costs a moment otherwise, and here everything that was acknowledged.
        """
        lively = self.now() - role.lively_s <= 3 * self.timings.beat_s
        return self.timings.silence_s * (BUSY if lively or self.last_copy(role) else 1)

    def last_copy(self, role: Role) -> bool:
        """Is it a shard whose mirror does not hold everything, or a mirror whose shard is not there?"""
        if role_kind(role.name) == "mirror":
            return role.status.synced and self.roles[shard_of(role.name)].state is not State.UP
        mirror = self.roles.get(mirror_of(role.name)) if role_kind(role.name) == "shard" else None
        return mirror is not None and not (mirror.state is State.UP and mirror.status.synced)

    def hears(self, machine: Machine) -> bool:
        """Has its agent spoken lately?  If not, nothing begins there, and whoever is silent there may not be to blame."""
        return machine.up and self.now() - machine.heard_s < 2 * self.timings.beat_s

    def lost(self, role: Role, why: str, *, felled: bool = False) -> None:
        """A life is over, or as good as over.  `felled`: through no fault of its own."""
        now = self.now()
        self.record("lost", role.name, role.life, note=why)
        role.note = why
        if self.phase in ("concluding", "over"):
            self.release(role, State.ENDED)
            return
        if not felled:
            role.crashes = 1 if now - role.began_s >= self.timings.steady_s else role.crashes + 1
        self.release(role, State.WAITING)
        role.not_before_s = now + (0.0 if felled else pause_before(role.crashes, self.timings))
        if role.crashes >= GIVE_UP_AFTER:
            role.state = State.GIVEN_UP
            self.record("abandoned", role.name, role.life, note=f"{role.crashes} crashes in a row: {why}")
        self.end_unit(role)

    def end_unit(self, gone: Role) -> None:
        """The others of its unit begin anew with it, all in one and the same life, which is how they know each other."""
        unit = self._units[unit_of(gone.name)]
        life = max(role.life for role in unit)
        for role in unit:
            if role is not gone and role.state is not State.GIVEN_UP:
                if role.process is not None:
                    self.record("lost", role.name, role.life, note=f"ends with {gone.name}")
                    self.release(role, gone.state)
                role.state = gone.state
                role.note = f"ends with {gone.name}: {gone.note}"
                role.not_before_s = gone.not_before_s
            role.life = life

    def release(self, role: Role, state: State) -> None:
        """Its process is no longer wanted."""
        machine = self.machines[role.machine]
        if role.process is not None:
            machine.processes.pop(role.process, None)
            machine.site.taken.pop(role.name, None)
        role.process, role.address, role.state, role.held = None, "", state, False
        self._orders += 1
        self.dirty = True

    def promote(self) -> None:
        """A lost shard lives on in its mirror.

        In whatever that holds: only the mirror itself knows that for sure, since the news that it holds everything may have been
        lost.  If it holds nothing yet, then there is nothing to be had anywhere.
        """
        for role in self.of("shard"):
            mirror = self.roles.get(mirror_of(role.name)) if role.state is State.WAITING else None
            if mirror is None or mirror.state is not State.UP or mirror.process is None:
                continue
            process, machine = mirror.process, self.machines[mirror.machine]
            self.record("promoted", role.name, role.life + 1, note=f"{mirror.name}#{mirror.life} on {machine.name}")
            self.release(mirror, State.WAITING)
            self.settle(role, machine, process)
            self._promotions[process] = role.life

    def gathered(self, now: float) -> bool:
        """Is every machine there, or was there time enough?  Else the first one to come would get all the roles."""
        return self.phase != "starting" or len(self.machines) >= self.expected or now - self.since_s > self.start_within_s / GATHERING

    def fill(self) -> None:
        """A place for every role that waits for one."""
        now = self.now()
        if not self.gathered(now):
            return
        waiting = [role for role in self.roles.values() if role.state is State.WAITING and role.not_before_s <= now]
        sites = {m.name: m.site for m in self.machines.values() if self.hears(m)} if waiting else {}
        # Of those that begin anew together, first whoever has a home: so that nobody new moves in there while a machine is free.
        waiting.sort(key=lambda role: unit_of(role.name) == role.name or role.machine not in sites)
        for role in waiting:
            home = self.machines.get(role.machine)
            if home is not None and role.machine in sites and not home.site.lacks(role.needs) and not role.keeps and not apart(role.name):
                name, why = role.machine, ""
            else:
                name, why = place(role.name, role.needs, sites, last=role.machine, storage=role.storage, apart_from=apart(role.name))
            if name:
                machine = self.machines[name]
                self.settle(role, machine, Process(role.name, role.life + 1))
                self.record("granted", role.name, role.life, note=name)
            else:
                role.note = why

    def settle(self, role: Role, machine: Machine, process: Process) -> None:
        """The next life of a role begins, in that process."""
        role.life += 1
        role.state, role.machine, role.process, role.began_s = State.STARTING, machine.name, process, self.now()
        role.storage = machine.site.capacity.storage if role.keeps else ""
        role.status, role.note = Status(), ""
        machine.processes[process] = role
        machine.site.taken[role.name] = role.needs
        self._orders += 1
        self.dirty = True

    # the job

    def of(self, *kinds: str) -> list[Role]:
        return [role for kind in kinds for role in self._kinds.get(kind, ())]

    def units(self, kind: str) -> list[list[Role]]:
        """The roles of a kind, those together that live and die together."""
        return [unit for unit in self._units.values() if role_kind(unit[0].name) == kind]

    def consider_phase(self) -> None:
        """Begin when everybody is there; end when there is nothing left to do, or nobody to do it."""
        if self.phase == "starting":
            self.consider_beginning()
        elif self.phase == "running":
            self.consider_end()
        if self.phase == "concluding":
            evaluators = [role for role in self.of(EVALUATOR) if role.state is State.UP]
            if not evaluators or self.now() - self.since_s > self.timings.conclude_s:
                self.enter("over")
                for role in self.roles.values():
                    if role.process is not None:
                        self.release(role, State.ENDED)

    def consider_beginning(self) -> None:
        missing = [role for role in self.roles.values() if role.state is not State.UP and not role.held]
        late = self.now() - self.since_s > self.start_within_s
        vital = [role for role in missing if role_kind(role.name) != "replica"]
        replicas = [unit for unit in self.units("replica") if all(role.state is State.UP for role in unit)]
        if not missing or (late and len(replicas) >= self.needed and not vital):
            self.enter("running")
            self.record("begun", number=len(self.roles) - len(missing), note=", ".join(f"without {role.name}" for role in missing))
            return
        given_up = next((role for role in missing if role.state is State.GIVEN_UP), None)
        if given_up is not None and (given_up in vital or len(replicas) < self.needed):
            self.conclude("unstarted", f"{given_up.name} did not start: {given_up.note}")
        elif late:
            whom = "; ".join(self.absence(role) for role in (vital or missing)[:5])
            self.conclude("unstarted", f"not there after {self.start_within_s:g} s: {whom}")

    def absence(self, role: Role) -> str:
        """Where somebody is missing, and why, as far as is known."""
        if role.state is State.WAITING:
            return f"{role.name} ({role.note or 'no machine is up: does its agent run, and reach the supervisor?'})"
        return f"{role.name} on {role.machine} ({role.note or 'started, and not a word since: look into its log'})"

    def consider_end(self) -> None:
        shards = self.of("shard")
        for role in self.of("shard", "mirror", COORDINATOR, EVALUATOR):
            if role.state is State.GIVEN_UP:
                self.conclude("failed", f"{role.name} was given up: {role.note}")
                return
        evaluators = self.of(EVALUATOR)
        finished = all(role.state is State.UP and role.status.finished for role in shards)
        if evaluators and all(role.state is State.ENDED for role in evaluators):
            self.conclude("done", "")
        elif finished:
            if not evaluators:
                self.conclude("done", "")
        else:
            # A shard may lose what it had finished; then those who thought the job over are needed again.
            awake = min((role.heard_s for role in shards if role.state is State.UP and not role.status.finished), default=0.0)
            for unit in self.units("replica"):
                if all(role.state is State.ENDED and role.heard_s + self.timings.beat_s < awake for role in unit):
                    for role in unit:
                        role.state, self.dirty = State.WAITING, True
            given_up = [unit[0] for unit in self.units("replica") if any(role.state is State.GIVEN_UP for role in unit)]
            if (left := len(self.units("replica")) - len(given_up)) < self.needed:
                too_few = f"only {left} of the {self.needed} replicas that it takes are left" if left else "no replica is left"
                self.conclude("failed", f"{too_few}; {given_up[-1].name}: {given_up[-1].note}")

    def conclude(self, verdict: str, reason: str) -> None:
        """The job comes to its end; the first verdict stays."""
        if self.phase in ("concluding", "over"):
            return
        self.verdict, self.reason = verdict, reason or verdict
        self.enter("concluding")
        self.record("concluded", note=f"{verdict}: {reason}" if reason else verdict)

    def enter(self, phase: str) -> None:
        self.phase, self.since_s, self.dirty = phase, self.now(), True
        self._orders += 1

    @property
    def deserted(self) -> bool:
        """Is the job over, and does nothing run any more, as far as anybody can tell?"""
        return self.phase == "over" and not any(machine.up for machine in self.machines.values())

    def overview(self) -> Overview:
        """For whoever asks."""
        now = self.now()
        return Overview(
            self.phase, self.verdict, self.reason, now,
            tuple(
                RoleRow(r.name, "held" if r.held else r.state.value, r.life, r.machine, max(0.0, now - r.heard_s) if r.heard_s else 0.0, r.status, r.note)
                for r in self.roles.values()
            ),
            tuple(
                MachineRow(m.name, m.host, "up" if m.up else "left" if m.left else "silent", m.site.capacity, max(0.0, now - m.heard_s))
                for m in self.machines.values()
            ),
        )  # fmt: skip

    # durable form

    def to_json(self) -> dict[str, Any]:
        """Everything that a later life of the supervisor must know; times are not."""
        return {
            "phase": self.phase, "verdict": self.verdict, "reason": self.reason,
            "roles": [
                {
                    "name": r.name, "state": r.state.value, "life": r.life, "machine": r.machine, "storage": r.storage,
                    "process": r.process, "crashes": r.crashes, "address": r.address, "note": r.note,
                }
                for r in self.roles.values()
            ],
            "machines": [{"name": m.name, "boot": m.boot, "host": m.host, "capacity": m.site.capacity} for m in self.machines.values()],
            "promotions": [[*process, life] for process, life in self._promotions.items()],
        }  # fmt: skip

    def restore(self, kept: dict[str, Any]) -> None:
        """Go on from there.  Everybody has longer than usual until the first word, so that nobody is lost for our own absence:
        they have to find us again.
        """
        now = self.now()
        heard_s = now + self.timings.silence_s * (BUSY - 1)
        self.phase, self.verdict, self.reason = kept["phase"], kept["verdict"], kept["reason"]
        for one in kept["machines"]:
            site = Site(Capacity(*one["capacity"]))
            self.machines[one["name"]] = Machine(one["name"], one["boot"], one["host"], site, heard_s)
        for one in kept["roles"]:
            role = self.roles[one["name"]]
            role.state, role.process = State(one["state"]), Process(*one["process"]) if one["process"] else None
            for key in ("life", "machine", "storage", "crashes", "address", "note"):
                setattr(role, key, one[key])
            role.began_s, role.heard_s = now, heard_s
            if role.process is not None:
                machine = self.machines[role.machine]
                machine.processes[role.process] = role
                machine.site.taken[role.name] = role.needs
            if role.state is State.UP:
                self.tell(role)
                self._absent.discard(role.name)
        self._promotions = {Process(name, life): promoted for name, life, promoted in kept["promotions"]}


def serves(name: str) -> bool:
    """Does that role have an address?"""
    return hears_all(name) or unit_of(name) != name


def hears_all(name: str) -> bool:
    """Is that role told of everybody?"""
    return role_kind(name) in ("shard", "mirror", COORDINATOR)


def apart(name: str) -> str:
    """With whom a role should not share a machine, "" for nobody."""
    if role_kind(name) == "mirror":
        return shard_of(name)
    return mirror_of(name) if role_kind(name) == "shard" else ""
