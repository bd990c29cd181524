"""Each situation is reached by a handful of records, and missed by nearly the same; drawn schedules reach what they must."""

from __future__ import annotations

from collections import Counter
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from core.journal import LEGEND, Journal, Record
from core.moments import SITUATIONS, Kind
from core.situations import Situations, reachable
from sim.run import Run
from sim.strategies import KINDS, PROTOCOLS, Tables, scenario, tables

Event = tuple[object, ...]

SUPERVISOR, CLUSTER, COORDINATOR = ("supervisor", 1), ("cluster", 0), ("coordinator", 1)
R1, S1, S2 = ("replica/0", 1), ("shard/0", 1), ("shard/0", 2)


def journal(*events: Event) -> list[Record]:
    """Records from (node and life, event, peer, number, value, note), a second apart."""
    made = []
    for second, ((node, life), event, *rest) in enumerate(events):  # type: ignore[misc]
        assert event in LEGEND
        made.append(Record(float(second), node, life, event, *rest))  # type: ignore[has-type]
    return made


def reached(events: tuple[Event, ...]) -> Counter[str]:
    situations = Situations()
    situations.read(journal(*events))
    return situations.reached


def granted(role: str, life: int = 1, machine: str = "machine/0") -> Event:
    return SUPERVISOR, "granted", role, life, 0.0, machine


def started(role: str, life: int = 1) -> Event:
    return CLUSTER, "started", role, life, 0.0, "machine/0"


def there(*roles: str, life: int = 1) -> tuple[Event, ...]:
    """Granted, and started."""
    return tuple(event for role in roles for event in (granted(role, life), started(role, life)))


def crashed(role: str, life: int = 1) -> Event:
    return CLUSTER, "crashed", role, life, 0.0, "fault.0 crash"


def lost(role: str, life: int = 1, why: str = "silent for 1 s") -> Event:
    return SUPERVISOR, "lost", role, life, 0.0, why


def pushed(sequence: int = 1, who: tuple[str, int] = R1, shard: str = "shard/0") -> Event:
    return who, "pushed", shard, sequence, 1.0


def applied(where: tuple[str, int] = S1, sequence: int = 1, who: tuple[str, int] = R1) -> Event:
    return where, "applied", f"{who[0]}#{who[1]}", sequence


def duplicate(where: tuple[str, int] = S1) -> Event:
    return where, "duplicate", "replica/0#1", 1


def staged(where: tuple[str, int] = S1) -> Event:
    return where, "staged", "replica/0#1", 1, 2.0


def acknowledged(who: tuple[str, int] = R1, shard: str = "shard/0") -> Event:
    return who, "acknowledged", shard, 1


def refused(where: tuple[str, int], peer: str) -> Event:
    return where, "refused", peer, 0, 0.0, "its reason"


def restored(updates: int, life: int = 2) -> Event:
    return ("shard/0", life), "restored", "", updates


def mirrored(life: int) -> Event:
    """The mirror's life holds everything."""
    return S1, "persisted", "mirror/0", 1, float(life)


def given_to(note: str, who: str = "replica/0#1") -> Event:
    return COORDINATOR, "given", who, 1, 1.0, note


def arrived(note: str, who: str = "replica/0#1") -> Event:
    return COORDINATOR, "arrived", who, 1, 1.0, note


def passed(machine: int, life: int = 1) -> Event:
    return (f"replica/0/{machine}", life), "passed", "", 2, 80.0


def of_cluster(event: str, peer: str, number: int = 0, note: str = "fault.0") -> Event:
    return CLUSTER, event, peer, number, 1.0, note


BOTH = there("shard/0", "replica/0")
MIRRORED = (*there("shard/0", "mirror/0", "replica/0"), pushed(), applied())
STEPS = (*there("shard/0", "shard/1", "coordinator"), pushed(who=COORDINATOR), pushed(who=COORDINATOR, shard="shard/1"))
SPLIT = there("replica/0/0", "replica/0/1")
CONCLUDED: Event = (SUPERVISOR, "concluded", "", 0, 0.0, "done")


def paused(role: str, *, replaced: bool) -> tuple[Event, ...]:
    return (*there(role), of_cluster("paused", role, 1), *([granted(role, 2)] if replaced else []), of_cluster("resumed", role, 1))


CASES: dict[str, tuple[tuple[Event, ...], tuple[Event, ...]]] = {
    "a push was repeated after a restart": (
        (*BOTH, pushed(), crashed("shard/0"), *there("shard/0", life=2), restored(0), applied(S2)),
        (*BOTH, crashed("shard/0"), *there("shard/0", life=2), restored(0), pushed(), applied(S2)),
    ),
    "a duplicate was recognised": ((pushed(), applied(), duplicate()), (pushed(), applied(), acknowledged())),
    "a duplicate was recognised by a later life of its shard": (
        (*BOTH, pushed(), applied(), crashed("shard/0"), *there("shard/0", life=2), restored(1), duplicate(S2)),
        (*BOTH, pushed(), crashed("shard/0"), *there("shard/0", life=2), restored(0), applied(S2), duplicate(S2)),
    ),
    "a push of an earlier life was refused": (
        (*BOTH, granted("replica/0", 2), refused(S1, "replica/0#1")),
        (*BOTH, granted("replica/0", 2), refused(S1, "replica/0#2")),
    ),
    "a push was taken whose sender had died": (
        (*BOTH, pushed(), crashed("replica/0"), applied()),
        (*BOTH, pushed(), applied(), crashed("replica/0")),
    ),
    "a shard died between taking a push and its acknowledgement": (
        (*BOTH, pushed(), applied(), crashed("shard/0")),
        (*BOTH, pushed(), applied(), acknowledged(), pushed(2), crashed("shard/0")),
    ),
    "a push lost both its ends": (
        (*BOTH, pushed(), crashed("shard/0"), crashed("replica/0")),
        (*BOTH, pushed(), applied(), acknowledged(), crashed("shard/0"), crashed("replica/0")),
    ),
    "a restart lost updates that had been acknowledged": (
        (*BOTH, pushed(), applied(), acknowledged(), crashed("shard/0"), *there("shard/0", life=2), restored(0)),
        (*BOTH, pushed(), applied(), crashed("shard/0"), *there("shard/0", life=2), restored(0)),
    ),
    "a shard died while it read what it had kept": (
        (*BOTH, crashed("shard/0"), *there("shard/0", life=2), crashed("shard/0", 2)),
        (*BOTH, crashed("shard/0"), *there("shard/0", life=2), restored(0), crashed("shard/0", 2)),
    ),
    "a shard had finished and lost that": (
        ((S1, "finished", "", 3), (S2, "finished", "", 3)),
        ((S1, "finished", "", 3), (("shard/1", 2), "finished", "", 3)),
    ),
    "a mirror was promoted while a push was in flight": (
        (*MIRRORED, crashed("shard/0"), (SUPERVISOR, "promoted", "shard/0", 2, 0.0, "mirror/0#1 on machine/1")),
        (*MIRRORED, acknowledged(), crashed("shard/0"), (SUPERVISOR, "promoted", "shard/0", 2, 0.0, "mirror/0#1 on machine/1")),
    ),
    "a mirror died while a push waited": ((*MIRRORED, crashed("mirror/0")), (*MIRRORED, acknowledged(), crashed("mirror/0"))),
    "a new mirror was filled": (
        (*MIRRORED, mirrored(1), crashed("mirror/0"), *there("mirror/0", life=2), mirrored(2)),
        (*MIRRORED, mirrored(1), mirrored(1)),
    ),
    "both copies of a mirrored shard were gone": (
        (*MIRRORED, crashed("mirror/0"), crashed("shard/0")),
        (*MIRRORED, mirrored(1), crashed("shard/0")),
    ),
    "a disk grew slow while a push waited": (
        (*BOTH, pushed(), of_cluster("choked", "machine/0")),
        (*BOTH, pushed(), of_cluster("choked", "machine/1")),
    ),
    "a snapshot could not be written": (((S1, "unwritten", "", 1),), ((S1, "persisted", "", 1),)),
    "a paused shard woke after it was replaced": (paused("shard/0", replaced=True), paused("shard/0", replaced=False)),
    "a paused replica woke after it was replaced": (paused("replica/0", replaced=True), paused("shard/0", replaced=True)),
    "a paused coordinator woke after it was replaced": (paused("coordinator", replaced=True), paused("coordinator", replaced=False)),
    "a shard that had been replaced took a push": (
        (*BOTH, pushed(), granted("shard/0", 2), applied()),
        (*BOTH, pushed(), granted("shard/0", 2), applied(S2)),
    ),
    "somebody who was alive was taken for lost": ((*BOTH, lost("shard/0")), (*BOTH, crashed("shard/0"), lost("shard/0"))),
    "a machine that was taken for lost was heard again": (
        ((SUPERVISOR, "enlisted", "machine/0", 0, 0.0, "machine/0 is heard again"),),
        ((SUPERVISOR, "enlisted", "machine/0", 0, 0.0, "machine/0"),),
    ),
    "two roles were down at once": (
        (*BOTH, crashed("shard/0"), crashed("replica/0")),
        (*BOTH, crashed("shard/0"), *there("shard/0", life=2), crashed("replica/0")),
    ),
    "two shards were down at once": (
        (*there("shard/0", "shard/1"), crashed("shard/0"), crashed("shard/1")),
        (*there("shard/0", "replica/0"), crashed("shard/0"), crashed("replica/0")),
    ),
    "somebody died while the supervisor was dead": (
        (*BOTH, crashed("supervisor"), crashed("shard/0")),
        (*BOTH, crashed("shard/0"), crashed("supervisor")),
    ),
    "the supervisor recovered while somebody was lost": (
        (*BOTH, crashed("shard/0"), crashed("supervisor"), started("supervisor", 2), (("supervisor", 2), "recovered")),
        (*BOTH, crashed("supervisor"), started("supervisor", 2), (("supervisor", 2), "recovered"), crashed("shard/0")),
    ),
    "the supervisor died between a grant and its start": (
        (granted("shard/0"), crashed("supervisor"), started("shard/0")),
        (granted("shard/0"), started("shard/0"), crashed("supervisor")),
    ),
    "a replica was called back": (
        (*BOTH, of_cluster("ended", "replica/0", 1, "done"), granted("replica/0", 2)),
        (*BOTH, of_cluster("ended", "replica/0", 1, "fault.0 preemption"), granted("replica/0", 2)),
    ),
    "the job ended while somebody was down": ((*BOTH, crashed("replica/0"), CONCLUDED), (*BOTH, CONCLUDED, crashed("replica/0"))),
    "a machine was drained before it was taken": (
        (of_cluster("preempted", "machine/0"), (SUPERVISOR, "left", "machine/0"), of_cluster("crashed", "machine/0")),
        ((SUPERVISOR, "left", "machine/0"),),
    ),
    "a machine was taken before it was drained": (
        (of_cluster("preempted", "machine/0"), of_cluster("crashed", "machine/0")),
        (of_cluster("preempted", "machine/0"), (SUPERVISOR, "left", "machine/0"), of_cluster("crashed", "machine/0")),
    ),
    "a message was lost": ((of_cluster("dropped", "machine/0"),), (of_cluster("doubled", "machine/0"),)),
    "a request was sent twice": ((of_cluster("doubled", "shard/0"),), (of_cluster("delayed", "shard/0"),)),
    "a request was held up so that later ones overtook it": ((of_cluster("delayed", "shard/0"),), (of_cluster("dropped", "shard/0"),)),
    "the clock of a machine with a role on it was wrong": (
        (*BOTH, of_cluster("misled", "machine/0")),
        (*BOTH, of_cluster("misled", "machine/1")),
    ),
    "the clock of the supervisor was wrong": (
        ((CLUSTER, "started", "supervisor", 1, 0.0, "head"), of_cluster("misled", "head")),
        (*BOTH, of_cluster("misled", "machine/0")),
    ),
    "a shard died between stage and commit": (
        (*BOTH, staged(), crashed("shard/0")),
        (*BOTH, staged(), (S1, "cleared", "", 1), crashed("shard/0")),
    ),
    "a bundle that was staged was lost": ((given_to("a shard lost its bundle"),), (given_to("replica/0#1 is over"),)),
    "a backup won": (
        (given_to("backup: it is late"), arrived("new: 1 of 1 had not arrived")),
        (given_to("backup: it is late"), given_to("the next"), arrived("new: 1 of 1 had not arrived")),
    ),
    "a copy came after its portion was there": (
        (arrived("useless: everything in it had arrived"),),
        (arrived("useless: its batch is over"),),
    ),
    "a gradient came after its batch or step was over": ((arrived("useless: its batch is over"),), (arrived("new: 1 of 2"),)),
    "the work of a life that was over counted": (
        (*BOTH, granted("replica/0", 2), arrived("new: 1 of 1")),
        (*BOTH, granted("replica/0", 2), arrived("new: 1 of 1", "replica/0#2")),
    ),
    "the coordinator died between cover and step": (
        (*there("coordinator"), (COORDINATOR, "covered", "", 2), crashed("coordinator")),
        (*there("coordinator"), (COORDINATOR, "covered", "", 2), (COORDINATOR, "stepped", "", 1), crashed("coordinator")),
    ),
    "the coordinator died when some shards had taken a step and others not": (
        (*STEPS, applied(who=COORDINATOR), crashed("coordinator")),
        (*STEPS, applied(who=COORDINATOR), applied(("shard/1", 1), who=COORDINATOR), crashed("coordinator")),
    ),
    "a shard and the coordinator were down at once": (
        (*there("shard/0", "coordinator"), crashed("shard/0"), crashed("coordinator")),
        (*there("replica/0", "coordinator"), crashed("replica/0"), crashed("coordinator")),
    ),
    "the optimisation began anew because a shard had lost steps": (
        ((COORDINATOR, "reset", "", 1, 0.0, "shard/0 lost steps: on from the parameters as they are"),),
        ((COORDINATOR, "reset", "", 1, 0.0, "shard/0 lost what it was asked for"),),
    ),
    "a warm start ended while a replica was down": (
        (*BOTH, crashed("replica/0"), (S1, "warmed", "", 3)),
        (*BOTH, (S1, "warmed", "", 3), crashed("replica/0")),
    ),
    "a shard ended its warm start a second time": (
        ((S1, "warmed", "", 3), (S2, "warmed", "", 3)),
        ((S1, "warmed", "", 3), (("shard/1", 1), "warmed", "", 3)),
    ),
    "a machine of a replica died while the replica was at work": (
        (*SPLIT, passed(1), passed(0), crashed("replica/0/0"), crashed("replica/0/1")),
        (*SPLIT, passed(1), crashed("replica/0/0"), crashed("replica/0/1")),
    ),
    "a machine of a replica died in the middle of a phase that another was through with": (
        (*SPLIT, passed(1), crashed("replica/0/0"), crashed("replica/0/1")),
        (*SPLIT, passed(1), passed(0), crashed("replica/0/0"), crashed("replica/0/1")),
    ),
    "a machine of a replica died when it was through and another was not": (
        (*SPLIT, passed(1), crashed("replica/0/1"), crashed("replica/0/0")),
        (*SPLIT, passed(1), crashed("replica/0/0"), crashed("replica/0/1")),
    ),
    "a second machine of a replica died before the first was back": (
        (*SPLIT, crashed("replica/0/0"), granted("replica/0/0", 2), *there("replica/0/1", life=2), crashed("replica/0/1", 2)),
        (*SPLIT, crashed("replica/0/0"), crashed("replica/0/1")),
    ),
}  # fmt: skip
"""Records that reach it, and a near miss."""


@pytest.mark.parametrize("name", CASES)
def test_a_situation_is_reached_by_these_records_and_not_by_nearly_the_same(name: str) -> None:
    hit, miss = CASES[name]
    assert reached(hit)[name] == 1
    assert name not in reached(miss)


def test_every_situation_has_its_case_its_reason_and_events_that_there_are() -> None:
    assert CASES.keys() == SITUATIONS.keys()
    for one in SITUATIONS.values():
        assert one.why
        assert set(one.events) <= LEGEND.keys()
        assert set(one.faults) <= {"full-disk", *KINDS}
    assert set(get_args(Kind)) == PROTOCOLS.keys()


def test_what_comes_after_the_end_of_the_job_is_not_looked_at() -> None:
    assert reached((*BOTH, pushed(), applied(), CONCLUDED, crashed("shard/0"), duplicate())) == Counter()


def test_jobs_are_held_only_to_what_they_can_come_into() -> None:
    plain, mirror = reachable("downpour", "snapshot"), reachable("downpour", "mirror")
    assert "a mirror was promoted while a push was in flight" in mirror - plain
    assert "a restart lost updates that had been acknowledged" in plain - reachable("downpour", "log")
    assert "a backup won" in reachable("mapreduce", "log") - plain
    assert "a gradient came after its batch or step was over" in reachable("sync", "log") - plain
    assert "a warm start ended while a replica was down" in reachable("sandblaster", "log") - reachable("sandblaster", "log", warm=False)
    split = reachable("downpour", "snapshot", partitions=2)
    assert {name.split(" replica")[0] for name in split - plain} == {"a machine of a", "a second machine of a"}
    assert {SITUATIONS[name].faults for name in plain - reachable("downpour", "snapshot", faults={"crash"})} == {
        ("full-disk",), ("slow-disk",), ("pause",), ("preemption",), ("duplication",), ("delay", "reordering"), ("clock-drift",),
    }  # fmt: skip
    every = set().union(
        *(reachable(kind, what, 2) for kind in ("downpour", "mapreduce", "sync") for what in ("none", "snapshot", "mirror", "log"))
    )
    assert every == SITUATIONS.keys()


def test_it_is_the_same_as_records_come_and_read_back() -> None:
    hit, _ = CASES["a mirror was promoted while a push was in flight"]
    records, watched = journal(*hit), Situations()
    written = Journal()
    watched.attach(written)
    for record in records:
        written.recorder(record.node, record.life, lambda: 0.0)(*record[3:])
    assert watched.reached == reached(hit)


OFTEN = {
    "a message was lost", "a request was sent twice", "a request was held up so that later ones overtook it",
    "the clock of a machine with a role on it was wrong", "a machine was drained before it was taken", "somebody who was alive was taken for lost",
    "a gradient came after its batch or step was over",
}  # fmt: skip
"""So that even a hundred schedules must come into them; what is drawn depends on the modules that are loaded, too."""

AT_LEAST = 15
"""Situations, in a hundred schedules."""

RUNS = max(120, settings().max_examples // 5)


def test_drawn_schedules_come_into_what_they_can_and_into_nothing_else() -> None:
    total, runs = Counter[str](), 0

    @settings(
        max_examples=RUNS, derandomize=True, database=None, phases=[Phase.generate], deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.one_of([tables(kind=kind) for kind in ("downpour", "sandblaster", "mapreduce", "sync")] + [tables(partitions=3)]))
    def hunt(drawn: Tables) -> None:
        nonlocal total, runs
        run, situations = Run(scenario(drawn)), Situations()
        situations.attach(run.journal)
        run.simulate()
        assert situations.reached.keys() <= could(drawn)
        total, runs = total + situations.reached, runs + 1

    hunt()
    print("\n".join(f"{total[name]:6}  {name}" for name in SITUATIONS))  # noqa: T201  shown by pytest -rP
    assert runs == RUNS
    assert total.keys() >= OFTEN
    assert len(total) >= AT_LEAST


def could(drawn: Tables) -> set[str]:
    protocol: Any = drawn["protocol"]
    faults = {fault["kind"] for fault in drawn["fault"]}
    partitions = drawn["model"].get("partitions", 1)
    return reachable(protocol["kind"], protocol["durability"], partitions, faults, warm="warmstart" in protocol)
