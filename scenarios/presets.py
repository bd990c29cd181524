"""Failures as others have published them: presets of `[[fault]]`, spelled out as plain faults.

What stands in these sources is said at each; the rest is assumed, and marked so.  A preset's `rate` divides every mean between failures.
"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from scenarios.faults import Plain, Preset
from scenarios.places import Places

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
YEAR_S = 365.25 * DAY_S

RACK, POWER_UNIT, CLUSTER = 60, 750, 1800
"""Machines: the first two are the middle of the 40 to 80 and 500 to 1,000 that Dean gives; for the whole cluster 1,800 are assumed."""

HOURS_1_TO_6 = {"lognormal": {"median": "2.5 h", "sigma": 0.55}}
"""Nine in ten within 1 to 6 hours."""

PLAIN: TypeAdapter[Plain] = TypeAdapter(Plain)


def spelled_out(preset: Preset, places: Places) -> list[Plain]:
    """The faults that a preset is, on that cluster."""
    made = {"lanl": lanl, "google-first-year": google_first_year, "spot": spot}[preset.name](preset, places)
    return [PLAIN.validate_python(fault) for fault in made]


def gaps(mean_s: float, rate: float, shape: float = 1.0) -> dict[str, Any]:
    return {"weibull": {"shape": shape, "mean": f"{mean_s / rate!r} s"}}


def lanl(preset: Preset, _: Places) -> list[dict[str, Any]]:
    """Los Alamos National Laboratory, failures of 1996 to 2005 in clusters of 512 to 1,024 nodes (Schroeder and Gibson, DSN 2006, and the data
    published with it): 3.0 to 3.6 failures in 1,000 node-days; between a node's failures Weibull, shape 0.48 to 0.70; repair lognormal,
    median 60 min, sigma 1.4; counts of nodes over-dispersed, variance / mean 6 to 11.

    A shape of 0.6 alone brings about 3 of the latter, in the long run; a frailty of 1 the rest, over about four years.
    """
    every = gaps(1000 * DAY_S / 3.3, preset.rate, 0.6)
    return [
        {
            "kind": "crash", "target": preset.target, "every": every, "frailty": 1.0,
            "repair": {"lognormal": {"median": "60 min", "sigma": 1.4}},
        }
    ]  # fmt: skip


def google_first_year(preset: Preset, places: Places) -> list[dict[str, Any]]:
    """A new cluster's first year at Google (Dean, Designs, lessons and advice from building large distributed systems, LADIS 2009): about 1,000
    machine failures; 20 rack failures (40 to 80 machines, 1 to 6 h); 1 power unit (500 to 1,000 machines, about 6 h); 5 racks with 50 %
    packet loss; 8 network maintenances.

    Assumed: a cluster of 1,800 machines, to which the counts are scaled; a machine's repair as at LANL; racks lose packets for as long as
    they fail; a maintenance costs everybody a tenth of his messages for 30 min.
    """
    racks = any(name.startswith("rack/") for name in places.wiring.groups)
    units = any(name.startswith("power/") for name in places.wiring.groups)
    rack = {"target": "rack/*"} if racks else {"target": "machine/*", "together": RACK}
    unit = {"target": "power/*"} if units else {"target": "machine/*", "together": POWER_UNIT}
    a_year = YEAR_S / preset.rate
    return [
        {
            "kind": "crash", "target": "machine/*", "every": gaps(a_year * CLUSTER / 1000, 1.0),
            "repair": {"lognormal": {"median": "60 min", "sigma": 1.4}},
        },
        {"kind": "crash", **rack, "every": gaps(a_year * CLUSTER / RACK / 20, 1.0), "repair": HOURS_1_TO_6},
        {"kind": "crash", **unit, "every": gaps(a_year * CLUSTER / POWER_UNIT, 1.0), "repair": "6 h"},
        {"kind": "loss", **rack, "every": gaps(a_year * CLUSTER / RACK / 5, 1.0), "for": HOURS_1_TO_6, "probability": 0.5},
        {
            "kind": "loss", "target": "machine/*", "together": len(places.machines), "every": gaps(a_year / 8, 1.0), "for": "30 min",
            "probability": 0.1,
        },
    ]  # fmt: skip


def spot(preset: Preset, _: Places) -> list[dict[str, Any]]:
    """Spot instances, computed from public traces: 0.06 to 0.5 losses in an instance-hour, uptimes Weibull of shape about 0.6, whole groups
    together.

    0.17 is the middle, geometrically.  Assumed: groups of 8; notice of 2 min, as AWS documents it; another instance after 5 min.
    """
    return [
        {
            "kind": "preemption", "target": preset.target, "together": 8, "every": gaps(HOUR_S / 0.17, preset.rate, 0.6), "notice": "120 s",
            "repair": {"lognormal": {"median": "5 min", "sigma": 1.0}},
        }
    ]  # fmt: skip
