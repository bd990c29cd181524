"""Each rule of the checks is broken once by a journal written by hand, and names the lines that prove it."""

from __future__ import annotations

from typing import Any

import pytest

from core.checks import RULES, PushId, check
from core.journal import LEGEND, Record
from core.pushes import BUNDLES

SUPERVISOR = "supervisor", 1
C1, C2 = ("coordinator", 1), ("coordinator", 2)
R1, R2, S1, S2 = ("replica/0", 1), ("replica/0", 2), ("shard/0", 1), ("shard/0", 2)


def journal(*events: tuple[object, ...]) -> list[Record]:
    """Records from (node and life, event, peer, number, value), a second apart."""
    made = []
    for second, ((node, life), event, *rest) in enumerate(events):  # type: ignore[misc]
        assert event in LEGEND
        made.append(Record(float(second), node, life, event, *rest))  # type: ignore[has-type]
    return made


def pushed(who: tuple[str, int], sequence: int) -> tuple[object, ...]:
    return who, "pushed", "shard/0", sequence, 1.0


def applied(where: tuple[str, int], who: tuple[str, int], sequence: int, staleness: float = 0.0) -> tuple[object, ...]:
    return where, "applied", f"{who[0]}#{who[1]}", sequence, staleness


def acknowledged(who: tuple[str, int], sequence: int) -> tuple[object, ...]:
    return who, "acknowledged", "shard/0", sequence


def given(who: tuple[str, int], to: tuple[str, int], first: int, portions: int) -> tuple[object, ...]:
    return who, "given", f"{to[0]}#{to[1]}", first, float(portions)


def arrived(of: tuple[str, int], sequence: int, portions: int, note: str = "new: all of them") -> tuple[object, ...]:
    return C1, "arrived", f"{of[0]}#{of[1]}", sequence, float(portions), note


def covered(bundles: int) -> tuple[object, ...]:
    return C1, "covered", "", bundles


def stepped(who: tuple[str, int], iteration: int) -> tuple[object, ...]:
    return who, "stepped", "", iteration


def of_cluster(event: str, peer: str = "", number: int = 0, note: str = "") -> tuple[object, ...]:
    return ("cluster", 0), event, peer, number, 0.0, note


GOOD = (
    (R1, "joined", "shard/0", 0),
    pushed(R1, 1), applied(S1, R1, 1), acknowledged(R1, 1),
    (S1, "persisted", "", 1),
    pushed(R1, 2), applied(S1, R1, 2, 1.0),
    of_cluster("crashed", "shard/0", 1),
    (S2, "restored", "", 1),
    applied(S2, R1, 2, 1.0), acknowledged(R1, 2),
    of_cluster("crashed", "replica/0", 1),
    (R2, "joined", "shard/0", 2),
    pushed(R2, 1), applied(S2, R2, 1, 1.0), acknowledged(R2, 1),
    (S2, "finished", "", 3),
)  # fmt: skip
"""A push is lost with its shard's life and applied again by the next; a replica's next life begins its count anew."""


def test_a_journal_of_crashes_and_repetitions_is_in_order() -> None:
    findings = check(journal(*GOOD))
    assert findings.violations == []
    assert findings.surviving == {
        "shard/0": [PushId("replica/0", 1, "shard/0", 1), PushId("replica/0", 1, "shard/0", 2), PushId("replica/0", 2, "shard/0", 1)]
    }
    assert list(findings.pushed.values()) == [1, 1, 1]


BROKEN: list[tuple[str, tuple[int, ...], tuple[tuple[object, ...], ...]]] = [
    ("pushed in sequence", (1, 2), (pushed(R1, 1), pushed(R1, 3))),
    ("pushed in sequence", (2, 3), (pushed(R1, 1), pushed(R1, BUNDLES + 1), pushed(R1, BUNDLES + 3))),
    ("applied was pushed", (1,), (applied(S1, R1, 1),)),
    ("applied was pushed", (1, 2), (applied(S1, R1, 1), pushed(R1, 1))),
    ("counted once", (2, 3), (pushed(R1, 1), applied(S1, R1, 1), applied(S1, R1, 1))),
    ("counted once", (2, 5), (pushed(R1, 1), applied(S1, R1, 1), (S1, "persisted", "", 1), (S2, "restored", "", 1), applied(S2, R1, 1))),
    ("counted in order", (3, 4), (pushed(R1, 1), pushed(R1, 2), applied(S1, R1, 2), applied(S1, R1, 1))),
    ("nothing skipped", (4, 5), (pushed(R1, 1), pushed(R1, 2), pushed(R1, 3), applied(S1, R1, 1), applied(S1, R1, 3))),
    ("acknowledged was applied", (2,), (pushed(R1, 1), acknowledged(R1, 1))),
    ("acknowledged once", (3, 4), (pushed(R1, 1), applied(S1, R1, 1), acknowledged(R1, 1), acknowledged(R1, 1))),
    ("acknowledged once", (3, 5), (pushed(R1, 1), applied(S1, R1, 1), acknowledged(R1, 1), (S2, "restored", "", 0), applied(S2, R1, 1))),
    ("outlived", (2, 3), (pushed(R1, 1), (R2, "joined", "shard/0", 0), applied(S1, R1, 1))),
    ("the dead are silent", (1, 2), (of_cluster("crashed", "replica/0", 1), pushed(R1, 1))),
    (
        "no half gradients",
        (4,),
        (
            (SUPERVISOR, "granted", "replica/0/0", 1),
            (SUPERVISOR, "granted", "replica/0/1", 1),
            (("replica/0/0", 1), "passed", "", 2, 80.0),
            pushed(("replica/0/0", 1), 1),
        ),
    ),
    ("lives are granted once", (1,), (of_cluster("started", "shard/0", 1),)),
    (
        "lives are granted once",
        (2, 3),
        ((SUPERVISOR, "granted", "shard/0", 1), of_cluster("started", "shard/0", 1), of_cluster("started", "shard/0", 1)),
    ),
    ("restored what was durable", (4,), (pushed(R1, 1), applied(S1, R1, 1), of_cluster("crashed", "shard/0", 1), (S2, "restored", "", 1))),
    ("restored what was durable", (3,), (pushed(R1, 1), applied(S1, R1, 1), (S2, "finished", "", 0))),
    ("a snapshot counts its updates", (1,), ((S1, "persisted", "", 1),)),
    ("finished is finished", (1, 3), ((S1, "finished", "", 0), pushed(R1, 1), applied(S1, R1, 1))),
    ("finished is finished", (1,), ((S1, "finished", "", 1),)),
    ("a warm start ends once", (1, 3), ((S1, "warmed", "", 0), pushed(R1, 1), applied(S1, R1, 1))),
    ("a warm start ends once", (1,), ((S1, "warmed", "", 1),)),
    ("a warm start ends once", (1, 2), ((S1, "warmed", "", 0), (S1, "warmed", "", 0))),
    ("staleness is a distance", (2,), (pushed(R1, 1), applied(S1, R1, 1, 1.0))),
    ("outlived", (3, 4), ((S1, "persisted", "", 0), pushed(C1, 1), given(C2, R1, 0, 2), applied(S1, C1, 1))),
    ("one push at a time", (2, 3), ((R1, "joined", "shard/0", 0), pushed(R1, 1), pushed(R1, 2))),
    ("fenced", (2, 3), ((S1, "persisted", "", 0), (S2, "restored", "", 0), (S1, "persisted", "", 0))),
    ("given once", (1, 2), (given(C1, R1, 0, 2), given(C1, R2, 0, 2))),
    ("given once", (1, 2), (given(C1, R1, 0, 2), given(C1, R2, 1, 2))),
    ("a bundle counts once", (2, 3), (given(C1, R1, 0, 2), arrived(R1, 1, 2), arrived(R1, 1, 2))),
    ("a bundle counts once", (1, 2), (given(C1, R1, 0, 2), arrived(R1, 1, 1))),
    ("each portion once", (3,), (given(C1, R1, 0, 2), given(C1, R2, 2, 2), covered(0))),
    ("each portion once", (2, 4), (given(C1, R1, 0, 2), arrived(R1, 1, 2), given(C1, R2, 2, 2), covered(2))),
    ("each portion once", (2, 3), (given(C1, R1, 2, 2), arrived(R1, 1, 2), covered(1))),
    ("each portion once", (2, 4, 5), (given(C1, R1, 0, 2), arrived(R1, 1, 2), given(C1, R2, 1, 1), arrived(R2, 1, 1), covered(2))),
    ("one gradient a replica", (2, 4, 5), (given(C1, R1, 1, 1), arrived(R1, 1, 1), given(C1, R2, 1, 1), arrived(R2, 1, 1), stepped(C1, 1))),
    ("one gradient a replica", (2, 3), (given(C1, R1, 1, 1), arrived(R1, 1, 1), stepped(C1, 2))),
    (
        "arrived was staged",
        (1, 4),
        (pushed(R1, 1), (S1, "staged", "replica/0#1", 1, 2.0), given(C1, R1, 0, 2), arrived(R1, 1, 2)),
    ),
    ("bounded staging", (4,), (pushed(R1, 1), pushed(R1, 2), (S1, "staged", "replica/0#1", 1, 2.0), (S1, "staged", "replica/0#1", 2, 2.0))),
    ("what was staged is cleared", (3,), (pushed(R1, 1), (S1, "staged", "replica/0#1", 1, 2.0), (S1, "cleared", "", 2))),
    (
        "what was staged is cleared",
        (4,),
        ((S1, "persisted", "", 0), (S2, "restored", "", 0), (S2, "staged", "replica/0#1", 1, 2.0), (S2, "cleared", "", 0), pushed(R1, 1)),
    ),
    ("steps are taken in turn", (1, 2), (stepped(C1, 1), stepped(C1, 3))),
    ("steps are taken in turn", (1, 2), (stepped(C1, 2), stepped(C1, 2))),
    ("steps are taken in turn", (1, 3), (stepped(C1, 1), (C1, "reset", "", 1), stepped(C1, 4))),
    ("steps are taken in turn", (1, 2), (stepped(C1, 1), stepped(C2, 4))),
    ("no step is lost", (3, 4), (pushed(R1, 1), (S1, "staged", "replica/0#1", 1, 2.0), stepped(C1, 2), stepped(C2, 1))),
]


@pytest.mark.parametrize(("rule", "lines", "events"), BROKEN, ids=[f"{rule} {number}" for number, (rule, *_) in enumerate(BROKEN)])
def test_a_broken_rule_is_named_with_the_lines_that_prove_it(
    rule: str, lines: tuple[int, ...], events: tuple[tuple[object, ...], ...]
) -> None:
    found = check(journal(*events), staged_limit=1).violations
    assert [(violation.rule, violation.lines) for violation in found] == [(rule, lines)]
    assert str(lines[0]) in str(found[0])


def test_every_rule_is_broken_once() -> None:
    assert {rule for rule, _, _ in BROKEN} | {"nothing acknowledged is lost", "progress"} == set(RULES)


COVERS: tuple[tuple[object, ...], ...] = (
    given(C1, R1, 0, 2), given(C1, R2, 2, 2), given(C1, R2, 2, 2),
    arrived(R2, 1, 2), given(C1, R2, 0, 1), arrived(R2, 2, 1), given(C1, R2, 1, 1), arrived(R2, 3, 1),
    arrived(R1, 1, 2, "useless: everything in it had arrived"), covered(3), stepped(C1, 1),
    given(C1, R2, 0, 2), (C1, "reset", "", 1), given(C1, R1, 0, 2), arrived(R1, 2, 2), covered(1),
    (C1, "reset", "", 1), stepped(C1, 3),
)  # fmt: skip
"""An answer is repeated, a slow bundle is covered by singles; after a setback the batch begins anew, and a step that others saw is unsaid."""


def test_what_is_given_again_is_covered_once() -> None:
    assert check(journal(*COVERS)).violations == []
    assert check(journal(*COVERS), one_clock=False).violations == []


@pytest.mark.parametrize(("durability", "broken"), [("snapshot", []), ("mirror", ["no step is lost"]), ("log", ["no step is lost"])])
def test_steps_go_back_where_every_shard_lost_them(durability: Any, broken: list[str]) -> None:
    back = ((S1, "staged", "replica/0#1", 1, 2.0), stepped(C1, 2), (S2, "restored", "", 0), (C1, "reset", "", 2), stepped(C1, 1))
    assert [violation.rule for violation in check(journal(pushed(R1, 1), *back), durability=durability).violations] == broken


def test_without_one_clock_steps_are_counted_within_each_life() -> None:
    found = check(journal(stepped(C1, 2), stepped(C2, 7), stepped(C1, 3), stepped(C2, 9)), one_clock=False).violations
    assert [(violation.rule, violation.lines) for violation in found] == [("steps are taken in turn", (2, 4))]


def test_progress_is_asked_for_from_the_moment_when_nothing_fails_any_more_to_the_end() -> None:
    early = (pushed(R1, 1), *((S1, "refused", "", 0) for _ in range(6)), applied(S1, R1, 1))
    over = (of_cluster("begun"), of_cluster("concluded"), *(of_cluster("dropped") for _ in range(6)))
    assert check(journal(*early, *over), progress=(3.0, 4.0)).violations == []
    found = check(journal(*early, *over), progress=(3.0, 3.5)).violations
    assert [(violation.rule, violation.lines) for violation in found] == [("progress", (8,))]
    hung = check(journal(*early, *(of_cluster("dropped") for _ in range(6))), progress=(0.0, 5.5)).violations
    assert [(violation.rule, violation.lines) for violation in hung] == [("progress", (8,)), ("progress", (8, 14))]


LOST = (
    pushed(R1, 1), applied(S1, R1, 1), acknowledged(R1, 1),
    of_cluster("crashed", "shard/0", 1), (S2, "restored", "", 0),
)  # fmt: skip
"""A push is acknowledged, and the next life begins without it."""


@pytest.mark.parametrize("durability", ["mirror", "log"])
def test_nothing_acknowledged_is_lost_where_that_was_promised(durability: Any) -> None:
    found = check(journal(*LOST), durability=durability).violations
    assert "nothing acknowledged is lost" in {violation.rule for violation in found}


def test_a_snapshot_promises_less() -> None:
    assert check(journal(*LOST), durability="snapshot").violations == []


@pytest.mark.parametrize(("durability", "lost"), [("none", False), ("mirror", False), ("snapshot", True), ("log", True)])
def test_what_is_written_down_without_a_promise_need_not_be_found_again(durability: Any, *, lost: bool) -> None:
    """A shard on a machine that will be taken writes what it has; its next life may be elsewhere."""
    left = (pushed(R1, 1), applied(S1, R1, 1), (S1, "persisted", "", 1), (S2, "restored", "", 0))
    assert (
        "restored what was durable" in {violation.rule for violation in check(journal(*left), durability=durability).violations}
    ) == lost


@pytest.mark.parametrize(("home", "wrong"), [("machine/1", True), ("machine/2", False)])
def test_an_earlier_life_may_write_to_a_disk_that_is_not_its_successor_s(home: str, *, wrong: bool) -> None:
    """Taken for lost, and told to end: it writes down what it has, where nobody reads it."""
    granted = tuple((SUPERVISOR, "granted", "shard/0", life) for life in (1, 2))
    first, second = (of_cluster("started", "shard/0", life, where) for life, where in ((1, "machine/1"), (2, home)))
    events = (*granted, first, (S1, "persisted", "", 0), second, (S2, "restored", "", 0), (S1, "persisted", "", 0))
    assert ("fenced" in {violation.rule for violation in check(journal(*events)).violations}) == wrong


def test_what_a_life_applies_after_its_successor_has_begun_does_not_count() -> None:
    zombie = (pushed(R1, 1), (S1, "persisted", "", 0), (S2, "restored", "", 0), applied(S1, R1, 1), acknowledged(R1, 1))
    assert check(journal(*zombie), durability="snapshot").violations == []
    assert check(journal(*zombie), durability="snapshot").surviving == {"shard/0": []}
    assert [v.rule for v in check(journal(*zombie), durability="log").violations] == ["nothing acknowledged is lost"]


def test_nothing_is_made_of_the_order_of_lines_that_different_clocks_wrote() -> None:
    events = (acknowledged(R1, 1), applied(S1, R1, 1), pushed(R1, 1))
    assert check(journal(*events), one_clock=False).violations == []
    lacking = check(journal(acknowledged(R1, 1), pushed(R1, 1)), one_clock=False).violations
    assert [violation.rule for violation in lacking] == ["acknowledged was applied"]
