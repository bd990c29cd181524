"""The first is the least, whoever joins, moves or leaves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sim.heap import Entry, Heap

KEYS = st.sampled_from([0.0, 1.0, 2.5, 2.5, 7.0, float("inf")])
"""Few, so that many are the same."""


@given(st.lists(st.tuples(st.integers(0, 11), st.none() | KEYS), max_size=60))
def test_in_whatever_order_they_come_move_and_go(steps: list[tuple[int, float | None]]) -> None:
    """A key: it is put there, or moved; none: it leaves."""
    entries = [Entry() for _ in range(12)]
    for serial, entry in enumerate(entries):
        entry.serial = serial
    heap: Heap[Entry] = Heap()
    inside: dict[int, float] = {}
    for number, key in steps:
        if key is not None:
            heap.put(entries[number], key)
            inside[number] = key
        elif number in inside:
            del inside[number]
            heap.remove(entries[number])
        assert len(heap.entries) == len(inside)
        assert [entry.inside for entry in entries] == [number in inside for number in range(12)]
        assert [heap.entries[entry.place] is entry for entry in entries if entry.inside] == [True] * len(inside)
        if inside:
            assert (heap.entries[0].key, heap.entries[0].serial) == min((key, number) for number, key in inside.items())
    left = [number for _, number in sorted((key, number) for number, key in inside.items())]
    found = []
    while heap.entries:
        found.append(heap.entries[0].serial)
        heap.remove(heap.entries[0])
    assert found == left


def test_cleared_it_knows_nobody() -> None:
    heap: Heap[Entry] = Heap()
    one, other = Entry(), Entry()
    one.serial, other.serial = 0, 1
    for key, entry in enumerate((one, other)):
        heap.put(entry, float(key))
    heap.clear()
    assert (len(heap.entries), one.inside, other.inside) == (0, False, False)
    heap.put(other, 3.0)
    assert heap.entries[0] is other
