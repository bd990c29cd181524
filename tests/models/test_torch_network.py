"""Any module as one flat vector: its gradient is autograd's, its saved model is the plain module's."""

from __future__ import annotations

import copy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from models.catalogue import BUNDLED
from models.data import Batch, Data, Samples
from models.errors import DataError, NetworkError
from models.phantom_network import PhantomMinibatches, PhantomNetwork
from models.torch_network import TorchNetwork, build, made_from

INPUTS, CLASSES, COUNT = 6, 3, 40


def data(
    targets: torch.Tensor | None = None, *, train: int = 30, inputs: torch.Tensor | None = None, dtype: torch.dtype = torch.float32
) -> Data:
    generator = torch.Generator().manual_seed(0)
    x = inputs if inputs is not None else torch.randn(COUNT, INPUTS, generator=generator, dtype=dtype)
    y = targets if targets is not None else torch.randint(CLASSES, (len(x),), generator=generator)
    dataset, every = TensorDataset(x, y), torch.arange(len(x))
    return Data(Samples(dataset, every[:train]), Samples(dataset, every[train:]))


def some(data: Data, count: int = 7, seed: int = 5) -> Batch:
    return Batch(*data.train.pick(torch.arange(count)), seed)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(INPUTS, 5), nn.Tanh(), nn.Linear(5, CLASSES))


class Frozen(nn.Module):
    """Its first layer is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(INPUTS, 5), nn.Linear(5, CLASSES)
        self.first.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.first(x)))  # type: ignore[no-any-return]


class Tied(nn.Module):
    """Two layers share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.Linear(INPUTS, INPUTS), nn.Linear(INPUTS, INPUTS), nn.Linear(INPUTS, CLASSES)
        self.two.weight = self.one.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.two(torch.tanh(self.one(x)))))  # type: ignore[no-any-return]


class Unused(nn.Module):
    """A parameter that no output depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.idle, self.last = nn.Parameter(torch.ones(4)), nn.Linear(INPUTS, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(x)  # type: ignore[no-any-return]


def transposed() -> nn.Module:
    """A parameter that does not lie in one piece."""
    module = mlp()
    module[0].weight = nn.Parameter(torch.randn(INPUTS, 5).t())  # type: ignore[index,union-attr]
    return module


def convolved() -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (1, INPUTS)), nn.Conv1d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * (INPUTS - 2), CLASSES))


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(INPUTS, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, CLASSES))


def dropped() -> nn.Module:
    return nn.Sequential(nn.Linear(INPUTS, 16), nn.Dropout(0.5), nn.Linear(16, CLASSES))


ALL = [mlp, Frozen, Tied, Unused, transposed, convolved, normalised, dropped]
each_module = pytest.mark.parametrize("make", ALL, ids=lambda make: make.__name__)


def trained(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]


def flat(tensors: list[Any]) -> torch.Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


# gradients


@each_module
def test_the_gradient_is_autograd_s_on_the_plain_module(make: Any) -> None:
    given = data()
    plain = made_from(1, make)
    network = TorchNetwork(copy.deepcopy(plain), given)
    assert torch.equal(network.initial(), flat(trained(plain)))
    batch = some(given)
    for _ in range(2):  # the second time there are gradients of the first to be forgotten
        gradient = network.gradient(network.initial(), batch).run()
    plain.train()
    torch.manual_seed(batch.seed)
    loss = functional.cross_entropy(plain(batch.inputs), batch.targets)
    expected = torch.autograd.grad(loss, trained(plain), allow_unused=True)
    wanted = flat([torch.zeros_like(p) if g is None else g for p, g in zip(trained(plain), expected, strict=True)])
    torch.testing.assert_close(gradient.vector, wanted, rtol=1e-6, atol=1e-8)
    assert gradient.loss == pytest.approx(loss.item(), rel=1e-6)
    assert gradient.samples == len(batch.inputs)


def test_the_gradient_is_taken_at_the_parameters_that_are_given() -> None:
    given = data()
    network, batch = TorchNetwork(made_from(1, mlp), given), some(given)
    here, there = network.initial(), network.initial() + 1
    first = network.gradient(here, batch).run().vector.clone()
    second = network.gradient(there, batch).run().vector.clone()
    assert not torch.equal(first, second)
    assert torch.equal(network.gradient(here, batch).run().vector, first)
    assert torch.equal(here, network.initial())


def test_replicas_that_share_a_network_have_gradients_of_their_own() -> None:
    given = data()
    network = TorchNetwork(made_from(1, mlp), given, shared=True)
    first = network.gradient(network.initial(), some(given, 7)).run().vector
    before = first.clone()
    network.gradient(network.initial() + 1, some(given, 9)).run()
    assert torch.equal(first, before)


def test_initial_parameters_are_the_caller_s_own() -> None:
    network = TorchNetwork(made_from(1, mlp), data())
    network.initial().fill_(7)
    assert not bool((network.initial() == 7).any())


def test_dropout_depends_on_the_minibatch_alone() -> None:
    given = data()
    network = TorchNetwork(made_from(1, dropped), given)

    def gradient(seed: int) -> torch.Tensor:
        return network.gradient(network.initial(), some(given, seed=seed)).run().vector.clone()

    first = gradient(1)
    torch.randn(100)
    assert torch.equal(gradient(1), first)
    assert not torch.equal(gradient(2), first)


def test_frozen_parameters_are_left_alone() -> None:
    given = data()
    module = made_from(1, Frozen)
    before = module.first.weight.clone()
    network = TorchNetwork(module, given)
    assert len(network) == 5 * CLASSES + CLASSES
    network.gradient(network.initial() + 1, some(given)).run()
    network.evaluate(network.initial() + 2).run()
    assert torch.equal(module.first.weight, before)
    assert torch.equal(network.state_dict(network.initial() + 3)["first.weight"], before)


def test_float64_modules_are_trained_in_float64_on_data_of_either_type() -> None:
    for dtype in (torch.float32, torch.float64):
        given = data(dtype=dtype)
        network = TorchNetwork(made_from(1, mlp).double(), given)
        gradient = network.gradient(network.initial(), some(given)).run()
        assert network.initial().dtype == gradient.vector.dtype == torch.float64
        network.evaluate(network.initial()).run()


# evaluation and saved models


def test_quality_is_loss_and_accuracy_on_the_held_out_data() -> None:
    given = data()
    plain = made_from(1, dropped)
    network = TorchNetwork(copy.deepcopy(plain), given)
    inputs, targets = given.held_out.pick(torch.arange(len(given.held_out)))
    plain.eval()
    outputs = plain(inputs)
    network.gradient(network.initial(), some(given)).run()  # which leaves the module in training
    quality = network.evaluate(network.initial()).run()
    assert quality.loss == pytest.approx(functional.cross_entropy(outputs, targets).item(), rel=1e-6)
    assert quality.accuracy == (outputs.argmax(1) == targets).double().mean().item()


def test_evaluation_in_pieces_is_evaluation_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    network = TorchNetwork(made_from(1, mlp), data())
    whole = network.evaluate(network.initial()).run()
    monkeypatch.setattr("models.torch_network.EVALUATION_BATCH", 3)
    pieces = network.evaluate(network.initial()).run()
    assert pieces.loss == pytest.approx(whole.loss, rel=1e-6)
    assert pieces.accuracy == whole.accuracy


def test_a_regression_has_a_loss_and_no_accuracy() -> None:
    given = data(torch.randn(COUNT, CLASSES))
    plain = made_from(1, mlp)
    quality = TorchNetwork(copy.deepcopy(plain), given).evaluate(flat(trained(plain))).run()
    inputs, targets = given.held_out.pick(torch.arange(len(given.held_out)))
    assert quality.loss == pytest.approx(functional.mse_loss(plain(inputs), targets).item(), rel=1e-6)
    assert quality.accuracy is None


@each_module
def test_a_saved_model_loads_into_the_plain_module_and_gives_the_same_outputs(make: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    given = data()
    network = TorchNetwork(made_from(1, make), given)
    parameters = network.initial() + 0.1 * torch.randn(len(network), generator=torch.Generator().manual_seed(3))
    save_file(network.state_dict(parameters), tmp_path / "model.safetensors")
    plain = made_from(2, make)
    if hasattr(plain, "first"):
        plain.first.load_state_dict(network.module.first.state_dict())  # type: ignore[union-attr,operator]
    plain.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(flat(trained(plain)), parameters)
    plain.eval()
    inputs, targets = given.held_out.pick(torch.arange(len(given.held_out)))
    quality = network.evaluate(parameters).run()
    assert functional.cross_entropy(plain(inputs), targets).item() == pytest.approx(quality.loss, rel=1e-6)


@each_module
def test_training_can_begin_from_a_saved_model(make: Any) -> None:
    given = data()
    first = TorchNetwork(made_from(1, make), given)
    second = TorchNetwork(made_from(2, make), given)
    second.load_state_dict(first.state_dict(first.initial() + 1), "saved")
    assert torch.equal(second.initial(), first.initial() + 1)
    batch = some(given)
    assert second.gradient(second.initial(), batch).run().loss == pytest.approx(
        first.gradient(first.initial() + 1, batch).run().loss, rel=1e-6
    )


def test_a_saved_model_that_does_not_fit_is_told() -> None:
    network = TorchNetwork(mlp(), data())
    for state in ({}, {"0.weight": torch.zeros(1)}, convolved().state_dict()):
        with pytest.raises(NetworkError, match=r"model\.start = 'mine': does not fit the network"):
            network.load_state_dict(state, "mine")


def test_running_statistics_are_those_of_the_training_data_at_these_parameters() -> None:
    given = data()
    network = TorchNetwork(made_from(1, normalised), given)
    for step in range(3):  # minibatches must leave no trace
        network.gradient(network.initial() + step, some(given, 4 + step)).run()
    parameters = network.initial() + 0.3
    state = network.state_dict(parameters)
    inputs, _ = given.train.pick(torch.arange(len(given.train)))
    hidden = functional.linear(inputs, state["0.weight"], state["0.bias"])
    torch.testing.assert_close(state["1.running_mean"], hidden.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(state["1.running_var"], hidden.var(0), rtol=1e-5, atol=1e-6)
    assert network.evaluate(parameters).run() == network.evaluate(parameters).run()


def test_running_statistics_can_be_taken_of_any_number_of_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A last batch of a single sample would have no variance."""
    monkeypatch.setattr("models.torch_network.EVALUATION_BATCH", 8)
    for count in (2, 7, 8, 9, 15, 16, 17, 25, 33):
        network = TorchNetwork(made_from(1, normalised), data(train=count))
        assert network.evaluate(network.initial()).run().loss > 0


class Kept(nn.Sequential):
    """Whoever goes on with a trained network may keep its statistics."""

    def train(self, mode: bool = True) -> Kept:
        super().train(mode)
        self[1].eval()
        return self


def test_running_statistics_that_the_module_keeps_in_evaluation_stay_as_they_are() -> None:
    given = data()
    module = Kept(nn.Linear(INPUTS, 5), nn.BatchNorm1d(5), nn.BatchNorm1d(5), nn.Linear(5, CLASSES))
    nn.init.uniform_(module[1].running_mean)  # type: ignore[arg-type]
    mean = module[1].running_mean.clone()  # type: ignore[union-attr,operator]
    network = TorchNetwork(module, given)
    before = network.gradient(network.initial(), some(given, 4)).run().vector.clone()
    network.evaluate(network.initial()).run()
    assert torch.equal(network.gradient(network.initial(), some(given, 4)).run().vector, before)
    state = network.state_dict(network.initial())
    assert torch.equal(state["1.running_mean"], mean)
    inputs, _ = given.train.pick(torch.arange(len(given.train)))
    kept = (functional.linear(inputs, state["0.weight"], state["0.bias"]) - mean) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(state["2.running_mean"], kept.mean(0), rtol=1e-5, atol=1e-6)


# what cannot be trained


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (nn.ReLU, "no parameters to train"),
        (lambda: mlp().requires_grad_(False), "no parameters to train"),
        (
            lambda: nn.Sequential(nn.Linear(INPUTS, 5), nn.Linear(5, CLASSES).double()),
            "parameters of torch.float32, torch.float64; allowed",
        ),
        (lambda: nn.LazyLinear(CLASSES), "parameter 'weight' has no shape yet; allowed: a module that has been called once"),
        (lambda: mlp().half(), "parameters of torch.float16"),
        (lambda: nn.Linear(INPUTS + 1, CLASSES), "does not take inputs of shape (2, 6)"),
        (lambda: nn.LSTM(INPUTS, CLASSES), "returns a tuple; allowed: a tensor"),
    ],
    ids=["no parameters", "all frozen", "mixed", "lazy", "half", "other inputs", "a tuple"],
)
def test_a_module_that_cannot_be_trained_is_told(make: Any, said: str) -> None:
    with pytest.raises(NetworkError, match=r"model\.network") as caught:
        TorchNetwork(make(), data())
    assert said in str(caught.value)


def test_parameters_that_begin_as_no_numbers_are_told() -> None:
    module = mlp()
    with torch.no_grad():
        module[2].bias[1] = torch.nan  # type: ignore[index]
    with pytest.raises(NetworkError, match=r"parameter '2.bias' begins with NaN"):
        TorchNetwork(module, data())


@pytest.mark.parametrize(
    ("targets", "loss", "said"),
    [
        (torch.randn(COUNT, CLASSES + 1), "auto", "must be equal for mse"),
        (torch.randn(COUNT), "auto", "must be equal for mse"),
        (torch.zeros(COUNT, dtype=torch.int64), "mse", "must be equal for mse"),
        (torch.randn(COUNT, CLASSES), "cross-entropy", "cross-entropy needs one whole number"),
        (torch.zeros(COUNT, 1, dtype=torch.int64), "auto", "cross-entropy needs one whole number"),
    ],
)
def test_targets_that_do_not_fit_the_outputs_are_told(targets: torch.Tensor, loss: str, said: str) -> None:
    with pytest.raises(DataError, match=r"data\.source") as caught:
        TorchNetwork(mlp(), data(targets), loss=loss)
    assert said in str(caught.value)


@pytest.mark.parametrize("wrong", [-1, CLASSES])
def test_a_target_that_is_no_class_is_told(wrong: int) -> None:
    targets = torch.zeros(COUNT, dtype=torch.int64)
    targets[3] = wrong
    given = data(targets)
    network = TorchNetwork(mlp(), given)
    with pytest.raises(DataError, match="classes 0 to 2"):
        network.gradient(network.initial(), some(given)).run()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_targets_of_any_whole_type_are_classes(dtype: torch.dtype) -> None:
    given = data(torch.arange(COUNT).remainder(CLASSES).to(dtype))
    network = TorchNetwork(mlp(), given)
    assert network.gradient(network.initial(), some(given)).run().loss
    assert network.evaluate(network.initial()).run().accuracy is not None


def test_a_module_that_fails_at_work_is_told_with_its_line() -> None:
    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(INPUTS, CLASSES)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) == 7:
                raise KeyError("seven")
            return self.last(x)  # type: ignore[no-any-return]

    given = data()
    network = TorchNetwork(Moody(), given)
    with pytest.raises(NetworkError, match="KeyError: 'seven'"):
        network.gradient(network.initial(), some(given, 7)).run()


# cost, and the catalogue


def test_the_speech_network_has_the_paper_s_parameters_in_the_catalogue_and_in_torch() -> None:
    speech = BUNDLED["speech"]
    with torch.device("meta"):
        module = build(speech, None)
    assert sum(p.numel() for p in module.parameters()) == speech.parameters() == 41_777_152
    assert sum(isinstance(m, nn.Sigmoid) for m in module.modules()) == 4


@pytest.mark.parametrize("layers", [(4, 3), (64, 128, 10), (7, 6, 5, 4)])
def test_the_catalogue_counts_what_torch_builds(layers: tuple[int, ...]) -> None:
    described = BUNDLED["mlp"]
    module = build(described, layers)
    assert sum(p.numel() for p in module.parameters()) == described.parameters(layers)
    assert [(m.in_features, m.out_features) for m in module.modules() if isinstance(m, nn.Linear)] == list(pairwise(layers))
    assert not isinstance(list(module.children())[-1], nn.ReLU)  # outputs are logits


def test_operations_are_counted_by_torch_as_by_the_catalogue() -> None:
    layers = (INPUTS, 5, CLASSES)
    described = BUNDLED["mlp"]
    network = TorchNetwork(build(described, layers), data())
    assert network.flops_per_sample == described.flops_per_sample(layers) == 6 * (INPUTS * 5 + 5 * CLASSES)
    assert network.gradient(network.initial(), some(data(), 7)).cost.flops == 7 * network.flops_per_sample
    assert network.evaluate(network.initial()).cost.flops == 10 * network.flops_per_sample / 3


def test_what_is_declared_is_charged() -> None:
    assert TorchNetwork(mlp(), data(), flops_per_sample=1e9).flops_per_sample == 1e9


def test_initial_parameters_depend_on_the_seed_and_leave_torch_s_stream_alone() -> None:
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    first, again, other = (flat(list(made_from(seed, mlp).parameters())) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_phantom_network_costs_what_the_real_one_costs() -> None:
    described, layers = BUNDLED["mlp"], (INPUTS, 5, CLASSES)
    real = TorchNetwork(build(described, layers), data())
    phantom = PhantomNetwork(described.parameters(layers), described.flops_per_sample(layers))
    assert len(phantom) == len(real)
    assert phantom.initial().nbytes == real.initial().nbytes
    batch = PhantomMinibatches(7).minibatch(3)
    work = phantom.gradient(phantom.initial(), batch)
    assert work.cost == real.gradient(real.initial(), some(data(), 7)).cost
    gradient = work.run()
    assert (gradient.loss, gradient.samples, len(gradient.vector)) == (None, 7, len(real))
