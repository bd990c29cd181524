"""The folder of one run: scenario.toml, summary.json, journal.tsv, report.html, plots/, the model; of execctl also journals/ and logs/."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scenarios.schema import Scenario


class FolderError(Exception):
    """The run folder cannot be made or written; the message says where and why."""


class RunFolder:
    """Made new for each run; an existing folder with a run in it is never written over."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def new(cls, path: Path) -> RunFolder:
        """Raises FolderError."""
        folder = cls(path)
        try:
            path.mkdir(parents=True, mode=0o700, exist_ok=True)
        except OSError as error:
            raise FolderError(f"cannot make the run folder {path}: {error.strerror}") from None
        if folder.journal.exists() or folder.summary.exists() or (path / folder.JOURNALS).exists():
            raise FolderError(f"{path} holds a run already; choose another --out")
        return folder

    @classmethod
    def fresh(cls, scenario: str, world: str, out: Path | None) -> RunFolder:
        """`out` itself, or a new folder under runs/ named after the scenario, the world and the time."""
        if out is not None:
            return cls.new(out)
        name = f"{scenario}-{world}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
        for attempt in range(1000):
            path = Path("runs") / (name if not attempt else f"{name}-{attempt}")
            if not path.exists():
                return cls.new(path)
        raise FolderError(f"runs/{name} and a thousand more are taken")

    @property
    def journal(self) -> Path:
        return self.path / "journal.tsv"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def trace(self) -> Path:
        return self.path / "trace.json"

    @property
    def scenario(self) -> Path:
        """As it was given, overrides included."""
        return self.path / "scenario.toml"

    @property
    def accounts(self) -> Path:
        return self.path / "accounts.csv"

    @property
    def links(self) -> Path:
        return self.path / "links.csv"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def plots(self) -> Path:
        """Every plot of the report as a picture and as numbers."""
        return self.path / "plots"

    @property
    def model(self) -> Path:
        return self.model_in(self.path)

    JOURNALS = "journals"
    """Of execctl: one journal for each life of each role, merged into journal.tsv at the end."""

    @staticmethod
    def model_in(path: Path) -> Path:
        return path / "model.safetensors"

    def write_scenario(self, scenario: Scenario) -> None:
        self.scenario.write_text(scenario.toml(), encoding="utf-8")

    def write_accounts(self, states: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Seconds of each role in each state: role, machine, life_count, then the states; a row sums to the run's length."""
        with self.accounts.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("role", "machine", "life_count", *states))
            writer.writerows(rows)

    def write_links(self, header: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
        """One row for each link that carried anything."""
        with self.links.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows(rows)

    def write_summary(self, summary: dict[str, Any]) -> None:
        self.summary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
