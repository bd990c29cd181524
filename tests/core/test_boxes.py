"""Regions, against the same region as a set of places."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.boxes import Box, bounding, extent, intervals, meet, slices, tiles, union, volume, whole, without


def places(box: Box) -> set[tuple[int, ...]]:
    return set(itertools.product(*(range(begin, end) for begin, end in box)))


@st.composite
def boxes(draw: st.DrawFn, dimensions: int) -> Box:
    ends = (sorted((draw(st.integers(0, 5)), draw(st.integers(0, 5)))) for _ in range(dimensions))
    return tuple((begin, end + 1) for begin, end in ends)


several = st.integers(0, 3).flatmap(lambda dimensions: st.lists(boxes(dimensions), min_size=2, max_size=6))


@given(several)
def test_two_boxes_meet_where_both_are(found: list[Box]) -> None:
    both = meet(found[0], found[1])
    assert (places(both) if both is not None else set()) == places(found[0]) & places(found[1])


@given(several)
def test_a_box_without_another_is_what_is_left_each_place_once(found: list[Box]) -> None:
    left = without(found[0], found[1])
    covered = [place for box in left for place in places(box)]
    assert len(covered) == len(set(covered))
    assert set(covered) == places(found[0]) - places(found[1])


@given(several)
def test_a_union_has_every_place_once_and_no_other(found: list[Box]) -> None:
    together = union(found)
    assert sum(map(volume, together)) == len(set().union(*map(places, found)))
    assert set().union(*map(places, together)) == set().union(*map(places, found))
    assert all(places(box) for box in together)


@given(several)
def test_what_is_around_some_boxes_is_no_larger_than_need_be(found: list[Box]) -> None:
    around = bounding(found)
    for axis, (begin, end) in enumerate(around):
        assert (begin, end) == (min(box[axis][0] for box in found), max(box[axis][1] for box in found))


@given(several)
def test_slices_find_a_box_in_a_tensor_that_holds_another(found: list[Box]) -> None:
    box = meet(found[0], found[1])
    if box is None:
        return
    within = found[0]
    inside = itertools.product(*(range(one.start, one.stop) for one in slices(box, within)))
    assert {tuple(place + begin for place, (begin, _) in zip(one, within, strict=True)) for one in inside} == places(box)


@given(st.integers(1, 40), st.integers(1, 40))
def test_intervals_follow_each_other_and_differ_by_one_at_most(size: int, parts: int) -> None:
    found = intervals(size, parts)
    assert [place for begin, end in found for place in range(begin, end)] == list(range(size))
    lengths = {end - begin for begin, end in found}
    assert len(found) == parts
    assert max(lengths) - min(lengths) <= 1


@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_tiles_cover_an_image_once_and_none_is_twice_its_share(height: int, width: int, data: st.DataObject) -> None:
    parts = data.draw(st.integers(1, height * width))
    found = tiles(height, width, parts)
    assert len(found) == parts
    covered = [place for tile in found for place in places(tile)]
    assert len(covered) == height * width == len(set(covered))
    sizes = [volume(tile) for tile in found]
    assert min(sizes) >= 1
    assert max(sizes) * parts < 2 * height * width


@pytest.mark.parametrize(("parts", "shape"), [(4, (4, 4)), (16, (2, 2)), (2, (4, 8)), (8, (2, 4))])
def test_tiles_are_as_square_as_may_be(parts: int, shape: tuple[int, int]) -> None:
    assert {tuple(sorted(extent(tile))) for tile in tiles(8, 8, parts)} == {shape}


def test_a_number_is_a_box_of_no_dimension() -> None:
    assert whole(()) == ()
    assert volume(()) == 1
    assert meet((), ()) == ()
    assert without((), ()) == []
