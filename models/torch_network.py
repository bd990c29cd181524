"""Any `torch.nn.Module` as a network of the protocols: one flat vector of parameters, one flat gradient.

The module's parameters are made views of one flat tensor on its device, and their gradients views of another, so that
installing parameters and reading a gradient are one copy each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from core.graph import Graph
from core.partitioning import Partitioned
from core.work import Cost, Gradient, Quality, Work
from models.bundled import Bundled
from models.data import Batch, Data, Samples
from models.errors import DataError, NetworkError
from models.graph_module import GraphModule
from models.losses import check_classes, with_loss
from models.mlp import Layered
from models.partitioned import TorchPartition, gathered, scattered
from models.user import seeded, told

EVALUATION_BATCH = 1024


def build(network: Bundled, layers: tuple[int, ...] | None) -> nn.Module:
    """The torch module of a bundled network; its outputs are logits."""
    if not isinstance(network, Layered):
        return GraphModule(network.graph(layers))
    modules: list[nn.Module] = []
    for inputs, outputs in pairwise(network.widths(layers)):
        modules += [nn.Linear(inputs, outputs), nn.ReLU() if network.activation == "relu" else nn.Sigmoid()]
    return nn.Sequential(*modules[:-1])


def made_from(seed: int, make: Callable[[], Any]) -> Any:
    """Call `make` with the global random streams at a place that depends on the seed alone."""
    with seeded(seed, "network"):
        return make()


class TorchNetwork:
    """`core.work.Network` over a module and its data."""

    def __init__(
        self, module: nn.Module, data: Data, *, loss: str = "auto", flops_per_sample: float | None = None,
        device: str = "cpu", shared: bool = False,
    ) -> None:  # fmt: skip
        """`flops_per_sample`: forward and backward, counted by torch where not given.  `shared`: several replicas of this
        process use this one object, so that each gradient must be a vector of its own.
        """
        self.module, self.data, self.device, self.shared = module.to(device).train(), data, torch.device(device), shared
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        check_parameters(trained)
        self.flat = torch.cat([p.detach().reshape(-1) for p in trained.values()])
        self.flat_gradient = torch.zeros_like(self.flat)
        at = 0
        for p in trained.values():
            p.data = self.flat[at : at + p.numel()].view_as(p)
            p.grad = self.flat_gradient[at : at + p.numel()].view_as(p)
            at += p.numel()
        self.loss = "mse" if loss == "auto" and data.train.pick(torch.arange(1))[1].is_floating_point() else loss
        self.criterion = criterion(loss, data.train, self.forward)
        self.normalised = any(isinstance(m, nn.modules.batchnorm._NormBase) and m.track_running_stats for m in module.modules())
        self.flops_per_sample = flops_per_sample if flops_per_sample is not None else self.counted_flops()
        self.partitioned: Partitioned | None = None
        """Over which machines it is split, if it is: then the parameters of each lie together in a vector."""
        self._initial = self.flat.cpu().clone()
        self._pinned = torch.empty_like(self._initial).pin_memory() if self.device.type == "cuda" else None

    def __len__(self) -> int:
        return len(self._initial)

    def initial(self) -> torch.Tensor:
        """On a GPU's host in pinned memory, from and to which it copies without a detour."""
        return self._initial.clone() if self._pinned is None else self._initial.pin_memory()

    def gradient(self, parameters: torch.Tensor, batch: Batch) -> Work[Gradient]:
        return Work(lambda: self._gradient(parameters, batch), Cost(self.flops_per_sample * len(batch.inputs)))

    def evaluate(self, parameters: torch.Tensor) -> Work[Quality]:
        return Work(lambda: self._evaluate(parameters), Cost(self.flops_per_sample / 3 * len(self.data.held_out)))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        try:
            return self.module(self.taken(inputs))  # type: ignore[no-any-return]
        except Exception as error:  # the user's own code may raise anything
            raise NetworkError(f"model.network: the module does not take inputs of shape {tuple(inputs.shape)}: {told(error)}") from error

    def taken(self, inputs: torch.Tensor) -> torch.Tensor:
        """On the module's device; real numbers also in its type, since float64 modules meet float32 data."""
        return inputs.to(self.device, self.flat.dtype) if inputs.is_floating_point() else inputs.to(self.device)

    def _gradient(self, parameters: torch.Tensor, batch: Batch) -> Gradient:
        self.flat.copy_(parameters)
        self.flat_gradient.zero_()
        self.module.train()
        torch.manual_seed(batch.seed)
        loss = self.criterion(self.forward(batch.inputs), batch.targets.to(self.device))
        loss.backward()  # type: ignore[no-untyped-call]
        if self.shared:
            gradient = self.flat_gradient.clone()
        else:
            gradient = self.flat_gradient if self._pinned is None else self._pinned.copy_(self.flat_gradient)
        return Gradient(gradient, loss.item(), len(batch.inputs))

    @torch.no_grad()
    def _evaluate(self, parameters: torch.Tensor) -> Quality:
        self.install(parameters)
        self.module.eval()
        held_out = self.data.held_out
        loss, right, counted = 0.0, 0, 0
        for start in range(0, len(held_out), EVALUATION_BATCH):
            inputs, targets = held_out.pick(torch.arange(start, min(start + EVALUATION_BATCH, len(held_out))))
            outputs, targets = self.forward(inputs), targets.to(self.device)
            loss += self.criterion(outputs, targets).item() * len(inputs)
            if not targets.is_floating_point():
                right += int((outputs.argmax(1) == targets).sum())
                counted += targets.numel()
        return Quality(loss / len(held_out), right / counted if counted else None)

    def install(self, parameters: torch.Tensor) -> None:
        """Put parameters into the module; running statistics of batch normalisation are taken anew from training data,
        since a parameter server has gradients for them nowhere.
        """
        if self.partitioned is None:
            self.flat.copy_(parameters)
        else:
            scattered(self.partitioned, parameters, dict(self.module.named_parameters()))
        if self.normalised:
            train = self.data.train
            count = min(len(train), 8 * EVALUATION_BATCH)
            pieces = max(1, count // EVALUATION_BATCH)
            batches = torch.arange(count).tensor_split(pieces)  # none of them of one sample, which has no variance
            torch.manual_seed(0)  # dropout draws here too, and what was drawn before must not matter
            take_statistics(self.module, (self.taken(train.pick(batch)[0]) for batch in batches))

    def state_dict(self, parameters: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the plain module's `load_state_dict` takes, on the CPU, no two tensors sharing memory."""
        with torch.no_grad():
            self.install(parameters)
        return {name: value.detach().cpu().clone().contiguous() for name, value in self.module.state_dict().items()}

    def load_state_dict(self, state: dict[str, torch.Tensor], source: str) -> None:
        """Begin from a saved model.  Raises NetworkError for one that does not fit."""
        try:
            self.module.load_state_dict(state)
        except RuntimeError as error:
            raise NetworkError(f"model.start = {source!r}: does not fit the network: {' '.join(str(error).split())}") from None
        self.begin_here()

    def graph(self) -> Graph:
        """Its layers, and its loss.  Raises NetworkError for a module that cannot be read."""
        from models.importing import graph_of

        if isinstance(self.module, GraphModule):
            layers = self.module.graph
        else:
            layers = graph_of(self.module, self.taken(self.data.train.pick(torch.arange(2))[0]))
        return with_loss(layers, "cross-entropy" if self.loss == "auto" else self.loss)

    def split(self, partitioned: Partitioned) -> None:
        """From here on, vectors are ordered by the machines that a replica is split over."""
        self.partitioned = partitioned
        self.begin_here()

    def begin_here(self) -> None:
        """What the module has now are the initial parameters."""
        if self.partitioned is None:
            self._initial = self.flat.cpu().clone()
        else:
            self._initial = gathered(self.partitioned, dict(self.module.named_parameters())).cpu()

    def partition(self, machine: int) -> TorchPartition:
        """What one of these machines has of it."""
        assert self.partitioned is not None
        own = self._initial[self.partitioned.parameters_of(machine)].clone()
        return TorchPartition(self.partitioned, machine, own, str(self.device))

    def counted_flops(self) -> float:
        """Of one sample, forward and backward: torch's own count of the forward pass, three times."""
        from torch.utils.flop_counter import FlopCounterMode

        inputs, _ = self.data.train.pick(torch.arange(1))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.module.eval()
            self.forward(inputs)
        return 3.0 * float(counter.get_total_flops())


def take_statistics(module: nn.Module, minibatches: Iterable[torch.Tensor]) -> None:
    """As `torch.optim.swa_utils.update_bn`, except that layers which the module's `train` leaves in evaluation keep those that they have."""
    was_training = module.training
    module.train()
    taking = [one for one in module.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm) and one.training]
    momenta = [one.momentum for one in taking]
    for one in taking:
        one.reset_running_stats()
        one.momentum = None  # the mean over all minibatches
    for inputs in minibatches:
        module(inputs)
    for one, momentum in zip(taking, momenta, strict=True):
        one.momentum = momentum
    module.train(was_training)


def check_parameters(trained: dict[str, nn.Parameter]) -> None:
    if not trained:
        raise NetworkError("model.network: the module has no parameters to train")
    kinds = sorted({str(p.dtype) for p in trained.values()})
    if kinds not in (["torch.float32"], ["torch.float64"]):
        raise NetworkError(f"model.network: parameters of {', '.join(kinds)}; allowed: all float32, or all float64")
    for name, p in trained.items():
        if isinstance(p, nn.UninitializedParameter):
            raise NetworkError(f"model.network: parameter {name!r} has no shape yet; allowed: a module that has been called once")
        if not bool(torch.isfinite(p).all()):
            raise NetworkError(f"model.network: parameter {name!r} begins with NaN or infinity")


def criterion(loss: str, train: Samples, forward: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The loss, chosen by the targets' type where the scenario leaves it open, tried on two samples."""
    inputs, targets = train.pick(torch.arange(min(2, len(train))))
    with torch.no_grad():
        outputs = forward(inputs)
    if not isinstance(outputs, torch.Tensor):
        raise NetworkError(f"model.network: the module returns a {type(outputs).__name__}; allowed: a tensor")
    if loss == "mse" or (loss == "auto" and targets.is_floating_point()):
        if outputs.shape != targets.shape:
            raise DataError(
                f"data.source: targets of shape {tuple(targets.shape)}, outputs of shape {tuple(outputs.shape)}; these must be equal for mse"
            )
        return lambda given, wanted: functional.mse_loss(given, wanted.to(given.dtype))
    if targets.is_floating_point() or targets.dim() != 1 or outputs.dim() != 2:
        raise DataError(
            f"data.source: targets {targets.dtype} of shape {tuple(targets.shape)} with outputs of shape {tuple(outputs.shape)}; "
            f"{'logistic' if loss == 'logistic' else 'cross-entropy'} needs one whole number for each sample, and outputs (samples, classes)"
        )
    classes = outputs.shape[1]
    of_classes = one_against_all if loss == "logistic" else functional.cross_entropy

    def checked(given: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        wanted = wanted.long()
        check_classes(wanted, classes)
        return of_classes(given, wanted)

    return checked


def one_against_all(given: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The logistic losses of all classes, added up: each by itself says whether a sample is of it."""
    each = functional.binary_cross_entropy_with_logits(given, functional.one_hot(wanted, given.shape[1]).to(given.dtype), reduction="sum")
    return each / len(given)
