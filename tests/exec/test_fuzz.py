"""Twenty thousand messages of rubbish, the same every time: the server lives, counts what it refuses, holds no more, serves on."""

from __future__ import annotations

import asyncio

import pytest

from bench.fuzz import GROWTH_LIMIT, Fuzzer, fuzz
from exec.codec import decode_request
from exec.malformed import Fault, Malformed

MESSAGES, SEED = 20_000, 7

COUNTED = set(Fault) - {Fault.BROKEN, Fault.STRANGER}
"""Whoever breaks off is another test's, and so are certificates."""


@pytest.mark.timeout(300)
def test_a_server_lives_through_rubbish_and_serves_exactly_afterwards() -> None:
    found = asyncio.run(fuzz(MESSAGES, SEED))
    told = {kind: count for kind, count in found["refusals"].items() if kind != Fault.BROKEN}
    assert set(told) == {str(kind) for kind in COUNTED}
    assert sum(told.values()) == sum(found["ends"].get(kind, 0) for kind in ("refusal", "misaddressed", "not_mapped"))
    assert found["grown_mib"] * 2**20 < GROWTH_LIMIT
    assert not {"unknown", "internal", "deadline_exceeded", "unavailable", "cancelled"} & set(found["ends"]), found["ends"]


def test_the_same_seed_draws_the_same_rubbish_and_most_of_it_is_that() -> None:
    calls = [fuzzer.call() for fuzzer in (Fuzzer(SEED), Fuzzer(SEED)) for _ in range(1000)]
    assert calls[:1000] == calls[1000:]
    refused = 0
    for header in (messages[0] for messages in calls[:1000] if messages):
        try:
            decode_request(header)
        except Malformed:
            refused += 1
    assert 300 < refused < 900
