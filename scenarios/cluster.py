"""The `[cluster]` table: the simulated machines."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, PositiveInt

from scenarios.table import NotNegative, Table
from scenarios.units import Bandwidth, Duration, Speed


class SpeedSpread(Table):
    """Static speed of each machine, lognormal about the median."""

    median: Speed
    sigma: NotNegative = 0.0


def spread(value: Any) -> Any:
    return {"median": value} if isinstance(value, str | int | float) else value


class Jitter(Table):
    """Noise of each task, lognormal with mean 1."""

    sigma: NotNegative = 0.0


class Cluster(Table):
    """The simulated machines."""

    machines: PositiveInt | None = None
    """Left out: one for each role."""
    speed: Annotated[SpeedSpread, BeforeValidator(spread)] = SpeedSpread.model_construct(median=40e9, sigma=0.0)
    jitter: Jitter = Jitter()
    memory: Bandwidth = 10e9
    disk: Bandwidth = 200e6
    start_up: Duration = 1.0
