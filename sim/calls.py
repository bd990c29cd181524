"""What travels between simulated processes: a call, there and back, and what is told, there only.

Each is one object, which is also what falls due in SimPy's queue.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from core.messages import Request
from report.trace import Track
from scenarios.network import HEADER_BYTES
from sim.device import Machine
from sim.loop import Future
from sim.network import Message

if TYPE_CHECKING:
    from sim.host import Host

REQUEST, SERVED, REPLY, RESET = range(4)


@dataclass(slots=True, eq=False)
class Place:
    """Where calls to somebody go: a machine, and the process that answers there, while one does."""

    name: str
    machine: Machine
    host: Host | None = None


class Travelling(Message):
    """A request on its way; no slots of its own, as those of a message."""

    if not TYPE_CHECKING:
        __slots__ = ()
    answered: ClassVar[bool] = True
    """Does anybody wait for an answer?"""
    doubled: ClassVar[bool] = False
    """Is it a second one, made on the way?"""
    stage: int
    caller: Host
    to: Place
    request: Request[Any]
    addressee_life: int
    addressee: Host
    durable: asyncio.Future[None] | None
    outcome: tuple[Any, int, str]
    """Reply, life of whoever replies, and why there is none."""
    sent_s: float
    arrived_s: float
    handled_s: float
    replied_s: float
    """Infinite while there is no reply."""
    served_on: Track
    """Where a trace shows that it was served; not set before."""

    def twin(self) -> Travelling:
        """The same request again, whose answer nobody waits for."""
        raise NotImplementedError

    def like(self, other: Travelling) -> None:
        self.caller, self.to, self.request = other.caller, other.to, other.request
        self.stage, self.addressee_life, self.sent_s = other.stage, other.addressee_life, other.sent_s


class Call(Future, Travelling):
    """A request on its way, then its reply on the way back; and the future of that reply."""

    __slots__ = (
        "addressee", "addressee_life", "arrived_s", "caller", "deadline_s", "destination", "durable", "handled_s", "nbytes", "outcome",
        "replied_s", "request", "sent_s", "served_on", "stage", "to", "waits",
    )  # fmt: skip
    deadline_s: float

    def __call__(self) -> None:
        if self.stage == SERVED:
            self.addressee.departs(self)
        elif (self.waits or not self.destination.up) and not self.caller.network.is_there(self):
            pass  # it waits for the receiver, or is lost
        elif self.stage != REQUEST:
            self.caller.returned(self)
        elif (host := self.to.host) is not None:
            self.addressee, self.arrived_s = host, host.loop.env._now
            host.arrive(self)
        else:
            self.stage = RESET
            self.caller.network.send(self, self.to.machine, self.caller.machine, HEADER_BYTES)

    def twin(self) -> Twin:
        twin = Twin(loop=self.caller.loop)
        twin.like(self)
        return twin


class Twin(Call):
    """A call that was doubled on its way."""

    __slots__ = ()
    doubled = True


class Told(Travelling):
    """A request that nobody answers: half of all messages would else be acknowledgements, where replicas are split."""

    __slots__ = (
        "addressee", "addressee_life", "arrived_s", "caller", "destination", "durable", "handled_s", "nbytes", "outcome", "request",
        "sent_s", "served_on", "stage", "to", "waits",
    )  # fmt: skip
    answered = False

    def __call__(self) -> None:
        if self.stage == SERVED:
            self.addressee.departs(self)
        elif (self.waits or not self.destination.up) and not self.caller.network.is_there(self):
            pass  # it waits for the receiver, or is lost
        elif (host := self.to.host) is not None:
            self.addressee, self.arrived_s = host, host.loop.env._now
            self.caller.ended(self)
            host.arrive(self)

    def twin(self) -> Echo:
        echo = Echo()
        echo.like(self)
        return echo


class Echo(Told):
    """Something told that was doubled on its way."""

    __slots__ = ()
    doubled = True
