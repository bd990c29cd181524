"""A run after its end: going on with one that was stopped or broke down, and taking its model out."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from core.durability import recovered
from core.job import SUPERVISOR
from core.messages import CallFailed
from core.node import Kept
from exec import addresses
from exec.jobfile import JobFile
from exec.operating import Operator, operator
from exec.processes import process_here
from exec.store import FileStore, last_life, peek
from models.errors import InputError
from report.exits import StartError
from report.folder import RunFolder
from scenarios.plan import plan

ASKED, ASK_AGAIN_AFTER_S = 3, 1.0
"""How often, and how soon after no answer: a supervisor that has died has its next life within two seconds."""

GOES_ON = ("interrupted", "failed", "unstarted", "")
"""Verdicts of a ledger with which a job can be taken up again; "" is of one that was cut short."""


def reopened(job: JobFile) -> JobFile:
    """Make a job that is not running ready to begin again: same identity, same lives counted on, same stores.

    Raises InputError for one that is done, StartError for one that is running.
    """
    return asyncio.run(_reopened(job))


async def _reopened(job: JobFile) -> JobFile:
    folder = RunFolder(Path(job.folder))
    async with operator(job) as asking:
        if await answers(asking):
            raise StartError(f"the job of {folder.path} is running; `execctl status` shows it, `execctl stop` ends it")
    if pid := process_here(folder.path, SUPERVISOR, job.job):
        raise StartError(
            f"the job of {folder.path} is running, though its supervisor, process {pid}, does not answer just now: try again later; "
            f"or give it up: end its launcher, if that is still there, then `kill -9 {pid}`, and resume"
        )
    ledger = FileStore(folder.path / "store" / SUPERVISOR, last_life(folder.path / "store" / SUPERVISOR) + 1)
    try:
        kept = await ledger.read()
        if kept.manifest is None:
            raise InputError(f"the job of {folder.path} never began; there is nothing to resume")
        if kept.manifest["verdict"] not in GOES_ON:
            raise InputError(f"the job of {folder.path} is done; there is nothing to resume")
        await ledger.write(taken_up(kept.manifest), {})
    finally:
        await asyncio.to_thread(ledger.close)
    for path in (folder.summary, folder.journal):
        path.unlink(missing_ok=True)
    addresses.free_port(*addresses.split(job.supervisor))  # somebody else may have taken it meanwhile
    return job


async def answers(asking: Operator) -> bool:
    """Does anybody supervise that job?  One who is busy, or begins just now, is asked again: a resumed job would fence a running one."""
    for attempt in range(ASKED):
        if attempt:
            await asyncio.sleep(ASK_AGAIN_AFTER_S)
        with suppress(CallFailed):
            await asking.inquire()
            return True
    return False


def taken_up(ledger: dict[str, Any]) -> dict[str, Any]:
    """A ledger in which every role waits for its next life, and no machine is known yet."""
    roles = [one | {"state": "waiting", "process": None, "address": "", "crashes": 0} for one in ledger["roles"]]
    return ledger | {"phase": "starting", "verdict": "", "reason": "", "roles": roles, "machines": [], "promotions": []}


async def write_model(job: JobFile, out: Path) -> str:
    """Write the final model, or the parameters that the shards kept last; returns what was written.  Raises InputError."""
    folder = RunFolder(Path(job.folder))
    if folder.model.exists():
        shutil.copyfile(folder.model, out)
        return f"{out}: the final model of {folder.path}"
    made = plan(job.load(), numerics="real")
    parameters, updates = made.network.initial(), []
    for shared in made.job.shards:
        reader: Any = Reader(shared.name, folder.path / "store" / shared.name.replace("/", "-"))
        shard = await recovered(reader, made.job, made.network.initial(), made.rule(), made.kind_of_shard)
        parameters[shared.part].copy_(shard.parameters)
        updates.append(shard.updates)
    if not any(updates):
        raise InputError(f"{folder.path} holds no model: there is neither {folder.model.name} nor anything that shards have kept")
    made.save(parameters, out)
    return f"{out}: what the shards kept last, after {min(updates)} to {max(updates)} updates"


class Reader:
    """As much of a node as it takes to read what a shard has kept, and to fence nobody."""

    incarnation = 1

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder, self.store = name, folder, self

    async def read(self) -> Kept:
        return peek(self.folder)

    def now(self) -> float:
        return 0.0

    def record(self, *_: Any, **__: Any) -> None:
        """There is no journal."""
