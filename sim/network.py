"""The simulated network: when a message that is sent now arrives.

- `latency`: every message takes latency + bytes / bandwidth, however many others there are.
- `fifo`: besides, each NIC sends one message after the other, and receives one after the other, in the order in which
  their last bytes could arrive.  A message is cut through: it takes the wire once, not once for each NIC.

A message that meets a free receiver costs one SimPy event, one that has to wait there a second.  This is the hottest path
of the simulator: it is written out rather than composed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from sim.device import Machine
from sim.loop import Event, SimLoop


class Message(Event):
    """Something on its way.  When it falls due it asks `Network.is_there`, and is handed over if so.

    It has no slots of its own, since whoever is one may be something else besides.
    """

    if not TYPE_CHECKING:
        __slots__ = ()
    destination: Machine
    nbytes: float
    waits: bool
    """Has it still to pass the receiving NIC?"""


class Meddler(Protocol):
    """A fault of messages."""

    name: str

    def __call__(self, message: Any) -> float | None:
        """By how many seconds it holds this one up; None if it swallows it."""


@dataclass(slots=True, eq=False)
class Network:
    """`fifo`: NICs are taken by one message at a time."""

    loop: SimLoop
    latency_s: float
    fifo: bool
    meddlers: list[Meddler] = field(default_factory=list)
    on_dropped: Callable[[Message, str], None] = lambda _message, _why: None
    messages: int = 0
    bytes: float = 0.0
    after: Callable[[float, Message], None] = field(init=False)

    def __post_init__(self) -> None:
        self.after = self.loop.after

    def send(self, message: Message, source: Machine, destination: Machine, nbytes: float) -> None:
        """Put a message on the wire.  It goes out even if it is lost on the way."""
        self.messages += 1
        self.bytes += nbytes
        message.destination, message.nbytes, message.waits = destination, nbytes, False
        if source is destination:
            delay_s = nbytes / source.memory_bytes_per_s
        else:
            out, into = source.nic_bytes_per_s, destination.nic_bytes_per_s
            delay_s = self.latency_s + nbytes / (min(into, out))
            if self.fifo:
                message.waits = True
                now = self.loop.env._now
                start = source.sent_until
                if start > now:
                    delay_s += start - now
                else:
                    start = now
                source.sent_until = start + nbytes / out
        if self.meddlers:
            for meddler in self.meddlers:
                later_s = meddler(message)
                if later_s is None:
                    self.on_dropped(message, meddler.name)
                    return
                delay_s += later_s
        self.after(delay_s, message)

    def alone_s(self, source: Machine, destination: Machine, nbytes: float) -> float:
        """How long so many bytes would be under way if nobody else sent anything."""
        if source is destination:
            return nbytes / source.memory_bytes_per_s
        return self.latency_s + nbytes / min(source.nic_bytes_per_s, destination.nic_bytes_per_s)

    def is_there(self, message: Message) -> bool:
        """Has the last byte of a message that is due arrived?  Not if the receiver is still taken, or down."""
        machine = message.destination
        if not machine.up:
            self.on_dropped(message, f"{machine.name} is down")
            return False
        if message.waits:
            message.waits = False
            now = self.loop.env._now
            through = machine.received_until + message.nbytes / machine.nic_bytes_per_s
            if through > now:
                machine.received_until = through
                self.after(through - now, message)
                return False
            machine.received_until = now
        return True
