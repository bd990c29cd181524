"""Golden journals: small scenarios whose every line is kept, with words in front that say what happens there.

`NAME.toml` is a scenario, timing only, so that its journal is the same on every machine; the comment that it begins with is also the
beginning of `NAME.journal`.  In it, "Reached:" names a situation of `core/moments.py` that the journal must not miss.
"""

from __future__ import annotations

import io
from itertools import takewhile
from pathlib import Path

from core.journal import COLUMNS
from scenarios.load import load
from sim.run import Run

HERE = Path(__file__).parent
SCENARIOS = sorted(HERE.glob("*.toml"))


def golden(scenario: Path) -> Path:
    """The file that its journal is kept in."""
    return scenario.with_suffix(".journal")


def prose(scenario: Path) -> list[str]:
    """The lines of the comment that it begins with."""
    return list(takewhile(lambda line: line.startswith("#"), scenario.read_text(encoding="utf-8").splitlines()))


def situations(scenario: Path) -> list[str]:
    """That it says it reaches."""
    return [line.removeprefix(mark) for line in prose(scenario) if line.startswith(mark := "# Reached: ")]


def journal(scenario: Path) -> str:
    """What it writes today, line by line."""
    lines = io.BytesIO()
    run = Run(load(str(scenario)), lines)
    run.simulate()
    run.journal.flush()
    return lines.getvalue().decode()


def text(scenario: Path) -> str:
    """What is kept of it: the words, the names of the columns, the lines."""
    return "\n".join([*prose(scenario), "#", f"# {'  '.join(COLUMNS)}", ""]) + journal(scenario)
