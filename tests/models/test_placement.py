"""Who gets which part: what somebody says, what is even, what METIS cuts, and what a search finds."""

from __future__ import annotations

import pytest

from core.graph import Graph, GraphError, Node
from core.partitioning import Partitioned
from models.catalogue import BUNDLED
from models.layers import Add, Dense, Elementwise, Mean, Normalised, Source, Whole
from models.losses import with_loss
from models.placement import Found, balanced, by_hand, in_runs, metis, search, steps, told, units_of
from models.windows import Convolution, LocallyConnected


def mlp(*widths: int) -> Graph:
    return with_loss(BUNDLED["mlp"].graph(widths), "cross-entropy")


def branches() -> Graph:
    """Two towers that have nothing to do with each other up to their ends."""
    nodes = [Node("inputs", Source((32,)))]
    for tower in "ab":
        below = "inputs"
        for floor in range(3):
            nodes.append(Node(f"{tower}-{floor}", Dense(256), below))
            below = nodes[-1].name
        nodes.append(Node(f"{tower}-top", Dense(10), below))
    nodes.append(Node("sum", Add(), "a-top", "b-top"))
    return with_loss(Graph(nodes), "cross-entropy")


SMALL = mlp(64, 40, 10)
HAND = {"hidden-1": (0, 1), "relu-1": (0, 1), "classes": 1}


def test_a_loss_that_nobody_places_follows_the_outputs():
    placement = by_hand(SMALL, HAND, 2)
    assert placement == {
        "hidden-1": (0, 1), "relu-1": (0, 1), "classes": (1,), "cross-entropy-parts": (1,), "cross-entropy": (1,)
    }  # fmt: skip
    assert by_hand(SMALL, HAND | {"classes": (1, 0, 1)}, 2)["cross-entropy-parts"] == (1, 0, 1)
    assert by_hand(SMALL, HAND | {"cross-entropy": 0}, 2)["cross-entropy"] == (0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hiden-1": 0}, "layer 'hiden-1' cannot be placed: there is no such layer; did you mean 'hidden-1'?"),
        ({"inputs": 0}, "layer 'inputs' cannot be placed: it comes with the minibatch, and is everywhere; allowed: hidden-1, relu-1, classes, "),
        ({"relu-1": None}, "layer 'relu-1' has no place; each layer needs at least one machine"),
        ({"relu-1": ()}, "layer 'relu-1' has no place; each layer needs at least one machine"),
        ({"classes": 2}, "layer 'classes' on machine 2; there are 2 partitions; allowed: 0 to 1"),
        ({"classes": -1}, "layer 'classes' on machine -1; machines count from 0"),
        ({"classes": (0,) * 11}, "layer 'classes' of 10 outputs in 11 parts; allowed: 1 to 10"),
        ({"hidden-1": 1, "relu-1": 1}, "no layer has a part on machine 0; allowed: something on each of the 2 partitions"),
    ],
)  # fmt: skip
def test_each_mistake_of_a_placement_by_hand_is_told_with_its_layer_and_what_is_allowed(change, message):
    table = {name: machines for name, machines in (HAND | change).items() if machines is not None}
    with pytest.raises(GraphError) as caught:
        by_hand(SMALL, table, 2)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("machines", [2, 5, 8, 81])
def test_balanced_machines_compute_the_same_but_for_a_few_percent(machines):
    graph = mlp(440, 2560, 2560, 8192)
    found = Partitioned(graph, balanced(graph, machines), machines)
    flops = [found.flops_of(machine) for machine in range(machines)]
    assert max(flops) < 1.05 * sum(flops) / machines
    assert all(len(found.placement[name]) == machines for name in ("hidden-1", "relu-1", "classes", "cross-entropy-parts"))


def test_what_cannot_be_split_so_far_goes_to_whoever_has_least_to_compute():
    graph = Graph([Node("inputs", Source((64,))), *(Node(f"layer-{n}", Dense(units), "inputs") for n, units in enumerate((2, 1, 1, 4)))])
    assert balanced(graph, 4) == {"layer-0": (0, 1), "layer-1": (2,), "layer-2": (3,), "layer-3": (0, 1, 2, 3)}


def test_more_partitions_than_parts_are_refused_with_the_layer_that_can_be_split_furthest():
    assert {machine for machines in balanced(SMALL, 50).values() for machine in machines} == set(range(50))
    for way in (balanced, metis):
        with pytest.raises(
            GraphError, match=r"51 partitions .* layer 'hidden-1' can be split furthest, into 40, .* allowed: 1 to 50 partitions"
        ):
            way(SMALL, 51)


def test_layers_that_are_computed_place_by_place_follow_their_input_and_nothing_crosses_between_the_two():
    graph = with_loss(
        Graph([
            Node("pixels", Source((3, 16, 16))),
            Node("brighter", Elementwise("relu"), "pixels"),
            Node("filters", Convolution(8, 3), "brighter"),
            Node("relu", Elementwise("relu"), "filters"),
            Node("twice", Add(), "relu", "filters"),
            Node("local", LocallyConnected(8, 3), "twice"),
            Node("even", Normalised(), "local"),
            Node("mean", Mean(), "even"),
            Node("tanh", Elementwise("tanh"), "mean"),
            Node("classes", Dense(10), "tanh"),
        ]),
        "cross-entropy",
    )  # fmt: skip
    leads = {unit.name: [node.name for node in unit.nodes[1:]] for unit in units_of(graph)}
    assert leads == {
        "brighter": [], "filters": ["relu", "twice"], "local": [], "even": [], "mean": ["tanh"], "classes": ["cross-entropy-parts", "cross-entropy"]
    }  # fmt: skip
    found = Partitioned(graph, balanced(graph, 5), 5)
    sources = {found.parts[message.of].node.name for message in found.messages if not message.weights}
    assert sources.isdisjoint({"filters", "relu", "mean"})


def test_metis_cuts_fewer_bytes_than_an_even_split_where_a_cut_is_plain():
    graph = branches()
    even, cut = (Partitioned(graph, placement, 2) for placement in (balanced(graph, 2), metis(graph, 2, samples=8)))
    assert cut.elements(8) < even.elements(8) / 20
    flops = [cut.flops_of(machine) for machine in range(2)]
    assert max(flops) < 1.1 * sum(flops) / 2
    towers = {cut.placement[f"a-{floor}"] for floor in range(3)}, {cut.placement[f"b-{floor}"] for floor in range(3)}
    assert all(len(tower) == 1 for tower in towers)


@pytest.mark.parametrize("machines", [1, 3, 7, 50])
def test_metis_leaves_no_machine_with_nothing_and_says_the_same_twice(machines):
    once = metis(SMALL, machines, 3)
    assert once == metis(SMALL, machines, 3)
    assert {machine for places in once.values() for machine in places} == set(range(machines))


def test_metis_leaves_no_machine_idle_beside_one_that_has_a_layer_as_large_as_all_others_together():
    """And says nothing of empty graphs on its own, which goes past Python to whoever reads what we print."""

    def layer(number: int, flops: float) -> Node:
        return Node(
            f"layer-{number}", Whole((number,), (), lambda inputs, _: inputs[0], flops), f"layer-{number - 1}" if number else "inputs"
        )

    graph = Graph([Node("inputs", Source((32,))), layer(0, 2e4), *(layer(number, 1e3) for number in range(1, 15))])
    found = Partitioned(graph, metis(graph, 8), 8)
    assert sorted(found.flops_of(machine) for machine in range(8)) == [*[4e3] * 7, 4e4]


def test_parts_that_landed_together_become_one_part():
    assert in_runs((0, 0, 1, 1, 1, 1)) == (0, 1, 1)
    assert in_runs((2, 2, 2)) == (2,)
    assert in_runs((0, 1, 1)) == (0, 1, 1)


def bytes_alone(found: Partitioned) -> float:
    """Of machines that compute at once."""
    return float(found.elements(1))


def slowest_machine(found: Partitioned) -> float:
    """Of a network that is never full."""
    return max(found.flops_of(machine) for machine in range(found.machines))


@pytest.mark.parametrize("estimate", [bytes_alone, slowest_machine])
@pytest.mark.parametrize(("graph", "machines"), [(SMALL, 3), (branches(), 2), (mlp(30, 20, 20, 3), 4)])
def test_a_search_is_never_worse_than_what_it_starts_from_and_finds_the_same_twice(graph, machines, estimate):
    found = search(graph, machines, estimate)
    starts = [estimate(Partitioned(graph, way(graph, machines), machines)) for way in (balanced, metis)]
    assert found.seconds <= min(starts)
    assert found.seconds == min(one.seconds for one in found.tried) == estimate(Partitioned(graph, found.placement, machines))
    assert found.tried[0] == ("balanced", starts[0])
    assert found == search(graph, machines, estimate)


def test_a_search_gets_beyond_what_it_starts_from():
    """Where only bytes count, one machine has everything but a part that crosses cheaply."""
    graph = mlp(64, 40, 40, 10)
    found = search(graph, 2, bytes_alone)
    assert found.seconds < min(one.seconds for one in found.tried[:2])
    assert "whole on machine" in next(one.what for one in found.tried if one.seconds == found.seconds)


@pytest.mark.parametrize("evaluations", [1, 2, 5])
def test_a_search_asks_no_more_often_than_it_may(evaluations):
    asked = []

    def estimate(found: Partitioned) -> float:
        asked.append(found)
        return bytes_alone(found)

    found: Found = search(SMALL, 3, estimate, evaluations=evaluations)
    assert len(asked) == len(found.tried) == evaluations


def test_placements_are_told_as_a_person_says_them():
    assert told((3,)) == "whole on machine 3"
    assert told((0, 1, 2)) == "in 3 parts on machines 0 to 2"
    assert told((4, 4)) == "in 2 parts on machine 4"
    assert told((0, 2)) == "in 2 parts on machines 0, 2"
    assert steps(10) == [10, 8, 6, 4, 3, 2, 1]
