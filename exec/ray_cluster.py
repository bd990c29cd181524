"""Agents on the nodes of a Ray cluster: Ray finds the nodes and keeps a place on each, all else is as with any other backend.

Each node gets one actor, and all that it does is to keep an agent running.  It is detached: if the launcher is gone the job
goes on, and the actor ends when its agent does.  What an agent is told, its key with it, passes through Ray's own store and
network, which are as safe as that cluster is.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from exec import addresses
from exec.jobfile import Charge
from exec.placing import AGAIN_AFTER_S, AGENT, GIVE_UP_AFTER, SOON_S, how_it_ended
from report.exits import StartError

NAMESPACE = "opendistbelief"
ASK_EVERY_S = 0.5
ANSWERS_WITHIN_S = 5.0
LINGER_S = 10.0
"""How long an actor whose agent is done waits for somebody to ask for its last words."""


class News(NamedTuple):
    """What an actor has to tell."""

    output: bytes
    """What its agent has written since it was last asked."""
    ends: int
    """How often in a row it has ended soon after it was started."""
    fate: str
    over: bool
    """It is not started again."""


class Keeper:
    """The actor: runs the agent of its node, and again where it has ended."""

    def __init__(self, charge: str, machine: str) -> None:
        self.charge, self.machine = charge, machine
        self._nameless = tempfile.TemporaryFile()  # noqa: SIM115  gone with the actor, however that ends
        self.output = Path(f"/proc/self/fd/{self._nameless.fileno()}")
        self.ends, self.fate, self.over = 0, "", False
        threading.Thread(target=self.keep, daemon=True).start()  # the agent ends with the thread that started it

    def keep(self) -> None:
        while True:
            began = time.monotonic()
            code = self.run()
            if code == 0:
                break
            self.ends = self.ends + 1 if time.monotonic() - began < SOON_S else 1
            self.fate = how_it_ended(self.machine, code, self.output)
            if self.ends >= GIVE_UP_AFTER:
                break
            if self.ends > 1:
                time.sleep(AGAIN_AFTER_S * 2 ** (self.ends - 1))
        self.over = True
        time.sleep(LINGER_S)
        self.leave()

    def run(self) -> int:
        """One life of the agent; its exit code."""
        command = [sys.executable, *AGENT, str(os.getpid())]
        environment = os.environ | {"PYTHONUNBUFFERED": "1", "GRPC_VERBOSITY": "NONE"}
        with self.output.open("ab") as log:
            agent = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True
            )  # fmt: skip
        assert agent.stdin is not None
        with contextlib.suppress(BrokenPipeError), agent.stdin as stdin:
            stdin.write(self.charge.encode() + b"\n")
        return agent.wait()

    def leave(self) -> None:
        """End the actor; Ray would start again one that merely exits."""
        import ray

        ray.kill(ray.get_runtime_context().current_actor)

    # what the launcher asks for

    def news(self, known: int) -> News:
        """`known`: bytes of output that have been told."""
        with self.output.open("rb") as file:
            file.seek(known)
            return News(file.read(), self.ends, self.fate, self.over)


@dataclass(slots=True, eq=False)
class Placed:
    """An agent's actor, as the launcher knows it."""

    number: int
    machine: str
    actor: Any
    told: int = 0
    heard: bool = False
    trouble: str = ""
    over: bool = False


class RayAgents:
    """`exec.placing.Backend`: an agent on each node of a cluster that has a core to spare."""

    def __init__(self, machines: int | None, logs: Path) -> None:
        """Raises StartError."""
        self.nodes = nodes(machines)
        self.machines = [node["NodeManagerHostname"] for node in self.nodes]
        self.logs = logs
        self.over = False
        self.placed: dict[int, Placed] = {}
        self._watching: list[asyncio.Task[None]] = []

    async def start(self, charge: Charge) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        node = self.nodes[charge.number]
        asked = ray.remote(Keeper).options(
            name=f"{charge.job.job}-{charge.number}", namespace=NAMESPACE, lifetime="detached",
            num_cpus=1, num_gpus=node["Resources"].get("GPU", 0), max_restarts=-1, max_concurrency=4,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        )  # fmt: skip
        placed = Placed(charge.number, self.machines[charge.number], asked.remote(charge.to_json(), self.machines[charge.number]))
        self.placed[charge.number] = placed
        self._watching.append(asyncio.create_task(self.watch(placed)))

    async def watch(self, placed: Placed) -> None:
        """Write down what its agent says, for as long as its node is there."""
        silent = asyncio.get_running_loop().call_later(SOON_S, self.unheard, placed)
        while not placed.over:
            await self.hear(placed)
            if placed.heard:
                silent.cancel()
            await asyncio.sleep(ASK_EVERY_S)

    async def hear(self, placed: Placed) -> None:
        from ray.exceptions import ActorUnavailableError, RayError

        try:
            news = await placed.actor.news.remote(placed.told)
        except ActorUnavailableError:
            return  # Ray is starting it again
        except RayError as error:
            placed.over, placed.trouble = True, f"the node {placed.machine} is gone: {str(error).partition(chr(10))[0]}"
            return
        with (self.logs / f"agent-{placed.number}.log").open("ab") as log:
            log.write(news.output)
        placed.told += len(news.output)
        placed.heard, placed.over = True, news.over
        placed.trouble = news.fate if news.ends >= GIVE_UP_AFTER else ""

    def unheard(self, placed: Placed) -> None:
        placed.trouble = f"Ray has not found a core for the agent of {placed.machine} in {SOON_S:g} s: are all in use?"

    def trouble(self) -> str:
        return "; ".join(placed.trouble for placed in self.placed.values() if placed.trouble)

    async def end(self, patience_s: float = 5.0) -> None:
        import ray

        self.over = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await asyncio.gather(*self._watching)
        for task in self._watching:
            task.cancel()
        self.kill()
        ray.shutdown()

    def kill(self) -> None:
        """Now; an agent ends with its actor."""
        import ray

        self.over = True
        for placed in self.placed.values():
            ray.kill(placed.actor)


def nodes(count: int | None) -> list[dict[str, Any]]:
    """Nodes of the cluster, as Ray describes them.  Raises StartError."""
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise StartError("placement.on = 'ray': Ray is not installed here; pip install 'opendistbelief[ray]'") from None
    address = os.environ.get("RAY_ADDRESS", "auto")
    try:
        if ":" in address:  # Ray itself would go on trying for minutes
            socket.create_connection(addresses.split(address.removeprefix("ray://")), ANSWERS_WITHIN_S).close()
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise StartError(f"placement.on = 'ray': no cluster at {address!r} ({reason}); start one with `ray start --head`") from None
    ray._private.worker._worker_logs_enabled = False  # there is no public way to keep its warnings off our standard output
    usable = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    usable.sort(key=lambda node: (node["NodeManagerAddress"], node["NodeID"]))
    if not usable or (count or 0) > len(usable):
        ray.shutdown()
        raise StartError(f"placement.machines = {count or 'all'}; the Ray cluster has {len(usable)} nodes with a core")
    return usable[:count]
