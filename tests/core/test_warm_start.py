"""A shard of Sandblaster that is one of Downpour at first: what it takes when, and that whatever comes back of it is the same."""

from __future__ import annotations

import asyncio
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from core.coordination import Gather, Operate, Recall, Values
from core.job import Job, Sandblaster, Shared, Stop
from core.messages import Accepted, Entry, Fetch, Finished, Push, Refusal, Request, Sender
from core.operations import Combine
from core.portions import BundleId
from core.pushes import BUNDLES
from core.rules import Adam
from core.staging import POINT, StagingShard
from core.work import Cost
from tests.core.fakes import FakeNode

WIDTH = 3
REPLICA, OTHER, COORDINATOR = Sender("replica/0", 1), Sender("replica/1", 1), Sender("coordinator", 1)
A_POINT = 1 << 32


def job(*, updates: int | None = 2, samples: int | None = None) -> Job:
    warm = Stop(updates, samples)
    return Job((Shared("shard/0", slice(0, WIDTH)),), 2, sandblaster=Sandblaster(portions=1, bundle=1, copies=1, warm=warm))


def made(told: Job | None = None) -> StagingShard:
    return StagingShard(FakeNode(), told or job(), torch.zeros(WIDTH, dtype=torch.float64), Adam(1.0))


def push(sequence: int, value: float = 1.0) -> Push:
    return Push(sequence, torch.full((WIDTH,), value, dtype=torch.float64), 1, 8, 0)


def bundle(number: int, point: int = A_POINT) -> Push:
    return Push(BUNDLES + number, torch.full((WIDTH,), float(number), dtype=torch.float64), 1, 8, point)


def to_point(number: int = 1, after: int = 0) -> Operate:
    return Operate(number, after, (Combine(POINT, (("parameters", 1.0),)),), point=A_POINT)


def asked(shard: StagingShard, request: Request[Any], sender: Sender = REPLICA) -> Any:
    return shard.handle(request, sender).reply


def begun(shard: StagingShard) -> StagingShard:
    """A coordinator has set its first point."""
    asked(shard, Recall(), COORDINATOR)
    asked(shard, to_point(), COORDINATOR)
    return shard


def test_it_applies_the_updates_that_were_asked_for_and_no_more() -> None:
    shard = made()
    assert [type(asked(shard, push(number))) for number in (1, 2, 3)] == [Accepted, Accepted, Finished]
    assert (shard.updates, shard.samples, len(shard.staged)) == (2, 16, 0)
    assert asked(shard, push(2)).updates == 2  # a repetition is acknowledged, whatever has come meanwhile


def test_or_the_samples() -> None:
    shard = made(job(updates=None, samples=20))
    assert [type(asked(shard, push(number))) for number in (1, 2, 3, 4)] == [Accepted, Accepted, Accepted, Finished]


def test_that_it_is_warm_ends_the_job_for_nobody() -> None:
    shard = made()
    for number in (1, 2, 3):
        asked(shard, push(number))
    assert shard.warmed
    assert (asked(shard, Fetch()).progress.finished, shard.status().finished) == ("", "")


def test_a_coordinator_that_only_asks_what_is_known_ends_nothing() -> None:
    shard = made()
    asked(shard, Recall(), COORDINATOR)
    assert isinstance(asked(shard, push(1)), Accepted)


def test_whatever_it_then_has_done_ends_downpour_even_where_updates_are_lacking() -> None:
    shard = begun(made())
    assert isinstance(asked(shard, push(1)), Finished)
    assert shard.updates == 0
    assert shard.rule.state == {}


def test_a_replicas_bundles_are_no_repetitions_of_its_pushes() -> None:
    shard = made()
    asked(shard, push(1))
    begun(shard)
    assert isinstance(asked(shard, bundle(1)), Accepted)
    assert list(shard.staged) == [BundleId("replica/0", 1, BUNDLES + 1)]
    assert shard.updates == 1


def test_a_bundle_for_a_shard_that_has_lost_everything_is_no_update() -> None:
    shard = made()
    assert isinstance(asked(shard, bundle(1)), Finished)
    assert (shard.updates, shard.parameters.tolist()) == (0, [0.0] * WIDTH)


def test_a_late_push_of_downpour_is_told_so_where_no_more_bundles_may_be_staged() -> None:
    shard = begun(made())
    for number in range(1, shard.staged_limit + 1):
        assert isinstance(asked(shard, bundle(number), OTHER), Accepted)
    assert isinstance(asked(shard, bundle(99), OTHER), Refusal)
    assert isinstance(asked(shard, push(1)), Finished)


def test_updates_and_bundles_are_charged_for_what_they_are() -> None:
    shard, nbytes = made(), WIDTH * 8
    assert shard.handle(push(1), REPLICA).cost == Cost(0.0, 7 * nbytes)
    assert begun(shard).handle(bundle(1), REPLICA).cost == Cost(0.0, 2 * nbytes)


def test_the_journal_says_once_when_it_is_over() -> None:
    for shard, note in ((made(), "coordinator#1 has begun"), (made(job(updates=1)), "warm after 1 updates")):
        asked(shard, push(1))
        asked(begun(shard), push(2))
        node: Any = shard.node
        assert node.events("warmed") == [("warmed", "", 1, 8, note)]


# what comes back


class Kept:
    """A trail of entries that are durable at once."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def add(self, entry: Entry) -> asyncio.Future[None] | None:
        self.entries.append(entry)
        return None

    def settled(self) -> asyncio.Future[None] | None:
        return None


def state(shard: StagingShard) -> Any:
    """Everything that decides what it will answer."""
    manifest, vectors = shard.snapshot()
    manifest["last"].pop(COORDINATOR.name, None)  # a Recall is no entry: whoever was recalled in vain says Behind
    return manifest, {name: vector.tolist() for name, vector in vectors.items()}, shard.warmed, shard.cost_of_update


REQUESTS: dict[str, tuple[Sender, Any]] = {
    "push": (REPLICA, push), "other push": (OTHER, push), "bundle": (REPLICA, bundle), "other bundle": (OTHER, bundle),
}  # fmt: skip


@given(st.lists(st.sampled_from((*REQUESTS, "point", "step", "recall")), max_size=20), st.integers(0, 20), st.integers(1, 5))
def test_a_snapshot_and_the_entries_after_it_are_the_shard_as_it_was(what: list[str], at: int, limit: int) -> None:
    shard = made(job(updates=limit))
    shard.trail = trail = Kept()
    taken, number = shard.snapshot(), 0
    for place, one in enumerate(what, start=1):
        if place == at:
            taken = shard.snapshot()
        if one in REQUESTS:
            sender, request = REQUESTS[one]
            asked(shard, request(place), sender)
        elif one == "recall":
            asked(shard, Recall(), COORDINATOR)
        elif isinstance(asked(shard, step(shard, number) if one == "step" else to_point(number + 1, number), COORDINATOR), Values):
            number += 1
    back = StagingShard.restored(FakeNode(), job(updates=limit), Adam(1.0), *taken)
    for entry in trail.entries:
        if entry.number > back.position:
            back.replay(entry)
    assert state(back) == state(shard)


def step(shard: StagingShard, after: int) -> Operate:
    """Along the sum of whatever is staged."""
    along = (Combine("parameters", (("parameters", 1.0), ("gradient", -1.0))),)
    return Operate(after + 1, after, along, Gather("gradient", tuple(shard.staged), 0.5), step=1, memo=f"after {after}")


def test_a_life_that_begins_with_nothing_is_warm_again_until_it_is_told() -> None:
    shard = StagingShard.restored(FakeNode(), job(), Adam(1.0), *made().snapshot())
    assert isinstance(asked(shard, push(1)), Accepted)
    assert isinstance(asked(begun(shard), push(2)), Finished)
