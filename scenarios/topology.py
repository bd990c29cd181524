"""From the `[network]` table to links, groups and routes, without simulating anything: what faults can be aimed at.

Every cable has two directions, which are two links.  The machines' own are named "machine/3 out" and "machine/3 in", a rack's
"rack/0 up" and "rack/0 down", those of a fat-tree's racks and pods "rack/0 up/1" and "pod/0 up/3", and those of a graph
"switch > machine/3" after its nodes (`graphs.py`).  A message takes the same route at all times; where there are several equally good,
which one depends on its two ends alone (ECMP), by a hash that is the same everywhere.

The supervisor's machine, "head", is attached to the core by a network card of its own; in a graph that has no node of that
name, to the node with the most edges, the first of them if there are several.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence

from core import chance
from scenarios.graphs import graph
from scenarios.network import FatTree, Network, Racks
from scenarios.wiring import HEAD, Unwired, Wiring
from scenarios.words import nearest


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


TOPOLOGIES: dict[str, Callable[[Network, Sequence[str], Mapping[str, float]], Wiring]] = {
    "star": lambda _network, _machines, nics: star(nics),
    "racks": racks,
    "fat-tree": fat_tree,
    "graph": graph,
}
