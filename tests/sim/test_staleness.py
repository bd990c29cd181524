"""How stale gradients are, and what is done about it, as others have measured it (Zhang et al., arXiv 1511.05950)."""

from __future__ import annotations

from typing import Any

import pytest

from scenarios.schema import Scenario
from sim.run import Run, simulate


def run(replicas: int, *, numerics: str, stop: dict[str, Any], rule: dict[str, Any], jitter: float = 0.03, network: str = "fair") -> Run:
    """Equal machines, about a second for each minibatch, and one shard, so that staleness is of whole updates."""
    return simulate(Scenario.model_validate({
        "seed": 1, "numerics": numerics,
        "model": {"layers": [64, 64, 10], "cost": {"parameters": 100_000, "flops": "10 MFLOP"}},
        "protocol": {
            "kind": "downpour", "replicas": replicas, "shards": 1, "batch": 32, "durability": "none", "detect_within": "10 s",
            "evaluate_every": "60 s", "rule": {"kind": "sgd"} | rule, "stop": stop,
        },
        "cluster": {"speed": "320 MFLOP/s", "jitter": {"sigma": jitter}},
        "network": {"model": network},
    }))  # fmt: skip


@pytest.mark.parametrize("replicas", [1, 4, 10, 30])
@pytest.mark.parametrize("jitter", [0.03, 0.1])
def test_on_equal_machines_a_gradient_is_as_stale_as_two_computations_of_everybody(replicas: int, jitter: float) -> None:
    """The fetch is under way during one computation, and used for the next, and its request overtakes the push that went before it:
    2 n updates, where a learner that waits for its parameters has about n.
    """
    found = run(replicas, numerics="timing", stop={"updates": 100 * replicas}, rule={"learning_rate": 0.1}, jitter=jitter).tally
    usual = 2 * replicas
    assert found.mean_staleness() == pytest.approx(usual, rel=0.03)
    assert max(found.staleness) <= 2 * usual, "P(more than twice the mean) = 0 of 100 n updates"


def test_where_requests_do_not_overtake_pushes_it_is_one_update_less() -> None:
    found = run(10, numerics="timing", stop={"updates": 1000}, rule={"learning_rate": 0.1}, network="fifo").tally
    assert found.mean_staleness() == pytest.approx(2 * 10 - 1, rel=0.03)


def accuracy(replicas: int, *, aware: bool) -> float:
    rule = {"learning_rate": 0.2, "staleness_aware": aware}
    final = run(replicas, numerics="real", stop={"epochs": 20}, rule=rule).cluster.final
    assert final is not None
    return final.quality.accuracy or 0.0


def test_thirty_replicas_learn_nothing_at_a_rate_that_one_learns_well_with_and_do_at_the_rate_over_the_staleness() -> None:
    assert accuracy(1, aware=False) > 0.9
    assert accuracy(30, aware=False) < 0.3
    assert accuracy(30, aware=True) > 0.6
