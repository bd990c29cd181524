"""What joins the machines of a cluster: links, groups of machines, routes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

HEAD = "head"
"""The supervisor's machine."""


class Unwired(Exception):
    """The machines cannot be joined so; `mistakes` holds every reason with its key."""

    def __init__(self, mistakes: Iterable[tuple[str, str]]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(f"{path}: {message}" for path, message in self.mistakes))


def nobody_between(_source: str, _destination: str) -> tuple[str, ...]:
    """At one switch that is never full."""
    return ()


@dataclass(frozen=True, slots=True)
class Wiring:
    """What joins the machines."""

    links: Mapping[str, float]
    """Bytes a second that each carries."""
    attachments: Mapping[str, tuple[str, ...]]
    """The links by which a machine, rack, power unit or pod hangs together with the rest."""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The machines of each rack, power unit and pod; in a graph there are none."""
    latencies: Mapping[str, float] = field(default_factory=dict)
    """Seconds that a link adds to the latency that every message has; links that add nothing are left out."""
    between: Callable[[str, str], tuple[str, ...]] = nobody_between
    """The links of the route from one machine to another, without those of its two ends."""
    ends: bool = True
    """Has every machine links of its own, "out" and "in"?  In a graph its edges are that."""

    def route(self, source: str, destination: str) -> tuple[str, ...]:
        """The links from one machine to another, in order."""
        between = self.between(source, destination)
        return (f"{source} out", *between, f"{destination} in") if self.ends else between


def machine_names(count: int) -> list[str]:
    """The machines of a cluster, without the head."""
    return [f"machine/{number}" for number in range(count)]
