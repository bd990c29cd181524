"""`simctl` as a user meets it: what it prints, what it leaves behind, what it ends with."""

from __future__ import annotations

import hashlib
import json
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from report.exits import of
from sim.cli import main

SMALL = """
schema = 1
seed = 3
[model]
network = "mlp"
layers = [64, 16, 10]
[protocol]
kind = "downpour"
replicas = 2
shards = 2
evaluate_every = "1 s"
stop = { updates = 60 }
[cluster]
speed = "10 MFLOP/s"
[[fault]]
kind = "slowdown"
target = "replica/1"
factor = 3
"""


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    file = tmp_path / "small.toml"
    file.write_text(SMALL)
    return str(file)


def simctl(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_a_run_leaves_a_whole_folder_and_prints_one_object(scenario, tmp_path):
    result = simctl("run", scenario, "--json", "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "scenario.toml", "summary.json", "journal.tsv", "accounts.csv", "links.csv", "report.html", "plots", "model.safetensors",
    }  # fmt: skip
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["updates"] == 60
    journal = (tmp_path / "out" / "journal.tsv").read_bytes()
    assert summary["digest"] == hashlib.blake2b(journal, digest_size=16).hexdigest()
    assert summary["faults"][0]["bit"]["computing seconds lost"] > 0


def test_a_fault_that_bites_nothing_says_so(scenario, tmp_path):
    result = simctl("run", scenario, "--set", "fault.0.at='1 h'", "--out", str(tmp_path / "out"))
    assert "bit nothing" in result.stdout


def test_ten_mistakes_are_ten_lines_and_exit_two(scenario):
    changes = [
        "seed=-1",
        "numerics=reel",
        "model.network=mpl",
        "protocol.replicas=0",
        "protocol.batch='x'",
        "protocol.rule.learning_rate=0",
    ]
    changes += ["network.model=fiffo", "network.nic=5", "cluster.sped='1 FLOP/s'", "fault.0.factor=1"]
    result = simctl("run", scenario, *(part for change in changes for part in ("--set", change)))
    assert result.exit_code == 2
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 10
    assert all(line.startswith(f"error: {scenario}: ") for line in lines)
    assert "Traceback" not in result.output


def test_a_folder_with_a_run_in_it_is_not_written_over(scenario, tmp_path):
    out = str(tmp_path / "out")
    assert simctl("run", scenario, "--out", out).exit_code == 0
    before = (tmp_path / "out" / "journal.tsv").read_bytes()
    again = simctl("run", scenario, "--out", out)
    assert again.exit_code == 5
    assert "choose another --out" in again.stderr
    assert (tmp_path / "out" / "journal.tsv").read_bytes() == before


def test_a_loss_that_is_no_number_ends_with_four_and_a_journal(scenario, tmp_path):
    result = simctl("run", scenario, "--set", "protocol.rule={kind='sgd',learning_rate=1e30}", "--json", "--out", str(tmp_path / "out"))
    assert result.exit_code == 4
    assert "the loss of minibatch" in json.loads(result.stdout)["reason"]
    assert "\tfailed\t" in (tmp_path / "out" / "journal.tsv").read_text()


def test_data_that_goes_wrong_in_the_middle_ends_with_two_and_a_journal(scenario, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "class Late(torch.utils.data.Dataset):\n"
        "    def __len__(self): return 200\n"
        "    def __getitem__(self, i):\n"
        "        return torch.full((64,), float('nan') if i == 150 else 0.1), i % 10\n"
        "def late(): return Late()\n"
    )
    result = simctl("run", scenario, "--set", f"data.source='{tmp_path / 'mine.py'}:late'", "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert "item 150 of the Dataset holds NaN" in result.stderr
    assert "\tjoined\t" in (tmp_path / "out" / "journal.tsv").read_text()


def test_ctrl_c_keeps_journal_and_summary(scenario, tmp_path, monkeypatch):
    import sim.run

    def interrupted(self: sim.run.Run) -> None:
        self.cluster.begin()
        self.loop.call_at(1.2, signal.raise_signal, signal.SIGINT)
        self.loop.run(until=self.cluster.done)

    monkeypatch.setattr(sim.run.Run, "simulate", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever began the tests in the background had it ignored
    try:
        result = simctl("run", scenario, "--json", "--out", str(tmp_path / "out"))
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.exit_code == 130
    assert json.loads(result.stdout)["status"] == "interrupted"
    assert (tmp_path / "out" / "journal.tsv").stat().st_size > 0


def test_check_runs_nothing_and_scenarios_lists_what_is_bundled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert simctl("check", "quickstart").exit_code == 0
    assert "downpour-real" in simctl("scenarios").stdout
    assert not list(tmp_path.iterdir())


def test_a_trace_is_written_where_it_is_asked_for_and_the_report_is_left_out_where_it_is_not(scenario, tmp_path):
    assert simctl("run", scenario, "--trace", "--no-report", "--out", str(tmp_path / "out")).exit_code == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "scenario.toml", "summary.json", "journal.tsv", "accounts.csv", "links.csv", "trace.json", "model.safetensors",
    }  # fmt: skip
    assert any(event["ph"] == "X" for event in json.loads((tmp_path / "out" / "trace.json").read_text()))


def test_the_scenario_in_the_folder_is_the_run_once_more(scenario, tmp_path):
    first = simctl("run", scenario, "--set", "seed=9", "--json", "--no-report", "--out", str(tmp_path / "one"))
    again = simctl("run", str(tmp_path / "one" / "scenario.toml"), "--json", "--no-report", "--out", str(tmp_path / "two"))
    assert json.loads(first.stdout)["digest"] == json.loads(again.stdout)["digest"]


def test_an_expectation_that_is_not_met_is_exit_code_1(scenario, tmp_path):
    expect = "expect=[{metric='updates',at_least=60},{metric='seconds',at_most='1 ms'}]"
    told = simctl("run", scenario, "--set", expect, "--no-report", "--out", str(tmp_path / "out"))
    assert told.exit_code == 1
    assert [line.split()[-1] for line in told.stdout.splitlines() if "at least 60" in line or "at most 1 ms" in line] == ["met", "met"]
    assert "not met" in told.stdout


def test_under_strict_a_fault_that_bit_nothing_is_an_error_and_a_preset_counts_as_one(scenario, tmp_path):
    never = ("run", scenario, "--set", "fault.0.at='1 h'", "--no-report")
    assert simctl(*never, "--out", str(tmp_path / "lenient")).exit_code == 0
    assert simctl(*never, "--strict", "--out", str(tmp_path / "strict")).exit_code == 1
    assert simctl("run", scenario, "--strict", "--no-report", "--out", str(tmp_path / "bitten")).exit_code == 0
    parts = [{"declared": 0, "bit": {}}, {"declared": 0, "bit": {"messages": 1}}]
    summary = {"status": "done", "expectations": [], "twice": None, "checks": None, "faults": parts}
    assert (of(summary, strict=True), of(summary | {"faults": [*parts, {"declared": 1, "bit": {}}]}, strict=True)) == (0, 1)


def test_a_scenario_that_does_not_fit_into_memory_leaves_no_folder(scenario, tmp_path):
    result = simctl("run", scenario, "--set", "cluster.memory='1 kB'", "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert "cluster.memory: found" in result.stderr
    assert not (tmp_path / "out").exists()
