"""How much a log has to take, reckoned from the scenario, and what the simulated world makes of it."""

from __future__ import annotations

import pytest

from scenarios.log_rate import log_rate
from scenarios.schema import Scenario
from sim.strategies import Tables, scenario
from tests.sim.schedules import small
from tests.sim.trials import trial

PARAMETERS, FLOPS = 12_000, 50e6
PUSH_BYTES = PARAMETERS / 2 * 4
STEP_S = 0.05


def made(**protocol: object) -> Scenario:
    return scenario(small(durability="log", **protocol))


@pytest.mark.parametrize(
    ("protocol", "times"),
    [
        ({}, 1.0),
        ({"replicas": 3}, 3.0),
        ({"batch": 4}, 1 / 4),
        ({"n_push": 5}, 1 / 5),
        ({"shards": 4}, 1 / 2),
        ({"wire": "bfloat16"}, 1 / 2),
    ],
)
def test_replicas_that_never_stop_push_once_in_the_time_of_their_minibatches(protocol: Tables, times: float) -> None:
    assert log_rate(made(**protocol), PARAMETERS, FLOPS).required == pytest.approx(times * PUSH_BYTES / STEP_S)


def test_no_more_comes_than_the_network_brings() -> None:
    tables = small(durability="log", replicas=100)
    shared = scenario(tables)
    assert log_rate(shared, PARAMETERS, FLOPS) == (shared.network.nic, shared.cluster.disk)
    unshared = scenario(tables | {"network": tables["network"] | {"model": "latency"}})
    assert log_rate(unshared, PARAMETERS, FLOPS).required == pytest.approx(100 * PUSH_BYTES / STEP_S)


def test_a_simulated_log_grows_as_fast_as_was_reckoned() -> None:
    drawn = made(replicas=3, stop={"updates": 200})
    applied = [record.time_s for record in trial(drawn).records if record.event == "applied" and record.node == "shard/0"]
    measured = (len(applied) - 1) * PUSH_BYTES / (applied[-1] - applied[0])
    assert measured == pytest.approx(log_rate(drawn, PARAMETERS, FLOPS).required, rel=0.05)
