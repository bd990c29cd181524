"""Made-up speech for the scenarios figure-4-*: which of 40 states, seldom ones among them, does a noisy window of frames belong to?

Small enough to be trained in a simulation, and hard as the paper's task is hard: a state sounds in several ways, high frequencies have
little energy, states are as unevenly frequent as sounds are, and the layers are of sigmoid units, which learn slowly at first.
"""

from __future__ import annotations

import torch
from torch import nn

FRAMES, ENERGIES, STATES, WAYS = 5, 16, 40, 4
SAMPLES = 32_000
NOISE = 2.0
HIDDEN = 192
SPECTRAL_SLOPE = 1.5
"""Decades by which the highest of the energies is weaker than the lowest."""
WARM_STEPS, WARM_BATCH, WARM_RATE = 200, 100, 1.0


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    """Windows of frames, and the state of each; the same in every process, for the network is warmed up with them too."""
    draws = torch.Generator().manual_seed(1)
    sounds = torch.randn(STATES * WAYS, FRAMES, ENERGIES, generator=draws)
    states = torch.randint(STATES, (SAMPLES,), generator=draws)
    ways = torch.randint(WAYS, (SAMPLES,), generator=draws)
    windows = sounds[states * WAYS + ways] + NOISE * torch.randn(SAMPLES, FRAMES, ENERGIES, generator=draws)
    return (windows * torch.logspace(0, -SPECTRAL_SLOPE, ENERGIES)).flatten(1), states


def network() -> nn.Module:
    """The warm start that every method begins from (paper, section 5): some minibatches of plain SGD, alone."""
    module = nn.Sequential(nn.Linear(FRAMES * ENERGIES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, STATES))
    windows, states = samples()
    sgd = torch.optim.SGD(module.parameters(), WARM_RATE)
    for first in range(0, WARM_STEPS * WARM_BATCH, WARM_BATCH):
        batch = slice(first, first + WARM_BATCH)
        sgd.zero_grad()
        nn.functional.cross_entropy(module(windows[batch]), states[batch]).backward()  # type: ignore[no-untyped-call]
        sgd.step()
    return module
