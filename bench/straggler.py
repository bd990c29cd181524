"""What one slow worker costs: seconds to a held-out accuracy, Downpour SGD beside torch's DistributedDataParallel over gloo.

    python -m bench.straggler [--runs 3] [--slow-factor 10] [--json]

Four workers train the same network from the same start, on the same parts of shifted and noisy handwritten digits
(`bench/shifted_digits.py`: the plain ones are learnt in sixteen steps, which tells nothing), in minibatches of the same size, each with one thread, with Adagrad.  Then the same again with the last worker stopped for 9 of every 10 ms:
`exec.chaos` does it on both sides, from before the first step.  Ours is `execctl launch`, timed from the journal's `begun`
to the first `evaluated` that reaches the accuracy: that replicas look for their shards counts.  The reference is timed from
its first step to the first evaluation on rank 0 that reaches the accuracy: that its processes start, meet, agree on
parameters and warm up does not count.  Each side has a rate of its own, see RATES.

The sides take turns, each run has a seed of its own, figures are medians.  What to compare between machines is the ratio,
not the seconds; other load on the machine falls on either side by chance, so take more runs where there is any.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from core.job import replica_name, role_number
from core.journal import Record, parse
from core.reports import Process
from exec.chaos import Faults
from scenarios.load import load
from scenarios.plan import plan

WORKERS = 4
ACCURACY = 0.95
LIMIT_S = 180
"""Of one run."""

RATES = {"downpour": 0.0075, "ddp": 0.02}
"""Those that reach the accuracy soonest on two cores with the straggler, among 0.005, 0.0075 and 0.01 (ours) and 0.005, 0.01, 0.02
and 0.03 (the reference)."""

EVALUATE_EVERY = 5
"""Steps of the reference."""

SCENARIO = """
schema = 1
name = "straggler"
seed = {seed}
model = {{ network = "mlp", layers = [100, 1024, 1024, 10] }}
data = {{ source = "{data}:shifted", held_out = 0.05 }}

[protocol]
kind = "downpour"
replicas = {workers}
shards = 2
batch = {batch}
rule = {{ kind = "adagrad", learning_rate = {rate} }}
deadline = "1 s"
evaluate_every = "0.25 s"
stop = {{ accuracy = {accuracy}, epochs = 200, time = "{limit} s" }}

[exec]
device = "cpu"
start_within = "{limit} s"
"""

FAULT = """
[[fault]]
kind = "slowdown"
target = "replica/{last}"
at = "0 s"
factor = {factor}
"""
"""From the first moment of its process to the last."""


@dataclass(slots=True)
class Outcome:
    """How long it took, in how many updates of a shard, or steps of all workers; of ours also until a replica had joined."""

    seconds: float
    updates: int
    joined: float = 0.0


# ours


def downpour(file: Path, folder: Path) -> Outcome:
    """One job of `execctl`, which ends its processes itself."""
    command = [str(Path(sys.executable).with_name("execctl")), "launch", str(file), "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"execctl ended with exit code {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    with (folder / "journal.tsv").open(encoding="utf-8") as lines:
        return outcome(map(parse, lines), slow=bool(load(str(file)).fault))


def outcome(journal: Iterable[Record], *, slow: bool) -> Outcome:
    """From the beginning of the job to the first evaluation that is good enough."""
    begun, joined, slowed = 0.0, 0.0, False
    for record in journal:
        if record.event == "slowed":
            slowed = True
        elif record.event == "begun":
            begun = record.time_s
            if slow and not slowed:
                raise SystemExit("the job began before its straggler was slow")
        elif record.event == "joined" and not joined:
            joined = record.time_s - begun
        elif record.event == "evaluated" and record.note and float(record.note) >= ACCURACY:
            return Outcome(record.time_s - begun, record.number, joined)
    raise SystemExit(f"the job ended before an accuracy of {ACCURACY}")


# the reference


class Ranks:
    """Processes of the reference, as `exec.chaos.Victims`; forked, before any thread, from one that has loaded torch."""

    def __init__(self, file: Path, meeting: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["__main__", "models.torch_network"])
        self.pipes: list[Connection] = []
        self.children: list[BaseProcess] = []
        for number in range(WORKERS):
            pipe, end = context.Pipe()
            child = context.Process(target=rank, args=(end, number, file, meeting), daemon=True)
            child.start()
            end.close()  # so that a child's death is an EOFError here
            self.pipes.append(pipe)
            self.children.append(child)

    def heard(self, number: int) -> Outcome:
        """What a rank says next."""
        if not self.pipes[number].poll(LIMIT_S):
            raise SystemExit(f"rank {number} said nothing for {LIMIT_S} s")
        said: Outcome = self.pipes[number].recv()
        return said

    def roles(self) -> dict[Process, str]:
        names = [replica_name(number) for number in range(WORKERS)]
        return {Process(name, 1): name for name in names}

    def send(self, process: Process, number: int) -> None:
        pid = self.children[role_number(process.name)].pid
        assert pid is not None
        os.kill(pid, number)

    def fell(self, process: Process, _why: str, _hold: asyncio.Future[None]) -> None:
        self.send(process, signal.SIGKILL)

    def close(self) -> None:
        """The first has its result, and the others wait for it: no gentle end is worth the wait."""
        for child in self.children:
            child.kill()
        for child in self.children:
            child.join()


async def data_parallel(file: Path, meeting: Path) -> Outcome:
    ranks = Ranks(file, meeting)
    try:
        for number in range(WORKERS):
            await asyncio.to_thread(ranks.heard, number)
        zero = time.monotonic()
        faults = Faults(load(str(file)), "", ranks, now=lambda: time.monotonic() - zero, record=lambda *_, **__: None)
        slowing = asyncio.ensure_future(faults.run())
        await asyncio.sleep(1.0)  # it is slow
        for pipe in ranks.pipes:
            pipe.send("go")
        reached = await asyncio.to_thread(ranks.heard, 0)
        slowing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await slowing
        return reached
    finally:
        ranks.close()


def rank(pipe: Connection, number: int, file: Path, meeting: Path) -> None:
    """One worker of the reference; the first says when the accuracy is reached."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=number, world_size=WORKERS)
    made = plan(load(str(file)), numerics="real")
    network, minibatches = made.torch_network(), made.data(number, 1)
    network.gradient(network.initial(), minibatches.minibatch(0)).run()
    network.evaluate(network.initial()).run()
    module = DistributedDataParallel(network.module)
    optimizer = torch.optim.Adagrad(module.parameters(), RATES["ddp"])
    pipe.send(Outcome(0.0, 0))
    pipe.recv()
    began, step, accuracy = time.monotonic(), 0, 0.0
    while accuracy < ACCURACY:
        batch = minibatches.minibatch(step)
        optimizer.zero_grad()
        network.criterion(module(batch.inputs), batch.targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        step += 1
        if number == 0 and step % EVALUATE_EVERY == 0:
            accuracy = network.evaluate(network.flat).run().accuracy or 0.0
    pipe.send(Outcome(time.monotonic() - began, step))
    pipe.recv()


# both


def measure(options: argparse.Namespace) -> dict[str, list[Outcome]]:
    """Outcomes of each side, with and without the straggler."""
    outcomes: dict[str, list[Outcome]] = {}
    with tempfile.TemporaryDirectory(prefix="straggler-") as name:
        for run in range(options.runs):
            for kind in ("even", "slow"):
                here = Path(name) / f"{kind}-{run}"
                here.mkdir()
                file = here / "straggler.toml"
                file.write_text(scenario(options, run, slow=kind == "slow"), encoding="utf-8")
                outcomes.setdefault(f"downpour {kind}", []).append(downpour(file, here / "run"))
                outcomes.setdefault(f"ddp {kind}", []).append(asyncio.run(data_parallel(file, here / "meeting")))
    return outcomes


def scenario(options: argparse.Namespace, run: int, *, slow: bool) -> str:
    text = SCENARIO.format(
        seed=11 + run, data=Path(__file__).with_name("shifted_digits.py"), workers=WORKERS, batch=options.batch, rate=RATES["downpour"], accuracy=ACCURACY, limit=LIMIT_S
    )  # fmt: skip
    return text + (FAULT.format(last=WORKERS - 1, factor=options.slow_factor) if slow else "")


def show(outcomes: dict[str, list[Outcome]], options: argparse.Namespace) -> None:
    seconds = {name: statistics.median(one.seconds for one in several) for name, several in outcomes.items()}
    ratio = seconds["ddp slow"] / seconds["downpour slow"]
    if options.json:
        runs = {name: [asdict(one) for one in several] for name, several in outcomes.items()}
        print(json.dumps({**vars(options), "runs": runs, "seconds": seconds, "ratio": ratio}))
        return
    print(f"accuracy {ACCURACY}, {WORKERS} workers with batches of {options.batch}, medians of {options.runs} runs, in seconds")
    print(f"  {'':<10}{'all even':>10}{f'one {options.slow_factor:g}x slow':>16}   updates")
    for side in ("downpour", "ddp"):
        updates = [statistics.median(one.updates for one in outcomes[f"{side} {kind}"]) for kind in ("even", "slow")]
        print(f"  {side:<10}{seconds[f'{side} even']:>10.2f}{seconds[f'{side} slow']:>16.2f}   {updates[0]:g} and {updates[1]:g}")
    print(f"  with the straggler: ddp / downpour {ratio:.2f}; evenly: {seconds['ddp even'] / seconds['downpour even']:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser("bench.straggler", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--slow-factor", type=float, default=10.0, help="how many times slower the last worker is")
    parser.add_argument("--batch", type=int, default=128, help="of each worker")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    show(measure(options), options)


if __name__ == "__main__":
    main()
