"""From a scenario to what the roles of a job are made of; the same for both worlds.

Torch is imported only where the scenario's numerics are real.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import job as core_job
from core.graph import Graph, GraphError
from core.job import Job, Shared, Stop, role_kind, shard_name
from core.lives import Role
from core.partitioning import Partitioned
from core.placement import Needs
from core.rules import RULES, NoRule, Rule
from core.timings import Timings
from core.vector import cut
from core.work import Minibatches, Network, NoPortions, Partition, Portioned
from models.catalogue import BUNDLED, DIGITS_SAMPLES, held_out_samples
from models.errors import InputError, NetworkError, UserCodeError
from models.layers import with_loss
from models.phantom_network import PhantomMinibatches, PhantomNetwork, PhantomPartition, PhantomPortions
from scenarios import toml
from scenarios.declared import told, why_not
from scenarios.load import Mistake, ScenarioError
from scenarios.partitions import placement_of
from scenarios.places import role_names
from scenarios.protocols import Downpour, MapReduce, Sandblaster, Synchronous, WarmStart
from scenarios.schema import HONOURED_BY, Scenario

if TYPE_CHECKING:
    from models.torch_network import TorchNetwork

BYTES_OF_FLOAT32 = 4

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

    def found_placement(self) -> tuple[str, ...]:
        """An override that says what was searched for, so that nobody need search again; nothing where nobody did."""
        if self.partitioned is None or self.scenario.model.placement != "search":
            return ()
        return (f"model.placement={toml.inline({name: list(machines) for name, machines in self.partitioned.placement.items()})}",)

    def partition(self, number: int) -> Partition:
        """What one of these machines has of the model."""
        assert self.partitioned is not None
        if isinstance(self.network, PhantomNetwork):
            return PhantomPartition(self.partitioned, number)
        return self.torch_network().partition(number)

    def rule(self) -> Rule:
        """A fresh rule, without state."""
        descent = descent_of(self.scenario)
        if descent is None:
            return NoRule()
        given = descent.rule.model_dump()
        return RULES[given.pop("kind")](**given)

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


def plan(scenario: Scenario, *, real: bool | None = None, device: str = "cpu", shared: bool = False) -> Plan:
    """Make the network and the data.  Raises ScenarioError for whatever of the user's does not fit.

    `real` overrides the scenario's numerics; `shared`: all replicas are of this process and use the one network.
    """
    if scenario.numerics == "real" if real is None else real:
        network, data, training_samples = real_parts(scenario, device, shared)
        if scenario.model.cost is not None:
            payload_scale = scenario.model.cost.parameters * BYTES_OF_FLOAT32 / network.initial().nbytes
        else:
            payload_scale = 1.0
    else:
        network, data, training_samples = phantom_parts(scenario)
        payload_scale = 1.0
    partitioned = split(scenario, network, at_once(scenario, training_samples))
    made = Plan(
        scenario, job(scenario, sharing(scenario, len(network), partitioned), training_samples), network, data,
        portions(scenario, network, training_samples), payload_scale, at_once(scenario, training_samples), partitioned,
    )  # fmt: skip
    if scenario.placement.shard.memory:
        made.check_memory(scenario.placement.shard.memory, "by placement.shard.memory")
    return made


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
    if not isinstance(network, PhantomNetwork):
        network.split(partitioned)  # type: ignore[attr-defined]
    return partitioned


def graph_of(scenario: Scenario, network: Network) -> Graph:
    """The model's layers and its loss.  Raises GraphError."""
    model, bundled = scenario.model, BUNDLED.get(scenario.model.network)
    if bundled is not None:
        return with_loss(bundled.graph(model.layers), bundled.loss if model.loss == "auto" else model.loss)
    if isinstance(network, PhantomNetwork):
        network = real_parts(scenario, "cpu", shared=True)[0]
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


def portions(scenario: Scenario, network: Network, training_samples: int) -> Callable[[], Portioned]:
    """How the data of Sandblaster's batch are cut."""
    protocol = scenario.protocol
    if not isinstance(protocol, Sandblaster):
        return NoPortions
    samples = max(1, round(protocol.fraction * training_samples))
    if samples < protocol.portions:
        found = f"found {protocol.portions}; the batch has {samples} samples to share"
        raise complaint(scenario, "protocol.portions", found)
    if isinstance(network, PhantomNetwork):
        return lambda: PhantomPortions(samples, protocol.portions)
    from models.data import TrainingPortions

    train = network.data.train  # type: ignore[attr-defined]
    kept = 0 if isinstance(protocol, MapReduce) else 2 * -(-protocol.portions // protocol.replicas)
    return lambda: TrainingPortions(train, samples, protocol.portions, scenario.seed, kept)


def at_once(scenario: Scenario, training_samples: int) -> int:
    """Samples that a replica computes at once, at most: those of a minibatch, or of a portion."""
    protocol = scenario.protocol
    portion = -(-round(protocol.fraction * training_samples) // protocol.portions) if isinstance(protocol, Sandblaster) else 1
    return max(1, portion, batch_of(scenario))


def descent_of(scenario: Scenario) -> Downpour | WarmStart | Synchronous | None:
    """What its replicas descend by on minibatches, if they do."""
    protocol = scenario.protocol
    return protocol.warmstart if isinstance(protocol, Sandblaster) else protocol


def batch_of(scenario: Scenario) -> int:
    """Samples of a minibatch; 1 where there are none."""
    descent = descent_of(scenario)
    return 1 if descent is None else descent.batch


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


def real_parts(scenario: Scenario, device: str, shared: bool) -> tuple[Network, Callable[[int, int], Minibatches], int]:
    import torch

    from models import data as datasets
    from models import torch_network, user
    from models.graph_module import GraphModule

    torch.set_num_threads(scenario.exec.threads)
    model, protocol = scenario.model, scenario.protocol
    bundled = BUNDLED.get(model.network)
    try:
        if bundled is not None:
            module = torch_network.made_from(scenario.seed, lambda: torch_network.build(bundled, model.layers))
        else:
            module = torch_network.made_from(scenario.seed, lambda: user.call(model.network, "model.network"))
            if isinstance(module, Graph):
                module = torch_network.made_from(scenario.seed, partial(GraphModule, module))
            if not isinstance(module, torch.nn.Module):
                raise UserCodeError(
                    f"model.network = {model.network!r}: returned a {type(module).__name__}; allowed: a torch.nn.Module, or a core.graph.Graph"
                )
        synthetic = (scenario.data.samples, bundled, model.layers) if bundled is not None else None
        data = datasets.load(scenario.data.source, scenario.data.held_out, scenario.seed, synthetic)
        flops = model.cost.flops if model.cost else bundled.flops_per_sample(model.layers) if bundled else None
        loss = "logistic" if model.loss == "auto" and bundled is not None and bundled.loss == "logistic" else model.loss
        network = torch_network.TorchNetwork(module, data, loss=loss, flops_per_sample=flops, device=device, shared=shared)
        if model.start is not None:
            load_start(network, model.start)
        batch = batch_of(scenario)
        for number in range(protocol.all_replicas):
            datasets.ReplicaMinibatches(data.train, number, protocol.all_replicas, batch, scenario.seed, 0)
    except InputError as error:
        raise complaint(scenario, "", str(error)) from error

    def minibatches(number: int, life: int) -> Minibatches:
        return datasets.ReplicaMinibatches(data.train, number, protocol.all_replicas, batch_of(scenario), scenario.seed, life)

    return network, minibatches, len(data.train)


def load_start(network: TorchNetwork, source: str) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(source)
    except (OSError, SafetensorError) as error:
        raise NetworkError(f"model.start = {source!r}: cannot be read: {error}") from None
    network.load_state_dict(state, source)


def phantom_parts(scenario: Scenario) -> tuple[Network, Callable[[int, int], Minibatches], int]:
    """Sizes and costs alone; a user's own network is built once for its size, unless its cost is declared."""
    model, bundled = scenario.model, BUNDLED.get(scenario.model.network)
    if model.cost is not None:
        network = PhantomNetwork(model.cost.parameters, model.cost.flops)
    elif bundled is not None:
        network = PhantomNetwork(bundled.parameters(model.layers), bundled.flops_per_sample(model.layers))
    else:
        measured = real_parts(scenario, "cpu", shared=True)[0]
        network = PhantomNetwork(len(measured), measured.flops_per_sample)  # type: ignore[attr-defined]
    total = total_samples(scenario)
    samples = total - held_out_samples(total, scenario.data.held_out)
    return network, lambda _number, _life: PhantomMinibatches(batch_of(scenario)), samples


def total_samples(scenario: Scenario) -> int:
    """How many samples the source has, read from it only where that cannot be known otherwise."""
    if scenario.data.source == "digits":
        return DIGITS_SAMPLES
    if scenario.data.source == "synthetic":
        return scenario.data.samples
    from models import data as datasets

    try:
        data = datasets.load(scenario.data.source, scenario.data.held_out, scenario.seed)
    except InputError as error:
        raise complaint(scenario, "", str(error)) from error
    return len(data.train) + len(data.held_out)


def complaint(scenario: Scenario, path: str, message: str) -> ScenarioError:
    return ScenarioError([Mistake(scenario.file, path, message)])


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
        real = [(table, why_not(table)) for table in scenario.fault]
        given += [f"{told(index, table)} is not honoured by execctl: {why}" for index, (table, why) in enumerate(real) if why]
    return given
