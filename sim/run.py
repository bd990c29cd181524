"""Run one scenario in the simulated world, from its plan to its summary."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from core import chance
from core.job import partition_number, role_kind
from core.journal import Journal
from report.chronicle import Chronicle
from report.folder import RunFolder
from report.summary import summarise
from report.tally import Tally
from report.trace import TraceWriter
from report.tracing import Tracer
from scenarios.memory import check_declared, check_here, machine_memory
from scenarios.parts import users
from scenarios.plan import Plan, not_honoured, plan
from scenarios.schema import Scenario
from sim.accounts import NAMES, State, shares
from sim.cluster import Cluster
from sim.loop import SimLoop
from sim.outlook import waits
from sim.spans import Spans
from sim.usage import HEADER

PROGRESS_EVERY_S = 0.1
"""Of wall time."""

BUSIEST_LINKS = 10
"""That stand in the summary."""


def prepare(scenario: Scenario) -> Plan:
    """What a run is made of.  Raises ScenarioError for whatever of the user's does not fit, into memory too."""
    prepared = plan(scenario, shared=True)
    check_declared(prepared)
    check_here(prepared, machine_memory())
    for reference in scenario.invariants:
        users(scenario, reference, "invariants")  # whatever is wrong with it is told now, not when the run is over
    return prepared


class Run:
    """One simulation: `simulate`, then `summary` and `save_model`; a KeyboardInterrupt in the first leaves the others possible."""

    def __init__(
        self, scenario: Scenario, file: IO[bytes] | None = None, *,
        prepared: Plan | None = None, ties: int = 0, on_progress: Callable[[Run], None] | None = None, trace: TraceWriter | None = None,
    ) -> None:  # fmt: skip
        """`prepared`: a plan of that scenario with a network and data of the caller's own; `trace`: where to show what happens.

        `ties`: what happens at the same instant happens first come, first served; other numbers are so many other orders, drawn.
        """
        self.scenario = scenario
        self.began = time.monotonic()
        self.plan: Plan = prepared or prepare(scenario)
        self.journal, self.tally, self.chronicle = Journal(file), Tally(), Chronicle()
        for watching in (self.tally, self.chronicle):
            watching.attach(self.journal)
        self._tracer = Tracer(trace, steps=False) if trace is not None else None
        if self._tracer is not None:
            self._tracer.attach(self.journal)
        shuffle: random.Random | None = chance.stream(scenario.seed, "loop", f"ties, order {ties}") if ties else None
        self.loop = SimLoop(shuffle)  # type: ignore[abstract]  # sockets and processes have no place here
        self.cluster = Cluster(self.plan, self.journal, self.loop)
        self.cluster.spans = Spans(trace) if trace is not None else None
        self._on_progress, self._shown_at = on_progress, self.began

    def simulate(self) -> None:
        """To the end of the job."""
        self.cluster.begin()
        if self._on_progress is not None:
            self.loop.on_event = self._look
        try:
            self.loop.run(until=self.cluster.done)
        finally:
            if self._tracer is not None:
                self._tracer.finish(self.loop.time())

    def _look(self) -> None:
        now = time.monotonic()
        if self._on_progress is not None and now - self._shown_at >= PROGRESS_EVERY_S:
            self._shown_at = now
            self._on_progress(self)

    def summary(self, *, interrupted: bool = False) -> dict[str, Any]:
        """What happened so far."""
        cluster, failed = self.cluster, self.cluster.failed
        finished_at = self.tally.finished_at()
        seconds = finished_at if finished_at is not None and not failed else self.loop.time()
        return summarise(
            self.scenario, "sim", self.tally,
            **({"status": "interrupted", "reason": "Ctrl-C"} if interrupted else {"status": "failed", "reason": failed} if failed else {}),
            seconds=round(seconds, 9),
            wall_seconds=round(time.monotonic() - self.began, 3),
            messages=cluster.network.messages,
            bytes=int(cluster.network.bytes),
            staged_bytes=int(self.tally.staged_bytes * self.plan.payload_scale),
            lost_updates=self.tally.events["applied"] - cluster.toll.surviving(),
            faults=cluster.report_faults(),
            accounts=self.accounts(),
            goodput=self.goodput(seconds),
            links=sorted(cluster.usage.rows(), key=lambda row: (-row["utilisation"], row["link"]))[:BUSIEST_LINKS],
            waits=[wait.to_json() for wait in waits(cluster)] if interrupted or failed else [],
            notes=[*not_honoured(self.scenario, "sim"), *cluster.network.notes()],
            digest=self.journal.digest(),
        )  # fmt: skip

    def accounts(self) -> dict[str, Any]:
        """Shares of time by kind of role; and where replicas are split, by their first machines, their second ones, and so on."""
        accounts = self.cluster.settle()
        kinds = dict.fromkeys(map(role_kind, accounts.roles))
        by_kind = {kind: shares(spent for role, spent in accounts.roles.items() if role_kind(role) == kind) for kind in kinds}
        machines = self.plan.job.partitions if self.plan.job.partitions > 1 else 0
        by_partition = [
            shares(spent for role, spent in accounts.roles.items() if role_kind(role) == "replica" and partition_number(role) == machine)
            for machine in range(machines)
        ]
        return {"states": list(NAMES), "by_kind": by_kind, "by_partition": by_partition}

    def goodput(self, seconds: float) -> dict[str, float]:
        """Samples a second that the job has learnt from, in so many; replicas' share of time that went into computing, and what part of that was in vain."""
        accounts, portions = self.cluster.settle(), self.tally.portions
        replicas = [spent for role, spent in accounts.roles.items() if role_kind(role) == "replica"]
        whole_s, computed = sum(map(sum, replicas)), sum(accounts.samples.values()) / self.plan.job.partitions
        computing_s = sum(spent[State.COMPUTING] + spent[State.LOST_WORK] for spent in replicas)
        if portions["given"]:
            counted = computed * (1 - portions["wasted"] / portions["given"])
        else:
            shards = [shard.samples for shared in self.plan.job.shards if (shard := self.cluster.shard(shared.name)) is not None]
            counted = min(computed, sum(shards) / len(shards)) if shards else 0
        return {
            "samples_per_s": round(counted / seconds, 3) if computed and seconds else 0.0,
            "computing": round(computing_s / whole_s, 6) if whole_s else 0.0,
            "in_vain": round(1 - counted / computed, 6) if computed else 0.0,
        }

    def write_tables(self, folder: RunFolder) -> None:
        """Of every role and every link, which a summary has no room for."""
        folder.write_links(HEADER, (row.values() for row in self.cluster.usage.rows()))
        accounts = self.cluster.settle()
        rows = (
            (role, accounts.homes[role], accounts.lives[role], *(round(seconds, 9) for seconds in spent))
            for role, spent in accounts.roles.items()
        )
        folder.write_accounts(NAMES, rows)

    def save_model(self, path: Path) -> bool:
        """Write the final parameters, those of the shards if it has not come to an end; False if there are none."""
        final = self.cluster.final
        parameters = final.parameters if final is not None else self.cluster.parameters()
        if parameters is None:
            return False
        self.plan.save(parameters, path)
        return True


def simulate(scenario: Scenario, *, ties: int = 0) -> Run:
    """Run a scenario to its end, without files; for tests and studies."""
    run = Run(scenario, ties=ties)
    run.simulate()
    return run
