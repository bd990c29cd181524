"""Counts over the journal: the same whether taken as it is written or read back, and percentiles as numpy has them."""

from __future__ import annotations

import io
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.journal import Journal, read
from report.tally import Evaluation, Tally, distribution
from scenarios.load import validate
from sim.run import Run

counted = st.lists(st.integers(0, 50), min_size=1, max_size=300)


@given(counted)
def test_the_distribution_is_numpy_s_by_nearest_rank(values: list[int]) -> None:
    found = distribution(Counter(map(float, values)))
    assert found["mean"] == pytest.approx(np.mean(values), abs=0.000501)
    assert found["max"] == max(values)
    for name, share in (("p50", 50), ("p99", 99)):
        assert found[name] == np.percentile(values, share, method="inverted_cdf")


def test_the_distribution_of_nothing_is_zero() -> None:
    assert distribution(Counter()) == {"mean": 0.0, "p50": 0, "p99": 0, "max": 0}


def test_a_count_of_nothing_has_no_part_in_it() -> None:
    assert distribution(Counter({1.0: 4, 9.0: 1}))["p99"] == 9
    assert distribution(Counter({1.0: 1000, 9.0: 1}))["p99"] == 1


def a_run(**protocol: object) -> tuple[Run, bytes]:
    tables = {
        "name": "small", "numerics": "timing", "seed": 4, "model": {"layers": [64, 10]},
        "protocol": {
            "kind": "downpour", "replicas": 3, "shards": 2, "deadline": "200 ms", "durability": "snapshot", "snapshot_every": "100 ms",
            "stop": {"updates": 60},
        } | protocol,
        "cluster": {"speed": "2 MFLOP/s", "start_up": "50 ms", "jitter": {"sigma": 0.3}},
        "network": {"latency": "5 ms"},
        "fault": [
            {"kind": "crash", "target": "shard/1", "at": "400 ms", "repair": "100 ms"},
            {"kind": "loss", "target": "replica/1", "at": "100 ms", "for": "1 s", "probability": 0.3},
        ],
    }  # fmt: skip
    scenario, mistakes = validate(tables, "small")
    assert scenario is not None, mistakes
    journal = io.BytesIO()
    run = Run(scenario, journal)
    run.simulate()
    run.journal.flush()
    return run, journal.getvalue()


def to_the_nanosecond(tally: Tally) -> Tally:
    """As the journal writes times."""
    finished = {shard: (round(time_s, 9), why) for shard, (time_s, why) in tally.finished.items()}
    return replace(tally, finished=finished, curve=[point._replace(time_s=round(point.time_s, 9)) for point in tally.curve])


def test_a_tally_taken_as_records_come_is_the_tally_of_the_journal_read_back() -> None:
    run, content = a_run()
    again = Tally()
    again.read(read(iter(content.decode().splitlines(keepends=True))))
    assert again == to_the_nanosecond(run.tally)
    assert again.events["dropped"]
    assert again.events["crashed"]
    assert again.events["repeated"]
    assert again.updates == 60


def test_a_tally_counts_what_each_event_says() -> None:
    journal, tally, now = Journal(), Tally(), [0.0]
    tally.attach(journal)
    shards = [journal.recorder(f"shard/{number}", 1, lambda: now[0]) for number in range(2)]
    for staleness in (0, 1, 1, 4):
        shards[0]("applied", "replica/0#1", 1, staleness)
    shards[1]("applied", "replica/1#2", 1, 2)
    evaluator = journal.recorder("evaluator", 1, lambda: now[0])
    now[0] = 3.0
    evaluator("evaluated", "", 1, 0.5, "0.9")
    evaluator("evaluated", "", 2, 0.25)
    now[0] = 5.0
    shards[1]("finished", "", 1, 10, "1 updates")
    now[0] = 4.0
    shards[0]("finished", "", 4, 10, "4 updates")
    assert tally.staleness == {0: 1, 1: 2, 2: 1, 4: 1}
    assert tally.by_sender == {"replica/0#1": 4, "replica/1#2": 1}
    assert tally.updates == 1
    assert tally.mean_staleness() == pytest.approx(8 / 5)
    assert tally.curve == [Evaluation(3.0, 1, 0.5, 0.9), Evaluation(3.0, 2, 0.25, None)]
    assert (tally.finished_at(), tally.reason()) == (5.0, "1 updates")


def test_a_restored_shard_stands_at_its_snapshot() -> None:
    journal, tally = Journal(), Tally()
    tally.attach(journal)
    shard = journal.recorder("shard/0", 1, lambda: 0.0)
    for number in range(9):
        shard("applied", "replica/0#1", number)
    journal.recorder("shard/0", 2, lambda: 1.0)("restored", "", 5)
    assert tally.updates == 5
    assert tally.staleness.total() == 9


def test_an_empty_journal_is_an_empty_tally() -> None:
    tally = Tally()
    tally.read([])
    assert (tally.updates, tally.mean_staleness(), tally.finished_at(), tally.reason(), tally.curve) == (0, 0.0, None, "", [])


def test_an_accuracy_that_is_no_number_is_no_error() -> None:
    journal, tally = Journal(), Tally()
    tally.attach(journal)
    journal.recorder("evaluator", 1, lambda: 0.0)("evaluated", "", 1, math.nan, "torn")
    assert tally.curve[0].accuracy is not None
    assert math.isnan(tally.curve[0].accuracy)
