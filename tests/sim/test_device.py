"""A computation's time: exact when the speed changes in its middle, and with jitter right on average."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from statistics import fmean

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.work import Cost
from sim.device import Device, Machine
from sim.loop import SimLoop


class Fault:
    """What takes note of what it did."""

    def __init__(self) -> None:
        self.bit: Counter[str] = Counter()


class Bench:
    """A machine of 1 FLOP/s and 2 B/s, and one process on it."""

    def __init__(self, sigma: float = 0.0, seed: int = 0) -> None:
        self.loop = SimLoop()
        self.machine = Machine("machine/0", 1.0, 2.0, 1.0)
        self.device = Device(self.loop, self.machine, random.Random(seed), sigma)
        self.ended: list[float] = []
        self.faults = defaultdict[int, Fault](Fault)

    def begin(self, flops: float, nbytes: float = 0.0) -> None:
        self.device.begin(Cost(flops, nbytes), lambda: self.ended.append(self.loop.time()))

    def at(self, time_s: float, action: Callable[[], object]) -> None:
        self.loop.call_at(time_s, action)

    def slows(self, time_s: float, factor: float | None, fault: int = 0) -> None:
        """As `sim/faults.py` does it; None: healthy again."""

        def change() -> None:
            self.device.settle()
            if factor is None:
                del self.machine.slowdowns[self.faults[fault]]
            else:
                self.machine.slowdowns[self.faults[fault]] = factor
            self.device.retime()

        self.at(time_s, change)

    def lost_s(self, fault: int = 0) -> float:
        return self.faults[fault].bit["computing seconds lost"]

    def run(self) -> list[float]:
        self.loop.run()
        return self.ended


def test_it_takes_the_longer_of_computing_and_moving() -> None:
    for flops, nbytes, seconds in ((6.0, 4.0, 6.0), (1.0, 8.0, 4.0), (0.0, 0.0, 0.0)):
        bench = Bench()
        bench.begin(flops, nbytes)
        assert bench.run() == [seconds]


def test_a_slowdown_in_the_middle_stretches_what_is_left() -> None:
    bench = Bench()
    bench.begin(8.0)
    bench.slows(2.0, 4.0)
    assert bench.run() == [2.0 + 6.0 * 4]


def test_a_slowdown_that_ends_in_the_middle_costs_what_it_lasted() -> None:
    bench = Bench()
    bench.begin(8.0)
    bench.slows(2.0, 4.0)
    bench.slows(6.0, None)
    assert bench.run() == [2.0 + 4.0 + 5.0]
    assert bench.lost_s() == 3.0


def test_slowdowns_that_overlap_multiply() -> None:
    bench = Bench()
    bench.begin(8.0)
    bench.slows(1.0, 2.0, fault=0)
    bench.slows(3.0, 4.0, fault=1)
    bench.slows(11.0, None, fault=0)
    assert bench.run() == [1.0 + 2.0 + 8.0 + (8.0 - 1.0 - 1.0 - 1.0) * 4]


def test_a_slowdown_in_effect_counts_from_the_beginning() -> None:
    bench = Bench()
    bench.machine.slowdowns[bench.faults[0]] = 4.0
    bench.begin(5.0)
    assert bench.run() == [20.0]
    assert bench.lost_s() == 15.0


def test_a_pause_puts_off_the_end_by_its_length() -> None:
    bench = Bench()
    bench.begin(8.0)
    bench.at(3.0, bench.device.pause)
    bench.at(20.0, bench.device.resume)
    assert bench.run() == [8.0 + 17.0]


def test_a_pause_over_the_end_does_not_end_it_early() -> None:
    bench = Bench()
    bench.begin(4.0)
    bench.at(3.5, bench.device.pause)
    bench.at(4.5, bench.device.resume)
    assert bench.run() == [5.0]


def test_work_begun_while_paused_waits_for_the_resumption() -> None:
    bench = Bench()
    bench.at(1.0, bench.device.pause)
    bench.at(2.0, lambda: bench.begin(4.0))
    bench.at(9.0, bench.device.resume)
    assert bench.run() == [13.0]


def test_a_slowdown_during_a_pause_counts_from_the_resumption() -> None:
    bench = Bench()
    bench.begin(8.0)
    bench.at(2.0, bench.device.pause)
    bench.slows(4.0, 3.0)
    bench.at(10.0, bench.device.resume)
    assert bench.run() == [10.0 + 6.0 * 3]


def test_a_slowdown_within_a_pause_costs_nothing() -> None:
    bench = Bench()
    bench.begin(8.0)
    bench.at(2.0, bench.device.pause)
    bench.slows(4.0, 3.0)
    bench.slows(6.0, None)
    bench.at(10.0, bench.device.resume)
    assert bench.run() == [16.0]
    assert bench.lost_s() == 0.0


def test_a_change_at_the_very_end_changes_nothing() -> None:
    bench = Bench()
    bench.begin(8.0)
    bench.slows(8.0, 5.0)
    assert bench.run() == [8.0]


def test_it_ends_once_and_the_next_may_begin_in_its_end() -> None:
    bench = Bench()
    bench.device.begin(Cost(2.0), lambda: bench.begin(3.0))
    for time_s, factor in ((0.5, 2.0), (1.0, None), (1.25, 2.0), (1.5, None)):
        bench.slows(time_s, factor)
    assert bench.run() == [2.375 + 3.0]


def test_a_second_computation_at_once_is_a_mistake_of_ours() -> None:
    bench = Bench()
    bench.begin(1.0)
    with pytest.raises(AssertionError, match="second computation"):
        bench.begin(1.0)


changes = st.lists(st.tuples(st.integers(1, 60), st.sampled_from((2.0, 4.0, 8.0, None, "pause", "resume"))), max_size=8)


@given(st.integers(1, 64), changes)
@example(15, [(1, 2.0), (29, "pause")])
@example(15, [(1, 2.0), (29, "pause"), (40, "resume")])
@example(15, [(15, "pause")])
def test_the_work_done_is_the_integral_of_the_speed(quarters: int, planned: list[tuple[int, float | str | None]]) -> None:
    """Against a naive integration in steps of 1/64 s, in which every number is exact."""
    bench = Bench()
    bench.begin(quarters / 4)
    # one slowdown at a time; what does not change anything is left out
    slowness, paused, timeline = 1.0, False, list[tuple[float, float, bool]]()
    for quarter, change in sorted(planned, key=lambda one: one[0]):
        time_s = quarter / 4
        if change == "pause" and not paused:
            paused = True
            bench.at(time_s, bench.device.pause)
        elif change == "resume" and paused:
            paused = False
            bench.at(time_s, bench.device.resume)
        elif change is None and slowness > 1:
            slowness = 1.0
            bench.slows(time_s, None)
        elif isinstance(change, float):
            slowness = change
            bench.slows(time_s, change)
        else:
            continue
        timeline.append((time_s, slowness, paused))
    left, now, step = quarters / 4, 0.0, 1 / 64
    speed, halted, retimed = 1.0, False, False
    while now < 1000 and (left > 0 or retimed):
        while timeline and timeline[0][0] <= now:  # planned before what is retimed: of the same instant, it comes first
            _, speed, halted = timeline.pop(0)
            retimed = True
        if left <= 0 and not halted:
            break
        left -= 0.0 if halted else step / speed
        now += step
    assert bench.run() == ([now] if left <= 0 and now < 1000 else [])


@pytest.mark.parametrize("sigma", [0.05, 0.3, 1.0])
def test_jitter_is_one_on_average_and_has_its_spread(sigma: float) -> None:
    draws, bench = [], Bench(sigma, seed=1)
    for _ in range(20_000):
        bench.begin(1.0)
        draws.append(bench.device.left_s)
        bench.device.stop()
    error = math.sqrt((math.exp(sigma**2) - 1) / len(draws))
    assert abs(fmean(draws) - 1) < 4 * error
    logs = [math.log(draw) for draw in draws]
    assert fmean((value + sigma**2 / 2) ** 2 for value in logs) == pytest.approx(sigma**2, rel=0.05)


def test_without_jitter_nothing_is_drawn() -> None:
    bench = Bench()
    bench.begin(1.0)
    assert bench.device.jitter.random() == random.Random(0).random()


def test_drawn_times_are_whole_nanoseconds() -> None:
    bench = Bench(0.3)
    bench.begin(1.0)
    assert bench.device.left_s == round(bench.device.left_s, 9) != 1.0


# processes that share cores


class Crowd:
    """Some processes on a machine that does 1 FLOP/s, of which each may use a share."""

    def __init__(self, share: float = 1.0, processes: int = 2) -> None:
        self.loop = SimLoop()
        self.machine = Machine("machine/0", share, 2.0, 1.0, share)
        self.devices = [Device(self.loop, self.machine, random.Random(number), 0.0) for number in range(processes)]
        self.ended: dict[int, float] = {}

    def begin(self, number: int, flops: float) -> None:
        self.devices[number].begin(Cost(flops, 0.0), lambda: self.ended.__setitem__(number, self.loop.time()))

    def run(self) -> dict[int, float]:
        self.loop.run()
        return self.ended


def test_two_that_compute_at_once_have_half_of_the_cores_each() -> None:
    crowd = Crowd()
    crowd.begin(0, 4.0)
    crowd.loop.call_at(2.0, lambda: crowd.begin(1, 4.0))
    assert crowd.run() == {0: 6.0, 1: 8.0}
    assert [device.contention_s for device in crowd.devices] == [2.0, 2.0]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40)), min_size=1, max_size=5))
def test_sharing_loses_no_work_and_leaves_no_core_idle(planned: list[tuple[int, int]]) -> None:
    """Whoever begins when, all is done when one process alone, after one another, would have done it."""
    crowd = Crowd(processes=len(planned))
    for number, (time_s, flops) in enumerate(planned):
        crowd.loop.call_at(float(time_s), lambda number=number, flops=flops: crowd.begin(number, float(flops)))  # type: ignore[misc]
    done_s = 0.0
    for time_s, flops in sorted(planned):
        done_s = max(done_s, time_s) + flops
    assert max(crowd.run().values()) == pytest.approx(done_s)
    for number, (time_s, flops) in enumerate(planned):
        assert crowd.ended[number] - time_s == pytest.approx(flops + crowd.devices[number].contention_s)


def test_as_long_as_there_are_cores_enough_nobody_waits() -> None:
    crowd = Crowd(share=0.25, processes=5)
    for number in range(4):
        crowd.begin(number, 1.0)
    assert crowd.run() == dict.fromkeys(range(4), 4.0)
    crowd = Crowd(share=0.25, processes=5)
    for number in range(5):
        crowd.begin(number, 1.0)
    assert crowd.run() == dict.fromkeys(range(5), pytest.approx(5.0))


def test_one_that_is_paused_or_gone_leaves_its_cores_to_the_others() -> None:
    for leave in (Device.pause, Device.stop):
        crowd = Crowd()
        crowd.begin(0, 8.0)
        crowd.begin(1, 8.0)
        crowd.loop.call_at(4.0, lambda crowd=crowd, leave=leave: leave(crowd.devices[1]))  # type: ignore[misc]
        assert crowd.run() == {0: 10.0}
        assert crowd.machine.computing == []
