"""asyncio on SimPy: lives that crash, pause and come back; failures that nobody looked at; ties; the clock that must move.

What any event loop must do stands in `tests/conformance`; what is delivered between lives in `test_loop_delivery.py`.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import os
import random
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from sim import loop as sim_loop
from sim.loop import LIFE, FrozenClock, Life, SimLoop

Log = list[Any]


@pytest.fixture
def loop() -> SimLoop:
    return SimLoop()


@pytest.fixture
def log() -> Log:
    return []


async def ticks(log: Log, name: str, count: int = 3) -> None:
    for number in range(1, count + 1):
        await asyncio.sleep(1.0)
        log.append((asyncio.get_running_loop().time(), name, number))


async def waits_in_vain(log: Log, name: str) -> None:
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        log.append(f"{name} finally")


async def fails(what: str = "boom") -> None:
    await asyncio.sleep(1.0)
    raise ValueError(what)


# the clock


def test_time_is_simulated_and_exact(loop: SimLoop, log: Log) -> None:
    async def body() -> None:
        await asyncio.sleep(86_400.0)
        log.append(asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout(0.25):
                await asyncio.sleep(1e6)
        except TimeoutError:
            log.append(asyncio.get_running_loop().time())

    Life("a", 1, loop).start(body())
    loop.run()
    assert log == [86_400.0, 86_400.25]


def test_a_run_ends_at_its_time_or_event_and_can_go_on(loop: SimLoop, log: Log) -> None:
    Life("a", 1, loop).start(ticks(log, "a"))
    loop.run(until=1.5)
    assert (loop.time(), log) == (1.5, [(1.0, "a", 1)])
    event = loop.env.event()
    loop.call_at(2.5, event.succeed)
    loop.run(until=event)
    assert (loop.time(), len(log)) == (2.5, 2)
    loop.run()
    assert len(log) == 3


def test_a_clock_that_stands_still_is_reported_with_its_instant(loop: SimLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim_loop, "CALLBACKS_IN_ONE_INSTANT", 100)

    async def body() -> None:
        await asyncio.sleep(3.0)
        while True:  # noqa: ASYNC110  a protocol that spins is what is caught
            await asyncio.sleep(0)

    Life("a", 1, loop).start(body())
    with pytest.raises(FrozenClock, match=r"at 3\.000000000 s, after 101 callbacks"):
        loop.run()


def test_a_clock_that_stands_still_by_timers_of_no_delay_is_reported_too(loop: SimLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim_loop, "CALLBACKS_IN_ONE_INSTANT", 100)

    async def body() -> None:
        while True:
            future = loop.create_future()
            loop.call_later(0.0, future.set_result, None)
            await future

    Life("a", 1, loop).start(body())
    with pytest.raises(FrozenClock):
        loop.run()


def test_many_callbacks_are_no_harm_while_the_clock_moves(loop: SimLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim_loop, "CALLBACKS_IN_ONE_INSTANT", 100)

    async def body() -> None:
        for _ in range(20):
            for _ in range(50):
                await asyncio.sleep(0)
            await asyncio.sleep(1e-9)

    life = Life("a", 1, loop)
    life.start(body())
    loop.run()
    assert life.exited.done()


# crash


def test_a_crashed_life_stops_where_it_is(loop: SimLoop, log: Log) -> None:
    life = Life("a", 1, loop)
    life.start(ticks(log, "a"))
    loop.call_at(1.5, life.crash)
    loop.run()
    assert log == [(1.0, "a", 1)]
    assert not life.exited.done()


def test_a_life_that_ends_in_the_instant_in_which_it_began_is_forgotten_without_a_word(loop: SimLoop, log: Log) -> None:
    """A process that starts up on a machine as that wakes from a pause may be killed before it takes a step."""

    async def body() -> None:
        log.append("a step")

    life = Life("late", 1, loop)
    life.start(body())
    life.crash()
    loop.run()
    del life
    loop.crashed.clear()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        gc.collect()
    assert not said
    assert log == []


def test_a_crash_leaves_the_rest_of_its_instant_undone(loop: SimLoop, log: Log) -> None:
    life = Life("a", 1, loop)

    async def body() -> None:
        await asyncio.sleep(1.0)
        loop.call_soon(log.append, "planned")
        life.crash()
        log.append("to the next await")
        await asyncio.sleep(0)
        log.append("never")

    life.start(body())
    loop.run()
    assert log == ["to the next await"]


def test_everything_a_life_has_spawned_dies_with_it(loop: SimLoop, log: Log) -> None:
    life = Life("a", 1, loop)

    async def body() -> None:
        asyncio.create_task(ticks(log, "task"))  # noqa: RUF006  the loop keeps it
        loop.call_later(2.0, log.append, "timer")
        async with asyncio.TaskGroup() as group:
            group.create_task(ticks(log, "in a group"))

    life.start(body())
    loop.call_at(1.5, life.crash)
    loop.run(until=10)
    assert log == [(1.0, "task", 1), (1.0, "in a group", 1)]
    life.tasks.clear()


def test_no_finally_of_a_crashed_life_runs_even_when_everyone_else_has_forgotten_it(loop: SimLoop, log: Log) -> None:
    def live() -> None:
        life = Life("a", 1, loop)

        async def body() -> None:
            task = asyncio.create_task(waits_in_vain(log, "task"))
            await asyncio.wait([task])

        life.start(body())
        life.start(waits_in_vain(log, "main"))
        loop.call_at(1.0, life.crash)

    loop.call_at(0.5, live)  # what was made before a run is frozen for the collector
    loop.call_at(2.0, gc.collect)
    loop.call_at(3.0, log.append, "after the collection")
    loop.run(until=4.0)
    assert log == ["after the collection"]


def test_a_running_task_that_nobody_holds_is_not_lost(loop: SimLoop, log: Log) -> None:
    async def waits(future: asyncio.Future[None]) -> None:
        await future
        log.append("woken")

    async def body() -> None:
        loop.call_later(2.0, collected_and_woken, weakly())

    def weakly() -> Callable[[], None]:
        future = loop.create_future()
        asyncio.create_task(waits(future))  # noqa: RUF006  the loop keeps it
        return lambda: future.set_result(None)

    def collected_and_woken(wake: Callable[[], None]) -> None:
        gc.collect()
        wake()

    Life("a", 1, loop).start(body())
    loop.run()
    assert log == ["woken"]


def test_dead_code_is_never_revived_by_a_later_life_of_the_same_role(loop: SimLoop, log: Log) -> None:
    first = Life("a", 1, loop)
    first.start(ticks(log, "first"))
    loop.call_at(1.5, first.crash)

    def restart() -> None:
        second = Life("a", 2, loop)
        second.start(ticks(log, "second"))

    loop.call_at(1.5, restart)
    loop.run()
    assert log == [(1.0, "first", 1), (2.5, "second", 1), (3.5, "second", 2), (4.5, "second", 3)]


def test_a_life_knows_itself_in_everything_it_does(loop: SimLoop, log: Log) -> None:
    def lives() -> list[Any]:
        life = LIFE.get()
        return [life.name, life.incarnation] if life is not None else []

    async def body() -> None:
        log.append(lives())
        loop.call_soon(lambda: log.append(lives()))
        await asyncio.sleep(1.0)
        log.append(lives())

    Life("a", 3, loop).start(body())
    loop.call_at(2.0, lambda: log.append(lives()))
    loop.run()
    assert log == [["a", 3], ["a", 3], ["a", 3], []]


def test_what_is_asked_for_in_no_life_s_context_happens_though_the_life_that_asked_for_it_is_over(loop: SimLoop, log: Log) -> None:
    def done(how: str) -> None:
        log.append((loop.time(), how, LIFE.get()))

    async def body() -> None:
        nobody = contextvars.Context
        loop.call_soon(done, "soon", context=nobody())
        loop.call_later(1.0, done, "later", context=nobody())
        loop.call_at(2.0, done, "at", context=nobody())
        loop.world(3.0, lambda: done("world"))
        loop.create_task(sleeps(), context=nobody())
        life.crash()

    async def sleeps() -> None:
        await asyncio.sleep(4.0)
        done("task")

    life = Life("a", 1, loop)
    life.start(body())
    loop.run()
    assert log == [(0.0, "soon", None), (1.0, "later", None), (2.0, "at", None), (3.0, "world", None), (4.0, "task", None)]


# pause


def test_a_paused_life_goes_on_when_it_is_resumed_and_not_before(loop: SimLoop, log: Log) -> None:
    life, other = Life("a", 1, loop), Life("b", 1, loop)
    life.start(ticks(log, "a"))
    other.start(ticks(log, "b", 4))
    loop.call_at(1.5, life.pause)
    loop.call_at(3.5, life.resume)
    loop.run()
    assert [entry for entry in log if entry[1] == "a"] == [(1.0, "a", 1), (3.5, "a", 2), (4.5, "a", 3)]
    assert [entry[0] for entry in log if entry[1] == "b"] == [1.0, 2.0, 3.0, 4.0]


def test_what_a_pause_held_keeps_its_order(loop: SimLoop, log: Log) -> None:
    life = Life("a", 1, loop)

    async def body() -> None:
        for number in (3, 1, 2):
            loop.call_later(number, log.append, number)

    life.start(body())
    loop.call_at(0.5, life.pause)
    loop.call_at(9.0, life.resume)
    loop.run()
    assert log == [1, 2, 3]


def test_what_was_held_goes_back_through_the_queue_and_never_inside_another_callback(loop: SimLoop, log: Log) -> None:
    life = Life("a", 1, loop)

    async def body() -> None:
        loop.call_later(1.0, log.append, "held")

    def resume() -> None:
        loop.call_soon(log.append, "was there before")
        life.resume()
        log.append("whoever resumes")

    life.start(body())
    loop.call_at(0.5, life.pause)
    loop.call_at(2.0, resume)
    loop.run()
    assert log == ["whoever resumes", "was there before", "held"]


def test_a_life_paused_again_at_once_still_holds_everything(loop: SimLoop, log: Log) -> None:
    life = Life("a", 1, loop)

    async def body() -> None:
        for number in (1, 2):
            loop.call_later(1.0, lambda number=number: log.append((loop.time(), number)))

    def in_and_out() -> None:
        life.resume()
        life.pause()

    life.start(body())
    loop.call_at(0.5, life.pause)
    loop.call_at(2.0, in_and_out)
    loop.call_at(3.0, life.resume)
    loop.run()
    assert log == [(3.0, 1), (3.0, 2)]


def test_a_life_that_crashes_while_paused_forgets_what_was_held(loop: SimLoop, log: Log) -> None:
    life = Life("a", 1, loop)
    life.start(ticks(log, "a"))
    loop.call_at(0.5, life.pause)
    loop.call_at(2.0, life.crash)
    loop.call_at(3.0, life.resume)
    loop.run()
    assert log == []


def test_a_callback_cancelled_while_it_is_held_does_nothing(loop: SimLoop, log: Log) -> None:
    life, timers = Life("a", 1, loop), list[Any]()

    async def body() -> None:
        timers.append(loop.call_later(1.0, log.append, "cancelled"))
        loop.call_later(1.0, log.append, "kept")

    life.start(body())
    loop.call_at(0.5, life.pause)
    loop.call_at(2.0, lambda: timers[0].cancel())  # noqa: PLW0108  it is made later
    loop.call_at(3.0, life.resume)
    loop.run()
    assert log == ["kept"]


# how a life ends


def test_exited_has_the_result(loop: SimLoop) -> None:
    async def body() -> int:
        await asyncio.sleep(1.0)
        return 7

    life = Life("a", 1, loop)
    life.start(body())
    loop.run()
    assert life.exited.result() == 7


def test_exited_has_the_exception_and_who_looks_at_it_keeps_the_run_alive(loop: SimLoop, log: Log) -> None:
    life = Life("a", 1, loop)
    life.start(fails())
    life.exited.add_done_callback(lambda exited: log.append(str(exited.exception())))
    loop.run()
    assert log == ["boom"]


def test_another_life_can_wait_for_the_end_of_one(loop: SimLoop, log: Log) -> None:
    first, second = Life("a", 1, loop), Life("b", 1, loop)

    async def body() -> None:
        await first.exited
        log.append(loop.time())

    first.start(ticks([], "a"))
    second.start(body())
    loop.run()
    assert log == [3.0]


def test_a_life_that_was_cancelled_says_so(loop: SimLoop) -> None:
    async def body() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1.0)

    life = Life("a", 1, loop)
    life.start(body())
    loop.run()
    assert life.exited.cancelled()


# failures that nobody looked at


def test_a_task_that_fails_unawaited_fails_the_run_when_it_does(loop: SimLoop, log: Log) -> None:
    async def body() -> None:
        asyncio.create_task(fails())  # noqa: RUF006  the loop keeps it
        await ticks(log, "a", 5)

    Life("a", 1, loop).start(body())
    with pytest.raises(ValueError, match="boom"):
        loop.run()
    assert len(log) <= 1


def test_a_main_task_that_fails_unseen_fails_the_run(loop: SimLoop) -> None:
    Life("a", 1, loop).start(fails())
    with pytest.raises(ValueError, match="boom"):
        loop.run()


def test_a_failure_hidden_in_a_reference_cycle_is_found_at_the_end(loop: SimLoop) -> None:
    async def body() -> None:
        task = asyncio.create_task(fails())
        task.cycle = [task]  # type: ignore[attr-defined]
        await asyncio.sleep(2.0)

    Life("a", 1, loop).start(body())
    with pytest.raises(ValueError, match="boom"):
        loop.run()


def test_a_callback_that_fails_fails_the_run(loop: SimLoop) -> None:
    for schedule in (loop.call_soon, functools.partial(loop.call_later, 1.0)):
        schedule(int, "no number")
        with pytest.raises(ValueError, match="invalid literal"):
            loop.run()


def test_a_task_that_failed_and_was_looked_at_harms_nobody(loop: SimLoop, log: Log) -> None:
    async def body() -> None:
        task = asyncio.create_task(fails())
        await asyncio.wait([task])
        log.append(repr(task.exception()))

    Life("a", 1, loop).start(body())
    loop.run()
    assert log == ["ValueError('boom')"]


# order that does not depend on where things lie

CANCELLED_IN_ORDER = """
import asyncio, random, sys
from sim.loop import Life, SimLoop

def order(disorder):
    loop, log, junk = SimLoop(), [], []
    draw = random.Random(disorder)
    async def sleeper(name):
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            log.append(name)
            raise
    async def boom():
        await asyncio.sleep(1)
        raise ValueError
    async def body():
        try:
            async with asyncio.TaskGroup() as group:
                for name in range(40):
                    junk.extend(bytearray(draw.randrange(2000)) for _ in range(draw.randrange(20)))
                    draw.shuffle(junk)
                    del junk[: len(junk) // 2]
                    group.create_task(sleeper(name))
                group.create_task(boom())
        except* ValueError:
            log.append("failed")
        futures = [loop.create_future() for _ in range(40)]
        for number, future in enumerate(futures):
            loop.call_later(1, future.set_result, number)
        done, _ = await asyncio.wait(futures)
        log.append([future.result() for future in done])
    life = Life("a", 1, loop)
    life.start(body())
    loop.run()
    life.exited.result()
    return log

print([order(int(argument)) for argument in sys.argv[1:]])
"""


def test_sets_of_tasks_and_futures_have_one_order_whatever_the_hash_seed_and_the_memory() -> None:
    found = set[str]()
    for hash_seed in ("0", "1", "4242"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", CANCELLED_IN_ORDER, "1", "2", hash_seed]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found |= {str(order) for order in eval(done.stdout)}
    assert len(found) == 1


def test_tasks_and_futures_are_numbered_and_equal_only_to_themselves(loop: SimLoop) -> None:
    futures = [loop.create_future() for _ in range(5)]
    hashes = [hash(future) for future in futures]
    assert hashes == sorted(hashes)
    assert hashes == [hash(future) for future in futures]
    assert len(set(futures)) == 5
    assert max(hashes) < 100


# ties


def falls_due_together(shuffle: random.Random | None) -> Log:
    loop, log = SimLoop(shuffle), list[Any]()
    for number in range(8):
        loop.call_later(2.0, log.append, number)
    loop.call_later(1.0, log.append, "before")
    loop.call_later(3.0, log.append, "after")
    loop.run()
    return log


def test_timers_of_one_instant_are_first_come_first_served() -> None:
    assert falls_due_together(None) == ["before", *range(8), "after"]


def test_shuffled_ties_change_the_order_within_an_instant_and_nothing_else() -> None:
    orders = [falls_due_together(random.Random(seed)) for seed in (1, 2, 1)]
    assert orders[0] != orders[1]
    assert orders[0] == orders[2]
    for order in orders:
        assert (order[0], order[-1], sorted(order[1:-1])) == ("before", "after", list(range(8)))
        assert order[1:-1] != list(range(8))


def test_call_soon_is_never_shuffled() -> None:
    for seed in range(5):
        loop, log = SimLoop(random.Random(seed)), list[Any]()
        for number in range(8):
            loop.call_soon(log.append, number)
        loop.call_later(0.0, log.append, "timer")
        loop.run()
        assert log == [*range(8), "timer"]


def appends_twice(loop: SimLoop, log: Log, number: int) -> None:
    log.append(number)
    loop.call_soon(log.append, number)


def test_what_a_timer_makes_due_at_once_comes_before_the_next_timer_of_its_instant() -> None:
    for shuffle in (None, random.Random(3)):
        loop, log = SimLoop(shuffle), list[Any]()
        for number in range(4):
            loop.call_later(1.0, appends_twice, loop, log, number)
        loop.run()
        assert log[::2] == log[1::2]


# the neighbourhood


def test_a_loop_that_runs_outside_is_put_back() -> None:
    async def outside() -> None:
        outer, hooks = asyncio.get_running_loop(), sys.get_asyncgen_hooks()
        inner, seen = SimLoop(), list[Any]()

        async def body() -> None:
            await asyncio.sleep(5.0)
            seen.append(asyncio.get_running_loop())

        Life("a", 1, inner).start(body())
        inner.run()
        assert seen == [inner]
        assert asyncio.get_running_loop() is outer
        assert sys.get_asyncgen_hooks() == hooks
        await asyncio.sleep(0)

    asyncio.run(outside())


def test_a_loop_that_failed_is_put_away_too() -> None:
    loop, hooks, thresholds = SimLoop(), sys.get_asyncgen_hooks(), gc.get_threshold()
    Life("a", 1, loop).start(fails())
    with pytest.raises(ValueError, match="boom"):
        loop.run()
    assert asyncio._get_running_loop() is None
    assert sys.get_asyncgen_hooks() == hooks
    assert (gc.get_threshold(), gc.get_freeze_count()) == (thresholds, 0)


async def numbers(log: Log) -> AsyncIterator[int]:
    try:
        while True:
            yield 1
    finally:
        await asyncio.sleep(1.0)
        log.append("closed")


def test_an_async_generator_that_is_dropped_is_closed_in_simulated_time(loop: SimLoop, log: Log) -> None:
    async def body() -> None:
        async for _ in numbers(log):
            break
        gc.collect()
        await asyncio.sleep(2.0)
        log.append("after")

    Life("a", 1, loop).start(body())
    loop.run()
    assert log == ["closed", "after"]


def test_an_async_generator_of_a_crashed_life_is_not_closed(loop: SimLoop, log: Log) -> None:
    async def body() -> None:
        async for _ in numbers(log):
            await asyncio.sleep(1.0)

    def live() -> None:
        life = Life("a", 1, loop)
        life.start(body())
        loop.call_at(2.0, life.crash)

    loop.call_at(0.5, live)
    loop.call_at(3.0, gc.collect)
    loop.run(until=10)
    assert log == []
