"""`kill -9` of every process of a real job in turn, with each durability: does it end as it should, and is anything lost?

    python -m bench.kills [--scenario downpour-real] [--durability mirror log] [--who shard/0 supervisor] [--after 100] [--json]

Each line is one whole job of `execctl launch`, in which one process is killed once its first shard has applied `--after`
updates.  *Missing* counts pushes that were acknowledged and are not in what the shards ended with (of Sandblaster the coordinator's
steps: what replicas push is staged); *broken* counts what `core.checks` finds in the merged journals.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from core.checks import PushId, check
from core.job import COORDINATOR
from core.journal import Record, read
from exec.jobfile import JobFile
from scenarios.load import load

WHO = ("nobody", "coordinator", "shard/0", "mirror/0", "replica/1", "evaluator", "supervisor", "agent", "nursery", "launcher")
DURABILITIES = ("none", "snapshot", "mirror", "log")
LIMIT_S = 300


@dataclass(slots=True)
class Killed:
    """What became of one job."""

    durability: str
    who: str
    exit_code: int
    status: str
    accuracy: float | None
    training_loss: float | None
    """Of Sandblaster, whose course does not depend on who dies."""
    seconds: float
    acknowledged: int
    missing: int
    broken: int
    left: int
    """Processes that outlived the job."""

    def line(self) -> str:
        accuracy = "-" if self.accuracy is None else f"{self.accuracy:.3f}"
        loss = "" if self.training_loss is None else f"training loss {self.training_loss:.9f} "
        return (
            f"{self.durability:9} {self.who:11} exit {self.exit_code:<4} {self.status:9} accuracy {accuracy:6} {loss}{self.seconds:6.1f} s   "
            f"acknowledged {self.acknowledged:5} missing {self.missing:4} broken {self.broken} left {self.left}"
        )


def job(scenario: str, durability: str, who: str, after: int, folder: Path) -> Killed:
    run = folder / "run"
    command = [str(Path(sys.executable).with_name("execctl")), "launch", scenario, "--out", str(run), "--json"]
    began = time.monotonic()
    launcher = subprocess.Popen([*command, "--set", f"protocol.durability='{durability}'"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while sum(record.event == "applied" for record in records(run, "shard-0.")) < after:
        if launcher.poll() is not None:
            raise SystemExit(f"the job ended before {after} updates: {launcher.communicate()[1].decode()}")
        time.sleep(0.1)
    if who != "nobody":
        os.kill(launcher.pid if who == "launcher" else pid_of(run, who), signal.SIGKILL)
    launcher.communicate(timeout=LIMIT_S)
    while not (run / "summary.json").exists() or (who == "launcher" and processes(run)):
        time.sleep(0.1)
        if time.monotonic() - began > LIMIT_S:
            raise SystemExit(f"no end within {LIMIT_S} s of a job whose {who} was killed")
    seconds = time.monotonic() - began
    summary = json.loads((run / "summary.json").read_text())
    whole = sorted(records(run, ""))
    findings = check(whole, one_clock=False, durability=durability)
    staged = {PushId(*parsed(r.peer), r.node, r.number) for r in whole if r.event == "staged"}
    acknowledged = {PushId(r.node, r.life, r.peer, r.number) for r in whole if r.event == "acknowledged"} - staged
    there = {push for history in findings.surviving.values() for push in history}
    for violation in findings.violations:
        print(f"   {violation}", file=sys.stderr)
    return Killed(
        durability, who, launcher.returncode, summary["status"], summary["accuracy"], summary["training_loss"], seconds, len(acknowledged),
        len(acknowledged - there), len(findings.violations), len(processes(run)),
    )  # fmt: skip


def records(run: Path, prefix: str) -> Iterator[Record]:
    for path in (run / "journals").glob(f"{prefix}*.tsv"):
        with path.open(encoding="utf-8") as lines:
            yield from read(lines)


def parsed(label: str) -> tuple[str, int]:
    """Name and life of "replica/3#2"."""
    name, _, life = label.partition("#")
    return name, int(life)


def pid_of(run: Path, who: str) -> int:
    if who == "agent":
        return next(pid for pid, title in processes(run).items() if " agent=" in title)
    if who == "nursery":
        agent = pid_of(run, "agent")
        children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
        return next(int(child) for child in children if "exec.nursery" in title_of(child))
    return int((run / "pids" / who.replace("/", "-")).read_text())


def processes(run: Path) -> dict[int, str]:
    """Everything that runs with this job's identity in its title."""
    mark = f"job={JobFile.of(run).job[:8]}"
    found = {int(path.name): title_of(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()}
    return {pid: title for pid, title in found.items() if mark in title}


def title_of(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def main() -> None:
    parser = argparse.ArgumentParser("bench.kills", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scenario", default="downpour-real")
    parser.add_argument("--durability", nargs="+", default=DURABILITIES, choices=DURABILITIES)
    parser.add_argument("--who", nargs="+", default=WHO, choices=WHO)
    parser.add_argument("--after", type=int, default=100, help="updates of the first shard")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sandblaster = load(options.scenario).protocol.kind == "sandblaster"
    for durability in options.durability:
        for who in options.who:
            if (who == "mirror/0" and durability != "mirror") or (who == COORDINATOR and not sandblaster):
                continue
            with tempfile.TemporaryDirectory(prefix="kills-") as folder:
                killed = job(options.scenario, durability, who, options.after, Path(folder))
            print(json.dumps(asdict(killed)) if options.json else killed.line(), flush=True)


if __name__ == "__main__":
    main()
