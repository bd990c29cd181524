"""Vectors as the protocols see them: something with a size that can be cut, added and copied, never looked into.

A one-dimensional `torch.Tensor` is a vector.  So is a `Phantom`, which has a size and no contents: with phantoms the same
protocol runs for its timing alone, at a thousand machines.  torch is imported where one of its kernels is called by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, Protocol, Self, runtime_checkable

BLOCK = 1 << 18
"""Elements of one block: 1 MiB of float32 stays in a core's second-level cache while several arrays are combined.
Adagrad over 64 MiB: 25 ms in such blocks, 50 ms in one piece (measured, 2 cores)."""


@runtime_checkable
class Vector(Protocol):
    """What a protocol may ask of a vector.  Names and meanings are those of `torch.Tensor`."""

    @property
    def nbytes(self) -> int: ...
    def __len__(self) -> int: ...
    def __getitem__(self, part: slice, /) -> Any: ...
    def add_(self, other: Any, /, *, alpha: float = 1) -> Any: ...
    def copy_(self, other: Any, /) -> Any: ...
    def clone(self) -> Any: ...
    def new_zeros(self, count: int, /) -> Any: ...


BYTES_OF_FLOAT32 = 4


class Phantom:
    """A vector of `count` elements and no contents; arithmetic on it does nothing and costs nothing."""

    __slots__ = ("count", "itemsize", "nbytes", "parts")

    def __init__(self, count: int, itemsize: int = BYTES_OF_FLOAT32) -> None:
        self.count, self.itemsize, self.nbytes = count, itemsize, count * itemsize
        self.parts: dict[tuple[int, int], Phantom] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, part: slice) -> Phantom:
        """The same slice is the same phantom: there is nothing to tell two of them apart."""
        key = part.start, part.stop
        if key not in self.parts:
            self.parts[key] = Phantom(len(range(*part.indices(self.count))), self.itemsize)
        return self.parts[key]

    def add_(self, _: object, /, *, alpha: float = 1) -> Self:  # noqa: ARG002  torch's signature
        return self

    def copy_(self, _: object, /) -> Self:
        return self

    def mul_(self, _: float, /) -> Self:
        return self

    def clone(self) -> Self:
        return self

    def new_zeros(self, count: int, /) -> Phantom:
        return Phantom(count, self.itemsize)


def blocks(*vectors: Any) -> Iterator[tuple[Any, ...]]:
    """Vectors of one length side by side in cache-sized pieces, as views; what is of a shorter type than the first is widened.

    A phantom has no contents, so it has no blocks.
    """
    if isinstance(vectors[0], Phantom):
        return
    for start in range(0, len(vectors[0]), BLOCK):
        part = slice(start, start + BLOCK)
        first = vectors[0][part]
        yield first, *(widened(vector[part], first) for vector in vectors[1:])


def adagrad_(parts: Iterable[tuple[Any, Any, Any]], rate: float, tiny: float) -> None:
    """S += g^2;  w -= rate g / (sqrt(s) + tiny), for blocks (w, g, s) side by side, in place.

    torch's own fused kernel reads and writes each array once: 34 ms for 64 MiB, where one operation after the other on
    blocks in cache takes 100 (measured in one run).
    """
    parts = list(parts)
    if not parts:
        return
    import torch

    w, g, s = (list(arrays) for arrays in zip(*parts, strict=True))
    step = [torch.ones(())] * len(w)
    torch._fused_adagrad_(w, g, s, step, lr=rate, lr_decay=0.0, weight_decay=0.0, eps=tiny, maximize=False)


def cut(total: int, pieces: int) -> list[slice]:
    """Cut `total` elements into `pieces` contiguous slices whose lengths differ by one at most."""
    edges = [total * piece // pieces for piece in range(pieces + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


NARROW = {"bfloat16": 2, "float16": 2}
"""Bytes of an element of each type that is shorter than the vectors themselves."""


GREATEST_FLOAT16 = 65504.0
"""Beyond it float16 says infinity, which one gradient would carry into the parameters for ever."""


def narrowed(vector: Any, wire: str) -> Any:
    """A copy in the type that goes over the wire, rounded where that is shorter; what it cannot say, to the most that it can."""
    if wire not in NARROW:
        return vector.clone()
    if isinstance(vector, Phantom):
        return Phantom(vector.count, NARROW[wire])
    return vector.bfloat16() if wire == "bfloat16" else vector.clamp(-GREATEST_FLOAT16, GREATEST_FLOAT16).half()


def widened(part: Any, like: Any) -> Any:
    """A block as it came over the wire, in the type of the vector it is to be combined with."""
    return part if part.dtype == like.dtype else part.to(like.dtype)
