"""Declared machines: presets fill in what is left out, and what does not fit into their memory, or this machine's, is told before the run."""

from __future__ import annotations

from typing import Any

import pytest

from scenarios.cluster import PRESETS, Cluster
from scenarios.load import ScenarioError, validate
from scenarios.memory import check_declared, check_here, vectors_of
from scenarios.network import Network
from scenarios.plan import Plan, plan
from scenarios.schema import Scenario
from sim.run import Run

COST = {"parameters": 1_000_000, "flops": "1 GFLOP"}
MODEL_BYTES = 4_000_000


def made(**tables: Any) -> Scenario:
    base = {"numerics": "timing", "model": {"layers": [64, 10], "cost": COST}, "protocol": {"kind": "downpour", "replicas": 2, "shards": 2}}
    scenario, mistakes = validate(base | tables, "test")
    assert scenario is not None, mistakes
    assert not mistakes
    return scenario


def complaints(**tables: Any) -> dict[str, str]:
    _, mistakes = validate({"numerics": "timing", "model": {"layers": [64, 10]}} | tables, "test")
    return {mistake.path: mistake.message for mistake in mistakes}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_fills_in_what_is_left_out_and_nothing_else(name: str) -> None:
    plain, preset = PRESETS[name]["cluster"], made(cluster={"preset": name})
    expected = Cluster.model_validate(plain)
    for key in plain:
        assert getattr(preset.cluster, key) == getattr(expected, key)
    assert preset.network == Network.model_validate(PRESETS[name]["network"])
    given = made(cluster={"preset": name, "speed": "1 GFLOP/s"}, network={"nic": "7 Gbit/s"})
    assert (given.cluster.speed.median, given.network.nic) == (1e9, 7e9 / 8)
    assert (given.cluster.memory, given.network.latency) == (expected.memory, preset.network.latency)


def test_a_preset_that_is_none_is_told_with_the_nearest() -> None:
    assert "did you mean 'h100'?" in complaints(cluster={"preset": "h10"})["cluster.preset"]


def test_a_speed_of_memory_in_the_place_of_its_size_is_told() -> None:
    said = complaints(cluster={"memory": "10 GB/s"})["cluster.memory"]
    assert "that is a bandwidth: cluster.memory_bandwidth" in said
    assert "did you mean '64 GB'?" in complaints(cluster={"memory": 64})["cluster.memory"]
    assert made(cluster={"memory": "64 GB", "memory_bandwidth": "10 GB/s"}).cluster.memory == 64_000_000_000


@pytest.mark.parametrize(
    ("cluster", "path"),
    [
        ({"slow_episodes": {"every": "1 s", "for": "1 s", "factor": 1}}, "cluster.slow_episodes.factor"),
        ({"slow_episodes": {"every": "1 s", "factor": 2}}, "cluster.slow_episodes.for"),
        ({"cores": 0}, "cluster.cores"),
        ({"start_up": 2}, "cluster.start_up"),
        ({"start_up": {"lognormal": {"sigma": 1}}}, "cluster.start_up.lognormal"),
    ],
)
def test_what_no_machine_is_like_is_told_with_its_path(cluster: dict[str, Any], path: str) -> None:
    assert [*complaints(cluster=cluster)] == [path]


# memory


def planned(**tables: Any) -> Plan:
    return plan(made(**tables))


@pytest.mark.parametrize(
    ("protocol", "role", "models"),
    [
        ({"rule": {"kind": "sgd", "learning_rate": 1}, "durability": "none"}, "shard/0", 0.5),
        ({"rule": {"kind": "momentum", "learning_rate": 1}, "durability": "none"}, "shard/0", 1.0),
        ({"rule": {"kind": "adam", "learning_rate": 1}, "durability": "snapshot"}, "shard/0", 3.0),
        ({"rule": {"kind": "adagrad", "learning_rate": 1}, "durability": "mirror"}, "mirror/0", 2.0),
        ({}, "replica/0", 4.0),
        ({}, "evaluator", 2.0),
    ],
)
def test_a_role_holds_its_slice_the_state_of_its_rule_and_what_is_on_its_way(protocol: dict[str, Any], role: str, models: float) -> None:
    whole = {"kind": "downpour", "replicas": 2, "shards": 2} | protocol
    assert vectors_of(planned(protocol=whole), role) == models * MODEL_BYTES


def test_machines_with_too_little_memory_for_who_lives_there_are_told() -> None:
    """One machine holds two replicas of 16 MB and two shards, with a copy of slice and state each: 40 MB."""
    protocol = {"kind": "downpour", "replicas": 2, "shards": 2, "rule": {"kind": "sgd", "learning_rate": 1}}
    check_declared(planned(protocol=protocol, cluster={"machines": 1, "memory": "40 MB"}))
    with pytest.raises(
        ScenarioError, match=r"cluster\.memory: found 0\.0399 GB; machine/0 would need 0\.04 GB: shard/0 0\.004 GB, shard/1"
    ):
        check_declared(planned(protocol=protocol, cluster={"machines": 1, "memory": "39.9 MB"}))
    check_declared(planned(protocol=protocol, cluster={"machines": 4, "memory": "16 MB"}))
    with pytest.raises(ScenarioError, match=r"machine/2 would need 0\.016 GB: replica/0"):
        check_declared(planned(protocol=protocol, cluster={"machines": 4, "memory": "15 MB"}))


def test_a_history_of_sandblaster_that_is_too_long_for_a_machine_is_told() -> None:
    with pytest.raises(ScenarioError, match=r"protocol\.memory: found 10; a shard would hold .* it has 0\.05 GB by cluster\.memory"):
        check_declared(planned(protocol={"kind": "sandblaster", "replicas": 2, "shards": 1, "memory": 10}, cluster={"memory": "50 MB"}))


def test_the_bytes_of_a_declared_network_count_and_not_those_of_the_one_that_trains() -> None:
    real = {"numerics": "real", "model": {"layers": [64, 16, 10], "cost": COST}}
    with pytest.raises(ScenarioError, match=r"found 0\.015 GB; machine/\d would need 0\.016 GB"):
        check_declared(planned(**real, cluster={"memory": "15 MB"}))
    check_here(planned(**real), 15e6)


def test_what_would_not_fit_here_is_told_before_the_run() -> None:
    wide = {"numerics": "real", "model": {"layers": [64, 4096, 10]}, "protocol": {"kind": "downpour", "replicas": 1000, "shards": 2}}
    with pytest.raises(ScenarioError, match=r"would take about 5\.\d+ GB to simulate: 1,003 roles on 1,003 machines, whose vectors take"):
        check_here(planned(**wide), 4e9)
    check_here(planned(**wide), 64e9)
    many = {"protocol": {"kind": "downpour", "replicas": 1_000_000, "shards": 10}}
    with pytest.raises(ScenarioError, match=r"1,000,010 roles .* allowed: fewer of them"):
        check_here(planned(**many), 64e9)


def test_a_run_is_not_begun_where_it_does_not_fit() -> None:
    with pytest.raises(ScenarioError, match="machine/2 would need"):
        Run(made(cluster={"memory": "1 MB"}))
