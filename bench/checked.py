"""Faults that are drawn, carried out on real processes, and every rule held against what their journals say afterwards.

    python -m bench.checked [--scenario failures] [--seeds 10] [--first 1] [--out FOLDER]

For each seed two to four faults of roles, machines and racks are drawn as a hunt draws them (`sim/strategies.py`), in the place of the scenario's own;
`execctl launch` trains under them, and `execctl check` reads the run.  A line for each; exit code 1 if any rule is broken or a job fails.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from hypothesis import HealthCheck, Phase, find, settings

from core import chance
from core.job import SUPERVISOR
from scenarios.load import load
from scenarios.places import Places, places
from scenarios.toml import dumps
from scenarios.wiring import Wiring
from sim.strategies import schedules

KINDS = ("crash", "pause", "slowdown", "loss", "delay", "duplication", "reordering", "cut")
WITHIN_MS, LONGEST_MS = 20_000, 4_000
"""When they begin at the latest, and how long they last: the bundled scenario trains for half a minute."""

Tables = dict[str, Any]


def various(faults: list[Tables]) -> bool:
    """Of several kinds, aimed at several, and at a time: real processes are not hit again and again."""
    return min(len({fault[key] for fault in faults}) for key in ("kind", "target")) > 1 and all("every" not in fault for fault in faults)


def drawn(there: Places, seed: int) -> list[Tables]:
    """Faults of that seed."""
    options = settings(max_examples=200, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    aims = Places(tuple(role for role in there.roles if role != SUPERVISOR), there.machines, Wiring({}, {}, groups=there.wiring.groups))
    strategy = schedules(aims, WITHIN_MS, longest_ms=LONGEST_MS, kinds=KINDS, most=4)
    return find(strategy, various, settings=options, random=random.Random(chance.number(seed, "checked", "faults")))


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from exec.cli import main; main()", *arguments], capture_output=True, text=True, check=False
    )


@click.command(help=__doc__.splitlines()[0] if __doc__ else "")
@click.option("--scenario", default="failures", show_default=True)
@click.option("--seeds", default=10, show_default=True)
@click.option("--first", default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Where the runs are left; default: nowhere.")
def main(scenario: str, seeds: int, first: int, out: Path | None) -> None:
    loaded = load(scenario)
    there = places(loaded.protocol, loaded.cluster, loaded.network, real=True, partitions=loaded.model.partitions)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="checked-") as temporary:
        folder = out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for seed in range(first, first + seeds):
            faults = drawn(there, seed)
            file, run = folder / f"{seed}.toml", folder / str(seed)
            file.write_text(dumps(loaded.given() | {"seed": seed, "fault": faults}), encoding="utf-8")
            launched = command("launch", str(file), "--no-report", "--json", "--out", str(run))
            checked = command("check", str(run), "--json")
            if not checked.stdout:
                raise SystemExit(f"seed {seed}: {launched.stderr}{checked.stderr}")
            violations = json.loads(checked.stdout)["violations"]
            failed += launched.returncode != 0 or checked.returncode != 0
            told = ", ".join(f"{fault['kind']} of {fault['target']}" for fault in faults)
            rules = "; ".join(f"{one['rule']}: {one['what']}" for one in violations) or "every rule holds"
            click.echo(f"seed {seed}: launch {launched.returncode}, check {checked.returncode}: {rules} ({told})")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
