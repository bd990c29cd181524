"""The bundled networks, each small, and each again as a plain torch module: nothing here is shared with `models/layers.py`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from models.bundled import Bundled
from models.catalogue import BUNDLED


def small(name: str, **sizes: Any) -> Bundled:
    """The same network, layer by layer, with other sizes."""
    return replace(BUNDLED[name], **sizes)


SMALL: dict[str, Bundled] = {
    "mlp": small("mlp", layers=(10, 12, 9, 6)),
    "speech": small("speech", layers=(11 * 4, 10, 10, 10, 10, 14)),
    "image-80m": small("image-80m", filters=2, side=30, patch=3, near=3, classifiers=9),
    "image-330m": small("image-330m", filters=3, side=20, patch=3, near=3, classifiers=9),
    "image-1.7b": small("image-1.7b", filters=4, side=18, patch=3, near=3, classifiers=9),
    "local": BUNDLED["local"],
}
"""By its name.  Windows overlap as they do in the large ones: all need halos, and the last pooling is each network's own."""


class Unshared(nn.Module):
    """Filters of its own for each place of an image."""

    def __init__(self, channels: int, side: int, filters: int, window: int, padding: int = 0) -> None:
        super().__init__()
        places = side + 2 * padding - window + 1
        self.window, self.padding = window, padding
        self.weight = nn.Parameter(torch.empty(places, places, filters, channels * window**2))
        self.bias = nn.Parameter(torch.empty(places, places, filters))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = functional.unfold(x, self.window, padding=self.padding)
        found = torch.einsum("nkp,pfk->nfp", patches, self.weight.flatten(0, 1)) + self.bias.flatten(0, 1).T
        return found.unflatten(2, self.weight.shape[:2])


class RootOfSquares(nn.Module):
    """Of each window of each channel."""

    def __init__(self, window: int, stride: int) -> None:
        super().__init__()
        self.window, self.stride = window, stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        windows = x.unfold(2, self.window, self.stride).unfold(3, self.window, self.stride)
        return (windows.square().sum((4, 5)) + 1e-6).sqrt()


class Contrast(nn.Module):
    """What stands out from a window of all channels, of which only that counts which lies in the image."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen, inside = (functional.unfold(one, self.window, padding=self.window // 2) for one in (x, torch.ones_like(x)))
        mean = seen.sum(1, keepdim=True) / inside.sum(1, keepdim=True)
        variance = ((seen - mean).square() * inside).sum(1, keepdim=True) / inside.sum(1, keepdim=True)
        return ((x.flatten(2) - mean) / (variance + 0.01).sqrt()).view_as(x)


def fully_connected(widths: tuple[int, ...], between: type[nn.Module]) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), between()]
    return nn.Sequential(*layers[:-1])


def image(filters: int, side: int, last_window: int, last_stride: int) -> nn.Module:
    """Three stages over patches of 3 x 3, with pooling and contrast over as many; nine classifiers."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = 1
    for stage, (window, stride) in enumerate([(3, 1), (3, 1), (last_window, last_stride)], start=1):
        layers[f"filters-{stage}"] = Unshared(channels, side, filters, 3)
        layers[f"pool-{stage}"] = RootOfSquares(window, stride)
        layers[f"contrast-{stage}"] = Contrast(3)
        channels, side = filters, (side - 2 - window) // stride + 1
    layers["row"] = nn.Flatten()
    layers["classes"] = nn.Linear(channels * side**2, 9)
    return nn.Sequential(layers)


def local() -> nn.Module:
    layers = {"filters": Unshared(1, 8, 12, 3, padding=1), "relu": nn.ReLU(), "pool": nn.MaxPool2d(2), "contrast": Contrast(3)}
    return nn.Sequential(OrderedDict(layers, row=nn.Flatten(), classes=nn.Linear(12 * 4 * 4, 10)))


PLAIN: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: fully_connected((10, 12, 9, 6), nn.ReLU),
    "speech": lambda: fully_connected((44, 10, 10, 10, 10, 14), nn.Sigmoid),
    "image-80m": lambda: image(2, 30, 11, 9),
    "image-330m": lambda: image(3, 20, 5, 5),
    "image-1.7b": lambda: image(4, 18, 5, 3),
    "local": local,
}


def logistic(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Each class by itself, added up."""
    wanted = torch.nn.functional.one_hot(targets, outputs.shape[1]).to(outputs.dtype)
    return functional.binary_cross_entropy_with_logits(outputs, wanted, reduction="none").sum(1).mean()


def plain_gradient(
    name: str, state: dict[str, torch.Tensor], inputs: torch.Tensor, targets: torch.Tensor
) -> tuple[float, dict[str, torch.Tensor]]:  # fmt: skip
    """The loss of a minibatch and the gradient of each of the parameters, which are called what the bundled network calls them."""
    module = PLAIN[name]()
    module.load_state_dict(state)
    loss = (logistic if name.startswith("image") else functional.cross_entropy)(module(inputs), targets)
    loss.backward()
    return loss.item(), {key: parameter.grad for key, parameter in module.named_parameters() if parameter.grad is not None}
