"""Processes that runs are spread over, for whatever takes many of them: hunts, losses, orders of ties."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager


@contextmanager
def workers(count: int) -> Iterator[ProcessPoolExecutor]:
    """Nobody waits for runs that are not wanted any more.  Ctrl-C reaches every process of a terminal, and is the first one's business.

    A worker that was killed makes futures raise `concurrent.futures.process.BrokenProcessPool`.
    """
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        count, mp_context=multiprocessing.get_context("spawn"), initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
    )
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
