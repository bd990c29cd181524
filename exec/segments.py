"""One file of a shard's log: records, each whole or not there.

A record is the length and the checksum of its header, the header (JSON), the checksum of its payload, and the payload, raw.
A crash in the middle of an append tears the last record, which was never acknowledged; it is left out in silence.  Anything
else that is not as it was written is an error.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from core.messages import Entry, Finish, Push, Sender
from core.node import StoreFailed

FRAME = struct.Struct("<4sIII")
"""Magic, length and checksum of the header, checksum of the payload."""
MAGIC = b"DBE1"
HEADER_LIMIT = 1 << 16


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("log.*"))


@dataclass(slots=True)
class Segment:
    """The file that is written."""

    path: Path
    fd: int

    @classmethod
    def begin(cls, folder: Path, life: int, number: int) -> Self:
        path = folder / f"log.{life}.{number}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        folder_fd = os.open(folder, os.O_RDONLY)
        os.fsync(folder_fd)
        os.close(folder_fd)
        return cls(path, fd)

    def append(self, entries: Sequence[Entry]) -> None:
        """All of them, synced together; what an error leaves is torn off again, or the next reader takes it for whole."""
        end = os.lseek(self.fd, 0, os.SEEK_CUR)
        try:
            for entry in entries:
                for part in record(entry):
                    memory = memoryview(part)
                    while memory:
                        memory = memory[os.write(self.fd, memory) :]
            os.fdatasync(self.fd)
        except OSError:
            os.ftruncate(self.fd, end)
            raise

    def close(self) -> None:
        os.close(self.fd)

    @staticmethod
    def read(path: Path) -> Iterator[Entry]:
        """Raises StoreFailed."""
        with path.open("rb") as file:
            while True:
                at = file.tell()
                frame = file.read(FRAME.size)
                if len(frame) < FRAME.size:
                    return
                magic, length, header_sum, payload_sum = FRAME.unpack(frame)
                if magic != MAGIC or length > HEADER_LIMIT:
                    raise StoreFailed(f"{path} is corrupted at byte {at}: no record begins there")
                header = file.read(length)
                if len(header) < length:
                    return
                if zlib.crc32(header) != header_sum:
                    raise StoreFailed(f"{path} is corrupted at byte {at}: the checksum of an entry's header")
                told = json.loads(header)
                payload = bytearray(told["size_bytes"])
                if file.readinto(payload) < len(payload):
                    return
                if zlib.crc32(payload) != payload_sum:
                    raise StoreFailed(f"{path} is corrupted at byte {at}: the checksum of entry {told['number']}")
                yield entry_of(told, payload)


def record(entry: Entry) -> list[Any]:
    """The parts of a record, payload as it lies in memory."""
    from exec.tensors import parts_of

    change = entry.change
    told: dict[str, Any] = {"number": entry.number, "sender": entry.sender.name, "life": entry.sender.incarnation}
    parts: list[Any] = []
    if isinstance(change, Push):
        dtype, parts = parts_of(change.gradient)
        told |= {
            "sequence": change.sequence, "gradients": change.gradients, "samples": change.samples, "based_on": change.based_on,
            "dtype": dtype,
        }  # fmt: skip
    else:
        told["finish"] = change.reason
    told["size_bytes"] = sum(len(part) for part in parts)
    header, crc = json.dumps(told).encode(), 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    return [FRAME.pack(MAGIC, len(header), zlib.crc32(header), crc), header, *parts]


def entry_of(told: dict[str, Any], payload: bytearray) -> Entry:
    sender = Sender(told["sender"], told["life"])
    if "finish" in told:
        return Entry(told["number"], sender, Finish(told["finish"]))
    import torch

    gradient = torch.frombuffer(payload, dtype=getattr(torch, told["dtype"])) if payload else torch.empty(0)
    return Entry(told["number"], sender, Push(told["sequence"], gradient, told["gradients"], told["samples"], told["based_on"]))
