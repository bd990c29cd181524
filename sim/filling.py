"""Plain progressive filling: the max-min fair allocation from the start (Bertsekas and Gallager, Data Networks, 6.5.2)."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heapreplace
from typing import NamedTuple


class Filled(NamedTuple):
    """A link that is full, and everything that is as fast as that allows."""

    link: int
    level: float
    """Bytes a second for each of the flows."""
    flows: list[int]


def fill(capacities: Sequence[float], paths: Sequence[Sequence[int]]) -> list[Filled]:
    """Raise all flows' rates together; whatever crosses the link that is full first has its rate, then the next.  O(links + hops log links)."""
    free = list(capacities)
    waiting: list[dict[int, None]] = [{} for _ in capacities]
    for flow, path in enumerate(paths):
        for link in path:
            waiting[link][flow] = None
    shares = [(free[link] / len(flows), link) for link, flows in enumerate(waiting) if flows]
    heapify(shares)
    filled = []
    while shares:
        share, link = shares[0]
        if not waiting[link]:
            heappop(shares)
            continue
        level = max(0.0, free[link] / len(waiting[link]))
        if level > share:  # shares only grow while slower flows are taken out
            heapreplace(shares, (level, link))
            continue
        flows = list(waiting[link])
        filled.append(Filled(link, level, flows))
        for flow in flows:
            for crossed in paths[flow]:
                del waiting[crossed][flow]
                free[crossed] -= level
    return filled
