"""How long a job of the drawn scenarios may take once nothing fails any more, from whatever state the faults left it in."""

from __future__ import annotations

from core.durability import LOG_LIMIT
from core.timings import GIVE_UP_AFTER, Timings, pause_before
from models.catalogue import BUNDLED
from scenarios.faults import Aimed
from scenarios.protocols import Downpour
from scenarios.schema import DeclaredCost, Scenario
from scenarios.topology import wire
from scenarios.wiring import machine_names

LONGEST_LATENCY = 5
"""Times the mean one, where it varies."""

OTHERS_S = 1000.0
"""For jobs that are not Downpour's: they take some seconds, but near the minimum, where the parabolas' grid ends a line search only after
all its evaluations, minutes on the slowest disk and network."""


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


def latest_s(scenario: Scenario) -> float:
    """When it must be over, at last."""
    return healed_s(scenario) + (bound_s(scenario, scenario.protocol) if isinstance(scenario.protocol, Downpour) else OTHERS_S)


def latest_after_s(scenario: Scenario, undisturbed_s: float) -> float:
    """The same of any job that takes so long undisturbed: time for whoever is silent to be noticed, and for one replica to do all alone."""
    protocol = scenario.protocol
    timings = Timings(protocol.detect_within)
    calls = 16 + (10 * protocol.all_replicas if getattr(protocol, "warmstart", None) else 0)
    noticing_s = 12 * protocol.detect_within + pause_before(GIVE_UP_AFTER, timings) + calls * (protocol.deadline or timings.deadline_s)
    return healed_s(scenario) + noticing_s + 4 * protocol.all_replicas * undisturbed_s


def healed_s(scenario: Scenario) -> float:
    """When the last fault that heals is over and whoever it killed has been started again."""
    ends = [0.0]
    for fault in scenario.fault:
        assert isinstance(fault, Aimed)
        last_s = fault.begins_s if fault.every is None else fault.until
        assert last_s is not None
        ends.append(last_s + fault.notice_s + (0.0 if fault.lasting is None else fault.lasting.longest_s))
    return max(ends) + scenario.cluster.start_up.longest_s


def between_s(scenario: Scenario, protocol: Downpour) -> float:
    """How long Downpour may be without any progress: no longer than a whole job of one update."""
    return bound_s(scenario, protocol.model_copy(update={"stop": protocol.stop.model_copy(update={"updates": 1})}))


def bound_s(scenario: Scenario, protocol: Downpour) -> float:
    """How long Downpour may take.

    Whoever waits hears of it within one deadline, and pauses for three at most before it asks again; a replica makes such
    a chain of join, fetch, push and one more fetch.  With a warm start replica k begins by itself after 10 k deadlines.
    Then at worst one replica makes all updates again, `n_push` steps for each, on the slowest of machines and with
    the largest of jitters (e^(3 sigma) each), and waits for one round trip of all replicas' traffic between two steps.
    All of that twice, if a shard has lost what it had finished and the replicas are called back.  Before it, whoever is
    silent has to be noticed, a machine three times as slowly as a process, whoever was at work five times; roles that fell
    again and again wait; and a shard reads what it kept.
    """
    cluster, network = scenario.cluster, scenario.network
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
    deadline_s = protocol.deadline or timings.deadline_s
    training = waiting * deadline_s + updates * (max(protocol.n_push, protocol.n_fetch) * step + round_trip)
    evaluating = 2 * (protocol.evaluate_every + 4 * deadline_s) if scenario.numerics == "real" else 0.0
    return float(noticing + 2 * (training + cluster.start_up.longest_s) + evaluating)
