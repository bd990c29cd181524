"""How a scenario's model is split: shards by machine, what was searched for is written down, and what does not fit is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from scenarios.load import ScenarioError, load, validate
from scenarios.memory import check_declared
from scenarios.plan import plan

SCENARIO = """
numerics = "timing"
[model]
network = "mlp"
layers = [64, 40, 10]
partitions = 2
[data]
source = "synthetic"
[protocol]
kind = "downpour"
replicas = 1
shards = 5
stop = { updates = 3 }
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "split.toml"
    path.write_text(SCENARIO)
    return str(path)


def test_each_machine_has_shards_of_its_own_which_cover_its_parameters(file: str) -> None:
    made = plan(load(file, ()))
    assert made.partitioned is not None
    assert [shared.name for shared in made.job.shards] == [f"shard/{number}" for number in range(5)]
    for machine in range(2):
        own = [shared.part for shared in made.job.shards if shared.partition == machine]
        there = made.partitioned.parameters_of(machine)
        assert (own[0].start, own[-1].stop) == (there.start, there.stop)
        assert [part.stop for part in own[:-1]] == [part.start for part in own[1:]]
        mine = made.job.of_partition(machine).shards
        assert mine[0].part.start == 0
        assert mine[-1].part.stop == made.partitioned.sizes[machine]


def test_fewer_shards_than_machines_with_parameters_are_refused(file: str) -> None:
    with pytest.raises(ScenarioError, match=r"protocol\.shards: found 1; 2 partitions have parameters, .* allowed: 2 or more"):
        plan(load(file, ("protocol.shards=1",)))


@pytest.mark.parametrize(("partitions", "shards"), [(1, 2), (2, 2), (4, 4)])
def test_where_nothing_is_said_of_shards_there_is_one_for_each_machine_and_two_at_least(
    tmp_path: Path, partitions: int, shards: int
) -> None:
    path = tmp_path / "split.toml"
    path.write_text(SCENARIO.replace("shards = 5\n", "").replace("partitions = 2", f"partitions = {partitions}"))
    scenario = load(str(path), ())
    assert len(plan(scenario).job.shards) == scenario.protocol.shards == shards
    assert "shards" not in scenario.toml()
    with pytest.raises(ScenarioError, match=r"protocol\.shards"):
        plan(load(str(path), (f"protocol.shards={partitions - 1}",)))


def test_a_scenario_that_only_says_into_how_many_machines_can_be_split() -> None:
    scenario, mistakes = validate({"numerics": "timing", "model": {"layers": [64, 40, 10], "partitions": 4}}, "test")
    assert scenario is not None, mistakes
    assert {shared.partition for shared in plan(scenario).job.shards} == {0, 1, 2, 3}


def test_a_declared_cost_has_no_parts(file: str) -> None:
    with pytest.raises(ScenarioError, match=r"model\.cost"):
        plan(load(file, ("model.cost=speech",)))


def test_what_was_searched_for_is_found_again_without_a_search(file: str) -> None:
    searched = plan(load(file, ("model.placement=search",)))
    given = searched.found_placement()
    again = plan(load(file, given))
    assert searched.partitioned is not None
    assert again.partitioned is not None
    assert again.partitioned.placement == searched.partitioned.placement
    assert again.found_placement() == ()


def test_a_machine_of_a_replica_that_is_too_small_for_its_parts_is_named_with_both_sizes(file: str) -> None:
    made = plan(load(file, ("cluster.memory=20 kB",)))
    with pytest.raises(ScenarioError, match=r"machine \d of a replica would need .* of it for 'hidden-1.*'; it has 20 kB"):
        check_declared(made)


def test_more_partitions_than_can_be_made_are_refused_by_the_layer(file: str) -> None:
    with pytest.raises(ScenarioError, match=r"hidden-1"):
        plan(load(file, ("model.partitions=100", "protocol.shards=100")))
