"""What an acknowledgement promises: trails, snapshots, logs and mirrors, on a simulated loop with a simulated disk.

Each push has a coordinate of its own, so the parameters are the tally; a shard that comes back must hold every coordinate
that was acknowledged, and must be what it was at some moment, to the bit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.attendance import Attendance
from core.durability import LOG_LIMIT, Mirror, Trail, keep_last, keeping, recovered
from core.job import Job, Shared
from core.messages import Accepted, Behind, Copy, Entry, Finish, Install, Push, Refusal, Request, Sender, Unreachable
from core.node import Outcome, StoreFailed
from core.reports import Member
from core.rules import Momentum
from core.shard import Shard
from core.timings import Timings
from core.work import Cost
from sim.device import Machine
from sim.loop import Life, SimLoop
from sim.store import Disk, DiskStore
from tests.core.fakes import FakeNode, LoopNode

WIDTH = 40
REPLICA = Sender("replica/0", 1)
BYTES = WIDTH * 8


def job(durability: str, **others: Any) -> Job:
    return Job((Shared("shard/0", slice(0, WIDTH)),), 1, durability=durability, deadline_s=2.0, **others)  # type: ignore[arg-type]


def push(sequence: int) -> Push:
    gradient = torch.zeros(WIDTH, dtype=torch.float64)
    gradient[sequence - 1] = -1.0
    return Push(sequence, gradient, 1, 1, 0)


def initial() -> torch.Tensor:
    return torch.zeros(WIDTH, dtype=torch.float64)


def counted(shard: Shard) -> list[int]:
    """Sequences of the pushes that its parameters hold."""
    return [coordinate + 1 for coordinate, value in enumerate(shard.parameters.tolist()) if value]


def reference(updates: int) -> Shard:
    """A shard that made so many of these updates and nothing else."""
    shard = Shard(FakeNode(), job("none"), initial(), Momentum(1.0))
    for sequence in range(1, updates + 1):
        shard.handle(push(sequence), REPLICA)
    return shard


def same(one: Shard, other: Shard) -> bool:
    state = all(torch.equal(one.rule.state[key], other.rule.state[key]) for key in other.rule.state)
    return torch.equal(one.parameters, other.parameters) and state and one.pushes == other.pushes and one.updates == other.updates


# a trail


def entries(first: int, count: int) -> list[Entry]:
    return [Entry(number, REPLICA, push(number)) for number in range(first, first + count)]


def test_what_comes_while_a_batch_is_under_way_is_the_next_batch() -> None:
    node, carried, done = LoopNode(), list[tuple[float, list[int]]](), list[tuple[float, int]]()

    async def carry(batch: list[Entry]) -> None:
        carried.append((node.now(), [entry.number for entry in batch]))
        await asyncio.sleep(1.0)

    async def body() -> None:
        trail = Trail()
        running = asyncio.ensure_future(trail.run(carry))
        for second, batch in ((0.0, entries(1, 2)), (0.5, entries(3, 3)), (3.0, entries(6, 1))):
            await asyncio.sleep(second - node.now())
            for entry in batch:
                trail.add(entry).add_done_callback(lambda _, number=entry.number: done.append((node.now(), number)))
        assert trail.settled() is not None
        await asyncio.sleep(2.0)
        assert trail.settled() is None
        running.cancel()

    node.run(body())
    assert carried == [(0.0, [1, 2]), (1.0, [3, 4, 5]), (3.0, [6])]
    assert done == [(1.0, 1), (1.0, 2), (2.0, 3), (2.0, 4), (2.0, 5), (4.0, 6)]


def test_it_is_settled_when_the_last_entry_is_durable() -> None:
    node = LoopNode()

    async def carry(_: list[Entry]) -> None:
        await asyncio.sleep(1.0)

    async def body() -> float:
        trail = Trail()
        running = asyncio.ensure_future(trail.run(carry))
        first, _, _ = (trail.add(entry) for entry in entries(1, 3))
        await first
        settled = trail.settled()
        assert settled is None
        trail.add(entries(4, 1)[0])
        await asyncio.sleep(0.5)
        trail.add(entries(5, 1)[0])
        await trail.settled()  # type: ignore[misc]
        running.cancel()
        return node.now()

    assert node.run(body()) == 3.0


def test_what_is_durable_by_other_means_is_not_carried() -> None:
    node, carried = LoopNode(), list[int]()

    async def carry(batch: list[Entry]) -> None:
        carried.extend(entry.number for entry in batch)

    async def body() -> None:
        trail = Trail()
        futures = [trail.add(entry) for entry in entries(1, 4)]
        trail.held_by(2)
        assert [future.done() for future in futures] == [True, True, False, False]
        running = asyncio.ensure_future(trail.run(carry))
        await asyncio.sleep(1.0)
        assert all(future.done() for future in futures)
        running.cancel()

    node.run(body())
    assert carried == [3, 4]


# a shard and what it keeps


@dataclass
class Kept(LoopNode):
    """One life of a shard with a disk of its own, which writes one snapshot in a second."""

    disk: Disk = field(default_factory=Disk)
    introduced: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.life = Life(self.name, self.incarnation, self.loop)
        self.store = DiskStore(self.life, self.disk, Machine("machine/0", 1.0, 1.0, 2.0 * BYTES), 1.0)

    def introduce(self, peer: str, life: int, address: str) -> None:
        self.introduced.append((peer, life, address))

    def begin(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.life.start(coroutine)


class Stint:
    """A life of a shard that takes pushes."""

    def __init__(self, made: Job, loop: SimLoop | None = None, disk: Disk | None = None, incarnation: int = 1) -> None:
        self.job, self.acknowledged = made, list[tuple[float, int]]()
        self.node = Kept("shard/0", incarnation, loop=loop or SimLoop(), disk=disk or Disk())
        self.shards: list[Shard] = []

    @property
    def shard(self) -> Shard:
        return self.shards[0]

    def told(self, sequence: int) -> None:
        """That push is acknowledged."""
        self.acknowledged.append((self.node.now(), sequence))

    async def pushes(self, seconds: float, count: int) -> None:
        """One after another, whether or not they are acknowledged."""
        for _ in range(count):
            sequence = self.shard.updates + 1
            durable = self.shard.handle(push(sequence), REPLICA).durable
            if durable is None:
                self.told(sequence)
            else:
                durable.add_done_callback(lambda _, sequence=sequence: self.told(sequence))
            await asyncio.sleep(seconds)

    async def body(self, seconds: float, count: int) -> None:
        attendance = Attendance(self.node, Timings())
        self.shards.append(await recovered(self.node, self.job, initial(), Momentum(1.0)))
        durable = asyncio.ensure_future(keeping(self.node, self.job, self.shard, attendance))
        pushing = asyncio.ensure_future(self.pushes(seconds, count))
        await asyncio.wait([durable, pushing], return_when=asyncio.FIRST_COMPLETED)
        if durable.done():
            durable.result()
        await asyncio.wait([durable], timeout=30.0)

    def run(self, until: float, seconds: float = 0.25, count: int = 20) -> None:
        self.node.begin(self.body(seconds, count))
        self.node.loop.run(until=until)


def test_with_a_log_a_push_is_acknowledged_when_it_is_synced_and_those_that_wait_are_synced_together() -> None:
    life = Stint(job("log"))
    life.run(until=3.0, seconds=0.2, count=4)  # each entry takes half a second
    assert life.acknowledged == [(0.5, 1), (1.5, 2), (1.5, 3), (2.0, 4)]
    assert [(record[0], record[2]) for record in life.node.events("persisted")] == [("persisted", 1), ("persisted", 3), ("persisted", 4)]


def test_with_snapshots_a_push_is_acknowledged_at_once_and_durable_now_and_then() -> None:
    life = Stint(job("snapshot", snapshot_every_s=2.0))
    life.run(until=4.5)
    assert life.acknowledged[:3] == [(0.0, 1), (0.25, 2), (0.5, 3)]
    assert [record[2] for record in life.node.events("persisted")] == [8]
    assert life.node.disk.manifest is not None
    assert life.node.disk.manifest["updates"] == 8


def test_nothing_is_written_of_a_shard_that_has_not_changed() -> None:
    life = Stint(job("snapshot", snapshot_every_s=2.0))
    life.run(until=20.0, count=3)
    assert [record[2] for record in life.node.events("persisted")] == [3]


def test_a_finished_shard_is_written_at_once() -> None:
    life = Stint(job("snapshot", snapshot_every_s=1000.0))
    life.node.loop.call_at(1.1, lambda: life.shard.handle(Finish("over"), REPLICA), context=life.node.life.context)
    life.run(until=4.0, count=3)
    assert life.node.disk.manifest is not None
    assert (life.node.disk.manifest["updates"], life.node.disk.manifest["finished"]) == (3, "over")


def test_a_snapshot_that_cannot_be_written_is_told_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    life, write, failures = Stint(job("snapshot", snapshot_every_s=1.0)), DiskStore.write, iter([True, False])

    def sometimes(self: DiskStore, *what: Any) -> Any:
        if not next(failures, False):
            return write(self, *what)
        future = self.loop.create_future()
        future.set_exception(StoreFailed("no space left"))
        return future

    monkeypatch.setattr(DiskStore, "write", sometimes)
    life.run(until=3.5)
    assert [record[2:] for record in life.node.events("unwritten")] == [(4, 0.0, "no space left")]
    assert [record[2] for record in life.node.events("persisted")] == [8]


def test_a_log_that_cannot_be_written_ends_the_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: DiskStore, _: Any) -> Any:
        future = self.loop.create_future()
        future.set_exception(StoreFailed("no space left"))
        return future

    monkeypatch.setattr(DiskStore, "append", full)
    life = Stint(job("log"))
    with pytest.raises(StoreFailed, match="no space"):
        life.run(until=5.0)
    assert life.acknowledged == []


def test_a_long_log_is_replaced_by_a_snapshot() -> None:
    life = Stint(job("log"))
    life.run(until=40.0, seconds=0.5, count=2 * LOG_LIMIT + 10)  # a shard with momentum is two vectors
    manifest = life.node.disk.manifest
    assert manifest is not None
    assert 2 * LOG_LIMIT < manifest["updates"] <= 2 * LOG_LIMIT + 2
    assert [entry.number for entry in life.node.disk.entries][:1] in ([], [manifest["position"] + 1])
    again = Stint(job("log"), SimLoop(), life.node.disk, 2)
    again.run(until=60.0, count=0)
    assert same(again.shard, life.shard)


@given(st.sampled_from(["snapshot", "log"]), st.floats(0.0, 14.0), st.floats(0.05, 0.6))
def test_whenever_a_life_ends_the_next_holds_what_was_promised_and_is_what_it_was_to_the_bit(
    durability: str, ends_s: float, seconds: float
) -> None:
    made, disk = job(durability, snapshot_every_s=1.0), Disk()
    first = Stint(made, SimLoop(), disk)
    first.node.loop.call_at(ends_s, first.node.life.crash)
    first.run(until=15.0, seconds=seconds)
    second = Stint(made, SimLoop(), disk, incarnation=2)
    second.run(until=60.0, count=0)
    told = [record[2] for record in first.node.events("persisted")]
    least = max(told, default=0)
    assert second.node.events("restored") == [("restored", "", second.shard.updates, 0.0, "")]
    assert least <= second.shard.updates <= (first.shard.updates if first.shards else 0)
    if durability == "log":
        assert {sequence for _, sequence in first.acknowledged} <= {*counted(second.shard)}
    else:
        assert second.shard.updates == least
    assert same(second.shard, reference(second.shard.updates))
    outcome = second.shard.handle(push(second.shard.updates), REPLICA) if second.shard.updates else None
    assert outcome is None or (isinstance(outcome.reply, Accepted) and second.shard.updates == len(counted(second.shard)))


def test_what_comes_after_the_last_words_is_never_acknowledged() -> None:
    life = Stint(job("log"))

    async def body() -> None:
        shard = Shard(life.node, life.job, initial(), Momentum(1.0))
        shard.handle(push(1), REPLICA)
        await keep_last(life.node, shard, final=True)
        durable = shard.handle(push(2), REPLICA).durable
        assert durable is not None
        await asyncio.wait([durable], timeout=1000.0)
        assert not durable.done()

    life.node.begin(body())
    life.node.loop.run()
    assert life.node.disk.manifest is not None
    assert life.node.disk.manifest["updates"] == 1


# mirrors


class Shards(Stint):
    """A shard and the lives of its mirror; a call takes `latency_s` each way, and reaches the life that the shard was told of."""

    latency_s = 0.1

    def __init__(self) -> None:
        super().__init__(job("mirror"))
        self.node.call = self.call  # type: ignore[method-assign]
        self.mirrors: dict[int, Mirror] = {}
        self.known = 0
        self.alive: set[int] = set()
        self.attendances: list[Attendance] = []
        self.synced: list[tuple[float, int]] = []
        self.asked: list[Request[Any]] = []

    def call(self, peer: str, request: Request[Any]) -> Any:
        future, loop, to = self.node.loop.create_future(), self.node.loop, self.known
        self.asked.append(request)

        def fails() -> None:
            if not future.done():
                future.set_exception(Unreachable("nobody is there"))
                future.exception()

        def arrives() -> None:
            if to not in self.alive:
                loop.call_later(self.latency_s, fails)
                return
            outcome = self.mirrors[to].handle(request, Sender(self.node.name, self.node.incarnation))
            assert not isinstance(outcome.reply, Refusal)
            loop.call_later(self.latency_s, lambda: future.done() or future.set_result(outcome.reply))

        loop.call_later(self.latency_s, arrives)
        return future

    def mirror(self, time_s: float, life: int) -> None:
        """From then on there is another life of the mirror, and the shard is told."""

        def begins() -> None:
            node = FakeNode("mirror/0", life)
            now = self.node.loop.time
            self.mirrors[life] = Mirror(node, self.job, lambda: Momentum(1.0), lambda: self.synced.append((now(), life)))
            self.alive, self.known = {life}, life
            self.attendances[0].hear(Member("mirror/0", life, f"mirror/0#{life}"))

        self.node.loop.call_at(time_s, begins, context=self.node.life.context)

    def dies(self, time_s: float, life: int) -> None:
        self.node.loop.call_at(time_s, lambda: self.alive.discard(life))

    async def body(self, seconds: float, count: int) -> None:
        self.attendances.append(Attendance(self.node, Timings()))
        self.shards.append(Shard(self.node, self.job, initial(), Momentum(1.0)))
        durable = asyncio.ensure_future(keeping(self.node, self.job, self.shard, self.attendances[0]))
        await self.pushes(seconds, count)
        await durable


def test_a_mirror_first_gets_everything_and_then_every_push_before_it_is_acknowledged() -> None:
    world = Shards()
    world.mirror(1.1, 1)
    world.run(until=10.0, seconds=0.5, count=6)
    mirror = world.mirrors[1].shard
    assert mirror is not None
    assert same(mirror, reference(6))
    told = {sequence: time_s for time_s, sequence in world.acknowledged}
    assert [told[sequence] for sequence in range(1, 7)] == pytest.approx([1.5, 1.5, 1.5, 1.7, 2.2, 2.7])
    assert world.synced == [(pytest.approx(1.4), 1)]
    assert {type(request) for request in world.asked} == {Install, Copy}


def test_a_mirror_is_filled_even_if_nobody_pushes() -> None:
    world = Shards()
    world.mirror(1.0, 1)
    world.run(until=3.0, count=0)
    assert world.mirrors[1].shard is not None
    assert world.node.events("persisted") == [("persisted", "mirror/0", 0, 1, "")]


def test_a_mirror_that_dies_holds_acknowledgements_up_until_its_next_life_has_everything() -> None:
    world = Shards()
    world.mirror(0.0, 1)
    world.dies(1.05, 1)
    world.mirror(3.0, 2)
    world.run(until=10.0, seconds=0.5, count=8)
    told = {sequence: time_s for time_s, sequence in world.acknowledged}
    assert max(time_s for sequence, time_s in told.items() if sequence <= 2) < 1.05
    assert min(time_s for sequence, time_s in told.items() if sequence > 3) >= 3.4
    mirror = world.mirrors[2].shard
    assert mirror is not None
    assert same(mirror, reference(8))


def test_nobody_waits_for_a_mirror_that_is_gone_once_there_is_another() -> None:
    """A flight to the dead would pause for longer and longer, up to four seconds here, while its successor is there already."""
    world = Shards()
    world.mirror(0.0, 1)
    world.dies(0.9, 1)
    world.mirror(60.0, 2)
    world.run(until=70.0, seconds=0.5, count=3)
    assert [time_s for time_s, sequence in world.acknowledged if sequence == 3] == [pytest.approx(60.4)]


def test_a_mirror_that_has_not_got_everything_is_given_everything_again() -> None:
    world = Shards()
    world.mirror(0.0, 1)

    def forgets() -> None:
        handle, left = world.mirrors[1].handle, iter([True, True])
        world.mirrors[1].handle = lambda *asked: Outcome(Behind()) if next(left, False) else handle(*asked)  # type: ignore[method-assign]

    world.node.loop.call_at(0.01, forgets)
    world.run(until=5.0, seconds=0.5, count=2)
    assert [type(request) for request in world.asked] == [Install] * 4 + [Copy]
    mirror = world.mirrors[1].shard
    assert mirror is not None
    assert same(mirror, reference(2))
    assert min(time_s for time_s, _ in world.acknowledged) > 0.7


lives = st.lists(st.tuples(st.floats(0.05, 3.0), st.none() | st.floats(0.0, 2.0)), max_size=5)
"""For each life of the mirror: seconds until it is there, and how long it lives, if it dies before it is replaced."""


@settings(max_examples=200)
@given(lives, st.floats(0.05, 0.4), st.floats(0.5, 16.0))
def test_whatever_becomes_of_mirrors_the_one_that_is_told_of_holds_all_that_was_acknowledged(
    drawn: list[tuple[float, float | None]], seconds: float, promoted_s: float
) -> None:
    """At any moment at which the shard dies, the mirror of that moment can live on as the shard."""
    world, time_s = Shards(), 0.0
    for life, (comes_s, lives_s) in enumerate(drawn, start=1):
        time_s += comes_s
        world.mirror(time_s, life)
        if lives_s is not None:
            world.dies(time_s + lives_s, life)
            time_s += lives_s
    acknowledged_by: list[tuple[int, int]] = []
    world.told = lambda sequence: acknowledged_by.append((sequence, world.known))  # type: ignore[method-assign]
    world.run(until=promoted_s, seconds=seconds, count=40)
    for sequence, life in acknowledged_by:
        mirror = world.mirrors[life].shard
        assert mirror is not None
        assert sequence in counted(mirror)
    if world.known in world.alive and (copy := world.mirrors[world.known].shard) is not None:
        assert same(copy, reference(copy.updates))
        assert {sequence for sequence, _ in acknowledged_by} <= {*counted(copy)}


class Mirrored:
    """The server of a mirror's life, called plainly."""

    def __init__(self) -> None:
        self.node, self.synced = FakeNode("mirror/0"), 0
        self.it = Mirror(self.node, job("mirror"), lambda: Momentum(1.0), self.on_synced)

    def on_synced(self) -> None:
        self.synced += 1

    def ask(self, request: Request[Any], life: int = 1, name: str = "shard/0") -> Any:
        return self.it.handle(request, Sender(name, life)).reply

    def install(self, shard: Shard, life: int = 1) -> list[Any]:
        manifest, vectors = shard.snapshot()
        return [self.ask(Install(manifest, name, vector), life) for name, vector in vectors.items()]


def test_a_mirror_has_a_snapshot_once_all_of_it_is_there() -> None:
    world = Mirrored()
    assert [type(reply) for reply in world.install(reference(3))] == [Behind, Accepted]
    assert world.synced == 1
    assert world.it.status().synced
    assert world.it.shard is not None
    assert same(world.it.shard, reference(3))


def test_a_copy_is_taken_once_in_its_turn_and_costs_what_an_update_costs() -> None:
    world, shard = Mirrored(), reference(3)
    world.install(shard)
    fourth = Copy(Entry(4, REPLICA, push(4)))
    assert world.it.handle(fourth, Sender("shard/0", 1)).cost == Cost(0.0, Momentum.traffic * BYTES)
    assert isinstance(world.ask(fourth), Accepted)
    assert isinstance(world.ask(Copy(Entry(6, REPLICA, push(6)))), Behind)
    assert world.it.shard is not None
    assert same(world.it.shard, reference(4))


def test_a_mirror_divides_by_the_same_staleness_as_its_shard() -> None:
    world = Mirrored()
    world.it = Mirror(world.node, job("mirror"), lambda: Momentum(1.0, staleness_aware=True), world.on_synced)
    shard = Shard(FakeNode(), job("none"), initial(), Momentum(1.0, staleness_aware=True))
    world.install(shard)
    for sequence in range(1, 9):  # each of them staler than the one before
        shard.handle(push(sequence), REPLICA)
        assert isinstance(world.ask(Copy(Entry(sequence, REPLICA, push(sequence)))), Accepted)
    assert world.it.shard is not None
    assert same(world.it.shard, shard)
    assert not same(shard, reference(8))


def test_a_mirror_that_holds_nothing_says_so() -> None:
    assert isinstance(Mirrored().ask(Copy(Entry(1, REPLICA, push(1)))), Behind)


def test_what_is_installed_is_the_mirror_s_own() -> None:
    world, shard = Mirrored(), reference(3)
    manifest, vectors = shard.snapshot()
    for name, vector in vectors.items():
        world.ask(Install(manifest, name, vector))
        vector.fill_(99.0)
    assert world.it.shard is not None
    assert same(world.it.shard, reference(3))


def test_parts_of_an_earlier_snapshot_that_come_late_undo_nothing() -> None:
    """Half of a snapshot is here when a late part of an earlier one arrives; the other half must still make it whole."""
    world, earlier, later = Mirrored(), reference(3), reference(5)
    old, (manifest, vectors) = earlier.snapshot(), later.snapshot()
    (first, one), (second, other) = vectors.items()
    assert isinstance(world.ask(Install(manifest, first, one)), Behind)
    assert isinstance(world.ask(Install(old[0], first, old[1][first])), Behind)
    assert isinstance(world.ask(Install(manifest, second, other)), Accepted)
    for name, vector in old[1].items():
        assert isinstance(world.ask(Install(old[0], name, vector)), Accepted)
    assert world.it.shard is not None
    assert same(world.it.shard, reference(5))


def test_a_mirror_serves_its_own_shard_alone_and_no_life_before_the_one_it_is_the_copy_of() -> None:
    world = Mirrored()
    world.install(reference(3), life=2)
    for life, name in ((1, "shard/0"), (2, "shard/1"), (2, "replica/0")):
        assert isinstance(world.ask(Copy(Entry(4, REPLICA, push(4))), life, name), Refusal)
    assert isinstance(world.ask(Copy(Entry(4, REPLICA, push(4))), 3), Behind)
    world.install(reference(1), life=3)
    assert world.it.shard is not None
    assert same(world.it.shard, reference(1))
