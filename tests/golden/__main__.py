"""Write every golden journal anew: `python -m tests.golden`.  What has changed is for `git diff` to show, and for you to judge."""

from __future__ import annotations

from tests.golden.journals import SCENARIOS, golden, text

for scenario in SCENARIOS:
    golden(scenario).write_text(text(scenario), encoding="utf-8")
