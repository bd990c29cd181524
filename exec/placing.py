"""Where a job's agents run, and how they get there.  A backend starts agents and nothing else: the rest is the supervisor's.

local   on this machine
ssh     on a list of hosts, through ssh, or through whatever command reaches them
slurm   on the nodes of the allocation that the launcher runs in, through srun
ray     on the nodes of a Ray cluster: `exec/ray_cluster.py`
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from exec.jobfile import Charge
from report.exits import StartError
from scenarios.schema import Scenario

AGENT = ("-P", "-m", "exec.agent")
"""-P: the user's own folder may hold a `models/` too; it must not hide ours."""

AGAIN_AFTER_S = 1.0
"""Before an agent that has ended is started again, doubled each time it ends soon."""
SOON_S = 30.0
GIVE_UP_AFTER = 5


class Backend(Protocol):
    """Starts one agent on each machine, and again where one has ended; `over` is set once they are to end by themselves."""

    machines: list[str]
    """As a person knows them; the agent's number is the place in this list."""

    async def start(self, charge: Charge) -> None:
        """Start an agent.  Raises StartError."""

    async def end(self) -> None:
        """Wait a moment for all that were started to end by themselves, then make them."""

    def kill(self) -> None:
        """End all that were started, now."""

    def trouble(self) -> str:
        """Why agents do not run that should, "" if they do."""


@dataclass(slots=True, eq=False)
class Started:
    """An agent, as a command of this machine."""

    charge: Charge
    machine: str
    command: list[str]
    child: asyncio.subprocess.Process | None = None
    ends: int = 0
    """How often it has ended soon after it was started."""
    fate: str = ""


@dataclass(slots=True, eq=False)
class Commands:
    """Agents that a command starts: on this machine, or wherever the command leads."""

    machines: list[str]
    through: Callable[[str], list[str]]
    """Of a machine: what stands before the agent's own command."""
    python: str
    logs: Path
    agents: dict[int, Started] = field(default_factory=dict)
    over: bool = False
    _keeping: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self, charge: Charge) -> None:
        machine = self.machines[charge.number]
        started = Started(charge, machine, [*self.through(machine), self.python, *AGENT])
        self.agents[charge.number] = started
        await self.begin(started)
        self._keeping.append(asyncio.create_task(self.keep(started)))

    async def begin(self, started: Started) -> None:
        try:
            with (self.logs / f"agent-{started.charge.number}.log").open("ab") as log:
                started.child = await asyncio.create_subprocess_exec(
                    *started.command, stdin=asyncio.subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
                    env=os.environ | {"PYTHONUNBUFFERED": "1", "GRPC_VERBOSITY": "NONE"},
                )  # fmt: skip
        except OSError as error:
            raise StartError(f"the agent of {started.machine} cannot start: {shlex.join(started.command)}: {error.strerror}") from error
        assert started.child.stdin is not None
        started.child.stdin.write(started.charge.to_json().encode() + b"\n")
        started.child.stdin.close()

    async def keep(self, started: Started) -> None:
        """Start it again whenever it ends before the job is over: everything on its machine has ended with it."""
        loop = asyncio.get_running_loop()
        while True:
            assert started.child is not None
            began = loop.time()
            code = await started.child.wait()
            if self.over or code == 0:
                return
            started.ends = started.ends + 1 if loop.time() - began < SOON_S else 1
            started.fate = how_it_ended(started.machine, code, self.logs / f"agent-{started.charge.number}.log")
            if started.ends >= GIVE_UP_AFTER:
                return
            await asyncio.sleep(AGAIN_AFTER_S * 2 ** (started.ends - 1) if started.ends > 1 else 0.0)
            await self.begin(started)

    def trouble(self) -> str:
        return "; ".join(started.fate for started in self.agents.values() if started.ends >= GIVE_UP_AFTER)

    async def end(self, patience_s: float = 5.0) -> None:
        self.over = True
        children = [started.child for started in self.agents.values() if started.child is not None]
        for how in (0, signal.SIGTERM, signal.SIGKILL):  # the first only looks whether it is there
            for child in children:
                if child.returncode is None:
                    child.send_signal(how)
            try:
                async with asyncio.timeout(patience_s):
                    await asyncio.gather(*(child.wait() for child in children))
            except TimeoutError:
                continue
        for task in self._keeping:
            task.cancel()

    def kill(self) -> None:
        """Now."""
        self.over = True
        for started in self.agents.values():
            if started.child is not None and started.child.returncode is None:
                started.child.kill()


def how_ended(code: int) -> str:
    """A process's exit code, in words."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def how_it_ended(machine: str, code: int, log: Path) -> str:
    """An agent's end, with its last words."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return f"the agent of {machine} {how_ended(code)}" + (f": {lines[-1]}" if lines else "")


def backend(scenario: Scenario, folder: Path) -> Backend:
    """What the scenario's [placement] asks for.  Raises StartError."""
    placement, logs = scenario.placement, folder / "logs"
    python = placement.python or sys.executable
    if placement.on == "local":
        count = placement.machines or 1
        return Commands([f"local-{number}" if count > 1 else "local" for number in range(count)], lambda _: [], python, logs)
    if placement.on == "ssh":
        hosts = list(placement.hosts[: placement.machines])
        return Commands(hosts, lambda host: [part.replace("{host}", host) for part in placement.through], python, logs)
    if placement.on == "slurm":
        return Commands(slurm_nodes(placement.machines), srun, python, logs)
    from exec.ray_cluster import RayAgents

    return RayAgents(placement.machines, logs)


def slurm_nodes(count: int | None) -> list[str]:
    """Nodes of the allocation that this process is in.  Raises StartError."""
    nodes = os.environ.get("SLURM_JOB_NODELIST")
    if not nodes:
        raise StartError("placement.on = 'slurm': this is no allocation of Slurm; start it inside one: salloc -N 4 execctl launch …")
    try:
        listed = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True).stdout.split()  # noqa: S607
    except (OSError, subprocess.CalledProcessError) as error:
        raise StartError(f"placement.on = 'slurm': scontrol cannot list the nodes {nodes}: {error}") from None
    if count is not None and count > len(listed):
        raise StartError(f"placement.machines = {count}; the allocation has {len(listed)} nodes: {', '.join(listed)}")
    return listed[:count]


def srun(node: str) -> list[str]:
    """One task on that node; losing another node, or this task, ends nobody else."""
    return ["srun", "--nodes=1", "--ntasks=1", f"--nodelist={node}", "--overlap", "--no-kill", "--kill-on-bad-exit=0", "--exact", "--mem=0"]
