"""Payloads between processes of one host: they lie in shared memory, and gRPC carries the ticket.

Whoever calls owns the segments: one for what it sends, one for what it wants to get.  It has written everything before the
ticket goes, and touches a segment again only when its call was answered; one whose call was not is forgotten, since nobody
knows what the other side still does with it.  So everything means what it means on the stream: staged whole, or not there.

A segment is a `memfd` of its owner's, and a ticket says where `/proc` shows it: process, descriptor, name.  It is on no disk
and in no folder, so it is gone with the processes that use it, however they end.  It is sealed against shrinking: a
memory that is cut off under its reader kills the reader (SIGBUS).  The name is drawn, and says the job, the role and the life
that made it, so that a ticket opens nothing but its sender's own.  Elsewhere than on Linux everything goes by the stream.
"""

from __future__ import annotations

import mmap
import os
import re
import secrets
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from exec.codec import Identity, Payload

WORTH = 64 << 10
"""Smaller payloads are as quick on the stream."""
MAPPED_LIMIT = 64
"""Segments of others that a server keeps mapped, as many as it answers calls at once."""
TICKET = re.compile(r"([1-9][0-9]{0,9})/([0-9]{1,9})/(distbelief-[0-9A-Za-z]{1,8}-[a-z-]{1,41}(?:\.[0-9]{1,9})?-[0-9]{1,20}-[0-9a-f]{16})")

F_ADD_SEALS, F_GET_SEALS, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW = 1033, 1034, 1, 2, 4
"""Of Linux's fcntl.h; Python's fcntl lacks them where it was built against older headers."""
FIXED = F_SEAL_SHRINK | F_SEAL_GROW


class NotMapped(Exception):
    """The segment that a ticket names cannot be used; the message says why."""


def prefix(job: str, role: str, life: int) -> str:
    return f"distbelief-{job[:8]}-{role.replace('/', '.')}-{life}-"


def worth(vector: Any) -> bool:
    """Is a payload large enough to go this way?"""
    return vector is not None and vector.nbytes >= WORTH


@dataclass(slots=True, eq=False)
class Segment:
    """A piece of shared memory, mapped here; `name` is its ticket, and `fd` the owner's descriptor."""

    name: str
    memory: mmap.mmap
    fd: int = -1

    @property
    def nbytes(self) -> int:
        return len(self.memory)

    def lay(self, vector: Any) -> None:
        """Write a vector into it, from the beginning."""
        import torch

        from exec.tensors import parts_of

        at = 0
        for part in parts_of(vector)[1]:
            into = torch.frombuffer(self.memory, dtype=torch.uint8, count=len(part), offset=at)
            into.copy_(torch.frombuffer(part, dtype=torch.uint8))
            at += len(part)

    def tensor(self, payload: Payload, then: Callable[[], None] | None = None) -> Any:
        """A view of it as a vector, which stays mapped as long as that lives; `then` is called when nobody views it any more."""
        import torch

        lease = memoryview(self.memory)  # torch keeps it with the vector's storage, so views of the vector count too
        if then is not None:
            weakref.finalize(lease, then).atexit = False
        dtype = getattr(torch, payload.dtype)
        return torch.frombuffer(lease, dtype=dtype, count=payload.nbytes // dtype.itemsize)


class Segments:
    """A caller's own, each used again once its call was answered."""

    def __init__(self, own: Identity) -> None:
        self.prefix = prefix(own.job, own.name, own.incarnation)
        self.usable = hasattr(os, "memfd_create") and os.path.isdir(f"/proc/{os.getpid()}/fd")  # noqa: PTH112  without pathlib's import
        self._over = False
        self._free: dict[int, list[Segment]] = {}
        """By size.  No lock: what is given back may come from a finalizer, at any point of any thread."""

    def take(self, nbytes: int) -> Segment | None:
        """One of that size that nobody uses; None where there is no room."""
        free = self._free.setdefault(nbytes, [])
        try:
            return free.pop()
        except IndexError:
            return self.make(nbytes)

    def make(self, nbytes: int) -> Segment | None:
        import fcntl

        name = f"{self.prefix}{secrets.token_hex(8)}"
        try:
            fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError:
            return None
        try:
            os.posix_fallocate(fd, 0, nbytes)  # a full memory says so here, and not when it is touched
            fcntl.fcntl(fd, F_ADD_SEALS, FIXED | F_SEAL_SEAL)
            return Segment(f"{os.getpid()}/{fd}/{name}", mapped(fd, nbytes), fd)
        except OSError:
            os.close(fd)
            return None

    def give_back(self, segment: Segment) -> None:
        """Its call was answered."""
        if self._over:
            self.forget(segment)
        elif segment.fd >= 0:
            self._free.setdefault(segment.nbytes, []).append(segment)

    def forget(self, segment: Segment) -> None:
        """Its call was not answered: the other side may still use it, and nobody else ever will."""
        fd, segment.fd = segment.fd, -1
        if fd >= 0:
            os.close(fd)

    def close(self) -> None:
        """Forget those that nobody uses; the others go with whoever still views them."""
        self._over = True
        for free in self._free.values():
            while free:
                self.forget(free.pop())


class Mapped:
    """A server's view of its callers' segments."""

    def __init__(self) -> None:
        self._mapped: dict[str, Segment] = {}
        """In the order of use."""
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._mapped)

    def find(self, ticket: str, nbytes: int, job: str, role: str, life: int) -> Segment:
        """The segment of that ticket, which must be its sender's own, and of just that size.  Raises NotMapped."""
        found = TICKET.fullmatch(ticket)
        if found is None or not found[3].startswith(prefix(job, role, life)):
            raise NotMapped(f"{ticket[:100]!r} is no segment of {role}#{life}")
        with self._lock:
            segment = self._mapped.pop(ticket, None)
            if segment is None:
                self.let_go()
                segment = opened(ticket, nbytes)
            self._mapped[ticket] = segment
        if segment.nbytes != nbytes:
            raise NotMapped(f"{ticket} has {segment.nbytes} bytes; {nbytes} were announced")
        return segment

    def let_go(self) -> None:
        """Of segments that their owners have forgotten, and beyond the limit of those that were not used for longest."""
        for ticket in [ticket for ticket in self._mapped if not shown(ticket)]:
            del self._mapped[ticket]
        while len(self._mapped) >= MAPPED_LIMIT:
            del self._mapped[next(iter(self._mapped))]


def path_of(ticket: str) -> str:
    process, descriptor, _ = ticket.split("/")
    return f"/proc/{process}/fd/{descriptor}"


def shown(ticket: str) -> bool:
    """Is the segment of that ticket there?  Whatever else the descriptor may be is not even opened."""
    try:
        return os.readlink(path_of(ticket)) == f"/memfd:{ticket.rpartition('/')[2]} (deleted)"  # noqa: PTH115  a link that leads nowhere
    except OSError:
        return False


def opened(ticket: str, nbytes: int) -> Segment:
    """Raises NotMapped."""
    import fcntl

    if not shown(ticket):
        raise NotMapped(f"{ticket} is not shown here")
    try:
        fd = os.open(path_of(ticket), os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise NotMapped(f"{ticket}: {error.strerror}") from error
    try:
        if not shown(f"self/{fd}/{ticket.rpartition('/')[2]}"):
            raise NotMapped(f"{ticket} is another by now")
        state = os.fstat(fd)
        if state.st_uid != os.getuid() or fcntl.fcntl(fd, F_GET_SEALS) & FIXED != FIXED:
            raise NotMapped(f"{ticket} is not this user's, or may shrink")
        if state.st_size != nbytes:
            raise NotMapped(f"{ticket} has {state.st_size} bytes; {nbytes} were announced")
        return Segment(ticket, mapped(fd, nbytes))
    except (OSError, ValueError) as error:
        raise NotMapped(f"{ticket}: {error}") from error
    finally:
        os.close(fd)


def mapped(fd: int, nbytes: int) -> mmap.mmap:
    """Its pages at once: a fault for each 4 KiB would come to as much as copying them."""
    return mmap.mmap(fd, nbytes, flags=mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0))
