"""The journal: lines and records, torn ends, the digest, and the legend against what the code really records."""

from __future__ import annotations

import ast
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import core
from core.journal import COLUMNS, LEGEND, Journal, Record, one_line, parse, read

names = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=12)
records = st.builds(
    Record,
    st.integers(0, 10**15).map(lambda ns: float(f"{ns / 1e9:.9f}")), names, st.integers(0, 9), st.sampled_from(sorted(LEGEND)), names,
    st.integers(-(10**9), 10**9), st.floats(allow_nan=False), names,
)  # fmt: skip


def written(some: list[Record], *, prompt: bool = False, batch: int | None = None) -> tuple[bytes, Journal]:
    file = io.BytesIO()
    journal = Journal(file, prompt=prompt)
    if batch is not None:
        journal._batch = batch
    clock = [0.0]
    for record in some:
        clock[0] = record.time_s
        journal.recorder(record.node, record.life, lambda: clock[0])(*record[3:])
    journal.flush()
    return file.getvalue(), journal


@given(records)
def test_a_line_says_the_whole_record(record: Record) -> None:
    assert parse(record.line()) == record


@given(st.lists(records, max_size=20))
def test_what_a_journal_writes_is_what_is_read(some: list[Record]) -> None:
    content, journal = written(some)
    assert list(read(io.StringIO(content.decode(), newline="\n"))) == some
    assert content.decode() == "".join(record.line() for record in some)
    assert journal.lines == len(some)


@given(st.lists(records, max_size=20), st.integers(1, 30), st.booleans())
def test_the_digest_is_of_the_bytes_of_the_file_however_they_were_batched(some: list[Record], batch: int, prompt: bool) -> None:
    content, journal = written(some, prompt=prompt, batch=None if prompt else batch)
    assert journal.digest() == hashlib.blake2b(content, digest_size=16).hexdigest()
    assert content == written(some)[0]


def test_a_journal_without_a_file_has_the_digest_of_one_with_a_file() -> None:
    digests = set()
    for file in (None, io.BytesIO()):
        journal = Journal(file)
        record = journal.recorder("shard/0", 1, lambda: 1.5)
        for number in range(Journal.BATCH + 7):
            record("applied", "replica/0#1", number)
        digests.add(journal.digest())
    assert len(digests) == 1


def test_asking_for_the_digest_in_the_middle_changes_nothing() -> None:
    journal, other = Journal(), Journal()
    for one in (journal, other):
        record = one.recorder("shard/0", 1, lambda: 1.5)
        record("applied")
        if one is journal:
            journal.digest()
        record("finished")
    assert journal.digest() == other.digest()


def test_a_prompt_journal_has_each_line_in_its_file_at_once() -> None:
    file = io.BytesIO()
    record = Journal(file, prompt=True).recorder("shard/0", 1, lambda: 1.5)
    for number in range(3):
        record("applied", number=number)
        assert file.getvalue().count(b"\n") == number + 1


def test_many_nodes_with_clocks_of_their_own_stamp_their_own_time() -> None:
    file = io.BytesIO()
    journal = Journal(file)
    one, other = journal.recorder("shard/0", 1, lambda: 1.0), journal.recorder("shard/1", 1, lambda: 2.0)
    for record in (one, other, one):
        record("applied")
    journal.flush()
    assert [line.split(b"\t")[0] for line in file.getvalue().splitlines()] == [b"1.000000000", b"2.000000000", b"1.000000000"]


def test_a_watcher_sees_the_columns_of_its_event_as_it_happens() -> None:
    seen: list[tuple[object, ...]] = []
    journal = Journal()
    journal.watch("applied", lambda *columns: seen.append(columns))
    record = journal.recorder("shard/0", 2, lambda: 1.5)
    record("persisted", number=3)
    record("applied", "replica/0#1", 4, 5.0, "why")
    assert seen == [(1.5, "shard/0", 2, "applied", "replica/0#1", 4, 5.0, "why")]


WHOLE = [Record(float(n), "shard/0", 1, "applied", "replica/0#1", n, 1.0, "note") for n in (1, 2, 3)]


@pytest.mark.parametrize("kept", range(len(WHOLE[2].line())))
def test_a_last_line_that_was_torn_anywhere_is_left_out(kept: int) -> None:
    text = "".join(record.line() for record in WHOLE[:2]) + WHOLE[2].line()[:kept]
    assert list(read(io.StringIO(text))) == WHOLE[:2]


def test_a_torn_line_that_is_not_the_last_is_an_error() -> None:
    lines = [record.line() for record in WHOLE]
    lines[1] = lines[1][:12] + "\n"
    with pytest.raises(ValueError, match="unpack"):
        list(read(iter(lines)))


def test_a_journal_of_nothing_is_read_as_nothing() -> None:
    assert list(read(io.StringIO(""))) == []


def test_a_record_has_the_columns_of_the_legend_s_header() -> None:
    assert Record._fields == COLUMNS
    assert len(COLUMNS) == Record(0.0, "", 0, "").line().count("\t") + 1


@given(st.text(max_size=400))
def test_a_note_made_one_line_fits_into_the_journal(text: str) -> None:
    note = one_line(text)
    assert len(note) <= 300
    assert parse(Record(1.0, "a", 1, "failed", note=note).line()).note == note
    assert len(note.splitlines()) <= 1


def recorded_events(tree: ast.AST) -> Iterator[str]:
    """Every string that stands in the first argument of a call to something named `record`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("record", "_record"):
                values = (node.args[0].body, node.args[0].orelse) if isinstance(node.args[0], ast.IfExp) else (node.args[0],)
                yield from (value.value for value in values if isinstance(value, ast.Constant))


def test_the_legend_explains_every_event_that_is_recorded_and_no_other() -> None:
    root = Path(core.__file__).parent.parent
    events = {
        event
        for room in ("core", "sim", "exec")
        for path in sorted((root / room).rglob("*.py"))
        for event in recorded_events(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert events == set(LEGEND), "put every event into core.journal.LEGEND, and take out what nobody records"
