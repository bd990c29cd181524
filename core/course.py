"""How far the job is: starting, running, concluding, over; and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from core.job import COORDINATOR, EVALUATOR, role_kind
from core.lives import Lives, Role, State
from core.node import Recorder
from core.reports import MachineRow, Overview, RoleRow
from core.timings import Timings


class Course(Lives):
    """Of the job whose roles these are."""

    def __init__(
        self, roles: Iterable[Role], timings: Timings, *, now: Callable[[], float], record: Recorder, start_within_s: float, needed: int
    ) -> None:  # fmt: skip
        super().__init__(roles, now)
        self.timings, self.record, self.start_within_s, self.needed = timings, record, start_within_s, needed
        self.phase, self.verdict, self.reason = "starting", "", ""
        self.since_s = now()
        """When the phase began."""

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
                if any(role.state is State.ENDED and role.heard_s + self.timings.beat_s < awake for role in unit):
                    self.call_back(unit)
            given_up = [unit[0] for unit in self.units("replica") if any(role.state is State.GIVEN_UP for role in unit)]
            if (left := len(self.units("replica")) - len(given_up)) < self.needed:
                too_few = f"only {left} of the {self.needed} replicas that it takes are left" if left else "no replica is left"
                self.conclude("failed", f"{too_few}; {given_up[-1].name}: {given_up[-1].note}")

    def call_back(self, unit: list[Role]) -> None:
        """A replica is to live again, of which at least one machine has ended: another may wait for a word that was lost with it."""
        for role in unit:
            if role.process is not None:
                self.record("lost", role.name, role.life, note="others of its replica have ended")
                self.release(role, State.WAITING)
            role.state, self.dirty = State.WAITING, True

    def conclude(self, verdict: str, reason: str) -> None:
        """The job comes to its end; the first verdict stays."""
        if self.phase in ("concluding", "over"):
            return
        self.verdict, self.reason = verdict, reason or verdict
        self.enter("concluding")
        self.record("concluded", note=f"{verdict}: {reason}" if reason else verdict)

    def enter(self, phase: str) -> None:
        self.phase, self.since_s, self.dirty = phase, self.now(), True
        self.orders += 1

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

    def to_json(self) -> dict[str, Any]:
        return {"phase": self.phase, "verdict": self.verdict, "reason": self.reason} | super().to_json()

    def restore(self, kept: dict[str, Any]) -> None:
        self.phase, self.verdict, self.reason = kept["phase"], kept["verdict"], kept["reason"]
        super().restore(kept)
