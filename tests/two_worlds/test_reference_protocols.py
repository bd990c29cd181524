"""The reference protocols through both commands: the same steps, to the same learning."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from core.checks import check
from core.journal import Record, read
from tests.two_worlds.test_two_worlds import COMMANDS

SCENARIO = """
schema = 1
seed = 5
[model]
network = "mlp"
layers = [64, 32, 10]
[data]
source = "digits"
[protocol]
replicas = 2
shards = 2
detect_within = "5 s"
evaluate_every = "1 s"
{protocol}
[cluster]
speed = "20 MFLOP/s"
"""

PROTOCOLS = {
    "sync": 'kind = "sync"\nbackup_workers = 1\nbatch = 16\nrule = { kind = "momentum", learning_rate = 0.1 }\nstop = { updates = 60 }',
    "mapreduce": 'kind = "mapreduce"\njob_start_up = "200 ms"\nportions = 6\nbundle = 1\nstop = { iterations = 3 }',
}

pytestmark = [pytest.mark.timeout(400), pytest.mark.xdist_group("jobs")]


@pytest.fixture(scope="module", params=PROTOCOLS)
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], list[Record]]]:
    """Summary and journal, by world."""
    folder = tmp_path_factory.mktemp(request.param)
    file = folder / f"{request.param}.toml"
    file.write_text(SCENARIO.format(protocol=PROTOCOLS[request.param]))
    found = {}
    for world, command in COMMANDS.items():
        ran = subprocess.run([*command, str(file), "--json", "--out", str(folder / world)], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        summary = json.loads(ran.stdout)
        with Path(summary["journal"]).open(encoding="utf-8") as lines:
            found[world] = summary, list(read(lines))
    return found


def test_both_worlds_take_the_same_number_of_steps_and_learn(done: dict[str, tuple[dict[str, Any], list[Record]]]) -> None:
    (sim, _), (real, _) = done["sim"], done["exec"]
    assert sim["protocol"] == real["protocol"]
    assert sim["updates"] == real["updates"] == {"sync": 60, "mapreduce": 3}[sim["protocol"]]
    assert sim["portions"]["given"] > 0 < real["portions"]["given"]
    if sim["protocol"] == "sync":
        assert min(sim["accuracy"], real["accuracy"]) > 0.8
    else:
        assert real["training_loss"] == pytest.approx(sim["training_loss"], rel=1e-3), "the batch is the same, whoever computes it"


def test_both_worlds_keep_every_rule(done: dict[str, tuple[dict[str, Any], list[Record]]]) -> None:
    for world, (summary, records) in done.items():
        assert check(records, one_clock=world == "sim").violations == []
        applied = [(record.node, record.number) for record in records if record.event == "applied"]
        assert len(applied) == len(set(applied)) == 2 * summary["updates"], "each step once on each of two shards"
        assert sum(record.event == "stepped" for record in records) == summary["updates"]
