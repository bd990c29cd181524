"""How much of each link was used, and when it was busiest.

Links are looked at now and then, never for each message: after every stretch of time, and stretches get longer by themselves, two into
one, so that a run of any length has some hundred of them.  Under `latency` and `fifo` bytes count when they are sent; what a
link cannot have carried yet is put off to the stretches after, as it is for the packets that `fair` does not queue.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from sim.loop import Event
from sim.network import LATE

if TYPE_CHECKING:
    from sim.cluster import Cluster

FIRST_STRETCH_S = 0.01
STRETCHES = 256
"""Of a link, at most."""
MANY_LINKS, STRETCHES_OF_MANY = 2000, 32
"""Of so many links, so few: they are all looked at for each stretch."""

HEADER = ("link", "bytes_per_s", "bytes", "utilisation", "busiest_at_s", "busiest_for_s", "busiest_utilisation")


class Usage(Event):
    """Of every link of a cluster's network; it is itself the event at which they are looked at."""

    __slots__ = ("_capacities", "_links", "_loop", "_most", "_network", "_seen", "_stretches", "stretch_s")

    def __init__(self, cluster: Cluster) -> None:
        self._loop, self._network = cluster.loop, cluster.network
        self._links = list(cluster.network.links.values())
        self._capacities = [link.capacity for link in self._links]
        """Before any fault."""
        self._seen = [0.0] * len(self._links)
        self._stretches: list[list[float]] = []
        """Bytes of each link, one list for each stretch."""
        self._most = STRETCHES if len(self._links) < MANY_LINKS else STRETCHES_OF_MANY
        self.stretch_s = FIRST_STRETCH_S

    def begin(self) -> None:
        self._loop.env.schedule(self, LATE, self.stretch_s)  # type: ignore[arg-type]

    def __call__(self) -> None:
        self._look()
        if len(self._stretches) == self._most:
            pairs = zip(self._stretches[::2], self._stretches[1::2], strict=True)
            self._stretches = [[a + b for a, b in zip(*pair, strict=True)] for pair in pairs]
            self.stretch_s *= 2
        self.begin()

    def _look(self) -> None:
        now, seen = self._loop.env.now, self._seen
        carried = [link.carried(now) for link in self._links]
        self._stretches.append([a - b for a, b in zip(carried, seen, strict=True)])
        self._seen = carried

    def rows(self) -> Iterator[dict[str, Any]]:
        """One for each link that carried anything, up to now; columns as in `HEADER`."""
        now = self._loop.env.now
        begun_s = len(self._stretches) * self.stretch_s
        last = [link.carried(now) - before for link, before in zip(self._links, self._seen, strict=True)]
        stretches, lasts = list(self._stretches), [self.stretch_s] * len(self._stretches)
        if now - begun_s > self.stretch_s / 2 or (not stretches and now > 0):
            stretches.append(last)
            lasts.append(now - begun_s)
        elif stretches:  # too short to say anything by itself
            stretches[-1] = [a + b for a, b in zip(stretches[-1], last, strict=True)]
            lasts[-1] += max(0.0, now - begun_s)
        else:
            return
        for number, (link, capacity) in enumerate(zip(self._links, self._capacities, strict=True)):
            nbytes = self._seen[number] + last[number]
            if nbytes <= 0:
                continue
            used = list(carried_by((stretch[number] for stretch in stretches), [capacity * lasting for lasting in lasts]))
            rates = [carried / lasting for carried, lasting in zip(used, lasts, strict=True)]
            busiest = max(range(len(rates)), key=rates.__getitem__)
            values = (
                link.name, capacity, round(nbytes), round(sum(used) / (capacity * now), 6), round(busiest * self.stretch_s, 9),
                round(lasts[busiest], 9), round(rates[busiest] / capacity, 6),
            )  # fmt: skip
            yield dict(zip(HEADER, values, strict=True))


def carried_by(given: Iterable[float], room: Iterable[float]) -> Iterator[float]:
    """Bytes that a link carried in each stretch: what it was given, as far as there was room, and later what it then could not."""
    backlog = 0.0
    for nbytes, most in zip(given, room, strict=True):
        backlog += nbytes
        through = min(backlog, most)
        backlog -= through
        yield through
