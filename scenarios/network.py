"""The `[network]` table: how the simulated machines are joined."""

from __future__ import annotations

from typing import Literal

from scenarios.table import Table
from scenarios.units import Bandwidth, Duration


class Network(Table):
    """The simulated network: `latency` (latency + bytes / NIC, nothing shared), or `fifo`: also serialised at each NIC."""

    model: Literal["latency", "fifo"] = "fifo"
    nic: Bandwidth = 1.25e9
    latency: Duration = 50e-6
