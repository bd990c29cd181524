"""What a trace shows beyond the journal: each computation, each call, and each request that is served, as they happen."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from report.trace import TraceWriter, Track

if TYPE_CHECKING:
    from sim.calls import Travelling
    from sim.host import Host


class Spans:
    """Writes them; hosts tell it."""

    def __init__(self, writer: TraceWriter) -> None:
        self.writer = writer
        self._arrows = 0

    def computed(self, host: Host, began_s: float, now_s: float) -> None:
        self.writer.slice(Track(host.machine.name, f"{host.name} computes"), "compute", began_s, now_s)

    def queued(self, host: Host, length: int, now_s: float) -> None:
        self.writer.counter(host.machine.name, f"queue of {host.name}", now_s, length)

    def served(self, host: Host, call: Travelling, now_s: float) -> None:
        """What it asked for is paid; the reply leaves now, or when it is durable."""
        track = Track(host.machine.name, f"{host.name} serves")
        call.served_on = self.writer.slice(track, f"{type(call.request).__name__} of {call.caller.name}", call.handled_s, now_s)

    def ended(self, call: Travelling, now_s: float) -> None:
        """A call has its reply, or will not get one, with arrows there and back where it was served; or what was told is there."""
        caller = call.caller
        if not call.answered:
            track = Track(caller.machine.name, f"{caller.name} tells {call.to.name}")
            self.writer.slice(track, type(call.request).__name__, call.sent_s, now_s)
            return
        answered = call.replied_s < inf
        name = f"{type(call.request).__name__} to {call.to.name}"
        told = {} if answered else {"answer": "none"}
        track = self.writer.slice(Track(caller.machine.name, f"{caller.name} asks {call.to.name}"), name, call.sent_s, now_s, **told)
        served_on: Track | None = getattr(call, "served_on", None)
        if answered and served_on is not None:
            self._arrows += 1
            self.writer.flow(f"request {self._arrows}", (track, call.sent_s), (served_on, call.handled_s))
            self.writer.flow(f"reply {self._arrows}", (served_on, call.handled_s), (track, now_s))
