"""Every process of a job calls the user's functions by itself; all must get the same."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch

from models.data import load

SOURCE = """
import random, numpy, torch
def draws():
    x = torch.randn(20, 3) + float(numpy.random.rand()) + random.random()
    return x, x.sum(1, keepdim=True)
"""


def test_unseeded_data_is_the_same_at_every_call_and_leaves_the_streams_alone(tmp_path: Path) -> None:
    file = tmp_path / "draws.py"
    file.write_text(SOURCE)
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    expected = (random.random(), np.random.rand(), torch.rand(1).item())  # noqa: TID251
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    first = load(f"{file}:draws", 0.2, 1).train.dataset
    second, other = load(f"{file}:draws", 0.2, 1).train.dataset, load(f"{file}:draws", 0.2, 2).train.dataset
    assert torch.equal(first[:][0], second[:][0])
    assert not torch.equal(first[:][0], other[:][0])
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected  # noqa: TID251
