"""From a scenario to what the roles of a job are made of; the same for both worlds.

What they compute with, and on what, is `scenarios/parts.py`'s.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import job as core_job
from core.downpour import replica as downpour_replica
from core.durability import kind_of_shard
from core.graph import Graph, GraphError
from core.job import Job, Shared, Stop, role_kind, shard_name
from core.lives import Role
from core.partitioning import Partitioned
from core.placement import Needs
from core.rules import RULES, NoRule, Rule
from core.shard import Shard
from core.timings import Timings
from core.vector import cut
from core.work import Minibatches, Network, Partition, Portioned
from models.catalogue import BUNDLED
from models.errors import InputError
from models.losses import with_loss
from models.phantom_network import PhantomNetwork, PhantomPartition
from models.tally import Counting, TallyNetwork
from scenarios import toml
from scenarios.declared import told, why_not
from scenarios.partitions import placement_of
from scenarios.parts import Numerics, batch_of, complaint, descent_of, parts, real_parts, users
from scenarios.places import role_names
from scenarios.protocols import Downpour, MapReduce, Sandblaster, Synchronous, WarmStart
from scenarios.schema import HONOURED_BY, Scenario

if TYPE_CHECKING:
    from models.torch_network import TorchNetwork

LOCAL_SHARE = {"sgd": 1.0, "momentum": 1.0, "adagrad": 0.1, "adam": 0.0}
"""The replica's own rate beside the shard's, by rule: docs/PAPER.md, "alpha is unrelated to the server's rate"."""


@dataclass(slots=True)
class Plan:
    """A job and what its roles are made of.

    `payload_scale`: declared bytes for each byte of a real vector, which the simulator charges.
    """

    scenario: Scenario
    job: Job
    network: Network
    data: Callable[[int, int], Minibatches]
    """Replica's number and life -> its minibatches."""
    portions: Callable[[], Portioned]
    """Of Sandblaster's batch."""
    payload_scale: float
    at_once: int = 1
    """Samples that a replica computes at once, at most."""
    partitioned: Partitioned | None = None
    """How the model is split over the machines of a replica, if it is."""
    kind_of_shard: type[Shard] = Shard
    descend: Callable[..., Coroutine[Any, Any, None]] = downpour_replica
    """What a replica of Downpour does."""
    _phantoms: dict[int, PhantomPartition] = field(default_factory=dict)
    """What all replicas share, having no contents."""

    def found_placement(self) -> tuple[str, ...]:
        """An override that says what was searched for, so that nobody need search again; nothing where nobody did."""
        if self.partitioned is None or self.scenario.model.placement != "search":
            return ()
        return (f"model.placement={toml.inline({name: list(machines) for name, machines in self.partitioned.placement.items()})}",)

    def partition(self, number: int) -> Partition:
        """What one of these machines has of the model."""
        assert self.partitioned is not None
        if isinstance(self.network, PhantomNetwork):
            if number not in self._phantoms:
                self._phantoms[number] = PhantomPartition(self.partitioned, number)
            return self._phantoms[number]
        if isinstance(self.network, TallyNetwork):
            own = [place for place, shared in enumerate(self.job.shards) if shared.partition == number]
            return self.network.partition(self.partitioned, number, slice(own[0], own[-1] + 1) if own else slice(0, 0))
        return self.torch_network().partition(number)

    def rule(self) -> Rule:
        """A fresh rule, without state."""
        descent = descent_of(self.scenario)
        if descent is None:
            return NoRule()
        given = descent.rule.model_dump()
        kind = RULES[given.pop("kind")]
        return Counting(kind.traffic) if isinstance(self.network, TallyNetwork) else kind(**given)

    def check_memory(self, memory_bytes: float, where: str) -> None:
        """Raises ScenarioError for a history of Sandblaster that is too large for a shard's memory, with the sizes."""
        options, protocol = self.job.sandblaster, self.scenario.protocol
        if options is None or not isinstance(protocol, Sandblaster):
            return
        first = self.network.initial()
        vector = max(first[shared.part].nbytes for shared in self.job.shards) * self.payload_scale
        if options.vectors * vector > memory_bytes:
            raise complaint(
                self.scenario, "protocol.memory",
                f"found {protocol.memory}; a shard would hold {options.vectors * vector / 1e9:.3g} GB: {2 * protocol.memory} vectors of history,"
                f" {options.vectors - 2 * protocol.memory} of bundles and a line search, {vector / 1e6:.3g} MB each; it has"
                f" {memory_bytes / 1e9:.3g} GB {where}; allowed: fewer pairs, larger bundles, or more shards",
            )  # fmt: skip

    def torch_network(self) -> TorchNetwork:
        """The network, where numerics are real."""
        from models.torch_network import TorchNetwork

        assert isinstance(self.network, TorchNetwork)
        return self.network

    def save(self, parameters: Any, path: Path) -> None:
        """Write a model that the plain module's `load_state_dict` takes."""
        from safetensors.torch import save_file

        partial = path.with_name(f".{path.name}.partial")
        save_file(self.torch_network().state_dict(parameters), partial)
        partial.replace(path)


def plan(scenario: Scenario, *, numerics: Numerics | None = None, device: str = "cpu", shared: bool = False) -> Plan:
    """Make the network and the data.  Raises ScenarioError for whatever of the user's does not fit.

    `numerics` overrides the scenario's; `shared`: all replicas are of this process and use the one network.
    """
    numerics = numerics or scenario.numerics
    made = parts(scenario, numerics, device, shared=shared)
    samples = at_once(scenario, made.training_samples)
    partitioned = split(scenario, made.network, samples)
    shares = sharing(scenario, made.parameters or len(made.network), partitioned)
    agreed = job(scenario, made.network.share(shares) if isinstance(made.network, TallyNetwork) else shares, made.training_samples)
    if numerics == "exact":
        agreed = replace(agreed, wire="float32", local_rate=agreed.local_rate if agreed.sandblaster else 0.0)
    planned = Plan(
        scenario, agreed, made.network, made.data, made.portions, made.payload_scale, samples, partitioned,
        made.watched(own_shard(scenario, agreed), agreed), own_replica(scenario),
    )  # fmt: skip
    if scenario.placement.shard.memory:
        planned.check_memory(scenario.placement.shard.memory, "by placement.shard.memory")
    return planned


def own_shard(scenario: Scenario, agreed: Job) -> type[Shard]:
    """The user's, if there is one; else the protocol's."""
    usual, given = kind_of_shard(agreed), scenario.protocol.own.shard
    if given is None:
        return usual
    found = users(scenario, given, "protocol.own.shard")
    if not (isinstance(found, type) and issubclass(found, usual)):
        raise complaint(
            scenario, "protocol.own.shard", f"found {given!r}; allowed: a class that inherits {usual.__module__}.{usual.__name__}"
        )
    return found


def own_replica(scenario: Scenario) -> Callable[..., Coroutine[Any, Any, None]]:
    """The user's, if there is one; else Downpour's."""
    given = scenario.protocol.own.replica
    if given is None:
        return downpour_replica
    found: Callable[..., Coroutine[Any, Any, None]] = users(scenario, given, "protocol.own.replica")
    if not inspect.iscoroutinefunction(found):
        raise complaint(
            scenario, "protocol.own.replica", f"found {given!r}; allowed: an async function, called as core.downpour.replica is"
        )
    return found


def split(scenario: Scenario, network: Network, samples: int) -> Partitioned | None:
    """The model split over the machines of a replica, for minibatches of so many; None where a replica has one."""
    model = scenario.model
    if model.partitions == 1:
        return None
    if model.cost is not None:
        raise complaint(
            scenario, "model.cost", "what the parts of a model cost follows from its layers; allowed: one partition, or no cost"
        )
    try:
        partitioned = placement_of(scenario, graph_of(scenario, network), samples)
    except GraphError as error:
        raise complaint(scenario, "model.placement", str(error)) from error
    if not isinstance(network, PhantomNetwork | TallyNetwork):
        network.split(partitioned)  # type: ignore[attr-defined]
    return partitioned


def graph_of(scenario: Scenario, network: Network) -> Graph:
    """The model's layers and its loss.  Raises GraphError."""
    model, bundled = scenario.model, BUNDLED.get(scenario.model.network)
    if bundled is not None:
        return with_loss(bundled.graph(model.layers), bundled.loss if model.loss == "auto" else model.loss)
    if isinstance(network, PhantomNetwork | TallyNetwork):
        network = real_parts(scenario, "cpu", shared=True).network
    try:
        return network.graph()  # type: ignore[attr-defined,no-any-return]
    except InputError as error:
        raise complaint(scenario, "", str(error)) from error


def sharing(scenario: Scenario, parameters: int, partitioned: Partitioned | None) -> tuple[Shared, ...]:
    """Who owns which parameters.  Each machine of a replica has shards of its own, which no other machine of it talks to."""
    count = scenario.protocol.shards
    if count > parameters:
        raise complaint(scenario, "protocol.shards", f"found {count}; the network has {parameters} parameters to share")
    if partitioned is None:
        return tuple(Shared(shard_name(number), part) for number, part in enumerate(cut(parameters, count)))
    machines = [machine for machine, size in enumerate(partitioned.sizes) if size]
    if count < len(machines):
        raise complaint(
            scenario, "protocol.shards",
            f"found {count}; {len(machines)} partitions have parameters, and each needs shards of its own; allowed: {len(machines)} or more",
        )  # fmt: skip
    shares = dict.fromkeys(machines, 1)
    for _ in range(count - len(machines)):  # the next to whoever has the largest slices
        shares[max(machines, key=lambda machine: (partitioned.sizes[machine] / shares[machine], -machine))] += 1
    found: list[Shared] = []
    for machine, share in shares.items():
        first = partitioned.parameters_of(machine).start
        for part in cut(partitioned.sizes[machine], share):
            found.append(Shared(shard_name(len(found)), slice(first + part.start, first + part.stop), machine))
    return tuple(found)


def at_once(scenario: Scenario, training_samples: int) -> int:
    """Samples that a replica computes at once, at most: those of a minibatch, or of a portion."""
    protocol = scenario.protocol
    portion = -(-round(protocol.fraction * training_samples) // protocol.portions) if isinstance(protocol, Sandblaster) else 1
    return max(1, portion, batch_of(scenario))


def local_rate(descent: Downpour | WarmStart) -> float:
    given = descent.local_rate
    return LOCAL_SHARE[descent.rule.kind] * descent.rule.learning_rate if given is None else given


def samples_of(epochs: float | None, training_samples: int) -> int | None:
    return math.ceil(epochs * training_samples) if epochs is not None else None


def roles(scenario: Scenario, *, real: bool = True) -> list[Role]:
    """Every role of a job, as the supervisor's ledger has it at the beginning."""
    keeps = scenario.protocol.durability in ("snapshot", "log")
    found = []
    for name in role_names(scenario.protocol, real=real, partitions=scenario.model.partitions):
        needs = getattr(scenario.placement, role_kind(name))
        found.append(Role(name, Needs(needs.cores, needs.gpus, needs.memory), keeps=keeps and role_kind(name) == "shard"))
    return found


def job(scenario: Scenario, shards: tuple[Shared, ...], training_samples: int) -> Job:
    """The job as its roles know it."""
    protocol = scenario.protocol
    if isinstance(protocol, Sandblaster):
        special = sandblaster(protocol, training_samples)
    elif isinstance(protocol, Synchronous):
        special = synchronous(protocol, training_samples)
    else:
        special = downpour(protocol, training_samples)
    return Job(
        shards=shards,
        replicas=protocol.all_replicas,
        partitions=scenario.model.partitions,
        deadline_s=protocol.deadline or Timings(protocol.detect_within).deadline_s,
        evaluate_every_s=protocol.evaluate_every,
        durability=protocol.durability,
        snapshot_every_s=protocol.snapshot_every,
        timings=Timings(protocol.detect_within),
        **special,
    )


def downpour(protocol: Downpour, training_samples: int) -> dict[str, Any]:
    stop = protocol.stop
    return {
        "stop": Stop(stop.updates, samples_of(stop.epochs, training_samples), stop.time, stop.loss, stop.accuracy),
        "n_fetch": protocol.n_fetch, "n_push": protocol.n_push, "local_rate": local_rate(protocol), "max_behind": protocol.max_behind,
        "warm_updates": protocol.warmstart, "wire": protocol.wire,
    }  # fmt: skip


def synchronous(protocol: Synchronous, training_samples: int) -> dict[str, Any]:
    """Updates and samples are the coordinator's to judge."""
    stop = protocol.stop
    return {
        "stop": Stop(time_s=stop.time, loss=stop.loss, accuracy=stop.accuracy),
        "synchronous": core_job.Synchronous(protocol.replicas, stop.updates, samples_of(stop.epochs, training_samples)),
    }


def sandblaster(protocol: Sandblaster, training_samples: int) -> dict[str, Any]:
    """Iterations, time and gradient are the coordinator's to judge."""
    stop, warm = protocol.stop, protocol.warmstart
    descent = {} if warm is None else {"n_fetch": warm.n_fetch, "n_push": warm.n_push, "local_rate": local_rate(warm)}
    return descent | {
        "stop": Stop(time_s=stop.time, loss=stop.loss, accuracy=stop.accuracy),
        "sandblaster": core_job.Sandblaster(
            protocol.portions, protocol.bundle, protocol.copies if protocol.backup != "none" else 0, protocol.minimum_age, protocol.memory,
            protocol.direction, protocol.line_search, protocol.evaluations, stop.iterations, stop.gradient, stop.relative_loss,
            protocol.job_start_up if isinstance(protocol, MapReduce) else 0.0, keeps=not isinstance(protocol, MapReduce),
            warm=None if warm is None else Stop(warm.updates, samples_of(warm.epochs, training_samples)),
        ),
    }  # fmt: skip


def not_honoured(scenario: Scenario, world: str) -> list[str]:
    """What of the scenario this world cannot honour, and why: only keys that someone set."""
    given = []
    for key, (by, why) in HONOURED_BY.items():
        value: Any = scenario
        *tables, last = key.split(".")
        for table in tables:
            value = getattr(value, table)
        if by != world and last in value.model_fields_set and getattr(value, last) != type(value).model_fields[last].default:
            given.append(f"{key} is not honoured by {world}ctl: {why}")
    if world == "exec":
        real = [(table, why_not(table, alone=scenario.placement.alone)) for table in scenario.fault]
        given += [f"{told(index, table)} is not honoured by execctl: {why}" for index, (table, why) in enumerate(real) if why]
    return given
