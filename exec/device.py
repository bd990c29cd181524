"""A node's device: one thread that computes, one piece of work at a time, while the event loop goes on; and its memory."""

from __future__ import annotations

import asyncio
import ctypes
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from core.work import Work

R = TypeVar("R")


class Device:
    """Its thread, started by the first work."""

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="device")

    def compute(self, work: Work[R]) -> asyncio.Future[R]:
        """What the work returns or raises.  Cost is for worlds without a device."""
        return asyncio.get_running_loop().run_in_executor(self.thread, work.run)

    def close(self) -> None:
        """Wait for the work under way; what has not begun never will."""
        self.thread.shutdown(cancel_futures=True)


M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
"""Of glibc's malloc.h."""


def keep_memory() -> None:
    """Have this process keep memory that it freed, for the next vector of the same size; first thing in a role's process.

    By default glibc gives every large block back to the kernel at once, and the next one of the same size costs a page
    fault for each 4 KiB and the zeroing of it: a third of the time that a 64 MiB vector takes on its way through gRPC
    (bench/wire.py).  The memory of a role settles after its first few pushes, so there is nothing to give back.
    Another C library than glibc keeps its own habits.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)  # large blocks come from the heap, too
        mallopt(M_TRIM_THRESHOLD, -1)  # whose end is never given back
        mallopt(M_ARENA_MAX, 1)  # one heap: a thread's own would be unmapped whenever it is empty
