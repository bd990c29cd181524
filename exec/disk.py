"""What it takes for bytes to be on a disk: files of mode 0600, folders of mode 0700, nothing durable before it is synced.

A store's files and folders are named `kind.life.number`: the life of the role that made them, and what that life counts.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

NAME = re.compile(r"([a-z]+)\.([0-9]+)(?:\.([0-9]+))?")

BUFFERS_AT_ONCE = 1024
"""Linux's IOV_MAX: what one writev takes."""

WORTH_A_THREAD = 1 << 20
"""Bytes whose checksum takes longer than it takes to begin a thread: 0.6 ms against 0.1."""


class Named(NamedTuple):
    """One file or folder of a store; sorts by life, then by number."""

    life: int
    number: int
    path: Path


def listing(folder: Path, kind: str) -> list[Named]:
    """Everything of that kind in the folder, in order of life and number.  Raises OSError."""
    matches = [NAME.fullmatch(path.name) for path in folder.iterdir()]
    return sorted(Named(int(match[2]), int(match[3] or 0), folder / match[0]) for match in matches if match and match[1] == kind)


def make_folder(path: Path) -> None:
    """Make the folder and those above it that are missing, durably."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        sync(path.parent)


def create(path: Path) -> int:
    """A new file to be appended to; its descriptor."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)


def write_file(path: Path, buffers: Sequence[Any]) -> int:
    """A new file with that content, synced; its name is durable once its folder is.  Returns the content's checksum."""
    descriptor = create(path)
    with naming(path):
        try:
            total = write_checked(descriptor, buffers)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return total


def write_checked(descriptor: int, buffers: Sequence[Any]) -> int:
    """Write buffers and return their checksum, which a second thread computes meanwhile if that is worth one."""
    if sum(map(len, buffers)) < WORTH_A_THREAD:
        write_all(descriptor, buffers)
        return checksum(buffers)
    with ThreadPoolExecutor(1, thread_name_prefix="checksum") as beside:
        total = beside.submit(checksum, buffers)
        write_all(descriptor, buffers)
    return total.result()


def write_all(descriptor: int, buffers: Iterable[Any]) -> None:
    """Write buffers of bytes one after another, without joining them."""
    left = deque(memoryview(buffer) for buffer in buffers if len(buffer))
    while left:
        written = os.writev(descriptor, list(islice(left, BUFFERS_AT_ONCE)))
        while left and written >= len(left[0]):
            written -= len(left.popleft())
        if written:
            left[0] = left[0][written:]


def read_into(file: FileIO, buffer: Any) -> int:
    """Fill a buffer from where the file stands; returns how many bytes there were."""
    left = memoryview(buffer)
    while left and (count := file.readinto(left)):
        left = left[count:]
    return len(buffer) - len(left)


def sync(folder: Path) -> None:
    """Which names the folder holds is durable then."""
    descriptor = os.open(folder, os.O_RDONLY)
    with naming(folder):
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def checksum(buffers: Iterable[Any]) -> int:
    """CRC-32 of buffers of bytes in a row: 1.7 GB/s here, without the interpreter's lock; blake2b does 0.3."""
    total = 0
    for buffer in buffers:
        total = crc32(buffer, total)
    return total


def discard(path: Path) -> None:
    """Remove a folder if it is there.  By its name it is there whole or not at all, whenever somebody looks."""
    trash = path.with_name(f"trash.{path.name}")
    with suppress(FileNotFoundError):
        path.rename(trash)
    shutil.rmtree(trash, ignore_errors=True)


def clear_trash(folder: Path) -> None:
    """Remove what somebody died over discarding."""
    for trash in folder.glob("trash.*"):
        shutil.rmtree(trash, ignore_errors=True)


def remove(files: Sequence[Named]) -> None:
    for file in files:
        file.path.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError of a descriptor does not know its file: it is this one."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
