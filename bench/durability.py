"""What it costs to make a push and a snapshot durable, beside writing as many bytes to a file and syncing it.

    python -m bench.durability [--rounds 11] [--append-mib 64] [--snapshot-mib 128] [--folder .] [--json]

*Append* puts one entry whose gradient is so large into the log, *snapshot* replaces the last snapshot by one of two vectors
that are together so large, and the log with it; *read* takes that up again, as a shard that comes back does.  *Floor* is one
write and one fsync of the same bytes to a new file of the same folder, which for *snapshot* is then renamed over the one
before; for *read*, one read of that.  Rounds alternate between ours and the floor, figures are medians; what to compare
between machines is the ratio, since disks differ, and one disk from hour to hour.
*Silence* is the longest time for which a thread that ticks every millisecond did not run meanwhile, of each round; for the
shard goes on serving while its store writes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Self

import torch

from core.messages import Entry, Push, Sender
from exec.store import FileStore
from exec.tensors import raw

WARM_UP = 2
"""Rounds not counted: the first ones fault memory in."""
TICK_S = 0.001


class Ticking:
    """A thread that ticks, and the longest time between two ticks."""

    def __enter__(self) -> Self:
        self.silence_s, self.over = 0.0, threading.Event()
        self.thread = threading.Thread(target=self.tick)
        self.thread.start()
        return self

    def tick(self) -> None:
        last = time.perf_counter()
        while not self.over.wait(TICK_S):
            now = time.perf_counter()
            self.silence_s, last = max(self.silence_s, now - last - TICK_S), now

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


class Ours:
    """A shard's store."""

    def __init__(self, folder: Path, append_bytes: int, snapshot_bytes: int) -> None:
        self.store, self.number = FileStore(folder, 1), 0
        self.gradient = torch.randn(append_bytes // 4)
        self.vectors = {name: torch.randn(snapshot_bytes // 8) for name in ("parameters", "squares")}

    async def append(self) -> None:
        self.number += 1
        await self.store.append([Entry(self.number, Sender("replica/0", 1), Push(self.number, self.gradient, 1, 32, 0))])

    async def snapshot(self) -> None:
        await self.store.write({"position": self.number}, self.vectors)

    async def read(self) -> None:
        await self.store.read()


class Floor:
    """The least that a file of the same bytes takes."""

    def __init__(self, folder: Path, append_bytes: int, snapshot_bytes: int) -> None:
        self.path = folder / "floor"
        self.bytes = {"append": torch.randn(append_bytes // 4), "snapshot": torch.randn(snapshot_bytes // 4)}

    def append(self) -> None:
        self.write(self.path.with_suffix(".log"), self.bytes["append"])

    def snapshot(self) -> None:
        partial = self.path.with_suffix(".partial")
        self.write(partial, self.bytes["snapshot"])
        partial.replace(self.path)

    def write(self, path: Path, vector: torch.Tensor) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        memory = raw(vector)
        while memory:
            memory = memory[os.write(descriptor, memory) :]
        os.fsync(descriptor)
        os.close(descriptor)

    def read(self) -> None:
        with self.path.open("rb", buffering=0) as file:
            file.readinto(raw(torch.empty_like(self.bytes["snapshot"])))

    def forget(self) -> None:
        """The log has a new beginning."""
        self.path.with_suffix(".log").unlink()


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    sizes = {"append": options.append_mib << 20, "snapshot": options.snapshot_mib << 20, "read": options.snapshot_mib << 20}
    ours, floor = Ours(folder / "store", sizes["append"], sizes["snapshot"]), Floor(folder, sizes["append"], sizes["snapshot"])
    took: dict[str, list[dict[str, float]]] = {step: [] for step in sizes}
    for _ in range(WARM_UP + options.rounds):
        for step, rounds in took.items():
            least = await timed("floor", asyncio.to_thread(getattr(floor, step)))
            rounds.append(least | await timed("ours", getattr(ours, step)()))
        floor.forget()
    await asyncio.to_thread(ours.store.close)
    return {step: {"mib": sizes[step] >> 20} | middle(rounds[WARM_UP:]) for step, rounds in took.items()}


async def timed(who: str, work: Awaitable[None]) -> dict[str, float]:
    with Ticking() as ticking:
        began = time.perf_counter()
        await work
        took_s = time.perf_counter() - began
    return {f"{who}_s": took_s, f"{who}_silence_s": ticking.silence_s}


def middle(rounds: list[dict[str, float]]) -> dict[str, float]:
    found = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
    return found | {"ratio": found["ours_s"] / found["floor_s"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--append-mib", type=int, default=64)
    parser.add_argument("--snapshot-mib", type=int, default=128)
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk to be measured")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="durability-", dir=options.folder) as folder:
        found = asyncio.run(measure(options, Path(folder)))
    if options.json:
        print(json.dumps(found))
        return
    print(f"{'':10}{'MiB':>6}{'ours':>10}{'floor':>10}{'ours/floor':>12}{'silence: ours':>15}{'floor':>10}")
    for step, figures in found.items():
        times = {key: f"{value * 1000:.0f} ms" for key, value in figures.items() if key.endswith("_s")}
        print(
            f"{step:10}{figures['mib']:>6}{times['ours_s']:>10}{times['floor_s']:>10}{figures['ratio']:>12.2f}"
            f"{times['ours_silence_s']:>15}{times['floor_silence_s']:>10}"
        )


if __name__ == "__main__":
    main()
