"""The simulated loop keeps asyncio's promises: one set of bodies, run on it and on asyncio's own loop.

What is compared is the order of what happened, never a time.  The real arm is asyncio's own loop, whose clock stands still
while callbacks run and jumps to the next timer instead of waiting for it: so nothing depends on how busy the machine is.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from sim.loop import Life, SimLoop

TICK = 0.5

Log = list[Any]
World = Callable[[Coroutine[Any, Any, Any]], Any]


def simulated(body: Coroutine[Any, Any, Any]) -> Any:
    loop = SimLoop()
    life = Life("body", 1, loop)
    life.start(body)
    loop.run()
    assert life.exited.done(), "the body hangs"
    return life.exited.result()


class Hurried(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Looks at its files without waiting, and says that the time has passed."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if not found and timeout is not None:
            self.now += timeout
        return found or (super().select(None) if timeout is None else [])


class HurriedLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__(Hurried())

    def time(self) -> float:
        return self._selector.now  # type: ignore[attr-defined, no-any-return]


def real(body: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=HurriedLoop) as runner:
        return runner.run(body)


@pytest.fixture(params=[simulated, real], ids=["simulated", "real"])
def world(request: pytest.FixtureRequest) -> World:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def log() -> Log:
    return []


async def says(log: Log, what: Any, ticks: float = 0) -> Any:
    """Logs its beginning, its end, and how it was cancelled."""
    log.append(f"{what} begins")
    try:
        await asyncio.sleep(ticks * TICK)
        log.append(f"{what} ends")
    except asyncio.CancelledError:
        log.append(f"{what} cancelled")
        raise
    finally:
        log.append(f"{what} finally")
    return what


async def fails(what: str, ticks: float = 0) -> None:
    await asyncio.sleep(ticks * TICK)
    raise ValueError(what)


# time and callbacks


def test_sleepers_wake_in_the_order_of_their_times(world: World, log: Log) -> None:
    async def body() -> None:
        async def sleeper(ticks: int) -> None:
            await asyncio.sleep(ticks * TICK)
            log.append(ticks)

        await asyncio.gather(*(sleeper(ticks) for ticks in (3, 1, 4, 2)))

    world(body())
    assert log == [1, 2, 3, 4]


def test_sleep_returns_its_result_and_time_has_passed(world: World) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        before = loop.time()
        assert await asyncio.sleep(TICK, "slept") == "slept"
        assert loop.time() - before >= TICK * 0.9

    world(body())


def test_a_sleep_of_nothing_lets_the_others_go_first(world: World, log: Log) -> None:
    async def body() -> None:
        async def turns(name: str) -> None:
            for turn in range(3):
                log.append(f"{name}{turn}")
                await asyncio.sleep(0)

        await asyncio.gather(turns("a"), turns("b"))

    world(body())
    assert log == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_call_soon_is_first_come_first_served(world: World, log: Log) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        for number in range(5):
            loop.call_soon(log.append, number)
        loop.call_soon(lambda: loop.call_soon(log.append, "nested"))
        loop.call_soon(log.append, 5)
        assert log == []
        await asyncio.sleep(TICK)

    world(body())
    assert log == [0, 1, 2, 3, 4, 5, "nested"]


def test_call_later_and_call_at_keep_their_times(world: World, log: Log) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(3 * TICK, log.append, "three")
        loop.call_at(loop.time() + 2 * TICK, log.append, "two")
        loop.call_later(TICK, log.append, "one")
        loop.call_soon(log.append, "soon")
        await asyncio.sleep(5 * TICK)

    world(body())
    assert log == ["soon", "one", "two", "three"]


def test_a_cancelled_handle_or_timer_does_nothing(world: World, log: Log) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        handles = [
            loop.call_soon(log.append, "soon"),
            loop.call_later(TICK, log.append, "later"),
            loop.call_at(loop.time() + TICK, log.append, "at"),
        ]
        kept = loop.call_later(2 * TICK, log.append, "kept")
        assert kept.when() > loop.time()
        for handle in handles:
            handle.cancel()
            assert handle.cancelled()
        assert not kept.cancelled()
        await asyncio.sleep(4 * TICK)

    world(body())
    assert log == ["kept"]


def test_a_time_that_is_past_is_now(world: World, log: Log) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(-1, log.append, "late")
        loop.call_at(loop.time() - 1, log.append, "later")
        await asyncio.sleep(TICK)

    world(body())
    assert sorted(log) == ["late", "later"]


# tasks and groups


def test_a_task_begins_only_when_its_author_lets_go(world: World, log: Log) -> None:
    async def body() -> None:
        task = asyncio.create_task(says(log, "task"))
        log.append("author")
        assert not task.done()
        assert await task == "task"

    world(body())
    assert log == ["author", "task begins", "task ends", "task finally"]


def test_a_task_group_waits_for_all_of_its_tasks(world: World, log: Log) -> None:
    async def body() -> list[Any]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(says(log, name, ticks)) for name, ticks in (("slow", 2), ("fast", 1))]
        log.append("after")
        return [task.result() for task in tasks]

    assert world(body()) == ["slow", "fast"]
    assert log == ["slow begins", "fast begins", "fast ends", "fast finally", "slow ends", "slow finally", "after"]


def test_a_failing_task_cancels_its_siblings_and_fails_the_group(world: World, log: Log) -> None:
    async def body() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(says(log, "a", 1000))
            group.create_task(fails("boom", 1))
            group.create_task(says(log, "b", 1000))

    with pytest.raises(ExceptionGroup) as caught:
        world(body())
    assert [str(error) for error in caught.value.exceptions] == ["boom"]
    begun, cancelled = log[:2], log[2:]
    assert begun == ["a begins", "b begins"]
    assert sorted(cancelled) == ["a cancelled", "a finally", "b cancelled", "b finally"]  # asyncio's own order is by address


def test_a_group_collects_every_failure(world: World) -> None:
    async def body() -> None:
        async def fails_when_cancelled() -> None:
            try:
                await asyncio.sleep(1000 * TICK)
            finally:
                raise KeyError("cleaning up")

        async with asyncio.TaskGroup() as group:
            group.create_task(fails_when_cancelled())
            group.create_task(fails("boom", 1))

    with pytest.raises(ExceptionGroup) as caught:
        world(body())
    values, keys = caught.value.split(ValueError)
    assert values is not None
    assert keys is not None
    assert [type(error) for error in keys.exceptions] == [KeyError]


def test_except_star_sees_what_failed_in_a_group(world: World, log: Log) -> None:
    async def body() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fails("boom"))
        except* ValueError as caught:
            log.append(caught.exceptions[0].args)

    world(body())
    assert log == [("boom",)]


def test_a_cancelled_task_runs_its_finally_and_is_cancelled(world: World, log: Log) -> None:
    async def body() -> None:
        task = asyncio.create_task(says(log, "task", 1000))
        await asyncio.sleep(0)
        assert task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert not task.cancel()

    world(body())
    assert log == ["task begins", "task cancelled", "task finally"]


def test_a_task_cancelled_before_it_began_never_begins(world: World, log: Log) -> None:
    async def body() -> None:
        task = asyncio.create_task(says(log, "task"))
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    world(body())
    assert log == []


def test_the_body_s_own_exception_comes_out(world: World) -> None:
    with pytest.raises(ValueError, match="boom"):
        world(fails("boom", 1))


def test_tasks_have_names_and_know_who_runs(world: World) -> None:
    async def body() -> None:
        async def who() -> str:
            task = asyncio.current_task()
            assert task is not None
            return task.get_name()

        named, unnamed = asyncio.create_task(who(), name="me"), asyncio.create_task(who())
        assert await named == "me"
        assert await unnamed
        assert asyncio.current_task() in asyncio.all_tasks()

    world(body())


# waiting


def test_a_timeout_that_fires_cancels_what_it_guards(world: World, log: Log) -> None:
    async def body() -> None:
        try:
            async with asyncio.timeout(TICK) as limit:
                await says(log, "guarded", 1000)
        except TimeoutError:
            log.append("timeout")
        assert limit.expired()

    world(body())
    assert log == ["guarded begins", "guarded cancelled", "guarded finally", "timeout"]


def test_a_timeout_that_does_not_fire_leaves_no_trace(world: World, log: Log) -> None:
    async def body() -> None:
        async with asyncio.timeout(5 * TICK) as limit:
            await says(log, "guarded", 1)
        assert not limit.expired()
        await asyncio.sleep(7 * TICK)
        log.append("after")

    world(body())
    assert log == ["guarded begins", "guarded ends", "guarded finally", "after"]


def test_a_timeout_can_be_put_off(world: World, log: Log) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(2 * TICK) as limit:
            limit.reschedule(loop.time() + 1000 * TICK)
            await says(log, "guarded", 4)

    world(body())
    assert log[1] == "guarded ends"


def test_the_outer_of_two_timeouts_passes_through_the_inner(world: World, log: Log) -> None:
    async def body() -> None:
        try:
            async with asyncio.timeout(TICK):
                try:
                    async with asyncio.timeout(1000 * TICK):
                        await asyncio.sleep(2000 * TICK)
                except TimeoutError:
                    log.append("inner")
        except TimeoutError:
            log.append("outer")

    world(body())
    assert log == ["outer"]


def test_a_timeout_of_nothing_fires_at_the_first_await(world: World, log: Log) -> None:
    async def body() -> None:
        try:
            async with asyncio.timeout(0):
                log.append("inside")
                await asyncio.sleep(1000 * TICK)
                log.append("never")
        except TimeoutError:
            log.append("timeout")

    world(body())
    assert log == ["inside", "timeout"]


def test_waiting_for_the_first_leaves_the_others_running(world: World, log: Log) -> None:
    async def body() -> None:
        fast, slow = (asyncio.create_task(says(log, name, ticks)) for name, ticks in (("fast", 1), ("slow", 3)))
        done, pending = await asyncio.wait([fast, slow], return_when=asyncio.FIRST_COMPLETED)
        assert (done, pending) == ({fast}, {slow})
        log.append("first")
        await slow

    world(body())
    assert log == ["fast begins", "slow begins", "fast ends", "fast finally", "first", "slow ends", "slow finally"]


def test_waiting_with_a_timeout_cancels_nobody(world: World, log: Log) -> None:
    async def body() -> None:
        slow = asyncio.create_task(says(log, "slow", 4))
        done, pending = await asyncio.wait([slow], timeout=TICK)
        assert (done, pending) == (set(), {slow})
        log.append("waited")
        await slow

    world(body())
    assert log == ["slow begins", "waited", "slow ends", "slow finally"]


def test_waiting_for_the_first_failure_ends_with_it(world: World) -> None:
    async def body() -> None:
        failing, slow = asyncio.create_task(fails("boom", 1)), asyncio.create_task(asyncio.sleep(1000 * TICK))
        done, pending = await asyncio.wait([slow, failing], return_when=asyncio.FIRST_EXCEPTION)
        assert (done, pending) == ({failing}, {slow})
        assert isinstance(failing.exception(), ValueError)
        slow.cancel()

    world(body())


def test_gather_keeps_the_order_of_its_arguments(world: World, log: Log) -> None:
    async def body() -> list[Any]:
        return await asyncio.gather(says(log, "slow", 2), says(log, "fast", 1))

    assert world(body()) == ["slow", "fast"]


def test_gather_can_return_exceptions_among_the_results(world: World, log: Log) -> None:
    async def body() -> list[Any]:
        return await asyncio.gather(says(log, "good", 1), fails("boom"), return_exceptions=True)

    good, bad = world(body())
    assert good == "good"
    assert isinstance(bad, ValueError)


def test_gather_raises_the_first_failure_and_lets_the_others_run_on(world: World, log: Log) -> None:
    async def body() -> None:
        with pytest.raises(ValueError, match="boom"):
            await asyncio.gather(says(log, "other", 3), fails("boom", 1))
        log.append("raised")
        await asyncio.sleep(5 * TICK)

    world(body())
    assert log == ["other begins", "raised", "other ends", "other finally"]


def test_a_shielded_task_goes_on_when_its_waiter_is_cancelled(world: World, log: Log) -> None:
    async def body() -> None:
        inner = asyncio.create_task(says(log, "inner", 3))

        async def outer() -> None:
            await asyncio.shield(inner)

        waiter = asyncio.create_task(outer())
        await asyncio.sleep(TICK)
        waiter.cancel()
        await asyncio.wait([waiter])
        log.append("waiter gone")
        await inner

    world(body())
    assert log == ["inner begins", "waiter gone", "inner ends", "inner finally"]


def test_results_come_as_they_are_completed(world: World, log: Log) -> None:
    async def body() -> None:
        for first in asyncio.as_completed([says([], name, ticks) for name, ticks in (("c", 3), ("a", 1), ("b", 2))]):
            log.append(await first)

    world(body())
    assert log == ["a", "b", "c"]


# futures


def test_callbacks_of_a_future_run_later_in_the_order_they_were_added(world: World, log: Log) -> None:
    async def body() -> None:
        future = asyncio.get_running_loop().create_future()
        for number in range(3):
            future.add_done_callback(lambda _, number=number: log.append(number))
        removed = lambda _: log.append("removed")  # noqa: E731
        future.add_done_callback(removed)
        assert future.remove_done_callback(removed) == 1
        future.set_result("result")
        log.append("set")
        assert await future == "result"
        await asyncio.sleep(0)
        future.add_done_callback(lambda f: log.append(f.result()))
        log.append("added late")
        await asyncio.sleep(0)

    world(body())
    assert log == ["set", 0, 1, 2, "added late", "result"]


def test_a_future_s_exception_is_raised_where_it_is_awaited(world: World) -> None:
    async def body() -> None:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(TICK, future.set_exception, ValueError("boom"))
        with pytest.raises(ValueError, match="boom"):
            await future
        with pytest.raises(asyncio.InvalidStateError):
            future.set_result(1)

    world(body())


def test_cancelling_who_waits_cancels_the_future_it_waits_for(world: World) -> None:
    async def body() -> None:
        future = asyncio.get_running_loop().create_future()

        async def waiter() -> None:
            await future

        task = asyncio.create_task(waiter())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert future.cancelled()

    world(body())


def test_two_who_wait_for_one_future_are_woken_in_order(world: World, log: Log) -> None:
    async def body() -> None:
        future = asyncio.get_running_loop().create_future()

        async def waiter(name: str) -> None:
            log.append((name, await future))

        async with asyncio.TaskGroup() as group:
            for name in "ab":
                group.create_task(waiter(name))
            await asyncio.sleep(0)
            future.set_result(7)

    world(body())
    assert log == [("a", 7), ("b", 7)]


# queues and locks


def test_a_queue_gives_what_was_put_in_order_and_holds_up_when_full(world: World, log: Log) -> None:
    async def body() -> None:
        queue = asyncio.Queue[int](maxsize=2)

        async def producer() -> None:
            for number in range(4):
                await queue.put(number)
                log.append(f"put {number}")

        task = asyncio.create_task(producer())
        await asyncio.sleep(TICK)
        log.append("full" if queue.full() else "not full")
        for _ in range(4):
            log.append(await queue.get())
            queue.task_done()
            await asyncio.sleep(0)
        await task
        await queue.join()

    world(body())
    assert log == ["put 0", "put 1", "full", 0, "put 2", 1, "put 3", 2, 3]


def test_getters_of_a_queue_are_served_in_turn(world: World, log: Log) -> None:
    async def body() -> None:
        queue = asyncio.Queue[int]()

        async def getter(name: str) -> None:
            log.append((name, await queue.get()))

        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(getter(name))
            await asyncio.sleep(TICK)
            for number in range(3):
                queue.put_nowait(number)

    world(body())
    assert log == [("a", 0), ("b", 1), ("c", 2)]


def test_a_getter_that_gave_up_takes_nothing(world: World) -> None:
    async def body() -> int:
        queue = asyncio.Queue[int]()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(TICK):
                await queue.get()
        queue.put_nowait(7)
        return await queue.get()

    assert world(body()) == 7


def test_an_event_wakes_all_who_wait_and_stays_set(world: World, log: Log) -> None:
    async def body() -> None:
        event = asyncio.Event()

        async def waiter(name: str) -> None:
            await event.wait()
            log.append(name)

        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(waiter(name))
            await asyncio.sleep(TICK)
            log.append("set")
            event.set()
        await event.wait()
        event.clear()
        assert not event.is_set()

    world(body())
    assert log == ["set", "a", "b", "c"]


def test_a_lock_is_given_in_the_order_it_was_asked_for(world: World, log: Log) -> None:
    async def body() -> None:
        lock = asyncio.Lock()

        async def holder(name: str) -> None:
            async with lock:
                log.append(f"{name} in")
                await asyncio.sleep(TICK / 4)
                log.append(f"{name} out")

        await asyncio.gather(*(holder(name) for name in "abc"))
        assert not lock.locked()

    world(body())
    assert log == ["a in", "a out", "b in", "b out", "c in", "c out"]


def test_a_condition_wakes_as_many_as_it_notifies(world: World, log: Log) -> None:
    async def body() -> None:
        condition = asyncio.Condition()

        async def waiter(name: str) -> None:
            async with condition:
                await condition.wait()
                log.append(name)

        tasks = [asyncio.create_task(waiter(name)) for name in "abc"]
        await asyncio.sleep(TICK)
        async with condition:
            condition.notify(2)
        await asyncio.sleep(TICK)
        log.append("the rest")
        async with condition:
            condition.notify_all()
        await asyncio.gather(*tasks)

    world(body())
    assert log == ["a", "b", "the rest", "c"]


def test_a_semaphore_lets_so_many_in_at_a_time(world: World, log: Log) -> None:
    async def body() -> None:
        semaphore = asyncio.Semaphore(2)

        async def worker(name: str, ticks: int) -> None:
            async with semaphore:
                log.append(f"{name} in")
                await asyncio.sleep(ticks * TICK)
                log.append(f"{name} out")

        await asyncio.gather(worker("a", 1), worker("b", 3), worker("c", 4))

    world(body())
    assert log == ["a in", "b in", "a out", "c in", "b out", "c out"]


def test_a_barrier_opens_when_all_have_come(world: World, log: Log) -> None:
    async def body() -> None:
        barrier = asyncio.Barrier(2)

        async def party(name: str, ticks: int) -> None:
            await asyncio.sleep(ticks * TICK)
            log.append(f"{name} comes")
            await barrier.wait()
            log.append("passes")

        await asyncio.gather(party("a", 1), party("b", 2))

    world(body())
    assert log == ["a comes", "b comes", "passes", "passes"]


# generators and context


async def counted(log: Log) -> AsyncIterator[int]:
    try:
        for number in range(10):
            yield number
            await asyncio.sleep(0)
    finally:
        await asyncio.sleep(0)  # cleaning up may await
        log.append("closed")


def test_an_async_generator_runs_to_its_end(world: World, log: Log) -> None:
    async def body() -> list[int]:
        return [number async for number in counted(log)]

    assert world(body()) == list(range(10))
    assert log == ["closed"]


def test_an_async_generator_that_is_closed_cleans_up_at_once(world: World, log: Log) -> None:
    async def body() -> None:
        generator = counted(log)
        assert await anext(generator) == 0
        await generator.aclose()  # type: ignore[attr-defined]
        log.append("after")

    world(body())
    assert log == ["closed", "after"]


def test_an_async_generator_that_is_dropped_is_closed_soon(world: World, log: Log) -> None:
    async def body() -> None:
        async for number in counted(log):
            if number == 2:
                break
        log.append("dropped")
        gc.collect()
        await asyncio.sleep(TICK)

    world(body())
    assert log == ["dropped", "closed"]


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def test_a_task_has_the_context_of_its_author_at_its_birth(world: World, log: Log) -> None:
    async def body() -> None:
        async def child() -> None:
            log.append(VARIABLE.get())
            VARIABLE.set("child's")

        VARIABLE.set("first")
        task = asyncio.create_task(child())
        VARIABLE.set("second")
        await task
        log.append(VARIABLE.get())

    world(body())
    assert log == ["first", "second"]
    assert VARIABLE.get() == "unset"


def test_a_callback_has_the_context_in_which_it_was_scheduled(world: World, log: Log) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        context = contextvars.copy_context()
        context.run(VARIABLE.set, "given")
        VARIABLE.set("own")
        loop.call_soon(lambda: log.append(VARIABLE.get()))
        loop.call_soon(lambda: log.append(VARIABLE.get()), context=context)
        loop.call_later(TICK, lambda: log.append(VARIABLE.get()))
        future.add_done_callback(lambda _: log.append(VARIABLE.get()))
        future.set_result(None)
        VARIABLE.set("changed")
        await asyncio.sleep(3 * TICK)
        await asyncio.create_task(said(log), context=context)

    async def said(log: Log) -> None:
        log.append(VARIABLE.get())

    world(body())
    assert log == ["own", "given", "own", "own", "given"]
