"""How plots of a run are drawn: once, by matplotlib, as a picture and as an SVG that takes the page's colours and tells its values."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from report.chronicle import Band
from report.findings import Findings

INK, GRID = "#1d1d20", "#dfe0e3"
"""Drawn so in pictures; in the page each stands for a colour of its theme."""
BLUE, ORANGE, GREEN, RED, GREY = "#4878cf", "#dd7a35", "#3d9970", "#d1495b", "#8d9299"
FAULTS = ("#dd7a35", "#8464b8", "#d1495b", "#2f9ea3", "#b8901f", "#4878cf")
TAGS = 12
"""Faults whose numbers stand above a plot; of more, they would cover each other."""
WIDTH_IN, LEFT_IN, RIGHT_IN, TOP_IN, BOTTOM_IN = 8.6, 0.95, 0.2, 0.22, 0.5


@dataclass(slots=True)
class Plot:
    """One plot, and how it is drawn."""

    name: str
    title: str
    caption: str
    header: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]
    height_in: float
    draw: Callable[[Any, Hover], None]
    """Onto a matplotlib figure of that height."""


@dataclass(slots=True)
class Series:
    """Points of a curve that the pointer reads off."""

    name: str
    times: list[float]
    values: list[float]


@dataclass(slots=True)
class Hover:
    """What the pointer reads: curves of axes, by time, and areas with a text."""

    curves: list[tuple[Any, str, list[Series]]] = field(default_factory=list)
    """Axes, unit of time, curves."""
    areas: list[tuple[Any, float, float, float, float, str]] = field(default_factory=list)
    """Axes, x from and to, y from and to, text."""

    def as_json(self, width: float, height: float) -> str:
        """In the coordinates of an SVG of that size."""
        axes = []
        for one, unit, series in self.curves:
            box = one.get_position()
            axes.append(
                {
                    "box": [box.x0 * width, (1 - box.y1) * height, box.x1 * width, (1 - box.y0) * height],
                    "limits": list(one.get_xlim()), "unit": unit,
                    "series": [{"name": s.name, "x": rounded(s.times), "y": rounded(s.values)} for s in series],
                }
            )  # fmt: skip
        areas = []
        for one, x0, x1, y0, y1, text in self.areas:
            points = one.transData.transform([(x0, y0), (x1, y1)]) / (one.figure.bbox.width, one.figure.bbox.height)
            (left, low), (right, high) = points
            top, bottom = sorted(((1 - low) * height, (1 - high) * height))
            areas.append([round(left * width, 2), round(top, 2), round(right * width, 2), round(bottom, 2), text])
        return json.dumps({"axes": axes, "areas": areas}, separators=(",", ":")).replace("</", "<\\/")


def rounded(values: Iterable[float]) -> list[float | None]:
    """Six digits; what is no finite number is none."""
    return [float(f"{value:.6g}") if abs(value) < float("inf") else None for value in values]


class Time:
    """The axis of time, in a unit that fits the run."""

    def __init__(self, findings: Findings) -> None:
        self.end_s = findings.end_s or 1.0
        self.unit, self.unit_s = next(
            ((unit, size) for unit, size in (("h", 3600.0), ("min", 60.0)) if self.end_s > 5 * size), ("s", 1.0)
        )  # fmt: skip
        self.label = f"{'virtual time' if findings.summary['world'] == 'sim' else 'time'}, {self.unit}"
        self.bands = findings.bands()

    def of(self, times: Iterable[float]) -> list[float]:
        return [time_s / self.unit_s for time_s in times]

    def shade(self, axes: Any, *, tagged: bool = True) -> None:
        """Every fault's times, in its colour; their numbers on top where there are few."""
        by_fault: dict[str, list[Band]] = {}
        taken = -1.0
        for band in sorted(self.bands, key=lambda band: band.begin_s):
            by_fault.setdefault(band.what, []).append(band)
        alpha = 0.14 / max(1, len(by_fault)) ** 0.7  # those that last together stay paler than what they shade
        for what, bands in by_fault.items():
            colour = colour_of(what)
            spans = [(begin / self.unit_s, max(end - begin, self.end_s / 1500) / self.unit_s) for begin, end in united(bands, self.end_s)]
            axes.broken_barh(spans, (0, 1), transform=axes.get_xaxis_transform(), facecolors=colour, alpha=alpha, linewidth=0, zorder=0)
            if tagged and len(by_fault) <= TAGS:
                place = max(taken + 0.025, spans[0][0] * self.unit_s / self.end_s)  # beside one that begins at the same time
                taken = place
                axes.annotate(
                    number_of(what) or "crash", (place, 1), xycoords="axes fraction", xytext=(2, 2), textcoords="offset points",
                    color=colour, fontsize=8, fontweight="bold", annotation_clip=False,
                )  # fmt: skip

    def set(self, axes: Any, *, labelled: bool = True) -> None:
        axes.set_xlim(0, self.end_s / self.unit_s)
        if labelled:
            axes.set_xlabel(self.label)


def united(bands: Iterable[Band], end_s: float) -> list[tuple[float, float]]:
    """The times in which any of them lasts."""
    found: list[tuple[float, float]] = []
    for begin, end in sorted((band.begin_s, end_s if band.end_s is None else band.end_s) for band in bands):
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((begin, end))
    return found


def number_of(fault: str) -> str:
    """The 1 of "fault.1 crash"."""
    return fault.partition(".")[2].partition(" ")[0]


def colour_of(fault: str) -> str:
    number = number_of(fault)
    return FAULTS[int(number) % len(FAULTS)] if number else RED


def axes_of(figure: Any, rows: int = 1, ratios: Sequence[float] = (), *, left_in: float = LEFT_IN) -> list[Any]:
    """Axes one above the other, over the same x."""
    height = figure.get_figheight()
    margins = {
        "left": left_in / WIDTH_IN, "right": 1 - RIGHT_IN / WIDTH_IN, "top": 1 - TOP_IN / height, "bottom": BOTTOM_IN / height, "hspace": 0.14,
    }  # fmt: skip
    grid = figure.add_gridspec(rows, 1, height_ratios=ratios or [1] * rows, **margins)
    found: list[Any] = []
    for row in range(rows):
        axes = figure.add_subplot(grid[row], sharex=found[0] if found else None)
        axes.patch.set_alpha(0)  # the page's own colour is behind it
        axes.tick_params(colors=INK, labelsize=9, length=3, width=0.6, labelbottom=row == rows - 1)
        axes.grid(color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set(color=GREY, linewidth=0.6)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set(color=INK, fontsize=9)
        found.append(axes)
    return found


def render(plot: Plot, folder: Path) -> tuple[str, str]:
    """The SVG for the page and what the pointer reads; the picture and the numbers are written into the folder."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "report", "path.simplify_threshold": 0.2, "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(WIDTH_IN, plot.height_in))
        figure.patch.set_alpha(0)
        hover = Hover()
        plot.draw(figure, hover)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(folder / f"{plot.name}.png", dpi=110, facecolor="white")
    with (folder / f"{plot.name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(plot.header)
        # to the nanosecond, as journals have their times: so they are the same whether a plot is of a run or of its folder
        writer.writerows([round(cell, 9) if isinstance(cell, float) else cell for cell in row] for row in plot.rows)
    return inlined(text.getvalue(), plot), hover.as_json(WIDTH_IN * 72, plot.height_in * 72)


def inlined(svg: str, plot: Plot) -> str:
    """As a part of the page: no prologue, ids of its own, few digits, colours of the theme."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\b(id="|url\(#|xlink:href="#)', rf"\g<1>{plot.name}-", body)
    body = re.sub(r"(\d+\.\d\d)\d+", r"\1", body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    for colour, variable in ((INK, "ink"), (GRID, "grid")):
        body = body.replace(colour, f"var(--{variable})")
    body = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1), count=1)
    return body.replace("<svg", f'<svg role="img" aria-label="{plot.title}"', 1)
