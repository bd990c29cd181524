"""The `[[fault]]` tables: what goes wrong, where and when."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from scenarios.table import Probability, Table
from scenarios.units import Duration, PositiveDuration


class Crash(Table):
    """`target = "replica/3"` loses the process (peers see resets), `"machine/3"` the machine (peers see silence)."""

    kind: Literal["crash"]
    target: str
    at: Duration
    repair: PositiveDuration | None = None
    """Until a new life starts; left out: never."""


class Pause(Table):
    kind: Literal["pause"]
    target: str
    at: Duration
    for_: Annotated[PositiveDuration, Field(alias="for")]


class Slowdown(Table):
    kind: Literal["slowdown"]
    target: str
    at: Duration = 0.0
    for_: Annotated[PositiveDuration | None, Field(alias="for")] = None
    factor: Annotated[float, Field(gt=1, allow_inf_nan=False)]
    """How many times slower."""


class Loss(Table):
    """Messages to and from the target are lost, each with this probability."""

    kind: Literal["loss"]
    target: str
    at: Duration = 0.0
    for_: Annotated[PositiveDuration | None, Field(alias="for")] = None
    probability: Probability


class Delay(Table):
    """Messages to and from the target take so much longer."""

    kind: Literal["delay"]
    target: str
    at: Duration = 0.0
    for_: Annotated[PositiveDuration | None, Field(alias="for")] = None
    by: PositiveDuration


class Duplication(Table):
    """Requests to and from the target arrive twice, each with this probability."""

    kind: Literal["duplication"]
    target: str
    at: Duration = 0.0
    for_: Annotated[PositiveDuration | None, Field(alias="for")] = None
    probability: Probability


Fault = Annotated[Crash | Pause | Slowdown | Loss | Delay | Duplication, Field(discriminator="kind")]
