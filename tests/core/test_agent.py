"""An agent with hands that only remember: orders are a state, however often and in whatever order they come."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.agent import Agent
from core.messages import Request, TimedOut
from core.reports import Capacity, End, Orders, Process, Report
from core.timings import Timings
from tests.core.fakes import LoopNode

TIMINGS = Timings(1.0)
A, B = Process("shard/0", 1), Process("replica/0", 1)


@dataclass
class Hands:
    """What runs, and everything that was done."""

    running: set[Process] = field(default_factory=set)
    done: list[tuple[str, Process]] = field(default_factory=list)
    holds: set[Process] = field(default_factory=set)

    def start(self, process: Process) -> None:
        assert process not in self.running
        self.running.add(process)
        self.done.append(("start", process))

    def kill(self, process: Process) -> None:
        self.running.remove(process)
        self.done.append(("kill", process))

    def held(self, process: Process) -> bool:
        return process in self.holds

    def lively(self) -> tuple[Process, ...]:
        return tuple(self.running - self.holds)


class World:
    """An agent, and a supervisor that the test speaks for."""

    def __init__(self) -> None:
        self.node, self.hands = LoopNode("agent/3"), Hands()
        self.orders: Orders | Exception = Orders(1)
        self.latency_s = 0.01
        self.node.answer = self.answer
        self.agents: list[Agent] = []

    def answer(self, peer: str, request: Request[Any]) -> tuple[float, Any]:
        assert peer == "supervisor"
        assert isinstance(request, Report)
        return self.latency_s, self.orders

    @property
    def agent(self) -> Agent:
        return self.agents[0]

    @property
    def reports(self) -> list[tuple[float, Report]]:
        return [(time_s, request) for time_s, _, request in self.node.calls if isinstance(request, Report)]

    def at(self, time_s: float, action: Any) -> None:
        self.node.loop.call_at(time_s, action)

    def tell(self, time_s: float, orders: Orders | Exception) -> None:
        """What is answered from then on."""
        self.at(time_s, lambda: setattr(self, "orders", orders))

    def run(self, until: float | None = None) -> Any:
        async def live() -> str:
            self.agents.append(Agent(self.node, self.hands, boot=7, host="here", capacity=Capacity(4), timings=TIMINGS))
            return await self.agent.run()

        return self.node.run(live(), until=until)


def test_it_reports_once_a_beat_what_it_is_and_what_runs() -> None:
    world = World()
    world.orders = Orders(1, (A,))
    world.run(until=1.1)
    assert [time_s for time_s, _ in world.reports] == [0.0, 0.25, 0.5, 0.75, 1.0]
    first, second = world.reports[0][1], world.reports[1][1]
    assert (first.boot, first.host, first.capacity, first.running) == (7, "here", Capacity(4), ())
    assert (second.running, second.lively, second.held, second.ended) == ((A,), (A,), (), ())


def test_what_is_wanted_is_started_once_and_what_is_not_is_killed_once() -> None:
    world = World()
    world.orders = Orders(1, (A, B))
    world.tell(0.6, Orders(2, (B,)))
    world.run(until=2.0)
    assert world.hands.done == [("start", A), ("start", B), ("kill", A)]


def test_orders_that_come_late_are_ignored() -> None:
    """The first answer takes so long that the second is there before it."""
    world = World()
    world.latency_s, world.orders = 0.4, Orders(1, (A,))
    world.at(0.1, lambda: setattr(world, "latency_s", 0.01))
    world.tell(0.1, Orders(2, (B,)))
    world.run(until=2.0)
    assert world.hands.done == [("start", B)]


def test_whatever_is_lost_is_made_good_by_the_next_orders() -> None:
    world = World()
    world.orders = TimedOut("silence")
    world.tell(0.6, Orders(5, (A, B)))
    world.run(until=2.0)
    assert world.hands.running == {A, B}


def test_an_end_is_told_at_once_and_again_until_the_supervisor_knows_of_it() -> None:
    world = World()
    world.orders = Orders(1, (A, B))
    world.at(0.3, lambda: world.hands.running.discard(A))
    world.at(0.3, lambda: world.agent.ended(A, "crashed", "was killed"))
    world.tell(0.6, Orders(2, (B,)))
    world.run(until=1.3)
    end = End(A, "crashed", "was killed")
    assert [(time_s, report.ended) for time_s, report in world.reports if report.ended] == [
        (0.3, (end,)), (0.5, (end,)), (0.75, (end,)),
    ]  # fmt: skip
    assert world.hands.done == [("start", A), ("start", B)]
    assert world.reports[-1][1].running == (B,)


def test_the_end_of_a_process_that_nobody_wants_any_more_is_nobody_s_business() -> None:
    world = World()
    world.orders = Orders(1, (A,))
    world.tell(0.3, Orders(2))
    world.at(0.8, lambda: world.agent.ended(A, "crashed", "killed: it is not wanted any more"))
    world.run(until=2.0)
    assert not any(report.ended for _, report in world.reports)


def test_a_process_that_a_fault_holds_is_reported_as_held() -> None:
    world = World()
    world.orders = Orders(1, (A, B))
    world.hands.holds.add(A)
    world.at(0.6, world.hands.holds.clear)
    world.run(until=1.1)
    assert [report.held for _, report in world.reports] == [(), (A,), (A,), (), ()]


def test_it_ends_when_the_job_is_over() -> None:
    world = World()
    world.tell(1.0, Orders(9, conclude=True))
    assert world.run() == ""
    assert world.agent.concluded
    assert world.node.now() < 1.3


def leaves_after(world: World) -> float:
    """Seconds that its last word takes, said at second 1."""
    moments: list[float] = []

    async def leave() -> None:
        await world.agent.leave()
        moments.append(world.node.now())

    world.run(until=1.0)
    world.agent.end("")
    world.node.run(leave(), until=100.0)
    return moments[0] - 1.0


def test_its_last_word_is_that_it_leaves() -> None:
    world = World()
    assert leaves_after(world) == pytest.approx(world.latency_s)
    assert [report.leaving for _, report in world.reports[-2:]] == [False, True]


def test_what_ends_because_it_ends_is_told_by_its_last_word_alone() -> None:
    """As if by itself, an evaluator's end was that of the job, and a shard's for good."""
    world = World()
    world.orders = Orders(1, (A, B))

    async def leave() -> None:
        world.agent.ended(A, "ended", "ended with exit code 0")
        await world.agent.leave()

    world.run(until=1.0)
    world.agent.end("")
    world.node.run(leave(), until=2.0)
    assert not any(report.ended for _, report in world.reports)
    assert world.reports[-1][1].leaving


def test_it_does_not_wait_long_for_an_answer_to_its_last_word() -> None:
    world = World()
    world.at(0.9, lambda: setattr(world, "latency_s", 1e6))
    assert leaves_after(world) == TIMINGS.detect_within_s


def test_without_a_supervisor_it_ends_after_a_while_and_says_why() -> None:
    world = World()
    world.tell(5.0, TimedOut("silence"))
    assert "nothing was heard" in world.run()
    assert TIMINGS.orphan_s + 5.0 <= world.node.now() <= TIMINGS.orphan_s + 5.6
    assert not world.agent.concluded


orders = st.lists(st.frozensets(st.sampled_from([A, B, Process("shard/0", 2)])), max_size=8)


@given(orders, st.randoms(use_true_random=False))
def test_in_the_end_runs_what_the_latest_orders_want(wanted: list[frozenset[Process]], chance: Any) -> None:
    """Each orders arrive once or twice, in any order; the latest of them at least once."""
    world = World()
    arriving = [Orders(1, ())] + [Orders(number, tuple(sorted(want))) for number, want in enumerate(wanted, start=2)]
    late = [one for one in arriving for _ in range(chance.randint(1, 2))]
    chance.shuffle(late)
    world.run(until=0.1)
    for one in late:
        world.agent.obey(one)
    assert world.hands.running == set(arriving[-1].wanted)
    starts = [process for what, process in world.hands.done if what == "start"]
    assert len(starts) <= sum(len(one.wanted) for one in arriving)
