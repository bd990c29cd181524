"""Random streams: each depends on its own name, and on nothing that happens elsewhere."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from core import chance


@given(st.integers(0, 2**63), st.text(max_size=10), st.text(max_size=10))
def test_a_stream_is_the_same_at_every_beginning(seed: int, entity: str, purpose: str) -> None:
    first, second = (chance.stream(seed, entity, purpose) for _ in range(2))
    assert [first.random() for _ in range(3)] == [second.random() for _ in range(3)]


def test_seed_entity_and_purpose_each_make_another_stream() -> None:
    drawn = {
        chance.number(*name)
        for name in ((1, "a", "b"), (2, "a", "b"), (1, "c", "b"), (1, "a", "c"), (1, "ab", ""), (1, "", "ab"), (11, "", "ab"))
    }
    assert len(drawn) == 7


def test_a_stream_is_today_what_it_was_when_the_digests_were_published() -> None:
    assert chance.number(7, "replica/3", "jitter") == PUBLISHED
    assert 0 <= PUBLISHED < 2**63


PUBLISHED = 5_173_099_872_929_446_342
