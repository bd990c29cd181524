"""What there is to be hit: the names of roles, machines, groups of machines (racks, power units) and links."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from core.job import COORDINATOR, EVALUATOR, SUPERVISOR, mirror_of, replica_name, shard_name


@dataclass(frozen=True, slots=True)
class Places:
    """Every name that a fault may aim at, by what it is a name of."""

    roles: tuple[str, ...]
    """The supervisor's too."""
    machines: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Machines of each rack and power unit."""
    links: tuple[str, ...] = ()

    def of(self, *kinds: str) -> list[str]:
        """All names of things of these kinds: "role", "machine", "group", "link"."""
        there: dict[str, Iterable[str]] = {"role": self.roles, "machine": self.machines, "group": self.groups, "link": self.links}
        return [name for kind in kinds for name in there[kind]]

    def hit(self, targets: Iterable[str], kinds: Iterable[str]) -> tuple[str, ...]:
        """The names of these kinds that the globs match, each once, in a fixed order."""
        names = self.of(*kinds)
        exact = set(names)
        found = [name for target in targets for name in ((target,) if target in exact else fnmatch.filter(names, target))]
        return tuple(dict.fromkeys(found))


def places(protocol: Any, cluster: Any, network: Any, *, real: bool) -> Places:
    """Of a scenario's tables; `real`: are numerics, so that there is an evaluator?"""
    roles = role_names(protocol, real=real)
    machines = tuple(f"machine/{number}" for number in range(cluster.machines or len(roles)))
    groups, links = joined(network, machines)
    return Places((*roles, SUPERVISOR), machines, groups, links)


def joined(_network: Any, machines: tuple[str, ...]) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Groups of these machines, and the links between them: in a star each machine has one each way, and there are no groups."""
    return {}, tuple(f"{machine} {side}" for machine in (*machines, "head") for side in ("out", "in"))


def role_names(protocol: Any, *, real: bool = True) -> list[str]:
    """Every role of a job, in the order in which machines are given out."""
    shards = [shard_name(number) for number in range(protocol.shards)]
    mirrors = [mirror_of(shard) for shard in shards] if protocol.durability == "mirror" else []
    replicas = [replica_name(number) for number in range(protocol.all_replicas)]
    coordinator = [COORDINATOR] if protocol.kind != "downpour" else []
    return [*coordinator, *shards, *mirrors, *replicas, *([EVALUATOR] if real else [])]


def nearest(name: str, names: Iterable[str]) -> str:
    """The question whether the nearest of the names was meant, or nothing."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
