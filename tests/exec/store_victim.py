"""A process that keeps a list in a store and is killed in the middle of it, again and again: see `tests/exec/test_store.py`.

The list is the role's state: entry n appends one number to it, and a snapshot holds the whole list.  The numbers bear the life
that made them, so the list says who was there.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from core.messages import Entry, Push, Sender
from core.node import Kept
from exec import tensors
from exec.store import FileStore

assert tensors, "imported once, and not by every child"

R = TypeVar("R")

CALLS = ("open", "writev", "fsync", "rename", "mkdir", "unlink", "rmdir", "ftruncate")
"""Those of the operating system that change a store."""


def entry(number: int, mark: int) -> Entry:
    """An entry of some hundred bytes to some kilobytes, all of which say `mark`."""
    gradient = torch.full((1 + number * 97 % 700,), float(mark), dtype=torch.float64)
    return Entry(number, Sender("replica/0", 1), Push(number, gradient, 1, 1, 0))


def state_of(kept: Kept) -> list[int]:
    """The list, after a look at everything that is kept of it."""
    state: list[int] = []
    if kept.manifest is not None:
        state = [int(mark) for mark in kept.vectors["state"].tolist()]
        assert len(state) == kept.manifest["position"]
    for found in kept.entries:
        mark = int(found.change.gradient[0])
        expected = entry(found.number, mark)
        assert torch.equal(found.change.gradient, expected.change.gradient)
        assert found.number == len(state) + 1
        state.append(mark)
    return state


def ask(work: Callable[[], Awaitable[R]]) -> R:
    """Do it in an event loop of its own."""

    async def once() -> R:
        return await work()

    return asyncio.run(once())


def entries(kept: Kept) -> list[Entry]:
    return list(kept.entries)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


class Keeper:
    """One life of the role.  `told` hears of everything before and after it is attempted."""

    def __init__(self, folder: Path, life: int, told: Callable[..., None] = lambda *_: None) -> None:
        self.store, self.life, self.told = FileStore(folder, life), life, told
        self.state: list[int] = []

    async def read(self) -> None:
        self.state = state_of(await self.store.read())
        self.told("read", self.state)

    async def append(self, count: int) -> None:
        begin = len(self.state)
        self.state += [self.life * 1000 + begin + index for index in range(count)]
        self.told("tries", self.state)
        await self.store.append([entry(begin + index + 1, self.state[begin + index]) for index in range(count)])
        self.told("acknowledged", self.state)

    async def write(self) -> None:
        state = torch.tensor(self.state, dtype=torch.float64)
        await self.store.write({"position": len(self.state)}, {"state": state, "more": torch.zeros(300)})


async def story(folder: Path, life: int, luck: random.Random, told: Callable[..., None]) -> None:
    """Reads, and then appends and writes."""
    keeper = Keeper(folder, life, told)
    await keeper.read()
    for _ in range(8):
        await (keeper.write() if luck.random() < 0.3 else keeper.append(luck.randint(1, 3)))
    keeper.store.close()


def die_at(call: int, luck: random.Random) -> None:
    """Have this process killed instead of making that call, or in the middle of it if it writes."""
    left = iter(range(call, -1, -1))

    def fatal(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            if next(left) == 0:
                if name == "writev":
                    data = b"".join(bytes(buffer) for buffer in arguments[1])
                    os.write(arguments[0], data[: luck.randrange(len(data))])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return wrapped

    for name in CALLS:
        setattr(os, name, fatal(name, getattr(os, name)))


def killed(folder: Path, life: int, call: int) -> dict[str, Any]:
    """Let a child live that life, and kill it at that call: what it told last of each kind, and whether it was killed."""
    ear, mouth = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ear)

        def told(*said: Any) -> None:
            os.write(mouth, json.dumps(said).encode() + b"\n")

        die_at(call, random.Random(call))
        asyncio.run(story(folder, life, random.Random(life), told))
        os._exit(0)
    os.close(mouth)
    with os.fdopen(ear) as heard:
        said = dict(json.loads(line) for line in heard)
    _, status = os.waitpid(child, 0)
    return said | {"life": life, "status": os.waitstatus_to_exitcode(status)}


def everywhere(folder: Path) -> list[dict[str, Any]]:
    """A first life is killed at every call there is, each time in a folder of its own."""
    trials = []
    while not trials or trials[-1]["status"]:
        trials.append(killed(folder / str(len(trials)), 1, len(trials)))
    return trials


def life_after_life(folder: Path) -> list[dict[str, Any]]:
    """Many lives in one folder, each killed somewhere."""
    luck = random.Random(7)
    return [killed(folder, life, luck.randrange(90)) for life in range(1, 61)]


if __name__ == "__main__":
    trials: dict[str, Callable[[Path], list[dict[str, Any]]]] = {"everywhere": everywhere, "life after life": life_after_life}
    print(json.dumps(trials[sys.argv[1]](Path(sys.argv[2]))))  # noqa: T201  that is how it answers
