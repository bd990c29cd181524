"""Vectors: how they are cut, and that a phantom is one."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core import vector
from core.vector import Phantom, Vector, blocks, cut


@given(st.integers(0, 10**12), st.integers(1, 300))
def test_pieces_cover_everything_once_and_differ_by_one_at_most(total: int, pieces: int) -> None:
    parts = cut(total, pieces)
    assert len(parts) == pieces
    assert (parts[0].start, parts[-1].stop) == (0, total)
    assert all(before.stop == after.start for before, after in pairwise(parts))
    lengths = {part.stop - part.start for part in parts}
    assert min(lengths) >= 0
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("kind", [Phantom(5), torch.zeros(5)], ids=["phantom", "tensor"])
def test_a_phantom_and_a_tensor_are_vectors(kind: object) -> None:
    assert isinstance(kind, Vector)


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 1000), st.sampled_from((torch.float32, torch.float64)))
def test_a_phantom_has_the_sizes_of_a_tensor(count: int, start: int, stop: int, dtype: torch.dtype) -> None:
    tensor, part = torch.zeros(count, dtype=dtype), slice(start, stop)
    phantom = Phantom(count, tensor.itemsize)
    for phantasm, real in (
        (phantom, tensor), (phantom[part], tensor[part]), (phantom.clone(), tensor.clone()), (phantom[part].new_zeros(3), tensor[part].new_zeros(3)),
    ):  # fmt: skip
        assert (len(phantasm), phantasm.nbytes) == (len(real), real.nbytes)


def test_arithmetic_on_a_phantom_does_nothing() -> None:
    phantom = Phantom(5)
    assert phantom.add_(Phantom(5), alpha=-2) is phantom
    assert phantom.copy_(Phantom(5)) is phantom
    assert len(phantom) == 5


@given(st.integers(0, 40), st.integers(1, 9))
def test_blocks_are_views_that_cover_everything_once(count: int, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector, "BLOCK", size)
        left, right = torch.zeros(count), torch.arange(float(count))
        for a, b in blocks(left, right):
            assert len(a) == len(b) <= size
            a.add_(b).add_(1)
    assert torch.equal(left, right + 1)


def test_a_phantom_has_no_blocks() -> None:
    assert list(blocks(Phantom(10**9), Phantom(10**9))) == []
