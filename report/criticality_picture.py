"""What single losses cost, as a heat map: things from the worst down, moments from left to right."""

from __future__ import annotations

import io
from collections.abc import Iterator
from textwrap import wrap
from typing import Any

from report.criticality_findings import Criticality, Row
from report.criticality_table import below, heading, in_few, named, told
from report.drawing import GRID, INK
from scenarios.units import in_words

FAILED = "#d55e00"
"""Vermilion, which nobody mistakes for a blue (Okabe and Ito, 2008)."""
MARGIN_IN, CELL_IN, ROW_IN, LINE_IN, TOP_IN, RIGHT_IN, BOTTOM_IN = 0.12, 0.95, 0.24, 0.17, 1.2, 1.1, 0.62
LEAST_IN, LETTERS = 7.2, 15.5
"""Least width, for the words above and below; how many of their letters are an inch."""
REASONS = 5
"""Of failures, told below the map."""


def draw(found: Criticality) -> str:
    """As SVG, the same for the same findings."""
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "criticality", "text.parse_math": False, "font.family": "DejaVu Sans"}):
        text = io.StringIO()
        figure(found).savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def figure(found: Criticality) -> Any:
    """A matplotlib figure."""
    from matplotlib.figure import Figure

    rows, scale = found.worst_first(), Scale(found)
    names_in = 0.3 + 0.066 * max((len(named(row)) for row in rows), default=0)
    map_in, rows_in = max(CELL_IN * len(found.moments_s), LEAST_IN - names_in - RIGHT_IN), ROW_IN * max(1, len(rows))
    width = names_in + map_in + RIGHT_IN
    lines = [line for remark in remarks(found, rows) for line in wrap(remark, int(LETTERS * width), subsequent_indent="    ")]
    below_in = BOTTOM_IN + LINE_IN * len(lines)
    height = TOP_IN + rows_in + below_in
    made = Figure(figsize=(width, height), facecolor="white")
    axes = made.add_axes((names_in / width, below_in / height, map_in / width, rows_in / height))
    cells(axes, found, rows, scale)
    bar_in = min(rows_in, 2.4)
    scale.bar(made, made.add_axes(((width - RIGHT_IN + 0.25) / width, 1 - (TOP_IN + bar_in) / height, 0.16 / width, bar_in / height)))
    made.text(
        MARGIN_IN / width, 1 - 0.3 / height, f"What the loss of one thing costs {found.scenario}", fontsize=12, weight="bold", color=INK
    )
    for number, line in enumerate(list(heading(found))[1:]):
        made.text(MARGIN_IN / width, 1 - (0.52 + LINE_IN * number) / height, line, fontsize=7.5, color=INK)
    for number, line in enumerate(lines, start=1):
        made.text(MARGIN_IN / width, (0.1 + LINE_IN * (len(lines) - number)) / height, line, fontsize=7.5, color=INK)
    return made


class Scale:
    """Which colour stands for what a loss costs."""

    def __init__(self, found: Criticality) -> None:
        from matplotlib import colormaps
        from matplotlib.colors import ListedColormap, PowerNorm

        prices = [row.price(one) for row in found.rows.values() for one in row.outcomes.values() if not one.failed]
        most = max([0.0, *prices])
        self.unit, self.size = ("updates", 1.0) if found.measure == "updates_fewer" else unit_of_time(most)
        self.colours = ListedColormap(colormaps["Blues"]([0.9 * step / 255 for step in range(256)]))
        # by the square root: what costs a little is not what costs nothing, beside what costs a hundred times as much
        self.norm = PowerNorm(0.5, 0.0, max(most / self.size, 1e-9))

    def shade(self, price: float) -> float:
        """From 0 to 1; of a job that ends earlier than undisturbed 0."""
        return float(self.norm(max(0.0, price) / self.size))

    def bar(self, made: Any, axes: Any) -> None:
        """What the colours stand for."""
        from matplotlib.cm import ScalarMappable
        from matplotlib.ticker import MaxNLocator

        made.colorbar(ScalarMappable(self.norm, self.colours), cax=axes)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_title(f"{self.unit} lost", fontsize=8, color=INK, loc="left")
        axes.tick_params(labelsize=7.5, colors=INK, length=2)
        axes.spines[:].set_visible(False)


def unit_of_time(most_s: float) -> tuple[str, float]:
    return next(((unit, size) for unit, size in (("hours", 3600.0), ("minutes", 60.0)) if most_s > 2 * size), ("seconds", 1.0))


def cells(axes: Any, found: Criticality, rows: list[Row], scale: Scale) -> None:
    """One rectangle for each run, in words too."""
    from matplotlib.patches import Rectangle

    columns = found.moments_s

    def say(x: float, y: float, words: str, **style: str) -> None:
        axes.text(x + 0.5, y + 0.5, words, ha="center", va="center", fontsize=7, **({"color": INK} | style))

    for y, row in enumerate(rows):
        for x, at_s in enumerate(columns):
            one = row.outcomes.get(at_s)
            if one is None:
                axes.add_patch(Rectangle((x, y), 1, 1, facecolor="white", edgecolor=GRID, hatch="////", linewidth=1))
                say(x, y, "not run")
                continue
            price = row.price(one)
            shade = scale.shade(price)
            face = FAILED if one.failed else scale.colours(shade)
            axes.add_patch(Rectangle((x, y), 1, 1, facecolor=face, edgecolor="white", linewidth=1))
            say(x, y, told(price, row.measure), color="white" if shade > 0.6 else INK, weight="bold" if one.failed else "normal")
    axes.set(
        xlim=(0, len(columns)), ylim=(max(1, len(rows)), 0), xticks=[x + 0.5 for x in range(len(columns))],
        xticklabels=[in_words(at_s) for at_s in columns], yticks=[y + 0.5 for y in range(len(rows))], yticklabels=list(map(named, rows)),
    )  # fmt: skip
    axes.set_xlabel("virtual time at which it is lost", fontsize=8, color=INK)
    axes.tick_params(length=0, labelsize=7.5, colors=INK)
    axes.spines[:].set_visible(False)


def remarks(found: Criticality, rows: list[Row]) -> Iterator[str]:
    """Below the map: what its colours do not say."""
    failing = [row for row in rows if row.failures]
    for row in failing[:REASONS]:
        yield f"{row.thing.name} at {in_words(row.worst.at_s)}: the job fails: {in_few(row.worst.failed, 160)}"
    if len(failing) > REASONS:
        yield f"and the job fails without {len(failing) - REASONS} more; see criticality.csv"
    yield from below(found)
