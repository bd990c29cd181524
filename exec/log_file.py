"""A store's log: entries in segment files, each append synced once.

    log.<life>.<number>       a segment: the entries that this life appended, from that number on

A segment is a row of records, and a record is one entry: a prefix of fixed size with a checksum of its own, a header in
JSON, the gradient as it lies in memory, and a checksum of header and gradient.  So that the log can be shortened, a life
begins a new segment after each snapshot; segments whose entries are all in a durable snapshot are removed.

A number may stand in two segments: an append failed and was repeated, or a life that did not know yet that its successor
had begun wrote one entry more, which nobody was told about.  What counts is the later segment, from its beginning on.

A crash may leave the end of a segment torn, and never anything before it, since an append begins when the one before it
is synced.  Torn means: shorter than it should be (a killed process), or with stretches of zeros that the disk has not
reached (a machine that lost power).  Nobody was told that it is durable, so it is dropped.  Anything else is corruption.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from io import FileIO
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from core.messages import Entry, Finish, Push, Sender
from core.node import StoreFailed
from exec.disk import Named, create, listing, naming, sync, write_all
from exec.memory import DTYPES, empty, pieces

PREFIX = struct.Struct("<4sIQQI")
"""Mark, bytes of the header, bytes of the gradient, bytes of the same append that follow this record; checksum of these."""
MARK = b"odb1"
CHECKSUM = struct.Struct("<I")

SECTOR = 512
"""Bytes that a disk writes whole or not at all; many write more."""


class Log:
    """The writing end, for one life of a role.  Everything here raises OSError."""

    def __init__(self, folder: Path, life: int) -> None:
        self.folder, self.life = folder, life
        self.path = folder
        self.descriptor: int | None = None
        self.size = 0
        """Of the segment, up to the end of the last append that succeeded."""
        self.last = 0
        """Number of the last entry of this life that is durable."""

    def append(self, entries: Sequence[Entry]) -> None:
        """Write the entries and sync them together."""
        numbers = [entry.number for entry in entries]
        assert numbers == list(range(self.last + 1 if self.last else numbers[0], numbers[0] + len(numbers))), f"{numbers} after {self.last}"
        records = [record(entry) for entry in entries]
        sizes = [sum(map(len, buffers)) + PREFIX.size for buffers in records]
        new = self.descriptor is None
        descriptor = self.begin(numbers[0]) if self.descriptor is None else self.descriptor
        with naming(self.path):
            try:
                write_all(descriptor, with_prefixes(records, sizes))
                os.fsync(descriptor)
                if new:
                    sync(self.folder)
            except OSError:
                self.abandon(descriptor)
                raise
        self.size += sum(sizes)
        self.last = numbers[-1]

    def begin(self, number: int) -> int:
        """Begin a segment with that number."""
        self.path, self.size = self.folder / f"log.{self.life}.{number}", 0
        self.descriptor = create(self.path)
        return self.descriptor

    def abandon(self, descriptor: int) -> None:
        """An append failed: cut off what there is of it, and begin another segment with the next one.

        Where even that fails, a torn end remains, or one that the next segment overrules.
        """
        self.descriptor = None
        try:
            os.ftruncate(descriptor, self.size)
            if not self.size:
                self.path.unlink()  # its name is needed when the append is repeated
        except OSError:
            pass
        finally:
            os.close(descriptor)

    def rotate(self) -> None:
        """The next append begins a segment."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def compact(self, position: int) -> None:
        """A snapshot of this life is durable: remove the segments of which it holds every entry, and all of earlier lives."""
        segments = listing(self.folder, "log")
        own = [segment for segment in segments if segment.life == self.life]
        ends = [segment.number for segment in own[1:]] + [self.last + 1 if self.last else math.inf]
        covered = [segment for segment, end in zip(own, ends, strict=False) if end <= position + 1]
        for segment in covered + [segment for segment in segments if segment.life < self.life]:
            segment.path.unlink(missing_ok=True)


def record(entry: Entry) -> list[Any]:
    """Header, gradient and checksum of a record, as buffers."""
    header, gradient = encode(entry)
    buffers: list[Any] = [header, *gradient]
    return [*buffers, CHECKSUM.pack(checksum(buffers))]


def checksum(buffers: Iterable[Any]) -> int:
    total = 0
    for buffer in buffers:
        total = crc32(buffer, total)  # 1.7 GB/s here, without the interpreter's lock; blake2b does 0.3
    return total


def with_prefixes(records: Sequence[list[Any]], sizes: Sequence[int]) -> Iterator[Any]:
    """The buffers of an append, in order."""
    total = sum(sizes)
    for buffers, size, end in zip(records, sizes, accumulate(sizes), strict=True):
        header_bytes = len(buffers[0])
        gradient_bytes = size - PREFIX.size - header_bytes - CHECKSUM.size
        prefix = PREFIX.pack(MARK, header_bytes, gradient_bytes, total - end, 0)[: -CHECKSUM.size]
        yield prefix + CHECKSUM.pack(crc32(prefix))
        yield from buffers


def encode(entry: Entry) -> tuple[bytes, list[Any]]:
    """An entry's header, and its gradient's memory."""
    header: dict[str, Any] = {"number": entry.number, "sender": entry.sender.name, "incarnation": entry.sender.incarnation}
    gradient: list[Any] = []
    match entry.change:
        case Push(sequence, vector, gradients, samples, based_on):
            push = {"sequence": sequence, "gradients": gradients, "samples": samples, "based_on": based_on}
            header["push"] = push | {"dtype": str(vector.dtype).removeprefix("torch.")}
            gradient = pieces(vector)
        case Finish(reason):
            header["finish"] = reason
    return json.dumps(header).encode(), gradient


def decode(header: bytes, vector: Any) -> Entry:
    meaning = json.loads(header)
    sender = Sender(meaning["sender"], meaning["incarnation"])
    if "finish" in meaning:
        return Entry(meaning["number"], sender, Finish(meaning["finish"]))
    push = meaning["push"]
    return Entry(meaning["number"], sender, Push(push["sequence"], vector, push["gradients"], push["samples"], push["based_on"]))


def entries_after(segments: Sequence[Named], position: int) -> Iterator[Entry]:
    """The entries of these segments, which are in order, from `position + 1` on.  Raises StoreFailed."""
    expected = position + 1
    for index, segment in enumerate(segments):
        limit = min((later.number for later in segments[index + 1 :]), default=math.inf)
        if limit <= expected:
            continue
        for entry in read_segment(segment.path):
            if entry.number >= limit:
                break
            if entry.number > expected:
                raise StoreFailed(f"{segment.path}: entry {entry.number} where {expected} should follow")
            if entry.number == expected:
                expected += 1
                yield entry


class Extent(NamedTuple):
    """Where a record lies in its file, in bytes from the beginning; and where the append ends that it belongs to."""

    header: int
    gradient: int
    checksum: int
    end: int
    append_end: int


def read_segment(path: Path) -> Iterator[Entry]:
    """Its entries, but for a torn end.  Raises StoreFailed."""
    try:
        file = FileIO(path)
    except FileNotFoundError:
        return  # removed since it was listed: a snapshot that was there by then holds its entries
    with file:
        size = os.fstat(file.fileno()).st_size
        offset = append_end = 0
        while offset < size:
            extent = extent_at(file, offset)
            if extent is not None:
                append_end = extent.append_end
            entry = read_record(file, extent) if extent is not None and extent.end <= size else None
            if extent is None or entry is None:
                if is_torn(file, offset, size, append_end, extent):
                    return
                raise StoreFailed(f"{path}: the record at byte {offset} is corrupted")
            yield entry
            offset = extent.end


def extent_at(file: FileIO, offset: int) -> Extent | None:
    """Where the parts of the record at `offset` lie; None if no sound prefix is there."""
    prefix = os.pread(file.fileno(), PREFIX.size, offset)
    if len(prefix) < PREFIX.size:
        return None
    mark, header_bytes, gradient_bytes, rest, own = PREFIX.unpack(prefix)
    if mark != MARK or own != crc32(prefix[: -CHECKSUM.size]):
        return None
    header = offset + PREFIX.size
    gradient = header + header_bytes
    return Extent(header, gradient, gradient + gradient_bytes, gradient + gradient_bytes + CHECKSUM.size, rest)


def read_record(file: FileIO, extent: Extent) -> Entry | None:
    """The entry that lies there, if its checksum is right."""
