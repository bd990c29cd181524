"""What there is to be hit: the names of roles, machines, groups of machines (racks, power units) and links."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from core.job import COORDINATOR, EVALUATOR, SUPERVISOR, mirror_of, replica_name, shard_name
from scenarios.network import Network
from scenarios.topology import wire
from scenarios.wiring import Wiring, machine_names


@dataclass(frozen=True, slots=True)
class Places:
    """Every name that a fault may aim at, by what it is a name of."""

    roles: tuple[str, ...]
    """The supervisor's too."""
    machines: tuple[str, ...]
    wiring: Wiring

    def of(self, *kinds: str) -> list[str]:
        """All names of things of these kinds: "role", "machine", "group" (a rack, pod or power unit), "link"."""
        there: dict[str, Iterable[str]] = {
            "role": self.roles, "machine": self.machines, "group": self.wiring.groups, "link": self.wiring.links
        }  # fmt: skip
        return [name for kind in kinds for name in there[kind]]

    def hit(self, targets: Iterable[str], kinds: Iterable[str]) -> tuple[str, ...]:
        """The names of these kinds that the globs match, each once, in a fixed order."""
        names = self.of(*kinds)
        exact = set(names)
        found = [name for target in targets for name in ((target,) if target in exact else fnmatch.filter(names, target))]
        return tuple(dict.fromkeys(found))

    def homes(self) -> dict[str, tuple[str, ...]]:
        """The machine that each role but the supervisor is given first, and the groups which that is in."""
        groups = {machine: [group for group, members in self.wiring.groups.items() if machine in members] for machine in self.machines}
        return {role: (machine, *groups[machine]) for role, machine in zip(self.roles[:-1], cycle(self.machines), strict=False)}


def places(protocol: Any, cluster: Any, network: Network, *, real: bool, partitions: int = 1) -> Places:
    """Of a scenario's tables; `real`: are numerics, so that there is an evaluator?  `partitions`: of a replica.  Raises Unwired."""
    roles = role_names(protocol, real=real, partitions=partitions)
    machines = tuple(machine_names(cluster.machines or len(roles)))
    return Places((*roles, SUPERVISOR), machines, wire(network, machines))


def replica_names(protocol: Any, partitions: int = 1) -> list[str]:
    """Every replica, or every machine of one."""
    machines = range(partitions) if partitions > 1 else (None,)
    return [replica_name(number, machine) for number in range(protocol.all_replicas) for machine in machines]


def role_names(protocol: Any, *, real: bool = True, partitions: int = 1) -> list[str]:
    """Every role of a job, in the order in which machines are given out."""
    shards = [shard_name(number) for number in range(protocol.shards)]
    mirrors = [mirror_of(shard) for shard in shards] if protocol.durability == "mirror" else []
    replicas = replica_names(protocol, partitions)
    coordinator = [COORDINATOR] if protocol.kind != "downpour" else []
    return [*coordinator, *shards, *mirrors, *replicas, *([EVALUATOR] if real else [])]
