"""A node's device: one thread that computes, one piece of work at a time, while the event loop goes on; and its memory."""

from __future__ import annotations

import asyncio
import ctypes
import os
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


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Of glibc's malloc.h."""


def keep_memory() -> None:
    """Have this process keep the memory it frees, for the next vector; to be called before it makes its first one.

    By default glibc gives large blocks back to the kernel at once, and the next one costs a fault for each 4 KiB and the
    zeroing of it: a third of the time that 64 MiB take on their way through gRPC (bench/wire.py).  A role's memory settles
    after its first few pushes, so there is nothing to give back.  Blocks beyond 32 MiB, glibc's limit, still come fresh,
    but torch asks for huge pages for them.  Another C library than glibc keeps its own habits.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch reads it at its first allocation
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 32 << 20)  # up to here, blocks come from the heap
        mallopt(M_TRIM_THRESHOLD, 1 << 30)  # whose end is given back only beyond this
        mallopt(M_ARENA_MAX, 1)  # one heap: a thread's own is unmapped whenever it is empty
