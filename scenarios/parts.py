"""The network, the data and what they cost, from a scenario: for real, by sizes and costs alone, or in exact numbers.

Torch is imported only where numbers are more than sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from core.graph import Graph, GraphError
from core.job import Job, replica_name
from core.shard import Shard
from core.vector import BYTES_OF_FLOAT32
from core.work import Minibatches, Network, NoPortions, Portioned
from models.catalogue import BUNDLED, DIGITS_SAMPLES, held_out_samples
from models.errors import InputError, NetworkError, UserCodeError
from models.phantom_network import PhantomMinibatches, PhantomNetwork, PhantomPortions
from models.tally import MarkedMinibatches, TallyNetwork
from scenarios.load import Mistake, ScenarioError
from scenarios.protocols import Downpour, MapReduce, Sandblaster, Synchronous, WarmStart
from scenarios.schema import Scenario

if TYPE_CHECKING:
    from models.torch_network import TorchNetwork

Numerics = Literal["real", "timing", "exact"]


@dataclass(slots=True)
class Parts:
    """What a job learns, and from what."""

    network: Network
    data: Callable[[int, int], Minibatches]
    """Replica's number and life -> its minibatches."""
    training_samples: int
    parameters: int = 0
    """That shards share, if these are not the network's own."""
    portions: Callable[[], Portioned] = field(default=NoPortions)
    """Of Sandblaster's batch."""
    payload_scale: float = 1.0
    """Declared bytes for each byte of a real vector."""
    watched: Callable[[type[Shard], Job], type[Shard]] = lambda kind, _: kind
    """A shard that looks at what it does, where numbers are such that it can."""


def parts(scenario: Scenario, numerics: Numerics, device: str = "cpu", *, shared: bool = False) -> Parts:
    """Raises ScenarioError for whatever of the user's does not fit."""
    if numerics == "real":
        return real_parts(scenario, device, shared)
    return exact_parts(scenario) if numerics == "exact" else phantom_parts(scenario)


def descent_of(scenario: Scenario) -> Downpour | WarmStart | Synchronous | None:
    """What its replicas descend by on minibatches, if they do."""
    protocol = scenario.protocol
    return protocol.warmstart if isinstance(protocol, Sandblaster) else protocol


def batch_of(scenario: Scenario) -> int:
    """Samples of a minibatch; 1 where there are none."""
    descent = descent_of(scenario)
    return 1 if descent is None else descent.batch


def batch_of_portions(scenario: Scenario, training_samples: int) -> int:
    """How many samples Sandblaster's batch has.  Raises ScenarioError where some portion would have none."""
    protocol = scenario.protocol
    assert isinstance(protocol, Sandblaster)
    samples = max(1, round(protocol.fraction * training_samples))
    if samples < protocol.portions:
        raise complaint(scenario, "protocol.portions", f"found {protocol.portions}; the batch has {samples} samples to share")
    return samples


def real_parts(scenario: Scenario, device: str, shared: bool) -> Parts:
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
    except (InputError, GraphError) as error:
        raise complaint(scenario, "model.network" if isinstance(error, GraphError) else "", str(error)) from error

    def minibatches(number: int, life: int) -> Minibatches:
        return datasets.ReplicaMinibatches(data.train, number, protocol.all_replicas, batch_of(scenario), scenario.seed, life)

    found = Parts(network, minibatches, len(data.train))
    if model.cost is not None:
        found.payload_scale = model.cost.parameters * BYTES_OF_FLOAT32 / network.initial().nbytes
    if isinstance(protocol, Sandblaster):
        samples, count = batch_of_portions(scenario, len(data.train)), protocol.portions
        kept = 0 if isinstance(protocol, MapReduce) else 2 * -(-count // protocol.replicas)
        found.portions = lambda: datasets.TrainingPortions(data.train, samples, count, scenario.seed, kept)
    return found


def users(scenario: Scenario, reference: str, key: str) -> Any:
    """Something of the user's own code.  Raises ScenarioError."""
    from models import user

    try:
        return user.find(reference, key)
    except InputError as error:
        raise complaint(scenario, "", str(error)) from error


def load_start(network: TorchNetwork, source: str) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(source)
    except (OSError, SafetensorError) as error:
        raise NetworkError(f"model.start = {source!r}: cannot be read: {error}") from None
    network.load_state_dict(state, source)


def phantom_parts(scenario: Scenario) -> Parts:
    """Sizes and costs alone; a user's own network is built once for its size, unless its cost is declared."""
    model, protocol, bundled = scenario.model, scenario.protocol, BUNDLED.get(scenario.model.network)
    if model.cost is not None:
        network = PhantomNetwork(model.cost.parameters, model.cost.flops)
    elif bundled is not None:
        network = PhantomNetwork(bundled.parameters(model.layers), bundled.flops_per_sample(model.layers))
    else:
        measured = real_parts(scenario, "cpu", shared=True).network
        network = PhantomNetwork(len(measured), measured.flops_per_sample)  # type: ignore[attr-defined]
    total = total_samples(scenario)
    found = Parts(
        network, lambda _number, _life: PhantomMinibatches(batch_of(scenario)), total - held_out_samples(total, scenario.data.held_out)
    )
    if isinstance(protocol, Sandblaster):
        samples, count = batch_of_portions(scenario, found.training_samples), protocol.portions
        found.portions = lambda: PhantomPortions(samples, count)
    return found


def exact_parts(scenario: Scenario) -> Parts:
    """What costs the same, and counts: a tally of gradients for Downpour, parabolas on a grid for all others.

    Each minibatch and each portion is one sample.
    """
    phantom, protocol = phantom_parts(scenario), scenario.protocol
    assert isinstance(phantom.network, PhantomNetwork)
    flops, parameters = phantom.network.flops_per_sample, len(phantom.network)
    steps = max(1, phantom.training_samples // batch_of(scenario))
    if isinstance(protocol, Downpour):
        tally = TallyNetwork(flops * protocol.batch)
        return Parts(tally, lambda number, life: MarkedMinibatches(replica_name(number), life), steps, parameters)
    if scenario.model.partitions > 1:
        raise complaint(scenario, "numerics", "found 'exact'; of split replicas only Downpour's can be counted; allowed: 'timing', 'real'")
    from models import parabolas

    width = protocol.shards * -(-parabolas.LEAST_WIDTH // protocol.shards)
    if isinstance(protocol, Synchronous):
        network = parabolas.Parabolas(width, flops * protocol.batch)
        found = Parts(network, lambda number, _: parabolas.OwnMinibatch(number), steps)
    else:
        count = protocol.portions
        network = parabolas.Parabolas(width, flops * batch_of_portions(scenario, phantom.training_samples) / count)
        found = Parts(network, lambda number, _: parabolas.SharedMinibatches(number, count), count)
        found.portions = parabolas.NumberedPortions
    found.payload_scale = parameters * BYTES_OF_FLOAT32 / network.initial().nbytes
    found.watched = lambda kind, job: parabolas.watched(kind, network, job)
    return found


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
