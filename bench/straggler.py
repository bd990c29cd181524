"""What one slow worker costs: seconds to a held-out accuracy, Downpour SGD beside torch's DistributedDataParallel over gloo.

    python -m bench.straggler [--runs 3] [--slow-factor 10] [--json]

Four workers train the same network from the same start, on the same parts of the handwritten digits, in minibatches of the
same size, each with one thread.  Then the same again with the last worker stopped for 9 of every 10 ms: `exec.chaos` does
it on both sides, from before the first step.  Ours is `execctl launch`, timed from the journal's `begun` to the `evaluated`
that first reaches the accuracy; what replicas need to find their shards counts.  The reference is timed from its first
step, after a pass that warms each process up, to the first evaluation on rank 0 that reaches the accuracy.

Each side's rate was chosen by itself, from the same grid of 0.001 to 0.02, for the least time on its own.
Runs alternate between the sides, figures are medians; what to compare between machines is the ratio, not the seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from core.journal import Record, parse
from exec.chaos import Faults
from scenarios.load import load
from scenarios.plan import plan

WORKERS = 4
LIMIT_S = 180.0
"""One run; whatever has not reached the accuracy by then is nan."""

SCENARIO = """
schema = 1
name = "straggler"
seed = {seed}
model = {{ network = "mlp", layers = {layers} }}

[protocol]
kind = "downpour"
replicas = {workers}
shards = 2
batch = {batch}
rule = {{ kind = "adagrad", learning_rate = {rate} }}
deadline = "{deadline}"
evaluate_every = "{every}"
stop = {{ accuracy = {accuracy}, epochs = 200, time = "{limit} s" }}

[exec]
start_within = "{limit} s"
"""
FAULT = """
[[fault]]
kind = "slowdown"
target = "replica/{last}"
at = "{at} s"
for = "1 s"
factor = {factor}
"""
"""One for each second of the job: those that come before the replica's process is there do not find it."""


@dataclass(slots=True)
class Outcome:
    """How long it took, in how many updates of a shard, or steps of all workers."""

    seconds: float
    updates: int


# ours


def downpour(file: Path, folder: Path, accuracy: float) -> Outcome:
    """One job of `execctl`, which ends its processes itself."""
    command = [str(Path(sys.executable).with_name("execctl")), "launch", str(file), "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  our own command
    if done.returncode:
        raise SystemExit(f"execctl ended with exit code {done.returncode}: {done.stderr.strip()} {done.stdout}")
    with (folder / "journal.tsv").open(encoding="utf-8") as lines:
        return read(map(parse, lines), accuracy, slow=bool(load(str(file)).fault))


def read(journal: Iterable[Record], accuracy: float, *, slow: bool) -> Outcome:
    """From the beginning of the job to the first evaluation that is good enough."""
    begun, slowed = float("nan"), False
    for record in journal:
        if record.event == "begun":
            begun = record.time_s
            if slow and not slowed:
                raise SystemExit("the job began before its straggler was slow: this machine is too fast, or too slow, for FAULT")
        elif record.event == "slowed":
            slowed = True
        elif record.event == "evaluated" and record.note and float(record.note) >= accuracy:
            return Outcome(record.time_s - begun, record.number)
    return Outcome(float("nan"), 0)


# the reference


class Ranks:
    """Processes of the reference, each started anew, as `exec.chaos.Victims`."""

    def __init__(self, file: Path, meeting: Path, options: argparse.Namespace) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.pipes: list[Connection] = []
        self.children: list[BaseProcess] = []
        for number in range(WORKERS):
            pipe, end = spawn.Pipe()
            child = spawn.Process(target=rank, args=(end, number, file, meeting, options), daemon=True)
            child.start()
            end.close()  # so that a child's death is an EOFError here
            self.pipes.append(pipe)
            self.children.append(child)

    def heard(self, number: int) -> Outcome | None:
        """What a rank says next."""
        said: Outcome | None = self.pipes[number].recv() if self.pipes[number].poll(LIMIT_S) else Outcome(float("nan"), 0)
        return said

    def roles(self) -> list[str]:
        return [f"replica/{number}" for number in range(WORKERS)]

    def signal_role(self, role: str, number: int) -> None:
        pid = self.children[int(role.rpartition("/")[2])].pid
        assert pid is not None
        os.kill(pid, number)

    def fell(self, role: str, number: int, _why: str, _hold: asyncio.Future[None]) -> None:
        self.signal_role(role, number)

    def close(self) -> None:
        """At once, for all but the first wait for each other."""
        for child in self.children:
            child.kill()
        for child in self.children:
            child.join()


async def data_parallel(file: Path, meeting: Path, options: argparse.Namespace) -> Outcome:
    ranks = Ranks(file, meeting, options)
    try:
        for number in range(WORKERS):
            await asyncio.to_thread(ranks.heard, number)
        began = time.monotonic() + 0.1 - 1.0
        slowing = asyncio.ensure_future(
            Faults(load(str(file)), "", ranks, now=lambda: time.monotonic() - began, record=lambda *_, **__: None).run()
        )
        await asyncio.sleep(0.2)
        for pipe in ranks.pipes:
            pipe.send("go")
        outcome = await asyncio.to_thread(ranks.heard, 0)
        slowing.cancel()
        assert outcome is not None
        return outcome
    finally:
        ranks.close()


def rank(pipe: Connection, number: int, file: Path, meeting: Path, options: argparse.Namespace) -> None:
    """One worker of the reference; the first says when the accuracy is reached, and is ended then like all others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=number, world_size=WORKERS)
    made = plan(load(str(file)), real=True)
    network, minibatches = made.torch_network(), made.data(number, 1)
    network.gradient(network.initial(), minibatches.minibatch(0)).run()
    module = DistributedDataParallel(network.module)
    optimizer = torch.optim.Adagrad(module.parameters(), options.ddp_rate)
    pipe.send(None)
    pipe.recv()
    began, step = time.monotonic(), 0
    while True:
        batch = minibatches.minibatch(step)
        optimizer.zero_grad()
        network.criterion(module(batch.inputs), batch.targets).backward()
        optimizer.step()
        step += 1
        if number == 0 and step % options.ddp_every == 0:
            quality = network.evaluate(network.flat).run()
            if quality.accuracy is not None and quality.accuracy >= options.accuracy:
                pipe.send(Outcome(time.monotonic() - began, step))


# both


SIDES = ("downpour", "ddp")


def measure(options: argparse.Namespace) -> dict[str, list[Outcome]]:
    """Outcomes of each side, with and without the straggler."""
    outcomes: dict[str, list[Outcome]] = {}
    with tempfile.TemporaryDirectory(prefix="straggler-") as name:
        for run in range(options.runs):
            for slow in ("", " slow"):
                here = Path(name) / f"{run}{slow.strip()}"
                here.mkdir()
                file = here / "straggler.toml"
                file.write_text(scenario(options, run, slow=bool(slow)), encoding="utf-8")
                for side in options.sides:
                    if side == "downpour":
                        outcome = downpour(file, here / "run", options.accuracy)
                    else:
                        outcome = asyncio.run(data_parallel(file, here / "meeting", options))
                    outcomes.setdefault(side + slow, []).append(outcome)
                    if options.verbose:
                        print(side + slow, outcome, file=sys.stderr, flush=True)
    return outcomes


def scenario(options: argparse.Namespace, run: int, *, slow: bool) -> str:
    text = SCENARIO.format(
        seed=11 + run, layers=options.layers, workers=WORKERS, batch=options.batch, rate=options.rate, deadline=options.deadline,
        every=options.every, accuracy=options.accuracy, limit=LIMIT_S,
    )  # fmt: skip
    seconds = range(1, int(LIMIT_S)) if slow else ()
    return text + options.extra + "".join(FAULT.format(last=WORKERS - 1, at=at, factor=options.slow_factor) for at in seconds)


def main() -> None:
    parser = argparse.ArgumentParser("bench.straggler", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--slow-factor", type=float, default=10.0, help="of the straggler")
    parser.add_argument("--accuracy", type=float, default=0.95)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--layers", default="[64, 1024, 1024, 10]")
    parser.add_argument("--rate", type=float, default=0.005)
    parser.add_argument("--ddp-rate", type=float, default=0.01)
    parser.add_argument("--ddp-every", type=int, default=2)
    parser.add_argument("--deadline", default="1 s")
    parser.add_argument("--every", default="0.1 s")
    parser.add_argument("--extra", default="")
    parser.add_argument("--sides", default=SIDES, type=lambda s: s.split(","))
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    print(measure(options))


if __name__ == "__main__":
    main()
