"""Run a scenario, and say everything that is wrong with what came out.

    from sim.oracles import trial

    assert trial(scenario).violations() == []

Beside the rules over the journal (`core/checks.py`), and the user's own: where numerics are exact, the parameters are those that were
counted, replicas saw what there was, and shards gathered each portion once; and the job comes to its end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from core.checks import RULES, Findings, PushId, Violation, check, push_of
from core.durability import Mirror
from core.job import partition_number, shard_of
from core.journal import Record
from core.shard import Shard
from core.timings import GIVE_UP_AFTER
from models.tally import Mark, TallyNetwork
from report.verdict import own, verdict
from scenarios.expectations import judge
from scenarios.parts import Numerics
from scenarios.plan import plan
from scenarios.schema import Scenario
from sim.run import Run

ORACLES: dict[str, str] = {
    "the parameters are what was counted": "a shard's parameters are the sum of the pushes in its surviving history, each gradient in them once",
    "gradients are of parameters there were": "each gradient was computed once, on parameters that its shards have had, and its push tells which",
    "the end is what the shards hold": "what the job ends with is what its shards hold",
    "each portion is gathered once": "the gradient that a shard has gathered is the sum of each portion's, or each replica's, once",
    "accounts add up": "each role's seconds, by what it did, add up to the time it was there",
    "the job comes to its end": "once nothing fails any more, the job is over before `give_up_after`, and has not failed",
    "it does not break": "nothing in the job raises an error that nobody expects",
}
"""Rules that need more than the journal; `core.checks.RULES` are the others."""


class Trial(NamedTuple):
    """One run and its journal."""

    run: Run
    records: list[Record]
    broke: str = ""
    """The error that nobody expected, which ended the run."""

    def violations(self) -> list[Violation]:
        """Everything that is wrong; empty when all is well."""
        return list(violations(self))


def trial(scenario: Scenario, *, numerics: Numerics | None = None, ties: int = 0) -> Trial:
    """Run it to its end, without files; `numerics`: instead of its own."""
    run = Run(scenario, prepared=plan(scenario, numerics=numerics, shared=True), ties=ties)
    records = run.journal.records()
    try:
        run.simulate()
    except Exception as error:  # noqa: BLE001  the code under test is anybody's: whatever it raises is what was found
        return Trial(run, records, f"{type(error).__name__}: {error}")
    return Trial(run, records)


def judged(done: Trial, journal: Path) -> dict[str, Any]:
    """The same for the summary, with the lines of the journal and the stories in it."""
    return verdict(done.violations(), done.records, [journal], RULES | ORACLES)


def violations(done: Trial) -> Iterator[Violation]:
    scenario, cluster, network = done.run.scenario, done.run.cluster, done.run.plan.network
    if done.broke:
        yield Violation("it does not break", done.broke, ())
    findings = check(done.records, durability=scenario.protocol.durability, staged_limit=done.run.plan.job.staged_limit or None)
    yield from findings.violations
    yield from own(scenario, done.records)
    if done.broke:
        return
    try:
        cluster.settle()
    except AssertionError as error:
        yield Violation("accounts add up", str(error), ())
    if isinstance(network, TallyNetwork):
        carried = gradients_of(findings)
        yield from said("the parameters are what was counted", miscounted(done, findings, carried))
        yield from said("gradients are of parameters there were", misread(done, carried))
        yield from said("the end is what the shards hold", misreported(done))
    yield from said("each portion is gathered once", getattr(network, "wrong", ()))
    if cluster.failed and not given_up(done.records):
        yield Violation("the job comes to its end", f"failed: {cluster.failed}", ())
    if scenario.expect:
        for judged in judge(scenario, done.run.summary()):
            if not judged["met"]:
                yield Violation(f"expect {judged['metric']} {judged['allowed']}", f"found {judged['found']}{judged['note']}", ())


def said(rule: str, found: Iterable[str]) -> Iterator[Violation]:
    return (Violation(rule, what, ()) for what in found)


def gradients_of(findings: Findings) -> dict[PushId, list[Mark]]:
    """Which gradients each push carried: a life's gradients go into its pushes one after the other, none left out."""
    carried, steps = {}, defaultdict[tuple[str, int, str], int](int)
    for push, count in findings.pushed.items():
        lane = push.sender, push.life, push.shard
        carried[push] = [Mark(push.sender, push.life, steps[lane] + step) for step in range(count)]
        steps[lane] += count
    return carried


def miscounted(done: Trial, findings: Findings, carried: dict[PushId, list[Mark]]) -> Iterator[str]:
    """A shard's parameters are exactly the sum of the pushes that survive in it."""
    for name, host in done.run.cluster.hosts.items():
        if isinstance(host.server, Shard):
            yield from misheld(name, host.server, findings.surviving.get(name, []), carried)
        elif isinstance(host.server, Mirror) and host.server.shard is not None and host.life.up:
            copy = host.server.shard
            yield from misheld(name, copy, findings.surviving.get(shard_of(name), [])[: copy.updates], carried)


def misheld(name: str, shard: Shard, history: list[PushId], carried: dict[PushId, list[Mark]]) -> Iterator[str]:
    (found,) = shard.parameters.elements
    expected = {mark: 1.0 for push in history for mark in carried.get(push, ())}
    for mark in sorted(found.keys() | expected.keys()):
        if found.get(mark) != expected.get(mark):
            yield f"{name} counts {mark} {found.get(mark, 0):g} times instead of {expected.get(mark, 0):g}"
    if shard.updates != len(history):
        yield f"{name} says {shard.updates} updates; {len(history)} survive"


def misread(done: Trial, carried: dict[PushId, list[Mark]]) -> Iterator[str]:
    """Each gradient was computed on parameters that its shards have had, and its push tells truly which."""
    network = done.run.plan.network
    assert isinstance(network, TallyNetwork)
    yield from (f"{mark} was computed twice" for mark in network.again)
    for number, shared in enumerate(done.run.plan.job.shards):
        states: dict[frozenset[Mark], int] = {frozenset(): 0}
        lives: dict[int, list[frozenset[Mark]]] = {1: [frozenset()]}
        for record in done.records:
            if record.node != shared.name or record.event not in ("applied", "restored"):
                continue
            if record.event == "restored":
                before = lives[max(life for life in lives if life < record.life)]
                lives[record.life] = before[: record.number + 1]
                continue
            marks = carried.get(push_of(record))
            if marks is None:
                return  # a push that was never sent: told elsewhere
            history = lives[record.life]
            based_on = states.get(frozenset(network.seen[marks[0]][number]))
            if record.life == 1 and based_on != len(history) - 1 - record.value:
                yield f"{record.peer} push {record.number} to {record.node} has staleness {record.value:g}, based on {based_on} of {len(history) - 1}"
            history.append(history[-1].union(marks))
            states[history[-1]] = len(history) - 1
        for mark, seen in network.seen.items():
            if shared.partition != partition_number(mark.replica):
                continue  # the machine has nothing to do with that shard
            if frozenset(seen[number]) not in states or set(seen[number].values()) > {1.0}:
                yield f"{mark} was computed on parameters that {shared.name} never had: {seen[number]}"


def misreported(done: Trial) -> Iterator[str]:
    """What the job ends with is what its shards hold."""
    cluster = done.run.cluster
    if cluster.final is not None and not cluster.failed:
        for shared in done.run.plan.job.shards:
            shard = cluster.shard(shared.name)
            if shard is not None:
                found, held = cluster.final.parameters[shared.part].elements, shard.parameters.elements
                if found != held:
                    yield f"the final parameters are not those of {shared.name}: {len(found[0])} gradients instead of {len(held[0])}"


def given_up(records: Sequence[Record]) -> bool:
    """A role that fell silent again and again, for reasons that nobody declared to the supervisor, is rightly given up."""
    abandoned = {record.peer for record in records if record.event == "abandoned"}
    return any(sum(r.event == "lost" and r.peer == peer for r in records) >= GIVE_UP_AFTER for peer in abandoned)
