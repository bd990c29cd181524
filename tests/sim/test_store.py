"""Storage in virtual time: exact times, nothing half-way, one life at a time; and against a list and a dictionary."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.messages import Entry, Finish, Push, Sender
from core.node import Fenced, Kept
from core.vector import Phantom
from sim.device import Machine
from sim.loop import Life, SimLoop
from sim.store import Disk, DiskStore

SENDER = Sender("replica/0", 1)


class Bench:
    """A disk of 8 bytes a second, and lives of one role that use it."""

    def __init__(self, payload_scale: float = 1.0) -> None:
        self.loop, self.disk = SimLoop(), Disk()
        self.machine = Machine("machine/0", 1.0, 1.0, 8.0)
        self.payload_scale = payload_scale
        self.ended: list[tuple[str, float, Any]] = []

    def life(self, number: int) -> tuple[Life, DiskStore]:
        life = Life("shard/0", number, self.loop)
        return life, DiskStore(life, self.disk, self.machine, self.payload_scale)

    def at(self, time_s: float, life: Life, name: str, operation: Callable[[], Any]) -> None:
        """Begin an operation then, in that life; what it ends with, and when, is noted."""

        def ended(future: Any) -> None:
            self.ended.append((name, self.loop.time(), future.exception() or future.result()))

        self.loop.call_at(time_s, lambda: operation().add_done_callback(ended), context=life.context)

    def run(self) -> list[tuple[str, float]]:
        self.loop.run()
        return [(name, time_s) for name, time_s, _ in self.ended]

    def result(self, name: str) -> Any:
        (result,) = [result for ended, _, result in self.ended if ended == name]
        return result


def push(number: int, *values: float) -> Entry:
    return Entry(number, SENDER, Push(number, torch.tensor(values, dtype=torch.float64), 1, 1, 0))


def numbers(kept: Kept) -> list[int]:
    return [entry.number for entry in kept.entries]


def test_it_takes_the_time_its_bytes_take_and_one_operation_follows_another() -> None:
    bench = Bench(payload_scale=2.0)
    life, store = bench.life(1)
    bench.at(1.0, life, "append", lambda: store.append([push(1, 0.5), push(2, 0.5, 0.5), Entry(3, SENDER, Finish("done"))]))
    bench.at(1.0, life, "write", lambda: store.write({"position": 2}, {"parameters": torch.zeros(4)}))
    bench.at(1.5, life, "read", store.read)
    assert bench.run() == [("append", 7.0), ("write", 11.0), ("read", 15.0)]
    assert numbers(bench.result("read")) == [3]


def test_phantoms_have_a_size_here_too() -> None:
    bench = Bench()
    life, store = bench.life(1)
    entry = Entry(1, SENDER, Push(1, Phantom(4), 1, 1, 0))
    bench.at(0.0, life, "append", lambda: store.append([entry]))
    bench.at(0.0, life, "write", lambda: store.write({"position": 0}, {"parameters": Phantom(8)}))
    bench.at(0.0, life, "read", store.read)
    assert bench.run() == [("append", 2.0), ("write", 6.0), ("read", 12.0)]
    kept = bench.result("read")
    assert kept.vectors["parameters"].nbytes == 32
    assert [entry.change.gradient.nbytes for entry in kept.entries] == [16]


@pytest.mark.parametrize(("crash_s", "survives"), [(0.5, False), (1.5, True)])
def test_a_crash_loses_what_was_under_way_and_nothing_else(crash_s: float, *, survives: bool) -> None:
    bench = Bench()
    first, store = bench.life(1)
    bench.at(0.0, first, "append", lambda: store.append([push(1, 0.5)]))
    bench.at(0.0, first, "write", lambda: store.write({"position": 1}, {"parameters": torch.zeros(1)}))
    bench.loop.call_at(crash_s, first.crash)
    second, later = bench.life(2)
    bench.at(9.0, second, "read", later.read)
    assert bench.run() == ([("append", 1.0), ("read", 10.0)] if survives else [("read", 9.0)])
    assert numbers(bench.result("read")) == ([1] if survives else [])
    assert bench.result("read").manifest is None


def test_a_life_that_is_over_writes_nothing_and_hears_nothing() -> None:
    bench = Bench()
    life, store = bench.life(1)
    life.crash()
    future = store.append([push(1, 0.5)])
    bench.loop.run()
    assert not future.done()
    assert (bench.disk.life, bench.disk.entries) == (0, [])


def test_what_a_paused_life_began_becomes_durable_and_it_hears_of_it_when_it_is_resumed() -> None:
    bench = Bench()
    first, store = bench.life(1)
    bench.at(0.0, first, "append", lambda: store.append([push(1, 0.5)]))
    bench.loop.call_at(0.5, first.pause)
    second, later = bench.life(2)
    bench.at(2.0, second, "read", later.read)
    bench.loop.call_at(20.0, first.resume)
    assert bench.run() == [("read", 3.0), ("append", 20.0)]
    assert numbers(bench.result("read")) == [1]
    assert bench.result("append") is None


def test_the_first_use_by_a_later_life_fences_what_is_under_way() -> None:
    bench = Bench()
    first, store = bench.life(1)
    second, later = bench.life(2)
    bench.at(0.0, first, "append", lambda: store.append([push(1, 0.5, 0.5)]))
    bench.at(0.0, first, "write", lambda: store.write({"position": 1}, {}))
    bench.at(1.0, second, "read", later.read)
    bench.at(5.0, first, "late read", store.read)
    bench.at(6.0, second, "again", later.read)
    assert bench.run() == [("read", 1.0), ("append", 2.0), ("write", 2.0), ("late read", 5.0), ("again", 6.0)]
    for name in ("append", "write", "late read"):
        assert isinstance(bench.result(name), Fenced)
    assert numbers(bench.result("read")) == numbers(bench.result("again")) == []


def test_what_is_kept_and_what_is_read_are_copies() -> None:
    bench = Bench()
    life, store = bench.life(1)
    parameters, entry, manifest = torch.zeros(1), push(2, 0.0), {"position": 1, "last": [0]}
    bench.at(0.0, life, "append", lambda: store.append([entry]))
    bench.at(0.0, life, "write", lambda: store.write(manifest, {"parameters": parameters}))
    bench.loop.call_at(0.0, manifest["last"].append, 7)
    bench.run()
    parameters.fill_(7)
    entry.change.gradient.fill_(7)
    for name in ("once", "twice"):
        bench.at(0.0, life, name, store.read)
        bench.run()
        kept = bench.result(name)
        (gradient,) = [entry.change.gradient for entry in kept.entries]
        assert kept.manifest == {"position": 1, "last": [0]}
        assert kept.vectors["parameters"].tolist() == gradient.tolist() == [0]
        for mine in (kept.vectors["parameters"], gradient):
            mine.fill_(7)
        kept.manifest["last"].append(7)


def test_whoever_is_cancelled_disturbs_nobody() -> None:
    bench = Bench()
    life, store = bench.life(1)
    bench.loop.call_at(0.0, lambda: store.append([push(1, 0.5)]).cancel(), context=life.context)
    bench.at(0.0, life, "append", lambda: store.append([push(2, 0.5)]))
    assert bench.run() == [("append", 2.0)]


OPERATIONS = st.lists(st.one_of(st.integers(1, 3), st.sampled_from(["write", "new life", "crash"])), max_size=12)


@given(OPERATIONS)
def test_it_keeps_what_a_list_and_a_dictionary_keep(operations: list[int | str]) -> None:
    bench = Bench()
    number, now_s, snapshot = 1, 0.0, 0
    life, store = bench.life(number)
    applied: list[int] = []
    for operation in operations:
        now_s += 100
        following = len(applied) + 1
        if operation == "write":
            snapshot = len(applied)
            bench.at(now_s, life, "write", partial(store.write, {"position": snapshot}, {}))
        elif isinstance(operation, int):
            batch = [push(following + index, 1.0) for index in range(operation)]
            applied += [entry.number for entry in batch]
            bench.at(now_s, life, "append", partial(store.append, batch))
        else:
            if operation == "crash":  # in the middle of one more append
                bench.at(now_s, life, "lost", partial(store.append, [push(following, 1.0)]))
                bench.loop.call_at(now_s + 0.5, life.crash)
            number += 1
            life, store = bench.life(number)
    bench.at(now_s + 100, life, "read", store.read)
    bench.run()
    kept = bench.result("read")
    assert (kept.manifest or {"position": 0})["position"] == snapshot
    assert numbers(kept) == applied[snapshot:]
    assert all(not isinstance(result, Exception) for _, _, result in bench.ended)
    assert "lost" not in [name for name, _, _ in bench.ended]
