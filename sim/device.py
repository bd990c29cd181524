"""What computes: a machine's speed, and one process's computation in progress.

A computation takes max(FLOPs / speed, bytes / memory bandwidth), times its jitter.  When the speed changes in the middle
(a slowdown begins or ends, the process is paused or resumed), what is left of it is timed anew.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from core.work import Cost
from sim.loop import Event, SimLoop

if TYPE_CHECKING:
    from sim.network import Route


@dataclass(slots=True, eq=False)
class Machine:
    """Where processes run: speed, memory, disk, and what the network keeps of it."""

    name: str
    flops_per_s: float
    memory_bytes_per_s: float
    disk_bytes_per_s: float
    up: bool = True
    routes: dict[Machine, Route] = field(default_factory=dict)
    """To the machines that it has sent something to."""
    sent_until: float = 0.0
    """The outgoing side of the NIC is taken until then, where messages take turns."""
    received_until: float = 0.0
    slowdowns: dict[int, float] = field(default_factory=dict)
    """Factor of each slowdown in effect, by fault."""
    lost_s: dict[int, float] = field(default_factory=dict)
    """Computing time that each slowdown has cost so far, by fault."""

    @property
    def slowness(self) -> float:
        """How many times slower than when healthy; slowdowns multiply."""
        factor = 1.0
        for slowdown in self.slowdowns.values():
            factor *= slowdown
        return factor

    def account(self, elapsed_s: float) -> None:
        """So long something computed here at the present speed."""
        for fault, factor in self.slowdowns.items():
            self.lost_s[fault] = self.lost_s.get(fault, 0.0) + elapsed_s * (1 - 1 / factor)

    def takes(self, cost: Cost) -> float:
        """Seconds for that much work at the present speed."""
        return max(cost[0] / self.flops_per_s, cost[1] / self.memory_bytes_per_s) * (self.slowness if self.slowdowns else 1.0)


class Computation(Event):
    """One stretch of a computation at an unchanging speed."""

    __slots__ = ("device",)

    def __init__(self, device: Device) -> None:
        self.device = device

    def __call__(self) -> None:
        if self.device.running is self:
            self.device.finish()


class Device:
    """One process's share of a machine: one computation at a time."""

    def __init__(self, loop: SimLoop, machine: Machine, jitter: random.Random, sigma: float) -> None:
        self.loop, self.machine, self.jitter, self.sigma = loop, machine, jitter, sigma
        self.running: Computation | None = None
        self.paused = False
        self.done: Callable[[], None] = lambda: None
        self.left_s = self.since = self.busy_s = 0.0
        self.slowness = 1.0

    def begin(self, cost: Cost, done: Callable[[], None]) -> None:
        """Call `done` when the work is through.  A process asks for one thing at a time."""
        assert self.running is None, "a second computation on one device"
        machine = self.machine
        self.left_s = max(cost[0] / machine.flops_per_s, cost[1] / machine.memory_bytes_per_s)
        if self.sigma:
            self.left_s *= self.jitter.lognormvariate(-self.sigma * self.sigma / 2, self.sigma)
        self.left_s = round(self.left_s, 9)  # libm differs in the last bit from machine to machine
        self.done = done
        self.go()

    def go(self) -> None:
        """Time what is left at the present speed."""
        self.since, self.slowness = self.loop.env.now, self.machine.slowness
        self.running = Computation(self)
        if not self.paused:
            self.loop.after(self.left_s * self.slowness, self.running)

    def settle(self) -> None:
        """Deduct what has been done since the last look: call before the speed changes."""
        if self.running is not None and not self.paused:
            elapsed_s = self.loop.env.now - self.since
            self.left_s = max(0.0, self.left_s - elapsed_s / self.slowness)
            self.machine.account(elapsed_s)
            self.since = self.loop.env.now

    def retime(self) -> None:
        """Time what is left anew: call after the speed has changed."""
        if self.running is not None:
            self.go()

    def pause(self) -> None:
        self.settle()
        self.paused = True
        self.retime()

    def resume(self) -> None:
        self.paused = False
        self.retime()

    def finish(self) -> None:
        if self.machine.slowdowns:
            self.settle()
        self.running = None
        self.done()
