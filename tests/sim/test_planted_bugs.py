"""The failure tests can fail: bugs, a few lines long each, that are planted into the running code; `planted.py` hunts them.

The table in `docs/TESTING.md` says what catches which, and after how many runs.
"""

from __future__ import annotations

import contextvars
import json
from collections.abc import Callable
from typing import Any

import pytest

from core.durability import Mirroring, Trail
from core.lane import Flight, Lane
from core.membership import Membership
from core.messages import Accepted, CallFailed, Entry, Finished, Parameters, Push, Sender
from core.node import Outcome
from core.pushes import Admission, Pushes
from core.shard import Shard
from core.supervisor import Supervisor
from sim.device import Device
from sim.loop import Future, Life
from sim.store import DiskStore
from sim.strategies import Tables, scenario
from tests.sim.schedules import slow_ledger, slow_service
from tests.sim.trials import trial, wrong

pytestmark = pytest.mark.timeout(600)  # each plays up to some hundred schedules, and again on the right code

Plant = Callable[[pytest.MonkeyPatch], None]


def forget_the_duplicate_check(patch: pytest.MonkeyPatch) -> None:
    """A push whose reply was lost is applied again."""
    judge = Pushes.judge

    def forgetful(self: Pushes, sender: Sender, sequence: int) -> Admission:
        admission = judge(self, sender, sequence)
        return Admission.NEW if admission is Admission.REPEATED else admission

    patch.setattr(Pushes, "judge", forgetful)


def forget_the_incarnation(patch: pytest.MonkeyPatch) -> None:
    """The ledger compares sequences alone: a restarted replica's first pushes look like repetitions, and are eaten."""

    def judge(self: Pushes, sender: Sender, sequence: int) -> Admission:
        last = self.last.get(sender.name, (0, 0))[1]
        return Admission.NEW if sequence > last else Admission.REPEATED

    patch.setattr(Pushes, "judge", judge)
    patch.setattr(Pushes, "join", lambda _self, _sender: True)


def take_silence_for_success(patch: pytest.MonkeyPatch) -> None:
    """A push that was not answered is not repeated, and counts as accepted."""
    landed = Flight.landed

    def hopeful(self: Flight[Any]) -> Any:
        if isinstance(self.request, Push) and self.future.done() and not self.pausing and isinstance(self.future.exception(), CallFailed):
            return Accepted(0)
        return landed(self)

    patch.setattr(Flight, "landed", hopeful)


def drop_a_retry(patch: pytest.MonkeyPatch) -> None:
    """A push that was not answered is given up, and the next one goes out instead."""
    settle = Lane.settle

    def resigned(self: Lane) -> None:
        flight = self._pushing
        if flight is not None and flight.future.done() and not flight.pausing and isinstance(flight.future.exception(), CallFailed):
            self._pushing = None
        settle(self)

    patch.setattr(Lane, "settle", resigned)


def never_retry(patch: pytest.MonkeyPatch) -> None:
    """A call that failed is waited for in all eternity."""
    landed = Flight.landed

    def patient(self: Flight[Any]) -> Any:
        if self.future.done() and isinstance(self.future.exception(), CallFailed):
            self.future = self.node.loop.create_future()  # type: ignore[attr-defined]
        return landed(self)

    patch.setattr(Flight, "landed", patient)


def acknowledge_before_applying(patch: pytest.MonkeyPatch) -> None:
    """A push is answered at once and applied with the next one: a crash between loses what was acknowledged."""
    push = Shard.push
    waiting: dict[int, tuple[Push, Sender]] = {}

    def hasty(self: Shard, request: Push, sender: Sender) -> Outcome:
        before = waiting.get(id(self))
        waiting[id(self)] = request, sender
        outcome = push(self, *before) if before is not None else None
        return outcome if outcome is not None and isinstance(outcome.reply, Finished) else Outcome(Accepted(self.updates))

    patch.setattr(Shard, "push", hasty)


def publish_the_live_buffer(patch: pytest.MonkeyPatch) -> None:
    """A fetch is answered with the parameters themselves, which go on changing while they travel."""

    def fetch(self: Shard, _room: Any = None) -> Outcome:
        return Outcome(Parameters(self.parameters, self.progress()), self._cost_of_copy)

    patch.setattr(Shard, "fetch", fetch)


def keep_the_live_buffer(patch: pytest.MonkeyPatch) -> None:
    """A snapshot holds the parameters themselves, which go on changing after its moment."""
    snapshot = Shard.snapshot

    def shallow(self: Shard) -> tuple[dict[str, Any], dict[str, Any]]:
        manifest, vectors = snapshot(self)
        return manifest, vectors | {"parameters": self.parameters}

    patch.setattr(Shard, "snapshot", shallow)


def forget_the_ledger(patch: pytest.MonkeyPatch) -> None:
    """A snapshot holds the parameters, but not which pushes they are made of."""
    snapshot = Shard.snapshot

    def careless(self: Shard) -> tuple[dict[str, Any], dict[str, Any]]:
        manifest, vectors = snapshot(self)
        return manifest | {"last": {}}, vectors

    patch.setattr(Shard, "snapshot", careless)


def let_the_dead_act(patch: pytest.MonkeyPatch) -> None:
    """A crashed replica goes on computing and sending; only its journal is closed."""
    crash = Life.crash

    def undead(self: Life) -> None:
        if not self.name.startswith("replica"):
            crash(self)

    def start(self: Life, coroutine: Any) -> None:
        """Its end is seen, though the agent that began it is as dead as it should be."""
        self.loop.create_task(coroutine, context=self.context.copy()).add_done_callback(self._exit, context=contextvars.Context())

    patch.setattr(Life, "crash", undead)
    patch.setattr(Life, "start", start)
    patch.setattr(Device, "stop", lambda _: None)


def call_it_durable_at_once(patch: pytest.MonkeyPatch) -> None:
    """A snapshot serves a restart before it is written; the journal tells the truth."""
    write = DiskStore.write

    def early(self: DiskStore, manifest: dict[str, Any], vectors: dict[str, Any]) -> Future:
        if vectors and self.life.up:
            self.disk.keep(json.dumps(manifest), manifest["position"], vectors)
        return write(self, manifest, vectors)

    patch.setattr(DiskStore, "write", early)


def acknowledge_at_once(patch: pytest.MonkeyPatch) -> None:
    """A push is acknowledged before the mirror has it, or the log."""
    add = Trail.add

    def hasty(self: Trail, entry: Entry) -> None:
        add(self, entry)

    patch.setattr(Trail, "add", hasty)
    patch.setattr(Trail, "settled", lambda _self: None)


def repeat_without_counting(patch: pytest.MonkeyPatch) -> None:
    """What is read from the log goes into the parameters, but not into the ledger of pushes."""

    def replay(self: Shard, entry: Entry) -> None:
        last = dict(self.pushes.last)
        before(self, entry)
        self.pushes.last = last

    before = Shard.replay
    patch.setattr(Shard, "replay", replay)


def take_a_mirror_for_full(patch: pytest.MonkeyPatch) -> None:
    """A shard takes its mirror for one that holds everything as soon as it has heard of it."""

    async def install(self: Mirroring) -> None:
        while self._life == 0:
            await self._moved
        self._synced = self._life
        self.node.record("persisted", self.mirror, self.shard.updates, self._life)

    patch.setattr(Mirroring, "install", install)


def tell_before_it_is_written(patch: pytest.MonkeyPatch) -> None:
    """The supervisor's answers do not wait for its ledger: what a life of it granted, the next one does not know."""
    saved = Supervisor.saved

    def unsaved(self: Supervisor) -> None:
        saved(self)

    patch.setattr(Supervisor, "saved", unsaved)


def forget_who_is_who(patch: pytest.MonkeyPatch) -> None:
    """A later life of the supervisor begins with an empty ledger."""
    patch.setattr(Membership, "restore", lambda _self, _kept: None)


def let_the_outlived_push(patch: pytest.MonkeyPatch) -> None:
    """A shard takes pushes of a life whose successor it has been told of."""
    judge = Pushes.judge

    def generous(self: Pushes, sender: Sender, sequence: int) -> Admission:
        admission = judge(self, sender, sequence)
        return Admission.NEW if admission is Admission.STALE and self.outlived(sender) else admission

    patch.setattr(Pushes, "judge", generous)


@pytest.mark.parametrize(
    ("plant", "made", "sign"),
    [
        (forget_the_ledger, slow_service(), "counted once"),
        (tell_before_it_is_written, slow_ledger(), "lives are granted once"),
    ],
    ids=["forget_the_ledger", "tell_before_it_is_written"],
)
def test_a_bug_that_needs_one_moment_is_caught_by_a_schedule_made_for_it(plant: Plant, made: Tables, sign: str) -> None:
    """Such as a crash between a push being durable and its reply: drawn schedules find it once in about 500."""
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        assert sign in wrong(trial(scenario(made)))[0]
    assert wrong(trial(scenario(made))) == []
