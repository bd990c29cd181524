"""Bugs that are planted into the running code, and hunted as a user would: `python -m tests.sim.planted` hunts all, and prints the table.

Each is found by searches that draw whole jobs of its kind, with nothing told of what to look for, and shrunk; the right code then does what
was found without a complaint.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import pytest

from sim.hunt import Found, Prey, search
from sim.oracles import trial
from sim.strategies import scenario
from tests.sim import test_partitions as split
from tests.sim import test_planted_bugs as downpour
from tests.sim import test_sandblaster_planted as sandblaster

RUNS = 50
"""Of one search."""


class Planted(NamedTuple):
    """A bug, and in which kind of job it is hunted."""

    plant: Callable[[pytest.MonkeyPatch], None]
    kind: str
    limit: int = 3000
    """Runs within which it is found."""
    rare: bool = False
    """It takes more than two hundred or so: `make planted`, not every run of the tests."""


RARE = (
    downpour.let_the_outlived_push, downpour.forget_the_ledger, downpour.tell_before_it_is_written, sandblaster.forget_what_was_staged,
    sandblaster.trust_the_first_memory, downpour.call_it_durable_at_once, downpour.acknowledge_at_once,
    split.forget_the_round,
)  # fmt: skip
"""These need one moment."""

PLANTED = [
    *[
        Planted(plant, "downpour", rare=plant in RARE)
        for plant in (
            downpour.forget_the_duplicate_check, downpour.forget_the_incarnation, downpour.take_silence_for_success, downpour.drop_a_retry,
            downpour.never_retry, downpour.acknowledge_before_applying, downpour.publish_the_live_buffer, downpour.let_the_dead_act,
            downpour.keep_the_live_buffer, downpour.call_it_durable_at_once, downpour.acknowledge_at_once, downpour.repeat_without_counting,
            downpour.take_a_mirror_for_full, downpour.forget_who_is_who, downpour.let_the_outlived_push, downpour.forget_the_ledger,
            downpour.tell_before_it_is_written,
        )
    ],
    *[
        Planted(plant, "sandblaster", rare=plant in RARE)
        for plant in (
            sandblaster.gather_what_is_there, sandblaster.count_a_bundle_beside_its_singles, sandblaster.forget_what_was_staged,
            sandblaster.trust_the_first_memory,
        )
    ],
    *[
        Planted(plant, "partitions", rare=plant in RARE)
        for plant in (split.push_at_once, split.forget_the_round, split.remember_too_well, split.acknowledge_what_is_dropped, split.ask_for_nothing)
    ],
]  # fmt: skip


def hunted(planted: Planted, seed: int = 1) -> tuple[Found | None, int]:
    """What was found, and after how many runs."""
    runs = 0
    with pytest.MonkeyPatch.context() as patch:
        planted.plant(patch)
        for number in range(planted.limit // RUNS):
            searched = search(Prey(seed, kind=planted.kind), number, RUNS)
            runs += searched.runs
            if searched.found is not None:
                return searched.found, runs
    return None, runs


def main() -> None:
    """Those that are named, or all."""
    for planted in PLANTED:
        if sys.argv[1:] and planted.plant.__name__ not in sys.argv[1:]:
            continue
        began = time.monotonic()
        found, runs = hunted(planted)
        told = "not found | |" if found is None else f"{found.rule} | {runs} | {found.faults} |"
        right = found is None or trial(scenario(found.tables)).violations() == []
        sys.stdout.write(
            f"| {planted.plant.__doc__} | {planted.kind} | {told}{'' if right else ' THE RIGHT CODE FAILS, TOO'}"
            f"   <!-- {planted.plant.__name__}, {time.monotonic() - began:.0f} s -->\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
