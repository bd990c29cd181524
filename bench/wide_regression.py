"""A logistic regression of a million parameters: a thousand classes of noisy points, as in the last layer of a network for ImageNet."""

from __future__ import annotations

import torch
from torch import nn

SAMPLES, INPUTS, CLASSES = 11_000, 1000, 1000


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    """The global stream is seeded by the scenario."""
    labels = torch.randint(CLASSES, (SAMPLES,))
    centres = torch.randn(CLASSES, INPUTS)
    return 0.05 * centres[labels] + torch.randn(SAMPLES, INPUTS), labels


def network() -> nn.Module:
    return nn.Linear(INPUTS, CLASSES)
