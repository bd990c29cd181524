"""Made-up speech for the scenarios figure-4-*: to which of 40 states does a noisy window of frames belong?

Small enough to be trained in a simulation, and hard as the paper's task is: a state sounds in several ways, high frequencies have little
energy, and noise is louder than speech, so that a minibatch says little and the gradients of many replicas are worth more than one's.
"""

from __future__ import annotations

import torch
from torch import nn

FRAMES, ENERGIES, STATES, WAYS = 5, 16, 40, 4
SAMPLES, NOISE = 32_000, 1.5
SPECTRAL_SLOPE = 1.5
"""Decades by which the highest of the energies is weaker than the lowest."""
HIDDEN = 192
WARM_STEPS, WARM_BATCH, WARM_RATE = 200, 100, 1.0


def network() -> nn.Module:
    """The warm start that every method begins from (paper, section 5): minibatches of plain SGD, of windows that nobody else sees."""
    module = nn.Sequential(nn.Linear(FRAMES * ENERGIES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, STATES))
    sgd = torch.optim.SGD(module.parameters(), WARM_RATE)
    windows, states = drawn(WARM_STEPS * WARM_BATCH, seed=1)
    for first in range(0, WARM_STEPS * WARM_BATCH, WARM_BATCH):
        batch = slice(first, first + WARM_BATCH)
        sgd.zero_grad()
        nn.functional.cross_entropy(module(windows[batch]), states[batch]).backward()  # type: ignore[no-untyped-call]
        sgd.step()
    return module


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    """Windows, each with its state."""
    return drawn(SAMPLES, seed=2)


def drawn(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """So many windows of the same states, whatever the scenario's seed."""
    sounds = torch.randn(STATES * WAYS, FRAMES, ENERGIES, generator=torch.Generator().manual_seed(0))
    draws = torch.Generator().manual_seed(seed)
    states = torch.randint(STATES, (count,), generator=draws)
    ways = torch.randint(WAYS, (count,), generator=draws)
    windows = sounds[states * WAYS + ways] + NOISE * torch.randn(count, FRAMES, ENERGIES, generator=draws)
    return (windows * torch.logspace(0, -SPECTRAL_SLOPE, ENERGIES)).flatten(1), states
