"""Vectors go out in chunks and come back bit for bit, whichever way they are taken in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from core.rules import Adagrad
from core.vector import BLOCK
from exec.codec import DTYPES, Payload, dtype_of
from exec.malformed import Fault, Malformed
from exec.tensors import chunks, collect, receive
from exec.transport import CHUNK, HEADER_LIMIT, end_here, next_header

TYPES = [getattr(torch, name) for name in DTYPES]
LENGTHS = [0, 1, CHUNK // 8, CHUNK // 4, CHUNK // 4 + 1, 3 * CHUNK // 4 + 5]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", TYPES)
def test_a_vector_arrives_bit_for_bit(length: int, dtype: torch.dtype) -> None:
    sent = torch.randn(length).to(dtype)
    landed = torch.zeros(length, dtype=dtype)
    receive(chunks(sent), landed)
    pieces = collect(chunks(sent), Payload(dtype_of(sent), sent.nbytes))
    assert torch.equal(landed, sent)
    assert torch.equal(pieces[:], sent)
    assert (len(pieces), pieces.nbytes) == (len(sent), sent.nbytes)


@pytest.mark.parametrize("dtype", TYPES)
def test_a_slice_of_pieces_is_the_slice_of_the_vector_wherever_it_is_cut(dtype: torch.dtype) -> None:
    sent = torch.randn(2 * BLOCK + 77).to(dtype)
    pieces = collect(chunks(sent), Payload(dtype_of(sent), sent.nbytes))
    edges = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, len(sent), len(sent) + 9]
    for start in edges:
        for stop in edges:
            assert torch.equal(pieces[start:stop], sent[start:stop])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_rule_cannot_tell_pieces_from_the_vector(dtype: torch.dtype) -> None:
    gradient = torch.randn(2 * BLOCK + 77, dtype=dtype)
    results = []
    for given in (gradient, collect(chunks(gradient), Payload(dtype_of(gradient), gradient.nbytes))):
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
        collect(iter([bytes(length) for length in lengths]), Payload("float32", CHUNK + 8))
    assert caught.value.fault is fault


def test_pieces_go_on_as_they_came() -> None:
    sent = torch.randn(CHUNK // 4 + 5)
    pieces = collect(chunks(sent), Payload("float32", sent.nbytes))
    assert list(chunks(pieces)) == list(chunks(sent))


def test_a_chunk_too_many_ends_a_stream_that_has_no_end() -> None:
    taken = []

    def endless() -> Iterator[bytes]:
        while True:
            taken.append(1)
            yield bytes(CHUNK)

    with pytest.raises(Malformed) as caught:
        collect(endless(), Payload("float32", 3 * CHUNK))
    assert caught.value.fault is Fault.SURPLUS
    assert len(taken) == 4


@pytest.mark.parametrize(("messages", "fault"), [([], Fault.SHORT), ([bytes(HEADER_LIMIT + 1)], Fault.OVERSIZED)])
def test_a_stream_that_begins_with_no_envelope_is_turned_away(messages: list[bytes], fault: Fault) -> None:
    with pytest.raises(Malformed) as caught:
        next_header(iter(messages))
    assert caught.value.fault is fault


def test_whatever_follows_a_message_without_a_payload_is_surplus() -> None:
    end_here(iter([]))
    with pytest.raises(Malformed) as caught:
        end_here(iter([b""]))
    assert caught.value.fault is Fault.SURPLUS
