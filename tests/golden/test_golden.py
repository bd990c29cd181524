"""Every golden journal is what its scenario writes today, line by line; `tests/golden/journals.py` says what they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.journal import read
from core.situations import Situations
from sim.repeat import parting
from tests.golden.journals import SCENARIOS, golden, journal, prose, situations, text

REMEDY = "if that is meant: `python -m tests.golden` (make golden), then read what `git diff tests/golden` shows, and correct the words in the .toml"


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.stem for scenario in SCENARIOS])
def test_a_golden_journal_is_what_is_written_today(scenario: Path, tmp_path: Path) -> None:
    today = tmp_path / "today.journal"
    today.write_text(text(scenario), encoding="utf-8")
    parted = parting(golden(scenario), today)
    assert parted is None, f"{golden(scenario).name}: {parted}\n{REMEDY}"


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.stem for scenario in SCENARIOS])
def test_it_is_short_begins_with_words_and_tells_of_what_they_say(scenario: Path) -> None:
    lines = journal(scenario).splitlines(keepends=True)
    assert 40 <= len(lines) <= 150
    assert len(prose(scenario)) > 5
    found, promised = Situations(), situations(scenario)
    found.read(read(iter(lines)))
    assert promised
    assert set(promised) <= found.reached.keys()


def test_no_golden_journal_is_without_its_scenario() -> None:
    assert {golden(scenario) for scenario in SCENARIOS} == set(Path(__file__).parent.glob("*.journal"))
