"""What an agent's machine writes, brought to the run folder where the two are not the same: journals, logs, the model."""

from __future__ import annotations

import asyncio
from pathlib import Path

from core.job import SUPERVISOR
from core.messages import CallFailed, Refused
from core.node import Node
from exec.relay import Relay

PIECE = 256 << 10
EVERY_S = 0.5
KINDS = ("journals/*.tsv", "logs/*.log", "model.safetensors")


class Relaying:
    """One agent's end of it: remembers how much of each file has arrived."""

    def __init__(self, node: Node, folder: Path, run_folder: Path) -> None:
        self.node, self.folder, self.idle = node, folder, folder == run_folder
        self.sent: dict[Path, int] = {}

    async def run(self) -> None:
        """Now and then, what is new."""
        while not self.idle:
            await self.bring()
            await asyncio.sleep(EVERY_S)

    async def finish(self) -> None:
        """All that is left, unless the supervisor is gone."""
        if not self.idle:
            await self.bring()

    async def bring(self) -> None:
        for kind in KINDS:
            for path in sorted(self.folder.glob(kind)):
                if not await self.bring_file(path):
                    return

    async def bring_file(self, path: Path) -> bool:
        """False if nobody takes it just now."""
        name = str(path.relative_to(self.folder))
        while piece := self.next_piece(path):
            try:
                await self.node.call(SUPERVISOR, Relay(name, self.sent.get(path, 0), piece))
            except (CallFailed, Refused):
                return False
            self.sent[path] = self.sent.get(path, 0) + len(piece)
        return True

    def next_piece(self, path: Path) -> bytes:
        """What of a file has not arrived, or its beginning; b"" if all has."""
        with path.open("rb") as file:
            file.seek(self.sent.get(path, 0))
            return file.read(PIECE)


def take(folder: Path, relay: Relay) -> str:
    """Write a piece where it belongs; why not, if it cannot be ("" if it is written).

    A model is renamed over at once by whoever wrote it, so one that begins anew replaces the earlier one.
    """
    if not any(Path(relay.path).match(kind) for kind in KINDS) or ".." in Path(relay.path).parts or Path(relay.path).is_absolute():
        return f"nobody relays {relay.path!r}"
    path = folder / relay.path
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with path.open("r+b" if path.exists() and relay.offset else "wb") as file:
        file.seek(relay.offset)
        file.write(relay.data)
    return ""
