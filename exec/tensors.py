"""Vectors as bytes: cut into chunks for the wire, taken together again, and laid into files.

What needs torch of the executor's byte work is here, and imported only where a vector travels.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch

from exec.codec import Payload, dtype_of
from exec.transport import CHUNK, whole_chunks

SAFETENSORS = {torch.float32: "F32", torch.float64: "F64", torch.bfloat16: "BF16", torch.float16: "F16"}
"""What the format calls them."""


class Pieces:
    """A payload in the chunks it came in: a vector that is only read, a slice at a time.

    A rule takes a gradient block by block, and a block of float32 is a chunk (`core.vector.BLOCK`), so the chunks need not
    be copied together first; a slice that crosses chunks is.  Nobody else holds them.
    """

    __slots__ = ("chunks", "dtype", "nbytes")

    def __init__(self, chunks: list[bytes], payload: Payload) -> None:
        self.chunks, self.dtype, self.nbytes = chunks, getattr(torch, payload.dtype), payload.nbytes

    def __len__(self) -> int:
        return int(self.nbytes // self.dtype.itemsize)

    def clone(self) -> torch.Tensor:
        """All of it in one piece, which is nobody else's."""
        return self[0 : len(self)].clone()

    def __getitem__(self, part: slice) -> torch.Tensor:
        start, stop, step = part.indices(len(self))
        assert step == 1, "a vector is cut into pieces, not sampled"
        if start >= stop:
            return torch.empty(0, dtype=self.dtype)
        first, last = start * self.dtype.itemsize // CHUNK, (stop * self.dtype.itemsize - 1) // CHUNK
        memory = self.chunks[first] if first == last else b"".join(self.chunks[first : last + 1])
        return torch.frombuffer(memory, dtype=self.dtype, count=stop - start, offset=start * self.dtype.itemsize - first * CHUNK)


with warnings.catch_warnings():
    # torch says once that it cannot keep us from writing into bytes.  We only read.
    warnings.simplefilter("ignore")
    torch.frombuffer(b"read-only", dtype=torch.uint8)


def raw(vector: Any) -> memoryview:
    """The vector's own memory, as bytes."""
    assert vector.device.type == "cpu", "a vector of another device must be copied to the CPU first"
    memory: memoryview = vector.view(torch.uint8).numpy().data
    return memory


def chunks(vector: Any) -> Iterator[bytes]:
    """Cut a vector into what grpcio takes; one that came over the wire is cut already."""
    if isinstance(vector, Pieces):
        yield from vector.chunks
        return
    memory = raw(vector)
    for start in range(0, len(memory), CHUNK):
        yield bytes(memory[start : start + CHUNK])


def cut(vector: torch.Tensor) -> Pieces:
    """A copy, as the chunks that it will travel in: what a stream sends again and again is copied once."""
    return Pieces(list(chunks(vector)), Payload(dtype_of(vector), vector.nbytes))


def collect(messages: Iterator[bytes], payload: Payload) -> Pieces:
    """The rest of a stream as it came.  Raises Malformed."""
    return Pieces(list(whole_chunks(messages, payload.nbytes)), payload)


def receive(messages: Iterator[bytes], into: torch.Tensor) -> None:
    """Fill a vector with the rest of a stream.  Raises Malformed."""
    memory, filled = raw(into), 0
    for chunk in whole_chunks(messages, into.nbytes):
        memory[filled : filled + len(chunk)] = chunk
        filled += len(chunk)


def parts_of(vector: Any) -> tuple[str, list[Any]]:
    """The type of a vector and its memory, in one piece or in those it came in."""
    return dtype_of(vector), list(vector.chunks) if isinstance(vector, Pieces) else [raw(vector)]
