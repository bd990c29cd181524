"""The live view of a job: updates a second, loss, accuracy, staleness, who is up."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from core.job import EVALUATOR
from scenarios.units import in_words

if TYPE_CHECKING:
    from exec.launch import Launch

COLOURS = {"starting": "yellow", "ready": "green", "ended": "blue", "dead": "red"}
WINDOW_S = 5.0
"""Over which updates a second are averaged."""


class Progress:
    """Rendered anew four times a second."""

    def __init__(self, launched: Launch) -> None:
        self.launched = launched
        self._history: deque[tuple[float, int]] = deque()

    def __rich__(self) -> RenderableType:
        seen = self.launched.seen
        shards = [one.status for role, one in seen.items() if role.startswith("shard/")]
        updates = min((status.updates for status in shards), default=0)
        staleness = sum(status.staleness for status in shards) / max(1, len(shards))
        quality = seen[EVALUATOR].status
        table = Table.grid(padding=(0, 3))
        table.add_row(
            f"{in_words(self.launched.elapsed())}",
            f"{updates:,} updates, {self.rate(updates):.4g}/s",
            f"loss {quality.loss:.4f}" if quality.HasField("loss") else "loss -",
            f"accuracy {quality.accuracy:.4f}" if quality.HasField("accuracy") else "accuracy -",
            f"staleness {staleness:.1f}",
        )
        roles = Text("  ").join(Text(role, COLOURS[one.state]) for role, one in seen.items())
        return Group(table, roles)

    def rate(self, updates: int) -> float:
        now = time.monotonic()
        self._history.append((now, updates))
        while self._history[0][0] < now - WINDOW_S:
            self._history.popleft()
        then, before = self._history[0]
        return (updates - before) / (now - then) if now > then else 0.0
