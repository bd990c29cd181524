"""Handwritten digits that take a while to learn: each of scikit-learn's in several places of a larger frame, with noise."""

from __future__ import annotations

import torch

from models.data import digits

COPIES = 8
FRAME = 10
NOISE = 0.1


def shifted() -> tuple[torch.Tensor, torch.Tensor]:
    """14,376 pictures of 100 pixels; the global stream that places them is seeded by the scenario."""
    pictures, labels = digits().tensors
    frames = torch.zeros(COPIES, len(pictures), FRAME, FRAME)
    places = torch.randint(FRAME - 8 + 1, (COPIES, len(pictures), 2)).tolist()
    for copy, row in zip(frames, places, strict=True):
        for frame, picture, (down, right) in zip(copy, pictures, row, strict=True):
            frame[down : down + 8, right : right + 8] = picture.reshape(8, 8)
    frames += NOISE * torch.randn_like(frames)
    return frames.reshape(-1, FRAME * FRAME), labels.repeat(COPIES)
