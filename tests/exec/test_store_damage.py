"""Damage is never read as data; and a disk that is full or cannot be written is named, and does no harm."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from core.messages import Entry, Finish, Push, Sender
from core.node import StoreFailed
from exec.segments import SECTOR
from exec.store import FileStore, last_life, peek
from tests.exec.store_victim import Keeper, ask, entries, entry, names, state_of

SENDER = Sender("replica/3", 2)


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
