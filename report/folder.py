"""The folder of one run: summary.json, journal.tsv, curve.csv, curve.png, the model; of execctl also journals/ and logs/."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from report.tally import Evaluation


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
    def model(self) -> Path:
        return self.model_in(self.path)

    JOURNALS = "journals"
    """Of execctl: one journal for each life of each role, merged into journal.tsv at the end."""

    @staticmethod
    def model_in(path: Path) -> Path:
        return path / "model.safetensors"

    def write_summary(self, summary: dict[str, Any]) -> None:
        self.summary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")

    def write_curve(self, curve: Sequence[Evaluation], title: str, time_label: str) -> None:
        """The loss curve as numbers, and as a picture where there is something to see."""
        with (self.path / "curve.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(Evaluation._fields)
            writer.writerows(curve)
        if curve:
            draw(self.path / "curve.png", curve, title, time_label)


def draw(path: Path, curve: Sequence[Evaluation], title: str, time_label: str) -> None:
    """Loss, and accuracy where there is one, over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    left = figure.add_subplot()
    times = [point.time_s for point in curve]
    left.plot(times, [point.loss for point in curve], color="tab:red", marker=".", label="held-out loss")
    left.set(xlabel=time_label, ylabel="loss", title=title)
    accuracies = [point.accuracy for point in curve if point.accuracy is not None]
    if len(accuracies) == len(curve):
        right = left.twinx()
        right.plot(times, accuracies, color="tab:blue", marker=".", label="held-out accuracy")
        right.set(ylabel="accuracy", ylim=(0, 1))
        right.legend(loc="lower right")
    left.grid(alpha=0.3)
    left.legend(loc="upper right")
    figure.savefig(path, dpi=120)
