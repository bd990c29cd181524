"""An example of a user's own network and data: a small convolutional network tells drawn crosses from drawn rings.

`own_network.toml` names the two functions; nothing else of this file is known to the simulator or the executor.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import Dataset

SIDE, SAMPLES = 12, 1200


def network() -> nn.Module:
    """Any `torch.nn.Module`; for classes, its outputs are logits."""
    return nn.Sequential(
        nn.Conv2d(1, 8, kernel_size=3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(8 * 5 * 5, 32), nn.ReLU(), nn.Linear(32, 2),
    )  # fmt: skip


class Drawings(Dataset[tuple[torch.Tensor, int]]):
    """Noisy pictures, drawn when they are asked for; item k is always the same."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        draws = torch.Generator().manual_seed(index)
        row, column = torch.rand(2, generator=draws) * 4 + 4
        down, along = torch.arange(SIDE).unsqueeze(1) - row, torch.arange(SIDE).unsqueeze(0) - column
        if index % 2:
            picture = (torch.hypot(down, along) - 3).abs() < 0.8
        else:
            picture = ((down.abs() < 0.8) | (along.abs() < 0.8)) & (torch.maximum(down.abs(), along.abs()) < 4)
        noise = 0.4 * torch.randn(SIDE, SIDE, generator=draws)
        return (picture.float() + noise).unsqueeze(0), index % 2


def dataset() -> Drawings:
    """A map-style `Dataset`, or a pair of tensors (inputs, targets)."""
    return Drawings()
