"""The supervisor: whatever it tells is durable before, so that it can be killed at any moment."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.lives import Role
from core.membership import Membership
from core.messages import Ask, Refusal, Request, Sender
from core.node import Server, StoreFailed
from core.reports import Beat, Capacity, Conclude, End, Inquire, Orders, Overview, Report, Standing, Status
from core.supervisor import Supervisor, supervisor
from core.timings import Timings
from sim.device import Machine
from sim.loop import Life, SimLoop
from sim.store import Disk, DiskStore
from tests.core.fakes import LoopNode

TIMINGS = Timings(1.0)
WRITING_S = 0.3


class Slow(DiskStore):
    """Takes so long to write whatever it is."""

    def write(self, manifest: dict[str, Any], vectors: dict[str, Any]) -> Any:
        text = json.dumps(manifest)
        return self._begin(lambda: 3, lambda: self.disk.keep(text, manifest["position"], vectors))


@dataclass
class Node(LoopNode):
    disk: Disk = field(default_factory=Disk)
    server: Any = None

    def __post_init__(self) -> None:
        self.life = Life(self.name, self.incarnation, self.loop)
        self.store = Slow(self.life, self.disk, Machine("head", 1.0, 1.0, 3 / WRITING_S), 1.0)

    def serve(self, server: Server) -> str:
        self.server = server
        return "here"


class World:
    """One life of a supervisor after another, on one disk; agents and roles ask by plain calls, and what they are told is noted."""

    def __init__(self) -> None:
        self.loop, self.disk = SimLoop(), Disk()
        self.nodes: list[Node] = []
        self.told: list[tuple[float, int, Any]] = []
        """When, by which life, what."""

    def begins(self) -> None:
        node = Node("supervisor", len(self.nodes) + 1, loop=self.loop, disk=self.disk)
        self.nodes.append(node)
        roles = [Role(name) for name in ("shard/0", "replica/0")]
        self.membership = Membership(roles, TIMINGS, now=node.now, record=node.record, life=node.incarnation)
        node.life.start(supervisor(node, self.membership))

    def dies(self) -> None:
        self.nodes[-1].life.crash()

    def ask(self, request: Request[Any], name: str, life: int) -> None:
        """Hear the answer when its outcome is durable, if its supervisor lives so long."""
        node = self.nodes[-1]
        if node.server is None or not node.life.up:
            return
        outcome = node.life.context.run(node.server.handle, request, Sender(name, life))

        def tell(_: object = None) -> None:
            self.told.append((self.loop.time(), node.incarnation, outcome.reply))

        if outcome.durable is None:
            tell()
        else:
            outcome.durable.add_done_callback(tell, context=node.life.context)

    def report(self, **how: Any) -> None:
        self.ask(Report(1, "host", Capacity(), **how), "agent/0", 1)

    def at(self, time_s: float, action: Any, *arguments: Any, **how: Any) -> None:
        self.loop.call_at(time_s, lambda: action(*arguments, **how))

    def orders(self) -> list[tuple[float, int, Orders]]:
        return [(time_s, life, reply) for time_s, life, reply in self.told if isinstance(reply, Orders)]


def test_who_is_granted_a_life_hears_of_it_when_that_is_durable() -> None:
    world = World()
    world.begins()
    world.at(0.05, world.report)
    world.at(0.45, world.report)
    world.loop.run(until=2.0)
    (first_s, _, first), (second_s, _, second) = world.orders()
    assert first.wanted == ()
    assert [process.name for process in second.wanted] == ["shard/0", "replica/0"]
    assert first_s >= WRITING_S
    assert second_s > WRITING_S + 0.1
    assert world.disk.manifest is not None
    assert {role["life"] for role in world.disk.manifest["roles"]} == {1}


def test_whoever_asks_while_the_ledger_is_written_waits_for_what_was_decided_before() -> None:
    world = World()
    world.begins()
    world.at(0.05, world.report)
    for moment in (0.12, 0.2, 0.25):
        world.at(moment, world.ask, Inquire(), "operator", 1)
    world.loop.run(until=3.0)
    assert all(time_s >= 0.3 for time_s, _, _ in world.told)


def test_it_serves_nobody_else() -> None:
    world = World()
    world.begins()
    world.at(0.1, world.ask, Ask(), "replica/0", 1)
    world.loop.run(until=1.0)
    assert isinstance(world.told[0][2], Refusal)


def test_an_operator_ends_the_job() -> None:
    world = World()
    world.begins()
    world.at(0.1, world.ask, Conclude("enough"), "operator", 1)
    world.loop.run(until=1.0)
    ((_, _, overview),) = world.told
    assert isinstance(overview, Overview)
    assert (overview.verdict, overview.reason) == ("interrupted", "enough")


def test_it_ends_when_the_job_is_over_and_all_machines_are_silent() -> None:
    world = World()
    world.begins()
    world.at(0.1, world.report)
    world.at(1.0, world.ask, Conclude("enough"), "operator", 1)
    world.loop.run()
    exited = world.nodes[0].life.exited
    assert exited.done()
    assert exited.result() is world.membership
    assert world.disk.manifest is not None
    assert world.disk.manifest["phase"] == "over"


def test_a_ledger_that_cannot_be_written_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Slow, *_: Any) -> Any:
        future = self.loop.create_future()
        future.set_exception(StoreFailed("no space left"))
        return future

    monkeypatch.setattr(Slow, "write", full)
    world = World()
    world.begins()
    world.at(0.1, world.report)
    with pytest.raises(StoreFailed, match="no space"):
        world.loop.run(until=5.0)
    assert world.told == []


def test_a_later_life_goes_on_with_everybody_and_grants_nothing_again() -> None:
    world = World()
    world.begins()
    for tenth in range(1, 12):
        world.at(tenth / 10, world.report)
    world.at(1.15, world.ask, Beat("here", 0, Status()), "shard/0", 1)
    world.at(1.2, world.ask, Beat("", 0, Status()), "replica/0", 1)
    world.at(2.0, world.dies)
    world.at(2.1, world.begins)
    for tenth in range(22, 30):
        world.at(tenth / 10, world.report)
        world.at(tenth / 10, world.ask, Beat("here", 0, Status()), "shard/0", 1)
        world.at(tenth / 10, world.ask, Beat("", 0, Status()), "replica/0", 1)
    world.loop.run(until=3.0)
    assert [record[0] for record in world.nodes[1].records if record[0] != "begun"] == ["recovered"]
    later = [orders for _, life, orders in world.orders() if life == 2]
    assert later
    assert all([tuple(process) for process in orders.wanted] == [("shard/0", 1), ("replica/0", 1)] for orders in later)
    assert min(orders.version for orders in later) > max(orders.version for _, life, orders in world.orders() if life == 1)
    standings = [reply for _, life, reply in world.told if life == 2 and isinstance(reply, Standing)]
    assert not any(standing.outlived for standing in standings)


moments = st.lists(st.floats(0.05, 6.0), max_size=6, unique=True)


@given(moments, st.lists(st.tuples(st.floats(0.0, 6.0), st.sampled_from(["shard/0", "replica/0"])), max_size=6))
def test_killed_at_any_moment_it_never_grants_a_life_twice(killed: list[float], crashed: list[tuple[float, str]]) -> None:
    """Each life that an agent was told to start is started once: what it was told at a later time, by whichever supervisor, is
    the same or later.
    """
    world = World()
    world.begins()
    for moment in killed:
        world.at(moment, lambda: (world.dies(), world.begins()))
    ended: list[End] = []

    def report() -> None:
        known = [orders for _, _, orders in world.orders()]
        now = {process.name: process for orders in known[-1:] for process in orders.wanted}
        ended[:] = [end for end in ended if end.process in now.values()]
        world.report(ended=tuple(ended))

    def crash(name: str) -> None:
        known = [orders for _, _, orders in world.orders()]
        ended.extend(End(process, "fault", "planned") for orders in known[-1:] for process in orders.wanted if process.name == name)

    for tenth in range(1, 80):
        world.at(tenth / 10, report)
    for moment, name in crashed:
        world.at(moment, crash, name)
    world.loop.run(until=9.0)
    seen: dict[str, int] = {}
    gone: set[Any] = set()
    for orders in sorted((orders for _, _, orders in world.orders()), key=lambda orders: orders.version):
        lives = {process.name: process.life for process in orders.wanted}
        for name, life in lives.items():
            assert life >= seen.get(name, 0), f"{name} lives life {life} after {seen[name]}"
            assert (name, life) not in gone, f"{name} is to live life {life} again"
            gone |= {(name, seen[name])} if seen.get(name, life) != life else set()
            seen[name] = life
    assert isinstance(world.nodes[-1].server, Supervisor)
