"""Replicas of several machines: whatever fails, no half gradients, the others go on, and the replica comes back as a unit.

What crosses says of which minibatch of which life it is, and whoever takes anything else fails the run (`models.tally.TallyComputation`).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import currently_in_test_context, given, note, settings

from core.inbox import Inbox
from core.messages import Accepted, Request, Sender
from core.node import Outcome
from core.outbox import Outbox
from core.passing import Overdue, Pass, Word
from core.team import Together
from scenarios.network import HEADER_BYTES
from scenarios.plan import plan
from sim import oracles
from sim.calls import REQUEST
from sim.network import Latency as Network
from sim.strategies import Tables, samples_for, scenario, tables, toml
from tests.sim.schedules import crash
from tests.sim.trials import Trial, trial, wrong

thoroughly = settings(max_examples=max(60, settings().max_examples // 2))

SPLIT: dict[str, Any] = {"partitions": 3, "replicas": 3, "rounds": 8}


def run(drawn: Tables, **options: Any) -> Trial:
    if currently_in_test_context():
        note(toml(drawn))
    return trial(scenario(drawn), **options)


@thoroughly
@given(tables(**SPLIT))
def test_no_half_gradient_counts_and_the_job_ends_whatever_fails(drawn: Tables) -> None:
    assert wrong(run(drawn)) == []


@thoroughly
@given(tables(**SPLIT))
def test_nothing_of_it_depends_on_the_order_of_what_happens_at_once(drawn: Tables) -> None:
    assert wrong(run(drawn, ties=1)) == []


@settings(max_examples=10)
@given(tables(**SPLIT))
def test_the_same_scenario_has_the_same_journal(drawn: Tables) -> None:
    assert run(drawn).records == run(drawn).records


def split(*faults: Tables, machines: int = 12, **protocol: Any) -> Tables:
    """Two replicas of three machines each and three shards, without luck; up at 100 ms, then a step about every 30 ms."""
    return {
        "schema": 1,
        "numerics": "timing",
        "model": {"layers": [64, 40, 10], "partitions": 3},
        "protocol": {
            "kind": "downpour", "replicas": 2, "shards": 3, "batch": 1, "rule": {"kind": "sgd", "learning_rate": 1}, "local_rate": 0,
            "detect_within": "100 ms", "deadline": "1 s", "stop": {"updates": 40},
        } | protocol,
        "cluster": {"machines": machines, "speed": "360 kFLOP/s", "memory_bandwidth": "100 MB/s", "disk": "10 MB/s", "start_up": "100 ms"},
        "network": {"model": "fifo", "nic": "10 MB/s", "latency": "1 ms"},
        "fault": list(faults),
    }  # fmt: skip


def grants(done: Trial, unit: str) -> list[tuple[str, int, str]]:
    return [(r.peer, r.number, r.note) for r in done.records if r.event == "granted" and r.peer.startswith(f"{unit}/")]


def test_a_machine_that_is_lost_takes_its_replica_with_it_onto_a_spare_machine_and_the_other_replica_goes_on() -> None:
    done = run(split(crash("machine/4", "300 ms", "60 s")))
    assert wrong(done) == []
    assert grants(done, "replica/0") == [
        ("replica/0/0", 1, "machine/3"), ("replica/0/1", 1, "machine/4"), ("replica/0/2", 1, "machine/5"),
        ("replica/0/0", 2, "machine/3"), ("replica/0/2", 2, "machine/5"), ("replica/0/1", 2, "machine/9"),
    ]  # fmt: skip
    assert {life for _, life, _ in grants(done, "replica/1")} == {1}
    lost_s, back_s = (
        next(r.time_s for r in done.records if (r.event, r.peer) == one) for one in (("crashed", "machine/4"), ("started", "replica/0/1"))
    )
    back_s = max(r.time_s for r in done.records if (r.event, r.peer) == ("started", "replica/0/1"))
    between = [r for r in done.records if r.event == "applied" and r.peer.startswith("replica/1/") and lost_s < r.time_s < back_s]
    assert between


def test_without_a_spare_machine_the_replica_shares_one_and_waits_for_none() -> None:
    done = run(split(crash("machine/4", "300 ms", "60 s"), machines=9))
    assert wrong(done) == []
    assert {life for _, life, _ in grants(done, "replica/0")} == {1, 2}


def test_all_machines_of_a_replica_live_the_same_life() -> None:
    """Whoever is lost while others wait to begin must not fall behind them."""
    done = run(
        split(crash("replica/0/0", "300 ms", "50 ms"), crash("replica/0/2", "310 ms", "400 ms"), crash("replica/0/1", "450 ms", "10 ms"))
    )
    assert wrong(done) == []
    lives: dict[str, list[int]] = {}
    for record in done.records:
        if record.event == "joined" and record.node.startswith("replica/0/"):
            lives.setdefault(record.node, []).append(record.life)
    assert len({max(found) for found in lives.values()}) == 1


def test_what_crosses_is_recorded_and_charged_as_the_graph_counts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    charged: Counter[str] = Counter()
    send = Network.send

    def counting(self: Network, message: Any, source: Any, destination: Any, nbytes: float) -> None:
        if isinstance(getattr(message, "request", None), Pass) and message.stage == REQUEST:
            charged[message.caller.name] += int(nbytes) - HEADER_BYTES
        send(self, message, source, destination, nbytes)

    monkeypatch.setattr(Network, "send", counting)
    made = scenario(split() | {"network": {"model": "latency", "nic": "10 MB/s", "latency": "1 ms"}})
    partitioned = plan(made).partitioned
    assert partitioned is not None
    done = trial(made)
    for machine in range(3):
        there = [message for message in partitioned.messages if machine in (message.source, message.destination)]
        for replica in range(2):
            passed = [r for r in done.records if (r.event, r.node) == ("passed", f"replica/{replica}/{machine}")]
            assert {(r.number, r.value) for r in passed} == {(len(there), 4.0 * sum(message.count(1) for message in there))}
            assert charged[f"replica/{replica}/{machine}"] >= sum(r.value for r in passed)
            assert charged[f"replica/{replica}/{machine}"] < sum(r.value for r in passed) + 4.0 * sum(message.count(1) for message in there)


LOSSES = [{"kind": "loss", "target": "replica/*", "at": "200 ms", "for": "5 s", "probability": 0.05}]


def test_what_gets_lost_between_the_machines_of_a_replica_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: Counter[str] = Counter()
    overdue = Inbox.overdue

    def counting(self: Inbox, request: Overdue, sender: Sender) -> Outcome:
        asked[sender.name] += 1
        return overdue(self, request, sender)

    monkeypatch.setattr(Inbox, "overdue", counting)
    done = run(split(*LOSSES))
    assert wrong(done) == []
    assert asked
    assert {life for _, life, _ in grants(done, "replica")} == {1}, "and nobody had to begin again"
    asked.clear()
    assert wrong(run(split())) == []
    assert not asked


@pytest.mark.parametrize("model", ["fifo", "fair"])
def test_what_is_only_slow_is_not_made_slower_by_asking_for_it(model: str) -> None:
    """A minibatch's messages take two seconds, and most of that time nothing new comes to somebody."""
    bytes_ = {}
    for deadline in ("20 s", "300 ms"):
        made = split(batch=4000, deadline=deadline, detect_within="20 s", stop={"updates": 10})
        made["cluster"] |= {"speed": "1.44 GFLOP/s"}
        made["network"] |= {"model": model, "nic": "1 MB/s"}
        done = oracles.trial(scenario(made | {"give_up_after": "100 s"}))
        assert wrong(done) == []
        bytes_[deadline] = done.run.cluster.network.bytes
    assert bytes_["300 ms"] < 2 * bytes_["20 s"]


def in_batches(*faults: Tables) -> Tables:
    """The same machines with Sandblaster's portions of batches, of which there are not enough for both replicas all the time."""
    protocol = {
        "kind": "sandblaster", "replicas": 2, "shards": 3, "portions": 8, "bundle": 2, "detect_within": "10 s", "deadline": "1 s",
        "stop": {"iterations": 6},
    }  # fmt: skip
    data = {"source": "synthetic", "samples": samples_for(8)}
    return split(*faults) | {"protocol": protocol, "data": data, "give_up_after": "100 s"}


SLOW_NEWS = {"model": "latency", "nic": "10 MB/s", "latency": {"lognormal": {"median": "5 ms", "sigma": 1.5}}}
"""One message in a hundred is under way for more than 160 ms: what was sent later comes earlier, by a whole round or two."""


@pytest.mark.parametrize(
    "made", [in_batches(*({**loss, "for": "20 s"} for loss in LOSSES)), in_batches() | {"network": SLOW_NEWS}], ids=["lost", "slow"]
)
@pytest.mark.parametrize("seed", range(3))
def test_the_first_machine_does_not_run_away_from_those_who_have_not_heard_what_comes_next(made: Tables, seed: int) -> None:
    done = oracles.trial(scenario(made | {"seed": seed}))
    assert wrong(done) == []
    assert not [record for record in done.records if record.event == "refused"]
    assert {life for _, life, _ in grants(done, "replica")} == {1}


def test_a_replica_is_called_back_though_one_of_its_machines_never_heard_that_it_was_over() -> None:
    """The last word is lost, and whoever said it has ended, a deadline later; then a shard loses what it had finished."""

    def made(*faults: Tables) -> Tables:
        return split(*faults, replicas=1, durability="none", stop={"updates": 6}, evaluate_every="5 s") | {"numerics": "real"}

    ended_ms = 1000 * next(r.time_s for r in run(made()).records if (r.event, r.peer) == ("ended", "replica/0/0"))
    lost = {"kind": "loss", "target": "replica/0/1", "at": f"{ended_ms - 2.5:.3f} ms", "for": "50 ms", "probability": 1.0}
    done = run(made(lost, crash("shard/1", f"{ended_ms + 2000:.3f} ms", "200 ms")))
    assert wrong(done) == []
    assert [r.life for r in done.records if (r.event, r.node) == ("finished", "shard/1")] == [1, 2]


# planted bugs


def ask_for_nothing(patch: pytest.MonkeyPatch) -> None:
    """What is lost is waited for, and that is all."""
    patch.setattr(Outbox, "ask", lambda *_: None)


def push_at_once(patch: pytest.MonkeyPatch) -> None:
    """A gradient is pushed as soon as its own machine has it, whether or not the others will."""

    async def hasty(self: Together, word: Word) -> Word:
        self.enter()
        return word

    patch.setattr(Together, "say", hasty)


def forget_the_round(patch: pytest.MonkeyPatch) -> None:
    """Whatever comes is taken for the present round's: what a repetition brings again is a tensor of the step before."""
    handle = Inbox.handle

    def timeless(self: Inbox, request: Request[Any], sender: Sender) -> Outcome:
        if isinstance(request, Pass):
            request.round = max(request.round, self.round)
        return handle(self, request, sender)

    patch.setattr(Inbox, "handle", timeless)


def remember_too_well(patch: pytest.MonkeyPatch) -> None:
    """What came once in any round is taken for a repetition ever after."""

    def enter(self: Inbox, number: int) -> None:
        self.round = number
        self._seen = {number: self._seen.get(number - 1, 0) | self._seen.get(number, 0)}
        for key, kept in self._early.pop(number, ()):
            self.deliver(key, kept)

    patch.setattr(Inbox, "enter", enter)


def acknowledge_what_is_dropped(patch: pytest.MonkeyPatch) -> None:
    """What comes before its round has begun is acknowledged, and kept nowhere."""
    handle = Inbox.handle

    def hasty(self: Inbox, request: Request[Any], sender: Sender) -> Outcome:
        if getattr(request, "round", 0) > self.round:
            return Outcome(Accepted(0))
        return handle(self, request, sender)

    patch.setattr(Inbox, "handle", hasty)


AGAIN = [
    {"kind": "duplication", "target": "replica/*", "at": "150 ms", "for": "3 s", "probability": 1.0},
    {
        "kind": "reordering", "target": "replica/*", "at": "150 ms", "for": "3 s", "probability": 0.5,
        "by": {"exponential": {"mean": "15 ms"}},
    },
]  # fmt: skip
"""Much comes a second time, when the next minibatch has begun."""

SLOW = {"kind": "slowdown", "target": "replica/*/0", "at": "150 ms", "for": "3 s", "factor": 3}
"""The others are ahead of the first machine, and their words come early."""


@pytest.mark.parametrize(
    ("plant", "faults", "sign"),
    [
        (push_at_once, [], "no half gradients"),
        (forget_the_round, AGAIN, "came into"),
        (remember_too_well, [], "the job comes to its end"),
        (acknowledge_what_is_dropped, [SLOW], "the job comes to its end"),
        (ask_for_nothing, LOSSES, "the job comes to its end"),
    ],
    ids=["push_at_once", "forget_the_round", "remember_too_well", "acknowledge_what_is_dropped", "ask_for_nothing"],
)
def test_a_planted_bug_is_caught(plant: Any, faults: list[Tables], sign: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        try:
            found = "; ".join(wrong(run(split(*faults))))
        except AssertionError as error:
            found = str(error)
    assert sign in found
    assert wrong(run(split(*faults))) == []
