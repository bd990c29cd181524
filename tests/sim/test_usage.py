"""How much of each link was used: nothing is lost between two looks, and under fair sharing no link carries more than it can."""

from __future__ import annotations

import math

import pytest

from scenarios.load import load
from sim.run import Run, simulate
from sim.usage import STRETCHES, carried_by


def run(*overrides: str) -> Run:
    return simulate(load("quickstart", ["numerics=timing", "protocol.stop.epochs=10", *overrides]))


@pytest.mark.parametrize("model", ["latency", "fifo", "fair"])
def test_the_rows_are_all_that_the_links_carried(model: str) -> None:
    done = run(f"network.model={model}")
    now = done.loop.time()
    rows = {row["link"]: row for row in done.cluster.usage.rows()}
    for name, link in done.cluster.network.links.items():
        carried = link.carried(now)
        assert rows.get(name, {"bytes": 0})["bytes"] == round(carried)
    sent, received = (sum(row["bytes"] for name, row in rows.items() if name.endswith(way)) for way in (" out", " in"))
    assert sent == pytest.approx(received, rel=1e-3)


def test_under_fair_sharing_no_moment_has_more_than_the_link_carries() -> None:
    rows = list(run("network.model=fair", "network.nic='1 Gbit/s'").cluster.usage.rows())
    assert max(row["busiest_utilisation"] for row in rows) == pytest.approx(1.0, abs=1e-3)
    assert all(row["utilisation"] <= row["busiest_utilisation"] <= 1 + 1e-3 for row in rows)  # packets pass beside the flows


@pytest.mark.parametrize("model", ["latency", "fifo"])
def test_what_is_sent_at_once_is_carried_as_the_link_can(model: str) -> None:
    """A card that is far too narrow has a backlog when the run is over: all it carried is what its time allowed."""
    rows = list(run(f"network.model={model}", "network.nic='100 kB/s'").cluster.usage.rows())
    assert max(row["utilisation"] for row in rows) > 0.5
    assert all(row["utilisation"] <= row["busiest_utilisation"] <= 1 for row in rows)


def test_a_backlog_is_carried_when_there_is_room() -> None:
    assert list(carried_by([5.0, 0.0, 1.0, 9.0], [2.0, 2.0, 2.0, 4.0])) == [2.0, 2.0, 2.0, 4.0]


def test_stretches_grow_with_the_run_and_the_busiest_lies_within_it() -> None:
    done = run()
    usage = done.cluster.usage
    assert STRETCHES / 2 <= done.loop.time() / usage.stretch_s <= STRETCHES
    assert math.log2(usage.stretch_s / 0.01) == int(math.log2(usage.stretch_s / 0.01))
    assert all(0 <= row["busiest_at_s"] < done.loop.time() for row in usage.rows())
