"""The bundled networks: sizes as published, one description for the simulator and for torch, and the same sums however they are split."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional

from core.graph import Graph
from core.partitioning import Partitioned
from models import data as datasets
from models.catalogue import BUNDLED, DIGITS_CLASSES, DIGITS_INPUTS
from models.errors import DataError
from models.image import Image
from models.torch_network import TorchNetwork, build, made_from, one_against_all
from scenarios.load import validate
from scenarios.plan import plan

WIDTHS = {"mlp": (64, 32, 10)}
"""Of those whose widths a scenario gives."""

PUBLISHED = {"speech": 42e6, "image-80m": 80e6, "image-330m": 330e6, "image-1.7b": 1.7e9}


def graph(name: str) -> Graph:
    return BUNDLED[name].graph(WIDTHS.get(name))


def spread_out(whole: Graph, machines: int) -> Partitioned:
    """Each layer over as many of them as it can be split for."""
    places = {
        node.name: tuple(range(min(machines, node.layer.most_parts(node.at)))) for node in whole if not node.layer.source
    }  # fmt: skip
    return Partitioned(whole, places)


# sizes


def test_speech_has_exactly_the_parameters_of_the_paper() -> None:
    assert graph("speech").parameters == BUNDLED["speech"].parameters() == 41_777_152


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_network_of_the_paper_is_as_large_as_it_says(name: str) -> None:
    assert graph(name).parameters == pytest.approx(PUBLISHED[name], rel=0.02)


def test_sizes_of_the_image_networks_are_frozen() -> None:
    """Chosen before any speed-up was looked at; whoever changes them has to fit nothing to them."""
    assert {name: graph(name).parameters for name in PUBLISHED if name.startswith("image")} == {
        "image-80m": 81_004_120, "image-330m": 334_262_440, "image-1.7b": 1_699_944_240,
    }  # fmt: skip


@pytest.mark.parametrize("name", [name for name, network in BUNDLED.items() if isinstance(network, Image)])
def test_an_image_network_is_what_the_paper_says_of_it(name: str) -> None:
    """Three stages over patches of 10 x 10 with 8 to 36 filters each; most of it is in the filters; no place is pooled by nobody."""
    whole, network = graph(name), BUNDLED[name]
    assert isinstance(network, Image)
    assert (network.inputs(), network.classes(), network.loss) == ((1, 100, 100), 21_000, "logistic")
    assert 8 <= network.filters <= 36
    assert whole["classes"].parameters < whole.parameters / 4
    places = whole["filters-3"].at.output[1]
    assert (places - network.last_window) % network.last_stride == 0
    assert network.last_window >= network.last_stride


@pytest.mark.parametrize("name", BUNDLED)
def test_its_cost_is_that_of_its_graph(name: str) -> None:
    """But for what is done with each element, where a network is fully connected."""
    network, whole = BUNDLED[name], graph(name)
    assert network.parameters(WIDTHS.get(name)) == whole.parameters
    assert network.flops_per_sample(WIDTHS.get(name)) == pytest.approx(whole.flops, rel=0.01)
    assert (network.inputs(WIDTHS.get(name)), network.classes(WIDTHS.get(name))) == (whole["inputs"].at.output, *whole["classes"].at.output)


# the same in torch


@pytest.mark.parametrize("name", ["mlp", "speech", "local", "image-80m"])
def test_the_module_has_the_state_that_the_graph_names(name: str) -> None:
    with torch.device("meta"):
        state = build(BUNDLED[name], WIDTHS.get(name)).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == {
        node.key(weight): shape for node in graph(name) for weight, shape in node.weights.items()
    }


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Several are a hundred times slower where others keep the cores busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_local_networks_learn_the_digits() -> None:
    given = datasets.load("digits", 0.2, 0)
    network = TorchNetwork(made_from(0, lambda: build(BUNDLED["local"], None)), given)
    assert BUNDLED["local"].inputs() == (1, 8, 8)
    parameters = network.initial()
    minibatches = datasets.ReplicaMinibatches(given.train, 0, 1, 32, 0, 0)
    for step in range(250):
        parameters.add_(network.gradient(parameters, minibatches.minibatch(step)).run().vector, alpha=-0.2)
    accuracy = network.evaluate(parameters).run().accuracy
    assert accuracy is not None
    assert accuracy >= 0.95


# split


@pytest.mark.parametrize(
    ("name", "machines"), [*((name, machines) for name in BUNDLED for machines in (1, 2, 3, 5, 8)), ("image-1.7b", 81)]
)
def test_however_it_is_split_it_is_as_large_and_as_much_work(name: str, machines: int) -> None:
    whole = graph(name)
    parts = spread_out(whole, machines)
    assert sum(parts.sizes) == whole.parameters
    assert sum(map(parts.flops_of, range(parts.machines))) == pytest.approx(whole.flops, rel=1e-12)
    assert parts.machines == machines


def test_most_work_of_the_largest_network_needs_little_from_elsewhere() -> None:
    """On 81 machines a part of filters hears from its neighbours alone, a part of the classes from all."""
    parts = spread_out(graph("image-1.7b"), 81)
    heard: dict[str, list[int]] = {}
    for placed in parts.parts:
        takes = [take for region in placed.inputs if region is not None for take in region]
        heard.setdefault(placed.node.name, []).append(len({take.message for take in takes} - {None}))
    assert max(heard["filters-2"] + heard["filters-3"]) <= 24
    assert heard["classes"] == [80] * 81


# in scenarios


def test_sizes_are_known_without_torch() -> None:
    """Timing-only runs start at once."""
    code = (
        "import sys; from models.catalogue import BUNDLED; import scenarios.plan\n"
        "assert [n.graph((4, 3) if n.layered else None) for n in BUNDLED.values()] and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, env={"PYTHONPATH": ":".join(filter(None, sys.path))})


def test_the_cost_of_a_network_can_be_declared_by_its_name() -> None:
    scenario, mistakes = validate({"model": {"network": "local", "cost": "image-1.7b"}, "protocol": STOPS}, "test")
    assert scenario is not None, mistakes
    assert scenario.model.cost is not None
    assert scenario.model.cost.parameters == BUNDLED["image-1.7b"].parameters()
    assert scenario.model.cost.flops == BUNDLED["image-1.7b"].flops_per_sample()
    made = plan(scenario)
    assert made.payload_scale == pytest.approx(BUNDLED["image-1.7b"].parameters() / BUNDLED["local"].parameters())


def test_a_network_whose_size_is_not_known_is_no_cost() -> None:
    _, mistakes = validate({"model": {"network": "local", "cost": "mlp"}, "protocol": STOPS}, "test")
    assert [(m.path, m.message.split("allowed: ")[1].split(",")[:2]) for m in mistakes] == [("model.cost", ["speech", " image-80m"])]


STOPS = {"kind": "downpour", "stop": {"updates": 2}}


@pytest.mark.parametrize("name", [name for name in BUNDLED if name != "mlp"])
@pytest.mark.parametrize("partitions", [1, 4])
def test_every_network_can_be_timed(name: str, partitions: int) -> None:
    tables = {
        "numerics": "timing", "model": {"network": name, "partitions": partitions}, "data": {"source": "synthetic"}, "protocol": STOPS | {"shards": 4},
    }  # fmt: skip
    scenario, mistakes = validate(tables, "test")
    assert scenario is not None, mistakes
    made = plan(scenario)
    assert len(made.network) == BUNDLED[name].parameters()
    assert made.partitioned is None or made.partitioned.graph.loss is not None
    assert made.partitioned is None or (made.partitioned.graph.loss.name == BUNDLED[name].loss)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("model", "path", "message"),
    [
        ({"network": "image-80m"}, "data.source", "found 'digits'; digits have 64 inputs and 10 classes, 'image-80m' takes 1x100x100 and has 21,000"),
        ({"network": "local", "layers": [64, 10]}, "model.layers", "'local' has its own; allowed: for mlp and speech"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(model: dict[str, object], path: str, message: str) -> None:
    _, mistakes = validate({"model": model, "protocol": STOPS}, "test")
    assert [m.path for m in mistakes] == [path]
    assert message in mistakes[0].message


def test_synthetic_samples_have_the_shape_of_the_network() -> None:
    made = datasets.load("synthetic", 0.5, 0, (4, BUNDLED["image-80m"], None))
    inputs, targets = made.train.pick(torch.arange(2))
    assert inputs.shape == (2, 1, 100, 100)
    assert targets.shape == (2,)


# one against all


def test_the_logistic_loss_is_the_sum_over_the_classes_of_their_own() -> None:
    outputs, targets = torch.randn(5, 7, dtype=torch.float64), torch.tensor([0, 6, 3, 3, 1])
    naive = sum(
        functional.softplus(outputs[sample, label]) - (outputs[sample, label] if label == targets[sample] else 0.0)
        for sample in range(5) for label in range(7)
    ) / 5  # fmt: skip
    assert torch.allclose(one_against_all(outputs, targets), torch.as_tensor(naive))


def test_the_logistic_loss_can_be_wanted_of_any_module_and_needs_classes() -> None:
    given = datasets.load("digits", 0.2, 0)
    module = torch.nn.Linear(DIGITS_INPUTS, DIGITS_CLASSES)
    network = TorchNetwork(module, given, loss="logistic")
    batch = datasets.ReplicaMinibatches(given.train, 0, 1, 8, 0, 0).minibatch(0)
    found = network.gradient(network.initial(), batch).run()
    assert found.loss == pytest.approx(one_against_all(module(batch.inputs), batch.targets).item())
    inputs, targets = given.train.pick(torch.arange(8))
    real = datasets.TensorDataset(inputs, targets.float())
    some = datasets.Samples(real, torch.arange(8))
    with pytest.raises(DataError, match="logistic needs one whole number"):
        TorchNetwork(torch.nn.Linear(math.prod(inputs.shape[1:]), 1), datasets.Data(some, some), loss="logistic")
