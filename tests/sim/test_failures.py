"""Whatever fails, each push counts once, the parameters are exactly what was counted, and the job comes to its end.

Schedules of faults are drawn, the code that trains is run on a network whose parameters are the tally of its pushes, and
`oracles.wrong` says everything that does not hold.  What the drawing found once stands below as a test of its own.
`make hunt` draws 5,000 schedules for each property.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import currently_in_test_context, given, note, settings

from core import chance
from core.journal import Journal
from core.messages import Ask, Progress, Unreachable
from core.node import Outcome
from core.work import Cost
from sim.device import Device, Machine
from sim.host import Host
from sim.loop import Life, SimLoop
from sim.network import Network
from sim.run import Run
from sim.strategies import Tables, scenario, tables, toml
from tests.sim.oracles import Trial, trial, wrong


thoroughly = settings(max_examples=max(200, settings().max_examples))


def run(drawn: Tables, **options: Any) -> Trial:
    if currently_in_test_context():
        note(toml(drawn))
    return trial(scenario(drawn), **options)


@thoroughly
@given(tables())
def test_each_push_counts_once_and_the_job_ends_whatever_fails(drawn: Tables) -> None:
    assert wrong(run(drawn)) == []


@thoroughly
@given(tables(numerics="real"))
def test_so_it_is_with_an_evaluator_and_the_final_parameters_are_the_tally(drawn: Tables) -> None:
    assert wrong(run(drawn)) == []


@thoroughly
@given(tables())
def test_nothing_of_it_depends_on_the_order_of_what_happens_at_once(drawn: Tables) -> None:
    assert wrong(run(drawn, shuffle_ties=True)) == []


@given(tables())
def test_the_same_scenario_has_the_same_journal(drawn: Tables) -> None:
    assert run(drawn).records == run(drawn).records


@given(tables())
def test_a_drawn_scenario_can_be_replayed_without_the_tally(drawn: Tables) -> None:
    plain = Run(scenario(drawn))
    plain.simulate()
    assert plain.journal.digest() == run(drawn).run.journal.digest()


# What was found


def small(*faults: Tables, **protocol: Any) -> Tables:
    """One replica and two shards on three machines, without luck; up at 100 ms, then a step every 50 ms."""
    return {
        "schema": 1,
        "numerics": "timing",
        "model": {"layers": [64, 10], "cost": {"parameters": 12_000, "flops": "50 MFLOP"}},
        "protocol": {
            "kind": "downpour", "replicas": 1, "shards": 2, "batch": 1, "rule": {"kind": "sgd", "learning_rate": 1}, "local_rate": 0,
            "deadline": "1 s", "evaluate_every": "400 ms", "stop": {"updates": 4},
        } | protocol,
        "cluster": {"speed": "1 GFLOP/s", "memory": "100 MB/s", "disk": "10 MB/s", "start_up": "100 ms"},
        "network": {"nic": "10 MB/s", "latency": "1 ms"},
        "fault": list(faults),
    }  # fmt: skip


def crash(target: str, at: str, repair: str) -> Tables:
    return {"kind": "crash", "target": target, "at": at, "repair": repair}


def test_a_machine_lost_before_its_replica_was_up_is_waited_for() -> None:
    """The replica counted as gone for good, and the next crash of a shard ended the job: "no replica is left"."""
    found = small(crash("machine/2", "50 ms", "2 s"), crash("shard/0", "300 ms", "100 ms"))
    assert wrong(run(found)) == []


def test_a_restart_that_a_later_crash_overtook_does_not_happen() -> None:
    """Process, machine, process: the first repair, due at 2.1 s, must not end the third, due at 5.3 s."""
    found = small(crash("replica/0", "200 ms", "1800 ms"), crash("machine/2", "300 ms", "100 ms"), crash("replica/0", "1200 ms", "4 s"), stop={"updates": 60})
    done = run(found)
    assert wrong(done) == []
    starts = [record.time_s for record in done.records if (record.event, record.peer) == ("started", "replica/0")]
    assert starts == pytest.approx([0.1, 0.5, 5.3])


def test_replicas_are_called_back_when_a_shard_has_lost_what_it_finished() -> None:
    """Its replica had seen both shards finish, and ended; the job ended with it: "no replica is left"."""
    found = small({"kind": "pause", "target": "shard/1", "at": "120 ms", "for": "2 s"}, crash("shard/0", "900 ms", "100 ms"))
    done = run(found)
    assert [record.life for record in done.records if record.event == "finished" and record.node == "shard/0"] == [1, 2]
    assert wrong(done) == []


def test_a_finished_shard_on_its_way_back_is_waited_for() -> None:
    """The last replica ended while a shard was down whose finish was durable: "no replica is left"."""
    found = small({"kind": "pause", "target": "shard/1", "at": "120 ms", "for": "2 s"}, crash("shard/0", "900 ms", "4 s"), durability="snapshot")
    done = run(found)
    assert wrong(done) == []
    assert done.run.loop.time() == pytest.approx(5.0)


def test_the_final_parameters_are_final_though_the_evaluator_is_cut_off_at_the_end() -> None:
    """It gave the shards one deadline, and ended well with the parameters of its last look: the initial ones."""
    found = small({"kind": "loss", "target": "evaluator", "at": "200 ms", "for": "9 s", "probability": 1.0}) | {"numerics": "real"}
    done = run(found)
    assert wrong(done) == []
    assert done.run.cluster.final is not None
    assert done.run.cluster.final.updates == 4


def test_a_long_loss_is_no_deadlock() -> None:
    """No update in 100 deadlines was taken for a job that is stuck, though the loss had an end."""
    found = small({"kind": "loss", "target": "shard/0", "at": "200 ms", "for": "350 s", "probability": 1.0})
    assert wrong(run(found)) == []


def test_a_late_reset_does_not_stop_the_next_life_from_serving() -> None:
    """On a slow network, the news of a crash reached the caller while the next life was serving its request; that call was
    then marked as reset, so its service never came to an end, and nobody else was served."""
    loop, journal = SimLoop(), Journal()
    machines = [Machine(name, 1e9, 1e8, 1e8, 1e8) for name in ("here", "there")]
    network = Network(loop, 0.1, fifo=False)
    addresses: dict[str, Any] = {}

    class Place:
        def __init__(self, name: str, machine: Machine) -> None:
            self.machine, self.host = machine, None
            addresses[name] = self

        def live(self, name: str, incarnation: int) -> Host:
            life, device = Life(name, incarnation, loop), Device(loop, self.machine, chance.stream(0, name, "jitter"), 0.0)
            self.host = Host(life, self.machine, network, addresses, journal, device, chance.stream(0, name, "own"), 1.0, 1.0)
            return self.host

    class Slow:
        def handle(self, _request: object, _sender: object) -> Outcome:
            return Outcome(Progress(0, 0), Cost(0.0, 1e7))  # 0.1 s

    replica, shard = Place("replica/0", machines[0]), Place("shard/0", machines[1])
    caller, first = replica.live("replica/0", 1), shard.live("shard/0", 1)
    answers: list[object] = []

    async def ask() -> None:
        for _ in range(2):
            try:
                answers.append(await caller.call("shard/0", Ask()))
            except Unreachable as error:
                answers.append(error)

    def die() -> None:
        first.life.crash()
        shard.live("shard/0", 2).server = Slow()
        caller.reset_calls_to(shard)

    caller.life.start(ask())
    loop.call_later(0.05, die)
    loop.run(until=2.0)
    assert [type(answer) for answer in answers] == [Unreachable, Progress]
