"""What one machine of a replica sends to the others."""

from __future__ import annotations

from typing import Any

import pytest

from core.messages import Accepted, Refused, Request, TimedOut
from core.outbox import Outbox
from core.passing import Overdue, Pass, Word
from core.vector import Phantom
from tests.core.fakes import LoopNode

DEADLINE_S = 4.0
PEER = "replica/0/1"


def outbox(node: Any) -> Outbox:
    def turned_away(error: Refused) -> None:
        raise AssertionError(error)

    return Outbox(node, DEADLINE_S, turned_away)


@pytest.mark.parametrize("outcome", [(1.0, Accepted(0)), (DEADLINE_S, TimedOut("lost"))], ids=["heard", "lost"])
def test_whoever_ends_waits_for_its_last_word_but_does_not_repeat_it(outcome: tuple[float, Any]) -> None:
    node = LoopNode(name="replica/0/0", answer=lambda _peer, _request: outcome)
    made = outbox(node)

    async def end() -> float:
        await made.sent()
        made.send(PEER, Word(1))
        await made.sent()
        return node.now()

    assert node.run(end(), until=outcome[0] + 0.001) == outcome[0]
    assert len(node.calls) == 1


def test_what_is_asked_for_again_is_told_once_more_and_only_that() -> None:
    node, told = LoopNode(name="replica/0/0"), list[tuple[str, Request[Any]]]()
    node.tell = lambda *what: told.append(what)  # type: ignore[method-assign]
    made = outbox(node)
    first, second, other = (Pass(3, "up", 5, Phantom(6)), Pass(3, "down", 5, Phantom(6)), Pass(3, "up", 6, Phantom(6)))
    for peer, crossing in ((PEER, first), (PEER, second), ("replica/0/2", other)):
        made.tell(peer, crossing)
    told.clear()
    made.again(Overdue(3, (5, 6), (7,)), PEER)
    assert told == [(PEER, first)]
    made.again(Overdue(2, (5,), (5,)), PEER)
    made.forget()
    made.again(Overdue(3, (5,), (5,)), PEER)
    assert told == [(PEER, first)]
    assert not node.calls
