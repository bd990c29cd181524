"""A store's log: entries in segment files, synced once for each append.

    log.<life>.<number>       a segment: the entries that this life appended, from that number on

A segment is a row of records, and a record is one entry: a prefix of fixed size with a checksum of its own, a header in
JSON, the gradient as it lies in memory, and a checksum of them all.  A life begins a new segment after each snapshot, so that
those whose entries are all in the snapshot can be removed.

A number may stand in two segments: an append failed and was repeated, or a life that did not know yet that a later one had
begun wrote one entry more, which nobody was told about.  What counts is the later segment, from its beginning on.

A crash may leave the end of a segment torn, and nothing before it, since an append begins when the one before it is synced.
Torn means shorter than it should be (the process was killed), or with stretches of zeros that the disk never reached (the
machine was).  Nobody was told that it is durable, so it is left out.  Anything else is corruption.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import FileIO
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from core.coordination import Operate
from core.messages import Entry, Finish, Push, Sender
from core.node import StoreFailed
from exec import documents
from exec.disk import Named, checksum, create, listing, naming, read_into, remove, sync, write_all, write_checked

MARK = b"odb1"
PREFIX = struct.Struct("<4sIQQI")
"""Mark, bytes of the header, bytes of the gradient, bytes of the same append behind this record, checksum of all these."""
CHECKSUM = struct.Struct("<I")

SECTOR = 512
"""Bytes that every disk writes whole or not at all."""


class Log:
    """The writing end, of one life.  Everything raises OSError."""

    def __init__(self, folder: Path, life: int) -> None:
        self.folder, self.life = folder, life
        self.path, self.descriptor = folder, -1
        """The segment that is being written; -1: none, the next append begins one."""
        self.size_bytes = 0
        """Of the segment, up to the end of the last append that succeeded."""
        self.last = 0
        """Number of the last entry that this life made durable."""

    def append(self, entries: Sequence[Entry]) -> None:
        """Write the entries, whose numbers follow each other, and sync them together."""
        first = entries[0].number
        assert [entry.number for entry in entries] == list(range(first, first + len(entries))), "entries in no order"
        assert first > self.last, f"entry {first} after {self.last}"
        records = with_prefixes([record(entry) for entry in entries])
        size_bytes = sum(sum(map(len, buffers)) + CHECKSUM.size for buffers in records)
        new = self.descriptor < 0
        if new:
            self.path, self.size_bytes = self.folder / f"log.{self.life}.{first}", 0
            self.descriptor = create(self.path)
        with naming(self.path):
            try:
                for buffers in records:
                    total = write_checked(self.descriptor, buffers)
                    write_all(self.descriptor, [CHECKSUM.pack(total)])
                os.fsync(self.descriptor)
                if new:
                    sync(self.folder)
            except OSError:
                self.abandon()
                raise
        self.size_bytes += size_bytes
        self.last = entries[-1].number

    def abandon(self) -> None:
        """An append failed: cut off what there is of it.  Where even that fails, the segment that comes next overrules it."""
        with suppress(OSError):
            os.ftruncate(self.descriptor, self.size_bytes)
        with suppress(OSError):
            if not self.size_bytes:
                self.path.unlink()  # for its name is needed when the append is repeated
        self.rotate()

    def rotate(self) -> None:
        """The next append begins a segment."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def compact(self, position: int) -> None:
        """A snapshot of this life is durable: remove segments that it has every entry of, and all those of earlier lives."""
        segments = listing(self.folder, "log")
        own = [segment for segment in segments if segment.life == self.life]
        ends = [segment.number for segment in own[1:]] + [self.last + 1 if self.last else math.inf]
        remove([segment for segment, end in zip(own, ends, strict=False) if end <= position + 1])
        remove([segment for segment in segments if segment.life < self.life])


def record(entry: Entry) -> list[Any]:
    """Header and gradient of a record, as buffers."""
    header: dict[str, Any] = {"number": entry.number, "sender": entry.sender.name, "life": entry.sender.incarnation}
    gradient: list[Any] = []
    push = entry.change
    if isinstance(push, Finish):
        header["finish"] = push.reason
    elif not isinstance(push, Push):
        kind, text = documents.encode(push)
        header[kind] = json.loads(text)
    else:
        from exec.tensors import parts_of

        header |= {"sequence": push.sequence, "gradients": push.gradients, "samples": push.samples, "based_on": push.based_on}
        header["dtype"], gradient = parts_of(push.gradient)
    return [json.dumps(header).encode(), *gradient]


def entry_of(header: bytearray, gradient: bytearray) -> Entry:
    """The meaning of a record; a gradient is a tensor in the buffer that is given."""
    told = json.loads(header)
    change: Push | Finish | Operate
    if "finish" in told:
        change = Finish(told["finish"])
    elif "operate" in told:
        change = documents.adapter("operate").validate_python(told["operate"])
    else:
        import torch

        dtype = getattr(torch, told["dtype"])
        vector = torch.frombuffer(gradient, dtype=dtype) if gradient else torch.empty(0, dtype=dtype)
        change = Push(told["sequence"], vector, told["gradients"], told["samples"], told["based_on"])
    return Entry(told["number"], Sender(told["sender"], told["life"]), change)


def with_prefixes(records: Sequence[list[Any]]) -> list[list[Any]]:
    """The records of one append, complete but for their checksums."""
    sizes = [sum(map(len, buffers)) + PREFIX.size + CHECKSUM.size for buffers in records]
    left = sum(sizes)
    complete = []
    for (header, *gradient), size in zip(records, sizes, strict=True):
        left -= size
        told = PREFIX.pack(MARK, len(header), sum(map(len, gradient)), left, 0)[: -CHECKSUM.size]
        complete.append([told + CHECKSUM.pack(crc32(told)), header, *gradient])
    return complete


def entries_after(segments: Sequence[Named], position: int) -> Iterator[Entry]:
    """The entries from `position + 1` on of these segments, which are in order.  Raises StoreFailed."""
    for index, segment in enumerate(segments):
        limit = min((later.number for later in segments[index + 1 :]), default=math.inf)
        if limit <= position + 1:
            continue
        for entry in read_segment(segment.path):
            if entry.number >= limit:
                break
            if entry.number > position + 1:
                raise StoreFailed(f"{segment.path}: entry {entry.number} follows {position}; what is between them is missing")
            if entry.number == position + 1:
                position += 1
                yield entry


class Extent(NamedTuple):
    """The parts of a record, in bytes from the beginning of its file, and where the append ends that it belongs to."""

    header: int
    gradient: int
    checksum: int
    end: int
    append_end: int


def read_segment(path: Path) -> Iterator[Entry]:
    """Its entries, without a torn end.  Raises StoreFailed."""
    try:
        file = FileIO(path)
    except FileNotFoundError:
        return  # removed since it was listed: its entries are in a snapshot
    except OSError as error:
        raise StoreFailed(f"{path}: {error.strerror}") from error
    with file:
        size, offset, append_end = os.fstat(file.fileno()).st_size, 0, 0
        while offset < size:
            extent = extent_at(file, offset)
            append_end = append_end if extent is None else extent.append_end
            entry = None if extent is None or extent.end > size else read_record(file, extent)
            if extent is None or entry is None:
                if is_torn(file, offset, size, append_end):
                    return
                raise StoreFailed(f"{path} is corrupted: no sound record at byte {offset}")
            yield entry
            offset = extent.end


def extent_at(file: FileIO, offset: int) -> Extent | None:
    """Where the record at `offset` lies; None if its prefix is not sound."""
    prefix = os.pread(file.fileno(), PREFIX.size, offset)
    if len(prefix) < PREFIX.size or CHECKSUM.pack(crc32(prefix[: -CHECKSUM.size])) != prefix[-CHECKSUM.size :]:
        return None
    _, header_bytes, gradient_bytes, behind, _ = PREFIX.unpack(prefix)
    header, gradient, checksum, end = accumulate((offset + PREFIX.size, header_bytes, gradient_bytes, CHECKSUM.size))
    return Extent(header, gradient, checksum, end, end + behind)


def read_record(file: FileIO, extent: Extent) -> Entry | None:
    """The entry that lies there; None if its checksum is not right."""
    sizes = PREFIX.size, extent.gradient - extent.header, extent.checksum - extent.gradient, CHECKSUM.size
    *parts, total = (bytearray(size) for size in sizes)
    file.seek(extent.header - PREFIX.size)
    for part in (*parts, total):
        read_into(file, part)
    return entry_of(*parts[1:]) if CHECKSUM.pack(checksum(parts)) == total else None


def is_torn(file: FileIO, offset: int, size: int, append_end: int) -> bool:
    """Is what is wrong at `offset` what a crash leaves of the last append?  Otherwise somebody may rely on what was there."""
    left = size - offset
    if left < PREFIX.size or append_end > size:
        return True
    if append_end <= offset:  # no telling where the append ends, which then begins with something that never was
        return not any(has_data(os.pread(file.fileno(), SECTOR, at)) for at in range(offset, size, SECTOR))
    aligned = range(offset // SECTOR * SECTOR, size, SECTOR)
    return append_end == size and not all(has_data(os.pread(file.fileno(), SECTOR, at)) for at in aligned)


def has_data(sector: bytes) -> bool:
    return sector.count(0) < len(sector)
