"""What Sandblaster's coordinator may ask of the shards (paper, section 4.2): a small set of operations on named vectors.

    "the coordinator issues commands drawn from a small set of operations (e.g., dot product, scaling, coefficient-wise
    addition, multiplication) that can be performed by each parameter server shard independently, with the results being
    stored locally on the same shard"

A name means, on each shard, its own slice of that vector.  Only `Dot`, `Norm1` and `Largest` yield a number, and only
numbers travel: what each shard `run`s comes together in `merged`.  Several operations go as one batch: one round trip.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from core.rules import Rule
from core.vector import Phantom, blocks
from core.work import Cost

CACHED = 1 << 14
"""Elements of one block while numbers are taken: the twenty-odd vectors of a history, widened to 128 KiB each, stay near
the core while every pair of them is multiplied (8 vectors, 36 products: twice as fast as in blocks of 1 MiB)."""


class Unknown(Exception):
    """No vector of this name lies on this shard."""


@dataclass(frozen=True, slots=True)
class Dot:
    """The sum of products."""

    a: str
    b: str
    kind: Literal["dot"] = "dot"

    def reads(self) -> tuple[str, ...]:
        return self.a, self.b

    def of(self, block: dict[str, Any]) -> float:
        return float(block[self.a].dot(block[self.b]))

    def together(self, numbers: Iterable[float]) -> float:
        return total(numbers)


@dataclass(frozen=True, slots=True)
class Norm1:
    """The sum of absolute values."""

    a: str
    kind: Literal["norm1"] = "norm1"

    def reads(self) -> tuple[str, ...]:
        return (self.a,)

    def of(self, block: dict[str, Any]) -> float:
        return float(block[self.a].abs().sum())

    def together(self, numbers: Iterable[float]) -> float:
        return total(numbers)


@dataclass(frozen=True, slots=True)
class Largest:
    """The largest absolute value."""

    a: str
    kind: Literal["largest"] = "largest"

    def reads(self) -> tuple[str, ...]:
        return (self.a,)

    def of(self, block: dict[str, Any]) -> float:
        return float(block[self.a].abs().max())

    def together(self, numbers: Iterable[float]) -> float:
        return largest(numbers)


@dataclass(frozen=True, slots=True)
class Combine:
    """into = sum of coefficient * vector: scaling, copying and adding in one.

    `into` is made where there is none, and may be among the terms; nothing else as long as a vector is needed.
    """

    into: str
    terms: tuple[tuple[str, float], ...]
    kind: Literal["combine"] = "combine"

    def reads(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.terms)

    def do(self, vectors: dict[str, Any], _: Rule | None) -> None:
        coefficients: dict[str, float] = {}
        for name, coefficient in self.terms:
            coefficients[name] = coefficients.get(name, 0.0) + coefficient
        if self.into not in vectors:
            like = vectors[self.terms[0][0]]
            vectors[self.into] = like.new_zeros(len(like))
        own = coefficients.pop(self.into, None)
        for target, *others in blocks(vectors[self.into], *(vectors[name] for name in coefficients)):
            if own is None:
                target.zero_()
            elif own != 1.0:
                target.mul_(own)
            for other, coefficient in zip(others, coefficients.values(), strict=True):
                target.add_(other, alpha=coefficient)


@dataclass(frozen=True, slots=True)
class Drop:
    """Forget vectors.  One that is not there is no error: a coordinator's new life clears away what may have been left."""

    names: tuple[str, ...]
    kind: Literal["drop"] = "drop"

    def reads(self) -> tuple[str, ...]:
        return ()

    def do(self, vectors: dict[str, Any], _: Rule | None) -> None:
        for name in self.names:
            vectors.pop(name, None)


@dataclass(frozen=True, slots=True)
class Update:
    """One step of the shard's own rule with that gradient; what state the rule has lies with it, and is no named vector."""

    gradient: str
    kind: Literal["update"] = "update"

    def reads(self) -> tuple[str, ...]:
        return "parameters", self.gradient

    def do(self, vectors: dict[str, Any], rule: Rule | None) -> None:
        assert rule is not None
        rule.apply(vectors["parameters"], vectors[self.gradient])


Number = Dot | Norm1 | Largest
Change = Combine | Drop | Update
Operation = Number | Change


def operation_of(told: dict[str, Any]) -> Operation:
    """Of what `dataclasses.asdict` made of it, perhaps by way of JSON."""
    kinds: dict[str, type[Operation]] = {"dot": Dot, "norm1": Norm1, "largest": Largest, "combine": Combine, "drop": Drop, "update": Update}
    if told["kind"] == "combine":
        told = told | {"terms": tuple((name, coefficient) for name, coefficient in told["terms"])}
    return kinds[told["kind"]](**told)


def run(operations: Sequence[Operation], vectors: dict[str, Any], rule: Rule | None = None) -> list[float]:
    """Do a batch on one shard's slices, in order; the numbers it yields.  Raises Unknown before anything is done.

    `rule`: the shard's, which an `Update` needs.
    """
    check(operations, vectors)
    numbers = []
    for yields, some in groupby(operations, key=lambda operation: isinstance(operation, Number)):
        if yields:
            numbers += measured([operation for operation in some if isinstance(operation, Number)], vectors)
        else:
            for operation in some:
                assert isinstance(operation, Change)
                operation.do(vectors, rule)
    return numbers


def check(operations: Sequence[Operation], names: Iterable[str]) -> None:
    """Raises Unknown if any operation would find a name missing, those before it in the batch being done."""
    known = set(names)
    for operation in operations:
        for name in operation.reads():
            if name not in known:
                raise Unknown(name)
        match operation:
            case Combine(into=into, terms=terms):
                assert terms, f"{into} = a sum of nothing has no length"
                known.add(into)
            case Drop(names=names):
                known.difference_update(names)


def measured(operations: Sequence[Number], vectors: dict[str, Any]) -> list[float]:
    """Block by block in float64, each block read and widened once for all who ask; a phantom's numbers are all zero.

    Blocks come together as shards do, so how a vector is cut makes no difference beyond float64's rounding.
    """
    names = list(dict.fromkeys(name for operation in operations for name in operation.reads()))
    if isinstance(vectors[names[0]], Phantom):
        return [0.0] * len(operations)
    numbers: list[list[float]] = [[] for _ in operations]
    for start in range(0, len(vectors[names[0]]), CACHED):
        block = {name: vectors[name][start : start + CACHED].double() for name in names}
        for operation, found in zip(operations, numbers, strict=True):
            found.append(operation.of(block))
    return [operation.together(found) for operation, found in zip(operations, numbers, strict=True)]


def merged(operations: Sequence[Operation], answers: Sequence[Sequence[float]]) -> list[float]:
    """The numbers of whole vectors from those of every shard's slices."""
    yielding = [operation for operation in operations if isinstance(operation, Number)]
    return [operation.together(numbers) for operation, numbers in zip(yielding, zip(*answers, strict=True), strict=True)]


def total(numbers: Iterable[float]) -> float:
    """The sum, the same in any order where it is finite."""
    numbers = list(numbers)
    try:
        return math.fsum(numbers)
    except (OverflowError, ValueError):  # infinities of both signs, or a sum beyond float64: as arithmetic has it
        return sum(numbers)


def largest(numbers: Iterable[float]) -> float:
    """The largest, or NaN if there is one; Python's own max finds a NaN only where it comes first."""
    numbers = list(numbers)
    return math.nan if any(map(math.isnan, numbers)) else max(numbers, default=0.0)


def cost(operations: Sequence[Operation], nbytes: float, update_traffic: int = 0) -> Cost:
    """What a batch costs on slices of `nbytes`: all of it is bound by memory.  `update_traffic`: of the shard's rule.

    Products of one round share what they read, and pay for that with the widening: measured, each costs about as
    much as reading both its vectors.
    """
    lengths = sum(
        update_traffic if isinstance(operation, Update) else len(operation.reads()) + isinstance(operation, Combine)
        for operation in operations
    )
    return Cost(0.0, nbytes * lengths)
