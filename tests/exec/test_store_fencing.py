"""Lives that do not know that they are over, held up anywhere: they harm nobody, and are told nothing that is not so."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from core.node import Fenced, StoreFailed
from exec import snapshots
from exec.store import peek
from tests.exec.store_victim import CALLS, Keeper, ask, names, state_of


class HeldUp:
    """A life that stops before its n-th call of the operating system until it is told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, keeper: Keeper, call: int) -> None:
        self.keeper, self.left = keeper, call
        self.there, self.on = threading.Event(), threading.Event()
        self.failure: BaseException | None = None
        self.stopped = False
        for name in (*CALLS, "listdir"):
            monkeypatch.setattr(os, name, self.wrapped(name, getattr(os, name)))

    def wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if threading.current_thread() in self.keeper.store._thread._threads:
                self.left -= 1
                if self.left == -1:
                    self.stopped = True
                    self.there.set()
                    assert self.on.wait(60)
            return None if name == "fsync" else real(*arguments, **options)  # nobody is killed here, so nothing need be synced

        return call

    def begin(self, work: Callable[[], Awaitable[None]]) -> None:
        def act() -> None:
            try:
                ask(work)
            except StoreFailed as failure:
                self.failure = failure
            self.there.set()

        self.thread = threading.Thread(target=act)
        self.thread.start()
        assert self.there.wait(60)

    def end(self) -> None:
        self.on.set()
        self.thread.join(60)


async def promise_less(keeper: Keeper) -> None:
    """A snapshot of changes that no log has: whoever made them was promised nothing."""
    keeper.state += [keeper.life * 1000 + len(keeper.state) + index for index in range(2)]
    await keeper.write()


WORK: dict[str, Callable[[Keeper], Awaitable[None]]] = {
    "append": lambda keeper: keeper.append(2),
    "write": lambda keeper: keeper.write(),
    "write what no log has": promise_less,
}


GOES_ON = "goes on"
"""There the life that was held up goes on."""
SUCCESSORS = [
    [GOES_ON], ["append", GOES_ON], ["write", GOES_ON], [GOES_ON, "append"], [GOES_ON, "write"], ["append", GOES_ON, "write"],
    ["write", GOES_ON, "append"], ["append", "write", GOES_ON], ["append", "write", GOES_ON, "append"],
]  # fmt: skip


@pytest.mark.parametrize("after_a_write", [False, True])
@pytest.mark.parametrize("successor", SUCCESSORS, ids=" ".join)
@pytest.mark.parametrize("work", WORK)
def test_wherever_a_life_is_held_up_its_successor_overrules_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: str, successor: list[str], *, after_a_write: bool
) -> None:
    """Either it is acknowledged and the later life has it, or it is fenced and the later life never sees it come."""
    for call in count():
        folder = tmp_path / str(call)
        with monkeypatch.context() as patches:
            first, second, third = (Keeper(folder, life) for life in (1, 2, 3))
            held = HeldUp(patches, first, 1 << 30)
            ask(lambda first=first: first.append(3))
            if after_a_write:
                ask(first.write)
            before, held.left = list(first.state), call
            held.begin(lambda first=first: WORK[work](first))
            ask(second.read)
            found = list(second.state)
            for step in successor:
                if step == GOES_ON:
                    held.end()
                else:
                    ask(lambda second=second, step=step: WORK[step](second))
            ask(third.read)
            for keeper in (first, second, third):
                keeper.store.close()
        assert before == found[:3]
        assert found == first.state[: len(found)]
        if held.failure is None:
            assert found == first.state, "it was acknowledged"
        else:
            assert isinstance(held.failure, Fenced)
        if successor == [GOES_ON]:
            assert third.state in (found, first.state), "nobody was told that it never would be there"
        else:
            assert third.state == second.state
        if not held.stopped:
            assert held.failure is None
            assert call > 2
            return


def test_two_lives_may_be_held_up_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The later one while it opens the store and clears away what the earlier one has begun, which goes on first."""
    for call in count():
        stops = []
        for later_call in count():
            folder = tmp_path / f"{call} {later_call}"
            with monkeypatch.context() as patches:
                first, second, third = (Keeper(folder, life) for life in (1, 2, 3))
                ask(lambda first=first: first.append(3))
                before = list(first.state)
                held, held_later = HeldUp(patches, first, call), HeldUp(patches, second, later_call)
                held.begin(lambda first=first: promise_less(first))
                held_later.begin(second.read)
                held.end()
                held_later.end()
                ask(third.read)
                for keeper in (first, second, third):
                    keeper.store.close()
            assert held_later.failure is None
            assert second.state in ([first.state] if held.failure is None else [before, first.state])
            assert third.state in (before, first.state)
            stops.append(held.stopped)
            if not held_later.stopped:
                break
        if not any(stops):
            assert call > 10
            return


def test_a_life_leaves_the_snapshots_of_later_ones_alone_and_its_own_last_one_too(tmp_path: Path) -> None:
    """A later one may not count, because a still later life overrules it: then the one before is all there is."""
    for life, number in ((1, 1), (1, 2), (2, 1), (2, 2)):
        (tmp_path / f"snapshot.{life}.{number}").mkdir()
    snapshots.discard_older(tmp_path, 1)
    assert names(tmp_path) == ["snapshot.1.2", "snapshot.2.1", "snapshot.2.2"]


def test_a_life_that_comes_too_late_is_fenced_at_once(tmp_path: Path) -> None:
    later = Keeper(tmp_path, 3)
    ask(later.read)
    for work in (lambda k: k.read(), lambda k: k.write(), lambda k: k.append(1)):
        with pytest.raises(Fenced, match=rf"{tmp_path} belongs to life 3 by now; this is 2"):
            ask(lambda work=work: work(Keeper(tmp_path, 2)))
    ask(lambda: later.append(1))
    ask(later.write)
    assert state_of(peek(tmp_path)) == later.state


def test_to_peek_fences_nobody(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, 1)
    ask(lambda: keeper.append(1))
    assert state_of(peek(tmp_path)) == keeper.state
    ask(lambda: keeper.append(1))
