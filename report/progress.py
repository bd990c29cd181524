"""How fast something goes, and how long it will take: what both worlds show of a job that is still running."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable


class Rate:
    """Of a number that grows, over the last seconds of wall time."""

    def __init__(self, window_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.window_s, self._clock = window_s, clock
        self._history: deque[tuple[float, float]] = deque()

    def __call__(self, now: float) -> float:
        """A second, given what it is now."""
        at = self._clock()
        self._history.append((at, now))
        while self._history[0][0] < at - self.window_s:
            self._history.popleft()
        then, before = self._history[0]
        return max(0.0, (now - before) / (at - then)) if at > then else 0.0


def left_s(share: float, share_per_s: float) -> float | None:
    """Wall time until a job is done of which that share is; None if it does not move."""
    return max(0.0, 1.0 - share) / share_per_s if share_per_s > 0 else None
