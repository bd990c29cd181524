"""Modules of torch as graphs of layers: split over machines they compute what the module computes, or are refused by name."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from core.graph import Graph, GraphError, Node
from core.partitioning import Partitioned
from models.data import Batch
from models.errors import NetworkError
from models.graph_module import GraphModule
from models.importing import graph_of
from models.layers import Dense, Elementwise, Mean, Source
from models.losses import with_loss
from models.windows import Convolution
from tests.models.driver import run_partitioned
from tests.models.graphs import placements, spread

CLOSE, NOTHING = 1e-9, 1e-12


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # these tensors are small, and threads that wait for each other are slow
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(threads)


class Calls(nn.Module):
    """A module that does what a function says, with the submodules and parameters that it is given."""

    def __init__(self, does: Callable[[Any, torch.Tensor], Any], **has: Any) -> None:
        super().__init__()
        self.does = does
        for name, one in has.items():
            setattr(self, name, one)

    def forward(self, x: torch.Tensor) -> Any:
        return self.does(self, x)


class Block(nn.Module):
    """Of a residual network, as torchvision writes it."""

    def __init__(self, given: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(given, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None if stride == 1 else nn.Sequential(nn.Conv2d(given, channels, 1, stride), nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.layer1 = nn.Sequential(Block(3, 3))
        self.layer2 = nn.Sequential(Block(3, 4, 2))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer2(self.layer1(self.stem(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(7, 9), nn.Sigmoid(), nn.Identity(), nn.Linear(9, 6), nn.Dropout(0.0), nn.GELU(approximate="tanh"), nn.Linear(6, 5)
    )


def pools() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding="same"), nn.LeakyReLU(0.2), nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.ELU(), nn.MaxPool2d(2, 1),
        nn.Conv2d(4, 3, 2, 2, 1, bias=False), nn.AvgPool2d(2, 1, 1), nn.Flatten(), nn.SiLU(inplace=True), nn.Linear(27, 5),
    )  # fmt: skip


def functional_forms() -> nn.Module:
    def does(own: Any, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(own.conv(x), inplace=True)
        y = torch.add(y, functional.gelu(y)).add(y * 0.5 + 1)
        y = functional.max_pool2d(y.tanh(), 2, stride=1) - 0.25
        y = functional.avg_pool2d(torch.sigmoid(y), 2)
        y = y + y
        return own.out(y.view(y.size(0), -1)) + own.aside(x.mean((2, 3))) + own.outer(functional.adaptive_avg_pool2d(x, 1).flatten(1))

    return Calls(does, conv=nn.Conv2d(2, 3, 2), out=nn.Linear(27, 5), aside=nn.Linear(2, 5), outer=nn.Linear(2, 5))


def layer_norms() -> nn.Module:
    def does(own: Any, x: torch.Tensor) -> torch.Tensor:
        x = own.inside(x) * own.scale
        return own.out(own.norm(x.unflatten(1, (2, 4)).transpose(1, 2)).mean(1))

    return Calls(does, inside=nn.Linear(7, 8), scale=nn.Parameter(torch.rand(8)), norm=nn.LayerNorm(2), out=nn.Linear(2, 5))


def sequences() -> nn.Module:
    """Attention over what has no samples in its first dimension, and a recurrent network; embedded words."""

    def does(own: Any, x: torch.Tensor) -> torch.Tensor:
        x = own.words(x) + own.places
        y = x.transpose(0, 1)
        x = x + own.attention(y, y, y)[0].transpose(0, 1)
        x, _ = own.recurrent(x)
        return own.out(x[:, -1])

    return Calls(
        does, words=nn.Embedding(11, 4), places=nn.Parameter(torch.randn(6, 4)), attention=nn.MultiheadAttention(4, 2),
        recurrent=nn.LSTM(4, 3, batch_first=True), out=nn.Linear(3, 5),
    )  # fmt: skip


def heads() -> nn.Module:
    """Attention as it is written by hand: views of what `contiguous` has put in order, in the type that a parameter has."""

    def does(own: Any, x: torch.Tensor) -> torch.Tensor:
        samples, words, width = x.shape
        query, key, value = own.project(x.to(own.out.weight.dtype)).chunk(3, dim=-1)
        query, key, value = (one.view(samples, words, 2, width // 2).transpose(1, 2) for one in (query, key, value))
        found = (query @ key.transpose(-2, -1) / own.out.weight.size(1) ** 0.5).softmax(-1) @ value
        return own.out(found.transpose(1, 2).contiguous().view(samples, words, width).mean(1))

    return Calls(does, project=nn.Linear(4, 12), out=nn.Linear(4, 5))


def joined() -> nn.Module:
    """Tensors put together and cut, as densely connected and two-way networks do; a token that stands for all."""

    def does(own: Any, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([x, own.grow(x)], 1)
        x = torch.cat((own.last(x[:, 1:]), x, x[:, :2, :, :]), dim=1)
        one, other = x.chunk(2, 1)
        x = torch.cat([one, other, one], dim=-1).unflatten(1, (2, 2)).transpose(1, 2).flatten(1, 2)
        x = x.flatten(2).permute(2, 0, 1).transpose(0, 1)
        y = torch.cat([x.mean(1, keepdim=True), x], dim=1)
        part, rest = torch.split(y, (x.size(-1) // 4, 3), dim=-1)
        return own.out(torch.cat([y[:, 0], rest.narrow(1, 2, 3).flatten(1), part[:, -2]], -1))

    return Calls(does, grow=nn.Conv2d(2, 3, 3, padding=1), last=nn.Conv2d(4, 1, 1), out=nn.Linear(14, 5))


class Louder(nn.Conv2d):
    """Torch's own layer with more of one's own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def own_parameters() -> nn.Module:
    def does(own: Any, x: torch.Tensor) -> torch.Tensor:
        x = functional.conv2d(own.louder(x), own.filters, stride=2, padding="valid")
        return functional.linear(functional.linear(x.flatten(1), own.weight).relu(), weight=own.last, bias=own.bias)

    sizes = {"filters": (3, 4, 2, 2), "weight": (6, 27), "last": (5, 6), "bias": (5,)}
    return Calls(does, louder=Louder(2, 4, 3), **{name: nn.Parameter(torch.randn(size)) for name, size in sizes.items()})


def windows() -> nn.Module:
    """Of groups and single channels, with gaps, higher than wide, and over the border."""
    return nn.Sequential(
        nn.Conv2d(2, 4, (3, 1), padding=(1, 0), bias=False), nn.Conv2d(4, 4, 3, padding="same", dilation=2, groups=2),
        nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(4, 8, 3, (1, 2), padding=(2, 1), groups=4), nn.AvgPool2d((3, 2), 2, ceil_mode=True),
        nn.MaxPool2d((2, 1), 1, dilation=2), nn.AdaptiveAvgPool2d((None, 1)), nn.Conv2d(8, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(2, 5),
    )  # fmt: skip


class Mixing(nn.Module):
    """Of an MLP-Mixer, a layer: over patches, then over channels."""

    def __init__(self, patches: int, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels, bias=False)
        self.over_patches = nn.Sequential(nn.Linear(patches, 3), nn.GELU(), nn.Linear(3, patches))
        self.over_channels = nn.Sequential(nn.Linear(channels, 7, bias=False), nn.GELU(), nn.Linear(7, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.over_patches(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.over_channels(self.norm2(x))


def mixer() -> nn.Module:
    """And the end of a network whose channels come last."""

    def does(own: Any, x: torch.Tensor) -> torch.Tensor:
        x = own.mixing(own.patches(x).flatten(2).transpose(1, 2))
        y = own.norm(x.permute(0, 2, 1).unflatten(2, (2, 2)).permute(0, 2, 3, 1)).mean((1, 2), keepdim=True)
        return own.out(own.last(x).mean(1) + y.squeeze())

    return Calls(
        does, patches=nn.Conv2d(2, 6, 4, 4), mixing=Mixing(4, 6), norm=nn.LayerNorm((2, 6), elementwise_affine=False), last=nn.LayerNorm(6),
        out=nn.Linear(6, 5),
    )  # fmt: skip


def gated() -> nn.Module:
    """Channels weighed by what all of the image says, a gate between two paths, and products of other kinds."""

    def does(own: Any, x: torch.Tensor) -> torch.Tensor:
        x = own.conv(x)
        x = x * own.weigh(x.mean((2, 3))).sigmoid().view(x.size(0), 3, 1, 1)
        x = x * x.mean(1, keepdim=True).expand_as(x) - x.mean((-1, -2), True) / (x.square() + 1)
        x = x.flatten(1)
        gate = torch.sigmoid(own.gate(x))
        return own.out((gate * own.one(x)).add((1 - gate).mul_(own.other(x)), alpha=2))

    return Calls(
        does, conv=nn.Conv2d(2, 3, 3, 2), weigh=nn.Linear(3, 3), gate=nn.Linear(27, 6), one=nn.Linear(27, 6), other=nn.Linear(27, 6),
        out=nn.Linear(6, 5),
    )  # fmt: skip


IMAGE = (2, 8, 8)
MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], set[str]]] = {
    "mlp": (mlp, (7,), set()),
    "pools": (pools, IMAGE, set()),
    "residual": (Residual, IMAGE, set()),
    "functional": (functional_forms, IMAGE, set()),
    "layer norms": (layer_norms, (7,), set()),
    "windows": (windows, IMAGE, set()),
    "own parameters": (own_parameters, IMAGE, set()),
    "mixer": (mixer, IMAGE, set()),
    "gated": (gated, IMAGE, set()),
    "heads": (heads, (6, 4), set()),
    "joined": (joined, (2, 4, 4), set()),
    "sequences": (sequences, (6,), {"words", "attention", "recurrent"}),
}
"""What makes it, the shape of a sample, and which layers are kept whole."""
MADE: dict[str, tuple[nn.Module, Graph]] = {}


def minibatch(name: str, samples: int, seed: int) -> torch.Tensor:
    generator, shape = torch.Generator().manual_seed(seed), MODULES[name][1]
    if name == "sequences":
        return torch.randint(11, (samples, *shape), generator=generator)
    return torch.randn((samples, *shape), generator=generator, dtype=torch.float64)


def made(name: str) -> tuple[nn.Module, Graph]:
    """Imported once."""
    if name not in MADE:
        module = MODULES[name][0]()
        MADE[name] = module, graph_of(module, minibatch(name, 1, 0))
    return MADE[name]


@pytest.mark.parametrize("name", MODULES)
def test_whatever_is_kept_whole_is_told(name: str) -> None:
    _, graph = made(name)
    assert {note.split("'")[1] for note in graph.notes} == MODULES[name][2]


@pytest.mark.parametrize("name", MODULES)
@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), seed=st.integers(0, 2**32 - 1), order=st.randoms())
def test_an_imported_module_placed_anyhow_has_its_loss_its_gradient_and_its_outputs(
    name: str, data: st.DataObject, seed: int, order: random.Random
) -> None:
    module, graph = made(name)
    inputs, targets = minibatch(name, 3, seed), torch.tensor([4, 0, 1])
    outputs = module.train()(inputs)
    loss = functional.cross_entropy(outputs, targets)
    gradients = torch.autograd.grad(loss, list(module.parameters()))

    lossy = with_loss(graph, "cross-entropy")
    found = run_partitioned(Partitioned(lossy, data.draw(placements(lossy))), module.state_dict(), Batch(inputs, targets, 0), order)
    assert found.loss == pytest.approx(loss.item(), rel=CLOSE)
    assert set(found.gradients) == {key for key, _ in module.named_parameters()}
    for (key, _), gradient in zip(module.named_parameters(), gradients, strict=True):
        apart = float((found.gradients[key] - gradient).norm())
        assert apart <= CLOSE * float(gradient.norm()) + NOTHING, key

    above = run_partitioned(Partitioned(graph, data.draw(placements(graph))), module.state_dict(), Batch(inputs, targets, 0), down=False)
    (computed,) = above.outputs.values()
    torch.testing.assert_close(computed, outputs.detach(), rtol=CLOSE, atol=NOTHING)


def test_layers_are_named_as_their_modules_and_split_as_their_kinds() -> None:
    module, graph = made("residual")
    assert [f"{node.name}: {type(node.layer).__name__}" for node in graph] == [
        "inputs: Source",
        *("stem.0: Convolution", "stem.1: Normalised", "stem.2: Elementwise", "stem.3: Pool"),
        *("layer1.0.conv1: Convolution", "layer1.0.bn1: Normalised", "layer1.0.relu: Elementwise"),
        *("layer1.0.conv2: Convolution", "layer1.0.bn2: Normalised", "add: Add", "layer1.0.relu_1: Elementwise"),
        *("layer2.0.downsample.0: Convolution", "layer2.0.downsample.1: Normalised"),
        *("layer2.0.conv1: Convolution", "layer2.0.bn1: Normalised", "layer2.0.relu: Elementwise"),
        *("layer2.0.conv2: Convolution", "layer2.0.bn2: Normalised", "add_1: Add", "layer2.0.relu_1: Elementwise"),
        *("avgpool: Mean", "fc: Dense"),
    ]
    assert {node.key(weight) for node in graph for weight in node.weights} == {key for key, _ in module.named_parameters()}
    assert graph.parameters == sum(parameter.numel() for parameter in module.parameters())


def test_importing_leaves_the_module_and_torchs_stream_as_they_were() -> None:
    module = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten(), nn.LayerNorm(108), nn.Linear(108, 5)
    ).eval()
    before, stream = {key: value.clone() for key, value in module.state_dict().items()}, torch.get_rng_state()
    graph_of(module, torch.ones(2, *IMAGE))
    assert torch.equal(stream, torch.get_rng_state())
    assert not module[2].training
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_what_is_not_trained_is_a_constant() -> None:
    module = nn.Sequential(nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 5))
    module[0].weight.requires_grad_(False)
    module.register_buffer("shift", torch.randn(7))
    shifted = Calls(lambda own, x: own.inner(x + own.inner.shift), inner=module)
    graph = graph_of(shifted, torch.randn(2, 7))
    assert {node.key(weight) for node in graph for weight in node.weights} == {"inner.0.bias", "inner.2.weight", "inner.2.bias"}
    assert [note.split(": ")[1] for note in graph.notes] == ["add is none of the kinds that can be split", "its weight is not trained"]
    whole = GraphModule(graph)
    whole.load_state_dict({key: value for key, value in shifted.named_parameters() if value.requires_grad})
    inputs = torch.randn(3, 7)
    torch.testing.assert_close(whole(inputs), shifted(inputs))


class PartlyInEvaluation(nn.Sequential):
    """Whoever goes on with a trained network keeps its statistics so."""

    def train(self, mode: bool = True) -> PartlyInEvaluation:
        super().train(mode)
        for layer in list(self)[1:3]:
            layer.eval()
        return self


def test_what_the_module_leaves_in_evaluation_is_computed_as_there() -> None:
    module = PartlyInEvaluation(nn.Linear(7, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 5))
    nn.init.uniform_(module[1].running_mean)
    graph = graph_of(module, torch.randn(2, 7))
    assert graph.notes == ["layer '1' is kept whole: its train() leaves it in evaluation, with the statistics that it has"]
    whole = GraphModule(graph)
    whole.load_state_dict(dict(module.named_parameters()))
    inputs = torch.randn(3, 7)
    torch.testing.assert_close(whole(inputs), module.train()(inputs))


def test_a_module_that_is_called_as_a_method_of_tensors_is_still_a_module() -> None:
    graph = graph_of(Calls(lambda own, x: own.flatten(own.clone(x)), clone=linear(), flatten=linear()), torch.randn(2, 7))
    assert [type(node.layer) for node in graph] == [Source, Dense, Dense]


def test_further_arguments_that_need_not_come_do_not_matter() -> None:
    class Lenient(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = linear()

        def forward(self, x: torch.Tensor, mask: Any = None, *rest: Any, scale: float = 2.0, **more: Any) -> torch.Tensor:
            return self.a(x) * scale if mask is None else x

    assert [node.name for node in graph_of(Lenient(), torch.randn(2, 7))] == ["inputs", "a", "mul"]


def test_numbers_that_follow_from_shapes_are_constants_and_others_are_not() -> None:
    def does(own: Any, x: torch.Tensor) -> torch.Tensor:
        x = own.a(x) / x.size(1) ** 0.5 * x.max().item() + x.size(0) // 8
        return own.b(x * x.shape[-1] + x.dim() + x.sum(0).tolist()[0])

    module = Calls(does, a=linear(), b=linear())
    graph = graph_of(module, torch.ones(4, 7))
    assert [note.split("'")[1] for note in graph.notes] == ["mul", "add", "add_2"]
    whole = GraphModule(graph)
    whole.load_state_dict(module.state_dict())
    inputs = torch.randn(9, 7)
    torch.testing.assert_close(whole(inputs), module(inputs))


def test_an_operation_in_place_changes_nothing_of_the_layers_before_it() -> None:
    module = Calls(lambda own, x: own.a(x).mul_(own.scale).add_(1).tanh(), a=linear(), scale=nn.Parameter(torch.rand(7)))
    graph = graph_of(module, torch.randn(2, 7))
    batch = Batch(torch.randn(3, 7), torch.tensor([0, 1, 4]), 0)
    lossy = with_loss(graph, "cross-entropy")
    found = run_partitioned(Partitioned(lossy, spread(lossy, 3)), module.state_dict(), batch)
    wanted = torch.autograd.grad(functional.cross_entropy(module(batch.inputs), batch.targets), list(module.parameters()))
    for (key, _), gradient in zip(module.named_parameters(), wanted, strict=True):
        torch.testing.assert_close(found.gradients[key], gradient)


def test_a_layer_kept_whole_has_its_buffers_as_they_were_however_often_it_is_computed() -> None:
    def counts_its_calls(own: Any, x: torch.Tensor) -> torch.Tensor:
        if x.sum() == x.sum():
            own.count += 1
        return x + own.count

    whole = Calls(counts_its_calls, count=nn.Buffer(torch.zeros(1)))
    module = GraphModule(graph_of(nn.Sequential(whole, linear()), torch.randn(2, 7)))
    inputs = torch.randn(3, 7)
    wanted = functional.linear(inputs + 1, *module.state_dict().values())
    for _ in range(2):
        torch.testing.assert_close(module(inputs), wanted)
    assert float(whole.count) == 0


def test_dropout_is_drawn_for_all_of_a_layer_and_its_gradient_is_of_what_was_drawn() -> None:
    module = nn.Sequential(nn.Linear(7, 40), nn.Dropout(0.5), nn.Linear(40, 5))
    graph = graph_of(module, torch.randn(2, 7))
    assert graph.notes == ["layer '1' is kept whole: it draws random numbers, for all of it at once"]
    batch = Batch(torch.randn(3, 7), torch.tensor([0, 1, 4]), 3)
    partitioned = Partitioned(with_loss(graph, "cross-entropy"), spread(with_loss(graph, "cross-entropy"), 3))
    one, other = (run_partitioned(partitioned, module.state_dict(), batch, order) for order in (None, random.Random(0)))
    assert torch.equal(one.flat, other.flat)
    unseen, unmoved = (one.gradients["2.weight"] == 0).all(0), (one.gradients["0.weight"] == 0).all(1)
    assert 0 < int(unseen.sum()) < 40, "each of three samples drops a unit one time in two"
    assert torch.equal(unseen, unmoved)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(
    ("layer", "shape", "why"),
    [
        (nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"), IMAGE, "a convolution padded by 'circular' is not split"),
        (nn.Conv2d(2, 4, (3, 2), padding="same"), IMAGE, "padded more behind than before"),
        (nn.AvgPool2d(3, 2, 1, ceil_mode=True), IMAGE, "ceil_mode"),
        (nn.AvgPool2d(2, divisor_override=3), IMAGE, "a divisor of its own"),
        (nn.AdaptiveAvgPool2d(3), IMAGE, "where its windows are all of one size"),
        (nn.GroupNorm(1, 2), IMAGE, "GroupNorm is none of the kinds"),
        (nn.LayerNorm(IMAGE), IMAGE, "a LayerNorm of all dimensions together is not split"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(7, 6)), (7,), "ParametrizedLinear is none of the kinds"),
        (nn.Softmax(1), IMAGE, "a Softmax over the first dimension is not split"),
        (nn.PReLU(), (7,), "PReLU is none of the kinds"),
    ],
    ids=lambda given: given if isinstance(given, str) else type(given).__name__,
)
def test_what_cannot_be_split_is_kept_whole_with_the_reason(layer: nn.Module, shape: tuple[int, ...], why: str) -> None:
    layer.double()
    graph = graph_of(nn.Sequential(layer, nn.Flatten(), nn.Tanh()), torch.randn(2, *shape))
    (note,) = graph.notes
    assert note.startswith("layer '0' is kept whole: ")
    assert why in note


def test_a_submodule_whose_course_depends_on_values_is_kept_whole() -> None:
    branching = Calls(lambda own, x: own.inside(x) if x.sum() > 0 else -own.inside(x), inside=nn.Linear(6, 6))
    graph = graph_of(nn.Sequential(nn.Linear(7, 6), branching, nn.Linear(6, 5)), torch.randn(2, 7))
    (note,) = graph.notes
    assert note.startswith("layer '1' is kept whole: it cannot be traced (TraceError: symbolically traced variables")
    assert f"of {__file__}" in note
    assert graph["1"].keys == {key: key for key in ("1.inside.weight", "1.inside.bias")}


def in_place_and_again(own: Any, x: torch.Tensor) -> torch.Tensor:
    y = own.a(x)
    return y.relu_() + y


def behind_the_trace(own: Any, x: torch.Tensor) -> torch.Tensor:
    y = own.a(x)
    z = y
    z += 1
    return z * y


def unseen(own: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        y = own.a(x)
    return x * y


def counts(own: Any, x: torch.Tensor) -> torch.Tensor:
    return own.a(x) + own.count.add_(1)


def linear() -> nn.Linear:
    return nn.Linear(7, 7)


def tied() -> nn.Module:
    one, other = linear(), linear()
    other.weight = one.weight
    return nn.Sequential(one, nn.Tanh(), other)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (
            lambda: Calls(lambda own, x: own.a(x) if x.sum() > 0 else x, a=linear()),
            r"control flow \(line \d+ of .*test_importing.py\); allowed: a forward",
        ),
        (lambda: Calls(lambda own, x: own.a(own.a(x)), a=linear()), "parameter 'a.weight' is used by layers 'a' and 'a_1'"),
        (tied, "parameter '0.weight' is used by layers '0' and '2'"),
        (lambda: Calls(lambda own, x: own.a(x), a=linear(), b=linear()), r"parameter 'b.weight' \(and 1 more\) is used by no layer"),
        (
            lambda: Calls(in_place_and_again, a=linear()),
            "operation 'relu_' changes the output of layer 'a' in place, and operation 'add' takes",
        ),
        (lambda: Calls(behind_the_trace, a=linear()), "its layers compute something else than Calls does"),
        (lambda: Calls(counts, a=linear(), count=nn.Buffer(torch.zeros(1))), "operation 'add_' changes 'count' in place"),
        (lambda: Calls(lambda own, x: (own.a(x), x), a=linear()), "returns a tuple; allowed: a tensor"),
        (lambda: Calls(lambda own, x: own.a(x).mean(), a=linear()), r"returns torch.float64 of shape \(\) for 3 samples"),
        (lambda: Calls(lambda own, x: own.a(x).argmax(1), a=linear()), r"returns torch.int64"),
        (lambda: Calls(lambda own, x: x, a=linear()), "returns what it is given"),
        (lambda: nn.Sequential(nn.Linear(8, 7)), r"layer '0' does not take inputs of shape \(2, 7\): RuntimeError"),
        (
            lambda: Calls(lambda own, x: own.a(x).view(4, 7), a=linear()),
            "operation 'view' does not take .* allowed: minibatches of any size",
        ),
        (lambda: nn.DataParallel(linear()), "DataParallel hides the module that it was made of; allowed: that one"),
        (lambda: torch.compile(linear(), backend="eager"), "OptimizedModule hides the module"),
        (lambda: Calls(unseen, a=linear()), r"or torch.no_grad\(\); allowed: operations that return what they compute, and detach"),
        (lambda: nn.LazyLinear(3), "parameter 'weight' has no shape yet"),
        (lambda: nn.Bilinear(7, 7, 3), "the module takes input1, input2; allowed: one tensor"),
    ],
)
def test_what_cannot_be_a_graph_is_refused_by_name(make: Callable[[], nn.Module], why: str) -> None:
    with pytest.raises(NetworkError, match=why):
        graph_of(make(), torch.randn(4, 7))


def test_a_graph_runs_as_a_module_and_has_the_keys_of_the_layers() -> None:
    """Names that a module has for itself included."""
    graph = with_loss(
        Graph(
            [
                Node("inputs", Source((1, 8, 8))),
                Node("train", Convolution(3, 3), "inputs"),
                Node("block.half", Mean(), "train"),
                Node("graph.relu", Elementwise("relu"), "block.half"),
                Node("graph", Dense(4, bias=False), "graph.relu", keys={"weight": "head.weight"}),
            ]
        ),
        "cross-entropy",
    )
    torch.manual_seed(5)
    module, again = GraphModule(graph), None
    assert list(module.state_dict()) == ["train.weight", "train.bias", "head.weight"]
    torch.manual_seed(5)
    again = GraphModule(graph)
    assert all(torch.equal(value, module.state_dict()[key]) for key, value in again.state_dict().items())
    inputs = torch.randn(5, 1, 8, 8)
    state = module.state_dict()
    wanted = functional.conv2d(inputs, state["train.weight"], state["train.bias"]).mean((2, 3)).relu() @ state["head.weight"].T
    torch.testing.assert_close(module(inputs), wanted)
    torch.testing.assert_close(module(inputs.flatten(1)), wanted)
    with pytest.raises(GraphError, match="inputs of 63; the graph takes 1x8x8"):
        module(inputs.flatten(1)[:, :63])
    with pytest.raises(GraphError, match="the outputs a, b apart from its loss"):
        GraphModule(Graph([Node("x", Source((3,))), Node("a", Dense(2), "x"), Node("b", Dense(2), "x")]))
