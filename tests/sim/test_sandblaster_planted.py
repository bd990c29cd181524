"""Sandblaster's failure tests can fail: each bug planted here is caught within a stated number of drawn schedules.

As in `tests/sim/test_planted_bugs.py`, the schedules up to the one that caught it are then played on the right code.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from core.coordination import Gather, Operate
from core.coordinator import Batches
from core.lbfgs import State
from core.messages import Sender
from core.node import Outcome
from core.portions import BundleId, Portions
from core.staging import StagingShard
from sim.strategies import Tables
from tests.sim.courses import Course, small, undisturbed

pytestmark = pytest.mark.timeout(600)

Plant = Callable[[pytest.MonkeyPatch], None]


def gather_what_is_there(patch: pytest.MonkeyPatch) -> None:
    """Each shard adds up whatever is staged with it: shards commit different covers, and portions twice."""
    gather = StagingShard.gather
    patch.setattr(StagingShard, "gather", lambda self, asked: gather(self, Gather(asked.into, tuple(self.staged), asked.scale)))


def count_a_bundle_beside_its_singles(patch: pytest.MonkeyPatch) -> None:
    """A bundle that came after backups of its portions had is counted with them."""

    def cover(self: Portions) -> tuple[BundleId, ...]:
        return tuple(self._staged)

    patch.setattr(Portions, "cover", cover)


def forget_what_was_staged(patch: pytest.MonkeyPatch) -> None:
    """A shard that has lost a bundle takes it for nothing, and says nothing."""
    operate = StagingShard.operate

    def silent(self: StagingShard, asked: Operate, sender: Sender) -> Outcome:
        for bundle in asked.gather.bundles if asked.gather else ():
            self.staged.setdefault(bundle, self.parameters.new_zeros(len(self.parameters)))
        return operate(self, asked, sender)

    patch.setattr(StagingShard, "operate", silent)


def trust_the_first_memory(patch: pytest.MonkeyPatch) -> None:
    """A coordinator's next life takes one shard's word for all: those that did not take the last step never do."""

    async def take_over(self: Batches) -> State:
        memories = await self.shards.recall()
        memos = [json.loads(memory.memo or '{"serial": 0}') for memory in memories.values()]
        last = max(memos, key=lambda memo: memo["serial"])
        self.serial = last["serial"]
        state = State(**last["state"]) if self.serial else State()
        self.desk.iteration = state.iteration
        return state

    patch.setattr(Batches, "take_over", take_over)


def wrong(drawn: Tables) -> list[str]:
    """With a log also: is the course another than that of an undisturbed run?"""
    course = Course(drawn)
    found = course.complaints()
    if drawn["protocol"]["durability"] == "log" and not found and not course.follows(undisturbed(drawn)):
        found.append("another course than undisturbed")
    return found


def half_a_step() -> Tables:
    """The coordinator dies when one shard has taken its first step, and the other has not heard of it."""
    patient = {"durability": "log", "detect_within": "2 s"}
    healthy = small(**patient)
    told_s = next(record.time_s for record in Course(healthy).of("pushed") if record.node == "coordinator")
    loss = {"kind": "loss", "target": "shard/1", "at": f"{told_s * 1e6 - 10:.0f} us", "for": "250 ms", "probability": 1.0}
    crash = {"kind": "crash", "target": "coordinator", "at": f"{told_s * 1e6 + 1e5:.0f} us", "repair": "200 ms"}
    return small(loss, crash, **patient)


def a_bundle_too_late_for_the_snapshot() -> Tables:
    """A shard dies when it has acknowledged the last bundle of a batch, and its last snapshot has the others."""
    told = {"durability": "snapshot", "snapshot_every": "20 ms"}
    last = [record for record in Course(small(**told)).of("arrived") if record.time_s < covered_s(small(**told))][-1]
    return small({"kind": "crash", "target": "shard/1", "at": f"{last.time_s * 1e6 + 10:.0f} us", "repair": "100 ms"}, **told)


def covered_s(healthy: Tables) -> float:
    """When the second batch is complete."""
    return Course(healthy).of("covered")[1].time_s


@pytest.mark.parametrize(
    ("plant", "made"), [(forget_what_was_staged, a_bundle_too_late_for_the_snapshot), (trust_the_first_memory, half_a_step)]
)
def test_a_planted_bug_is_caught_by_a_schedule_made_for_it(plant: Plant, made: Callable[[], Tables]) -> None:
    drawn = made() | {"give_up_after": "30 s"}
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        assert wrong(drawn) != []
    assert wrong(drawn) == []
