"""Regions of a layer's output: boxes, one interval for each dimension of the output of one sample.

A part of a layer owns a box of its output; what it needs of its inputs are boxes of theirs.  Whatever has to cross from one
machine to another is an intersection of two boxes, and whatever crosses once for several reasons is a union, kept as boxes that
do not overlap.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

Shape = tuple[int, ...]
Box = tuple[tuple[int, int], ...]
"""From and up to, for each dimension; of no dimension it is a single number."""


def whole(shape: Shape) -> Box:
    return tuple((0, size) for size in shape)


def extent(box: Box) -> Shape:
    """The shape of what lies in it."""
    return tuple(end - begin for begin, end in box)


def volume(box: Box) -> int:
    """How many elements lie in it."""
    return math.prod(end - begin for begin, end in box)


def meet(one: Box, other: Box) -> Box | None:
    """Where both are; None if that is nowhere.  Written out: placing a large model asks a million times."""
    both = []
    for (a, b), (c, d) in zip(one, other, strict=True):
        begin, end = a if a > c else c, b if b < d else d
        if begin >= end:
            return None
        both.append((begin, end))
    return tuple(both)


def without(box: Box, hole: Box) -> list[Box]:
    """What is left of a box, as boxes that do not overlap: two slabs for each dimension at most."""
    common = meet(box, hole)
    if common is None:
        return [box]
    left: list[Box] = []
    for axis, ((begin, end), (first, last)) in enumerate(zip(box, common, strict=True)):
        before, after = common[:axis], box[axis + 1 :]
        left += [(*before, slab, *after) for slab in ((begin, first), (last, end)) if slab[0] < slab[1]]
    return left


def union(boxes: Iterable[Box]) -> list[Box]:
    """The same region as boxes that do not overlap, whatever is in it once; in the order of the boxes given."""
    found: list[Box] = []
    for box in boxes:
        fresh = [box]
        for seen in found:
            fresh = [rest for one in fresh for rest in without(one, seen)]
        found += fresh
    return found


def slices(box: Box, within: Box) -> tuple[slice, ...]:
    """Where a box lies in a tensor that holds another, of which it is a part."""
    return tuple(slice(begin - first, end - first) for (begin, end), (first, _) in zip(box, within, strict=True))


def intervals(size: int, parts: int) -> list[tuple[int, int]]:
    """So many that differ by one in length at most."""
    return list(pairwise(size * part // parts for part in range(parts + 1)))


def tiles(height: int, width: int, parts: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Cut a rectangle into so many tiles of nearly one size and as square as may be, row by row.

    Bands of rows, each cut into columns; where the number is no product of two that fit, some bands have a column more, and as much
    more height.  `parts` is at most height x width.
    """
    best: tuple[float, list[tuple[tuple[int, int], tuple[int, int]]]] | None = None
    for bands in range(1, min(height, parts) + 1):
        columns = [end - begin for begin, end in intervals(parts, bands)]
        if max(columns) > width:
            continue
        if len(set(columns)) == 1:
            rows = intervals(height, bands)
        else:
            edges = [round(height * sum(columns[:band]) / parts) for band in range(bands + 1)]
            rows = list(pairwise(edges))
        found = [(row, column) for row, count in zip(rows, columns, strict=True) for column in intervals(width, count)]
        if any(begin == end for tile in found for begin, end in tile):
            continue
        largest = max((a[1] - a[0]) * (b[1] - b[0]) for a, b in found)
        border = sum((a[1] - a[0]) + (b[1] - b[0]) for a, b in found)
        score = largest * parts / (height * width) + border / (parts * (height + width))
        if best is None or score < best[0]:
            best = score, found
    assert best is not None, f"{parts} tiles of {height} x {width}"
    return best[1]


def bounding(boxes: Sequence[Box]) -> Box:
    """The smallest box around some."""
    return tuple((min(begin for begin, _ in axis), max(end for _, end in axis)) for axis in zip(*boxes, strict=True))
