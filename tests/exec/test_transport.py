"""Vectors go out in chunks and come back bit for bit, whichever way they are taken in."""

from __future__ import annotations

import pytest
import torch

from core.rules import Adagrad
from core.vector import BLOCK
from exec.codec import Fault, Malformed, Payload
from exec.transport import CHUNK, chunks, collect, receive

LENGTHS = [0, 1, CHUNK // 8, CHUNK // 4, CHUNK // 4 + 1, 3 * CHUNK // 4 + 5]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_vector_arrives_bit_for_bit(length: int, dtype: torch.dtype) -> None:
    sent = torch.randn(length, dtype=dtype)
    landed = torch.zeros(length, dtype=dtype)
    receive(chunks(sent), landed)
    pieces = collect(chunks(sent), Payload(dtype, sent.nbytes))
    assert torch.equal(landed, sent)
    assert torch.equal(pieces[:], sent)
    assert (len(pieces), pieces.nbytes) == (len(sent), sent.nbytes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_slice_of_pieces_is_the_slice_of_the_vector_wherever_it_is_cut(dtype: torch.dtype) -> None:
    sent = torch.randn(2 * BLOCK + 77, dtype=dtype)
    pieces = collect(chunks(sent), Payload(dtype, sent.nbytes))
    edges = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, len(sent), len(sent) + 9]
    for start in edges:
        for stop in edges:
            assert torch.equal(pieces[start:stop], sent[start:stop])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_rule_cannot_tell_pieces_from_the_vector(dtype: torch.dtype) -> None:
    gradient = torch.randn(2 * BLOCK + 77, dtype=dtype)
    results = []
    for given in (gradient, collect(chunks(gradient), Payload(dtype, gradient.nbytes))):
        parameters, rule = torch.ones_like(gradient), Adagrad(0.1)
        rule.start(parameters)
        rule.apply(parameters, given)
        results.append(parameters)
    assert torch.equal(*results)


@pytest.mark.parametrize(
    ("lengths", "fault"),
    [
        ([], Fault.SHORT),
        ([CHUNK], Fault.SHORT),
        ([CHUNK, 7], Fault.UNEVEN),
        ([1, CHUNK], Fault.UNEVEN),
        ([0, CHUNK, 8], Fault.UNEVEN),
        ([CHUNK, 9], Fault.SURPLUS),
        ([CHUNK, 8, 1], Fault.SURPLUS),
        ([CHUNK, 8, 0], Fault.UNEVEN),
    ],
)
def test_a_payload_that_is_not_as_announced_is_turned_away(lengths: list[int], fault: Fault) -> None:
    with pytest.raises(Malformed) as caught:
        collect(iter([bytes(length) for length in lengths]), Payload(torch.float32, CHUNK + 8))
    assert caught.value.fault is fault
