"""A model on the machines of a replica, as a picture: layers from the inputs down to the loss, one column for each machine.

Written as SVG by hand: a browser shows it with what each box and arrow stands for under the pointer.  Of more than twelve machines each layer is
one box, and arrows say what crosses in all.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

from core.boxes import whole
from core.graph import Node, shape_told
from core.partitioning import Placed
from models.placement import is_loss, told
from report.drawing import GREY, GRID, INK
from report.graph_figures import Crossing, Figures, OfMachine, kind_of, scaled
from scenarios.units import size_in_words

MOST_COLUMNS = 12
COLOURS = (
    "#4878cf", "#dd7a35", "#3d9970", "#8464b8", "#d1495b", "#2f9ea3", "#b8901f", "#6b7f3a", "#c2568f", "#5a6fa8", "#a0673c", "#5f7f8c",
)  # fmt: skip
"""Of machines."""

MARGIN, HEADER, SUMMARY, FULL, THIN, SHUT, OPEN = 28, 168, 210, 56, 26, 16, 62
"""Width of the names at the left and of what is said at the right; height of a row, of one that does little, and of gaps that nothing and
something crosses."""
LABELS = 4
"""More arrows than that in one gap carry no labels of their own."""


@dataclass(slots=True)
class Canvas:
    """Elements of an SVG, from back to front."""

    behind: list[str] = field(default_factory=list)
    front: list[str] = field(default_factory=list)
    over: list[str] = field(default_factory=list)

    def text(
        self, x: float, y: float, words: str, *, size: float = 11, anchor: str = "start", colour: str = INK, bold: bool = False
    ) -> None:
        weight = ' font-weight="600"' if bold else ""
        self.over.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"{weight}>{escape(words)}</text>'
        )

    def label(self, x: float, y: float, words: str, colour: str) -> None:
        """On an arrow, which it hides."""
        self.over.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="10" text-anchor="middle" fill="{colour}" stroke="white" stroke-width="3.5"'
            f' stroke-linejoin="round" paint-order="stroke">{escape(words)}</text>'
        )

    def box(self, x: float, y: float, width: float, height: float, colour: str, title: str = "", *, dashed: bool = False) -> None:
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self.front.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="5" fill="{tint(colour)}" stroke="{colour}"'
            f' stroke-width="1.2"{dash}>{f"<title>{escape(title)}</title>" if title else ""}</rect>'
        )

    def band(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        self.behind.insert(
            0, f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="8" fill="{colour}" fill-opacity="0.06"/>'
        )

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: str = GRID, width: float = 1) -> None:
        self.front.append(f'<path d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}" stroke="{colour}" stroke-width="{width}"/>')

    def arrow(self, path: str, colour: str, width: float, title: str, *, dashed: bool = False, faint: float = 0.75) -> None:
        dash = ' stroke-dasharray="5 3"' if dashed else ""
        self.behind.append(
            f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width:.2f}" stroke-opacity="{faint}"'
            f' marker-end="url(#tip-{colour[1:]})"{dash}><title>{escape(title)}</title></path>'
        )

    def svg(self, width: float, height: float, title: str) -> str:
        tips = "".join(
            f'<marker id="tip-{colour[1:]}" viewBox="0 0 8 8" refX="7" refY="4" markerUnits="userSpaceOnUse" markerWidth="8" markerHeight="8"'
            f' orient="auto"><path d="M0 0.8L8 4L0 7.2z" fill="{colour}"/></marker>'
            for colour in (*COLOURS, GREY)
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
            f' font-family="DejaVu Sans, Helvetica, Arial, sans-serif" role="img">\n<title>{escape(title)}</title>\n<defs>{tips}</defs>\n'
            f'<rect width="100%" height="100%" fill="white"/>\n' + "\n".join([*self.behind, *self.front, *self.over]) + "\n</svg>\n"
        )


def draw(figures: Figures, title: str, remarks: Iterable[str] = ()) -> str:
    """The picture as SVG.  `remarks`: lines under the title."""
    canvas = Canvas()
    count = len(figures.machines)
    lines = [
        f"{scaled(sum(figures.partitioned.sizes))} parameters, {scaled(figures.flops, 'FLOP')} a sample in both phases",
        *remarks,
    ]
    if count > 1:
        lines.append(
            f"Arrows: what crosses upward for a minibatch of {figures.samples}, {size_in_words(figures.bytes_up)} in all;"
            " as much comes back as gradients."
            + (" Dashed: parameters that others need." if any(crossing.weights for crossing in figures.crossings) else "")
        )
    canvas.text(MARGIN, 34, title, size=17, bold=True)
    for number, words in enumerate(lines):
        canvas.text(MARGIN, 56 + 17 * number, words, size=11.5, colour="#55565c")
    top = 56 + 17 * len(lines) + 8
    picture = Columns(figures, canvas, top) if count <= MOST_COLUMNS else Totals(figures, canvas, top)
    bottom = picture.draw()
    width = max(picture.width, MARGIN * 2 + 6.4 * max(map(len, lines)))
    bottom, table_width = table(canvas, figures, bottom + 34)
    return canvas.svg(max(width, table_width), bottom + MARGIN, title)


class Rows:
    """Layers one below the other, and the room between them for what crosses."""

    def __init__(self, figures: Figures, canvas: Canvas, top: float) -> None:
        self.figures, self.canvas, self.top = figures, canvas, top
        self.arriving: defaultdict[str, list[Crossing]] = defaultdict(list)
        """By the layer that uses it."""
        for crossing in figures.crossings:
            self.arriving[crossing.user].append(crossing)
        self.place: dict[str, tuple[float, float]] = {}
        """Of each layer: where it begins and ends."""
        self.width = 0.0

    def stack(self, y: float) -> float:
        """Find a place for every layer; where the last one ends."""
        for number, node in enumerate(self.figures.layers):
            y += (OPEN if self.arriving[node.name] else SHUT) * (number > 0)
            height = FULL if node.weights or (not node.layer.source and not plain(node)) else THIN
            self.place[node.name] = y, y + height
            y += height
        return y

    def head(self, node: Node) -> None:
        """Name, kind and outputs at the left."""
        y0, y1 = self.place[node.name]
        if y1 - y0 == FULL:
            self.canvas.text(MARGIN, y0 + 23, shortened(node.name, 24), bold=True)
            self.canvas.text(MARGIN, y0 + 39, f"{kind_of(node)}, {shape_told(node.at.output)}", size=10, colour=GREY)
        else:
            self.canvas.text(MARGIN, (y0 + y1) / 2 + 4, shortened(node.name, 24), size=10.5)

    def sum_up(self, node: Node, x: float) -> None:
        """What crosses to a layer, at the right of the gap before it."""
        found = self.arriving[node.name]
        if not found:
            return
        middle = self.place[node.name][0] - OPEN / 2
        messages = sum(crossing.messages for crossing in found)
        total = size_in_words(sum(crossing.nbytes for crossing in found))
        self.canvas.text(x, middle - 2, f"{messages:,} message{'s' * (messages > 1)}, {total}", size=10.5)
        machines = {crossing.destination for crossing in found}
        into = [sum(c.nbytes for c in found if c.destination == machine) for machine in machines]
        least, most = size_in_words(min(into)), size_in_words(max(into))
        each = most if least == most else f"{least} to {most}"
        self.canvas.text(x, middle + 13, f"{each} to {told_machines(machines)}", size=10, colour=GREY)


class Columns(Rows):
    """One for each machine."""

    def draw(self) -> float:
        """Where it ends."""
        count = len(self.figures.machines)
        self.column = 160 if count <= 4 else 142 if count <= 8 else 130
        self.width = MARGIN * 2 + HEADER + self.column * count + 20 + (SUMMARY if count > 1 else 0)
        bottom = self.stack(self.top + 38)
        for machine in self.figures.machines:
            left, colour = self.left(machine.machine), COLOURS[machine.machine]
            self.canvas.band(left + 3, self.top, self.column - 6, bottom - self.top + 10, colour)
            self.canvas.text(left + self.column / 2, self.top + 20, f"machine {machine.machine}", anchor="middle", bold=True, colour=colour)
        for node in self.figures.layers:
            self.head(node)
            self.sum_up(node, self.left(count) + 16)
            if node.layer.source:
                self.source(node)
            for number, parts in self.figures.parts[node.name].items():
                self.part(node, number, parts)
        self.cross()
        self.stay()
        return bottom + 10

    def left(self, machine: int) -> float:
        return MARGIN + HEADER + self.column * machine

    def middle(self, machine: int) -> float:
        return self.left(machine) + self.column / 2

    def source(self, node: Node) -> None:
        """It is everywhere."""
        y0, y1 = self.place[node.name]
        count = len(self.figures.machines)
        self.canvas.box(self.left(0) + 12, y0, self.column * count - 24, y1 - y0, GREY, dashed=True)
        words = source_told(node) if count > 1 else shape_told(node.at.output)
        self.canvas.text((self.left(0) + self.left(count)) / 2, (y0 + y1) / 2 + 4, words, anchor="middle", size=10.5, colour="#55565c")

    def part(self, node: Node, machine: int, parts: list[Placed]) -> None:
        """What one machine has of a layer."""
        y0, y1 = self.place[node.name]
        parameters, flops = self.figures.owned[node.name, machine], sum(one.flops + one.flops_down for one in parts)
        title = f"{', '.join(one.name for one in parts)} on machine {machine}: {parameters:,} parameters, {scaled(flops, 'FLOP')} a sample"
        self.canvas.box(self.left(machine) + 12, y0, self.column - 24, y1 - y0, COLOURS[machine], title)
        words = shortened(range_of(parts), (self.column - 24) // 6)
        if y1 - y0 < FULL:
            self.canvas.text(self.middle(machine), (y0 + y1) / 2 + 4, words, anchor="middle", size=10)
            return
        self.canvas.text(self.middle(machine), y0 + 17, words, anchor="middle", bold=True)
        told = f"{scaled(parameters)} parameters" if parameters else "no parameters"
        self.canvas.text(self.middle(machine), y0 + 32, told, anchor="middle", size=10)
        self.canvas.text(self.middle(machine), y0 + 46, scaled(flops, "FLOP"), anchor="middle", size=10)

    def cross(self) -> None:
        """Arrows from machine to machine."""
        most = max((crossing.nbytes for crossing in self.figures.crossings), default=1) or 1
        for node in self.figures.layers:
            found = self.arriving[node.name]
            leaving, arriving = ports(found, "source"), ports(found, "destination")
            for crossing in found:
                x0 = self.middle(crossing.source) + leaving[id(crossing)] * (self.column - 40)
                x1 = self.middle(crossing.destination) + arriving[id(crossing)] * (self.column - 40)
                (top, y0), (y1, _) = self.place[crossing.layer], self.place[crossing.user]
                y0 = top if crossing.weights else y0
                bend = -34 if crossing.weights else min(40.0, (y1 - y0) * 0.6)
                colour = COLOURS[crossing.source]
                path = f"M{x0:.1f} {y0:.1f}C{x0:.1f} {y0 + bend:.1f} {x1:.1f} {y1 - abs(bend):.1f} {x1:.1f} {y1 - 2:.1f}"
                title = (
                    f"{crossing.layer} on machine {crossing.source} to {crossing.user} on machine {crossing.destination}:"
                    f" {crossing.messages} message{'s' * (crossing.messages > 1)}, {size_in_words(crossing.nbytes)};"
                    f" {'its gradient' if crossing.weights else 'as much of gradients'} comes back"
                )
                self.canvas.arrow(path, colour, 1 + 2.2 * crossing.nbytes / most, title, dashed=crossing.weights)
                if len(found) <= LABELS:
                    at = 0.8 if crossing.weights else 0.3
                    x, y = along(at, x0, x0, x1, x1), along(at, y0, y0 + bend, y1 - abs(bend), y1 - 2)
                    self.canvas.label(x, y + 3, size_in_words(crossing.nbytes), colour)

    def stay(self) -> None:
        """Lines within a machine, and from what comes with the minibatch."""
        seen = set()
        for placed, is_weight, take in self.figures.partitioned.takes():
            if not is_weight and take.message is None:
                seen.add((self.figures.partitioned.parts[take.source].node.name, placed.node.name, placed.machine))
        for node in self.figures.layers:
            seen |= {
                (name, node.name, machine)
                for name in node.inputs if self.figures.partitioned.graph[name].layer.source for machine in self.figures.parts[node.name]
            }  # fmt: skip
        for layer, user, machine in sorted(seen):
            y0, y1 = self.place[layer][1], self.place[user][0]
            x, colour = self.middle(machine), GREY if self.figures.partitioned.graph[layer].layer.source else COLOURS[machine]
            far = any(y0 < begin < y1 for begin, _ in self.place.values())
            side = self.left(machine) + self.column - 5
            path = f"M{side - 8:.1f} {y0 - 8:.1f}C{side + 4:.1f} {y0:.1f} {side + 4:.1f} {y1 + 8:.1f} {side - 8:.1f} {y1 + 8:.1f}"
            self.canvas.arrow(
                path if far else f"M{x:.1f} {y0:.1f}L{x:.1f} {y1 - 1:.1f}", colour, 1, f"{layer} to {user}, on machine {machine}", faint=0.5
            )


class Totals(Rows):
    """One box for each layer."""

    BOX = 330

    def draw(self) -> float:
        """Where it ends."""
        self.width = MARGIN * 2 + HEADER + self.BOX + 60 + SUMMARY
        bottom = self.stack(self.top + 10)
        for node in self.figures.layers:
            self.head(node)
            self.sum_up(node, MARGIN + HEADER + self.BOX + 44)
            self.layer(node)
            self.arrows(node)
        return bottom

    def layer(self, node: Node) -> None:
        y0, y1 = self.place[node.name]
        left, middle = MARGIN + HEADER, MARGIN + HEADER + self.BOX / 2
        if node.layer.source:
            self.canvas.box(left, y0, self.BOX, y1 - y0, GREY, dashed=True)
            self.canvas.text(middle, (y0 + y1) / 2 + 4, source_told(node), anchor="middle", size=10.5, colour="#55565c")
            return
        machines = self.figures.partitioned.placement[node.name]
        for shift in (6, 3, 0) if len(machines) > 1 else (0,):
            self.canvas.box(left + shift, y0 + shift, self.BOX, y1 - y0, COLOURS[0], f"{node.name} {told(machines)}")
        where = told(machines).replace("in ", "\u00d7 ", 1)
        if y1 - y0 < FULL:
            self.canvas.text(middle, (y0 + y1) / 2 + 4, where, anchor="middle", size=10.5)
            return
        parts = [one for found in self.figures.parts[node.name].values() for one in found]
        owned = [self.figures.owned[node.name, machine] for machine in self.figures.parts[node.name]]
        flops = [one.flops + one.flops_down for one in parts]
        self.canvas.text(middle, y0 + 19, where, anchor="middle", bold=True)
        told_owned = f"{scaled(node.parameters)} parameters: {spread(owned)} on a machine" if node.parameters else "no parameters"
        self.canvas.text(middle, y0 + 33, told_owned, anchor="middle", size=10)
        self.canvas.text(middle, y0 + 47, f"{scaled(sum(flops), 'FLOP')}: {spread(flops, 'FLOP')} a part", anchor="middle", size=10)

    def arrows(self, node: Node) -> None:
        """From its inputs."""
        middle = MARGIN + HEADER + self.BOX / 2
        by_layer: defaultdict[str, int] = defaultdict(int)
        for crossing in self.arriving[node.name]:
            by_layer[crossing.layer] += crossing.nbytes
        y1 = self.place[node.name][0]
        for number, layer in enumerate(dict.fromkeys([*node.inputs, *by_layer])):
            nbytes, y0 = by_layer[layer], self.place[layer][1]
            title = f"{layer} to {node.name}: {size_in_words(nbytes)}" if nbytes else f"{layer} to {node.name}: nothing crosses"
            colour, width = (COLOURS[0], 2.6) if nbytes else (GREY, 1)
            right = MARGIN + HEADER + self.BOX
            if layer == node.name:
                path = f"M{middle - 90:.1f} {y1:.1f}C{middle - 90:.1f} {y1 - 30:.1f} {middle - 30:.1f} {y1 - 30:.1f} {middle - 30:.1f} {y1 - 2:.1f}"
            elif any(y0 < begin < y1 for begin, _ in self.place.values()):
                path = f"M{right:.1f} {y0 - 10:.1f}C{right + 36:.1f} {y0:.1f} {right + 36:.1f} {y1 + 10:.1f} {right + 2:.1f} {y1 + 10:.1f}"
            else:
                path = f"M{middle + 12 * number:.1f} {y0 + 4:.1f}L{middle + 12 * number:.1f} {y1 - 2:.1f}"
            self.canvas.arrow(path, colour, width, title, dashed=layer == node.name)


# the table


HEADS = ("machine", "parts", "parameters", "FLOPs", "", "needs", "sends up", "sends down", "receives up", "receives down")
WIDTHS = (110, 60, 90, 60, 120, 90, 90, 90, 100, 110)


def table(canvas: Canvas, figures: Figures, y: float) -> tuple[float, float]:
    """Machines; of many the least, the median and the most of each figure.  Where it ends, at the bottom and at the right."""
    machines = figures.machines
    few = len(machines) <= MOST_COLUMNS
    rows = [(f"machine {one.machine}", COLOURS[one.machine], one) for one in machines] if few else quantiles(machines)
    lefts = [float(MARGIN)]
    for width in WIDTHS:
        lefts.append(lefts[-1] + width)
    for head, left, width in zip(HEADS, lefts, WIDTHS, strict=False):
        first = left == MARGIN
        canvas.text(left if first else left + width - 12, y, head, size=10.5, anchor="start" if first else "end", colour=GREY)
    widest = max(row.share for _, _, row in rows) or 1.0
    for name, colour, row in rows:
        canvas.line(MARGIN, y + 7, lefts[-1], y + 7)
        y += 22
        canvas.text(MARGIN, y, name, bold=True, colour=colour)
        canvas.front.append(
            f'<rect x="{lefts[4] + 4:.1f}" y="{y - 9:.1f}" width="{(WIDTHS[4] - 24) * row.share / widest:.1f}" height="10" rx="2" fill="{colour}"'
            ' fill-opacity="0.75"/>'
        )
        for place, cell in enumerate(cells(row)):
            if cell:
                canvas.text(lefts[place + 1] + WIDTHS[place + 1] - 12, y, cell, anchor="end", size=10.5)
    return y + 4, lefts[-1] + MARGIN


def cells(row: OfMachine) -> list[str]:
    """What the table says of a machine, after its name."""
    sizes = (row.sends_up_bytes, row.sends_down_bytes, row.receives_up_bytes, row.receives_down_bytes)
    return [
        f"{len(row.parts):,}", scaled(row.parameters), f"{100 * row.share:.3g} %", "", size_in_words(row.memory_bytes), *map(size_in_words, sizes)
    ]  # fmt: skip


def quantiles(machines: Sequence[OfMachine]) -> list[tuple[str, str, OfMachine]]:
    """Each figure by itself: its least, its median, its most."""
    columns = [sorted(getattr(machine, name) for machine in machines) for name in FIGURES]
    parts = sorted((machine.parts for machine in machines), key=len)
    found = []
    for name, place in (("least", 0), (f"median of {len(machines)}", len(machines) // 2), ("most", len(machines) - 1)):
        values = {figure: column[place] for figure, column in zip(FIGURES, columns, strict=True)}
        found.append((name, COLOURS[0], OfMachine(machine=-1, parts=parts[place], **values)))
    return found


FIGURES = (
    "parameters", "flops", "share", "memory_bytes", "sends_messages", "sends_up_bytes", "sends_down_bytes", "receives_up_bytes", "receives_down_bytes",
)  # fmt: skip


# words and shapes


def plain(node: Node) -> bool:
    """Does it little beside the others, so that its row may be thin?"""
    return not node.weights and (is_loss(node) or node.layer.flops(node.at, whole(node.at.output)) <= 8.0 * math.prod(node.at.output))


def range_of(parts: Sequence[Placed]) -> str:
    """Which outputs these are, along the dimensions that are cut."""
    if len(parts) > 1:
        return f"{len(parts)} parts"
    box, output = parts[0].part.box, parts[0].part.at.output
    cut = [
        f"{begin}" if end == begin + 1 else f"{begin}:{end}"
        for (begin, end), size in zip(box, output, strict=True)
        if (begin, end) != (0, size)
    ]
    return " x ".join(cut) or "whole"


def source_told(node: Node) -> str:
    shape = node.at.output
    return f"{f'{shape_told(shape)} numbers' if shape else 'a number'} a sample, with the minibatch"


def spread(values: Sequence[float], unit: str = "") -> str:
    least, most = scaled(min(values), unit), scaled(max(values), unit)
    return most if least == most else f"{least} to {most}"


def told_machines(machines: Iterable[int]) -> str:
    found = sorted(machines)
    return f"machine {found[0]}" if len(found) == 1 else f"each of {len(found)} machines"


def ports(crossings: Sequence[Crossing], end: str) -> dict[int, float]:
    """Where arrows begin or end at their boxes, from -0.5 to 0.5, so that few of them cross."""
    found = {}
    other = "destination" if end == "source" else "source"
    for machine in {getattr(crossing, end) for crossing in crossings}:
        there = sorted((c for c in crossings if getattr(c, end) == machine), key=lambda c: getattr(c, other))
        for number, crossing in enumerate(there):
            found[id(crossing)] = (number + 1) / (len(there) + 1) - 0.5
    return found


def along(at: float, a: float, b: float, c: float, d: float) -> float:
    """A Bézier curve."""
    rest = 1 - at
    return rest**3 * a + 3 * rest**2 * at * b + 3 * rest * at**2 * c + at**3 * d


def tint(colour: str) -> str:
    """The colour, pale."""
    return "#" + "".join(f"{round(255 - (255 - int(colour[place : place + 2], 16)) * 0.14):02x}" for place in (1, 3, 5))


def shortened(words: str, most: int) -> str:
    return words if len(words) <= most else f"{words[: most - 1]}…"
