"""What each single loss costs: the results of `simctl criticality` as data, as a table and as a heat map."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from scenarios.units import in_words

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

STATE, NUMBERS, PICTURE = "criticality.json", "criticality.csv", "criticality.svg"

SHOWN = 40
"""Things in the table on the terminal; the files have all."""


@dataclass(frozen=True, slots=True)
class Thing:
    """What is lost."""

    kind: str
    """"machine", "link", "group" or "role"."""
    name: str
    home_to: str
    """The roles that live there at first, or that it joins to the rest; of a role, its machine."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one run ended."""

    failed: str
    """Why; "" if it came to its end."""
    seconds: float
    """Of virtual time, to its end or until it failed."""
    loss: float | None
    accuracy: float | None
    """Held out; None where numerics are not real."""
    lost_updates: int
    what: str
    """What happened, in words."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one thing, in all the runs that there were."""

    thing: Thing
    fails: int
    """So many of its runs."""
    runs: int
    worst_s: float
    """Longer than the undisturbed run, at the worst moment; infinite where that run failed.  Negative: shorter."""
    median_s: float
    """The same, over all moments."""
    worst_at_s: float
    """That moment; of several the first."""
    loss: float | None
    """By how much the final loss is higher, at most, among those that came to an end."""
    accuracy: float | None
    """By how much the accuracy changes, at worst."""
    lost_updates: int
    """More than without it, at most."""
    what: str
    """Happened at the worst moment."""


@dataclass(slots=True)
class Criticality:
    """Each thing, lost at each moment."""

    scenario: str
    seed: int
    repair: str
    """How long what is lost is gone; "": for good, but that processes are started again at once."""
    undisturbed: Outcome
    moments_s: tuple[float, ...]
    things: tuple[Thing, ...]
    outcomes: dict[tuple[str, int], Outcome] = field(default_factory=dict)
    """By the thing's name and the number of the moment."""

    @property
    def wanted(self) -> int:
        """Runs."""
        return len(self.things) * len(self.moments_s)

    @property
    def whole(self) -> bool:
        """Has every run been made?"""
        return len(self.outcomes) == self.wanted

    def longer_s(self, outcome: Outcome) -> float:
        return math.inf if outcome.failed else outcome.seconds - self.undisturbed.seconds

    def of(self, thing: Thing) -> list[tuple[float, Outcome]]:
        """Moment and outcome of every run of it."""
        numbered = enumerate(self.moments_s)
        return [(moment_s, self.outcomes[thing.name, number]) for number, moment_s in numbered if (thing.name, number) in self.outcomes]

    def cost(self, thing: Thing) -> Cost | None:
        """None where nothing was run."""
        runs = self.of(thing)
        if not runs:
            return None
        worst_at_s, worst = max(runs, key=lambda run: (self.longer_s(run[1]), worse(run[1].loss, self.undisturbed.loss) or 0.0, -run[0]))
        ended = [outcome for _, outcome in runs if not outcome.failed]
        higher = [change for outcome in ended if (change := worse(outcome.loss, self.undisturbed.loss)) is not None]
        changed = [change for outcome in ended if (change := worse(outcome.accuracy, self.undisturbed.accuracy)) is not None]
        return Cost(
            thing, len(runs) - len(ended), len(runs), self.longer_s(worst), median(self.longer_s(outcome) for _, outcome in runs), worst_at_s,
            max(higher, default=None), min(changed, default=None),
            max(outcome.lost_updates for _, outcome in runs) - self.undisturbed.lost_updates,
            f"fails: {worst.failed}" if worst.failed else worst.what,
        )  # fmt: skip

    def costs(self) -> list[Cost]:
        """Worst first: what fails, most often first; then what takes longest; then what learns worst."""
        found = [cost for thing in self.things if (cost := self.cost(thing)) is not None]
        return sorted(
            found, key=lambda cost: (-cost.fails / cost.runs, -cost.worst_s, -cost.median_s, -(cost.loss or 0.0), -cost.lost_updates)
        )

    def to_json(self) -> dict[str, Any]:
        """Of infinities there are none in JSON: a cost that is one is null, and `fails` says why."""
        return {
            "scenario": self.scenario, "seed": self.seed, "repair": self.repair or None, "whole": self.whole,
            "undisturbed": asdict(self.undisturbed), "moments_s": list(self.moments_s),
            "costs": [{key: finite(value) for key, value in asdict(cost).items()} for cost in self.costs()],
            "runs": [dict(zip(HEADER, row, strict=True)) for row in self.rows()],
        }  # fmt: skip

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """One for each run, in the order of the things."""
        for thing in self.things:
            for moment_s, outcome in self.of(thing):
                yield (
                    thing.kind, thing.name, moment_s, outcome.failed, outcome.seconds, finite(round(self.longer_s(outcome), 9)),
                    outcome.loss, outcome.accuracy, outcome.lost_updates, outcome.what,
                )  # fmt: skip


HEADER = ("kind", "name", "at_s", "failed", "seconds", "longer_s", "loss", "accuracy", "lost_updates", "what")


def worse(value: float | None, than: float | None) -> float | None:
    return None if value is None or than is None else round(value - than, 9)


def finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write(found: Criticality, folder: Path) -> None:
    """Everything, as numbers and as a picture."""
    (folder / STATE).write_text(json.dumps(found.to_json(), indent=1) + "\n", encoding="utf-8")
    with (folder / NUMBERS).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        writer.writerows(found.rows())
    if found.outcomes:
        (folder / PICTURE).write_text(heat_map(found), encoding="utf-8")


# the table


def show(console: Console, found: Criticality) -> None:
    """For people."""
    from rich.markup import escape

    before, costs = found.undisturbed, found.costs()
    learnt = f", loss {before.loss:.4g}" if before.loss is not None else ""
    learnt += f", accuracy {before.accuracy:.4g}" if before.accuracy is not None else ""
    how = (
        f"each is gone for {found.repair}" if found.repair else "machines and links are gone for good, processes are started again at once"
    )
    console.print(
        f"\n[bold]{found.scenario}[/]  seed {found.seed}: undisturbed {in_words(before.seconds)}{learnt}; {how}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(table(found, costs[:SHOWN], console.width), highlight=False)
    if len(costs) > SHOWN:
        console.print(f"and {len(costs) - SHOWN} more that cost less, in {NUMBERS}", highlight=False, soft_wrap=True)
    if costs:
        console.print(escape(verdict(costs)), highlight=False, soft_wrap=True)


LITTLE = 20
"""Letters, too few to say what happens."""


def table(found: Criticality, costs: list[Cost], width: int) -> Table:
    """A line for each; what happens is cut to what is left of the width, and left to the files where that is little."""
    from rich.table import Table
    from rich.text import Text

    learns = found.undisturbed.loss is not None
    heads = ("lost", "there", "at worst", "median", "when", *(("loss", "accuracy") if learns else ()), "updates lost")
    rows = [
        (
            cost.thing.name, shortened(cost.thing.home_to, max(12, width // 6)), longer(cost.worst_s), longer(cost.median_s), in_words(cost.worst_at_s),
            *(changed(cost.loss, cost.accuracy) if learns else ()), f"{cost.lost_updates:,}",
        )
        for cost in costs
    ]  # fmt: skip
    room = width - sum(2 + max(map(len, column)) for column in zip(heads, *rows, strict=True))
    made = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for number, head in enumerate(heads):
        made.add_column(head, justify="right" if number > 1 else "left", no_wrap=True)
    if room >= LITTLE:
        made.add_column("what happens then", no_wrap=True)
    for cost, row in zip(costs, rows, strict=True):
        style = "bold red" if cost.fails else ""
        what = [Text(shortened(cost.what.removeprefix("fails: "), room))] if room >= LITTLE else []
        made.add_row(*(Text(words, style) for words in row), *what)
    return made


def changed(*values: float | None) -> tuple[str, ...]:
    return tuple("" if value is None else f"{value:+.3g}" if value else "0" for value in values)


def longer(seconds: float) -> str:
    """A cost in time, in words."""
    if math.isinf(seconds):
        return "fails"
    told = in_words(abs(seconds)) if abs(seconds) >= 1e-6 else "0 s"
    return told if told == "0 s" else f"{'+' if seconds > 0 else '-'}{told}"


def verdict(costs: list[Cost]) -> str:
    """Which single loss hurts most, and when."""
    worst = costs[0]
    moment = in_words(worst.worst_at_s)
    if worst.fails:
        failing = sum(1 for cost in costs if cost.fails)
        others = f"The job does not survive the loss of {failing} of {len(costs)} things. " if failing > 1 else ""
        when = "whenever it comes" if worst.fails == worst.runs else f"at {worst.fails} of {worst.runs} moments, as at {moment}"
        return f"{others}The loss that hurts most is that of {worst.thing.name}, {when}; it {shortened(worst.what, REASON)}"
    if worst.worst_s <= 0:
        return "No single loss costs any time."
    return f"The loss that hurts most is that of {worst.thing.name} at {moment}: {longer(worst.worst_s)}."


REASON = 300
"""Letters of why a job fails; the files have it whole."""


def shortened(words: str, most: int) -> str:
    return words if len(words) <= most else f"{words[: most - 1]}…"


# the heat map

INK, GREY, NONE = "#1d1d20", "#8d9299", "#f1f1f3"
"""Of letters and of cells of runs that failed; of names' kinds; of runs that were not made."""
COLOURS = "YlOrBr"
"""From pale to dark, so that it reads without colour too, and for whoever confuses red and green."""
UNITS = {"h": "hours", "min": "minutes", "s": "seconds"}
CELL_IN, ROW_IN, NAMES_IN = 0.95, 0.24, 3.2


def heat_map(found: Criticality) -> str:
    """An SVG: things, worst first, by moments; each cell's colour and words are the time that the loss costs."""
    import io

    from matplotlib import colormaps, rc_context
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    costs, columns = found.costs(), len(found.moments_s)
    longest_s = max((found.longer_s(outcome) for outcome in found.outcomes.values() if not outcome.failed), default=0.0)
    unit, unit_s = next(((unit, size) for unit, size in (("h", 3600.0), ("min", 60.0)) if longest_s > 5 * size), ("s", 1.0))
    scale, colours = Normalize(0.0, max(longest_s, 1e-9) / unit_s), colormaps[COLOURS]
    width, body = max(7.0, NAMES_IN + CELL_IN * columns + 1.2), ROW_IN * len(costs)
    top, bottom = 0.75, 0.6
    height = top + max(body, 1.2) + bottom
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "criticality", "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(width, height), facecolor="white")
        wide = CELL_IN * columns
        axes = figure.add_axes((NAMES_IN / width, (height - top - body) / height, wide / width, body / height))
        for row, cost in enumerate(costs):
            for column in range(columns):
                outcome = found.outcomes.get((cost.thing.name, column))
                draw_cell(axes, column, row, *cell(found, outcome, unit_s, lambda value: colours(scale(value))))
        axes.set(xlim=(0, columns), ylim=(len(costs), 0), yticks=[row + 0.5 for row in range(len(costs))])
        axes.set_yticklabels([named(cost.thing) for cost in costs], fontsize=8, color=INK)
        axes.set_xticks([column + 0.5 for column in range(columns)], [in_words(moment_s) for moment_s in found.moments_s], fontsize=8)
        axes.set_xlabel("lost at", fontsize=9, color=INK)
        axes.tick_params(length=0, colors=INK)
        axes.spines[:].set_visible(False)
        figure.text(
            0.12 / width, 1 - 0.28 / height, f"{found.scenario}: what each single loss costs", fontsize=11, weight="bold", color=INK
        )
        lasts = in_words(found.undisturbed.seconds)
        figure.text(
            0.12 / width,
            1 - 0.5 / height,
            f"{UNITS[unit]} longer than the undisturbed run of {lasts}; worst first",
            fontsize=8.5,
            color=GREY,
        )
        bar = figure.add_axes(((NAMES_IN + wide + 0.2) / width, (height - top - 1.2) / height, 0.14 / width, 1.2 / height))
        draw_bar(figure, bar, scale, colours, unit)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def named(thing: Thing) -> str:
    """With what lives there, if that is short."""
    there = f"{thing.name}: {thing.home_to}" if thing.home_to and thing.kind in ("machine", "group") else thing.name
    return shortened(there, 46)


def cell(found: Criticality, outcome: Outcome | None, unit_s: float, colour: Callable[[float], Any]) -> tuple[Any, str, str]:
    """Its colour, its words, and theirs."""
    if outcome is None:
        return NONE, "not run", GREY
    if outcome.failed:
        return INK, "fails", "white"
    value = found.longer_s(outcome) / unit_s
    filled = colour(max(0.0, value))
    red, green, blue, _ = filled
    dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
    return filled, "0" if abs(value) < 0.005 else f"{value:+.3g}", "white" if dark else INK


def draw_cell(axes: Any, column: int, row: int, colour: Any, words: str, ink: str) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((column, row), 1, 1, facecolor=colour, edgecolor="white", linewidth=1))
    axes.text(column + 0.5, row + 0.53, words, ha="center", va="center", fontsize=7.5, color=ink)


def draw_bar(figure: Any, bar: Any, scale: Any, colours: Any, unit: str) -> None:
    """What the colours mean."""
    from matplotlib.cm import ScalarMappable

    figure.colorbar(ScalarMappable(scale, colours), cax=bar)
    bar.set_title(unit, fontsize=8, color=INK, loc="left")
    bar.tick_params(labelsize=8, length=2, colors=INK)
