"""One scenario through both commands: the same protocol, the same count of updates, the same learning."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCENARIO = """
schema = 1
seed = 5
[model]
network = "mlp"
layers = [64, 64, 10]
[data]
source = "digits"
[protocol]
kind = "downpour"
replicas = 2
shards = 2
batch = 16
rule = { kind = "adagrad", learning_rate = 0.05 }
warmstart = "20 updates"
durability = "snapshot"
snapshot_every = "1 s"
detect_within = "5 s"
evaluate_every = "1 s"
stop = { updates = 500 }
[cluster]
speed = "20 MFLOP/s"
"""

COMMANDS = {
    "sim": [sys.executable, "-P", "-c", "from sim.cli import main; main()", "run"],
    "exec": [sys.executable, "-P", "-c", "from exec.cli import main; main()", "launch"],
}


pytestmark = [pytest.mark.timeout(400), pytest.mark.xdist_group("jobs")]  # whole jobs; where many share the machine, each takes its time


@pytest.fixture(scope="module")
def summaries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    folder = tmp_path_factory.mktemp("two_worlds")
    file = folder / "both.toml"
    file.write_text(SCENARIO)
    found = {}
    for world, command in COMMANDS.items():
        done = subprocess.run([*command, str(file), "--json", "--out", str(folder / world)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found[world] = json.loads(done.stdout)
    return found


def test_both_worlds_apply_the_same_number_of_updates(summaries):
    assert summaries["sim"]["updates"] == summaries["exec"]["updates"] == 500


def test_both_worlds_learn_to_the_same_accuracy_band(summaries):
    accuracies = [summaries[world]["accuracy"] for world in COMMANDS]
    assert min(accuracies) > 0.9
    assert abs(accuracies[0] - accuracies[1]) < 0.05


def test_both_worlds_say_the_same_things(summaries):
    assert summaries["sim"].keys() == summaries["exec"].keys()
    assert summaries["exec"]["world"] == "exec"
    assert summaries["sim"]["digest"]


def test_both_worlds_write_the_same_journal(summaries):
    from core.journal import read

    kinds = {}
    for world, summary in summaries.items():
        with Path(summary["journal"]).open(encoding="utf-8") as lines:
            records = list(read(lines))
        applied = [(r.node, r.peer, r.number) for r in records if r.event == "applied"]
        acknowledged = {(r.peer, f"{r.node}#{r.life}", r.number) for r in records if r.event == "acknowledged"}
        pushed = {(r.peer, f"{r.node}#{r.life}", r.number) for r in records if r.event == "pushed"}
        assert len(applied) == len(set(applied)) == 1000, "each push counts once, 500 at each of two shards"
        assert acknowledged <= set(applied) <= pushed
        kinds[world] = {r.event for r in records}
    assert {"joined", "computed", "pushed", "applied", "acknowledged", "finished", "evaluated"} <= kinds["sim"] & kinds["exec"]


def test_both_worlds_save_a_model_that_the_plain_module_loads(summaries):
    from safetensors.torch import load_file
    from torch import nn

    for summary in summaries.values():
        plain = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        plain.load_state_dict(load_file(summary["model"]))


def test_there_is_one_replica_one_shard_and_one_ledger_in_the_tree():
    root = Path(__file__).parents[2]
    sources = {path: path.read_text() for room in ("core", "sim", "exec") for path in (root / room).rglob("*.py")}
    assert sorted(p.name for p, text in sources.items() if "async def replica(" in text) == ["downpour.py", "sandblaster.py"]
    assert [p.name for p, text in sources.items() if "class Shard:" in text] == ["shard.py"]
    assert [p.name for p, text in sources.items() if "class StagingShard(" in text] == ["staging.py"]
    assert [p.name for p, text in sources.items() if "class Portions:" in text] == ["portions.py"]
    assert [p.name for p, text in sources.items() if re.search(r"def minimise\b", text)] == ["lbfgs.py"]
    assert [p.name for p, text in sources.items() if "class Membership(" in text] == ["membership.py"]
    assert [p.name for p, text in sources.items() if "async def live_shard(" in text] == ["roles.py"]


def test_both_worlds_keep_every_rule_and_have_the_same_roles_granted(summaries):
    from core.checks import check
    from core.journal import read

    granted = {}
    for world, summary in summaries.items():
        with Path(summary["journal"]).open(encoding="utf-8") as lines:
            records = list(read(lines))
        assert check(records, one_clock=world == "sim").violations == []
        granted[world] = {record.peer for record in records if record.event == "granted" and record.number == 1}
    assert granted["sim"] == granted["exec"] == {"shard/0", "shard/1", "replica/0", "replica/1", "evaluator"}
