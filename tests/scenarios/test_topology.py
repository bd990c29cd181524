"""Links, groups and routes of each topology, and everything that cannot be wired."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import networkx as nx
import pytest

from scenarios.load import ScenarioError, load, validate
from scenarios.network import Network
from scenarios.topology import wire
from scenarios.wiring import HEAD, Unwired, Wiring, machine_names

GBIT = 1e9 / 8


def wired(machines: int, **network: Any) -> Wiring:
    return wire(Network.model_validate(network), machine_names(machines))


def mistakes(machines: int, **network: Any) -> dict[str, str]:
    """As a scenario file is told of them."""
    _, found = validate({"model": {"layers": [64, 10]}, "cluster": {"machines": machines}, "network": network}, "test")
    return {mistake.path: mistake.message for mistake in found}


def graph_file(folder: Path, graph: nx.Graph, name: str = "net.graphml") -> str:
    path = folder / name
    if path.suffix == ".graphml":
        nx.write_graphml(graph, path)
    else:
        path.write_text(json.dumps(nx.node_link_data(graph, edges="edges")), encoding="utf-8")
    return str(path)


def two_switches() -> nx.Graph:
    """Machines 0 and 1 at one switch, 2 and the head at another."""
    graph = nx.Graph()
    for machine, switch in (("machine/0", "left"), ("machine/1", "left"), ("machine/2", "right"), (HEAD, "right")):
        graph.add_edge(machine, switch, bandwidth="10 Gbit/s", latency="1 us")
    graph.add_edge("left", "right", bandwidth="4 Gbit/s", latency="20 us")
    return graph


# star


def test_a_star_has_two_links_for_each_machine_and_nothing_between() -> None:
    star = wired(2)
    assert list(star.links) == ["machine/0 out", "machine/0 in", "machine/1 out", "machine/1 in", "head out", "head in"]
    assert set(star.links.values()) == {1.25e9}
    assert star.route("machine/1", HEAD) == ("machine/1 out", "head in")
    assert star.attachments["machine/1"] == ("machine/1 out", "machine/1 in")
    assert not star.groups


def test_machines_may_have_different_network_cards_and_the_later_of_two_rules_counts() -> None:
    star = wired(12, nic="1 Gbit/s", nics=[{"machines": "machine/1*", "nic": "10 Gbit/s"}, {"machines": "machine/11", "nic": "100 Gbit/s"}])
    fast = {name: capacity / GBIT for name, capacity in star.links.items() if capacity != GBIT and name.endswith(" in")}
    assert fast == {"machine/1 in": 10, "machine/10 in": 10, "machine/11 in": 100}


def test_a_rule_for_network_cards_that_matches_nobody_is_told_with_the_nearest() -> None:
    found = mistakes(4, nics=[{"machines": "machine/*", "nic": "1 Gbit/s"}, {"machines": "machin/3", "nic": "1 Gbit/s"}])
    assert list(found) == ["network.nics.1.machines"]
    assert "did you mean 'machine/3'?" in found["network.nics.1.machines"]


# racks


def test_racks_have_equal_shares_of_the_machines_in_order() -> None:
    racks = wired(5, topology={"kind": "racks", "racks": 2, "uplink": "40 Gbit/s", "power_units": 1})
    assert racks.groups == {
        "rack/0": ("machine/0", "machine/1", "machine/2"),
        "rack/1": ("machine/3", "machine/4"),
        "power/0": tuple(machine_names(5)),
    }
    assert racks.links["rack/0 up"] == racks.links["rack/1 down"] == 40 * GBIT
    assert racks.attachments["power/0"] == ("rack/0 up", "rack/0 down", "rack/1 up", "rack/1 down")


def test_a_message_takes_the_uplinks_only_between_racks_and_the_head_is_at_the_core() -> None:
    racks = wired(4, topology={"kind": "racks", "racks": 2, "uplink": "40 Gbit/s", "uplink_latency": "5 us"})
    assert racks.route("machine/0", "machine/1") == ("machine/0 out", "machine/1 in")
    assert racks.route("machine/0", "machine/3") == ("machine/0 out", "rack/0 up", "rack/1 down", "machine/3 in")
    assert racks.route(HEAD, "machine/3") == ("head out", "rack/1 down", "machine/3 in")
    assert racks.route("machine/3", HEAD) == ("machine/3 out", "rack/1 up", "head in")
    assert racks.latencies == pytest.approx(dict.fromkeys(("rack/0 up", "rack/0 down", "rack/1 up", "rack/1 down"), 5e-6))


def test_an_oversubscribed_uplink_has_a_part_of_what_the_network_cards_have() -> None:
    racks = wired(
        4, nic="10 Gbit/s", nics=[{"machines": "machine/3", "nic": "30 Gbit/s"}],
        topology={"kind": "racks", "racks": 2, "oversubscription": 4},
    )  # fmt: skip
    assert (racks.links["rack/0 up"], racks.links["rack/1 up"]) == (5 * GBIT, 10 * GBIT)


@pytest.mark.parametrize(
    ("topology", "path", "said"),
    [
        ({"kind": "racks", "racks": 5, "uplink": "1 Gbit/s"}, "network.topology.racks", "no more than there are machines, 4"),
        ({"kind": "racks", "racks": 2, "uplink": "1 Gbit/s", "power_units": 3}, "network.topology.power_units", "no more than there are racks, 2"),
        ({"kind": "racks", "racks": 2}, "network.topology", "allowed: uplink or oversubscription, one of them"),
        ({"kind": "racks", "racks": 2, "uplink": "1 Gbit/s", "oversubscription": 2}, "network.topology", "one of them"),
        ({"kind": "racks", "racks": 0, "uplink": "1 Gbit/s"}, "network.topology.racks", "greater than 0"),
        ({"kind": "racks", "racks": 2, "uplnk": "1 Gbit/s", "uplink": "1 Gbit/s"}, "network.topology.uplnk", "did you mean 'uplink'?"),
        ({"kind": "rack"}, "network.topology.kind", "did you mean 'racks'?"),
        ({"kind": "fat-tree", "k": 3}, "network.topology.k", "multiple of 2"),
        ({"kind": "fat-tree", "k": 2}, "network.topology.k", "holds 2 machines; there are 4; allowed: 4 or more"),
        ({"kind": "graph", "file": "nowhere.graphml"}, "network.topology.file", "No such file"),
        ({"kind": "graph", "file": "net.xml"}, "network.topology.file", "ends in .graphml or .json"),
    ],
)  # fmt: skip
def test_what_cannot_be_wired_is_told_with_what_is_allowed(topology: dict[str, Any], path: str, said: str) -> None:
    found = mistakes(4, topology=topology)
    assert list(found) == [path], found
    assert said in found[path]


def test_two_mistakes_of_a_topology_are_told_at_once_and_beside_those_of_other_tables() -> None:
    topology = {"kind": "racks", "racks": 9, "uplink": "1 Gbit/s", "power_units": 10}
    found = mistakes(4, topology=topology, nics=[{"machines": "nobody", "nic": "1 Gbit/s"}])
    assert set(found) == {"network.nics.0.machines", "network.topology.racks", "network.topology.power_units"}


# fat-tree


def test_a_fat_tree_has_racks_and_pods_with_as_much_bandwidth_up_as_down() -> None:
    tree = wired(16, topology={"kind": "fat-tree", "k": 4})
    assert tree.groups["rack/7"] == ("machine/14", "machine/15")
    assert tree.groups["pod/3"] == tuple(f"machine/{number}" for number in range(12, 16))
    kinds = Counter(name.split("/")[0] for name in tree.links)
    assert kinds == {"machine": 32, "head out": 1, "head in": 1, "rack": 8 * 2 * 2, "pod": 4 * 4 * 2}


def test_a_fat_tree_s_routes_have_two_four_or_six_links_and_spread_over_the_core() -> None:
    tree = wired(16, topology={"kind": "fat-tree", "k": 4})
    assert tree.route("machine/0", "machine/1") == ("machine/0 out", "machine/1 in")
    over = Counter[str]()
    for source, destination in itertools.permutations(machine_names(16), 2):
        route = tree.route(source, destination)
        assert set(route) <= set(tree.links)
        same_rack = any({source, destination} <= set(tree.groups[f"rack/{number}"]) for number in range(8))
        same_pod = any({source, destination} <= set(tree.groups[f"pod/{number}"]) for number in range(4))
        assert len(route) == (2 if same_rack else 4 if same_pod else 6)
        assert route == tree.route(source, destination)
        over.update(link for link in route if link.startswith("pod") and " up/" in link)
    assert len(over) == 16
    assert max(over.values()) < 2 * over.total() / len(over)


def test_a_route_up_and_down_a_fat_tree_meets_in_one_switch() -> None:
    tree = wired(16, topology={"kind": "fat-tree", "k": 4})
    for source, destination in itertools.permutations((*machine_names(16), HEAD), 2):
        up = [link.split(" up/")[1] for link in tree.route(source, destination) if " up/" in link]
        down = [link.split(" down/")[1] for link in tree.route(source, destination) if " down/" in link]
        if HEAD not in {source, destination}:
            assert up == down[::-1]
        if len(up) == 2:
            assert int(up[1]) // 2 == int(up[0]), "each aggregation switch has its own row of the core"


# graphs


@pytest.mark.parametrize("name", ["net.graphml", "net.json"])
def test_any_graph_will_do(tmp_path: Path, name: str) -> None:
    graph = wired(3, topology={"kind": "graph", "file": graph_file(tmp_path, two_switches(), name)})
    assert graph.route("machine/0", "machine/2") == ("machine/0 > left", "left > right", "right > machine/2")
    assert graph.links["left > right"] == graph.links["right > left"] == 4 * GBIT
    assert graph.latencies["right > left"] == pytest.approx(20e-6)
    assert set(graph.attachments["machine/2"]) == {"machine/2 > right", "right > machine/2"}


def test_a_node_link_file_may_say_no_more_than_nodes_and_links(tmp_path: Path) -> None:
    links = [{"source": f"machine/{number}", "target": "switch", "bandwidth": "1 Gbit/s"} for number in range(3)]
    data = {"nodes": [{"id": name} for name in ("machine/0", "machine/1", "machine/2", "switch")], "links": links}
    file = tmp_path / "net.json"
    file.write_text(json.dumps(data), encoding="utf-8")
    assert wired(3, topology={"kind": "graph", "file": str(file)}).route("machine/0", "machine/2") == (
        "machine/0 > switch", "switch > machine/2"
    )  # fmt: skip
    file.write_text(json.dumps(data | {"links": [*links, links[0]]}), encoding="utf-8")
    assert "parallel edges" in mistakes(3, topology={"kind": "graph", "file": str(file)})["network.topology.file"]


def test_nodes_may_have_names_of_their_own_and_a_head_that_is_no_node_is_at_the_largest_switch(tmp_path: Path) -> None:
    graph = nx.Graph()
    for number in range(3):
        graph.add_node(f"host{number}", machine=f"machine/{number}")
        graph.add_edge(f"host{number}", "switch", bandwidth="1 Gbit/s")
    wiring = wired(3, topology={"kind": "graph", "file": graph_file(tmp_path, graph)})
    assert wiring.route("machine/2", HEAD) == ("machine/2 > switch", "switch > head")
    assert wiring.links["switch > head"] == 1.25e9


def test_the_edges_of_a_directed_graph_have_one_direction(tmp_path: Path) -> None:
    ring = nx.DiGraph()
    for tail, head in (("machine/0", "machine/1"), ("machine/1", "machine/2"), ("machine/2", "machine/0")):
        ring.add_edge(tail, head, bandwidth="1 Gbit/s")
    wiring = wired(3, topology={"kind": "graph", "file": graph_file(tmp_path, ring)})
    assert wiring.route("machine/1", "machine/0") == ("machine/1 > machine/2", "machine/2 > machine/0")


def test_of_equally_long_paths_one_with_the_least_latency_is_taken_always_the_same(tmp_path: Path) -> None:
    graph = nx.Graph()
    for switch, latency in (("slow", "9 us"), ("a", "1 us"), ("b", "1 us")):
        for machine in machine_names(20):
            graph.add_edge(machine, switch, bandwidth="1 Gbit/s", latency=latency)
    file = graph_file(tmp_path, graph)
    first, second = (wired(20, topology={"kind": "graph", "file": file}) for _ in range(2))
    routes = {pair: first.route(*pair) for pair in itertools.permutations(machine_names(20), 2)}
    assert routes == {pair: second.route(*pair) for pair in routes}
    assert {route[0].split(" > ")[1] for route in routes.values()} == {"a", "b"}


def broken(graph: nx.Graph, how: str) -> nx.Graph:
    if how == "cut":
        graph.remove_edge("left", "right")
    elif how == "no bandwidth":
        del graph.edges["left", "right"]["bandwidth"]
    elif how == "bare number":
        graph.edges["left", "right"]["bandwidth"] = 4
    elif how == "bad latency":
        graph.edges["left", "right"]["latency"] = "4 parsecs"
    elif how == "parallel":
        graph = nx.MultiGraph(graph)
        graph.add_edge("left", "right", bandwidth="1 Gbit/s", latency="1 us")
    elif how == "twice":
        graph.nodes["left"]["machine"] = "machine/2"
    return graph


@pytest.mark.parametrize(
    ("how", "machines", "said"),
    [
        ("cut", 3, "no path from machine/0 to machine/2, head"),
        ("no bandwidth", 3, "edge left - right has no bandwidth; allowed: as bandwidth = '10 Gbit/s'"),
        ("bare number", 3, "edge left - right: bandwidth: found 4; a bare number"),
        ("bad latency", 3, "edge left - right: latency: found '4 parsecs'"),
        ("parallel", 3, "has parallel edges"),
        ("twice", 3, "machine/2 is more than one node"),
        ("", 9, "has no node for machine/3, machine/4, machine/5, machine/6 and 2 more, of 9 machines"),
    ],
)
@pytest.mark.parametrize("name", ["net.graphml", "net.json"])
def test_a_graph_that_joins_not_everybody_is_told(tmp_path: Path, how: str, machines: int, said: str, name: str) -> None:
    with pytest.raises(Unwired) as caught:
        wired(machines, topology={"kind": "graph", "file": graph_file(tmp_path, broken(two_switches(), how), name)})
    assert {path for path, _ in caught.value.mistakes} == {"network.topology.file"}
    assert said in str(caught.value)


def test_all_mistakes_of_a_graph_are_told_at_once(tmp_path: Path) -> None:
    graph = two_switches()
    del graph.edges["left", "right"]["bandwidth"], graph.edges["machine/0", "left"]["bandwidth"]
    with pytest.raises(Unwired) as caught:
        wired(4, nic="1 Gbit/s", topology={"kind": "graph", "file": graph_file(tmp_path, graph)})
    assert len(caught.value.mistakes) == 4


@pytest.mark.parametrize(
    ("name", "text"),
    [("net.graphml", "<graphml"), ("net.graphml", ""), ("net.json", "{"), ("net.json", "[1]"), ("net.json", '{"nodes": 3}')],
)
def test_a_file_that_holds_no_graph_is_told(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(Unwired, match="cannot be read as a graph"):
        wired(2, topology={"kind": "graph", "file": str(tmp_path / name)})


def test_a_graph_and_a_list_of_latencies_may_be_beside_the_scenario(tmp_path: Path) -> None:
    graph_file(tmp_path, two_switches())
    (tmp_path / "latencies.txt").write_text("50 us\n70 us\n", encoding="utf-8")
    scenario = tmp_path / "mine.toml"
    text = """
        model = { layers = [64, 10] }
        cluster = { machines = 3 }
        [network]
        topology = { kind = "graph", file = "net.graphml" }
        latency = { empirical = { file = "latencies.txt" } }
    """
    scenario.write_text(text, encoding="utf-8")
    assert load(str(scenario)).network.latency.mean_s == pytest.approx(60e-6)
    scenario.write_text(text.replace("net.g", "nett.g"), encoding="utf-8")
    with pytest.raises(ScenarioError, match=r"network\.topology\.file: found 'nett\.graphml': No such file or directory"):
        load(str(scenario))
