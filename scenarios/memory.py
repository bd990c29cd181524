"""Does a job fit into memory: of the machines that its scenario declares, and of the one that simulates it?

What is counted are vectors as long as the model or a shard's slice of it; activations and minibatches are not.

    replica      parameters, gradient, what has accrued, and where a fetch arrives; of a machine of several those of its parts, and what crosses
    shard        its slice and the rule's state; a copy of both where something is written down; Sandblaster's history and bundles
    mirror       slice and state, and the same once more while it is filled
    evaluator    parameters, and what it ends with
"""

from __future__ import annotations

import os
from collections import defaultdict
from itertools import cycle

from core.graph import GraphError
from core.job import partition_number, role_kind
from core.vector import Phantom
from scenarios.load import Mistake, ScenarioError
from scenarios.partitions import VECTORS, check_parts_memory, room
from scenarios.parts import complaint
from scenarios.plan import Plan, roles

OF_A_ROLE, OF_A_LANE = 40e3, 4e3
"""Bytes that the simulator takes for each role and each machine, and for a replica's traffic with a shard: measured with 2,000 replicas on
as many machines and 2 and 20 shards, timing only (127 and 263 MB), and rounded up."""

ENTRIES = 8
"""Slices in a shard's log before it is replaced by a snapshot: `core.durability.LOG_LIMIT`."""


def machine_memory() -> int:
    """Of this machine, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_declared(plan: Plan) -> None:
    """Raises ScenarioError if `cluster.memory` is less than some machine would need for the roles that live there first."""
    scenario = plan.scenario
    if scenario.cluster.memory is None:
        return
    plan.check_memory(scenario.cluster.memory, "by cluster.memory")
    if plan.partitioned is not None:
        try:
            check_parts_memory(plan.partitioned, plan.at_once, scenario.cluster.memory)
        except GraphError as error:
            raise complaint(scenario, "cluster.memory", str(error)) from error
    names = [role.name for role in roles(scenario, real=scenario.numerics == "real")]
    residents: dict[int, list[str]] = defaultdict(list)
    for role, machine in zip(names, cycle(range(scenario.cluster.machines or len(names))), strict=False):
        residents[machine].append(role)
    bytes_of = {role: vectors_of(plan, role) * plan.payload_scale for role in names}
    needs = {machine: sum(bytes_of[role] for role in there) for machine, there in residents.items()}
    worst = max(needs, key=lambda machine: needs[machine])
    if needs[worst] > scenario.cluster.memory:
        told = ", ".join(f"{role} {gigabytes(bytes_of[role])}" for role in residents[worst] if bytes_of[role])
        raise complaint(
            scenario, "cluster.memory",
            f"found {gigabytes(scenario.cluster.memory)}; machine/{worst} would need {gigabytes(needs[worst])}: {told};"
            " allowed: more memory, more machines, or more shards",
        )  # fmt: skip


def check_here(plan: Plan, memory_bytes: float) -> None:
    """Raises ScenarioError if simulating it would take more than this machine has."""
    scenario, protocol = plan.scenario, plan.scenario.protocol
    real = scenario.numerics == "real"
    names = [role.name for role in roles(scenario, real=real)]
    machines = scenario.cluster.machines or len(names)
    needed = (len(names) + machines) * OF_A_ROLE + protocol.all_replicas * protocol.shards * OF_A_LANE
    what = f"{len(names):,} roles on {machines:,} machines"
    if real:
        kept = (1 + ENTRIES if protocol.durability == "log" else 1) * (protocol.durability != "none")
        vectors = sum(vectors_of(plan, role) for role in names) + kept * plan.network.initial().nbytes
        needed += vectors
        what += f", whose vectors take {gigabytes(vectors)}"
    if needed > memory_bytes:
        remedy = "fewer replicas, a smaller network with model.cost for its size, or numerics = 'timing'" if real else "fewer of them"
        message = f"would take about {gigabytes(needed)} to simulate: {what}; this machine has {gigabytes(memory_bytes)}; allowed: {remedy}"
        raise ScenarioError([Mistake(scenario.file, "protocol.replicas", message)])


def vectors_of(plan: Plan, role: str) -> float:
    """Bytes of the vectors that a role holds at once, as the run's own network has them."""
    kind, model = role_kind(role), float(plan.network.initial().nbytes)
    part: float = max(model * (shared.part.stop - shared.part.start) / len(plan.network) for shared in plan.job.shards)
    if kind == "replica" and plan.partitioned is not None:
        return room(plan.partitioned, partition_number(role), plan.at_once).total
    if kind == "replica":
        return VECTORS * model
    if kind == "evaluator":
        return 2 * model
    rule, writes = plan.rule(), plan.job.durability != "none"
    rule.start(Phantom(1))
    kept: float = part * (1 + sum(isinstance(vector, Phantom) for vector in rule.state.values()))
    if kind == "mirror":
        return 2 * kept
    if kind == "shard":
        staged = plan.job.sandblaster.vectors if plan.job.sandblaster is not None else 0
        return kept * (1 + writes) + part * (staged or (plan.job.replicas if plan.job.synchronous is not None else 0))
    return 0.0


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.3g} GB"
