"""A run is compared with itself: in another process, and in other orders of what happens at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from report.exits import Exit
from sim.cli import main
from sim.repeat import Parting, parting

LUCKY = """
numerics = "timing"
[model]
network = "lucky.py:network"
[data]
source = "lucky.py:data"
[protocol]
kind = "downpour"
replicas = 2
shards = 1
stop = { updates = 10 }
[cluster]
speed = "1 MFLOP/s"
"""
NETWORK = """
import torch
def network():
    return torch.nn.Linear(1, 2 + hash("whatever Python makes of this today") % 1_000_000)
def data():
    return torch.zeros(100, 1), torch.zeros(100, dtype=torch.long)
"""


def write(folder: Path, **lines: str) -> list[Path]:
    for name, text in lines.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in lines]


@pytest.mark.parametrize(
    ("first", "second", "parts"),
    [
        ("a\nb\n", "a\nb\n", None),
        ("a\nb\nc\n", "a\nx\nc\n", Parting(2, "b", "x")),
        ("a\n", "a\nb\n", Parting(2, None, "b")),
        ("a\nb\n", "a\n", Parting(2, "b", None)),
        ("", "", None),
    ],
)
def test_journals_part_at_the_first_line_that_differs(tmp_path: Path, first: str, second: str, parts: Parting | None) -> None:
    assert parting(*write(tmp_path, first=first, second=second)) == parts


def simctl(*arguments: str) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(main, ["run", *arguments, "--json", "--no-report"])
    return result.exit_code, json.loads(result.stdout)


def test_a_second_run_writes_the_same_journal(tmp_path: Path) -> None:
    code, summary = simctl(
        "quickstart", "--set", "numerics=timing", "--set", "protocol.stop.epochs=2", "--twice", "--out", str(tmp_path / "out")
    )
    assert code == Exit.DONE
    assert summary["twice"] == {"same": True, "told": "a second run, which hashes differently, wrote the same journal"}


def test_what_hangs_on_how_python_hashes_is_found_and_the_line_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, **{"lucky.py": NETWORK, "lucky.toml": LUCKY})
    code, summary = simctl("lucky.toml", "--twice", "--out", "out")
    assert code == Exit.UNMET
    found = summary["twice"]
    assert not found["same"]
    lines = (tmp_path / "out" / "journal.tsv").read_text().splitlines()
    assert lines[found["line"] - 1] == found["first"] != found["second"]


def test_other_orders_of_ties_are_run_and_their_spread_is_told(tmp_path: Path) -> None:
    code, summary = simctl(
        "quickstart", "--set", "numerics=timing", "--set", "protocol.stop.epochs=2", "--shuffle-ties", "2", "--out", str(tmp_path / "out")
    )
    assert code == Exit.DONE
    spread = {one["metric"]: one for one in summary["ties"]}
    assert spread["seconds"]["least"] <= spread["seconds"]["median"] <= spread["seconds"]["most"]
    assert spread["seconds"]["usual"] == summary["seconds"]
    assert spread["accuracy"]["usual"] is None
