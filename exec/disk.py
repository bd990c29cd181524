"""What it takes for bytes to be on a disk: files of mode 0600, folders of mode 0700, nothing durable before it is synced.

A store's files and folders are named `kind.life.number`: the life of the role that made them, and what that life counts.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

NAME = re.compile(r"([a-z]+)\.([0-9]+)\.([0-9]+)")

BUFFERS_AT_ONCE = 1024
"""Linux's IOV_MAX: what one writev takes."""


class Named(NamedTuple):
    """One file or folder of a store; sorts by life, then by number."""

    life: int
    number: int
    path: Path


def listing(folder: Path, kind: str) -> list[Named]:
    """Everything of that kind in the folder, in order of life and number."""
    matches = (NAME.fullmatch(name) for name in os.listdir(folder))  # noqa: PTH208  names are all that is wanted
    return sorted(Named(int(match[2]), int(match[3]), folder / match[0]) for match in matches if match and match[1] == kind)


def make_folder(path: Path) -> None:
    """Make the folder and those above it that are missing, durably."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        sync(path.parent)


def create(path: Path) -> int:
    """A new file to be appended to; its descriptor."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)


def sync(path: Path) -> None:
    """What was written to a file is durable then; of a folder: which names it holds."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with naming(path):
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_all(descriptor: int, buffers: Iterable[Any]) -> None:
    """Write buffers of bytes one after another, without joining them."""
    left = deque(memoryview(buffer) for buffer in buffers if len(buffer))
    while left:
        written = os.writev(descriptor, list(islice(left, BUFFERS_AT_ONCE)))
        while left and written >= len(left[0]):
            written -= len(left.popleft())
        if written:
            left[0] = left[0][written:]


def discard(path: Path) -> None:
    """Remove a folder; whatever comes in between, what is still there of it does not bear its name."""
    trash = path.with_name(f"trash.{path.name}")
    with naming(path):
        try:
            path.rename(trash)
        except FileNotFoundError:
            return
    shutil.rmtree(trash, ignore_errors=True)


def clear_trash(folder: Path) -> None:
    """Remove what somebody died over discarding."""
    for trash in folder.glob("trash.*"):
        shutil.rmtree(trash, ignore_errors=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError of a descriptor does not know its file: it is this one."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
