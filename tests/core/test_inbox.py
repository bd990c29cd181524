"""Where one machine of a replica receives what the others send."""

from __future__ import annotations

from typing import Any

import pytest

from core.inbox import Inbox
from core.messages import Accepted, Ask, Behind, Refusal, Request, Sender
from core.passing import Overdue, Pass, Word
from core.phases import Arrival, Expected
from core.vector import Phantom
from tests.core.fakes import FakeNode

FIRST, OTHER, STRANGER = (Sender(name, 2) for name in ("replica/0/0", "replica/0/2", "replica/1/0"))
UP, DOWN = (Expected(Arrival(phase, number), machine, 3, bit) for phase, number, machine, bit in (("up", 5, 0, 1), ("down", 7, 2, 2)))


@pytest.fixture
def inbox() -> Inbox:
    """Of the second machine of three, in its second life: message 5 comes from the first, and 7 goes to the third."""
    node = FakeNode(name="replica/0/1", incarnation=2)
    node.got, node.asked = [], []  # type: ignore[attr-defined]
    expected = {one.arrival: one for one in (UP, DOWN)}
    names = [f"replica/0/{machine}" for machine in range(3)]
    made = Inbox(node, names, expected, lambda *got: node.got.append(got), lambda *asked: node.asked.append(asked))  # type: ignore[arg-type, attr-defined]
    made.enter(1)
    return made


def crossing(number: int = 1, phase: Any = "up", message: int = 5, count: int = 6) -> Pass:
    return Pass(number, phase, message, Phantom(count))


def test_each_thing_is_kept_once_and_for_its_round(inbox: Inbox) -> None:
    got = inbox.node.got  # type: ignore[attr-defined]
    for _ in range(2):
        assert isinstance(inbox.handle(crossing(2), FIRST).reply, Accepted)
        assert isinstance(inbox.handle(Word(1), OTHER).reply, Accepted)
    assert [key for key, _ in got] == ["replica/0/2"]
    inbox.enter(2)
    assert [key for key, _ in got] == ["replica/0/2", UP]
    assert isinstance(inbox.handle(crossing(1), FIRST).reply, Accepted)
    assert len(got) == 2


def test_what_comes_two_rounds_early_is_kept_for_its_own(inbox: Inbox) -> None:
    got = inbox.node.got  # type: ignore[attr-defined]
    assert isinstance(inbox.handle(crossing(3), FIRST).reply, Accepted)
    assert isinstance(inbox.handle(Word(2), OTHER).reply, Accepted)
    inbox.enter(2)
    assert [key for key, _ in got] == [OTHER.name]
    inbox.enter(3)
    assert [key for key, _ in got] == [OTHER.name, UP]


def test_what_is_asked_for_again_is_passed_on(inbox: Inbox) -> None:
    overdue = Overdue(1, (7,), ())
    assert isinstance(inbox.handle(overdue, OTHER).reply, Accepted)
    assert inbox.node.asked == [(overdue, OTHER.name)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("request_", "sender", "reason"),
    [
        (crossing(message=6), FIRST, "message 6 up is not for replica/0/1 to have of replica/0/0"),
        (crossing(), OTHER, "message 5 up is not for replica/0/1 to have of replica/0/2"),
        (crossing(count=4), FIRST, "message 5 of 4 elements, not so many times 3"),
        (crossing(count=0), FIRST, "message 5 of 0 elements, not so many times 3"),
        (crossing(4), FIRST, "round 4 is ahead of round 1"),
        (Word(1), STRANGER, "replica/1/0 is no machine of replica/0"),
        (Ask(), FIRST, "a machine of a replica does not serve Ask"),
        (Overdue(1, (7,), ()), FIRST, "message 7 is not for replica/0/0 to have of replica/0/1"),
        (Overdue(1, (5,), ()), FIRST, "message 5 is not for replica/0/0 to have of replica/0/1"),
        (Overdue(1, (), (9,)), FIRST, "message 9 is not for replica/0/0 to have of replica/0/1"),
        (crossing(), Sender("replica/0/0", 1), "replica/0/0 lives life 1, replica/0/1 lives 2"),
        (Overdue(1, (), (5,)), Sender("replica/0/0", 1), "replica/0/0 lives life 1, replica/0/1 lives 2"),
    ],
)
def test_what_is_wrong_is_refused_and_recorded(inbox: Inbox, request_: Request[Any], sender: Sender, reason: str) -> None:
    reply = inbox.handle(request_, sender).reply
    assert isinstance(reply, Refusal)
    assert reply.reason == reason
    assert inbox.node.events("refused") == [("refused", sender.label, 0, 0.0, reason)]  # type: ignore[attr-defined]
    assert (inbox.node.got, inbox.node.asked) == ([], [])  # type: ignore[attr-defined]


def test_what_comes_from_a_later_life_came_too_early(inbox: Inbox) -> None:
    for early in (crossing(), Overdue(1, (), (5,))):
        assert isinstance(inbox.handle(early, Sender("replica/0/0", 3)).reply, Behind)
