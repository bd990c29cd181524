"""The plots of a run: each is numbers (a CSV), a picture (a PNG), and an SVG for the report.

A plot that the run has nothing for is not made; the page says why.  Large clusters are shown by their most interesting members.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from core.job import role_kind
from report.drawing import BLUE, BOTTOM_IN, GREEN, GREY, INK, ORANGE, RED, RIGHT_IN, TOP_IN, WIDTH_IN, Hover, Plot, Series, Time, axes_of
from report.findings import Findings
from report.summary import by_number
from scenarios.units import in_words

KINDS = {"replica": BLUE, "shard": GREEN, "mirror": "#7fb89a", "coordinator": "#8464b8", "evaluator": "#b8901f", "supervisor": GREY}
STATES = {
    "computing": "#3d9970", "waiting": "#a9c0e6", "sending": "#4878cf", "receiving": "#7399dd", "contention": "#dd7a35",
    "server_queue": "#e0b23c", "lost_work": "#d1495b", "recovering": "#a678b8", "idle": "#c8ccd2", "down": "#63666c",
}  # fmt: skip
"""What a role's time goes into, and how it is coloured."""

SHOWN = 20
"""Roles, links or machines of a large cluster: the most interesting."""
LEGEND_IN = 0.42
"""Above bars that are stacked."""
ALL_SHOWN = 32
"""Of a cluster that is no larger everybody is shown."""
POINTS = 1000
"""Of a curve, at most; more are thinned evenly."""


def thin(points: Sequence[Any], limit: int = POINTS) -> list[Any]:
    """Evenly, the last one included."""
    step = -(-len(points) // limit) or 1
    return [*points[::step], *(points[-1:] if (len(points) - 1) % step else ())]


def plots(findings: Findings) -> Iterator[Plot]:
    """Those that there is something for, in the order of the page."""
    makers = (learning, throughput, time_by_kind, time_by_role, links, staleness, replicas, lives)
    return (plot for maker in makers if (plot := maker(findings)) is not None)


# over time


def learning(findings: Findings) -> Plot | None:
    """Loss and accuracy; a run that is timing only has numbers there that mean nothing."""
    if findings.summary["world"] == "sim" and findings.summary["numerics"] != "real":
        return None
    curve, steps = thin(findings.tally.curve), thin([step for step in findings.tally.steps if step.loss == step.loss])
    if not curve and not steps:
        return None
    time, accurate = Time(findings), any(point.accuracy is not None for point in curve)

    def draw(figure: Any, hover: Hover) -> None:
        axes = axes_of(figure, 2 if accurate else 1)
        series = []
        if steps:
            x, y = time.of(point.time_s for point in steps), [point.loss for point in steps]
            axes[0].plot(x, y, color=GREY, linewidth=1, label="training loss")
            series.append(Series("training loss", x, y))
        if curve:
            x, y = time.of(point.time_s for point in curve), [point.loss for point in curve]
            axes[0].plot(x, y, color=BLUE, linewidth=1.6, marker="o" if len(curve) < 60 else "", markersize=2.5, label="held-out loss")
            series.append(Series("held-out loss", x, y))
        hover.curves.append((axes[0], time.unit, series))
        axes[0].set_ylabel("loss")
        positive = [value for one in series for value in one.values if value > 0]
        if positive and max(positive) > 50 * min(positive):
            axes[0].set_yscale("log")
        if len(series) > 1:
            axes[0].legend(frameon=False, fontsize=8, labelcolor=INK)
        if accurate:
            points = [point for point in curve if point.accuracy is not None]
            x, y = time.of(point.time_s for point in points), [point.accuracy for point in points]
            axes[1].plot(x, y, color=GREEN, linewidth=1.6, marker="o" if len(curve) < 60 else "", markersize=2.5)
            axes[1].set(ylabel="accuracy", ylim=(min(0.5, *y), 1.0) if min(y[len(y) // 2 :]) > 0.5 else (0, 1))
            hover.curves.append((axes[1], time.unit, [Series("held-out accuracy", x, y)]))
        for row, one in enumerate(axes):
            time.shade(one, tagged=row == 0)
        time.set(axes[-1])

    rows = [("held-out", *point) for point in findings.tally.curve] + [("training", *point) for point in findings.tally.steps]
    return Plot(
        "learning", "Loss and accuracy", "Shaded: when a fault was at work, with its number.", ("of", "time_s", "updates", "loss", "accuracy"),
        rows, 4.0 if accurate else 2.8, draw,
    )  # fmt: skip


def throughput(findings: Findings) -> Plot | None:
    """Pushes a second, and their staleness."""
    time, pace = Time(findings), findings.chronicle.updates
    buckets = pace.coarse(120, time.end_s)
    if len(buckets) < 3 or not any(count for _, count, _ in buckets):
        return None
    width_s = buckets[1][0] - buckets[0][0]
    stale = any(total for _, _, total in buckets)
    # the last bucket is cut short by the end
    lasts = [min(width_s, time.end_s - begin) or width_s for begin, _, _ in buckets]
    rows: list[tuple[float, float, int, Any]] = [
        (begin, last, count, round(total / count, 3) if count else "") for (begin, count, total), last in zip(buckets, lasts, strict=True)
    ]

    def draw(figure: Any, hover: Hover) -> None:
        axes = axes_of(figure, 2 if stale else 1, (1.5, 1) if stale else ())
        middle = time.of(begin + last / 2 for begin, last, _, _ in rows)
        rate = [count / last for _, last, count, _ in rows]
        axes[0].fill_between(middle, rate, color=BLUE, alpha=0.18, linewidth=0, step="mid")
        axes[0].step(middle, rate, color=BLUE, linewidth=1.3, where="mid")
        axes[0].set(ylabel="pushes/s", ylim=(0, None))
        hover.curves.append((axes[0], time.unit, [Series("pushes a second", middle, rate)]))
        if stale:
            some = [(x, row[3]) for x, row in zip(middle, rows, strict=True) if row[2]]
            axes[1].plot([x for x, _ in some], [y for _, y in some], color=ORANGE, linewidth=1.3)
            axes[1].set(ylabel="mean staleness", ylim=(0, None))
            hover.curves.append((axes[1], time.unit, [Series("mean staleness", [x for x, _ in some], [y for _, y in some])]))
        for row, one in enumerate(axes):
            time.shade(one, tagged=row == 0)
        time.set(axes[-1])

    return Plot(
        "throughput", "Pushes over time", f"Taken by all shards together, in stretches of {in_words(width_s)}.",
        ("begin_s", "lasts_s", "pushes", "mean_staleness"), rows, 3.6 if stale else 2.4, draw,
    )  # fmt: skip


def lives(findings: Findings) -> Plot | None:
    """Who was up when."""
    everybody = findings.chronicle.lives
    if not everybody:
        return None
    time, names = Time(findings), interesting_lives(findings)
    rows = [
        (role, band.what, band.begin_s, "" if band.end_s is None else band.end_s, band.why)
        for role, bands in everybody.items()
        for band in bands
    ]

    def draw(figure: Any, hover: Hover) -> None:
        (axes,) = axes_of(figure, left_in=1.15)
        for row, role in enumerate(names):
            bands = everybody[role]
            spans = [(b.begin_s / time.unit_s, ((b.end_s or time.end_s) - b.begin_s) / time.unit_s) for b in bands]
            axes.broken_barh(spans, (row - 0.32, 0.64), facecolors=KINDS.get(role_kind(role), GREY), linewidth=0)
            for band, (x, width) in zip(bands, spans, strict=True):
                until = "to the end" if band.end_s is None else f"to {in_words(band.end_s)}: {band.why}"
                hover.areas.append(
                    (axes, x, x + width, row - 0.4, row + 0.4, f"{role}, life {band.what}\n{in_words(band.begin_s)} {until}")
                )
            felled = [b.end_s / time.unit_s for b in bands if b.end_s is not None and violent(b.why)]
            axes.plot(felled, [row] * len(felled), linestyle="", marker="|", markersize=9, markeredgewidth=1.8, color=RED)
        axes.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6))
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0, labelsize=8.5)
        time.shade(axes)
        time.set(axes)

    hidden = len(everybody) - len(names)
    more = f" The {len(names)} most eventful of {len(everybody)} roles; all of them in lives.csv." if hidden else ""
    caption = f"Bars: a life. Red: it crashed or was lost.{more}"
    return Plot(
        "lives",
        "Lives of roles",
        caption,
        ("role", "life", "begin_s", "end_s", "why"),
        rows,
        TOP_IN + BOTTOM_IN + 0.2 * len(names) + 0.1,
        draw,
    )


def violent(why: str) -> bool:
    """Did a life end so, and not in order?"""
    return not why.startswith(("done", "ended", "promoted", "its next life"))


def interesting_lives(findings: Findings) -> list[str]:
    everybody = findings.chronicle.lives
    struck = {band.who for band in findings.chronicle.faults}
    hit = {role for role in everybody if role in struck or findings.chronicle.homes.get(role) in struck}

    def natural(role: str) -> tuple[Any, ...]:
        order = ["supervisor", "coordinator", "shard", "mirror", "replica", "evaluator"]
        kind = role_kind(role)
        return (order.index(kind) if kind in order else len(order), *by_number((role, 0)))

    if len(everybody) <= ALL_SHOWN:
        return sorted(everybody, key=natural)
    eventful = sorted(everybody, key=lambda role: (-len(everybody[role]), role not in hit, natural(role)))
    return sorted(eventful[:SHOWN], key=natural)


# where the time went


def shares(row: dict[str, Any]) -> dict[str, float]:
    """Of one role's time, by state."""
    seconds = {state: float(row.get(state, 0.0)) for state in STATES}
    whole = sum(seconds.values())
    return {state: spent / whole if whole else 0.0 for state, spent in seconds.items()}


def by_kind(findings: Findings) -> dict[str, dict[str, float]]:
    """Shares of each kind of role; roles of a kind count alike."""
    told = (findings.summary.get("accounts") or {}).get("by_kind")
    if told:
        return {kind: {state: float(row.get(state, 0.0)) for state in STATES} for kind, row in told.items()}
    kinds: dict[str, list[dict[str, float]]] = {}
    for row in findings.accounts:
        kinds.setdefault(role_kind(str(row["role"])), []).append(shares(row))
    return {kind: {state: sum(row[state] for row in rows) / len(rows) for state in STATES} for kind, rows in kinds.items()}


def stacked(names: Sequence[str], rows: Sequence[dict[str, float]]) -> Callable[[Any, Hover], None]:
    """One bar of a hundred per cent for each name."""

    def draw(figure: Any, hover: Hover) -> None:
        (axes,) = axes_of(figure, left_in=1.15)
        begins = [0.0] * len(rows)
        for state, colour in STATES.items():
            widths = [100 * row[state] for row in rows]
            if not any(width > 0.05 for width in widths):
                continue
            axes.barh(range(len(rows)), widths, left=begins, height=0.72, color=colour, linewidth=0)
            for number, (begin, width) in enumerate(zip(begins, widths, strict=True)):
                hover.areas.append(
                    (axes, begin, begin + width, number - 0.45, number + 0.45, f"{names[number]}\n{told(state)} {width:.3g} %")
                )
            axes.plot([], [], color=colour, linewidth=7, label=told(state))
            begins = [begin + width for begin, width in zip(begins, widths, strict=True)]
        axes.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6), xlim=(0, 100), xlabel="% of the time")
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0, labelsize=8.5)
        height = figure.get_figheight()
        axes.set_position([1.15 / WIDTH_IN, BOTTOM_IN / height, 1 - (1.15 + RIGHT_IN) / WIDTH_IN, 1 - (LEGEND_IN + BOTTOM_IN) / height])
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1.0), ncols=10, frameon=False, fontsize=8, labelcolor=INK,
            handlelength=0.8, columnspacing=1.1, handletextpad=0.75, borderpad=0.1,
        )  # fmt: skip

    return draw


def told(state: str) -> str:
    return state.replace("_", " ")


def time_by_kind(findings: Findings) -> Plot | None:
    kinds = by_kind(findings)
    if not kinds:
        return None
    rows = [(kind, *(round(row[state], 6) for state in STATES)) for kind, row in kinds.items()]
    height = LEGEND_IN + BOTTOM_IN + 0.3 * len(kinds) + 0.1
    return Plot(
        "time-by-kind", "Where the time went", "Means of all roles of a kind.", ("kind", *STATES), rows, height,
        stacked(list(kinds), list(kinds.values())),
    )  # fmt: skip


def time_by_role(findings: Findings) -> Plot | None:
    if not findings.accounts:
        return None
    everybody = {str(row["role"]): shares(row) for row in findings.accounts}
    names, usual = list(everybody), by_kind(findings)
    if len(names) > ALL_SHOWN:

        def oddness(role: str) -> float:
            mean = usual[role_kind(role)]
            return sum(abs(everybody[role][state] - mean[state]) for state in STATES)

        odd = set(sorted(names, key=oddness, reverse=True)[:SHOWN])
        names = [name for name in names if name in odd]
    rows = [(row["role"], row.get("machine", ""), *(row.get(state, 0.0) for state in STATES)) for row in findings.accounts]
    more = f"The {len(names)} of {len(everybody)} that differ most from their kind." if len(names) < len(everybody) else ""
    height = LEGEND_IN + BOTTOM_IN + 0.2 * len(names) + 0.1
    return Plot(
        "time-by-role",
        "… role by role",
        more,
        ("role", "machine", *STATES),
        rows,
        height,
        stacked(names, [everybody[name] for name in names]),
    )


# links, staleness, replicas


def links(findings: Findings) -> Plot | None:
    found = findings.links or findings.summary.get("links") or []
    if not found:
        return None
    busiest = sorted(found, key=lambda row: (-float(row["utilisation"]), str(row["link"])))[:SHOWN]

    def draw(figure: Any, hover: Hover) -> None:
        (axes,) = axes_of(figure, left_in=1.75)
        for number, row in enumerate(busiest):
            mean, most = 100 * float(row["utilisation"]), 100 * float(row.get("busiest_utilisation") or 0.0)
            axes.barh(number, mean, height=0.6, color=BLUE)
            axes.plot([most], [number], marker="|", markersize=10, markeredgewidth=1.8, color=ORANGE)
            when = f"\nbusiest from {in_words(float(row['busiest_at_s']))}: {most:.3g} %" if most else ""
            hover.areas.append((axes, 0, 100, number - 0.45, number + 0.45, f"{row['link']}\n{mean:.3g} % of the whole run{when}"))
        names = [str(row["link"]) for row in busiest]
        axes.set(
            yticks=range(len(names)),
            yticklabels=names,
            ylim=(len(names) - 0.4, -0.6),
            xlim=(0, 103),
            xlabel="% of what the link could carry",
        )
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0, labelsize=8.5)

    header = tuple(dict.fromkeys(key for row in found for key in row))
    rows = [tuple(row.get(key, "") for key in header) for row in found]
    more = f" The {len(busiest)} busiest of {len(found)}." if len(busiest) < len(found) else ""
    return Plot(
        "links", "Use of links", f"Bars: over the whole run. Marks: in the busiest moment.{more}", header, rows,
        TOP_IN + BOTTOM_IN + 0.22 * len(busiest) + 0.1, draw,
    )  # fmt: skip


def staleness(findings: Findings) -> Plot | None:
    counts, known = findings.tally.staleness, findings.summary["staleness"]
    if not counts or not (findings.summary["protocol"] == "downpour" or findings.summary["warm_updates"]):
        return None
    most, total = int(max(counts)), counts.total()
    width = -(-(most + 1) // 80)
    bins = [0] * (most // width + 1)
    for value, count in counts.items():
        bins[int(value) // width] += count

    def draw(figure: Any, hover: Hover) -> None:
        (axes,) = axes_of(figure)
        heights = [100 * count / total for count in bins]
        left = [number * width - 0.5 for number in range(len(bins))]
        axes.bar(left, heights, width=0.9 * width, align="edge", color=BLUE, linewidth=0)
        for x, height, count in zip(left, heights, bins, strict=True):
            first = round(x + 0.5)
            which = f"staleness {first}" + (f" to {first + width - 1}" if width > 1 else "")
            hover.areas.append((axes, x, x + width, 0, max(heights), f"{which}\n{count:,} pushes, {height:.3g} %"))
        for value, name, colour, down in (
            (known["mean"], f"mean {known['mean']:.2f}", ORANGE, 9),
            (known["p99"], f"p99 {known['p99']:g}", RED, 20),
        ):
            axes.axvline(value, color=colour, linewidth=1.2, linestyle=(0, (4, 2)))
            axes.annotate(
                name, (value, 1), xycoords=axes.get_xaxis_transform(), xytext=(3, -down), textcoords="offset points",
                color=colour, fontsize=8.5,
            )  # fmt: skip
        axes.set(
            xlabel="updates between a gradient's parameters and its application",
            ylabel="% of pushes",
            xlim=(-0.5, most + 0.5),
            ylim=(0, 1.12 * max(heights)),
        )
        axes.xaxis.get_major_locator().set_params(integer=True)

    rows = [(int(value), counts[value]) for value in sorted(counts)]
    return Plot("staleness", "Staleness", f"{total:,} pushes, counted at each shard.", ("staleness", "pushes"), rows, 2.6, draw)


def replicas(findings: Findings) -> Plot | None:
    pushes = findings.summary["pushes_by_replica"]
    if len(pushes) < 2 or not any(pushes.values()):
        return None
    values = list(pushes.values())
    usual = sorted(values)[len(values) // 2]
    few = len(pushes) <= 64

    def draw(figure: Any, hover: Hover) -> None:
        (axes,) = axes_of(figure)
        shown = list(pushes.items()) if few else sorted(pushes.items(), key=lambda item: -item[1])
        heights = [count for _, count in shown]
        if few:
            axes.bar(range(len(shown)), heights, width=0.78, color=[ORANGE if h < usual / 2 else BLUE for h in heights], linewidth=0)
            labels = [name.rpartition("/")[2] for name, _ in shown]
            axes.set(xticks=range(len(shown)), xticklabels=labels, xlabel="replica")
        else:
            axes.fill_between(range(len(shown)), heights, color=BLUE, alpha=0.25, linewidth=0, step="mid")
            axes.step(range(len(shown)), heights, color=BLUE, linewidth=1.3, where="mid")
            axes.set(xlabel="replicas, by how much they pushed")
        axes.axhline(usual, color=GREY, linewidth=0.9, linestyle=(0, (4, 2)))
        axes.set(ylabel="pushes to a shard", ylim=(0, None), xlim=(-0.6, len(shown) - 0.4))
        top = max(heights)
        for number, (name, count) in enumerate(shown if few else thin(shown, 500)):
            place = number if few else number * -(-len(shown) // 500)
            hover.areas.append((axes, place - 0.5, place + 0.5, 0, top, f"{name}\n{count:,g} pushes"))

    caption = f"Dashed: the median, {usual:g}." + (" Orange: less than half of it." if few and any(v < usual / 2 for v in values) else "")
    return Plot("replicas", "Pushes by replica", caption, ("replica", "pushes_to_a_shard"), list(pushes.items()), 2.4, draw)
