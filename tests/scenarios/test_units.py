"""Quantities: what is understood, what is refused, and what the refusal says."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenarios import units
from scenarios.units import SECONDS, bandwidth, duration, in_words, operations, positive_duration, rate_in_words, speed, updates


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (duration, "30 s", 30.0),
        (duration, "30s", 30.0),
        (duration, " 1.5   ms ", 0.0015),
        (duration, "50 us", 50e-6),
        (duration, "50 µs", 50e-6),
        (duration, "7 ns", 7e-9),
        (duration, "10 min", 600.0),
        (duration, "6 h", 21600.0),
        (duration, "2 d", 172800.0),
        (duration, "2 days", 172800.0),
        (duration, "1e3 ms", 1.0),
        (duration, "1_000 s", 1000.0),
        (duration, ".5 s", 0.5),
        (duration, "5. s", 5.0),
        (duration, "0 s", 0.0),
        (duration, "+3 s", 3.0),
        (bandwidth, "10 Gbit/s", 1.25e9),
        (bandwidth, "100 Mbit/s", 12.5e6),
        (bandwidth, "8 kbit/s", 1e3),
        (bandwidth, "8 bit/s", 1.0),
        (bandwidth, "3 GB/s", 3e9),
        (bandwidth, "1 MiB/s", 2.0**20),
        (speed, "40 GFLOP/s", 40e9),
        (speed, "1.5 TFLOP/s", 1.5e12),
        (operations, "250 MFLOP", 250e6),
        (operations, "2 PFLOP", 2e15),
        (updates, "200 updates", 200),
        (updates, "1 update", 1),
        (updates, "0 updates", 0),
    ],
)
def test_a_quantity_is_read_in_base_units(parse: Callable[[object], float], text: str, value: float) -> None:
    assert parse(text) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("parse", "found"),
    [
        (duration, "30"),
        (duration, "30 sec"),
        (duration, "30 S"),
        (duration, "thirty s"),
        (duration, "s"),
        (duration, ""),
        (duration, "nan s"),
        (duration, "inf s"),
        (duration, "1e999 s"),
        (duration, "-1 s"),
        (duration, "1 s 2"),
        (duration, "10 Gbit/s"),
        (duration, None),
        (duration, True),
        (duration, [1]),
        (positive_duration, "0 s"),
        (bandwidth, "0 Gbit/s"),
        (bandwidth, "10 Gbit"),
        (bandwidth, "10 GB"),
        (speed, "40 GFLOP"),
        (speed, "0 FLOP/s"),
        (operations, "250 MFLOP/s"),
        (updates, "1.5 updates"),
        (updates, "-1 updates"),
        (updates, "200 s"),
    ],
)
def test_what_is_no_such_quantity_is_refused(parse: Callable[[object], float], found: Any) -> None:
    with pytest.raises(ValueError, match=r"allowed: |must be "):
        parse(found)


@pytest.mark.parametrize(
    ("parse", "found", "hint"),
    [
        (duration, 30, "did you mean '30 s'?"),
        (duration, 0.5, "did you mean '0.5 s'?"),
        (bandwidth, 10, "did you mean '10 Gbit/s'?"),
        (speed, 40, "did you mean '40 GFLOP/s'?"),
        (operations, 250, "did you mean '250 MFLOP'?"),
        (updates, 200, "did you mean '200 updates'?"),
    ],
)
def test_a_bare_number_is_refused_with_a_hint(parse: Callable[[object], float], found: float, hint: str) -> None:
    with pytest.raises(ValueError, match="a bare number") as caught:
        parse(found)
    assert hint in str(caught.value)


@given(st.integers(0, 10**6), st.sampled_from(sorted(SECONDS)))
def test_every_unit_of_time_is_understood(number: int, unit: str) -> None:
    assert duration(f"{number} {unit}") == pytest.approx(number * SECONDS[unit])


@given(st.text(max_size=12))
def test_any_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert units.duration(text) >= 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 s"), (3.5e-4, "350 us"), (4.2, "4.2 s"), (0.06, "60 ms"), (60, "1 min"), (200, "3 min 20 s"),
        (3600, "1 h"), (7500, "2 h 5 min"), (2e-9, "2 ns"),
    ],
)  # fmt: skip
def test_a_duration_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


@pytest.mark.parametrize(
    ("bytes_per_s", "words"), [(0.0, "0 B/s"), (850e3, "850 kB/s"), (1.25e9, "1.25 GB/s"), (2e8, "200 MB/s"), (3e15, "3e+03 TB/s")]
)
def test_a_rate_in_words(bytes_per_s: float, words: str) -> None:
    assert rate_in_words(bytes_per_s) == words
