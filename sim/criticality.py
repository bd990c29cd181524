"""Which single loss hurts most, and when?  Each thing is lost at each of some moments, one simulated run each.

The undisturbed run is the scenario as it is, its own faults included.  Every variant is the same with one more `[[fault]]`:

machine, group   crash; for good, unless there is a repair
role             crash of its process, which its agent starts again at once, or when the repair is over
link             loss of every message that passes over it; for good, unless there is a repair

So is what people plan for: hardware that is gone stays gone, and whoever watches a process starts it again.
"""

from __future__ import annotations

import fnmatch
import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from typing import Any

from pydantic import TypeAdapter

from core.job import SUPERVISOR, role_kind
from models.errors import InputError
from report.criticality_findings import Criticality, Outcome, Sampled, Thing
from scenarios.faults import GROUP, LINK, MACHINE, ROLE, Fault
from scenarios.places import Places, places
from scenarios.schema import Scenario
from scenarios.units import in_words
from scenarios.wiring import HEAD
from scenarios.words import nearest
from sim.cluster import Cluster
from sim.outlook import in_brief, waits
from sim.run import Run
from sim.workers import workers

KINDS = (MACHINE, GROUP, ROLE, LINK)
PATIENCE = 10
"""A run that takes so many times as long as undisturbed, besides the repair, never ends."""
COMPARED = ("seconds", "updates", "lost_updates", "loss", "accuracy", "digest")
"""Of the summary of the undisturbed run."""


# what there is to be lost


def things(scenario: Scenario, targets: Sequence[str] = ()) -> list[Thing]:
    """Those that the targets name: globs, or "machine", "group", "role", "link" for all of that kind; without targets everything.

    A glob means links only where it matches nothing else: 'machine/*' are machines, 'machine/* out' links.  Raises InputError.
    """
    there = places(
        scenario.protocol, scenario.cluster, scenario.network, real=scenario.numerics == "real", partitions=scenario.model.partitions
    )
    kinds = {name: kind for kind in KINDS for name in there.of(kind)}
    wanted: dict[str, None] = {}
    for target in targets or dict.fromkeys(kinds.values()):
        found = there.of(target) if target in KINDS else [target] if target in kinds else fnmatch.filter(kinds, target)
        if target not in KINDS:
            found = [name for name in found if kinds[name] != LINK] or found
        if not found:
            allowed = f"{', '.join(dict.fromkeys(kinds.values()))}, a name or a glob, as 'machine/*', 'replica/0' or {there.of(LINK)[0]!r}"
            raise InputError(f"--targets: found {target!r}, which is nobody here{nearest(target, kinds)}; allowed: {allowed}")
        wanted.update(dict.fromkeys(found))
    tenants = Tenants(there)
    return [Thing(name, kinds[name], tenants.of(name, kinds[name])) for name in wanted]


class Tenants:
    """Who lives where when the job begins."""

    def __init__(self, there: Places) -> None:
        self.there = there
        roles = [name for name in there.roles if name != SUPERVISOR]
        self.home = dict(zip(roles, itertools.cycle(there.machines), strict=False)) | {SUPERVISOR: HEAD}
        self.tenants: defaultdict[str, list[str]] = defaultdict(list)
        for role, machine in self.home.items():
            self.tenants[machine].append(role)
        self.owner: dict[str, str] = {}
        """Of each link the machine or group that hangs on it; of several the smallest."""
        wiring = there.wiring
        for name in sorted(wiring.attachments, key=lambda name: len(wiring.groups.get(name, ()))):
            for link in wiring.attachments[name]:
                self.owner.setdefault(link, name)

    def of(self, name: str, kind: str) -> tuple[str, ...]:
        """Roles; of a role its machine."""
        if kind == ROLE:
            return (self.home[name],)
        place = self.owner.get(name, "") if kind == LINK else name
        return tuple(role for machine in self.there.wiring.groups.get(place, (place,)) for role in self.tenants.get(machine, ()))


def sample(found: Sequence[Thing], most: int) -> tuple[list[Thing], list[Sampled]]:
    """No more than so many: of things that are alike as many of each sort, spread evenly; and what was taken, if not all.

    Alike are those whose names differ in numbers alone and that kinds of roles live on which are the same.
    """
    if len(found) <= most:
        return list(found), []
    sorts: defaultdict[str, list[Thing]] = defaultdict(list)
    for thing in found:
        like = re.sub(r"\d+", "*", thing.name)
        tenants = sorted({role_kind(role) for role in thing.lives_there}) if thing.kind != ROLE else []
        sorts[f"{like} ({', '.join(tenants)})" if tenants else like].append(thing)
    taken, told, left = set(), {}, most
    for waiting, (like, alike) in zip(range(len(sorts), 0, -1), sorted(sorts.items(), key=lambda sort: len(sort[1])), strict=True):
        count = min(len(alike), left // waiting)
        left -= count
        taken |= {alike[number * len(alike) // count].name for number in range(count)}
        told[like] = Sampled(like, count, len(alike))
    return [thing for thing in found if thing.name in taken], [told[like] for like in sorts]


def moments(length_s: float, count: int) -> list[float]:
    """The middles of so many equal parts of the run, in seconds of six digits, as they stand in a file."""
    return [float(f"{length_s * (number + 0.5) / count:.6g}") for number in range(count)]


# losing it


def loss(thing: Thing, at_s: float, repair_s: float | None) -> dict[str, Any]:
    """The `[[fault]]` table, as it would stand in the file."""
    if thing.kind == LINK:
        lasting = {"for": in_file(repair_s)} if repair_s is not None else {}
        return {"kind": "loss", "target": thing.name, "at": in_file(at_s), "probability": 1.0} | lasting
    if thing.kind == ROLE and repair_s is None:
        repair_s = 0.0
    lasting = {"repair": in_file(repair_s)} if repair_s is not None else {}
    return {"kind": "crash", "target": thing.name, "at": in_file(at_s)} | lasting


def in_file(seconds: float) -> str:
    return f"{seconds:.9g} s"


def survive(scenario: Scenario, fault: dict[str, Any], limit_s: float) -> dict[str, Any]:
    """The summary of the scenario with that fault besides; one that never ends is told to have failed."""
    added = TypeAdapter[Any](Fault).validate_python(fault)
    run = Run(scenario.model_copy(update={"fault": (*scenario.fault, added)}))
    run.cluster.at(limit_s, partial(give_up, run.cluster))
    run.simulate()
    return run.summary()


def give_up(cluster: Cluster) -> None:
    """Say who is not there, and who waits for whom."""
    why = "; ".join(filter(None, (cluster.head.missing(), in_brief(waits(cluster)))))
    cluster.fail(f"not over after {in_words(cluster.now())}: {why}")


def outcome(undisturbed: dict[str, Any], at_s: float, fault: dict[str, Any], summary: dict[str, Any], *, learns: bool) -> Outcome:
    """What the loss made of the run, against the one without it."""
    failed = summary["reason"] if summary["status"] == "failed" else ""

    def change(key: str) -> float | None:
        if failed or summary[key] is None or undisturbed[key] is None:
            return None
        return round(float(summary[key]) - float(undisturbed[key]), 9)

    return Outcome(
        at_s, failed, change("seconds"), change("loss") if learns else None, change("accuracy") if learns else None,
        summary["lost_updates"] - undisturbed["lost_updates"], undisturbed["updates"] - summary["updates"],
        summary["faults"][-1]["bit"], fault, summary["digest"],
    )  # fmt: skip


def ends_by_the_clock(scenario: Scenario, length_s: float) -> bool:
    """Then it takes as long whatever is lost."""
    stop_s = scenario.protocol.stop.time
    return stop_s is not None and length_s >= stop_s


Variant = tuple[Thing, float, dict[str, Any]]
"""What is lost, when, and the table."""


class Study:
    """Prepare it, then let `run` fill in what is found."""

    def __init__(self, scenario: Scenario, undisturbed: dict[str, Any], found: Sequence[Thing], count: int, *, most: int, repair_s: float | None) -> None:  # fmt: skip
        """`count`: moments; `most`: runs."""
        self.scenario = scenario
        self.things, sampled = sample(found, most // count)
        length_s: float = undisturbed["seconds"]
        self.found = Criticality(
            scenario.name, scenario.seed, {key: undisturbed[key] for key in COMPARED}, len(scenario.fault), scenario.numerics == "real",
            "updates_fewer" if ends_by_the_clock(scenario, length_s) else "lost_s", repair_s, PATIENCE * length_s + (repair_s or 0.0), moments(length_s, count),
            len(self.things) * count, sampled,
        )  # fmt: skip

    def variants(self) -> Iterator[Variant]:
        """All things at one moment, then all at the next: so whoever interrupts has something of everything."""
        for at_s in self.found.moments_s:
            for thing in self.things:
                yield thing, at_s, loss(thing, at_s, self.found.repair_s)

    def run(self, count: int, on_progress: Callable[[Criticality], None] = lambda _: None) -> Criticality:
        """All variants, so many side by side; Ctrl-C, or the end of a process that was killed, ends it with what there is."""
        found = self.found
        on_progress(found)
        try:
            with closing(side_by_side(self.scenario, list(self.variants()), found.limit_s, count)) as summaries:
                for (thing, at_s, fault), summary in summaries:
                    found.add(thing, outcome(found.undisturbed, at_s, fault, summary, learns=found.learns))
                    on_progress(found)
        except KeyboardInterrupt:
            found.cut_short = "interrupted"
        except BrokenProcessPool:
            found.cut_short = "a process that ran them was killed, perhaps for want of memory; fewer --workers need less"
        return found


def side_by_side(
    scenario: Scenario, variants: Sequence[Variant], limit_s: float, count: int
) -> Generator[tuple[Variant, dict[str, Any]]]:  # fmt: skip
    """The summary of each variant, in whatever order they come."""
    with workers(min(len(variants), count)) as pool:
        running = {pool.submit(survive, scenario, variant[2], limit_s): variant for variant in variants}
        for one in as_completed(running):
            yield running.pop(one), one.result()
