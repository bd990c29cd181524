"""asyncio on SimPy: the protocols' coroutines run unchanged in simulated time.

SimPy's queue holds what takes time: timers, messages, computations.  Callbacks that are due at once (`call_soon`) wait in
a queue of their own, as in asyncio's own loop, and are run to the end after each SimPy event, before anything else of that
instant.  Only SimPy events may be shuffled among ties; the order of `call_soon` is a promise of asyncio.

A `Life` is one incarnation of a machine's process.  Every callback belongs to the life in whose context it was made: it
is dropped when that life has ended, held while it is paused.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import itertools
import random
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from heapq import heapify, heappop, heappush
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import simpy
from simpy.core import EmptySchedule
from simpy.events import NORMAL

LIFE: contextvars.ContextVar[Life | None] = contextvars.ContextVar("life", default=None)

CALLBACKS_IN_ONE_INSTANT = 5_000_000
"""More than any job needs; an endless `sleep(0)` would otherwise freeze the clock without a word."""


class FrozenClock(Exception):
    """The callbacks of one instant do not come to an end."""


class Event:
    """Something in SimPy's queue that is called when it falls due, without the callbacks of SimPy's own events."""

    __slots__ = ()

    def __call__(self) -> None:
        raise NotImplementedError


class Life:
    """One life of a process: up, paused (its callbacks are held) or over for ever.  A restart makes a new Life."""

    def __init__(self, name: str, incarnation: int, loop: SimLoop) -> None:
        self.name, self.incarnation, self.loop = name, incarnation, loop
        self.up, self.paused = True, False
        self.active = True
        """Up and not paused."""
        self.context = contextvars.copy_context()
        self.context.run(LIFE.set, self)
        self.held: list[Callable[[], None]] = []
        self.tasks: dict[int, asyncio.Task[Any]] = {}  # kept to the end of the run: a dropped frame runs its `finally`
        self.exited: Future = loop.create_future()
        """Ends with the result or exception of the task that `start` was given; never if the life is crashed."""

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Everything the coroutine spawns or awaits lives and dies with this life."""
        main = self.loop.create_task(coroutine, context=self.context.copy())
        main.add_done_callback(self._exit)

    def _exit(self, main: asyncio.Task[Any]) -> None:
        if main.cancelled():
            self.exited.cancel()
        elif (error := main.exception()) is not None:
            self.exited.set_exception(error)
            self.loop.failed.append(self.exited)
        else:
            self.exited.set_result(main.result())

    def admits(self, again: Callable[[], None]) -> bool:
        """May this life act now?  If it is paused, `again` is called once it is resumed."""
        if not self.up:
            return False
        if self.paused:
            self.held.append(again)
            return False
        return True

    def crash(self) -> None:
        """It stops where it is: no `finally` runs, nothing it had planned happens."""
        self.up = self.active = False
        self.held.clear()
        for task in self.tasks.values():
            coroutine = task.get_coro()
            if inspect.iscoroutine(coroutine) and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                coroutine.close()  # it will never take its first step, of which Python would warn; nothing runs
        self.loop.crashed.append(self)

    def pause(self) -> None:
        self.paused, self.active = True, False

    def resume(self) -> None:
        """What was held goes back through the queue, never inside another callback."""
        self.paused, self.active = False, self.up
        held, self.held = self.held, []
        for again in held:
            self.loop.requeue(again)


class Handle:
    """One callback that is due at once."""

    __slots__ = ("_cancelled", "args", "callback", "context", "life")

    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...], context: contextvars.Context) -> None:
        self.callback, self.args, self.context = callback, args, context
        self.life = context.get(LIFE)
        self._cancelled = False

    def run(self) -> None:
        life = self.life
        if self._cancelled or (life is not None and not life.active and not life.admits(self.run)):
            return
        self.context.run(self.callback, *self.args)
        del self  # from 3.12 on an exception's frames lead here; led they on to its task, that would not report it until collected

    def cancel(self) -> None:
        self._cancelled = True

    def cancelled(self) -> bool:
        return self._cancelled


class Timer(Event):
    """A callback that is due later; a cancelled one stays in SimPy's queue and does nothing."""

    __slots__ = ("_when", "handle")

    def __init__(self, handle: Handle, when: float) -> None:
        self.handle, self._when = handle, when

    def __call__(self) -> None:
        self.handle.run()

    def cancel(self) -> None:
        self.handle.cancel()

    def cancelled(self) -> bool:
        return self.handle.cancelled()

    def when(self) -> float:
        return self._when


class Numbered:
    """TaskGroup and wait keep sets; hashed by address, their order would differ from run to run.

    The number is drawn when it is first asked for: most futures never stand in a set.
    """

    if not TYPE_CHECKING:
        __slots__ = ()
    _serial: int

    def __hash__(self) -> int:
        try:
            return self._serial
        except AttributeError:
            self._serial = self.get_loop().next_serial()  # type: ignore[attr-defined]
            return self._serial


class Task(Numbered, asyncio.Task):  # type: ignore[type-arg]
    """A task whose hash does not depend on where it lies in memory."""

    __slots__ = ("_serial",)


class Future(Numbered, asyncio.Future):  # type: ignore[type-arg]
    """A future whose hash does not depend on where it lies in memory."""

    __slots__ = ("_serial",)


class Clock(simpy.Environment):
    """SimPy's environment, with the two things that are asked of it for each message said without detours."""

    def __init__(self, soon: deque[Handle], drain: Callable[[], None]) -> None:
        """`drain` does what waits in `soon`."""
        super().__init__()
        self._soon, self._drain = soon, drain
        self.read: Callable[[], float] = partial(attrgetter("_now"), self)
        """The time; `now` is a property, three times as slow."""

    def step(self) -> None:
        """Every event until the last, or until one ends the run: SimPy's own loop around this costs a call for each."""
        self.steps(sys.maxsize)
        raise EmptySchedule

    def steps(self, count: int) -> None:
        """So many events, or fewer where no more are left; after each all that it makes due at once."""
        queue, soon, drain, pop = self._queue, self._soon, self._drain, heappop
        if soon:  # due since before
            drain()
        for _ in range(count):
            if not queue:
                return
            event = queue[0][3]
            if isinstance(event, Event):  # one of ours: nobody but itself is called
                self._now = pop(queue)[0]
                event()
            else:
                super().step()
            if soon:
                drain()

    def after(self, delay: float, event: Any) -> None:
        """`schedule(event, NORMAL, delay)`."""
        heappush(self._queue, (self._now + delay, NORMAL, next(self._eid), event))

    def stretch(self, event: Any, factor: float) -> None:
        """What remains until that event shall take so many times as long, if it is still to come.  Looks at all events."""
        for index, (due, priority, number, scheduled) in enumerate(self._queue):
            if scheduled is event:
                self._queue[index] = self._now + (due - self._now) * factor, priority, number, event
                heapify(self._queue)
                return


class SimLoop(asyncio.AbstractEventLoop):
    """The event loop of one simulation."""

    def __init__(self, shuffle_ties: random.Random | None = None) -> None:
        """`shuffle_ties`: a stream that orders events of the same instant at random, to show what depends on luck."""
        self._ready: deque[Handle] = deque()
        self.env = Clock(self._ready, self.drain)
        self.now = self.env.read
        self.next_serial = itertools.count(1).__next__
        self._shuffle = shuffle_ties
        self.after: Callable[[float, Any], None] = self.env.after if shuffle_ties is None else self._after_shuffled
        """Schedule an event of the world: a message, a computation, a timer."""
        self.on_event: Callable[[], None] | None = None
        self._instant, self._callbacks = -1.0, 0
        self._loose: dict[int, asyncio.Task[Any]] = {}
        self.crashed: list[Life] = []
        """Kept to the end of the run, with their tasks: a life that is collected runs every `finally` it stopped in."""
        self.failed: list[Future] = []
        """`exited` of every life whose main task failed."""
        self.failure: BaseException | None = None

    # time and callbacks

    def time(self) -> float:
        return self.env.now

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None) -> Any:  # type: ignore[override]
        handle = Handle(callback, args, contextvars.copy_context() if context is None else context)  # an empty one is false
        self._ready.append(handle)
        return handle

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None) -> Any:  # type: ignore[override]
        delay = max(0.0, delay)
        timer = Timer(Handle(callback, args, contextvars.copy_context() if context is None else context), self.env.now + delay)
        self.after(delay, timer)
        return timer

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None) -> Any:  # type: ignore[override]
        return self.call_later(when - self.env.now, callback, *args, context=context)

    def world(self, when: float, callback: Callable[[], None]) -> None:
        """Call it then, in no life's context: what the world does, whoever has asked for it."""
        self.call_at(when, callback, context=contextvars.Context())

    def _after_shuffled(self, delay: float, event: Any) -> None:
        assert self._shuffle is not None
        self.env.schedule(event, NORMAL + self._shuffle.random(), delay)  # type: ignore[arg-type]

    def requeue(self, callback: Callable[[], None]) -> None:
        """Call it soon, in no life's context: it looks after that itself."""
        self._ready.append(Handle(callback, (), contextvars.Context()))

    def drain(self) -> None:
        """Run what is due at once, and what that makes due at once, to the end."""
        ready, now = self._ready, self.env._now
        if now != self._instant:
            self._instant, self._callbacks = now, 0
        callbacks = self._callbacks
        while ready:
            callbacks += 1
            if callbacks > CALLBACKS_IN_ONE_INSTANT:
                raise FrozenClock(f"at {now:.9f} s, after {callbacks} callbacks; the next is {ready[0].callback}")
            ready.popleft().run()
        self._callbacks = callbacks
        if self.on_event is not None:
            self.on_event()
        if self.failure is not None:
            raise self.failure

    # tasks and futures

    def create_future(self) -> Future:
        return Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: contextvars.Context | None = None) -> Task:
        serial = self.next_serial()
        task = Task(coro, loop=self, name=name or f"task-{serial}", context=context)
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # a crashed life's stay pending for ever
        life = LIFE.get() if context is None else context.get(LIFE)
        owner = self._loose if life is None else life.tasks
        owner[serial] = task
        task.add_done_callback(lambda _: owner.pop(serial, None))
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """A task or callback failed and nobody looked: that fails the run."""
        self.failure = self.failure or context.get("exception") or RuntimeError(context["message"])

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return asyncio._get_running_loop() is self

    def is_closed(self) -> bool:
        return False

    # running

    def run(self, until: float | simpy.Event | None = None) -> None:
        """Run until that time or event, or until nothing is left to happen.  Raises what failed unseen."""
        with self.in_charge(), rare_collections():
            self.env.run(until=until)
            gc.collect()  # a failed task in a reference cycle reports only now; what was there before the run is frozen still
        for exited in self.failed:
            if exited._log_traceback:  # nobody has looked at it, and a life made before the run is never collected in it
                self.failure = self.failure or exited.exception()
        if self.failure is not None:
            raise self.failure

    @contextmanager
    def in_charge(self) -> Iterator[None]:
        """Be the running loop, with its hooks for async generators; put back whatever was there."""
        outer, hooks = asyncio._get_running_loop(), sys.get_asyncgen_hooks()
        asyncio._set_running_loop(self)
        sys.set_asyncgen_hooks(firstiter=lambda _: None, finalizer=self._finalize)
        try:
            yield
        finally:
            sys.set_asyncgen_hooks(*hooks)
            asyncio._set_running_loop(outer)

    def _finalize(self, generator: AsyncGenerator[Any, Any]) -> None:
        """An async generator was dropped half-way: close it soon, in the life of whoever dropped it."""
        self.call_soon(lambda: self.create_task(generator.aclose()))


RUNS_BETWEEN_SWEEPS = 20
"""A run's own objects are garbage when it is forgotten, which is after its own collections; a hunt makes thousands of runs."""
_RUNS = itertools.count(1)


@contextmanager
def rare_collections() -> Iterator[None]:
    """A simulation makes a few hundred thousand objects a second and hardly a cycle: look for those seldom.

    Python's own thresholds cost a quarter of the run at a thousand replicas.
    """
    before = gc.get_threshold()
    if next(_RUNS) % RUNS_BETWEEN_SWEEPS == 0:
        gc.collect()
    gc.freeze()
    gc.set_threshold(1_000_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
