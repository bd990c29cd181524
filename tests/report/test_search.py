"""Looking into a journal: what is found in the raw text is what a plain reading finds, and every event has its sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from core.journal import LEGEND, Journal, Record
from models.errors import InputError
from report import search as searching
from report.search import Wanted, search
from report.story import SENTENCES, in_a_sentence, story
from scenarios.load import load
from sim.cli import main
from sim.run import Run

nodes = st.sampled_from(["replica/1", "replica/11", "shard/0", "cluster"])
peers = st.sampled_from(["", "replica/1#1", "replica/1#12", "shard/0", "replica/11"])
records = st.builds(
    Record, st.floats(0, 100).map(lambda s: round(s, 9)), nodes, st.sampled_from([1, 2, 12]), st.sampled_from(["pushed", "applied", "crashed"]),
    peers, st.sampled_from([1, 2, 12]), st.just(1.0), st.sampled_from(["", "applied", "crashed x"]),
)  # fmt: skip
patterns = st.lists(
    st.sampled_from(["replica/1", "replica/*", "shard/?", "replica/1#1", "replica/1#*", "cluster", "replica/[12]"]), max_size=2
)
wanteds = st.builds(
    Wanted, patterns.map(tuple), st.lists(st.sampled_from(["pushed", "a*", "crashed"]), max_size=2).map(tuple), patterns.map(tuple),
    st.sampled_from([-1.0, 50.0]), st.sampled_from([60.0, 200.0]), st.lists(st.sampled_from([1, 12]), max_size=1).map(tuple),
)  # fmt: skip


def named(name: str, pattern: str) -> bool:
    """Does a name, with its life, fit the pattern, which may leave the life out?"""
    return fnmatchcase(name, pattern) if "#" in pattern else fnmatchcase(name.partition("#")[0], pattern)


def is_wanted(record: Record, wanted: Wanted) -> bool:
    return (
        (not wanted.nodes or any(named(f"{record.node}#{record.life}", pattern) for pattern in wanted.nodes))
        and (not wanted.kinds or any(fnmatchcase(record.event, pattern) for pattern in wanted.kinds))
        and (not wanted.peers or any(named(record.peer, pattern) for pattern in wanted.peers))
        and (not wanted.numbers or record.number in wanted.numbers)
        and wanted.from_s <= record.time_s <= wanted.to_s
    )


@given(st.lists(records, max_size=30), wanteds, st.sampled_from([80, 4096]))
def test_what_is_found_in_the_text_is_what_a_plain_reading_finds(
    tmp_path_factory: pytest.TempPathFactory, written: list[Record], wanted: Wanted, block: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.tsv"
    path.write_text("".join(record.line() for record in written) + "3.0\treplica/1\t1\tcra")
    before, searching.BLOCK = searching.BLOCK, block
    try:
        found = list(search([path], wanted))
    finally:
        searching.BLOCK = before
    assert found == [record for record in written if is_wanted(record, wanted)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run in which a replica crashed."""
    folder = tmp_path_factory.mktemp("run")
    with (folder / "journal.tsv").open("wb") as file:
        made = Run(load("quickstart", ["numerics=timing", "protocol.stop.epochs=12", "fault.1.at='70 s'", "fault.1.repair='10 s'"]), file)
        made.simulate()
        made.journal.flush()
    return folder


def simctl(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_journal_is_read_by_node_kind_and_time(run: Path) -> None:
    told = simctl("journal", run, "--node", "cluster", "--kind", "crash*", "--from", "60s", "--to", "80 s")
    assert told.exit_code == 0
    header, line = told.stdout.splitlines()
    assert header.split() == ["time_s", "node#life", "event", "peer", "number", "value", "note"]
    assert line.split() == ["70.000000000", "cluster#0", "crashed", "replica/2", "1", "0", "fault.1", "crash"]


def test_lines_are_limited_and_told_as_json(run: Path) -> None:
    told = simctl("journal", run, "--peer", "replica/3", "--kind", "applied", "--limit", "2", "--json")
    found = [json.loads(line) for line in told.stdout.splitlines()]
    assert [(record["peer"], record["event"]) for record in found] == [("replica/3#1", "applied")] * 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--node", "replica/33"], "--node replica/33: nobody of that name; did you mean 'replica/3'?"),
        (["--kind", "crash"], "--kind crash: no such event; did you mean 'crashed'?"),
        (["--peer", "shard/9"], "--peer shard/9: nobody of that name; did you mean 'shard/1'?"),
        (["--from", "10"], "allowed: a number with a unit"),
    ],
    ids=["node", "kind", "peer", "time"],
)
def test_a_name_that_is_unknown_is_told_with_the_nearest(run: Path, arguments: list[str], said: str) -> None:
    told = simctl("journal", run, *arguments)
    assert told.exit_code == 2
    assert said in re.sub(r"[│\s]+", " ", told.stderr)


def test_nobody_who_is_there_and_did_nothing_of_the_kind_is_no_mistake(run: Path) -> None:
    told = simctl("journal", run, "--node", "replica/3", "--kind", "crashed")
    assert (told.exit_code, told.stdout, told.stderr) == (0, "", "nothing there is like that\n")


def test_what_is_no_journal_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("a\tb\n")
    assert "is not a journal" in simctl("journal", tmp_path / "x.tsv").stderr
    assert "no journal is there" in simctl("journal", tmp_path).stderr


def test_the_legend_needs_no_run() -> None:
    told = simctl("journal", "--legend")
    assert told.exit_code == 0
    assert all(f"\n{event:<14}" in told.stdout for event in LEGEND)


def test_journals_of_a_run_that_goes_on_are_read_together(tmp_path: Path) -> None:
    (tmp_path / "journals").mkdir()
    for number, time_s in enumerate((2.0, 1.0)):
        (tmp_path / "journals" / f"replica-{number}.1.tsv").write_text(Record(time_s, f"replica/{number}", 1, "computed").line())
    assert [line.split()[1] for line in simctl("journal", tmp_path).stdout.splitlines()[1:]] == ["replica/1#1", "replica/0#1"]


# stories


def texts(run: Path, subject: str) -> Iterator[str]:
    for chapter in story([run / "journal.tsv"], subject):
        yield from (told.text for told in chapter.sentences)


def test_every_event_has_a_sentence() -> None:
    assert SENTENCES.keys() == LEGEND.keys()
    for event in LEGEND:
        assert in_a_sentence(Record(1.0, "shard/0", 2, event, "replica/1#1", 3, 1.0, "why"))


def test_a_push_is_followed_from_its_sender_to_the_shard_and_back(run: Path) -> None:
    (chapter,) = story([run / "journal.tsv"], "push/replica/3#1/shard/0/17")
    assert chapter.heading == "push 17 of replica/3#1 to shard/0"
    assert [told.text.split()[:2] for told in chapter.sentences] == [["replica/3", "sent"], ["shard/0", "applied"], ["replica/3", "heard"]]
    assert [told.gap_s is not None for told in chapter.sentences] == [False, True, True]


def test_a_push_that_nobody_names_is_every_push_of_that_sequence(run: Path) -> None:
    told = simctl("story", run, "push/17", "--limit", "3").stdout
    assert told.count("\npush 17 of ") == 3
    assert "more of that sequence" in told


def test_the_lives_of_a_role_are_told_with_what_ended_them(run: Path) -> None:
    told = list(texts(run, "replica/2"))
    assert "replica/2#1 crashed: fault.1 crash" in told
    assert any(text.startswith("replica/2#2 started") for text in told)
    assert any("in all: " in text and "pushed" in text for text in told)
    assert not any("#1 crashed" in text for text in texts(run, "replica/2#2"))


def test_a_fault_tells_whom_it_hit(run: Path) -> None:
    assert "replica/2#1 crashed: fault.1 crash" in list(texts(run, "fault/1"))


@pytest.mark.parametrize("subject", ["nonsense", "push/", "replica/99", "push/99999", "fault/7"])
def test_what_the_journal_knows_nothing_of_is_told_with_what_is_allowed(run: Path, subject: str) -> None:
    with pytest.raises(InputError, match="allowed: push/17"):
        list(story([run / "journal.tsv"], subject))


def test_a_portion_is_followed_from_replica_to_replica_batch_by_batch(tmp_path: Path) -> None:
    with (tmp_path / "journal.tsv").open("wb") as file:
        made = Run(load("sandblaster", ["numerics=timing", "protocol.stop={iterations=2}"]), file)
        made.simulate()
        made.journal.flush()
    chapters = list(story([tmp_path / "journal.tsv"], "portion/12"))
    assert [chapter.heading for chapter in chapters[:2]] == ["portion 12 in batch 1", "portion 12 in batch 2"]
    words = [told.text.split()[1] for told in chapters[0].sentences]
    assert words[0] == "gave"
    assert words[-1] == "had"
    assert {"sent", "staged", "took"} <= set(words)
    (batch,) = story([tmp_path / "journal.tsv"], "batch/2")
    assert sum("had every portion" in told.text for told in batch.sentences) == 1


def test_a_trace_is_made_of_a_journal_and_not_over_another(run: Path) -> None:
    made = simctl("trace", run)
    assert made.exit_code == 0
    assert json.loads((run / "trace.json").read_text())
    again = simctl("trace", run)
    assert again.exit_code == 2
    assert "--out writes another" in again.stderr


def test_a_journal_s_lines_may_be_any_clock_s(tmp_path: Path) -> None:
    journal = tmp_path / "journal.tsv"
    with journal.open("wb") as file:
        record = Journal(file, prompt=True).recorder("replica/0", 1, lambda: -0.5)
        record("computed", "", 1, 0.25)
    assert [found.time_s for found in search([journal], Wanted())] == [-0.5]
