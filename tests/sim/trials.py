"""Runs of hand-made and drawn scenarios in exact numbers, whatever their own numerics, and what is wrong with them in words."""

from __future__ import annotations

from typing import Any

from scenarios.faults import Aimed
from scenarios.protocols import Downpour
from scenarios.schema import Scenario
from sim import oracles
from sim.bounds import latest_s
from sim.oracles import Trial

__all__ = ["Trial", "trial", "wrong"]


def trial(scenario: Scenario, **options: Any) -> Trial:
    """To its end; a job that could go on for ever has failed after its bound."""
    heal = all(isinstance(fault, Aimed) and (fault.every is None or fault.until is not None) for fault in scenario.fault)
    updates = scenario.protocol.stop.updates if isinstance(scenario.protocol, Downpour) else None
    if scenario.give_up_after is None and heal and updates is not None:
        scenario = scenario.model_copy(update={"give_up_after": latest_s(scenario)})
    return oracles.trial(scenario, numerics="exact", **options)


def wrong(done: Trial) -> list[str]:
    """Every violation, in words."""
    return [str(violation) for violation in done.violations()]
