"""What a promise costs a whole job: pushes a second that shards apply, by `durability`, one `execctl launch` after another.

    python -m bench.promises [--scenario downpour-real] [--updates 1500] [--rounds 2] [--json]

Rounds go through all four, so that none has the machine at its best; figures are medians, counted in the journal from the first tenth
of a shard's updates to the last.  What to compare is the ratio to `none`: on two cores all processes of a job share what there is.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from core.job import shard_name
from core.journal import parse

DURABILITIES = ("none", "snapshot", "mirror", "log")


def pushes_per_s(scenario: str, durability: str, updates: int) -> float:
    """Of one shard."""
    with tempfile.TemporaryDirectory(prefix="promises-") as folder:
        run = Path(folder) / "run"
        command = [str(Path(sys.executable).with_name("execctl")), "launch", scenario, "--out", str(run)]
        sets = [f"protocol.durability='{durability}'", f"protocol.stop={{ updates = {updates} }}"]
        done = subprocess.run([*command, *(part for one in sets for part in ("--set", one))], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"execctl ended with exit code {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
        with (run / "journal.tsv").open(encoding="utf-8") as lines:
            applied = [record.time_s for record in map(parse, lines) if record.event == "applied" and record.node == shard_name(0)]
    first = len(applied) // 10
    return (len(applied) - 1 - first) / (applied[-1] - applied[first])


@click.command(help=__doc__.splitlines()[0] if __doc__ else "")
@click.option("--scenario", default="downpour-real", show_default=True)
@click.option("--updates", default=1500, show_default=True, help="Of each shard.")
@click.option("--rounds", default=2, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(scenario: str, updates: int, rounds: int, as_json: bool) -> None:
    found: dict[str, list[float]] = {durability: [] for durability in DURABILITIES}
    for _ in range(rounds):
        for durability, rates in found.items():
            rates.append(pushes_per_s(scenario, durability, updates))
    middle = {durability: statistics.median(rates) for durability, rates in found.items()}
    if as_json:
        click.echo(json.dumps(middle))
        return
    for durability, rate in middle.items():
        click.echo(f"  {durability:9} {rate:7.1f} pushes/s of a shard   {rate / middle['none']:.2f} of none")


if __name__ == "__main__":
    main()
