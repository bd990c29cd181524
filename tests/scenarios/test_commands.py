"""`simctl` as a person meets it: exit codes, messages without tracebacks, and no torch where none is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from report.exits import Exit
from report.folder import RunFolder
from scenarios.load import bundled
from sim.cli import main
from sim.run import Run

TIMING = """
numerics = "timing"
[model]
layers = [64, 10]
[protocol]
kind = "downpour"
replicas = 2
shards = 2
stop = { updates = 10 }
[cluster]
speed = "1 MFLOP/s"
"""


@pytest.fixture
def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes a file beside which the test runs."""
    monkeypatch.chdir(tmp_path)

    def write(text: str = TIMING, name: str = "mine.toml") -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return name

    return write


def simctl(*arguments: str) -> Result:
    result = CliRunner().invoke(main, arguments)
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_check_of_a_right_scenario_says_so(scenario: Callable[..., str]) -> None:
    result = simctl("check", scenario())
    assert result.exit_code == Exit.DONE
    assert "right: downpour, 2 replicas, 2 shards, 0 faults" in result.output


@pytest.mark.parametrize(("disk", "keeps_up"), [("10 MB/s", True), ("1 kB/s", False)])
def test_check_says_whether_the_disk_keeps_up_with_the_log(scenario: Callable[..., str], disk: str, keeps_up: bool) -> None:
    result = simctl("check", scenario(), "--set", "protocol.durability='log'", "--set", f"cluster.disk='{disk}'")
    assert result.exit_code == Exit.DONE
    assert "the log of a shard takes up to " in result.output
    assert f"cluster.disk has {disk}" in result.output
    assert ("cannot keep up" not in result.output) == keeps_up


def test_check_says_nothing_of_a_log_where_there_is_none(scenario: Callable[..., str]) -> None:
    assert "the log of a shard" not in simctl("check", scenario()).output


def test_check_of_a_wrong_one_has_a_line_for_each_mistake_and_exits_with_2(scenario: Callable[..., str]) -> None:
    file = scenario('sed = 1\nnumerics = "x"\n[model]\nnetwork = "speach"\n[cluster]\nmachines = 0\n[network]\nlatency = 3\n')
    result = simctl("check", file)
    assert result.exit_code == Exit.WRONG_INPUT
    lines = result.stderr.splitlines()
    assert {line.split(": ")[2] for line in lines} >= {"sed", "numerics", "model.network", "cluster.machines", "network.latency"}
    assert all(line.startswith("error: mine.toml: ") for line in lines)


@pytest.mark.parametrize(
    "arguments", [("absent.toml",), ("quikstart",), ("quickstart", "--set", "seed=x"), ("quickstart", "--set", "sed=1")], ids=" ".join
)
def test_run_and_check_refuse_what_cannot_be_used(scenario: Callable[..., str], arguments: tuple[str, ...]) -> None:
    for command in ("run", "check"):
        result = simctl(command, *arguments)
        assert result.exit_code == Exit.WRONG_INPUT
        assert result.stderr.startswith("error: ")
    assert not list(Path().glob("runs/*"))


def test_scenarios_lists_every_bundled_one_with_what_it_is() -> None:
    lines = simctl("scenarios").output.splitlines()
    assert [line.split()[0] for line in lines] == list(bundled())
    assert all(len(line.split()) > 3 for line in lines)


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("run", "--help"), ("check", "--help"), ("--version",)], ids=" ".join)
def test_help_is_there(arguments: tuple[str, ...]) -> None:
    assert simctl(*arguments).exit_code == Exit.DONE


def test_run_leaves_a_folder_and_its_summary(scenario: Callable[..., str]) -> None:
    result = simctl("run", scenario(), "--out", "out", "--json")
    assert result.exit_code == Exit.DONE
    summary = json.loads(result.stdout)
    assert (summary["status"], summary["updates"], summary["reason"]) == ("done", 10, "10 updates")
    assert json.loads(Path("out/summary.json").read_text()) == summary
    assert Path(summary["journal"]).is_file()


def test_run_without_out_makes_a_new_folder_each_time(scenario: Callable[..., str]) -> None:
    for count in (1, 2):
        assert simctl("run", scenario()).exit_code == Exit.DONE
        assert len(list(Path("runs").iterdir())) == count


def test_run_does_not_write_over_a_run(scenario: Callable[..., str]) -> None:
    assert simctl("run", scenario(), "--out", "out").exit_code == Exit.DONE
    before = Path("out/summary.json").read_bytes()
    result = simctl("run", scenario(), "--out", "out")
    assert result.exit_code == Exit.NOT_WRITTEN
    assert "holds a run already" in result.stderr
    assert Path("out/summary.json").read_bytes() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("which", ["journal.tsv", "summary.json", "report.html"])
def test_a_full_disk_is_one_message_and_exit_code_5(scenario: Callable[..., str], which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("out").mkdir()
    Path("out", which).symlink_to("/dev/full")
    monkeypatch.setattr("report.folder.RunFolder.new", RunFolder)  # it would refuse the link
    result = simctl("run", scenario(), "--out", "out")
    assert result.exit_code == Exit.NOT_WRITTEN
    assert "No space left on device" in result.stderr


def test_a_training_that_diverges_exits_with_4_and_keeps_what_it_has(scenario: Callable[..., str]) -> None:
    text = TIMING.replace("timing", "real").replace("10]", "16, 10]").replace("updates = 10", "updates = 50")
    text = text.replace("shards = 2", 'shards = 2\nrule = { kind = "sgd", learning_rate = 1e30 }')
    result = simctl("run", scenario(text), "--out", "out", "--json")
    assert result.exit_code == Exit.FAILED
    summary = json.loads(result.stdout)
    assert summary["status"] == "failed"
    assert "loss" in summary["reason"]
    assert Path("out/journal.tsv").stat().st_size > 0


def test_a_job_without_replicas_exits_with_4(scenario: Callable[..., str]) -> None:
    result = simctl("run", scenario(TIMING + '[[fault]]\nkind = "crash"\ntarget = "replica/*"\nat = "1020 ms"\n'), "--json")
    assert result.exit_code == Exit.FAILED
    assert json.loads(result.stdout)["reason"] == "no replica is left"


def test_ctrl_c_exits_with_130_and_keeps_what_was_learnt(scenario: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Run) -> None:
        self.cluster.begin()
        self.loop.run(until=1.1)
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "simulate", interrupted)
    result = simctl("run", scenario(), "--out", "out", "--json")
    assert result.exit_code == Exit.INTERRUPTED
    assert json.loads(result.stdout)["status"] == "interrupted"
    assert Path("out/summary.json").is_file()
    assert Path("out/journal.tsv").stat().st_size > 0


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("", "no 'net' there; it has none"),
        ("def other(): pass", "it has other"),
        ("def net(): return 7", "returned a int"),
        ("def net(): raise RuntimeError('my fault')", "RuntimeError: my fault (line 1 of"),
        (
            "from core.graph import Graph, Node\nfrom models.layers import *\ndef net(): return Graph([Node('x', Source((64,))), *(Node(one, Dense(9), 'x') for one in 'ab')])",
            "model.network: the graph has the outputs a, b apart from its loss; allowed: one",
        ),
        ("import nothing_of_that_name", "cannot be loaded: ModuleNotFoundError"),
        ("def net(:", "cannot be loaded: SyntaxError"),
    ],
)
def test_a_mistake_in_the_user_s_own_code_is_one_message_and_exit_code_2(scenario: Callable[..., str], code: str, said: str) -> None:
    Path("own.py").write_text(code, encoding="utf-8")
    result = simctl("run", scenario('[model]\nnetwork = "own.py:net"\n'), "--out", "out")
    assert result.exit_code == Exit.WRONG_INPUT
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


WITHOUT_TORCH = """
import sys
import sim.cli
def arrived():
    return sorted({"torch", "matplotlib", "grpc", "sklearn"} & {name.partition(".")[0] for name in sys.modules})
for arguments in (["--help"], ["scenarios"], ["check", "quickstart"], ["run", sys.argv[1], "--out", "out", "--json", "--no-report"]):
    try:
        sim.cli.main(arguments)
    except SystemExit as done:
        assert not done.code, (arguments, done.code)
    print("arrived:", arguments[0], *arrived())
"""


def test_nothing_but_real_numerics_needs_torch(scenario: Callable[..., str]) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, scenario()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    arrived = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("arrived:")]
    assert arrived == [["--help"], ["scenarios"], ["check"], ["run"]]
