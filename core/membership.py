"""Who is who, where they live, and what becomes of them: the supervisor's ledger.  Pure: no await, no world.

Everybody else calls the supervisor; it calls nobody.  An agent reports what runs on its machine and is told what should;
a role gives signs of life and is told who lives where.  Whatever is told is a state, not a change, so that an answer that
is lost or repeated does no harm.  `core/supervisor.py` makes the ledger durable before anybody hears of a new life, and so
no life is ever granted twice.

Here it is decided who is lost and who begins where.  Who there is: `core/lives.py`; who is told of whom: `core/roster.py`; how long silence is
borne: `core/patience.py`; when the job begins and ends: `core/course.py`.

Every decision is recorded with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from core.course import Course
from core.job import mirror_of, role_kind, role_number, shard_of, unit_of
from core.lives import Machine, Role, State
from core.messages import Sender
from core.node import Recorder
from core.patience import MACHINE, Patience
from core.placement import Site, place
from core.reports import Beat, End, Member, Orders, Process, Report, Standing
from core.roster import Roster, serves
from core.timings import GIVE_UP_AFTER, Timings, pause_before

GATHERING = 6
"""The part of the time to start within that roles wait for machines, so as to be spread over them: one in so many."""


class Membership(Course):
    """One job's roles and machines."""

    def __init__(
        self, roles: Iterable[Role], timings: Timings, *, now: Callable[[], float], record: Recorder, life: int = 1, start_within_s: float = 60.0,
        machines: int = 1, needed: int = 1,
    ) -> None:  # fmt: skip
        """`life`: the supervisor's own, which orders what its lives say.  `machines`: how many are to come, over which roles are spread.

        `needed`: so many replicas the job cannot go on without.
        """
        super().__init__(roles, timings, now=now, record=record, start_within_s=start_within_s, needed=needed)
        self.expected = machines
        self.patience = Patience(self, timings)
        self._first = life << 32
        """What counts from there is later than whatever earlier lives have said."""
        self.roster = Roster(self._first)
        self._absent = set(self.roles)
        """Those that have not been there yet: it pays to look at once when the last of them comes, and no sooner."""
        self._promotions: dict[Process, int] = {}
        self._unknown: set[Process] = set()
        """Those that were on their way when an earlier life of the supervisor wrote that down, and may have been there for long."""

    # what agents say

    def report(self, agent: Sender, report: Report) -> Orders:
        """An agent's sign of life; what should run on its machine."""
        name = f"machine/{agent.name.rpartition('/')[2]}"
        machine = self.machines.get(name)
        if machine is not None and (report.boot < machine.boot or (machine.left and report.boot == machine.boot)):
            return Orders(self._first + self.orders, conclude=True)  # a second agent, of before; or said before its last word
        if machine is None or report.boot != machine.boot:
            machine = self.enlist(name, report)
        if not machine.up:
            machine.up = True
            self.record("enlisted", name, note=f"{machine.host} is heard again")
        self.patience.wake(machine)
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
        return Orders(self._first + self.orders, tuple(machine.processes), conclude=self.phase == "over")

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
        role, version = self.roles.get(sender.name), self.roster.version
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
            self.roster.version,
            self.roster.news(role.name, beat.known) if begun else (),
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
        self.roster.add(Member(role.name, role.life, role.address))

    # decisions

    def look(self) -> None:
        """Whoever is silent is lost, whoever is wanted is placed, and a job that is over ends; called now and then."""
        now = self.now()
        self.patience.excuse(now)
        silent_since_s = now - self.timings.silence_s
        for machine in self.machines.values():
            if machine.heard_s < silent_since_s and machine.up and now - machine.heard_s > self.timings.silence_s * MACHINE:
                machine.up = False
                if self.phase != "over":
                    self.record("lost", machine.name, note=f"{machine.host} has been silent for {now - machine.heard_s:.3g} s")
        for role in self.roles.values():
            if role.state is State.UP:
                if role.heard_s < silent_since_s and now - role.heard_s > self.patience.with_role_s(role):
                    self.lost(role, f"silent for {now - role.heard_s:.3g} s", felled=not self.patience.hears(self.machines[role.machine]))
            elif role.state is State.STARTING and not self.machines[role.machine].up:
                self.lost(role, f"{role.machine} is silent", felled=True)
            elif role.state is State.STARTING and now - role.began_s > self.start_within_s:
                self.lost(role, f"not there after {self.start_within_s:g} s")
        if self.phase in ("starting", "running"):
            self.promote()
            self.fill()
        self.consider_phase()

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
        unit = self.unit(gone)
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

    def may_be_held(self, role: Role) -> bool:
        """Is there a mirror of it that may hold everything, and has yet to be heard?  To begin without it would lose what was acknowledged."""
        mirror = self.roles.get(mirror_of(role.name)) if role_kind(role.name) == "shard" else None
        return mirror is not None and mirror.state is State.STARTING and mirror.process in self._unknown

    def gathered(self, now: float) -> bool:
        """Is every machine there, or was there time enough?  Else the first one to come would get all the roles."""
        return self.phase != "starting" or len(self.machines) >= self.expected or now - self.since_s > self.start_within_s / GATHERING

    def fill(self) -> None:
        """A place for every role that waits for one."""
        now = self.now()
        if not self.gathered(now):
            return
        waiting = [
            role for role in self.roles.values() if role.state is State.WAITING and role.not_before_s <= now and not self.may_be_held(role)
        ]
        sites = {m.name: m.site for m in self.machines.values() if self.patience.hears(m)} if waiting else {}
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

    # durable form

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"promotions": [[*process, life] for process, life in self._promotions.items()]}

    def restore(self, kept: dict[str, Any]) -> None:
        super().restore(kept)
        self.patience.begin_anew()
        for role in self.roles.values():
            if role.state is State.UP:
                self.tell(role)
                self._absent.discard(role.name)
        self._unknown = {role.process for role in self.roles.values() if role.state is State.STARTING and role.process is not None}
        self._promotions = {Process(name, life): promoted for name, life, promoted in kept["promotions"]}


def apart(name: str) -> str:
    """With whom a role should not share a machine, "" for nobody."""
    if role_kind(name) == "mirror":
        return shard_of(name)
    return mirror_of(name) if role_kind(name) == "shard" else ""
