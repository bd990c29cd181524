"""`simctl hunt`: draw seeds and schedules of faults until one breaks a rule, then shrink it to the smallest that breaks the same.

First anything may fail; then all of it heals, but for replicas that the job can do without and that never come back, and the job must
come to its end.  A hunt is made of searches, numbered from 0: what each draws follows from the hunt's seed and its number alone, so
that they are spread over all cores, and that a hunt which was interrupted goes on with the next one.  Drawing is
Hypothesis's (`sim/strategies.py`); what is wrong is for `sim/oracles.py` to say, and `sim/shrink.py` makes it small.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky, NoSuchExample

from core import chance
from core.checks import Violation
from core.job import replica_name
from core.journal import Record
from core.situations import Situations, reachable
from scenarios.load import ScenarioError, load, validate
from scenarios.places import Places, places
from scenarios.schema import Scenario
from scenarios.sense import file_in
from sim.bounds import latest_after_s
from sim.oracles import Trial, trial
from sim.shrink import shrink
from sim.strategies import KINDS, Moments, Tables, aimed, losses, over_in_time, scenario, schedules, tables, that_bite


@dataclass(frozen=True, slots=True)
class Prey:
    """What is hunted: in a scenario, or in jobs of some kind that are drawn as a whole."""

    seed: int
    file: str = ""
    overrides: tuple[str, ...] = ()
    kind: str = ""
    """Of protocol, if there is no file."""
    most_faults: int = 8
    rule: str = ""
    """The one that is to be broken; "": any."""


@dataclass(slots=True)
class Found:
    """A schedule that breaks a rule, as small as it could be made."""

    rule: str
    what: str
    lines: tuple[int, ...]
    """Of its journal, from 1, that prove it."""
    told: tuple[str, ...]
    """These lines."""
    tables: Tables
    digest: str
    faults: int
    shrinking: int
    """Runs that it took to make it this small."""


@dataclass(slots=True)
class Searched:
    """What one search did."""

    number: int
    runs: int = 0
    cpu_s: float = 0.0
    reached: Counter[str] = field(default_factory=Counter)
    """In how many runs each situation was reached."""
    reachable: set[str] = field(default_factory=set)
    ended: Counter[str] = field(default_factory=Counter)
    """How the jobs ended."""
    found: Found | None = None


def search(prey: Prey, number: int, runs: int) -> Searched:
    """Draw so many runs, fewer if one breaks a rule; that one is shrunk."""
    began, done = time.process_time(), Searched(number)
    caught: list[tuple[Tables, str]] = []

    def watched(drawn: Tables) -> Trial:
        tried = trial(scenario(drawn))
        if not caught and done.runs < runs:  # else it is asked again
            done.runs += 1
            take_stock(done, drawn, tried)
            caught.extend((drawn, violation.rule) for violation in tried.violations() if violation.rule == (prey.rule or violation.rule))
        return tried

    def breaks(drawn: Tables) -> bool:
        if not caught and done.runs < runs:
            watched(drawn)
        return bool(caught) or done.runs >= runs  # either ends it

    options = settings(
        max_examples=runs,
        database=None,
        deadline=None,
        derandomize=False,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    with suppress(NoSuchExample, Flaky):  # it asks again about what was caught
        find(
            drawing(prey, watched, paired=number % 2 == 1),
            breaks,
            settings=options,
            random=random.Random(chance.number(prey.seed, "hunt", f"search {number}")),
        )
    done.cpu_s = time.process_time() - began
    if caught:
        done.found = smallest(prey, *caught[0])
    return done


def smallest(prey: Prey, drawn: Tables, rule: str) -> Found:
    """That breaks the same rule."""

    def breaks(tables: Tables) -> bool:
        made, mistakes = validate({"name": "drawn"} | tables, "drawn")
        if made is None or mistakes:
            return False
        try:
            return any(violation.rule == rule for violation in trial(made).violations())
        except ScenarioError:
            return False

    kept = len(ground(prey.file, prey.overrides).given.get("fault", ())) if prey.file else 0
    small, runs = shrink(drawn, breaks, kept=kept, whole=not prey.file)
    return judged(small, rule, runs)


def take_stock(done: Searched, drawn: Tables, tried: Trial) -> None:
    situations = Situations()
    situations.read(tried.records)
    done.reached.update(situations.reached.keys())
    made = tried.run.scenario
    faults = {fault["kind"] for fault in drawn["fault"]}
    warm = bool(getattr(made.protocol, "warmstart", None))
    done.reachable |= reachable(made.protocol.kind, made.protocol.durability, made.model.partitions, faults, warm=warm)
    done.ended["broke" if tried.broke else "failed" if tried.run.cluster.failed else "done"] += 1


def judged(drawn: Tables, rule: str, runs: int) -> Found:
    """Run it once more, for what it breaks."""
    tried = trial(scenario(drawn))
    violation = next(one for one in tried.violations() if one.rule == rule)
    told = tuple(tried.records[line - 1].line().rstrip("\n") for line in violation.lines)
    return Found(rule, violation.what, violation.lines, told, drawn, tried.run.journal.digest(), len(drawn["fault"]), runs)


Watched = Callable[[Tables], Trial]
"""A run, which counts as one of the search."""


def drawing(prey: Prey, watched: Watched, *, paired: bool) -> st.SearchStrategy[Tables]:
    """What is drawn: faults of the one scenario, or all of it.

    `paired`, in every other search: what is aimed comes in pairs, and again at who recovers.  That finds bugs that faults by themselves never
    find, and takes longer for the others.
    """
    return faulty(prey, watched, paired) if prey.file else whole(prey, watched, paired)


@st.composite
def whole(draw: st.DrawFn, prey: Prey, watched: Watched, paired: bool) -> Tables:
    """A job of that kind; now and then it is run undisturbed first, so that faults can be aimed at its moments."""
    limits: dict[str, Any] = {"partitions": 3, "replicas": 3, "rounds": 8} if prey.kind == "partitions" else {"kind": prey.kind}
    drawn = draw(tables(numerics="exact", most_faults=prey.most_faults, **limits))
    if draw(st.integers(0, 2)) or not prey.most_faults:
        return drawn
    undisturbed = trial(scenario(drawn | {"fault": []}))
    on = undisturbed.run.cluster.there
    longest_ms, durability = math.ceil(1000 * undisturbed.run.loop.time()), drawn["protocol"].get("durability", "none")

    def under(faults: list[Tables]) -> Tables:
        return over_in_time(drawn | {"fault": faults[: prey.most_faults]})

    moments = moments_of(undisturbed.records, on)
    if paired:
        hits = draw(twice(moments, lambda hits: moments_of(watched(under(hits)).records, on), longest_ms, durability))
    else:
        hits = draw(aimed(moments, longest_ms, durability))
    return under([*hits, *drawn["fault"]])


@st.composite
def twice(
    draw: st.DrawFn, moments: Moments, disturbed: Callable[[list[Tables]], Moments], longest_ms: int, durability: str
) -> list[Tables]:
    """Faults aimed at these moments; and now and then more of them, aimed at those of the run that the first disturb: at who recovers from them."""
    hits: list[Tables] = draw(aimed(moments, longest_ms, durability, paired=True))
    further: bool = draw(st.booleans())
    return [*hits, *draw(aimed(disturbed(hits), longest_ms, durability, paired=True))] if further else hits


@dataclass(frozen=True, slots=True)
class Ground:
    """The scenario as it is without the hunt's faults."""

    given: Tables
    scenario: Scenario
    there: Places
    undisturbed_s: float
    moments: Moments
    """Of the undisturbed run."""
    violations: tuple[Violation, ...]


@cache
def ground(file: str, overrides: tuple[str, ...]) -> Ground:
    """Raises ScenarioError.  The files that it names are named from the root: what is found may lie elsewhere."""
    loaded = load(file, overrides)
    given = rooted(loaded.given())
    if loaded.numerics == "timing" and (loaded.model.partitions == 1 or loaded.protocol.kind == "downpour"):
        given["numerics"] = "exact"
    made = scenario(given)
    real = made.numerics == "real"
    there = places(made.protocol, made.cluster, made.network, real=real, partitions=made.model.partitions)
    tried = trial(made)
    return Ground(given, made, there, tried.run.loop.time(), moments_of(tried.records, there), tuple(tried.violations()))


def moments_of(records: Iterable[Record], there: Places) -> Moments:
    """By event, since the rare ones are those at which a protocol can be hit."""
    found: Moments = {}
    for record in records:
        names = [name.partition("#")[0] for name in (record.node, record.peer)]
        if who := tuple(name for name in names if name in there.roles):
            found.setdefault(record.event, []).append((int(1000 * record.time_s), who))
    return dict(sorted(found.items()))


def rooted(value: Any) -> Any:
    """The same with the user's files named from the root."""
    if isinstance(value, dict):
        return {key: rooted(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rooted(one) for one in value]
    if not isinstance(value, str):
        return value
    file, what = file_in(value) if not value.endswith(".csv") else (Path(value), "")
    return value if file is None else f"{file.resolve()}{what}"


@st.composite
def faulty(draw: st.DrawFn, prey: Prey, watched: Watched, paired: bool) -> Tables:
    """The scenario with a seed and a schedule of faults, besides those that it declares itself."""
    on = ground(prey.file, prey.overrides)
    within_ms = max(1, math.ceil(1000 * on.undisturbed_s))
    protocol = on.scenario.protocol
    seed = draw(st.integers(0, 1000))

    def under(faults: list[Tables]) -> Tables:
        made = on.given | {"seed": seed, "fault": [*on.given.get("fault", ()), *faults]}
        return made | {"give_up_after": f"{math.ceil(latest_after_s(scenario(made), on.undisturbed_s))} s"}

    drawn: list[Tables] = []
    if prey.most_faults and draw(st.booleans()):
        if paired:
            drawn = draw(twice(on.moments, lambda hits: moments_of(watched(under(hits)).records, on.there), within_ms, protocol.durability))
        else:
            drawn = draw(aimed(on.moments, within_ms, protocol.durability))
        drawn = drawn[: prey.most_faults]
    kinds = that_bite(KINDS, protocol.durability)
    drawn += draw(schedules(on.there, within_ms, longest_ms=within_ms, kinds=kinds, most=max(0, prey.most_faults - len(drawn))))
    spare = protocol.all_replicas - protocol.needed_replicas
    partition = 0 if on.scenario.model.partitions > 1 else None
    units = [replica_name(number, partition) for number in range(protocol.all_replicas)][-spare - 1 :] if spare else []
    gone = draw(st.just([]) | losses(units, within_ms))
    return under([*drawn, *gone])
