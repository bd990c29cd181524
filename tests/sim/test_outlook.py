"""A job that makes no progress says who waits for whom, and since when."""

from __future__ import annotations

import io

from core.journal import Record, read
from sim.outlook import Wait, in_brief
from sim.run import Run
from sim.strategies import scenario
from tests.sim.schedules import small


def run(*faults: dict[str, object], **protocol: object) -> tuple[Run, list[Record]]:
    journal = io.BytesIO()
    done = Run(scenario(small(*faults, **protocol)), journal)
    done.simulate()
    done.journal.flush()
    return done, list(read(iter(journal.getvalue().decode().splitlines(keepends=True))))


def test_while_a_shard_is_stopped_it_is_told_who_waits_for_it() -> None:
    stopped = {"kind": "pause", "target": "shard/0", "at": "60 s", "for": "30 s"}
    done, records = run(stopped, deadline="100 ms", detect_within="40 s", stop={"updates": 2000})
    told = [record for record in records if record.event == "stalled"]
    assert told
    assert "waits for shard/0" in told[-1].note
    assert "whose process is stopped" in told[-1].note
    assert "shard/0 since 1 min: it is stopped" in told[-1].note
    assert done.summary()["status"] == "done"
    assert done.summary()["waits"] == []


def test_those_who_wait_for_the_same_are_told_of_together() -> None:
    crowd = [Wait(f"replica/{number}", "shard/0", 1.0 + number, "Push, on its way") for number in range(3)]
    brief = in_brief([*crowd, Wait("replica/7", "shard/1", 9.0, "Fetch, on its way")])
    assert (
        brief
        == "replica/0 waits for shard/0 since 1 s: Push, on its way (and 2 more); replica/7 waits for shard/1 since 9 s: Fetch, on its way"
    )
