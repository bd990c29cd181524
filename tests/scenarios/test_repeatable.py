"""The same scenario and seed have the same journal, to the byte; and what is added changes only what it hits."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings

from core import chance
from scenarios.expectations import BITES
from scenarios.load import load
from sim.run import simulate
from sim.strategies import tables, toml

TIMING = """
name = "timing"
seed = 5
numerics = "timing"
[model]
layers = [64, 32, 10]
[protocol]
kind = "downpour"
replicas = 5
shards = 3
deadline = "500 ms"
warmstart = "3 updates"
durability = "snapshot"
snapshot_every = "200 ms"
stop = { time = "6 s" }
[cluster]
speed = { median = "4 MFLOP/s", sigma = 0.2 }
jitter = { sigma = 0.2 }
start_up = "100 ms"
[network]
latency = "3 ms"
nic = "1 MB/s"
[[fault]]
kind = "loss"
target = "replica/1"
probability = 0.2
[[fault]]
kind = "crash"
target = "shard/1"
at = "900 ms"
repair = "300 ms"
[[fault]]
kind = "crash"
target = "replica/2"
at = "1 s"
repair = "1 s"
"""

LATE = """
[[fault]]
kind = "slowdown"
target = "replica/4"
at = "3 s"
for = "1 s"
factor = 3
"""

REAL = TIMING.replace('"timing"', '"real"').replace("replicas = 5", "replicas = 3").replace("6 s", "2 s")

DIGESTS = """
import sys
from scenarios.load import load
from sim.run import simulate
for file in sys.argv[1:]:
    print(simulate(load(file)).journal.digest())
"""


@pytest.fixture
def file(tmp_path: Path) -> Any:
    def write(text: str, name: str = "scenario.toml") -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write


def test_timing_and_real_have_one_digest_each_whatever_the_process_and_its_hash_seed(file: Any) -> None:
    files = [file(TIMING, "timing.toml"), file(REAL, "real.toml")]
    here = [[simulate(load(one)).journal.digest() for one in files] for _ in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", DIGESTS, *files], env=os.environ | {"PYTHONHASHSEED": hash_seed}, stdout=subprocess.PIPE, text=True
        )
        for hash_seed in ("1", "2")
    ]
    there = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert [*here, *there] == [here[0]] * 4
    assert here[0][0] != here[0][1]


KINDS = [(kind, partitions) for partitions in (1, 3) for kind in ("downpour", "sandblaster", "mapreduce", "sync")]
RANDOM = 1000 if settings().max_examples >= 1000 else 40
"""Scenarios; `make repeat` runs the thousand, new ones every time, and every other run a slice that stays the same."""

SIMPLEST = 5
"""Of each kind: Hypothesis begins with these, and they are left out."""


def drawn(kind: str, partitions: int, number: int) -> list[str]:
    """So many scenario files of that kind."""
    found: list[str] = []

    @settings(max_examples=SIMPLEST + number, derandomize=RANDOM < 1000, database=None, phases=[Phase.generate], deadline=None)
    @given(tables(kind=kind, partitions=partitions))
    def draw(tables: Any) -> None:
        found.append(toml(tables))

    draw()
    return found[-number:]


def test_random_scenarios_have_their_digests_again_in_another_process_and_bite_what_has_a_name(file: Any) -> None:
    texts = [text for kind, partitions in KINDS for text in drawn(kind, partitions, RANDOM // len(KINDS))]
    files = [file(text, f"{number}.toml") for number, text in enumerate(texts)]
    with subprocess.Popen(
        [sys.executable, "-c", DIGESTS, *files], env=os.environ | {"PYTHONHASHSEED": "3"}, stdout=subprocess.PIPE, text=True
    ) as process:
        here, lines, bitten = [], 0, set[str]()
        for one in files:
            run = simulate(load(one))
            here.append(run.journal.digest())
            lines += run.journal.lines
            bitten |= {what for fault in run.summary()["faults"] for what in fault["bit"]}
        there = process.communicate()[0].split()
    assert process.returncode == 0
    assert len(here) == len(there) == RANDOM
    print(f"{RANDOM} scenarios, {lines} lines, {len(set(here))} different digests")  # noqa: T201  shown by -rP
    parted = [text for text, first, second in zip(texts, here, there, strict=True) if first != second]
    assert not parted, f"{len(parted)} of {RANDOM} differ; the first one, for `simctl run FILE --twice`:\n{parted[0]}"
    assert bitten <= set(BITES)
    assert len(set(here)) > RANDOM // 2, "many that differ"


def test_another_seed_is_another_run(file: Any) -> None:
    path = file(TIMING)
    assert len({simulate(load(path, [f"seed={seed}"])).journal.digest() for seed in range(3)}) == 3


def test_a_network_that_draws_has_the_same_digest_again_in_the_same_process(file: Any) -> None:
    """Dropout draws from torch's global stream, and running statistics are taken anew for each evaluation."""
    file(
        "import torch.nn as nn\n"
        "def net():\n"
        "    return nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))\n",
        "net.py",
    )
    path = file(REAL.replace("layers = [64, 32, 10]", 'network = "net.py:net"').replace("2 s", "1 s"))
    assert len({simulate(load(path)).journal.digest() for _ in range(2)}) == 1


def test_shuffled_ties_are_drawn_by_the_seed(file: Any) -> None:
    text = TIMING.replace("sigma = 0.2", "sigma = 0").split("[[fault]]")[0]
    scenario = load(file(text))
    plain, *shuffled = [simulate(scenario, ties=ties).journal.digest() for ties in (0, 1, 1)]
    assert shuffled[0] == shuffled[1] != plain


class Drawn(random.Random):
    """A stream that remembers what was drawn from it."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.draws: list[float] = []

    def random(self) -> float:
        self.draws.append(super().random())
        return self.draws[-1]


def draws(path: str, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[tuple[str, str], list[float]], list[bytes]]:
    """What each named stream gave in a run, and the journal."""
    import io

    from sim.run import Run

    streams = defaultdict[tuple[str, str], list[float]](list)

    def stream(seed: int, entity: str, purpose: str) -> random.Random:
        made = Drawn(chance.number(seed, entity, purpose))
        streams[entity, purpose] = made.draws
        return made

    monkeypatch.setattr(chance, "stream", stream)
    journal = io.BytesIO()
    run = Run(load(path), journal)
    run.simulate()
    run.journal.flush()
    return streams, journal.getvalue().splitlines()


def test_a_fault_that_is_added_shifts_nobody_s_draws(file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before, lines_before = draws(file(TIMING, "before.toml"), monkeypatch)
    after, lines_after = draws(file(TIMING + LATE, "after.toml"), monkeypatch)
    assert set(after) - set(before) == {("slowdown of replica/4 #1 at all at once 0", "draws")}
    for name in before:
        common = min(len(before[name]), len(after[name]))
        assert before[name][:common] == after[name][:common], name
    assert sum(map(len, before.values())) > 100
    early = [[line for line in lines if float(line.split(b"\t")[0]) < 3.0] for lines in (lines_before, lines_after)]
    assert early[0] == early[1]
    assert lines_before != lines_after


def test_who_is_not_hit_computes_as_before(file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is shared, the other replicas push at the very same times; only what they fetch may differ."""
    apart = (
        TIMING.replace("[network]\n", '[network]\nmodel = "latency"\n')
        .split("[[fault]]")[0]
        .replace("[cluster]", '[cluster]\nmemory_bandwidth = "1 TB/s"')
    )
    apart = apart.replace('nic = "1 MB/s"', 'nic = "1 TB/s"').replace("sigma = 0.2", "sigma = 0")
    pushed = []
    for text in (apart, apart + LATE):
        _, lines = draws(file(text), monkeypatch)
        columns = [line.split(b"\t") for line in lines]
        pushed.append({node: [one for one in columns if one[1] == node and one[3] == b"pushed"] for node in (b"replica/0", b"replica/4")})
    assert pushed[0][b"replica/0"] == pushed[1][b"replica/0"]
    assert pushed[0][b"replica/4"] != pushed[1][b"replica/4"]
