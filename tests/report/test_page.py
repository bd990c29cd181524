"""The report: every plot that there is something for, sentences where there is not, and no error in a real browser without a network."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from core.journal import Record
from report.chronicle import Band, Chronicle, Pace
from report.drawing import united
from report.findings import Findings, from_folder, from_memory
from report.folder import RunFolder
from report.page import page, write_report
from report.plots import ALL_SHOWN, SHOWN, interesting_lives, plots
from report.summary import summarise
from report.tally import Evaluation, Tally
from scenarios.load import load
from sim.run import Run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

LINKS = [
    {
        "link": f"machine/{n} up", "bytes_per_s": 1.25e9, "bytes": 10**9, "utilisation": 0.1 * n, "busiest_at_s": 1.0, "busiest_for_s": 0.5,
        "busiest_utilisation": 0.9,
    }
    for n in range(4)
]  # fmt: skip


def a_run(folder: RunFolder, name: str = "quickstart", *overrides: str) -> Findings:
    """Leave what a run of simctl leaves, links included."""
    scenario = load(name, overrides)
    with folder.journal.open("wb") as journal:
        run = Run(scenario, journal)
        run.simulate()
        run.journal.flush()
    folder.write_scenario(scenario)
    run.write_accounts(folder)
    with folder.links.open("w", newline="") as file:
        writer = csv.DictWriter(file, LINKS[0].keys())
        writer.writeheader()
        writer.writerows(LINKS)
    summary = run.summary() | {"links": LINKS}
    folder.write_summary(summary)
    return from_memory(folder, summary, run.tally, run.chronicle)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """With a report of a run that has everything a report may have."""
    made = RunFolder(tmp_path_factory.mktemp("run"))
    expect = "expect=[{metric='accuracy',at_least=0.2},{metric='updates',at_most=3}]"
    findings = a_run(made, "quickstart", "protocol.stop.epochs=12", "fault.1.at='70 s'", "fault.1.repair='10 s'", expect)
    write_report(made, findings)
    return made


EVERY = ["learning", "throughput", "time-by-kind", "time-by-role", "links", "staleness", "replicas", "lives"]


class Tags(HTMLParser):
    """Are they balanced, and is everything in the one file?"""

    VOID = ("meta", "link", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [str(given["id"])] if "id" in given else []
        self.references += [str(given[name]) for name in ("src", "href", "xlink:href") if name in given]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_plot_is_in_the_page_and_beside_it_as_a_picture_and_as_numbers(folder: RunFolder) -> None:
    text = folder.report.read_text()
    assert re.findall(r'<figure id="plot-([\w-]+)"', text) == EVERY
    for name in EVERY:
        assert (folder.plots / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert len((folder.plots / f"{name}.csv").read_text().splitlines()) > 1
        assert f'href="plots/{name}.png"' in text


def test_the_page_is_one_well_formed_file_that_loads_nothing(folder: RunFolder) -> None:
    tags = Tags()
    tags.feed(folder.report.read_text())
    assert not tags.open
    assert len(tags.ids) == len(set(tags.ids)), "ids of two plots clash"
    for reference in tags.references:
        assert reference.startswith(("#", "plots/", "data:,")), reference
        assert not reference.startswith("#") or reference[1:] in tags.ids
        assert not reference.startswith("plots/") or (folder.path / reference).is_file()


def test_the_page_says_what_the_summary_says(folder: RunFolder) -> None:
    text, summary = html.unescape(folder.report.read_text()), json.loads(folder.summary.read_text())
    for said in (
        summary["digest"],
        f"{summary['accuracy']:.4f}",
        summary["reason"],
        "1 expectation not met",
        "computing seconds lost",
        'target = "replica/5"',
    ):
        assert said in text


def test_the_report_of_the_folder_is_the_report_of_the_run(folder: RunFolder) -> None:
    before, size = {path.name: path.read_text() for path in folder.plots.glob("*.csv")}, folder.report.stat().st_size
    folder.report.unlink()
    write_report(folder, from_folder(folder.path))
    assert {path.name: path.read_text() for path in folder.plots.glob("*.csv")} == before
    assert folder.report.stat().st_size == pytest.approx(size, rel=0.01)


def test_the_numbers_of_a_plot_are_those_of_the_run(folder: RunFolder) -> None:
    with (folder.plots / "staleness.csv").open() as file:
        counted = sum(int(row["pushes"]) for row in csv.DictReader(file))
    with (folder.plots / "throughput.csv").open() as file:
        over_time = sum(int(row["pushes"]) for row in csv.DictReader(file))
    applied = sum(line.split("\t")[3] == "applied" for line in folder.journal.read_text().splitlines())
    assert counted == over_time == applied


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is here")
def test_a_browser_without_a_network_draws_every_plot_and_has_nothing_to_complain_of(folder: RunFolder, tmp_path: Path) -> None:
    probe = tmp_path / "probe.html"
    check = """<script>
    for (const plot of document.querySelectorAll(".plot")) {
      const frame = plot.getBoundingClientRect(), box = plot.querySelector("svg").getBoundingClientRect();
      plot.dispatchEvent(new PointerEvent("pointermove", {clientX: frame.left + frame.width * 0.6, clientY: frame.top + frame.height * 0.42}));
      console.log("PLOT " + plot.parentElement.id + " " + Math.round(box.width) + "x" + Math.round(box.height) + " tip:" + plot.querySelector(".tip").textContent.length);
    }
    document.querySelector("button.theme").click();
    console.log("THEME " + document.documentElement.dataset.theme);
    </script></body>"""
    probe.write_text(folder.report.read_text().replace("</body>", check))
    shot = tmp_path / "shot.png"
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path}/profile",
            "--window-size=1060,2000", f"--screenshot={shot}", "--virtual-time-budget=500", "--enable-logging=stderr", "--v=0", probe.as_uri(),
        ],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    said = re.findall(r'CONSOLE[^"]*"(.*?)", source', done.stderr)
    drawn = [line for line in said if line.startswith("PLOT")]
    assert [line.split()[1] for line in drawn] == [f"plot-{name}" for name in EVERY], done.stderr
    for line in drawn:
        width, height = map(int, line.split()[2].split("x"))
        assert width > 700
        assert height > 80
    assert sum("tip:0" in line for line in drawn) <= 2, drawn  # at that place most plots have a value
    assert said[-1].startswith("THEME")
    assert len(said) == len(drawn) + 1, f"the page complains: {said}"
    assert shot.stat().st_size > 30_000


# what a run may lack


def findings(scenario: str = "quickstart", *overrides: str, world: str = "sim", **measured: Any) -> Findings:
    made = load(scenario, overrides)
    return Findings(summarise(made, world, Tally(), **measured), Tally(), Chronicle())


def test_a_run_that_did_nothing_has_a_page_of_sentences(tmp_path: Path) -> None:
    text = write_report(RunFolder(tmp_path), findings(wall_seconds=0.1, status="failed", reason="<b>no</b> replica")).read_text()
    assert "<figure" not in text
    assert "The run ended before the parameters were evaluated." in text
    assert "This run kept no accounts of time." in text
    assert "&lt;b&gt;no&lt;/b&gt; replica" in text


def test_a_real_run_says_that_it_has_no_accounts_and_is_silent_about_links() -> None:
    text = page(findings(world="exec", wall_seconds=1.0), {})
    assert "real processes have none" in text
    assert "figures of links" not in text


def test_a_run_that_is_timing_only_says_that_it_learnt_nothing() -> None:
    made = findings("quickstart", "numerics=timing", wall_seconds=1.0)
    made.tally.steps.append(Evaluation(1.0, 1, 0.0, None))
    assert not list(plots(made))
    assert "timing only" in page(made, {})


def test_who_waits_for_whom_is_told_where_a_run_failed() -> None:
    waits = [{"who": "replica/0", "for": "shard/1", "since_s": 12.0, "what": "Push"}]
    assert "<td>replica/0</td><td>shard/1</td><td>12 s</td><td>Push</td>" in page(findings(wall_seconds=1.0, waits=waits), {})


def test_of_a_large_cluster_the_most_eventful_are_shown() -> None:
    made = findings("quickstart", "protocol.replicas=500", wall_seconds=1.0)
    lives = [Record(1.0, "cluster", 0, "started", f"replica/{number}", 1) for number in range(500)]
    made.chronicle.read(
        [
            *lives,
            Record(2.0, "cluster", 0, "crashed", "replica/321", 1, note="fault.0 crash"),
            Record(3.0, "cluster", 0, "started", "replica/321", 2),
        ]
    )
    shown = interesting_lives(made)
    assert len(shown) == SHOWN < ALL_SHOWN
    assert "replica/321" in shown


# faults over time


def test_the_times_of_a_fault_are_what_the_summary_tells() -> None:
    fault = {"kind": "crash", "target": "replica/*", "at_s": None, "bit": {}, "times": [[1.0, 2.0], [5.0, None], [99.0, None]]}
    made = findings(seconds=10.0, wall_seconds=1.0, faults=[fault])
    assert made.bands() == [Band("fault.0 crash", "replica/*", 1.0, 2.0), Band("fault.0 crash", "replica/*", 5.0, 10.0)]


def test_without_them_they_are_taken_from_the_journal_and_from_the_scenario() -> None:
    declared = [
        {"kind": "pause", "target": "replica/1", "at_s": 1.0, "bit": {"processes": 1}}, {"kind": "loss", "target": "shard/0", "at_s": 3.0, "bit": {"messages": 4}},
        {"kind": "loss", "target": "shard/0", "at_s": 8.0, "bit": {}},
    ]  # fmt: skip
    made = findings(seconds=10.0, wall_seconds=1.0, faults=declared)
    made.scenario = '[[fault]]\nkind = "pause"\n[[fault]]\nkind = "loss"\nfor = "2 s"\n[[fault]]\nkind = "loss"\n'
    made.chronicle.read(
        [
            Record(1.0, "cluster", 0, "paused", "replica/1", 1, note="fault.0 pause"), Record(2.5, "cluster", 0, "resumed", "replica/1", 1, note="fault.0 pause"),
            Record(4.0, "cluster", 0, "crashed", "replica/2", 1, note="exit status 1"),
        ]
    )  # fmt: skip
    assert [(band.what, band.who, band.begin_s, band.end_s) for band in made.bands()] == [
        ("fault.0 pause", "replica/1", 1.0, 2.5), ("", "replica/2", 4.0, 10.0), ("fault.1 loss", "shard/0", 3.0, 5.0),
    ]  # fmt: skip


def test_times_that_overlap_are_shaded_once() -> None:
    bands = [Band("f", "a", 1.0, 3.0), Band("f", "b", 2.0, 4.0), Band("f", "c", 6.0, None)]
    assert united(bands, 9.0) == [(1.0, 4.0), (6.0, 9.0)]


def test_a_pace_keeps_every_count_however_long_the_run_becomes() -> None:
    pace = Pace()
    times = [0.0, 0.001, 0.4, 0.6, 70.0, 70.1, 5000.0]
    for time_s in times:
        pace.add(time_s, 2.0)
    coarse = pace.coarse(50, 5000.0)
    assert len(coarse) <= 50
    assert sum(count for _, count, _ in coarse) == len(times)
    assert sum(total for _, _, total in coarse) == 2.0 * len(times)
    width_s = coarse[1][0]
    assert [begin for begin, count, _ in coarse if count] == sorted({time_s // width_s * width_s for time_s in times})
