"""The `[network]` table: how the simulated machines are joined.  `topology.py` makes links and routes of it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from scenarios.distributions import Durations, constant
from scenarios.table import Positive, Table
from scenarios.units import Bandwidth, Duration

HEADER_BYTES = 64
"""What a request or reply weighs without its payload; execctl's protobuf envelopes are 40 to 90 bytes."""


class Nics(Table):
    """The machines of that name, a glob, have another network card than the others; of two that match, the later counts."""

    machines: str
    nic: Bandwidth


class Star(Table):
    """All machines at one switch that is never full."""

    kind: Literal["star"]


class Racks(Table):
    """Machines in racks, in equal shares and in their order; each rack has one uplink to a core that is never full."""

    kind: Literal["racks"]
    racks: PositiveInt
    uplink: Bandwidth | None = None
    """Of each rack, each way; or in its place:"""
    oversubscription: Positive | None = None
    """How many times the network cards of a rack together have what its uplink has."""
    uplink_latency: Duration = 0.0
    """Added for each uplink that a message takes: twice from rack to rack."""
    power_units: PositiveInt | None = None
    """So many groups of racks that fail together, in equal shares and in order."""

    @model_validator(mode="after")
    def one_of_both(self) -> Self:
        if (self.uplink is None) == (self.oversubscription is None):
            raise ValueError("allowed: uplink or oversubscription, one of them")
        return self


class FatTree(Table):
    """Three layers of switches with k ports (Al-Fares et al., SIGCOMM 2008): k pods, k/2 racks in each, k/2 machines in each."""

    kind: Literal["fat-tree"]
    k: Annotated[PositiveInt, Field(multiple_of=2)]


class Graph(Table):
    """Any graph, as networkx reads it: a .graphml file, or a .json file in the node-link form."""

    kind: Literal["graph"]
    file: str


Topology = Annotated[Star | Racks | FatTree | Graph, Field(discriminator="kind")]


class Network(Table):
    """The simulated network.

    `fair`: the messages on a link share it, as fair queues or TCP have it in the long run.  `fifo`: each network card sends, and
    receives, one message after the other.  `latency`: nothing is shared, a message takes latency + bytes / bandwidth.
    """

    model: Literal["latency", "fifo", "fair"] = "fair"
    nic: Bandwidth = 1.25e9
    nics: Annotated[tuple[Nics, ...], Field(strict=False)] = ()
    latency: Durations = constant(50e-6)
    topology: Topology = Star(kind="star")
