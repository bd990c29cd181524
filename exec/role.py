"""One life of a role as a process: forked by the nursery, running what `core/roles.py` says on a real host."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from core.attendance import Outlived
from core.evaluator import Final
from core.job import SUPERVISOR, partition_number, role_kind
from core.journal import Journal, one_line
from core.messages import Refused
from core.node import StoreFailed
from core.reports import Process
from core.roles import Promoted
from core.roles import live as live_role
from core.shard import Shard
from core.work import Diverged
from exec import addresses
from exec.chaos import Interference
from exec.codec import DTYPES, Identity, Payload, dtype_of
from exec.host import Host
from exec.jobfile import Charge
from exec.processes import file_name, pid_file
from exec.store import FileStore
from models.errors import InputError
from report.exits import Exit
from report.folder import RunFolder
from scenarios.load import ScenarioError
from scenarios.memory import machine_memory
from scenarios.plan import Plan, plan

NICE = 5
"""Roles compute; supervisor and agents, which must be heard, do not wait for them."""


def live(errand: str) -> int:
    """What a process from the nursery does; exit codes as `report/exits.py`, and the last line of its log says why."""
    told = json.loads(errand)
    charge, folder, process = Charge.from_json(told["charge"]), Path(told["folder"]), Process(told["name"], told["life"])
    os.nice(NICE)
    entitle(charge, process)
    try:
        made = plan(charge.job.load(), numerics="real", device=charge.job.device)
        if role_kind(process.name) in ("shard", "mirror"):
            made.check_memory(machine_memory(), "on this machine")
    except (ScenarioError, InputError) as error:
        sys.stderr.write(f"{one_line(str(error))}\n")
        return Exit.WRONG_INPUT
    return asyncio.run(lives(charge, folder, process, made))


def entitle(charge: Charge, process: Process) -> None:
    """As an operator sees it among all processes."""
    import setproctitle

    setproctitle.setproctitle(f"execctl role={process.name} life={process.life} machine={charge.number} job={charge.job.job[:8]}")


async def lives(charge: Charge, folder: Path, process: Process, made: Plan) -> int:
    """One life after another: a mirror that is promoted lives on as the shard."""
    inherited: Shard | None = None
    while True:
        ended = await life(charge, folder, process, made, inherited)
        if not isinstance(ended, Promoted):
            return ended
        process, inherited = Process(ended.role, ended.life), ended.shard
        entitle(charge, process)
        pid_file(folder, process.name).write_text(f"{os.getpid()}\n")


async def life(charge: Charge, folder: Path, process: Process, made: Plan, inherited: Shard | None) -> int | Promoted:
    """To its end, or until the agent ends it; the exit code, if the process has no further life."""
    job, scenario = charge.job, made.scenario
    own = Identity(job.job, process.name, process.life)
    store = FileStore(folder / "store" / process.name.replace("/", "-"), process.life)
    with (folder / RunFolder.JOURNALS / f"{file_name(process)}.tsv").open("wb") as file:
        async with Host(
            own, Journal(file, prompt=True), deadline_s=made.job.deadline_s, timings=made.job.timings, launched_at=job.launched_at,
            seed=scenario.seed, store=store, bind=addresses.towards(job.supervisor), credentials=charge.credentials,
            limits=limits(made, process.name), shared_memory=scenario.exec.shared_memory,
            interference=Interference.of(scenario, process.name, process.life, f"machine/{charge.number}"),
        ) as host:  # fmt: skip
            host.introduce(SUPERVISOR, 0, job.supervisor)
            leaving = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leaving.set)
            living = asyncio.ensure_future(live_role(host, made, inherited, leaving))
            asked = asyncio.ensure_future(leaving.wait())
            ends: list[asyncio.Future[Any]] = [living, asked, host.failure]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            asked.cancel()
            if host.failure.done():
                host.failure.result()
            if not living.done() and role_kind(process.name) == "shard":
                await asyncio.wait([living])
            if not living.done():
                living.cancel()
                return Exit.DONE
            code, reason, result = outcome(living)
            if reason:
                host.record("failed" if code else "ended", note=one_line(reason))
                sys.stderr.write(f"{one_line(reason, 1000)}\n")
            if isinstance(result, Final):
                made.save(result.parameters, RunFolder.model_in(folder))
            await asyncio.to_thread(store.close)
            return result if isinstance(result, Promoted) else code


def outcome(living: asyncio.Future[Final | Promoted | None]) -> tuple[int, str, Final | Promoted | None]:
    """Exit code, reason if there is something to say, and what it leaves."""
    try:
        return Exit.DONE, "", living.result()
    except Diverged as error:
        return Exit.FAILED, str(error), None
    except StoreFailed as error:
        return Exit.NOT_WRITTEN, str(error), None
    except InputError as error:
        return Exit.WRONG_INPUT, str(error), None
    except (Refused, Outlived) as error:
        return Exit.DONE, f"refused: {error}", None


def crossing(made: Plan, machine: int) -> tuple[Payload, ...]:
    """The largest message of a minibatch that another machine may send here."""
    assert made.partitioned is not None
    there = [message for message in made.partitioned.messages if machine in (message.source, message.destination)]
    vector = made.network.initial()[0:1]
    elements = max((message.count(made.at_once) for message in there), default=1)
    return (Payload(dtype_of(vector), elements * vector.nbytes),)


def limits(made: Plan, role: str) -> tuple[Payload, ...]:
    """What a shard or mirror takes in: vectors of its slice, in the type in which they travel, and in which they are kept.

    A machine of a replica takes in what others of it send.
    """
    kind, _, number = role.partition("/")
    if kind == "replica" and made.partitioned is not None:
        return crossing(made, partition_number(role))
    if kind not in ("shard", "mirror"):
        return ()
    parameters = made.network.initial()[made.job.shards[int(number)].part]
    kept = Payload(dtype_of(parameters), parameters.nbytes)
    if made.job.wire == "float32":
        return (kept,)
    return kept, Payload(made.job.wire, len(parameters) * DTYPES[made.job.wire])
