"""How long a minibatch takes: by hand, and as the simulator has it; and whether parts fit their machines."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import Any

import pytest

from core import chance
from core.graph import Graph, GraphError, Node
from core.journal import read
from core.partitioning import Partitioned
from models.layers import Dense, Source
from models.placement import balanced
from models.windows import Convolution
from scenarios.estimate import minibatch_seconds
from scenarios.partitions import check_parts_memory, chosen, placement_of, room
from scenarios.plan import plan
from scenarios.schema import Scenario
from sim.run import Run

LATENCY_S, HEADER = 1e-3, 64
SPEED, NIC = 1e6, 1e5


def made(sharing: str = "fifo", cluster: dict[str, Any] | None = None, network: dict[str, Any] | None = None, **tables: Any) -> Scenario:
    return Scenario.model_validate(
        {
            "schema": 1, "numerics": "timing",
            "protocol": {"kind": "downpour", "replicas": 1, "shards": 1, "stop": {"updates": 1}},
            "cluster": {"speed": "1 MFLOP/s", "memory_bandwidth": "1 MB/s"} | (cluster or {}),
            "network": {"model": sharing, "nic": "100 kB/s", "latency": "1 ms"} | (network or {}),
        } | tables
    )  # fmt: skip


CHAIN = Graph([Node("inputs", Source((10,))), Node("first", Dense(20), "inputs"), Node("second", Dense(5), "first")])
FORWARD_S = [2 * 10 * 20 / SPEED, 2 * 20 * 5 / SPEED]
"""Of one sample; backwards it takes twice as long."""
WORD_S = LATENCY_S + HEADER / NIC


def message_s(elements: int) -> float:
    return LATENCY_S + (HEADER + 4 * elements) / NIC


def test_one_machine_computes_and_nothing_else():
    alone = Partitioned(CHAIN, {"first": (0,), "second": (0,)})
    assert minibatch_seconds(alone, made(), 7) == pytest.approx(3 * 7 * sum(FORWARD_S))


@pytest.mark.parametrize("model", ["latency", "fifo", "fair"])
def test_two_machines_in_a_chain_wait_for_each_other_and_agree_at_the_end(model):
    chain = Partitioned(CHAIN, {"first": (0,), "second": (1,)})
    samples = 3
    by_hand = samples * FORWARD_S[0] + message_s(20 * samples) + 3 * samples * FORWARD_S[1] + message_s(20 * samples)
    by_hand += 2 * samples * FORWARD_S[0]  # the gradient of the first, on machine 0, which has heard from machine 1 by then
    assert minibatch_seconds(chain, made(model), samples) == pytest.approx(by_hand + WORD_S)


@pytest.mark.parametrize(("model", "waits"), [("latency", 0), ("fifo", 1)])
def test_messages_take_turns_at_the_card_of_whoever_sends_two_and_of_whoever_receives_two(model, waits):
    """Machine 0 sends its only output to two others, which send gradients back at one time."""
    graph = Graph([Node("inputs", Source((10,))), Node("first", Dense(20), "inputs"), Node("second", Dense(6), "first")])
    fan = Partitioned(graph, {"first": (0,), "second": (1, 2)})
    half_s, first_s, wire_s = 2 * 20 * 3 / SPEED, 2 * 10 * 20 / SPEED, (HEADER + 4 * 20) / NIC
    there_s = first_s + message_s(20) + waits * wire_s
    back_s = there_s + 3 * half_s + message_s(20)
    words_s = 2 * HEADER / NIC  # the other's word, which is there before the last gradient; and the first of the two words at the end
    assert minibatch_seconds(fan, made(model), 1) == pytest.approx(back_s + 2 * first_s + WORD_S + waits * words_s)


def test_a_parameter_that_another_machine_needs_crosses_before_anything_is_computed_there():
    graph = Graph([Node("inputs", Source((1, 4, 4))), Node("filters", Convolution(1, 1, bias=False), "inputs")])
    tiles = Partitioned(graph, {"filters": (0, 1)})
    forward_s = 2 * 8 / SPEED
    there_s = message_s(1) + 3 * forward_s + message_s(1) + HEADER / NIC  # the gradient, and behind it the word that all is through
    assert minibatch_seconds(tiles, made(), 1) == pytest.approx(there_s + WORD_S)


def test_each_machine_has_the_speed_that_the_simulator_draws_for_it_and_the_cores_of_one_process():
    scenario = made(seed=5, cluster={"speed": {"median": "1 MFLOP/s", "sigma": 0.5}, "cores": 4, "cores_per_process": 1})
    alone = Partitioned(CHAIN, {"first": (0,), "second": (0,)})
    luck = chance.stream(5, "machine/1", "speed").lognormvariate(0.0, 0.5)  # a shard lives on machine/0
    assert minibatch_seconds(alone, scenario, 1) == pytest.approx(3 * sum(FORWARD_S) * 4 / luck, rel=1e-5)


def test_a_card_of_its_own_and_a_way_between_racks_count():
    chain = Partitioned(CHAIN, {"first": (0,), "second": (1,)})
    plain = minibatch_seconds(chain, made("latency"), 1)
    slow = {"nics": [{"machines": "machine/2", "nic": "50 kB/s"}]}
    assert minibatch_seconds(chain, made("latency", network=slow), 1) == pytest.approx(plain + (2 * (HEADER + 80) + HEADER) / NIC)
    racks = {"topology": {"kind": "racks", "racks": 3, "oversubscription": 1, "uplink_latency": "5 ms"}}
    assert minibatch_seconds(chain, made("latency", network=racks), 1) == pytest.approx(plain + 3 * 10e-3)


def test_partitions_on_one_machine_pass_through_its_memory():
    chain = Partitioned(CHAIN, {"first": (0,), "second": (1,)})
    together = minibatch_seconds(chain, made(cluster={"machines": 1}), 1)
    assert together == pytest.approx(3 * sum(FORWARD_S) + (2 * (HEADER + 80) + HEADER) / 1e6)


@pytest.mark.parametrize(("model", "within"), [("latency", 1e-6), ("fifo", 0.03), ("fair", 0.2)])
def test_a_replica_that_talks_to_no_shard_takes_as_long_in_the_simulator(model, within):
    """Under `latency` exactly; cards are shared with answers, and with the next minibatch's first messages."""
    scenario = made(
        model,
        model={"layers": [64, 400, 300, 10], "partitions": 4},
        protocol={
            "kind": "downpour", "replicas": 1, "shards": 4, "batch": 8, "n_push": 1000, "n_fetch": 1000, "detect_within": "1 s",
            "stop": {"time": "1.5 s"},
        },
        cluster={"speed": {"median": "100 MFLOP/s", "sigma": 0.3}, "start_up": "100 ms"},
        network={"nic": "1 MB/s"},
    )  # fmt: skip
    journal = io.BytesIO()
    run = Run(scenario, journal)
    run.simulate()
    run.journal.flush()
    records = read(iter(journal.getvalue().decode().splitlines(keepends=True)))
    ends = [record.time_s for record in records if record.event == "passed" and record.node == "replica/0/0"]
    steps = [end - begin for begin, end in pairwise(ends[3:])]
    partitioned = plan(scenario).partitioned
    assert partitioned is not None
    assert sum(steps) / len(steps) == pytest.approx(minibatch_seconds(partitioned, scenario, 8), rel=within)


# from the scenario's table


def split(placement: Any, speed: str = "1 MFLOP/s") -> Scenario:
    return made(
        "latency", {"speed": speed}, model={"layers": [64, 40, 10], "partitions": 2, "placement": placement},
        protocol={"kind": "downpour", "replicas": 1, "shards": 2, "stop": {"updates": 1}},
    )  # fmt: skip


GRAPH = Graph([Node("inputs", Source((64,))), Node("hidden", Dense(40), "inputs"), Node("classes", Dense(10), "hidden")])


@pytest.mark.parametrize("placement", ["balanced", "metis", "search", {"hidden": (1, 0), "classes": 0}])
def test_every_way_of_a_scenario_leads_to_parts_on_all_machines(placement):
    found = placement_of(split(placement), GRAPH, 8)
    assert found.machines == 2
    assert all(found.parts_of(machine) for machine in range(2))


def test_a_search_is_for_the_scenario_s_own_machines():
    """With a network that is slow beside its machines, little crosses; with one that is fast, all compute."""
    slow, fast = (chosen(split("search", speed), GRAPH, 8) for speed in ("1 TFLOP/s", "10 kFLOP/s"))
    assert slow.partitioned.elements(8) < fast.partitioned.elements(8)
    assert min(one.seconds for one in slow.tried) == minibatch_seconds(slow.partitioned, split("search", "1 TFLOP/s"), 8)


def test_a_plan_takes_the_placement_of_its_scenario():
    planned = plan(split({"hidden-1": 1, "relu-1": 1, "classes": (0, 0)})).partitioned
    assert planned is not None
    assert planned.placement["classes"] == (0, 0)


# memory


def test_a_part_takes_four_vectors_of_its_parameters_and_what_goes_in_and_out_of_it():
    chain = Partitioned(CHAIN, {"first": (0,), "second": (1,)})
    first, second = (room(chain, machine, 3) for machine in range(2))
    assert [nbytes for _, nbytes in first.parts] == [4 * (4 * (10 * 20 + 20) + 3 * (10 + 2 * 20))]
    assert [nbytes for _, nbytes in second.parts] == [4 * (4 * (20 * 5 + 5) + 3 * (20 + 2 * 5))]
    assert first.messages == second.messages == 4 * 3 * 20


def test_parts_that_fit_are_not_told_of_and_what_does_not_fit_names_machine_part_and_sizes():
    wide = Graph([Node("inputs", Source((1000,))), Node("hidden", Dense(1000), "inputs"), Node("classes", Dense(10), "hidden")])
    halves = Partitioned(wide, balanced(wide, 2))
    needed = max(room(halves, machine, 32).total for machine in range(2))
    check_parts_memory(halves, 32, needed)
    with pytest.raises(GraphError) as caught:
        check_parts_memory(halves, 32, 5_000_000)
    assert str(caught.value) == (
        "machine 0 of a replica would need 8.6 MB for its 2 parts and a minibatch of 32, 8.26 MB of it for 'hidden[0:500]'; it has 5 MB;"
        " allowed: more partitions, another placement, a smaller batch, or more memory"
    )
