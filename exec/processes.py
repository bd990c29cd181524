"""Processes of this machine, one for each role: started, watched, ended, and their last words kept.

A process has a session of its own, so that Ctrl-C at the terminal reaches the launcher alone, which then decides.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from exec.role import Errand
from report.exits import StartError

PATIENCE_S = 3.0
"""Between asking a process to end and killing it."""


@dataclass(slots=True, eq=False)
class Process:
    """One life of a role."""

    role: str
    incarnation: int
    child: asyncio.subprocess.Process
    log: Path

    def last_words(self) -> str:
        """The last line it wrote, "" if none."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def fate(self) -> str:
        """How it ended, in words."""
        code = self.child.returncode
        if code is None:
            return "is running"
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        words = self.last_words()
        return f"{how}: {words}" if words else how

    async def end(self, patience_s: float = PATIENCE_S) -> None:
        """Ask it to end, then make it."""
        if self.child.returncode is None:
            self.child.terminate()
        await self.gone(patience_s)

    async def gone(self, patience_s: float) -> None:
        """Wait until it has ended; kill it if that takes too long."""
        try:
            async with asyncio.timeout(patience_s):
                await self.child.wait()
        except TimeoutError:
            self.child.kill()
            await self.child.wait()


async def start(errand: Errand) -> Process:
    """Start a role's process.  Raises StartError."""
    name = f"{errand.own.name.replace('/', '-')}.{errand.own.incarnation}"
    log = errand.folder / "logs" / f"{name}.log"
    # -P: the user's own folder may hold a `models/` too; it must not hide ours.
    command = [sys.executable, "-P", "-m", "exec.role", *errand.arguments()]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "GRPC_VERBOSITY": "NONE"}
    try:
        with log.open("wb") as output:
            child = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
            )
    except OSError as error:
        raise StartError(f"{errand.own.name} cannot start: {error}") from error
    return Process(errand.own.name, errand.own.incarnation, child, log)
