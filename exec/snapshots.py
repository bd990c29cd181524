"""A store's snapshots: each a folder that is there whole or not at all.

    snapshot.<life>.<number>/    the snapshots that a life made, counted
        manifest.json            what its maker says of it, the size and checksum of the vectors, a checksum of itself
        vectors.safetensors      one-dimensional tensors, if there are any

It grows under the name partial.<life>.<number> and is renamed when all of it is synced: that commits it.  Whoever discards
the partial folder first has made the commit impossible.

The safetensors file is laid out here, in the tensors' own memory.  safetensors' `save_file` is as fast and lets other
threads run too (0.8, measured), but older versions copy everything first, all of them refuse vectors that share memory, as
slices of one buffer do, and none syncs.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any
from zlib import crc32

from core.node import StoreFailed
from exec.disk import Named, discard, listing, read_into, sync, write_file

MANIFEST, VECTORS = "manifest.json", "vectors.safetensors"
COMPACT = (",", ":")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A committed snapshot whose manifest is sound."""

    life: int
    path: Path
    manifest: dict[str, Any]
    size_bytes: int
    """Of the vectors' file; 0 where there is none."""
    checksum: int

    @property
    def position(self) -> int:
        return int(self.manifest["position"])


def write(folder: Path, life: int, manifest: dict[str, Any], vectors: dict[str, Any]) -> None:
    """Make and commit the next snapshot of that life.  Raises OSError; then it is not there."""
    number = 1 + max((made.number for made in listing(folder, "snapshot") if made.life == life), default=0)
    partial = folder / f"partial.{life}.{number}"
    discard(partial)
    partial.mkdir(mode=0o700)
    try:
        size_bytes, total = write_vectors(partial / VECTORS, vectors) if vectors else (0, 0)
        content = {"manifest": manifest, "size_bytes": size_bytes, "checksum": total}
        write_file(partial / MANIFEST, [sealed(content)])
        sync(partial)
        partial.rename(folder / f"snapshot.{life}.{number}")
    except OSError:
        discard(partial)
        raise
    sync(folder)


def discard_partial(folder: Path, before: int) -> None:
    """Remove what lives before that one have begun and not committed."""
    for made in listing(folder, "partial"):
        if made.life < before:
            discard(made.path)


def discard_older(folder: Path, life: int) -> None:
    """Remove every snapshot but the last of this life, and later lives'."""
    for made in [made for made in listing(folder, "snapshot") if made.life <= life][:-1]:
        discard(made.path)


def latest(folder: Path, segments: Sequence[Named]) -> Snapshot | None:
    """The snapshot that counts.  Raises StoreFailed.

    A life that did not know yet that a later one had begun may have committed one more, of entries that nobody else has.
    It shows in that it goes beyond where the log of a later life begins.
    """
    for made in reversed(listing(folder, "snapshot")):
        snapshot = read_manifest(made)
        if snapshot.position < min((segment.number for segment in segments if segment.life > made.life), default=math.inf):
            return snapshot
    return None


def sealed(content: dict[str, Any]) -> bytes:
    """JSON with a checksum."""
    text = json.dumps(content, separators=COMPACT)
    return f'{{"checksum":{crc32(text.encode())},"content":{text}}}\n'.encode()


def read_manifest(made: Named) -> Snapshot:
    path = made.path / MANIFEST
    try:
        data = path.read_bytes()
        content = json.loads(data)["content"]
        if sealed(content) == data:
            return Snapshot(made.life, made.path, content["manifest"], content["size_bytes"], content["checksum"])
    except FileNotFoundError as error:
        raise StoreFailed(f"{path} is missing") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreFailed(f"{path} is corrupted: {error!r}") from error
    raise StoreFailed(f"{path} is corrupted: its checksum is not that of what was written")


def write_vectors(path: Path, vectors: dict[str, Any]) -> tuple[int, int]:
    """Returns the size of the file in bytes, and its checksum."""
    from exec.tensors import SAFETENSORS, raw

    header: dict[str, Any] = {}
    end = 0
    # The largest numbers first: so each vector lies at a multiple of its numbers' size.
    ordered = sorted(vectors.items(), key=lambda named: -named[1].dtype.itemsize)
    for name, vector in ordered:
        assert vector.dim() == 1, f"{name} has {vector.dim()} dimensions"
        header[name] = {"dtype": SAFETENSORS[vector.dtype], "shape": [len(vector)], "data_offsets": [end, end + vector.nbytes]}
        end += vector.nbytes
    text = json.dumps(header, separators=COMPACT).encode()
    text += b" " * (-len(text) % 8)
    buffers = [len(text).to_bytes(8, "little") + text, *(raw(vector) for _, vector in ordered)]
    return sum(map(len, buffers)), write_file(path, buffers)


def read_vectors(snapshot: Snapshot) -> dict[str, Any]:
    """Its vectors, parts of one buffer that nobody else holds.  Raises StoreFailed, OSError."""
    if not snapshot.size_bytes:
        return {}
    import torch

    from exec.tensors import SAFETENSORS, raw

    path = snapshot.path / VECTORS
    whole = torch.empty(snapshot.size_bytes, dtype=torch.uint8)
    memory = raw(whole)
    try:
        with FileIO(path) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes != snapshot.size_bytes:
                raise StoreFailed(f"{path} is corrupted: it has {size_bytes} bytes, and had {snapshot.size_bytes}")
            read_into(file, memory)
    except FileNotFoundError as error:
        raise StoreFailed(f"{path} is missing") from error
    if crc32(memory) != snapshot.checksum:
        raise StoreFailed(f"{path} is corrupted: its checksum is not that of what was written")
    begin = 8 + int.from_bytes(memory[:8], "little")
    dtypes = {name: dtype for dtype, name in SAFETENSORS.items()}
    return {
        name: whole[begin + part["data_offsets"][0] : begin + part["data_offsets"][1]].view(dtypes[part["dtype"]])
        for name, part in json.loads(bytes(memory[8:begin])).items()
    }
