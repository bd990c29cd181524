"""Run a drawn scenario on the tally network, and say everything that is wrong with what came out."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from core.checks import Findings, PushId, check, push_of
from core.durability import LOG_LIMIT, Mirror
from core.job import partition_number, shard_of
from core.journal import Record, read
from core.shard import Shard
from core.timings import GIVE_UP_AFTER, Timings, pause_before
from models.catalogue import BUNDLED
from scenarios.schema import DeclaredCost, Scenario
from scenarios.topology import wire
from scenarios.wiring import machine_names
from sim.run import Run
from sim.strategies import healed_s
from tests.sim.tally_network import Mark, TallyNetwork, prepared


class Trial(NamedTuple):
    """One run and its journal."""

    run: Run
    records: list[Record]


LONGEST_LATENCY = 5
"""Times the mean one, where it varies."""


def trial(scenario: Scenario, *, ties: int = 0) -> Trial:
    journal = io.BytesIO()
    run = Run(scenario, journal, prepared=prepared(scenario), ties=ties)
    run.simulate()
    run.journal.flush()
    return Trial(run, list(read(iter(journal.getvalue().decode().splitlines(keepends=True)))))


def wrong(done: Trial) -> list[str]:
    """Every violation of safety; empty when all is well."""
    findings = check(done.records, durability=done.run.scenario.protocol.durability)
    done.run.cluster.settle()  # raises where accounts do not add up
    carried = gradients_of(findings)
    return [
        *map(str, findings.violations), *miscounted(done, findings, carried), *misread(done, carried), *misreported(done), *late(done)
    ]  # fmt: skip


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


def late(done: Trial) -> Iterator[str]:
    """The job comes to its end, within a bound after the last fault has healed."""
    run, ended_s = done.run, done.run.loop.time()
    if run.cluster.failed:
        if not given_up(done.records):
            yield f"failed: {run.cluster.failed}"
    elif ended_s > (latest_s := healed_s(run.scenario) + bound_s(run.scenario)):
        yield f"ended at {ended_s:g} s; all faults were over at {healed_s(run.scenario):g} s, and {latest_s:g} s was the limit"


def given_up(records: Sequence[Record]) -> bool:
    """A role that fell silent again and again, for reasons that nobody declared to the supervisor, is rightly given up."""
    abandoned = {record.peer for record in records if record.event == "abandoned"}
    return any(sum(r.event == "lost" and r.peer == peer for r in records) >= GIVE_UP_AFTER for peer in abandoned)


def narrowest(scenario: Scenario) -> float:
    """Bytes a second of the link through which all traffic may have to go."""
    machines = machine_names(scenario.cluster.machines or 1)
    return min(wire(scenario.network, machines).links.values())


HOPS = 8
"""Of a minibatch on several machines, one after the other: up to the classes and the loss, down again, and the agreement."""


def split_cost(scenario: Scenario) -> DeclaredCost:
    """Of the network that is split in drawn scenarios."""
    network = BUNDLED["mlp"]
    layers = scenario.model.layers
    return DeclaredCost.model_construct(parameters=network.parameters(layers), flops=network.flops_per_sample(layers))


def bound_s(scenario: Scenario) -> float:
    """How long a job may take once nothing fails any more, from whatever state the faults left it in.

    Whoever waits hears of it within one deadline, and pauses for three at most before it asks again; a replica makes such
    a chain of join, fetch, push and one more fetch.  With a warm start replica k begins by itself after 10 k deadlines.
    Then at worst one replica makes all updates again, `n_push` steps for each, on the slowest of machines and with
    the largest of jitters (e^(3 sigma) each), and waits for one round trip of all replicas' traffic between two steps.
    All of that twice, if a shard has lost what it had finished and the replicas are called back.  Before it, whoever is
    silent has to be noticed, a machine three times as slowly as a process, whoever was at work five times; roles that fell
    again and again wait; and a shard reads what it kept.
    """
    protocol, cluster, network = scenario.protocol, scenario.cluster, scenario.network
    cost = scenario.model.cost or split_cost(scenario)
    waiting = 4 * 4 + (10 * (protocol.replicas - 1) if protocol.warmstart else 0)
    slice_bytes = 4 * cost.parameters / protocol.shards
    step = cost.flops / cluster.speed.median * 2.72 ** (3 * (cluster.speed.sigma + cluster.jitter.sigma))
    sent_s = protocol.replicas * protocol.shards * slice_bytes / narrowest(scenario)
    applied_s = 3 * (protocol.replicas + protocol.shards) * slice_bytes / cluster.memory_bandwidth
    round_trip = 2 * (LONGEST_LATENCY * network.latency.mean_s + sent_s + applied_s)
    if scenario.model.partitions > 1:
        round_trip += HOPS * LONGEST_LATENCY * network.latency.mean_s
    updates = protocol.stop.updates
    assert updates is not None
    timings, written_s = Timings(protocol.detect_within), slice_bytes / cluster.disk
    noticing = 12 * protocol.detect_within + pause_before(GIVE_UP_AFTER, timings) + (LOG_LIMIT + 3) * written_s
    if protocol.durability == "mirror":
        round_trip *= 2
    elif protocol.durability == "log":
        round_trip += 3 * protocol.replicas * written_s
    training = waiting * protocol.deadline + updates * (max(protocol.n_push, protocol.n_fetch) * step + round_trip)
    evaluating = 2 * (protocol.evaluate_every + 4 * protocol.deadline) if scenario.numerics == "real" else 0.0
    return noticing + 2 * (training + cluster.start_up.longest_s) + evaluating
