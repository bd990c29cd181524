"""What computes: a machine's speed, and one process's computation in progress.

A computation takes max(FLOPs / speed, bytes / memory bandwidth), times its jitter.  When the speed changes in the middle
(a slowdown begins or ends, the process is paused or resumed, another begins to compute on the same cores), what is left of it is
timed anew.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from core.work import Cost
from sim.loop import Event, SimLoop

if TYPE_CHECKING:
    from sim.network import Route
    from sim.store import DiskStore


class Cause(Protocol):
    """A fault that is at work on a machine, and takes note of what it does there."""

    @property
    def bit(self) -> Counter[str]: ...


class Drift(Protocol):
    """What is wrong with a machine's clock."""

    def __call__(self, now_s: float) -> float:
        """By how many seconds it is ahead."""


@dataclass(slots=True, eq=False)
class Machine:
    """Where processes run: speed, memory, disk, and what the network keeps of it."""

    name: str
    flops_per_s: float
    """Of what one process can use of it."""
    memory_bytes_per_s: float
    disk_bytes_per_s: float
    share: float = 1.0
    """Of the machine's cores, which one process can use."""
    up: bool = True
    holds: int = 0
    """So many faults keep it down."""
    routes: dict[Machine, Route] = field(default_factory=dict)
    """To the machines that it has sent something to."""
    latency: Callable[[], float] | None = None
    """Draws that of its next message, where it varies and one has been drawn before."""
    sent_until: float = 0.0
    """The outgoing side of the NIC is taken until then, where messages take turns."""
    received_until: float = 0.0
    slowdowns: dict[Cause, float] = field(default_factory=dict)
    """Factor of each slowdown in effect."""
    computing: list[Device] = field(default_factory=list)
    """Whoever uses its cores at this moment."""
    storing: list[DiskStore] = field(default_factory=list)
    """Those for which the disk reads or writes at this moment."""
    full_disk: dict[Cause, None] = field(default_factory=dict)
    slow_disk: dict[Cause, float] = field(default_factory=dict)
    drifts: dict[Cause, Drift] = field(default_factory=dict)
    """Of its clock."""

    @property
    def slowness(self) -> float:
        """How many times slower than when healthy; slowdowns multiply."""
        factor = 1.0
        for slowdown in self.slowdowns.values():
            factor *= slowdown
        return factor

    @property
    def crowding(self) -> float:
        """How many times slower each process computes than alone."""
        return max(1.0, len(self.computing) * self.share)

    def account(self, elapsed_s: float) -> None:
        """So long something computed here at the present speed."""
        for cause, factor in self.slowdowns.items():
            lose(cause, "computing seconds lost", elapsed_s * (1 - 1 / factor))

    @property
    def disk_slowness(self) -> float:
        """Likewise of its disk."""
        factor = 1.0
        for slowdown in self.slow_disk.values():
            factor *= slowdown
        return factor

    def account_disk(self, elapsed_s: float) -> None:
        """So long the disk read or wrote for one process at the present speed."""
        for cause, factor in self.slow_disk.items():
            lose(cause, "disk seconds lost", elapsed_s * (1 - 1 / factor))

    def clock(self, now_s: float) -> float:
        """What its clock says."""
        ahead_s = 0.0
        for cause, drift in self.drifts.items():
            cause.bit["readings"] += 1
            ahead_s += drift(now_s)
        return now_s + ahead_s

    def takes(self, cost: Cost) -> float:
        """Seconds for that much work at the present speed."""
        return max(cost[0] / self.flops_per_s, cost[1] / self.memory_bytes_per_s) * (self.slowness if self.slowdowns else 1.0)


def lose(cause: Cause, what: str, seconds: float) -> None:
    cause.bit[what] += seconds  # type: ignore[assignment]


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
        self.left_s = self.since = 0.0
        self.slowness = self.crowding = 1.0
        self.contention_s = 0.0
        """Of the computation under way, or the last one, since it began or was resumed: time lost to others on the same cores."""

    def begin(self, cost: Cost, done: Callable[[], None]) -> None:
        """Call `done` when the work is through.  A process asks for one thing at a time."""
        assert self.running is None, "a second computation on one device"
        machine = self.machine
        self.left_s = max(cost[0] / machine.flops_per_s, cost[1] / machine.memory_bytes_per_s)
        if self.sigma:
            self.left_s *= self.jitter.lognormvariate(-self.sigma * self.sigma / 2, self.sigma)
        self.left_s = round(self.left_s, 9)  # libm differs in the last bit from machine to machine
        self.done = done
        self.contention_s = 0.0
        if not self.paused:
            self.occupy()
        self.go()

    def go(self) -> None:
        """Time what is left at the present speed."""
        machine = self.machine
        self.since, self.slowness = self.loop.env._now, machine.slowness
        self.crowding = machine.crowding if len(machine.computing) > 1 else 1.0
        self.running = Computation(self)
        if not self.paused:
            self.loop.after(self.left_s * self.slowness * self.crowding, self.running)

    def settle(self) -> None:
        """Deduct what has been done since the last look: call before the speed changes."""
        if self.running is not None and not self.paused:
            elapsed_s = self.loop.env.now - self.since
            self.left_s = max(0.0, self.left_s - elapsed_s / (self.slowness * self.crowding))
            self.contention_s += elapsed_s * (1 - 1 / self.crowding)
            self.machine.account(elapsed_s)
            self.since = self.loop.env.now

    def retime(self) -> None:
        """Time what is left anew: call after the speed has changed."""
        if self.running is not None:
            self.go()

    def occupy(self) -> None:
        """It computes from now on."""
        computing = self.machine.computing
        computing.append(self)
        if len(computing) > 1:
            self.crowd()

    def release(self) -> None:
        """It does not compute any more."""
        computing = self.machine.computing
        computing.remove(self)
        if computing:
            self.crowd()

    def crowd(self) -> None:
        """One more or one less on these cores: if there are not enough of them, that changes everybody else's speed."""
        crowding = self.machine.crowding
        for other in self.machine.computing:
            if other is not self and other.crowding != crowding:
                other.settle()
                other.retime()

    def pause(self) -> None:
        self.settle()
        self.paused = True
        if self.running is not None:
            self.release()
        self.retime()

    def resume(self) -> None:
        self.paused, self.contention_s = False, 0.0
        if self.running is not None:
            self.occupy()
        self.retime()

    def finish(self) -> None:
        self.end()
        self.done()

    def stop(self) -> None:
        """Its process is over, and whatever it computed."""
        if self.running is not None:
            self.end()

    def end(self) -> None:
        """It does not compute any more."""
        if self.machine.slowdowns or self.crowding != 1:
            self.settle()
        self.running = None
        if not self.paused:
            self.release()
