"""From the `[network]` table to links, groups and routes, without simulating anything: what faults can be aimed at.

Every cable has two directions, which are two links.  The machines' own are named "machine/3 out" and "machine/3 in", a rack's
"rack/0 up" and "rack/0 down", those of a fat-tree's racks and pods "rack/0 up/1" and "pod/0 up/3" besides, and those of a graph
"switch > machine/3" after its nodes.  A message takes the same route at all times; where there are several equally good, which
one depends on its two ends alone (ECMP), by a hash that is the same everywhere.

The supervisor's machine, "head", is attached to the core by a network card of its own; in a graph that has no node of that
name, to the node with the most edges, the first of them if there are several.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core import chance
from scenarios.network import FatTree, Graph, Network, Racks
from scenarios.units import bandwidth, duration
from scenarios.words import listed, nearest

HEAD = "head"
"""The supervisor's machine."""


class Unwired(Exception):
    """The machines cannot be joined so; `mistakes` holds every reason with its key."""

    def __init__(self, mistakes: Iterable[tuple[str, str]]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(f"{path}: {message}" for path, message in self.mistakes))


def nobody_between(_source: str, _destination: str) -> tuple[str, ...]:
    """At one switch that is never full."""
    return ()


@dataclass(frozen=True, slots=True)
class Wiring:
    """What joins the machines."""

    links: Mapping[str, float]
    """Bytes a second that each carries."""
    attachments: Mapping[str, tuple[str, ...]]
    """The links by which a machine, rack, power unit or pod hangs together with the rest."""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The machines of each rack, power unit and pod; in a graph there are none."""
    latencies: Mapping[str, float] = field(default_factory=dict)
    """Seconds that a link adds to the latency that every message has; links that add nothing are left out."""
    between: Callable[[str, str], tuple[str, ...]] = nobody_between
    """The links of the route from one machine to another, without those of its two ends."""
    ends: bool = True
    """Has every machine links of its own, "out" and "in"?  In a graph its edges are that."""

    def route(self, source: str, destination: str) -> tuple[str, ...]:
        """The links from one machine to another, in order."""
        between = self.between(source, destination)
        return (f"{source} out", *between, f"{destination} in") if self.ends else between


def machine_names(count: int) -> list[str]:
    """The machines of a cluster, without the head."""
    return [f"machine/{number}" for number in range(count)]


def wire(network: Network, machines: Sequence[str]) -> Wiring:
    """Join these machines, and the head.  Raises Unwired."""
    mistakes = [
        (f"network.nics.{number}.machines", f"found {one.machines!r}, which is nobody{nearest(one.machines, machines)}; allowed: as 'machine/1?'")
        for number, one in enumerate(network.nics)
        if not fnmatch.filter((*machines, HEAD), one.machines)
    ]  # fmt: skip
    try:
        wiring = TOPOLOGIES[network.topology.kind](network, machines, speeds(network, (*machines, HEAD)))
    except Unwired as error:
        mistakes += error.mistakes
    if mistakes:
        raise Unwired(mistakes)
    return wiring


def speeds(network: Network, machines: Iterable[str]) -> dict[str, float]:
    """Of each machine's network card."""
    found = dict.fromkeys(machines, network.nic)
    for one in network.nics:
        found.update(dict.fromkeys(fnmatch.filter(found, one.machines), one.nic))
    return found


def star(nics: Mapping[str, float]) -> Wiring:
    """Machines with those network cards at one switch."""
    links, attachments = {}, {}
    for machine, nic in nics.items():
        attachments[machine] = f"{machine} out", f"{machine} in"
        links.update(dict.fromkeys(attachments[machine], nic))
    return Wiring(links, attachments)


def shares(names: Sequence[str], groups: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Names in so many groups, in order; some have one more than others."""
    found: dict[str, list[str]] = {group: [] for group in groups}
    for number, name in enumerate(names):
        found[groups[number * len(groups) // len(names)]].append(name)
    return {group: tuple(members) for group, members in found.items()}


def racks(network: Network, machines: Sequence[str], nics: Mapping[str, float]) -> Wiring:
    topology = network.topology
    assert isinstance(topology, Racks)
    mistakes = []
    if topology.racks > len(machines):
        mistakes.append(("network.topology.racks", f"found {topology.racks}; allowed: no more than there are machines, {len(machines)}"))
    if topology.power_units is not None and topology.power_units > topology.racks:
        mistakes.append(
            ("network.topology.power_units", f"found {topology.power_units}; allowed: no more than there are racks, {topology.racks}")
        )
    if mistakes:
        raise Unwired(mistakes)
    groups = shares(machines, [f"rack/{number}" for number in range(topology.racks)])
    rack_of = {machine: rack for rack, members in groups.items() for machine in members}
    ends = star(nics)
    links, attachments = dict(ends.links), dict(ends.attachments)
    for rack, members in groups.items():
        attachments[rack] = f"{rack} up", f"{rack} down"
        uplink = topology.uplink or sum(nics[machine] for machine in members) / (topology.oversubscription or 1.0)
        links.update(dict.fromkeys(attachments[rack], uplink))
    latencies = {link: topology.uplink_latency for rack in groups for link in attachments[rack]} if topology.uplink_latency else {}
    if topology.power_units is not None:
        for unit, powered in shares(list(groups), [f"power/{number}" for number in range(topology.power_units)]).items():
            attachments[unit] = tuple(link for rack in powered for link in attachments[rack])
            groups[unit] = tuple(machine for rack in powered for machine in groups[rack])

    def between(source: str, destination: str) -> tuple[str, ...]:
        leaves, enters = rack_of.get(source), rack_of.get(destination)  # the head is in none
        if leaves == enters:
            return ()
        return (*([f"{leaves} up"] if leaves else []), *([f"{enters} down"] if enters else []))

    return Wiring(links, attachments, groups, latencies, between)


def fat_tree(network: Network, machines: Sequence[str], nics: Mapping[str, float]) -> Wiring:
    topology = network.topology
    assert isinstance(topology, FatTree)
    half = topology.k // 2
    if len(machines) > topology.k * half * half:
        enough = next(k for k in range(2, len(machines) + 3, 2) if k**3 // 4 >= len(machines))
        raise Unwired([(
            "network.topology.k",
            f"found {topology.k}, which holds {topology.k * half * half} machines; there are {len(machines)}; allowed: {enough} or more",
        )])  # fmt: skip
    rack_of = {machine: number // half for number, machine in enumerate(machines)}
    groups: dict[str, tuple[str, ...]] = {}
    ends = star(nics)
    links, attachments = dict(ends.links), dict(ends.attachments)
    for kind, width, members in (("rack", half, half), ("pod", half * half, half * half)):
        for number in range(-(-len(machines) // members)):
            group = f"{kind}/{number}"
            groups[group] = tuple(machines[number * members : (number + 1) * members])
            attachments[group] = tuple(f"{group} {way}/{switch}" for switch in range(width) for way in ("up", "down"))
            links.update(dict.fromkeys(attachments[group], network.nic))

    def between(source: str, destination: str) -> tuple[str, ...]:
        leaves, enters = rack_of.get(source), rack_of.get(destination)
        if leaves == enters:
            return ()
        hashed = chance.number(0, source, destination)
        core = hashed % (half * half)
        aggregation = core // half  # of the core switches, each aggregation switch of a pod sees its own row
        up = [] if leaves is None else [f"rack/{leaves} up/{aggregation}"]
        down = [] if enters is None else [f"rack/{enters} down/{aggregation}"]
        if leaves is None or enters is None or leaves // half != enters // half:
            up += [] if leaves is None else [f"pod/{leaves // half} up/{core}"]
            down = ([] if enters is None else [f"pod/{enters // half} down/{core}"]) + down
        return (*up, *down)

    return Wiring(links, attachments, groups, {}, between)


def graph(network: Network, machines: Sequence[str], nics: Mapping[str, float]) -> Wiring:
    """Edges have a `bandwidth` and perhaps a `latency`, with units; a node is a machine if its attribute `machine`, or else its name, says so."""
    import networkx as nx

    topology = network.topology
    assert isinstance(topology, Graph)
    where = "network.topology.file"
    found = read_graph(topology.file)
    names = {node: str(attributes.get("machine", node)) for node, attributes in found.nodes(data=True)}
    nodes = {name: node for node, name in names.items()}
    mistakes = []
    if network.nics or "nic" in network.model_fields_set:
        mistakes.append(("network.nics" if network.nics else "network.nic", "a graph's edges have their own bandwidths; allowed: nothing"))
    if len(nodes) < len(names):
        twice = sorted({name for name in names.values() if list(names.values()).count(name) > 1})
        mistakes.append((where, f"more than one node is {', '.join(twice)}"))
    if missing := [machine for machine in machines if machine not in nodes]:
        mistakes.append((
            where,
            f"has no node for {listed(missing)}; allowed: nodes named {machines[0]} to {machines[-1]}, or an attribute machine = {machines[0]!r}",
        ))  # fmt: skip
    directed, links, latencies = nx.DiGraph(), {}, {}
    directed.add_nodes_from(names)
    for tail, head, attributes in found.edges(data=True):
        edge = f"edge {names[tail]} - {names[head]}"
        try:
            carries = bandwidth(attributes["bandwidth"])
        except KeyError:
            mistakes.append((where, f"{edge} has no bandwidth; allowed: as bandwidth = '10 Gbit/s'"))
            continue
        except ValueError as error:
            mistakes.append((where, f"{edge}: bandwidth: found {attributes['bandwidth']!r}; {error}"))
            continue
        try:
            takes = duration(attributes.get("latency", "0 s"))
        except ValueError as error:
            mistakes.append((where, f"{edge}: latency: found {attributes['latency']!r}; {error}"))
            continue
        for one, other in ((tail, head), (head, tail)) if not found.is_directed() else ((tail, head),):
            link = f"{names[one]} > {names[other]}"
            links[link] = carries
            if takes:
                latencies[link] = takes
            directed.add_edge(one, other, latency=takes)
    if mistakes:
        raise Unwired(mistakes)
    if HEAD not in nodes:
        attached = max(found.nodes, key=found.degree)
        nodes[HEAD] = names[HEAD] = HEAD
        for one, other in ((HEAD, attached), (attached, HEAD)):
            directed.add_edge(one, other, latency=0.0)
            links[f"{names[one]} > {names[other]}"] = nics[HEAD]
    ends = [nodes[machine] for machine in (*machines, HEAD)]
    for end in ends:
        reached = nx.descendants(directed, end)
        if cut_off := [names[other] for other in ends if other != end and other not in reached]:
            raise Unwired([(where, f"leads nowhere from {names[end]} to {listed(cut_off)}; allowed: a graph in which every machine reaches every other")])
    attachments = {
        names[end]: tuple(f"{names[one]} > {names[other]}" for one, other in (*directed.out_edges(end), *directed.in_edges(end))) for end in ends
    }

    def between(source: str, destination: str) -> tuple[str, ...]:
        """Fewest links first, then the least latency; of those the hash takes one."""
        paths = [list(nx.utils.pairwise(path)) for path in nx.all_shortest_paths(directed, nodes[source], nodes[destination])]
        took = [sum(directed.edges[edge]["latency"] for edge in path) for path in paths]
        best = [path for path, latency in zip(paths, took, strict=True) if latency == min(took)]
        return tuple(f"{names[one]} > {names[other]}" for one, other in best[chance.number(0, source, destination) % len(best)])

    return Wiring(links, attachments, {}, latencies, between, ends=False)


def read_graph(file: str) -> Any:
    """A simple graph, directed or not.  Raises Unwired."""
    import json

    import networkx as nx

    path, where = Path(file), "network.topology.file"
    try:
        if path.suffix == ".graphml":
            found = nx.read_graphml(path)
        elif path.suffix == ".json":
            data = json.loads(path.read_text(encoding="utf-8"))
            found = nx.node_link_graph(data, edges="edges" if "edges" in data else "links")
        else:
            raise Unwired([(where, f"found {file!r}; allowed: a file that ends in .graphml or .json")])
    except OSError as error:
        beside = sorted(other.name for other in path.parent.glob("*") if other.suffix in {".graphml", ".json"}) if path.parent.is_dir() else []
        raise Unwired([(where, f"found {file!r}: {error.strerror or error}{nearest(path.name, beside)}")]) from None
    except (ValueError, KeyError, TypeError, AttributeError, SyntaxError, nx.NetworkXException) as error:  # xml's ParseError is a SyntaxError
        what = f"{type(error).__name__}: {error}"
        raise Unwired([(where, f"{file!r} cannot be read as a graph: {what}; allowed: GraphML, or node-link JSON")]) from None
    if found.is_multigraph():
        raise Unwired([(where, f"{file!r} has parallel edges; allowed: one between two nodes, as wide as all of them together")])
    return found


TOPOLOGIES: dict[str, Callable[[Network, Sequence[str], Mapping[str, float]], Wiring]] = {
    "star": lambda _network, _machines, nics: star(nics),
    "racks": racks,
    "fat-tree": fat_tree,
    "graph": graph,
}
