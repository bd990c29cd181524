"""The trace of a whole run: valid, and each call is there."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

from report.trace import TraceWriter
from scenarios.load import load
from sim.run import Run
from tests.report.traces import lanes, validate


class Kept(io.BytesIO):
    def close(self) -> None:
        self.text = self.getvalue().decode()


def test_the_trace_of_a_run_shows_computations_calls_service_and_queues() -> None:
    file = Kept()
    with TraceWriter(file) as writer:
        run = Run(load("quickstart", ["numerics=timing", "protocol.stop.epochs=4", "fault.1.at='20 s'"]), trace=writer)
        run.simulate()
    events = validate(file.text)
    found = lanes(events)
    computations = sum(len(slices) for lane, slices in found.items() if lane.endswith("computes"))
    assert computations * 32 == sum(run.cluster.settle().samples.values())
    asked = Counter(one["name"].split()[0] for lane, slices in found.items() if " asks " in lane for one in slices)
    served = Counter(one["name"].split()[0] for lane, slices in found.items() if " serves" in lane for one in slices)
    assert 0 < served["Push"] <= asked["Push"]
    assert served["Fetch"] <= asked["Fetch"]
    assert any(event["ph"] == "C" and event["name"] == "queue of shard/0" for event in events)


def test_tracing_changes_nothing(tmp_path: Path) -> None:
    scenario = load("quickstart", ["numerics=timing", "protocol.stop.epochs=2"])
    plain = Run(scenario)
    plain.simulate()
    with TraceWriter.to(tmp_path / "trace.json") as writer:
        traced = Run(scenario, trace=writer)
        traced.simulate()
    assert traced.journal.digest() == plain.journal.digest()
