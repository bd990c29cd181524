"""Payloads between processes of one host: they lie in shared memory, and gRPC carries the ticket.

Whoever calls owns the segments: one for what it sends, one for what it wants to get.  It has written everything before the
ticket goes, and touches a segment again only when its call was answered; one whose call was not is forgotten, since nobody
knows what the other side still does with it.  So everything means what it means on the stream: staged whole, or not there.

A segment is a file in /dev/shm of mode 0600, named after the job, the role and the life that made it, so that whoever
buries a process can sweep up after it.
"""

from __future__ import annotations

import mmap
import os
import re
import secrets
import stat
import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exec.codec import Identity, Payload

ROOM = Path("/dev/shm")  # noqa: S108  it is the place for this, and names are drawn
WORTH = 64 << 10
"""Smaller payloads are as quick on the stream."""
MAPPED_LIMIT = 256
"""Segments of others that a server keeps mapped."""
PATTERN = re.compile(r"distbelief-[0-9a-zA-Z]{1,32}-[a-z-]{1,40}(\.[0-9]{1,9})?-[0-9]{1,20}-[0-9a-f]{16}")


class NotMapped(Exception):
    """The segment that a ticket names cannot be used; the message says why."""


def prefix(job: str, role: str, life: int) -> str:
    return f"distbelief-{job[:8]}-{role.replace('/', '.')}-{life}-"


def sweep(job: str, role: str, life: int) -> None:
    """Remove what a process that has ended left behind."""
    for path in ROOM.glob(f"{prefix(job, role, life)}*"):
        path.unlink(missing_ok=True)


@dataclass(slots=True, eq=False, weakref_slot=True)
class Segment:
    """A piece of shared memory, mapped here."""

    name: str
    memory: mmap.mmap

    @property
    def nbytes(self) -> int:
        return len(self.memory)

    def lay(self, vector: Any) -> None:
        """Write a vector into it, from the beginning."""
        from exec.tensors import parts_of

        import torch

        at = 0
        for part in parts_of(vector)[1]:
            self.tensor(Payload("uint8", len(part)), at).copy_(torch.frombuffer(part, dtype=torch.uint8))
            at += len(part)

    def tensor(self, payload: Payload, offset: int = 0) -> Any:
        """A view of it as a vector; it stays mapped as long as that lives."""
        import torch

        dtype = getattr(torch, payload.dtype)
        return torch.frombuffer(self.memory, dtype=dtype, count=payload.nbytes // dtype.itemsize, offset=offset)


class Segments:
    """A caller's own, each used again once its call was answered."""

    def __init__(self, own: Identity) -> None:
        self.prefix = prefix(own.job, own.name, own.incarnation)
        self.usable = ROOM.is_dir()
        self._free: dict[int, list[Segment]] = {}
        self._lock = threading.Lock()

    def take(self, nbytes: int) -> Segment | None:
        """One of that size that nobody uses; None where there is no room."""
        with self._lock:
            free = self._free.get(nbytes)
            if free:
                return free.pop()
        name = f"{self.prefix}{secrets.token_hex(8)}"
        try:
            fd = os.open(ROOM / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except OSError:
            return None
        try:
            os.posix_fallocate(fd, 0, nbytes)  # a full /dev/shm says so here, and not when the memory is touched
            memory = mmap.mmap(fd, nbytes)
        except OSError:
            (ROOM / name).unlink(missing_ok=True)
            return None
        finally:
            os.close(fd)
        return Segment(name, memory)

    def give_back(self, segment: Segment) -> None:
        """Its call was answered."""
        with self._lock:
            self._free.setdefault(segment.nbytes, []).append(segment)

    def give_back_with(self, vector: Any, segment: Segment) -> None:
        """It is free again when nobody holds that view of it any more."""
        weakref.finalize(vector, self.give_back, segment).atexit = False

    def forget(self, segment: Segment) -> None:
        """Its call was not answered: the other side may still use it, and nobody else ever will."""
        (ROOM / segment.name).unlink(missing_ok=True)

    def close(self) -> None:
        for path in ROOM.glob(f"{self.prefix}*") if self.usable else ():
            path.unlink(missing_ok=True)


class Mapped:
    """A server's view of its callers' segments."""

    def __init__(self) -> None:
        self._mapped: OrderedDict[str, Segment] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, name: str, nbytes: int, job: str, role: str, life: int) -> Segment:
        """The segment of that ticket, which must be its sender's own, and large enough.  Raises NotMapped."""
        if not PATTERN.fullmatch(name) or not name.startswith(prefix(job, role, life)):
            raise NotMapped(f"{name[:80]!r} is no segment of {role}#{life}")
        with self._lock:
            segment = self._mapped.get(name)
            if segment is None:
                segment = self._mapped[name] = self.map(name)
                while len(self._mapped) > MAPPED_LIMIT:
                    self._mapped.popitem(last=False)
            self._mapped.move_to_end(name)
        if segment.nbytes < nbytes:
            raise NotMapped(f"{name} has {segment.nbytes} bytes; {nbytes} were announced")
        return segment

    @staticmethod
    def map(name: str) -> Segment:
        try:
            fd = os.open(ROOM / name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise NotMapped(f"{name}: {error.strerror}") from error
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid() or not found.st_size:
                raise NotMapped(f"{name} is not a file of this user's")
            return Segment(name, mmap.mmap(fd, found.st_size))
        except (OSError, ValueError) as error:
            raise NotMapped(f"{name}: {error}") from error
        finally:
            os.close(fd)


def worth(vector: Any) -> bool:
    """Is a payload large enough to go this way?"""
    return vector is not None and vector.nbytes >= WORTH
