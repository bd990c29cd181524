"""A topology that is any graph: a .graphml file, or a .json file in networkx's node-link form.

Edges have a `bandwidth` and perhaps a `latency`, with units, as "10 Gbit/s" and "5 us".  A node is the machine that its attribute
`machine` names, or else its own name: "machine/0", "machine/1", ..., perhaps "head"; all others are switches.  Unless the graph is
directed an edge stands for both directions.  A message takes fewest links, of such paths one with the least latency.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from core import chance
from scenarios.network import Graph, Network
from scenarios.units import bandwidth, duration
from scenarios.wiring import HEAD, Unwired, Wiring
from scenarios.words import listed, nearest

FILE = "network.topology.file"


def graph(network: Network, machines: Sequence[str], nics: Mapping[str, float]) -> Wiring:
    """The head has a network card of its own where it is no node."""
    topology = network.topology
    assert isinstance(topology, Graph)
    found = read(topology.file)
    names = {node: str(attributes.get("machine", node)) for node, attributes in found.nodes(data=True)}
    cables = Cables(found, names)
    mistakes = [*nics_of(network), *misnamed(names, machines), *((FILE, mistake) for mistake in cables.mistakes)]
    if mistakes:
        raise Unwired(mistakes)
    if HEAD not in names.values():
        hub = names[max(found.nodes, key=found.degree)]
        cables.join(HEAD, hub, nics[HEAD], 0.0)
        cables.join(hub, HEAD, nics[HEAD], 0.0)
    ends = (*machines, HEAD)
    cables.reach(ends)
    attachments = {
        end: tuple(link_name(*edge) for edge in (*cables.directed.out_edges(end), *cables.directed.in_edges(end))) for end in ends
    }
    return Wiring(cables.links, attachments, {}, cables.latencies, cables.between, ends=False)


def read(file: str) -> Any:
    """A simple graph, directed or not.  Raises Unwired."""
    import networkx as nx

    path = Path(file)
    if path.suffix not in READERS:
        raise Unwired([(FILE, f"found {file!r}; allowed: a file that ends in .graphml or .json")])
    try:
        found = READERS[path.suffix](path)
    except OSError as error:
        beside = sorted(other.name for other in path.parent.glob("*") if other.suffix in READERS)
        raise Unwired([(FILE, f"found {file!r}: {error.strerror or error}{nearest(path.name, beside)}")]) from None
    except (ValueError, LookupError, TypeError, AttributeError, SyntaxError, nx.NetworkXException) as error:  # of XML: SyntaxError
        said = f"{type(error).__name__}: {error}"
        raise Unwired([(FILE, f"{file!r} cannot be read as a graph: {said}; allowed: GraphML, or node-link JSON")]) from None
    if found.is_multigraph():  # as every node-link file is read that does not say otherwise
        simple = (nx.DiGraph if found.is_directed() else nx.Graph)(found)
        if simple.number_of_edges() == found.number_of_edges():
            return simple
        raise Unwired([(FILE, f"{file!r} has parallel edges; allowed: one between two nodes, as wide as all of them together")])
    return found


def read_graphml(path: Path) -> Any:
    import networkx as nx

    return nx.read_graphml(path)


def read_node_link(path: Path) -> Any:
    import networkx as nx

    data = json.loads(path.read_text(encoding="utf-8"))
    return nx.node_link_graph(data, edges="edges" if "edges" in data else "links")


READERS: dict[str, Callable[[Path], Any]] = {".graphml": read_graphml, ".json": read_node_link}


def nics_of(network: Network) -> list[tuple[str, str]]:
    """Mistakes: in a graph nobody has a network card besides his edges."""
    given = [f"network.{key}" for key in ("nic", "nics") if key in network.model_fields_set]
    return [(key, "the edges of a graph have bandwidths of their own; allowed: nothing") for key in given]


def misnamed(names: Mapping[Any, str], machines: Sequence[str]) -> list[tuple[str, str]]:
    found = list(names.values())
    twice = sorted({name for name in found if found.count(name) > 1}) if len(set(found)) < len(found) else []
    missing = [machine for machine in machines if machine not in set(found)]
    example = f"a node named {machines[0]!r}, or with the attribute machine = {machines[0]!r}"
    return [
        *((FILE, f"{name} is more than one node; allowed: one") for name in twice),
        *([(FILE, f"has no node for {listed(missing)}, of {len(machines)} machines; allowed: {example}")] if missing else []),
    ]


def link_name(tail: str, head: str) -> str:
    return f"{tail} > {head}"


class Cables:
    """The graph's edges as links, and the routes along them."""

    def __init__(self, found: Any, names: Mapping[Any, str]) -> None:
        """`names`: of its nodes."""
        import networkx as nx

        self.directed = nx.DiGraph()
        self.directed.add_nodes_from(names.values())
        self.links: dict[str, float] = {}
        self.latencies: dict[str, float] = {}
        self.mistakes: list[str] = []
        for tail, head, attributes in found.edges(data=True):
            here = f"edge {names[tail]} - {names[head]}"
            carries = self.quantity(here, attributes, "bandwidth", bandwidth)
            takes = self.quantity(here, {"latency": "0 s"} | attributes, "latency", duration)
            self.join(names[tail], names[head], carries, takes)
            if not found.is_directed():
                self.join(names[head], names[tail], carries, takes)

    def quantity(self, here: str, attributes: Mapping[str, Any], key: str, parse: Callable[[object], float]) -> float:
        try:
            return parse(attributes[key])
        except KeyError:
            self.mistakes.append(f"{here} has no {key}; allowed: as {key} = '10 Gbit/s'")
        except ValueError as error:
            self.mistakes.append(f"{here}: {key}: found {attributes[key]!r}; {error}")
        return 0.0

    def join(self, tail: str, head: str, carries: float, takes_s: float) -> None:
        self.directed.add_edge(tail, head)
        self.links[link_name(tail, head)] = carries
        if takes_s:
            self.latencies[link_name(tail, head)] = takes_s

    def reach(self, ends: Sequence[str]) -> None:
        """Every end every other; raises Unwired if not."""
        import networkx as nx

        for one in ends:
            reached = nx.descendants(self.directed, one)
            if cut_off := [other for other in ends if other != one and other not in reached]:
                raise Unwired(
                    [(FILE, f"no path from {one} to {listed(cut_off)}; allowed: a graph in which every machine reaches every other")]
                )

    def between(self, source: str, destination: str) -> tuple[str, ...]:
        import networkx as nx

        paths = [
            tuple(link_name(*edge) for edge in nx.utils.pairwise(path))
            for path in nx.all_shortest_paths(self.directed, source, destination)
        ]
        took = [sum(self.latencies.get(link, 0.0) for link in path) for path in paths]
        best = [path for path, latency in zip(paths, took, strict=True) if latency == min(took)]
        return best[chance.number(0, source, destination) % len(best)]
