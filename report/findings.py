"""Everything that a report is made of: from memory where the run has just ended, from its folder afterwards."""

from __future__ import annotations

import csv
import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.errors import InputError
from report.chronicle import Band, Chronicle
from report.folder import RunFolder
from report.search import Wanted, journals_of, search
from report.tally import Tally
from scenarios.units import duration

Row = dict[str, Any]


@dataclass(slots=True)
class Findings:
    """Of one run."""

    summary: dict[str, Any]
    tally: Tally
    chronicle: Chronicle
    scenario: str = ""
    """As TOML; "" where the folder has none."""
    accounts: list[Row] = field(default_factory=list)
    links: list[Row] = field(default_factory=list)

    @property
    def end_s(self) -> float:
        """Of everything that was recorded."""
        lives = [band.end_s or band.begin_s for bands in self.chronicle.lives.values() for band in bands]
        curve = [point.time_s for point in (*self.tally.curve, *self.tally.steps)]
        return max(self.summary["seconds"] or 0.0, *lives, *curve, 0.0)

    def bands(self) -> list[Band]:
        """When faults were at work, the end of the run at the latest: as the run tells it, else as far as the journal and the scenario do."""
        end, faults = self.end_s, self.summary["faults"]
        if any("times" in fault for fault in faults):
            told = [
                Band(f"fault.{number} {fault['kind']}", fault["target"], begin, until)
                for number, fault in enumerate(faults)
                for begin, until in fault.get("times", ())
            ]
        else:
            told = self.chronicle.faults + self.undocumented({band.what for band in self.chronicle.faults})
        return [band._replace(end_s=end if band.end_s is None else min(end, band.end_s)) for band in told if band.begin_s <= end]

    def undocumented(self, known: set[str]) -> list[Band]:
        """Declared faults that leave no line of their own in a journal, as the loss of messages."""
        declared = tomllib.loads(self.scenario).get("fault", [])
        found = []
        for number, fault in enumerate(self.summary["faults"][: len(declared)]):
            name, lasts = f"fault.{number} {fault['kind']}", declared[number].get("for")
            if name not in known and fault["at_s"] is not None and fault["bit"]:
                found.append(Band(name, fault["target"], fault["at_s"], fault["at_s"] + duration(lasts) if lasts else None))
        return found


def from_memory(folder: RunFolder, summary: dict[str, Any], tally: Tally, chronicle: Chronicle) -> Findings:
    scenario = folder.scenario.read_text(encoding="utf-8") if folder.scenario.is_file() else ""
    return Findings(summary, tally, chronicle, scenario, table(folder.accounts), table(folder.links))


def from_folder(run: Path) -> Findings:
    """Read everything again.  Raises InputError for a folder without a summary."""
    folder, tally, chronicle = RunFolder(run), Tally(), Chronicle()
    if not folder.summary.is_file():
        raise InputError(f"{run}: no {folder.summary.name} is there; allowed: the folder of a run that has ended")
    summary = json.loads(folder.summary.read_text(encoding="utf-8"))
    takers = [tally.takers, chronicle.takers]
    events = tuple(dict.fromkeys(event for some in takers for event in some))
    for record in search(journals_of(run), Wanted(kinds=events)):
        for some in takers:
            if record.event in some:
                some[record.event](*record)
    return from_memory(folder, summary, tally, chronicle)


def table(path: Path) -> list[Row]:
    """A CSV file, numbers as numbers; empty where there is none."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: number(value) for key, value in row.items()} for row in csv.DictReader(file)]


def number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
