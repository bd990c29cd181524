"""report.html: one file that says what a run was, how it went and why; it needs no network and loads nothing.

Sections that this run has no data for say so in a sentence, or are not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import Any

from report.drawing import Plot, colour_of, render
from report.findings import Findings
from report.folder import RunFolder
from report.plots import plots
from report.summary import bites, learnt, traffic
from scenarios.expectations import as_told
from scenarios.units import in_words, rate_in_words, size_in_words

HERE = Path(__file__).parent

NUMERICS = {
    "real": "trained for real",
    "timing": "timing only, nothing was learnt",
    "exact": "exact numbers that only count, nothing was learnt",
}


def write_report(folder: RunFolder, findings: Findings) -> Path:
    """report.html, and every plot of it in plots/ as a picture and as numbers."""
    folder.plots.mkdir(exist_ok=True)
    drawn = {plot.name: (plot, *render(plot, folder.plots)) for plot in plots(findings)}
    folder.report.write_text(page(findings, drawn), encoding="utf-8")
    return folder.report


Drawn = dict[str, tuple[Plot, str, str]]


def page(findings: Findings, drawn: Drawn) -> str:
    """The whole file."""
    summary = findings.summary
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    sections = [(anchor, title, body) for anchor, title, body in chapters(findings, drawn) if body]
    contents = "".join(f'<a href="#{anchor}">{title}</a>' for anchor, title, _ in sections)
    told = "\n".join(f'<section id="{anchor}"><h2>{title}</h2>\n{body}</section>' for anchor, title, body in sections)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><title>{escape(summary["scenario"])}, seed {summary["seed"]}</title><style>{style}</style></head>
<body><main>
<header><h1>{escape(summary["scenario"])}</h1>{status(summary)}<button class="theme" type="button">light / dark</button></header>
<p class="lead">{lead(summary)}</p>
<nav>{contents}</nav>
{tiles(summary)}
{told}
</main><script>{script}</script></body></html>
"""


def status(summary: dict[str, Any]) -> str:
    unmet = sum(not one["met"] for one in summary["expectations"])
    colour = {"done": "good", "interrupted": "warn"}.get(summary["status"], "bad")
    found = f'<span class="status {colour}">{escape(summary["status"])}</span>'
    return found + (f'<span class="status bad">{unmet} expectation{"s" if unmet > 1 else ""} not met</span>' if unmet else "")


def lead(summary: dict[str, Any]) -> str:
    world = "simulated" if summary["world"] == "sim" else "real processes"
    numbers = NUMERICS[summary["numerics"]]
    parts = [summary["reason"], f"seed {summary['seed']}", summary["protocol"], f"{world}, {numbers}"]
    return escape(" · ".join(filter(None, parts)))


def tiles(summary: dict[str, Any]) -> str:
    """The headline figures."""
    seconds, found = summary["seconds"], []
    if seconds is not None:
        wall = f"{in_words(summary['wall_seconds'])} of wall time" if summary["world"] == "sim" and summary["wall_seconds"] else ""
        found.append((in_words(seconds), "virtual time" if summary["world"] == "sim" else "time", wall))
    rate = f"{summary['updates'] / seconds:.4g} a second" if seconds else ""
    found.append((f"{summary['updates']:,}", "iterations" if summary["batches"] else "updates", rate))
    if summary["accuracy"] is not None:
        found.append((f"{summary['accuracy']:.4f}", "held-out accuracy", ""))
    if summary["loss"] is not None:
        found.append((f"{summary['loss']:.4f}", "held-out loss", ""))
    if summary["training_loss"] is not None:
        found.append((f"{summary['training_loss']:.4g}", "training loss", ""))
    if summary["protocol"] == "downpour":
        found.append((f"{summary['staleness']['mean']:.2f}", "mean staleness", f"p99 {summary['staleness']['p99']}"))
    found.append((size_in_words(summary["bytes"]), "traffic", f"{summary['messages']:,} messages"))
    if summary["goodput"] is not None:
        rate = summary["goodput"]["samples_per_s"]
        found.append(
            (f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}", "useful samples/s", f"{100 * summary['goodput']['in_vain']:.3g} % in vain")
        )
    if summary["lost_updates"]:
        found.append((f"{summary['lost_updates']:,}", "updates lost", ""))
    told = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{name}</span><span>{escape(more)}</span></div>' for value, name, more in found
    )
    return f'<div class="tiles">{told}</div>'


def chapters(findings: Findings, drawn: Drawn) -> Iterator[tuple[str, str, str]]:
    """Anchor, title and contents of each section, in the order of the page; "" for what is left out."""
    summary = findings.summary
    sim, timing = summary["world"] == "sim", summary["numerics"] != "real"
    yield "expectations", "Expectations", expectations(summary)
    yield "waits", "Who waits for whom", waits(summary)
    nothing = "Nothing was learnt: this run is timing only." if timing else "The run ended before the parameters were evaluated."
    yield "learning", "Loss and accuracy", figure(drawn, "learning") or sentence(nothing)
    yield "throughput", "Pushes over time", figure(drawn, "throughput")
    accounts = "Accounts of time are kept by the simulator; real processes have none." if not sim else "This run kept no accounts of time."
    where = figure(drawn, "time-by-kind") + figure(drawn, "time-by-role", "Role by role")
    yield "time", "Where the time went", where or sentence(accounts)
    links = "" if not sim else sentence("This run kept no figures of links.")
    yield "links", "Links", (figure(drawn, "links") + busiest(summary) if "links" in drawn else links)
    yield "staleness", "Staleness", figure(drawn, "staleness")
    yield "replicas", "Pushes by replica", figure(drawn, "replicas")
    yield "faults", "Faults, and what they bit", faults(findings)
    yield "lives", "Who was up when", figure(drawn, "lives")
    yield "run", "The run", the_run(findings)


def sentence(text: str) -> str:
    return f'<p class="soft">{escape(text)}</p>\n'


def figure(drawn: Drawn, name: str, heading: str = "") -> str:
    """A plot with its caption, and where its picture and numbers are."""
    if name not in drawn:
        return ""
    plot, svg, hover = drawn[name]
    files = f'<a href="plots/{name}.png">picture</a> · <a href="plots/{name}.csv">numbers</a>'
    return (
        (f"<h3>{heading}</h3>" if heading else "")
        + f'<figure id="plot-{name}"><div class="plot">{svg}<script type="application/json">{hover}</script></div>'
        + f"<figcaption><span>{escape(plot.caption)}</span><span>{files}</span></figcaption></figure>\n"
    )


def rows(head: Iterable[str], body: Iterable[Iterable[str]]) -> str:
    """A table; cells are HTML."""
    header = "".join(f"<th>{name}</th>" for name in head)
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in body)
    return f'<div class="wide"><table><thead><tr>{header}</tr></thead><tbody>{lines}</tbody></table></div>\n'


def expectations(summary: dict[str, Any]) -> str:
    if not summary["expectations"]:
        return ""
    return rows(
        ("metric", "allowed", "found", ""),
        (
            (
                f"<code>{escape(one['metric'])}</code>", escape(one["allowed"]),
                escape(one["note"] if one["found"] is None else as_told(one["metric"], one["found"])),
                '<b class="good">met</b>' if one["met"] else '<b class="bad">not met</b>',
            )
            for one in summary["expectations"]
        ),
    )  # fmt: skip


def waits(summary: dict[str, Any]) -> str:
    if not summary["waits"]:
        return ""
    body = ((escape(str(w["who"])), escape(str(w["for"])), in_words(w["since_s"]), escape(str(w["what"]))) for w in summary["waits"])
    return rows(("who", "waits for", "since", "with what"), body)


def busiest(summary: dict[str, Any]) -> str:
    found = summary["links"] or []
    body = (
        (
            escape(str(link["link"])), rate_in_words(link["bytes_per_s"]), size_in_words(link["bytes"]), f"{100 * link['utilisation']:.3g} %",
            f"{100 * link['busiest_utilisation']:.3g} % for {in_words(link['busiest_for_s'])} from {in_words(link['busiest_at_s'])}",
        )
        for link in found
    )  # fmt: skip
    return rows(("link", "carries", "carried", "used", "busiest"), body) if found else ""


FAULTS_SHOWN = 40


def faults(findings: Findings) -> str:
    found = findings.summary["faults"]
    if not found:
        return sentence("None was declared, and nothing failed.")
    body = []
    for number, fault in enumerate(found[:FAULTS_SHOWN]):
        struck = fault.get("struck")
        when = in_words(fault["at_s"]) if fault["at_s"] is not None else ""
        bit = escape(bites(fault)) or '<b class="warn">nothing</b>'
        name = f'<span class="dot" style="background:{colour_of(f"fault.{number}")}"></span>{number}'
        body.append((name, escape(fault["kind"]), escape(fault["target"]), when, f"{struck:,}" if struck is not None else "", bit))
    told = rows(("", "kind", "target", "at", "times" if any(row[4] for row in body) else "", "it bit"), body)
    return told + (sentence(f"… and {len(found) - FAULTS_SHOWN} more, in summary.json.") if len(found) > FAULTS_SHOWN else "")


def the_run(findings: Findings) -> str:
    """What is needed to have it again, and what else was counted."""
    summary = findings.summary
    found = [("seed", str(summary["seed"])), ("digest of the journal", summary["digest"] or "none: real runs differ each time")]
    found += learnt(summary) + traffic(summary)
    found += [("charged cost", summary["cost"])] if summary["world"] == "sim" else []
    found += [(key.replace("_", " "), f"{summary[key]:,}") for key in ("repeated", "duplicates", "refused", "lost_updates") if summary[key]]
    found += [(key, summary[key]) for key in ("model", "journal") if summary[key]]
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in found)
    notes = "".join(f"<li>{escape(note)}</li>" for note in summary["notes"])
    scenario = (
        f"<h3>The scenario, overrides included: scenario.toml</h3><pre>{escape(findings.scenario.strip())}</pre>"
        if findings.scenario
        else ""
    )
    return f"<dl>{listed}</dl>{f'<h3>Notes</h3><ul>{notes}</ul>' if notes else ''}{scenario}\n"
