"""What goes into a store comes out again; and what it said is durable is there, whole, whenever its process is killed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from core.messages import Entry, Finish, Push, Sender
from exec.codec import Payload
from exec.store import FileStore, last_life, peek
from exec.tensors import collect
from exec.transport import CHUNK
from tests.exec.store_victim import Keeper, ask, entries, entry, names, state_of

SENDER = Sender("replica/3", 2)


# what goes in comes out


def test_an_empty_store_has_neither_snapshot_nor_entries(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "a" / "b", 3)
    kept = ask(store.read)
    assert (kept.manifest, kept.vectors, entries(kept)) == (None, {}, [])
    assert (last_life(tmp_path / "a" / "b"), last_life(tmp_path / "never")) == (3, 0)
    assert peek(tmp_path / "never").manifest is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("length", [0, 1, 2 * CHUNK // 4 + 77])
def test_entries_come_back_bit_for_bit_also_as_they_came_over_the_wire(tmp_path: Path, dtype: torch.dtype, length: int) -> None:
    gradient = torch.randn(length).to(dtype)
    memory = gradient.view(torch.uint8).numpy().tobytes()
    chunks = (memory[start : start + CHUNK] for start in range(0, len(memory), CHUNK))
    pieces = collect(chunks, Payload(str(dtype).removeprefix("torch."), len(memory)))
    store = FileStore(tmp_path, 1)
    ask(lambda: store.append([Entry(n, SENDER, Push(7, vector, 2, 64, 5)) for n, vector in ((1, gradient), (2, pieces))]))
    ask(lambda: store.append([Entry(3, SENDER, Finish("enough"))]))
    first, second, third = entries(ask(store.read))
    for found in (first, second):
        push = found.change
        assert (found.sender.label, push.sequence, push.gradients, push.samples, push.based_on) == ("replica/3#2", 7, 2, 64, 5)
        assert torch.equal(push.gradient, gradient)
        push.gradient.add_(1)  # it is the reader's own
    assert (third.number, third.change.reason) == (3, "enough")


def test_a_snapshot_comes_back_bit_for_bit_and_is_a_safetensors_file(tmp_path: Path) -> None:
    whole = torch.randn(1000)
    vectors = {
        "odd": torch.ones(3, dtype=torch.bfloat16), "parameters": whole[100:900], "shares its memory": whole[:200],
        "none": torch.zeros(0), "squares": torch.randn(5, dtype=torch.float64),
    }  # fmt: skip
    manifest = {"position": 0, "last": {"replica/0": [1, 2]}, "rate": 0.1, "text": "ä\n", "none": None, "huge": 1e400}
    store = FileStore(tmp_path, 1)
    ask(lambda: store.write(manifest, vectors))
    kept = ask(store.read)
    assert kept.manifest == manifest
    assert kept.vectors.keys() == vectors.keys()
    for found in (kept.vectors, load_file(tmp_path / "snapshot.1.1" / "vectors.safetensors")):
        assert all(torch.equal(found[name], vector) and found[name].dtype == vector.dtype for name, vector in vectors.items())
    for vector in kept.vectors.values():
        vector.add_(1)  # it is the reader's own
    assert torch.equal(ask(store.read).vectors["odd"], vectors["odd"])


def test_a_manifest_is_taken_as_it_is_when_it_is_handed_over(tmp_path: Path) -> None:
    store, manifest = FileStore(tmp_path, 1), {"position": 0, "roles": ["shard/0"]}

    async def write() -> None:
        written = store.write(manifest, {})
        manifest["roles"].append("shard/1")
        await written

    ask(write)
    assert ask(store.read).manifest == {"position": 0, "roles": ["shard/0"]}


def test_whoever_keeps_no_vectors_does_not_import_torch(tmp_path: Path) -> None:
    code = f"""
import asyncio, pathlib, sys
from core.messages import Entry, Finish, Sender
from exec.store import FileStore
async def main():
    store = FileStore(pathlib.Path({str(tmp_path)!r}), 1)
    await store.write({{"position": 0}}, {{}})
    await store.append([Entry(1, Sender("supervisor", 1), Finish("done"))])
    assert [entry.number for entry in (await store.read()).entries] == [1]
    assert not {{"torch", "grpc", "safetensors"}} & set(sys.modules), sorted(sys.modules)
asyncio.run(main())
"""
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0


def test_nobody_else_may_look(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "store", 1)
    before = os.umask(0)
    try:
        ask(keeper.write)
        ask(lambda: keeper.append(2))
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "store").rglob("*") if path.is_file()}
    folders = [tmp_path / "store", *(path for path in (tmp_path / "store").rglob("*") if path.is_dir())]
    assert (modes, {path.stat().st_mode & 0o777 for path in folders}) == ({0o600}, {0o700})


def test_what_a_snapshot_holds_is_removed(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, 1)
    for step in range(3):
        ask(lambda: keeper.append(2))
        ask(keeper.write)
        assert names(tmp_path) == [
            "life.1", f"snapshot.1.{step + 1}", f"snapshot.1.{step + 1}/manifest.json", f"snapshot.1.{step + 1}/vectors.safetensors",
        ]  # fmt: skip
    ask(lambda: keeper.append(1))
    later = Keeper(tmp_path, 5)
    ask(later.read)
    assert later.state == keeper.state
    ask(later.write)
    assert names(tmp_path) == ["life.5", "snapshot.5.1", "snapshot.5.1/manifest.json", "snapshot.5.1/vectors.safetensors"]


def test_entries_that_are_not_in_a_snapshot_outlive_it(tmp_path: Path) -> None:
    """It was begun before they came, or by somebody who counts otherwise."""
    store = FileStore(tmp_path, 1)
    ask(lambda: store.append([entry(n, n) for n in (1, 2, 3)]))
    ask(lambda: store.write({"position": 2}, {"state": torch.tensor([1.0, 2.0])}))
    assert state_of(ask(store.read)) == [1, 2, 3]
    ask(lambda: store.append([entry(4, 4)]))
    ask(lambda: store.write({"position": 3}, {"state": torch.tensor([1.0, 2.0, 3.0])}))
    assert state_of(ask(store.read)) == [1, 2, 3, 4]
    assert "log.1.1" not in names(tmp_path)


def test_it_writes_on_where_the_system_writes_less_than_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And an append of more buffers than one call takes."""
    few = iter(n * 37 % 5000 + 1 for n in count())
    monkeypatch.setattr(
        os, "writev", lambda descriptor, buffers: os.write(descriptor, b"".join(bytes(part) for part in buffers)[: next(few)])
    )
    keeper = Keeper(tmp_path, 1)
    ask(lambda: keeper.append(3))
    ask(keeper.write)
    monkeypatch.undo()
    ask(lambda: keeper.append(600))
    assert state_of(peek(tmp_path)) == keeper.state


OPERATIONS = st.lists(st.one_of(st.integers(1, 3), st.sampled_from(["write", "new life", "read"])), max_size=15)


@settings(max_examples=60)
@given(OPERATIONS)
def test_it_keeps_what_a_list_keeps(operations: list[int | str]) -> None:
    """`Keeper` keeps the list."""

    async def follow(folder: Path) -> None:
        keeper = Keeper(folder, 1)
        for operation in operations:
            if isinstance(operation, int):
                await keeper.append(operation)
            elif operation == "write":
                await keeper.write()
            elif operation == "read":
                assert state_of(await keeper.store.read()) == keeper.state
            else:
                left, keeper = keeper, Keeper(folder, keeper.life + 2)
                await keeper.read()
                assert keeper.state == left.state
                left.store.close()
        assert state_of(await keeper.store.read()) == state_of(peek(folder)) == keeper.state
        keeper.store.close()

    with TemporaryDirectory() as folder:
        asyncio.run(follow(Path(folder)))


# kill -9


def victims(trials: str, folder: Path) -> list[dict[str, Any]]:
    script = Path(__file__).with_name("store_victim.py")
    done = subprocess.run([sys.executable, "-P", script, trials, folder], capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert {trial["status"] for trial in found} <= {0, -9}, "a victim failed by itself"
    return found


def check(before: dict[str, Any], found: list[int]) -> None:
    """What was acknowledged is there, and nothing that was not tried."""
    tried = before.get("tries", before.get("read", []))
    acknowledged = before.get("acknowledged", before.get("read", []))
    assert found[: len(acknowledged)] == acknowledged
    assert found == tried[: len(found)]


def test_whenever_it_is_killed_all_that_was_acknowledged_is_there(tmp_path: Path) -> None:
    trials = victims("everywhere", tmp_path)
    assert len(trials) > 50
    for number, trial in enumerate(trials):
        folder = tmp_path / str(number)
        later = Keeper(folder, 2)
        ask(later.read)
        check(trial, later.state)
        assert not list(folder.glob("partial.*")), "what was not finished is removed"
        ask(lambda later=later: later.append(2))
        ask(later.write)
        assert state_of(peek(folder)) == later.state
        assert len(names(folder)) == 4, "and nothing stays that nobody needs"


def test_life_after_life_is_killed_and_the_next_goes_on(tmp_path: Path) -> None:
    trials = victims("life after life", tmp_path)
    before: dict[str, Any] = {}
    for trial in trials:
        if "read" in trial:
            check(before, trial["read"])
            before = trial
    check(before, state_of(peek(tmp_path)))
    assert len(before["read"]) > 100


class Discipline:
    """What has been changed and not been synced: a machine that loses power may lose it, and no test can take the power away."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: dict[int, Path] = {}
        self.unsynced: set[Path] = set()
        for name in ("open", "writev", "fsync", "mkdir", "rename"):
            monkeypatch.setattr(os, name, partial(getattr(self, name), getattr(os, name)))

    def open(self, real: Callable[..., int], path: Any, flags: int, *mode: Any, **options: Any) -> int:
        descriptor = real(path, flags, *mode, **options)
        self.paths[descriptor] = Path(path)
        if flags & os.O_CREAT:
            self.unsynced |= {Path(path), Path(path).parent}
        return descriptor

    def writev(self, real: Callable[..., int], descriptor: int, buffers: Any) -> int:
        self.unsynced.add(self.paths[descriptor])
        return real(descriptor, buffers)

    def fsync(self, real: Callable[..., None], descriptor: int) -> None:
        real(descriptor)
        self.unsynced.discard(self.paths[descriptor])

    def mkdir(self, real: Callable[..., None], path: Any, *mode: Any, **options: Any) -> None:
        real(path, *mode, **options)
        self.unsynced |= {Path(path).parent}

    def rename(self, real: Callable[..., None], path: Any, target: Any) -> None:
        if "trash" not in str(target):
            assert not [file for file in self.unsynced if Path(path) in (file, *file.parents)], "committed before it is synced"
            self.unsynced |= {Path(target).parent}
        real(path, target)


def test_nothing_is_acknowledged_or_committed_before_it_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    discipline = Discipline(monkeypatch)
    for life in (1, 2):
        keeper = Keeper(tmp_path / "a" / "b", life)
        for work in (keeper.read, keeper.write, lambda k=keeper: k.append(2), lambda k=keeper: k.append(1), keeper.write, keeper.write):
            ask(work)
            # A claim is empty: its name is all there is to sync.
            assert discipline.unsynced == {tmp_path / "a" / "b" / f"life.{known}" for known in range(1, life + 1)}
        keeper.store.close()
