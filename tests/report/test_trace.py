"""The trace: whole JSON however it ended, lanes on which nothing overlaps, and what a journal tells of both worlds."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.journal import Record, read
from report.trace import TraceWriter, Track
from report.tracing import from_journal
from scenarios.load import load
from sim.run import Run
from tests.report.traces import lanes, validate

TRACK = Track("machine/1", "replica/0 computing")
seconds = st.floats(0, 1e5, allow_nan=False)


class Kept(io.BytesIO):
    """Remembers what was in it when it was closed."""

    def close(self) -> None:
        if not self.closed:
            self.text = self.getvalue().decode()
        super().close()


def written(*records: Record) -> str:
    file = Kept()
    with TraceWriter(file) as writer:
        from_journal(records, writer)
    return file.text


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(["x", "x 2", "y"]), seconds, seconds), max_size=40))
def test_whatever_comes_in_whatever_order_nothing_overlaps_on_a_lane(slices: list[tuple[str, str, float, float]]) -> None:
    file = Kept()
    with TraceWriter(file) as writer:
        for number, (process, lane, one, other) in enumerate(slices):
            begin, end = min(one, other), max(one, other)
            track = writer.slice(Track(process, lane), f"slice {number}", begin, end)
            assert track.process == process
            assert track.lane.startswith(lane)
            writer.flow(f"{number}", (track, begin), (track, end))
    events = validate(file.text)
    assert sum(event["ph"] == "X" for event in events) == len(slices)


def test_an_overlapping_slice_goes_to_a_further_lane_of_the_same_name() -> None:
    file = Kept()
    with TraceWriter(file) as writer:
        found = [writer.slice(TRACK, name, begin, end).lane for name, begin, end in (("a", 0, 2), ("b", 1, 3), ("c", 2, 4), ("d", 2.5, 5))]
    assert found == ["replica/0 computing", "replica/0 computing 2", "replica/0 computing", "replica/0 computing 3"]
    assert [event["name"] for event in lanes(validate(file.text))["replica/0 computing"]] == ["a", "c"]


def test_times_are_exact_to_the_nanosecond() -> None:
    file = Kept()
    with TraceWriter(file) as writer:
        writer.slice(TRACK, "a", 12345.000000001, 12345.000000003)
    (event,) = [event for event in validate(file.text) if event["ph"] == "X"]
    assert (event["ts"], event["dur"]) == (12_345_000_000_001, 2)


def test_a_number_that_json_has_no_word_for_is_left_out() -> None:
    file = Kept()
    with TraceWriter(file) as writer:
        for value in (1.0, math.nan, math.inf, 2.0):
            writer.counter("training", "loss", 1.0, value)
    assert [event["args"]["value"] for event in validate(file.text) if event["ph"] == "C"] == [1.0, 2.0]


def test_names_are_whatever_they_are() -> None:
    file = Kept()
    with TraceWriter(file) as writer:
        writer.slice(Track('"', "\\"), '"}]\n', 0, 1, note='"tab\t"')
    assert validate(file.text)[-1]["args"] == {"note": '"tab\t"'}


def test_a_trace_that_ends_with_ctrl_c_is_whole(tmp_path: Path) -> None:
    def interrupted() -> None:
        with TraceWriter.to(tmp_path / "trace.json") as writer:
            for number in range(10_000):
                writer.slice(TRACK, "step", number, number + 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert sum(event["ph"] == "X" for event in validate((tmp_path / "trace.json").read_text())) == 10_000


def test_events_are_in_the_file_as_they_come(tmp_path: Path) -> None:
    with TraceWriter.to(tmp_path / "trace.json") as writer:
        for number in range(50_000):
            writer.slice(TRACK, "step", number, number + 1)
        assert (tmp_path / "trace.json").stat().st_size > 2_000_000


def test_an_empty_journal_is_an_empty_trace() -> None:
    assert [event["ph"] for event in validate(written())] == ["M"]


def test_a_push_leads_to_where_it_was_applied() -> None:
    events = validate(
        written(
            Record(0.0, "cluster", 0, "started", "replica/0", 1, 0.0, "machine/1"),
            Record(0.0, "cluster", 0, "started", "shard/0", 1, 0.0, "machine/0"),
            Record(1.0, "replica/0", 1, "pushed", "shard/0", 1, 1.0),
            Record(1.25, "shard/0", 1, "applied", "replica/0#1", 1, 3.0),
            Record(1.5, "replica/0", 1, "acknowledged", "shard/0", 1),
            Record(2.0, "replica/0", 1, "pushed", "shard/0", 2, 1.0),
            Record(3.0, "cluster", 0, "crashed", "replica/0", 1, 0.0, "fault.0 crash"),
        )
    )
    shown = lanes(events)
    first, second = shown["replica/0 pushes to shard/0"]
    assert (first["ts"], first["dur"]) == (1_000_000_000, 500_000_000)
    assert second["args"]["answer"] == "none"
    assert [(event["ph"], event["ts"]) for event in events if event["ph"] in "sf"] == [("s", 1_000_000_000), ("f", 1_250_000_000)]
    assert [event["args"]["value"] for event in events if event["ph"] == "C"] == [3.0]
    (life,) = shown["replica/0 lives"]
    assert (life["name"], life["dur"], life["args"]["why"]) == ("life 1", 3_000_000_000, "fault.0 crash")
    assert [event["name"] for event in shown["fault.0 crash"]] == ["replica/0 is down"]


def test_clocks_that_disagree_draw_no_arrow_back_in_time_and_nothing_before_the_beginning() -> None:
    events = validate(
        written(
            Record(-0.01, "shard/0", 1, "applied", "replica/0#1", 1, 0.0),
            Record(0.5, "replica/0", 1, "pushed", "shard/0", 2, 1.0),
            Record(0.4, "shard/0", 1, "applied", "replica/0#1", 2, 0.0),
            Record(0.45, "replica/0", 1, "acknowledged", "shard/0", 2),
        )
    )
    assert not [event for event in events if event["ph"] in "sf"]


@pytest.mark.parametrize(
    ("name", "overrides"),
    [("quickstart", ("numerics=timing", "protocol.stop.epochs=2")), ("sandblaster", ("numerics=timing", "protocol.stop={iterations=2}"))],
)
def test_the_trace_of_a_run_as_it_goes_shows_all_that_its_journal_does_but_knows_better_when_steps_began(
    name: str, overrides: tuple[str, ...]
) -> None:
    journal, streamed = io.BytesIO(), Kept()
    with TraceWriter(streamed) as writer:
        run = Run(load(name, overrides), journal, trace=writer)
        run.simulate()
    run.journal.flush()
    events = validate(streamed.text)
    again = validate(written(*read(iter(journal.getvalue().decode().splitlines(keepends=True)))))
    shown, told = lanes(events), lanes(again)
    assert {lane for lane in told if not lane.endswith(" steps")} <= shown.keys()
    assert all(len(shown[lane]) == len(slices) for lane, slices in told.items() if not lane.endswith(" steps"))
