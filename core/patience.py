"""How long whoever is silent is waited for, before he is taken for lost."""

from __future__ import annotations

from core.job import mirror_of, role_kind, shard_of
from core.lives import Lives, Machine, Role, State
from core.timings import Timings

BUSY = 5
"""So many times longer may be silent who is seen to work."""
MACHINE = 3
"""So many times longer may be silent an agent: its roles speak for themselves, and nothing begins where nobody is heard."""


class Patience:
    """With the roles and machines of one job."""

    def __init__(self, lives: Lives, timings: Timings) -> None:
        self.lives, self.timings, self.now = lives, timings, lives.now
        self._looked_s = self.now()

    def everybody(self) -> tuple[Role | Machine, ...]:
        return (*self.lives.roles.values(), *self.lives.machines.values())

    def begin_anew(self) -> None:
        """Everybody has longer than usual until the first word, so that nobody is lost for our own absence: they have to find us again."""
        for one in self.everybody():
            one.heard_s += self.timings.silence_s * (BUSY - 1)

    def excuse(self, now: float) -> None:
        """Whoever was asleep himself must not hold it against others that he did not hear them."""
        asleep_s = now - self._looked_s - 2 * self.timings.beat_s
        self._looked_s = now
        if asleep_s > 0:
            for one in self.everybody():
                one.heard_s += asleep_s

    def with_role_s(self, role: Role) -> float:
        """How long a role may be silent; longer while it is seen to work, for it may only be short of a processor.

        One that is stopped, or waits for ever, is not.  Longer, too, where nobody else holds what it holds: to take for dead
        who is only slow costs a moment otherwise, and here everything that was acknowledged.
        """
        lively = self.now() - role.lively_s <= 3 * self.timings.beat_s
        return self.timings.silence_s * (BUSY if lively or self.last_copy(role) else 1)

    def last_copy(self, role: Role) -> bool:
        """Is it a shard whose mirror does not hold everything, or a mirror whose shard is not there?"""
        if role_kind(role.name) == "mirror":
            return role.status.synced and self.lives.roles[shard_of(role.name)].state is not State.UP
        mirror = self.lives.roles.get(mirror_of(role.name)) if role_kind(role.name) == "shard" else None
        return mirror is not None and not (mirror.state is State.UP and mirror.status.synced)

    def hears(self, machine: Machine) -> bool:
        """Has its agent spoken lately?  If not, nothing begins there, and whoever is silent there may not be to blame."""
        return machine.up and self.now() - machine.heard_s < 2 * self.timings.beat_s

    def wake(self, machine: Machine) -> None:
        """An agent speaks.  If it was silent before, so was its whole machine, and its roles have yet to find their voices."""
        now = self.now()
        asleep_s = now - machine.heard_s - 2 * self.timings.beat_s
        machine.heard_s = now
        if asleep_s > 0:
            for role in machine.processes.values():
                role.heard_s = min(now, role.heard_s + asleep_s)
