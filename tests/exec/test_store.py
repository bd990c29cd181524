"""What a store said is durable is there, whole, whoever was killed, held up or out of space; and damage is never read as data."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from core.messages import Entry, Finish, Push, Sender
from core.node import Fenced, Kept, StoreFailed
from exec import snapshots
from exec.codec import Payload
from exec.segments import SECTOR
from exec.store import FileStore, last_life, peek
from exec.tensors import collect
from exec.transport import CHUNK
from tests.exec.store_victim import CALLS, Keeper, entry, state_of

R = TypeVar("R")
SENDER = Sender("replica/3", 2)


def ask(work: Callable[[], Awaitable[R]]) -> R:
    """Do it in an event loop of its own."""

    async def once() -> R:
        return await work()

    return asyncio.run(once())


def entries(kept: Kept) -> list[Entry]:
    return list(kept.entries)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


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


# lives that do not know that they are over


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
            assert call > 3
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


# damage


def two_appends(folder: Path) -> Path:
    """A log of three entries, of which the last two came together; its path."""
    store = FileStore(folder, 1)
    ask(lambda: store.append([Entry(1, SENDER, Finish("enough"))]))
    pushes = [Entry(n, SENDER, Push(n, torch.full((20,), n + 0.1), 1, 1, 0)) for n in (2, 3)]
    ask(lambda: store.append(pushes))
    store.close()
    return folder / "log.1.1"


def test_any_byte_of_the_log_that_is_not_as_it_was_is_noticed(tmp_path: Path) -> None:
    path = two_appends(tmp_path)
    data = path.read_bytes()
    for index in range(len(data)):
        path.write_bytes(data[:index] + bytes([data[index] ^ 0x10]) + data[index + 1 :])
        with pytest.raises(StoreFailed, match=rf"{path} is corrupted: no sound record at byte \d+"):
            entries(peek(tmp_path))


def test_a_log_that_ends_anywhere_has_the_entries_that_are_whole(tmp_path: Path) -> None:
    path = two_appends(tmp_path)
    data = path.read_bytes()
    ends = [*[index for index in range(1, len(data)) if data[index:].startswith(b"odb1")], len(data)]
    for size in range(len(data)):
        path.write_bytes(data[:size])
        assert len(entries(peek(tmp_path))) == sum(end <= size for end in ends)


def test_zeros_that_the_disk_never_replaced_end_the_log(tmp_path: Path) -> None:
    """A machine that loses power can leave a file longer than what of it was written."""
    store = FileStore(tmp_path, 1)
    ask(lambda: store.append([Entry(1, SENDER, Push(1, torch.ones(1000), 1, 1, 0))]))
    path = tmp_path / "log.1.1"
    begin = path.stat().st_size
    ask(lambda: store.append([Entry(n, SENDER, Push(n, torch.ones(1000), 1, 1, 0)) for n in (2, 3)]))
    data = path.read_bytes()
    for hole in range(begin // SECTOR + 1, len(data) // SECTOR):
        start = hole * SECTOR
        path.write_bytes(data[:start] + bytes(SECTOR) + data[start + SECTOR :])
        assert [found.number for found in entries(peek(tmp_path))] in ([1], [1, 2])
    path.write_bytes(data[:begin] + bytes(len(data) - begin))
    assert [found.number for found in entries(peek(tmp_path))] == [1]
    path.write_bytes(bytes(SECTOR) + data[SECTOR:])  # but what was synced had been there
    with pytest.raises(StoreFailed, match="byte 0"):
        entries(peek(tmp_path))
    path.write_bytes(data[:SECTOR] + bytes(SECTOR) + data[2 * SECTOR :])
    with pytest.raises(StoreFailed, match="byte 0"):
        entries(peek(tmp_path))


def test_a_segment_that_is_missing_is_noticed(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, 1)
    for life in (1, 2, 3):
        keeper = Keeper(tmp_path, life)
        ask(keeper.read)
        ask(lambda keeper=keeper: keeper.append(2))
    (tmp_path / "log.2.3").unlink()
    with pytest.raises(StoreFailed, match=rf"{tmp_path}/log\.3\.5: entry 5 follows 2; what is between them is missing"):
        entries(peek(tmp_path))


def test_what_a_snapshot_holds_need_not_be_readable_in_the_log(tmp_path: Path) -> None:
    """A life that is killed when its snapshot is there leaves such a log."""
    keeper = Keeper(tmp_path, 1)
    ask(lambda: keeper.append(2))
    data = (tmp_path / "log.1.1").read_bytes()
    ask(keeper.write)
    ask(lambda: keeper.append(2))
    (tmp_path / "log.1.1").write_bytes(b"x" + data)
    assert state_of(peek(tmp_path)) == keeper.state


def test_any_byte_of_a_snapshot_that_is_not_as_it_was_is_noticed(tmp_path: Path) -> None:
    store = FileStore(tmp_path, 1)
    ask(lambda: store.write({"position": 0, "rate": 0.5}, {"parameters": torch.randn(7), "squares": torch.randn(3)}))
    for path in (tmp_path / "snapshot.1.1" / name for name in ("manifest.json", "vectors.safetensors")):
        data = path.read_bytes()
        for index in range(len(data)):
            for damaged in (data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :], data[:index]):
                path.write_bytes(damaged)
                with pytest.raises(StoreFailed, match=rf"{path} is corrupted"):
                    peek(tmp_path)
        path.unlink()
        with pytest.raises(StoreFailed, match=rf"{path} is missing"):
            ask(FileStore(tmp_path, 1).read)
        path.write_bytes(data)
    assert peek(tmp_path).manifest == {"position": 0, "rate": 0.5}


# no space, no permission


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)  # a test that failed may have a file open


@pytest.fixture
def small_files(tmp_path: Path) -> Iterator[Path]:
    """No file may become larger than 1 MiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    yield tmp_path
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", ["small_disk", "small_files"])
def test_a_full_disk_is_said_and_does_no_harm_once_there_is_room(request: pytest.FixtureRequest, room: str) -> None:
    folder = request.getfixturevalue(room) / "store"
    large = Push(1, torch.ones(1 << 18), 1, 1, 0)  # 1 MiB
    store = FileStore(folder, 1)
    why = "No space left on device" if room == "small_disk" else "File too large"

    def append(number: int, mark: int) -> None:
        ask(lambda: store.append([entry(number, mark)]))

    for number in (1, 2, 3, 4):
        sizes = {path: path.stat().st_size for path in folder.glob("log.*")}
        for _ in range(2):  # in the segment there is, and in one of its own
            with pytest.raises(StoreFailed, match=rf"{folder}/log\.1\.\d: {why}"):
                ask(lambda number=number: store.append([entry(number, 0), Entry(number + 1, SENDER, large)]))
            assert {path: path.stat().st_size for path in folder.glob("log.*")} == sizes, "it takes no space either"
        append(number, number)
        if number % 2:
            continue
        with pytest.raises(StoreFailed, match=rf"{folder}/partial.*/vectors\.safetensors: {why}"):
            ask(lambda number=number: store.write({"position": number}, {"state": large.gradient}))
        assert not list(folder.glob("partial*"))
        assert state_of(peek(folder)) == list(range(1, number + 1))
    ask(lambda: store.write({"position": 4}, {"state": torch.tensor([1.0, 2.0, 3.0, 4.0])}))
    append(5, 5)
    store.close()
    assert state_of(ask(FileStore(folder, 2).read)) == [1, 2, 3, 4, 5]


def test_what_a_failed_append_left_behind_counts_less_than_what_came_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fails to sync, and even to forget what it has."""
    store = FileStore(tmp_path, 1)
    ask(lambda: store.append([entry(1, 1)]))

    def broken(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patches:
        for name in ("fsync", "ftruncate"):
            patches.setattr(os, name, broken)
        with pytest.raises(StoreFailed, match=rf"{tmp_path}/log\.1\.1: Input/output error"):
            ask(lambda: store.append([entry(2, 7), entry(3, 7)]))
    assert state_of(peek(tmp_path)) == [1, 7, 7]  # which may be: nobody was told that they are not there
    ask(lambda: store.append([entry(2, 2)]))
    assert state_of(peek(tmp_path)) == [1, 2]


def test_a_snapshot_that_failed_and_could_not_be_cleared_away_is_in_nobodys_way(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, 1)
    ask(keeper.read)
    (tmp_path / "partial.1.1").mkdir()
    (tmp_path / "partial.1.1" / "vectors.safetensors").write_bytes(b"half of it")
    ask(keeper.write)
    assert names(tmp_path) == ["life.1", "snapshot.1.1", "snapshot.1.1/manifest.json", "snapshot.1.1/vectors.safetensors"]


def test_a_folder_that_cannot_be_written_is_named(small_disk: Path) -> None:
    ask(Keeper(small_disk, 1).write)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StoreFailed, match=rf"{small_disk}/life\.2: Read-only file system"):
        ask(Keeper(small_disk, 2).read)
    assert state_of(peek(small_disk)) == []


def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("no folder")
    for attempt in (Keeper(tmp_path / "store", 1), Keeper(tmp_path / "store" / "shard-0", 1)):
        with pytest.raises(StoreFailed, match=rf"{tmp_path}/store"):
            ask(attempt.write)
    with pytest.raises(StoreFailed, match=rf"{tmp_path}/store: Not a directory"):
        last_life(tmp_path / "store")
    with pytest.raises(StoreFailed, match=rf"{tmp_path}/store: Not a directory"):
        peek(tmp_path / "store")
