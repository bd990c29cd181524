"""Where the time of every role and machine went; it adds up to the whole run.

A life computes, or pays for a request, or it waits.  What a stretch of waiting was spent on is read off the calls whose ends
ended it, from the last backwards: under way to the peer, queued there, being served, and under way back.  Of the two ways, what
they would have taken on an empty network is sending and receiving, and what they took beyond it is contention.  So nothing is counted for
each message but four times of day, and the sum is right because stretches are divided, never added up.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.calls import Travelling

Spent = list[float]
"""Seconds in each state."""

Alone = Callable[["Travelling", bool], float]
"""Seconds that a call's request (True) or reply (False) would have been under way on an empty network."""


class State(enum.IntEnum):
    """What a role does at a moment."""

    COMPUTING = 0
    """Also a server that pays for a request."""
    WAITING = 1
    """For messages: its requests are being served; or a server that nobody asks."""
    SENDING = 2
    RECEIVING = 3
    CONTENTION = 4
    """Others are in the way, on the network or on the machine's cores."""
    SERVER_QUEUE = 5
    """Its request waits behind those of others."""
    LOST_WORK = 6
    """A computation, or a service, that a crash cut off."""
    RECOVERING = 7
    """A later life, until it computes or serves."""
    IDLE = 8
    """It waits for nobody: it sleeps, or has done all it had to."""
    DOWN = 9
    """No life of it is up: not started yet, crashed, or stopped."""


NAMES = tuple(state.name.lower() for state in State)


def nothing() -> Spent:
    return [0.0] * len(State)


class Account:
    """Of one life of a role."""

    __slots__ = ("_alone", "_count", "_ended", "rest", "samples", "since_s", "spent", "stopped", "unproductive")

    AT_ONCE = 256
    """Calls that end, before the waiting that they explain is written down."""

    def __init__(self, now_s: float, life: int, alone: Alone) -> None:
        self.spent, self.since_s, self._alone = nothing(), now_s, alone
        self._ended: list[tuple[float, Travelling]] = []
        """Since the last entry, those that explain anything."""
        self._count = 0
        """Of all."""
        self.unproductive = life > 1
        self.stopped = False
        self.samples = 0
        """Of which it computed gradients."""
        self.rest = State.IDLE
        """What waiting is that no call of its own explains."""

    def call_ended(self, now_s: float, call: Travelling) -> None:
        """A call of this life has its reply, or will not get one; or what it told is there."""
        ended, sent_s = self._ended, call.sent_s
        while ended and ended[-1][1].sent_s >= sent_s:  # what was under way no longer than this one has nothing left to explain
            ended.pop()
        ended.append((now_s, call))
        self._count += 1
        if self._count >= self.AT_ONCE:
            self.waited(now_s)

    def serves(self, now_s: float) -> None:
        """From here on it has only to wait for messages."""
        self.waited(now_s)
        self.rest, self.unproductive = State.WAITING, False

    def productive(self, now_s: float) -> None:
        """From here on it does what it is there for."""
        if self.unproductive:
            self.waited(now_s)
            self.unproductive = False

    def waited(self, now_s: float) -> None:
        """Nothing was computed since the last entry: write down what that time was spent on."""
        since_s, until_s, ended = self.since_s, now_s, self._ended
        self.since_s, spent = now_s, self.spent
        if until_s > since_s:
            if self.stopped:
                spent[State.DOWN] += until_s - since_s
            elif self.unproductive:
                spent[State.RECOVERING] += until_s - since_s
            else:
                while ended and until_s > since_s:
                    ended_s, call = ended.pop()
                    if ended_s < until_s:
                        if ended_s <= since_s:
                            break
                        spent[self.rest] += until_s - ended_s
                        until_s = ended_s
                    until_s = self._under_way(call, since_s, until_s)
                spent[self.rest] += until_s - since_s
        ended.clear()
        self._count = 0

    def _under_way(self, call: Travelling, since_s: float, until_s: float) -> float:
        """Divide the part of that stretch during which the call was under way; where the part begins."""
        begins_s, spent = min(until_s, max(since_s, call.sent_s)), self.spent
        if not call.answered:
            return self._on_the_way(State.SENDING, begins_s, until_s, self._alone(call, True))
        if call.replied_s == math.inf:  # it failed
            spent[State.WAITING] += until_s - begins_s
            return begins_s
        until_s = self._on_the_way(State.RECEIVING, max(begins_s, call.replied_s), until_s, self._alone(call, False))
        for state, since_then_s in (State.WAITING, call.handled_s), (State.SERVER_QUEUE, call.arrived_s):
            from_s = min(until_s, max(begins_s, since_then_s))
            spent[state] += until_s - from_s
            until_s = from_s
        return self._on_the_way(State.SENDING, begins_s, until_s, self._alone(call, True))

    def _on_the_way(self, state: State, from_s: float, until_s: float, alone_s: float) -> float:
        if until_s > from_s:
            alone_s = min(alone_s, until_s - from_s)
            self.spent[state] += alone_s
            self.spent[State.CONTENTION] += until_s - from_s - alone_s
            return from_s
        return until_s

    def asked(self, now_s: float, call: Travelling) -> None:
        """A server that had nothing to do begins to pay for a request."""
        since_s = self.since_s
        if now_s > since_s and not self.stopped:
            came_s = max(since_s, call.sent_s)
            self.spent[State.WAITING] += came_s - since_s
            self._on_the_way(State.RECEIVING, came_s, now_s, self._alone(call, True))
            self.since_s = now_s

    def computed(self, now_s: float, contention_s: float = 0.0) -> None:
        """It has computed, or paid for a request, since the last entry."""
        self.spent[State.COMPUTING] += now_s - self.since_s - contention_s
        self.spent[State.CONTENTION] += contention_s
        self.since_s = now_s
        self._ended.clear()
        self._count = 0

    def stop(self, now_s: float, *, working: bool) -> None:
        """The process is stopped, or goes on after that."""
        self.cut(now_s, working=working, into=State.COMPUTING)
        self.stopped = True

    def go_on(self, now_s: float) -> None:
        self.waited(now_s)
        self.stopped = False

    def cut(self, now_s: float, *, working: bool, into: State = State.LOST_WORK) -> None:
        """The life is over, or interrupted, whatever it was doing."""
        if working and not self.stopped:
            self.spent[into] += now_s - self.since_s
            self.since_s = now_s
        self.waited(now_s)


@dataclass(slots=True)
class Absence:
    """No life of a role is up: what that counts as, since when, and until when it is in the account."""

    state: State
    since_s: float
    counted_s: float


class Accounts:
    """Of all roles and machines."""

    def __init__(self, roles: Iterable[str], machines: Iterable[str]) -> None:
        self.roles: dict[str, Spent] = {role: nothing() for role in roles}
        self.machines: dict[str, Spent] = {machine: nothing() for machine in machines}
        self.samples: dict[str, int] = dict.fromkeys(self.roles, 0)
        self.lives: dict[str, int] = dict.fromkeys(self.roles, 0)
        self.homes: dict[str, str] = dict.fromkeys(self.roles, "")
        """The machine of the latest life."""
        self._living: dict[str, Account] = {}
        self._without: dict[str, Absence] = {role: Absence(State.DOWN, 0.0, 0.0) for role in self.roles}
        self._machines_down: dict[str, float] = {}

    def begins(self, role: str, machine: str, account: Account, now_s: float) -> None:
        """A life of that role, which from now on is the role's: an earlier one that has not noticed counts no longer."""
        if role in self._living:
            self.ends(role, self._living[role], now_s, working=False)
        absence = self._without.pop(role)
        self.roles[role][absence.state] += now_s - absence.counted_s
        self._living[role], self.homes[role] = account, machine
        self.lives[role] += 1

    def ends(self, role: str, account: Account, now_s: float, *, working: bool, state: State = State.DOWN) -> None:
        """That life; `state`: what the role does until its next."""
        if self._living.get(role) is not account:
            return
        account.cut(now_s, working=working)
        self._fold(role, account)
        del self._living[role]
        self._without[role] = Absence(state, now_s, now_s)

    def _fold(self, role: str, account: Account) -> None:
        for spent in self.roles[role], self.machines[self.homes[role]]:
            for state, seconds in enumerate(account.spent):
                spent[state] += seconds
        self.samples[role] += account.samples
        account.spent, account.samples = nothing(), 0

    def without(self) -> list[tuple[str, float]]:
        """Roles of which no life is up though they have something to do, and since when."""
        return [(role, absence.since_s) for role, absence in self._without.items() if absence.state is State.DOWN]

    def machine_down(self, machine: str, now_s: float) -> None:
        self._machines_down[machine] = now_s

    def machine_up(self, machine: str, now_s: float) -> None:
        self.machines[machine][State.DOWN] += now_s - self._machines_down.pop(machine)

    def settle(self, now_s: float, working: Callable[[str], bool]) -> None:
        """Bring everything up to now; whatever goes on goes on."""
        for role, account in self._living.items():
            account.cut(now_s, working=working(role), into=State.COMPUTING)
            self._fold(role, account)
        for role, absence in self._without.items():
            self.roles[role][absence.state] += now_s - absence.counted_s
            absence.counted_s = now_s
        for machine, since_s in self._machines_down.items():
            self.machines[machine][State.DOWN] += now_s - since_s
            self._machines_down[machine] = now_s
        wrong = list(self.wrong(now_s))
        assert not wrong, wrong

    def wrong(self, now_s: float) -> Iterator[str]:
        """Every settled account that does not add up to the time there was."""
        for role, spent in self.roles.items():
            if not math.isclose(math.fsum(spent), now_s, rel_tol=1e-9, abs_tol=1e-6) or min(spent) < -1e-9:
                yield f"{role}, of {now_s} s: {dict(zip(NAMES, spent, strict=True))}"


def shares(spents: Iterable[Spent]) -> dict[str, float]:
    """What part of their time all of these spent in each state; zeros if there was none."""
    totals = [math.fsum(column) for column in zip(*spents, strict=True)] or nothing()
    whole = math.fsum(totals)
    return {name: round(seconds / whole, 6) if whole else 0.0 for name, seconds in zip(NAMES, totals, strict=True)}
