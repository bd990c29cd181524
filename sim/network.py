"""The simulated network: when a message that is sent now arrives.

- `latency`: every message takes latency + bytes / bandwidth of the narrowest link of its path, however many others there are.
- `fifo`: besides, each NIC sends one message after the other, and receives one after the other, in the order in which
  their last bytes could arrive; the links between NICs are not shared.  A message is cut through: it takes the wire once, not once for each NIC.
- `fair`: messages share every link of their paths max-min fairly (`sim/fair.py`), and arrive a latency after their last byte has left.
  One that fits into a packet takes latency + bytes / bandwidth: a fair queue gives it its turn at once.

What a machine sends to itself goes through its memory.  This is the hottest path of the simulator: it is written out rather than composed.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from core import chance
from scenarios.distributions import Distribution
from scenarios.wiring import Wiring
from sim.device import Machine
from sim.fair import Flow, Link, Sharing
from sim.loop import Event, SimLoop

PACKET_BYTES = 1500
"""Of Ethernet."""

LATE = 4
"""SimPy's priority of what comes after everything else of an instant; that has 1, or up to 2 where ties are shuffled."""


class Message(Event):
    """Something on its way.  When it falls due it asks `Network.is_there`, and is handed over if so.

    It has no slots of its own, since whoever is one may be something else besides.
    """

    if not TYPE_CHECKING:
        __slots__ = ()
    destination: Machine
    nbytes: float
    waits: float
    """How many seconds it will take the receiving NIC, if it has that still before it."""


class Meddler(Protocol):
    """A fault of messages."""

    name: str
    severing: bool
    """Does nothing get through at all?"""

    def severs(self, source: Any, destination: Any) -> bool:
        """If so: from that host to the other?"""

    def __call__(self, message: Any) -> float | None:
        """By how many seconds it holds this one up; None if it swallows it."""


class Route:
    """From one machine to another."""

    __slots__ = ("bandwidth", "latency_s", "links")

    def __init__(self, links: tuple[Link, ...], latency_s: float) -> None:
        self.links, self.latency_s = links, latency_s
        self.narrow()

    def narrow(self) -> None:
        """Of all its links the narrowest counts."""
        self.bandwidth = min(link.capacity for link in self.links)


class Network:
    """What all three have in common."""

    def __init__(self, loop: SimLoop, wiring: Wiring, latency: Distribution, seed: int = 0) -> None:
        """`latency`: that of a message besides what the links on its way add, drawn from a stream of the sending machine's own."""
        self.loop, self.wiring, self.seed = loop, wiring, seed
        self.after = loop.after
        self.links = {name: Link(name, capacity) for name, capacity in wiring.links.items()}
        self.latency_s = latency.mean_s
        self._latency = latency if latency.constant is None else None
        self._routes: list[Route] = []
        self.meddlers: list[Meddler] = []
        self.on_dropped: Callable[[Message, str], None] = lambda _message, _why: None
        self.messages = 0
        self.bytes = 0.0

    def send(self, message: Message, source: Machine, destination: Machine, nbytes: float) -> None:
        """Put a message on the wire.  It goes out even if it is lost on the way."""
        raise NotImplementedError

    def is_there(self, message: Message) -> bool:
        """Has the last byte of a message that is due arrived?  Not if the receiver is still taken, or down."""
        if not message.destination.up:
            self.on_dropped(message, f"{message.destination.name} is down")
            return False
        return True

    def path(self, source: Machine, destination: Machine) -> tuple[Link, ...]:
        """The links from one machine to another, in order; none from one to itself."""
        return () if source is destination else (source.routes.get(destination) or self.route(source, destination)).links

    def set_capacity(self, link: str, bytes_per_s: float) -> None:
        """From now on; under `fair` for what is under way as well.  With 0, what is under way waits, or else what is sent is lost."""
        self.links[link].capacity = bytes_per_s
        for route in self._routes:
            route.narrow()

    def tear_down(self, machine: Machine) -> None:
        """A machine has gone down: what it was sending, or was being sent, comes to an end where transfers are simulated at all."""

    def notes(self) -> list[str]:
        """What whoever reads the result should know."""
        return []

    def alone_s(self, source: Machine, destination: Machine, nbytes: float) -> float:
        """How long so many bytes would be under way if nobody else sent anything, on average."""
        if source is destination:
            return nbytes / source.memory_bytes_per_s
        route = source.routes.get(destination) or self.route(source, destination)
        drawn_s = self.latency_s if self._latency is not None else 0.0
        return drawn_s + route.latency_s + nbytes / route.bandwidth if route.bandwidth else inf

    def route(self, source: Machine, destination: Machine) -> Route:
        """Worked out once for each pair."""
        names = self.wiring.route(source.name, destination.name)
        latency_s = self.latency_s if self._latency is None else 0.0
        route = Route(tuple(self.links[name] for name in names), latency_s + sum(self.wiring.latencies.get(name, 0.0) for name in names))
        source.routes[destination] = route
        self._routes.append(route)
        return route

    def latency_of(self, source: Machine) -> Callable[[], float]:
        """Draws the latency of this machine's next message, where it varies."""
        assert self._latency is not None
        source.latency = draw = self._latency.sampler(chance.stream(self.seed, source.name, "latency"))
        return draw

    def meddled_s(self, message: Message) -> float | None:
        """By how much faults hold this one up; None if one swallows it."""
        held_up_s = 0.0
        for meddler in self.meddlers:
            later_s = meddler(message)
            if later_s is None:
                self.on_dropped(message, meddler.name)
                return None
            held_up_s += later_s
        return held_up_s

    def cut(self, message: Message, route: Route) -> None:
        """A message has met a link that carries nothing."""
        self.on_dropped(message, f"{next(link.name for link in route.links if not link.capacity)} carries nothing")


class Latency(Network):
    """Nothing is shared.  Links count what they carry when it is sent."""

    def send(self, message: Message, source: Machine, destination: Machine, nbytes: float) -> None:
        self.messages += 1
        self.bytes += nbytes
        message.destination, message.nbytes, message.waits = destination, nbytes, 0.0
        if source is destination:
            delay_s = nbytes / source.memory_bytes_per_s
        else:
            route = source.routes.get(destination) or self.route(source, destination)
            if not route.bandwidth:
                self.cut(message, route)
                return
            delay_s = route.latency_s + nbytes / route.bandwidth
            if self._latency is not None:
                delay_s += (source.latency or self.latency_of(source))()
            for link in route.links:
                link.carried_bytes += nbytes
        if self.meddlers:
            held_up_s = self.meddled_s(message)
            if held_up_s is None:
                return
            delay_s += held_up_s
        self.after(delay_s, message)


class Fifo(Network):
    """NICs are taken by one message at a time; one that has to wait for the receiver costs a second event.  Links count as above."""

    def send(self, message: Message, source: Machine, destination: Machine, nbytes: float) -> None:
        self.messages += 1
        self.bytes += nbytes
        message.destination, message.nbytes, message.waits = destination, nbytes, 0.0
        if source is destination:
            delay_s = nbytes / source.memory_bytes_per_s
        else:
            route = source.routes.get(destination) or self.route(source, destination)
            if not route.bandwidth:
                self.cut(message, route)
                return
            delay_s = route.latency_s + nbytes / route.bandwidth
            if self._latency is not None:
                delay_s += (source.latency or self.latency_of(source))()
            links = route.links
            message.waits = nbytes / links[-1].capacity
            now = self.loop.env._now
            start = source.sent_until
            if start > now:
                delay_s += start - now
            else:
                start = now
            source.sent_until = start + nbytes / links[0].capacity
            for link in links:
                link.carried_bytes += nbytes
        if self.meddlers:
            held_up_s = self.meddled_s(message)
            if held_up_s is None:
                return
            delay_s += held_up_s
        self.after(delay_s, message)

    def is_there(self, message: Message) -> bool:
        machine = message.destination
        if not machine.up:
            self.on_dropped(message, f"{machine.name} is down")
            return False
        if message.waits:
            now = self.loop.env._now
            through = machine.received_until + message.waits
            message.waits = 0.0
            if through > now:
                machine.received_until = through
                self.after(through - now, message)
                return False
            machine.received_until = now
        return True


class Fair(Network, Event):
    """Links are shared.  It is itself the event that settles what has changed in an instant, and what is through."""

    def __init__(self, loop: SimLoop, wiring: Wiring, latency: Distribution, seed: int = 0) -> None:
        super().__init__(loop, wiring, latency, seed)
        self.sharing = Sharing(self.links.values())
        self._awake_s = inf
        """When it settles next; earlier alarms that are no longer meant stay in SimPy's queue and do nothing."""

    def send(self, message: Message, source: Machine, destination: Machine, nbytes: float) -> None:
        self.messages += 1
        self.bytes += nbytes
        message.destination, message.nbytes, message.waits = destination, nbytes, 0.0
        if source is destination:
            delay_s = nbytes / source.memory_bytes_per_s
            if self.meddlers:
                held_up_s = self.meddled_s(message)
                if held_up_s is None:
                    return
                delay_s += held_up_s
            self.after(delay_s, message)
            return
        route = source.routes.get(destination) or self.route(source, destination)
        delay_s = route.latency_s
        if self._latency is not None:
            delay_s += (source.latency or self.latency_of(source))()
        received: Message | None = message
        if self.meddlers:
            held_up_s = self.meddled_s(message)
            if held_up_s is None:
                received = None
            else:
                delay_s += held_up_s
        if nbytes <= PACKET_BYTES and route.bandwidth:
            for link in route.links:
                link.carried_bytes += nbytes
            if received is not None:
                self.after(delay_s + nbytes / route.bandwidth, message)
        elif not destination.up:
            if received is not None:
                self.on_dropped(message, f"{destination.name} is down")
        else:
            links = route.links if received is not None else route.links[:1]  # where it gets lost nobody can tell
            self.sharing.join(Flow(links, nbytes, received, delay_s))
            if self._awake_s != self.loop.env._now:
                self._wake(0.0)

    def __call__(self) -> None:
        now = self.loop.env._now
        if now != self._awake_s:
            return
        sharing, after = self.sharing, self.after
        for flow in sharing.settle(now):
            if flow.message is not None:
                after(flow.after_s, flow.message)
        due = sharing.next_due()
        if due < inf:
            self._wake(due - now)
        else:
            self._awake_s = inf

    def _wake(self, delay_s: float) -> None:
        """Settle so much later, when everything else of that instant is over."""
        env = self.loop.env
        self._awake_s = env._now + delay_s
        env.schedule(self, LATE, delay_s)  # type: ignore[arg-type]

    def notes(self) -> list[str]:
        refills = self.sharing.refills
        return [f"{refills} times the shares of all links had to be worked out anew: exact, but slow"] if refills else []

    def set_capacity(self, link: str, bytes_per_s: float) -> None:
        super().set_capacity(link, bytes_per_s)
        self.sharing.change(self.links[link], bytes_per_s)
        self._wake(0.0)

    def tear_down(self, machine: Machine) -> None:
        now = self.loop.env._now
        for name in self.wiring.attachments[machine.name]:
            link = self.links[name]
            for flow in self.sharing.across(link):
                if link in (flow.path[0], flow.path[-1]):  # in a graph it may only pass through
                    self.sharing.cancel(flow, now)
                    if flow.message is not None:
                        self.on_dropped(flow.message, f"{machine.name} went down")
        self._wake(0.0)


MODELS: dict[str, type[Network]] = {"latency": Latency, "fifo": Fifo, "fair": Fair}
