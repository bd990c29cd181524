"""A role's signs of life, and what it takes from the answers, late ones and none at all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from core.attendance import Attendance, Outlived
from core.messages import Request, TimedOut
from core.reports import Beat, Member, Standing, Status
from core.timings import Timings
from tests.core.fakes import LoopNode

TIMINGS = Timings(1.0)
SHARD, LATER = Member("shard/0", 1, "here"), Member("shard/0", 2, "there")


@dataclass
class Node(LoopNode):
    introduced: list[tuple[str, int, str]] = field(default_factory=list)

    def introduce(self, peer: str, life: int, address: str) -> None:
        self.introduced.append((peer, life, address))


class World:
    def __init__(self, standing: Any = None) -> None:
        self.node, self.standing, self.latency_s = Node("replica/0"), standing or Standing(0), 0.01
        self.node.answer = self.answer
        self.attendances: list[Attendance] = []
        self.heard: list[Member] = []

    def answer(self, peer: str, request: Request[Any]) -> tuple[float, Any]:
        assert peer == "supervisor"
        return self.latency_s, self.standing

    @property
    def attendance(self) -> Attendance:
        return self.attendances[0]

    @property
    def beats(self) -> list[tuple[float, Beat]]:
        return [(time_s, request) for time_s, _, request in self.node.calls if isinstance(request, Beat)]

    def at(self, time_s: float, **changes: Any) -> None:
        self.node.loop.call_at(time_s, lambda: [setattr(self, key, value) for key, value in changes.items()])

    def run(self, until: float | None = None) -> Any:
        async def live() -> None:
            self.attendances.append(Attendance(self.node, TIMINGS))
            self.attendance.tell(self.heard.append)
            await self.attendance.run()

        return self.node.run(live(), until=until)


def test_a_sign_of_life_once_a_beat_whether_or_not_it_is_answered() -> None:
    world = World(TimedOut("silence"))
    world.run(until=1.1)
    assert [time_s for time_s, _ in world.beats] == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_a_beat_says_where_it_serves_how_it_is_and_what_it_knows() -> None:
    world = World(Standing(17, (SHARD,), begun=True))
    world.run(until=0.2)
    world.attendance.address, world.attendance.status = "here", lambda: Status(updates=3)
    world.node.loop.run(until=0.3)
    (_, first), (_, second) = world.beats
    assert (first.address, first.known, first.status.updates) == ("", 0, 0)
    assert (second.address, second.known, second.status.updates) == ("here", 17, 3)


def test_members_are_introduced_and_told_in_their_order() -> None:
    world = World(Standing(2, (SHARD, LATER), begun=True))
    world.run(until=0.2)
    assert world.node.introduced == [tuple(SHARD), tuple(LATER)]
    assert world.heard == [SHARD, LATER]
    assert world.attendance.begun.is_set()


def test_who_begins_to_listen_late_hears_of_those_who_are_there_already() -> None:
    """A shard that read its snapshot meanwhile never heard of its mirror, and waited for it for ever."""
    world, late = World(Standing(2, (SHARD, LATER), begun=True)), list[Member]()
    world.run(until=0.2)
    world.attendance.tell(late.append)
    assert late == list({member.name: member for member in (SHARD, LATER)}.values())


def test_before_the_job_has_begun_nothing_counts_as_known() -> None:
    world = World(Standing(5))
    world.run(until=0.4)
    assert [beat.known for _, beat in world.beats] == [0, 0]
    assert not world.attendance.begun.is_set()


def test_an_answer_that_comes_late_introduces_nobody() -> None:
    """The first takes so long that the second, which knows more, is there before it."""
    world = World(Standing(1, (SHARD,), begun=True))
    world.latency_s = 0.4
    world.at(0.1, latency_s=0.01, standing=Standing(2, (LATER,), begun=True))
    world.run(until=0.6)
    assert {*world.node.introduced} == {tuple(LATER)}
    assert world.beats[-1][1].known == 2


def test_who_was_outlived_ends_at_once() -> None:
    world = World()
    world.at(0.6, standing=Standing(3, outlived=True))

    async def live() -> float:
        with pytest.raises(Outlived, match="a later life of replica/0 than 1"):
            await Attendance(world.node, TIMINGS).run()
        return world.node.now()

    assert world.node.run(live()) == pytest.approx(0.76)


def test_a_conclusion_and_a_promotion_are_heard_once_and_stay() -> None:
    world = World(Standing(3, begun=True, conclude="10 epochs", promoted=4))
    world.at(0.3, standing=Standing(4, begun=True))
    world.run(until=1.0)
    assert world.attendance.concluded.is_set()
    assert world.attendance.promoted.result() == 4


def test_news_may_be_told_between_two_beats() -> None:
    world = World()

    async def live() -> None:
        attendance = Attendance(world.node, TIMINGS)
        beating = asyncio.ensure_future(attendance.run())
        await asyncio.sleep(0.1)
        attendance.beat()
        await asyncio.sleep(0.3)
        beating.cancel()

    world.node.run(live())
    assert [time_s for time_s, _ in world.beats] == [0.0, 0.1, 0.25]


def test_one_that_is_cancelled_gives_no_further_sign_of_life() -> None:
    world = World()

    async def live() -> None:
        beating = asyncio.ensure_future(Attendance(world.node, TIMINGS).run())
        await asyncio.sleep(0.3)
        beating.cancel()
        await asyncio.sleep(2.0)

    world.node.run(live())
    assert [time_s for time_s, _ in world.beats] == [0.0, 0.25]
