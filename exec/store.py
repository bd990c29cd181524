"""A role's durable storage in a folder: a snapshot that is whole or not there, and a log of entries after it.

    life                    the life that may write
    snapshot.<n>.json       manifest: what the snapshot is of, and of each of its files the size and checksum
    snapshot.<n>.safetensors
    log.<life>.<number>     entries from that number on, written by that life (`exec/segments.py`)

**Fencing.**  A life first writes its number down, durably.  An earlier one that still writes looks at that file after its
own data is synced and before it reports success.  If it finds its own number, its data was there before the later life
began to read; if not, it reports failure, and nobody was told anything.

**Snapshots.**  The manifest's rename is the moment at which a snapshot exists.
"""

from __future__ import annotations

import asyncio
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from core.messages import Entry
from core.node import Fenced, Kept, StoreFailed
from exec.segments import Segment, segments

R = TypeVar("R")


def last_life(folder: Path) -> int:
    """The last life that has opened the store there; 0 if none has."""
    try:
        return int((folder / "life").read_text())
    except FileNotFoundError:
        return 0
    except (OSError, ValueError) as error:
        raise StoreFailed(f"{folder / 'life'} cannot be read: {error}") from error


class FileStore:
    """`core.node.Store` in a folder, for one life of a role.  Its work is done in a thread of its own."""

    def __init__(self, folder: Path, life: int) -> None:
        self.folder, self.life = folder, life
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._open = False
        self._segment: Segment | None = None
        self._next_segment = True

    def read(self) -> asyncio.Future[Kept]:
        return self._do(self._read)

    def write(self, manifest: dict[str, Any], vectors: dict[str, Any]) -> asyncio.Future[None]:
        self._next_segment = True  # entries from here on are not in the snapshot: so older segments can go with it
        return self._do(lambda: self._write(manifest, vectors))

    def append(self, entries: Sequence[Entry]) -> asyncio.Future[None]:
        anew, self._next_segment = self._next_segment, False
        return self._do(lambda: self._append(entries, anew=anew))

    def close(self) -> None:
        """Wait for what is under way."""
        self._thread.shutdown()
        if self._segment is not None:
            self._segment.close()

    # in the store's own thread

    def _do(self, work: Callable[[], R]) -> asyncio.Future[R]:
        def carefully() -> R:
            try:
                self._begin()
                return work()
            except OSError as error:
                raise StoreFailed(f"{error.filename or self.folder}: {error.strerror or error}") from error

        return asyncio.get_running_loop().run_in_executor(self._thread, carefully)

    def _begin(self) -> None:
        if self._open:
            return
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (later := last_life(self.folder)) > self.life:
            raise Fenced(f"{self.folder} belongs to life {later} by now; this is {self.life}")
        write_whole(self.folder / "life", [str(self.life).encode()])
        for torn in self.folder.glob(".*.partial"):
            torn.unlink()
        self._open = True

    def _still_ours(self) -> None:
        if (later := last_life(self.folder)) != self.life:
            raise Fenced(f"{self.folder} belongs to life {later} by now; this is {self.life}")

    def _write(self, manifest: dict[str, Any], vectors: dict[str, Any]) -> None:
        number = max((number_of(path) for path in self.folder.glob("snapshot.*.json")), default=0) + 1
        files = {}
        if vectors:
            path = self.folder / f"snapshot.{number}.safetensors"
            parts = list(safetensors_parts(vectors))
            write_whole(path, parts)
            files[path.name] = [sum(len(part) for part in parts), checksum(parts)]
        self._still_ours()
        commit = self.folder / f"snapshot.{number}.json"
        write_whole(commit, [json.dumps({"manifest": manifest, "files": files}).encode()])
        self._still_ours()
        for path in self.folder.glob("snapshot.*"):
            if number_of(path) < number:
                path.unlink()
        for path in segments(self.folder):
            if self._segment is None or path != self._segment.path:
                if last_of(path, self.folder) <= manifest["position"]:
                    path.unlink()

    def _append(self, entries: Sequence[Entry], *, anew: bool) -> None:
        if anew or self._segment is None:
            if self._segment is not None:
                self._segment.close()
            self._segment = Segment.begin(self.folder, self.life, entries[0].number)
        try:
            self._segment.append(entries)
        except OSError:
            self._segment.close()
            self._segment = None
            raise
        self._still_ours()

    def _read(self) -> Kept:
        manifests = sorted(self.folder.glob("snapshot.*.json"), key=number_of)
        if not manifests:
            return Kept(None, {}, self._entries(0))
        path = manifests[-1]
        try:
            found = json.loads(path.read_bytes())
            manifest, files = found["manifest"], found["files"]
        except (ValueError, KeyError) as error:
            raise StoreFailed(f"{path} is corrupted: {error}") from error
        vectors: dict[str, Any] = {}
        for name, (size, expected) in files.items():
            vectors |= read_vectors(self.folder / name, size, expected)
        return Kept(manifest, vectors, self._entries(manifest["position"]))

    def _entries(self, position: int) -> Iterator[Entry]:
        """What was appended after that number.  Where lives overlap, the later one began with what it had read."""
        runs: list[tuple[int, int, Path]] = sorted((life, first, path) for path in segments(self.folder) for life, first in [named(path)])
        for index, (life, _, path) in enumerate(runs):
            stop = min((first for later, first, _ in runs[index + 1 :] if later > life), default=None)
            for entry in Segment.read(path):
                if entry.number <= position:
                    continue
                if stop is not None and entry.number >= stop:
                    break
                if entry.number != position + 1:
                    raise StoreFailed(f"{path}: entry {entry.number} follows {position}; what is between them is missing")
                position = entry.number
                yield entry


def named(path: Path) -> tuple[int, int]:
    """Life and first number of a segment."""
    _, life, first = path.name.split(".")
    return int(life), int(first)


def last_of(path: Path, folder: Path) -> int:
    """The last number a segment can hold that anybody would read: the one before the next segment."""
    life, first = named(path)
    following = [number for other in segments(folder) for other_life, number in [named(other)] if (other_life, number) > (life, first)]
    return min(following) - 1 if following else 1 << 62


def number_of(path: Path) -> int:
    return int(path.name.split(".")[1])


def write_whole(path: Path, parts: Sequence[Any]) -> None:
    """A file that is there whole, synced, or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        for part in parts:
            write_all(fd, memoryview(part))
        os.fsync(fd)
    finally:
        os.close(fd)
    partial.replace(path)
    sync_folder(path.parent)


def write_all(fd: int, memory: memoryview) -> None:
    while memory:
        memory = memory[os.write(fd, memory) :]


def sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def safetensors_parts(vectors: dict[str, Any]) -> Iterator[memoryview]:
    """The file that safetensors would write of these one-dimensional tensors, without a copy of them.

    safetensors' own writer holds the interpreter for the whole of it, and the shard goes on serving meanwhile.
    """
    from exec.tensors import SAFETENSORS, raw

    header, at = {}, 0
    for name, vector in vectors.items():
        header[name] = {"dtype": SAFETENSORS[vector.dtype], "shape": [len(vector)], "data_offsets": [at, at + vector.nbytes]}
        at += vector.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield memoryview(len(text).to_bytes(8, "little") + text)
    for vector in vectors.values():
        yield raw(vector)


def checksum(parts: Sequence[Any]) -> int:
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    return crc


def read_vectors(path: Path, size: int, expected: int) -> dict[str, Any]:
    """Of a safetensors file, checked first.  Raises StoreFailed."""
    from safetensors.torch import load

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise StoreFailed(f"{path} is missing") from None
    if len(data) != size:
        raise StoreFailed(f"{path} is corrupted: it has {len(data)} bytes, and had {size}")
    if zlib.crc32(data) != expected:
        raise StoreFailed(f"{path} is corrupted: its checksum is not that of what was written")
    return dict(load(data))
