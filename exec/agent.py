"""`execctl agent`: one for each machine.  Starts, watches and ends the processes of one job there, and dies with them.

It is told what job it is of in one line on standard input, so that no key stands on a command line.  Its first word to the
supervisor is the machine's cores, memory, GPUs and storage.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from pathlib import Path

from core.agent import Agent
from core.job import SUPERVISOR, agent_name
from core.journal import Journal, one_line
from core.reports import Capacity
from core.timings import Timings
from exec import addresses
from exec.certificates import verify
from exec.chaos import Faults
from exec.codec import Identity
from exec.host import Host
from exec.jobfile import NAME, Charge, JobFile
from exec.nursery import end_with
from exec.processes import Processes
from exec.relaying import Relaying
from models.errors import InputError
from report.exits import Exit, StartError
from scenarios.load import ScenarioError
from scenarios.memory import machine_memory


def main() -> None:
    """Exit codes as `report/exits.py`.  A pid as argument: of the process with which it ends."""
    import setproctitle

    os.umask(0o077)  # an agent of another machine inherits none
    if len(sys.argv) > 1 and sys.argv[1].isdigit():
        end_with(int(sys.argv[1]), signal.SIGTERM)
    line = sys.stdin.readline()
    if not line:
        sys.exit("an agent is started by execctl launch, which tells it what job it is of")
    charge = Charge.from_json(line)
    setproctitle.setproctitle(f"execctl agent={charge.number} job={charge.job.job[:8]}")
    try:
        if charge.credentials is not None:
            verify(charge.credentials, charge.job.job)
        sys.exit(asyncio.run(serve(charge)))
    except (ScenarioError, InputError, StartError) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(Exit.WRONG_INPUT)


async def serve(charge: Charge) -> int:
    """Until the job is over, a signal ends it, or the supervisor is gone for good."""
    job, boot = charge.job, time.time_ns() // 1_000_000
    folder = own_folder(charge)
    scenario = charge.job.load()
    timings = Timings(scenario.protocol.detect_within)
    own = Identity(job.job, agent_name(charge.number), boot)
    for name in ("journals", "logs"):
        (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "journals" / f"agent-{charge.number}.{boot}.tsv").open("wb") as file:
        async with Host(
            own, Journal(file, prompt=True), deadline_s=timings.deadline_s, timings=timings, launched_at=job.launched_at,
            bind=addresses.towards(job.supervisor), credentials=charge.credentials,
        ) as host:  # fmt: skip
            host.introduce(SUPERVISOR, 0, job.supervisor)
            hands = Processes(charge, folder, host.record, lambda process, outcome, how: agent.ended(process, outcome, how))  # noqa: PLW0108  the agent is made after its hands
            agent = Agent(host, hands, boot=boot, host=socket.gethostname(), capacity=capacity(folder), timings=timings)
            faults = Faults(scenario, f"machine/{charge.number}", hands, now=host.now, record=host.record)
            relaying = Relaying(host, folder, Path(job.folder))
            await hands.clear()
            await hands.nursery()
            running = asyncio.ensure_future(agent.run())
            stop = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
            stopping = asyncio.ensure_future(stop.wait())
            beside = [asyncio.ensure_future(faults.run()), asyncio.ensure_future(relaying.run())]
            await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
            agent.end("")
            running.cancel()
            stopping.cancel()
            beside[0].cancel()
            await hands.end_all()
            await relaying.finish()
            beside[1].cancel()
            if agent.concluded or stop.is_set():
                await agent.leave()
                return Exit.DONE
            host.record("failed", note=one_line(running.result()))
            sys.stderr.write(f"{running.result()}\n")
            return Exit.FAILED


def own_folder(charge: Charge) -> Path:
    """The run folder where this machine sees it; else, or if the scenario says so, one of the machine's own."""
    job = charge.job
    folder = Path(job.folder)
    try:
        shared = JobFile.of(folder).storage == job.storage
    except Exception:  # noqa: BLE001  whatever is there is not this job's
        shared = False
    if shared and charge.job.load().placement.storage == "auto":
        return folder
    own = folder / "machines" / str(charge.number) if shared else folder
    try:
        own.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        own = Path.home() / ".cache" / "opendistbelief" / job.job / str(charge.number)
        own.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = own / NAME
    if not path.exists():
        path.write_text(charge.job.to_json().replace(job.storage, f"{job.storage}-{charge.number}-{socket.gethostname()}"))
        path.chmod(0o600)
    return own


def capacity(folder: Path) -> Capacity:
    """What this machine has."""
    return Capacity(len(os.sched_getaffinity(0)), machine_memory(), gpus(), JobFile.of(folder).storage)


def gpus() -> int:
    """How many NVIDIA GPUs there are, without loading torch for it."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return len([one for one in listed.split(",") if one.strip() not in ("", "-1")])
    devices = Path("/proc/driver/nvidia/gpus")
    return len(list(devices.iterdir())) if devices.is_dir() else 0


if __name__ == "__main__":
    main()
