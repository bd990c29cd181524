"""A role's durable storage in a folder: the last snapshot, and a log of the entries after it.

    life.<life>                  a life has opened the store: an empty file, its name says all
    snapshot.<life>.<number>/    `exec/snapshots.py`
    log.<life>.<number>          `exec/segments.py`

**Fencing.**  A life first claims the store, durably, and only then looks at what there is.  Whoever writes or appends looks
for later claims when its data is synced, before it reports success.  If it finds none, its data was there before any later
life looked; if it finds one, it fails, and nobody was told anything.  So an acknowledgement precedes the fence, or does not
happen.  Claims are files of their own because a number in one file could be set back, by a life that was held up between
reading it and replacing it.

**After the fence.**  An earlier life can still be held up anywhere in a write, and go on an hour later.  So no life writes
where another does, everything bears its maker's life, and whoever reads lets later lives overrule earlier ones: of snapshots
the last life's counts, after a snapshot only the log of its own and of later lives, and each segment as far as a later one
does not begin.  This relies on a life reading before it writes, as whoever takes a role up again does.

It takes a file system on which a new name is seen by everybody at once: any local one; NFS only when mounted with `noac`.
"""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from core.messages import Entry
from core.node import Fenced, Kept, StoreFailed
from exec import snapshots
from exec.disk import clear_trash, create, listing, make_folder, remove, sync
from exec.segments import Log, entries_after

R = TypeVar("R")


def last_life(folder: Path) -> int:
    """The last life that has opened the store there; 0 if none has.  Raises StoreFailed."""
    try:
        return max((claim.life for claim in listing(folder, "life")), default=0)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise failure(error, folder) from error


def peek(folder: Path) -> Kept:
    """What is kept there, without fencing anybody; nobody may be writing.  Raises StoreFailed."""
    try:
        return kept(folder)
    except FileNotFoundError:
        return Kept()
    except OSError as error:
        raise failure(error, folder) from error


def kept(folder: Path) -> Kept:
    """Raises StoreFailed, OSError; reading the entries raises StoreFailed."""
    segments = listing(folder, "log")
    snapshot = snapshots.latest(folder, segments)
    if snapshot is None:
        return Kept(None, {}, entries_after(segments, 0))
    following = [segment for segment in segments if segment.life >= snapshot.life]
    return Kept(snapshot.manifest, snapshots.read_vectors(snapshot), entries_after(following, snapshot.position))


def failure(error: OSError, folder: Path) -> StoreFailed:
    return StoreFailed(f"{error.filename or folder}: {error.strerror or error}")


class FileStore:
    """`core.node.Store` in a folder, for one life of a role.  Its work is done in a thread of its own, in order.

    Vectors are one-dimensional tensors of the CPU; gradients may also be as they came over the wire (`exec.tensors.Pieces`).
    Without any of them torch is not imported.
    """

    def __init__(self, folder: Path, life: int) -> None:
        """Nothing is done before the first operation; then the folder is made if it is missing."""
        self.folder, self.life = folder, life
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._log = Log(folder, life)
        self._claimed = False

    def read(self) -> asyncio.Future[Kept]:
        """See `core.node.Store`.  What is read may be changed; the entries raise StoreFailed."""
        return self._do(lambda: kept(self.folder))

    def write(self, manifest: dict[str, Any], vectors: dict[str, Any]) -> asyncio.Future[None]:
        """See `core.node.Store`.  The manifest may change as soon as this returns."""
        told, held = copy.deepcopy(manifest), dict(vectors)
        return self._do(lambda: self._write(told, held))

    def append(self, entries: Sequence[Entry]) -> asyncio.Future[None]:
        """See `core.node.Store`.  The entries' numbers follow each other, and are higher than those appended before."""
        return self._do(lambda: self._log.append(entries))

    def close(self) -> None:
        """Wait for what is under way; what has not begun never will."""
        self._thread.shutdown(cancel_futures=True)
        self._log.rotate()

    # in the store's own thread

    def _do(self, work: Callable[[], R]) -> asyncio.Future[R]:
        return asyncio.get_running_loop().run_in_executor(self._thread, self._carefully, work)

    def _carefully(self, work: Callable[[], R]) -> R:
        """An operation, with a look for later lives before it begins, to save the trouble, and before it is said to be done."""
        try:
            if not self._claimed:
                self._claim()
            self._check()
            result = work()
            self._check()
        except OSError as error:
            with suppress(OSError):
                self._check()  # a later life may have removed what this one was about to use
            raise failure(error, self.folder) from error
        return result

    def _claim(self) -> None:
        make_folder(self.folder)
        with suppress(FileExistsError):
            os.close(create(self.folder / f"life.{self.life}"))
        sync(self.folder)
        remove([claim for claim in listing(self.folder, "life") if claim.life < self.life])
        snapshots.discard_partial(self.folder, self.life)
        clear_trash(self.folder)
        self._claimed = True

    def _check(self) -> None:
        """Raises Fenced if a later life has claimed the store."""
        if (last := last_life(self.folder)) > self.life:
            raise Fenced(f"{self.folder} belongs to life {last} by now; this is {self.life}")

    def _write(self, manifest: dict[str, Any], vectors: dict[str, Any]) -> None:
        self._log.rotate()
        snapshots.write(self.folder, self.life, manifest, vectors)
        self._check()
        snapshots.discard_older(self.folder, self.life)
        self._log.compact(manifest["position"])
