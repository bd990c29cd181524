"""L-BFGS by one process of torch beside `execctl` with two replicas and two shards, on the same problem, in one run.

    python -m bench.lbfgs [--iterations 30] [--runs 3] [--json]

Both begin with the same parameters, take all training samples as one batch, and search with the strong Wolfe conditions, so
they take the same steps: the losses printed side by side say whether they do.  torch has as many threads as ours has replicas, of one
thread each.  Times are for each evaluation of loss and gradient, everything included: of ours from the journal, the first left out.

*Overhead* is what an evaluation of ours takes beyond the reference's; *computing* is the share of an evaluation in which a
replica computes gradients, on average, and the rest is waiting for the other, for vectors on their way, and for the shards.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from core.journal import Record, parse
from scenarios.load import load
from scenarios.plan import plan

REPLICAS = 2

PROBLEMS = {
    "digits": """
model = { network = "mlp", layers = [64, 512, 512, 10] }
data = { source = "digits" }
""",
    "regression": """
model = {{ network = "{bench}/wide_regression.py:network", loss = "cross-entropy" }}
data = {{ source = "{bench}/wide_regression.py:samples", held_out = 0.1 }}
""".format(bench=Path(__file__).parent.resolve()),
}

SCENARIO = """
schema = 1
name = "lbfgs"
seed = 3
{problem}
[protocol]
kind = "sandblaster"
replicas = {replicas}
shards = 2
portions = 8
bundle = 4
durability = "none"
evaluate_every = "60 s"
stop = {{ iterations = {iterations}, gradient = 0, relative_loss = 0 }}

[exec]
device = "cpu"
threads = 1
"""


@dataclass(slots=True)
class Outcome:
    """Of one run: seconds for each evaluation, how many there were, the loss after the last iteration."""

    evaluation_s: float
    evaluations: int
    iteration_s: float
    loss: float
    computing: float = 1.0


def reference(file: Path, iterations: int) -> Outcome:
    """torch.optim.LBFGS on the module itself, in a process of its own."""
    command = [sys.executable, "-m", "bench.lbfgs", "--reference", str(file), "--iterations", str(iterations)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Outcome(**json.loads(done.stdout))


def minimise(file: Path, iterations: int) -> Outcome:
    """In this process."""
    torch.set_num_threads(REPLICAS)
    made = plan(load(str(file)), numerics="real", shared=True)
    torch.set_num_threads(REPLICAS)  # a plan sets those of one replica
    inputs, targets = made.torch_network().data.train.pick(torch.arange(len(made.torch_network().data.train)))
    module = made.torch_network().module
    module.load_state_dict(made.torch_network().state_dict(made.network.initial()))
    lbfgs = torch.optim.LBFGS(
        module.parameters(),
        max_iter=iterations,
        max_eval=100 * iterations,
        history_size=10,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )
    ends: list[float] = []
    loss = nn.functional.cross_entropy

    def closure() -> torch.Tensor:
        lbfgs.zero_grad()
        value = loss(module(inputs), targets)
        value.backward()  # type: ignore[no-untyped-call]
        ends.append(time.perf_counter())
        return value

    lbfgs.step(closure)
    last = float(loss(module(inputs), targets))
    durations = [after - before for before, after in pairwise(ends)]
    return Outcome(statistics.median(durations), len(ends), (ends[-1] - ends[0]) / iterations, last)


def ours(file: Path) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="lbfgs-") as folder:
        run = Path(folder) / "run"
        command = [str(Path(sys.executable).with_name("execctl")), "launch", str(file), "--out", str(run), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"execctl ended with exit code {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
        with (run / "journal.tsv").open(encoding="utf-8") as lines:
            return outcome([parse(line) for line in lines])


def outcome(journal: list[Record]) -> Outcome:
    tried = [record.time_s for record in journal if record.event == "tried"]
    stepped = [record for record in journal if record.event == "stepped"]
    durations = [after - before for before, after in pairwise(tried)]
    return Outcome(
        statistics.median(durations), len(tried), (stepped[-1].time_s - stepped[0].time_s) / (len(stepped) - 1), stepped[-1].value,
        computing(journal, tried),
    )  # fmt: skip


def computing(journal: list[Record], tried: list[float]) -> float:
    """The share of the time from the first to the last evaluation that replicas were computing: from being given work to the last loss."""
    spent, since = 0.0, dict[str, float]()
    for record in journal:
        if not tried[0] <= record.time_s <= tried[-1]:
            continue
        if record.event == "pushed" and record.node.startswith("replica"):
            since.pop(record.node, None)
        elif record.event == "computed":
            if record.node in since:
                spent += record.time_s - since[record.node]
            since[record.node] = record.time_s
    return spent / (tried[-1] - tried[0]) / REPLICAS


def main() -> None:
    parser = argparse.ArgumentParser("bench.lbfgs", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--reference", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reference:
        print(json.dumps(asdict(minimise(Path(options.reference), options.iterations))))
        return
    for name, problem in PROBLEMS.items():
        with tempfile.TemporaryDirectory(prefix="lbfgs-") as folder:
            file = Path(folder) / "lbfgs.toml"
            file.write_text(SCENARIO.format(problem=problem, replicas=REPLICAS, iterations=options.iterations))
            parameters = len(plan(load(str(file)), numerics="real", shared=True).network)
            pairs = [(reference(file, options.iterations), ours(file)) for _ in range(options.runs)]
        report(name, parameters, pairs, as_json=options.json)


def report(name: str, parameters: int, pairs: list[tuple[Outcome, Outcome]], *, as_json: bool) -> None:
    theirs, distributed = (min((pair[side] for pair in pairs), key=lambda one: one.evaluation_s) for side in (0, 1))
    told: dict[str, Any] = {
        "problem": name, "parameters": parameters, "torch": asdict(theirs), "ours": asdict(distributed),
        "overhead": distributed.evaluation_s / theirs.evaluation_s - 1,
    }  # fmt: skip
    if as_json:
        print(json.dumps(told))
        return
    print(f"{name}, {parameters:,} parameters; best of {len(pairs)}")
    for side, one in (("torch.optim.LBFGS", theirs), ("execctl", distributed)):
        print(
            f"  {side:18} {one.evaluation_s * 1e3:8.1f} ms an evaluation  {one.iteration_s * 1e3:8.1f} ms an iteration"
            f"  {one.evaluations} evaluations  loss {one.loss:.9g}" + (f"  computing {one.computing:.0%}" if one is distributed else "")
        )
    print(f"  overhead {told['overhead']:.1%} of an evaluation of torch's")


if __name__ == "__main__":
    main()
