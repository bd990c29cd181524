"""`simctl criticality`: the undisturbed run of a scenario, and the same with one more thing lost at one moment.

A variant is the scenario with one `[[fault]]` appended, so that all else is as it is: each fault draws from streams of its own.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from core.job import SUPERVISOR, role_kind
from report.criticality import Criticality, Outcome, Thing
from report.summary import bites
from scenarios.faults import GROUP, LINK, MACHINE, ROLE
from scenarios.load import Mistake, ScenarioError, load, validate
from scenarios.places import Places, places, role_names
from scenarios.schema import Scenario
from scenarios.wiring import HEAD
from scenarios.words import listed, nearest
from sim.outlook import in_brief, waits
from sim.run import Run

KINDS = (MACHINE, GROUP, LINK, ROLE)

AT_ONCE = "1 ms"
"""The repair of a process that is lost for no given time: its agent starts it again at once."""

PATIENCE = 10
"""Times as long as the undisturbed run, after which a job is given up, unless the scenario says when."""

FEW = 3
"""Roles that are named one by one."""

Tables = dict[str, Any]


@dataclass(slots=True)
class Subject:
    """What is examined."""

    scenario: Scenario
    there: Places
    things: tuple[Thing, ...]
    undisturbed: Outcome | None = None
    lives: dict[str, int] = field(default_factory=dict)
    """Of each role, in the undisturbed run."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One run: the scenario's tables with a loss."""

    tables: Tables
    name: str
    moment: int
    lives: dict[str, int]


def subject(file: str, overrides: Sequence[str], targets: Sequence[str]) -> Subject:
    """What there is to be lost.  Raises ScenarioError, also for a target that is nothing here.

    "machine/*" means machines and not their links: these are meant by what matches nothing else, as "* out".
    """
    scenario = load(file, overrides)
    real, partitions = scenario.numerics == "real", scenario.model.partitions
    there = places(scenario.protocol, scenario.cluster, scenario.network, real=real, partitions=partitions)
    names = there.of(*KINDS)
    meant = {target: there.hit((target,), (MACHINE, GROUP, ROLE)) or there.hit((target,), (LINK,)) for target in targets}
    wrong = [target for target in targets if not meant[target]]
    if wrong:
        kinds = "; ".join(f"{kind}s: {listed(there.of(kind), 3)}" for kind in KINDS if there.of(kind))
        raise ScenarioError(Mistake("--targets", repr(target), f"matches nothing{nearest(target, names)}; {kinds}") for target in wrong)
    wanted = {name for hit in meant.values() for name in hit} if targets else set(names)
    homes = dict(
        zip(role_names(scenario.protocol, real=real, partitions=partitions), itertools.cycle(there.machines), strict=False)
    ) | {SUPERVISOR: HEAD}  # fmt: skip
    residents = home_to(there, homes)
    things = tuple(Thing(kind, name, residents.get(name, "")) for kind in KINDS for name in there.of(kind) if name in wanted)
    return Subject(scenario, there, things)


def home_to(there: Places, homes: dict[str, str]) -> dict[str, str]:
    """By name of a thing, in words: the roles that begin on a machine, in a group or behind a link; of a role its machine."""
    on = defaultdict[str, list[str]](list)
    for role, machine in homes.items():
        on[machine].append(role)
    found: dict[str, str] = dict(homes) | {machine: told(on[machine]) or "spare" for machine in there.machines}
    for group, machines in there.wiring.groups.items():
        found[group] = told([role for machine in machines for role in on[machine]]) or "spare"
    for place, links in there.wiring.attachments.items():
        for link in links:  # of a machine before those of its rack, whose links are others
            found.setdefault(link, found.get(place, told(on[place])))
    return found


def told(roles: Sequence[str]) -> str:
    """Few by name, many by kind."""
    if len(roles) <= FEW:
        return ", ".join(roles)
    return ", ".join(f"{count} {kind}{'s' * (count > 1)}" for kind, count in Counter(map(role_kind, roles)).items())


def undisturbed(on: Subject) -> None:
    """Run the scenario as it is.  Raises ScenarioError if it fails: then there is nothing to compare with."""
    outcome, on.lives = play(on.scenario, {})
    if outcome.failed:
        raise ScenarioError([Mistake(on.scenario.file, "", f"fails without any further loss: {outcome.failed}; nothing to compare with")])
    on.undisturbed = outcome


def begin(on: Subject, moments: int, repair: str) -> Criticality:
    """With nothing lost yet; the moments are the middles of so many equal parts of the undisturbed run."""
    assert on.undisturbed is not None
    whole_s = on.undisturbed.seconds
    at_s = tuple(round(whole_s * (number + 0.5) / moments, 6) for number in range(moments))
    return Criticality(on.scenario.name, on.scenario.seed, repair, on.undisturbed, at_s, on.things)


def variants(on: Subject, found: Criticality) -> list[Variant]:
    """Every thing at one moment, then at the next."""
    given = {"give_up_after": f"{math.ceil(PATIENCE * found.undisturbed.seconds)} s", "name": found.scenario} | on.scenario.given()
    return [
        Variant(given | {"fault": [*given.get("fault", ()), loss(thing, at_s, found.repair)]}, thing.name, moment, on.lives)
        for moment, at_s in enumerate(found.moments_s) for thing in found.things
    ]  # fmt: skip


def loss(thing: Thing, at_s: float, repair: str) -> Tables:
    """The fault; a link is lost with all the messages that it would carry."""
    aimed = {"target": thing.name, "at": f"{at_s:.6f} s"}
    if thing.kind == LINK:
        return {"kind": "loss", "probability": 1.0} | aimed | ({"for": repair} if repair else {})
    repair = repair or (AT_ONCE if thing.kind == ROLE else "")
    return {"kind": "crash"} | aimed | ({"repair": repair} if repair else {})


def examine(variant: Variant) -> Outcome:
    """Run it, in whatever process."""
    made, mistakes = validate(variant.tables, variant.name)
    if made is None or mistakes:
        raise ScenarioError(mistakes)
    return play(made, variant.lives)[0]


def play(scenario: Scenario, lives: dict[str, int]) -> tuple[Outcome, dict[str, int]]:
    """How a run ends, and how many lives each role has in it; `lives`: in the undisturbed one."""
    run = Run(scenario)
    run.simulate()
    summary = run.summary()
    failed = summary["reason"] if summary["status"] == "failed" else ""
    if failed and (waiting := in_brief(waits(run.cluster))) not in failed:
        failed = f"{failed}; {waiting}"
    outcome = Outcome(
        failed, summary["seconds"], summary["loss"], summary["accuracy"], summary["lost_updates"], happened(run, summary, lives) if lives else "",
    )  # fmt: skip
    return outcome, dict(run.cluster.accounts.lives)


def happened(run: Run, summary: dict[str, Any], lives: dict[str, int]) -> str:
    """What came of the last fault: who began again where, and what it bit."""
    accounts = run.cluster.accounts
    again = [role for role, count in accounts.lives.items() if count > lives.get(role, 0)]
    bit = bites(summary["faults"][-1])
    where = ", ".join(f"{role} on {accounts.homes[role]}" for role in again) if len(again) <= FEW else told(again)
    return "; ".join(part for part in (f"begins again: {where}" if again else "", bit) if part) or "nothing was hit"
