"""Rates over the last seconds, and how much is left."""

from __future__ import annotations

import pytest

from report.progress import Rate, left_s
from scenarios.load import load
from sim.progress import PATIENCE_S, Progress, done
from sim.run import Run


def test_a_rate_is_that_of_the_last_seconds_alone() -> None:
    now = [0.0]
    rate = Rate(10.0, lambda: now[0])
    assert rate(0) == 0.0
    found = []
    for _ in range(30):
        now[0] += 1.0
        found.append(rate(5 * now[0] if now[0] <= 10 else 50 + 20 * (now[0] - 10)))
    assert found[9] == pytest.approx(5)
    assert found[-1] == pytest.approx(20)


def test_what_does_not_move_has_no_end() -> None:
    assert left_s(0.5, 0.0) is None
    assert left_s(0.25, 0.05) == pytest.approx(15)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("quickstart", ("protocol.stop={updates=60}",)),
        ("quickstart", ("protocol.stop.epochs=2",)),
        ("quickstart", ("protocol.stop={time='30 s'}",)),
        ("sandblaster", ("protocol.stop={iterations=3}",)),
        ("quickstart", ("protocol={kind='sync',replicas=7,backup_workers=1,batch=32,stop={updates=20}}",)),
        ("quickstart", ("protocol={kind='sync',replicas=7,backup_workers=1,batch=32,stop={epochs=2}}",)),
    ],
    ids=["updates", "epochs", "time", "iterations", "steps", "samples of steps"],
)
def test_the_share_that_is_done_grows_from_nothing_to_everything(name: str, overrides: tuple[str, ...]) -> None:
    run = Run(load(name, ["numerics=timing", *overrides]))
    shares = [done(run) or 0.0]
    run.loop.on_event = lambda: shares.append(done(run) or 0.0)
    run.cluster.begin()
    run.loop.run(until=run.cluster.done)
    assert shares[0] < 0.01
    assert shares == sorted(shares)
    assert shares[-1] >= 0.99


def test_a_short_run_shows_nothing_and_a_long_one_says_how_long_it_will_take() -> None:
    run = Run(load("quickstart", ["numerics=timing", "protocol.stop={updates=1000}"]))
    run.cluster.begin()
    shown = Progress()
    assert not shown.line(run)
    run.loop.run(until=60.0)
    shown.began -= PATIENCE_S
    told = shown.line(run)
    assert "1 min of virtual time" in told
    assert f"{run.cluster.network.messages:,} messages" in told
    assert f"{run.tally.updates / 1000:.0%} done" in told
