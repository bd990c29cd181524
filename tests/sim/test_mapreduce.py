"""Sandblaster's passes as jobs of MapReduce: the same optimisation, dearer."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given

from core.messages import FetchPoint, Sender
from core.node import Outcome
from core.staging import StagingShard
from sim.strategies import Tables, tables
from tests.sim.courses import Course, small

START_UP_S = 0.7
MAPREDUCE = {"kind": "mapreduce", "job_start_up": f"{START_UP_S} s"}


@given(tables(kind="mapreduce"))
def test_each_portion_counts_once_and_the_job_ends_whatever_fails(drawn: Tables) -> None:
    assert Course(drawn).complaints() == []


def test_it_takes_the_steps_that_sandblaster_takes() -> None:
    course, sandblaster = Course(small(**MAPREDUCE)), Course(small())
    assert course.complaints() == []
    assert course.steps() == sandblaster.steps()
    assert course.parameters() == sandblaster.parameters()


def test_each_pass_waits_for_its_job_to_start() -> None:
    course = Course(small(**MAPREDUCE))
    ends = [record.time_s for record in course.of("covered")]
    given_s = [record.time_s for record in course.of("given")]
    for end_s, next_end_s in pairwise(ends):
        assert min(at for at in given_s if end_s < at < next_end_s) >= end_s + START_UP_S


@pytest.mark.parametrize(("protocol", "for_each_task"), [(MAPREDUCE, True), ({}, False)])
def test_a_task_fetches_the_parameters_again(
    protocol: dict[str, Any], for_each_task: bool, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    fetched = Counter[str]()
    fetch_point = StagingShard.fetch_point

    def counted(shard: StagingShard, fetch: FetchPoint, sender: Sender) -> Outcome:
        fetched[shard.node.name] += 1
        return fetch_point(shard, fetch, sender)

    monkeypatch.setattr(StagingShard, "fetch_point", counted)
    tasks = len(Course(small(bundle=1, **protocol)).of("given"))
    assert all((count == tasks) == for_each_task for count in fetched.values())


def test_no_portion_is_kept_for_who_had_it_before() -> None:
    notes = {record.note for record in Course(small(**MAPREDUCE)).of("given")}
    assert notes
    assert not any("batch before" in note for note in notes)
