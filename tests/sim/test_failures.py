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
from core.checks import check
from core.journal import Journal
from core.messages import Ask, Progress, Sender, Unreachable
from core.node import Outcome
from core.work import Cost
from scenarios.distributions import constant
from scenarios.protocols import Downpour
from scenarios.topology import star
from sim.bounds import between_s, healed_s
from sim.calls import Place
from sim.device import Device, Machine
from sim.host import Host
from sim.loop import Life, SimLoop
from sim.network import Latency
from sim.run import Run
from sim.strategies import Tables, scenario, tables, toml
from tests.sim.schedules import crash, slow_service, small
from tests.sim.trials import Trial, trial, wrong

thoroughly = settings(max_examples=max(100, settings().max_examples))


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
    assert wrong(run(drawn, ties=1)) == []


@given(tables())
def test_there_is_progress_again_and_again_once_nothing_fails_any_more(drawn: Tables) -> None:
    done = run(drawn)
    protocol = done.run.scenario.protocol
    assert isinstance(protocol, Downpour)
    bounds = healed_s(done.run.scenario), between_s(done.run.scenario, protocol)
    assert check(done.records, durability=protocol.durability, progress=bounds).violations == []


@given(tables())
def test_the_same_scenario_has_the_same_journal(drawn: Tables) -> None:
    assert run(drawn).records == run(drawn).records


@given(tables())
def test_a_drawn_scenario_can_be_replayed_without_the_tally(drawn: Tables) -> None:
    plain = Run(scenario(drawn))
    plain.simulate()
    assert plain.journal.digest() == run(drawn).run.journal.digest()


# What was found


def test_a_machine_lost_before_its_replica_was_up_is_waited_for() -> None:
    """The replica counted as gone for good, and the next crash of a shard ended the job: "no replica is left"."""
    found = small(crash("machine/2", "50 ms", "2 s"), crash("shard/0", "300 ms", "100 ms"))
    assert wrong(run(found)) == []


def test_a_restart_that_a_later_crash_overtook_does_not_happen() -> None:
    """Process, machine, process: the first repair, due at 2.1 s, must not end the third, due at 5.3 s."""
    found = small(
        crash("replica/0", "200 ms", "1800 ms"),
        crash("machine/2", "300 ms", "100 ms"),
        crash("replica/0", "1200 ms", "4 s"),
        stop={"updates": 60},
    )
    done = run(found)
    assert wrong(done) == []
    starts = [record.time_s for record in done.records if (record.event, record.peer) == ("started", "replica/0")]
    assert starts[0] < 0.2
    assert starts[1:] == pytest.approx([5.3])


def test_a_mirror_that_a_new_supervisor_has_not_heard_yet_is_waited_for() -> None:
    """The ledger said that it was on its way; the shard, lost meanwhile, began anew with nothing."""
    found = small(
        crash("machine/2", "300 ms", "1 ms"), crash("supervisor", "600 ms", "1 ms"), crash("shard/0", "720 ms", "1 ms"),
        durability="mirror", detect_within="200 ms", stop={"updates": 17},
    )  # fmt: skip
    done = run(found)
    assert wrong(done) == []
    assert [record.peer for record in done.records if record.event == "promoted"] == ["shard/0"]


def test_replicas_are_called_back_when_a_shard_has_lost_what_it_finished() -> None:
    """Its replica had seen both shards finish, and ended; the job ended with it: "no replica is left"."""
    found = small(
        {"kind": "pause", "target": "shard/1", "at": "1150 ms", "for": "2 s"}, crash("shard/0", "1900 ms", "100 ms"),
        durability="none", detect_within="4 s",
    )  # fmt: skip
    done = run(found)
    assert [record.life for record in done.records if record.event == "finished" and record.node == "shard/0"] == [1, 2]
    assert wrong(done) == []


def test_a_finished_shard_on_its_way_back_is_waited_for() -> None:
    """The last replica ended while a shard was down whose finish was durable: "no replica is left"."""
    found = small(
        {"kind": "pause", "target": "shard/1", "at": "1150 ms", "for": "2 s"}, crash("shard/0", "1900 ms", "4 s"),
        durability="snapshot", detect_within="4 s",
    )  # fmt: skip
    done = run(found)
    assert wrong(done) == []
    assert done.run.loop.time() > 6.0


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


def test_a_service_goes_on_at_full_speed_once_the_machine_does() -> None:
    """What a shard had begun to serve on a slow machine was served at that speed to the end: here for 12 minutes."""
    found = small({"kind": "slowdown", "target": "shard/0", "at": "150 ms", "for": "20 ms", "factor": 1_000_000})
    done = run(found)
    assert wrong(done) == []
    assert done.run.loop.time() < 0.5


def test_a_disk_goes_on_at_full_speed_once_it_may() -> None:
    """What a disk had begun while it was slow went on so to the end: a hunt found a shard that read its snapshot for a quarter of a minute."""
    slow = {"kind": "slow-disk", "target": "shard/0", "at": "400 ms", "for": "20 ms", "factor": 1_000_000}
    done = run(small(crash("shard/0", "300 ms", "1 ms"), slow, durability="log", stop={"updates": 10}))
    assert wrong(done) == []
    assert done.run.loop.time() < 2.0


def test_agents_that_gave_the_supervisor_up_begin_anew() -> None:
    """What the world was to do on behalf of nobody was done on behalf of the agent that had just ended, and so never."""
    done = run(small(crash("supervisor", "150 ms", "70 s"), stop={"updates": 1300}))
    assert wrong(done) == []
    assert [record.number for record in done.records if record.event == "restored"] != []


def test_what_is_durable_knows_which_pushes_it_is_made_of() -> None:
    """The shard dies between the moment at which a push is durable and its reply: the repetition must find it counted."""
    done = run(slow_service())
    assert wrong(done) == []
    assert [(record.life, record.number) for record in done.records if record.event == "duplicate"] == [(2, 1)]


def test_a_shard_without_a_promise_that_is_drained_begins_anew_elsewhere() -> None:
    """What it had written down on the machine that was taken was held against its next life, on another."""
    notice = {"kind": "preemption", "target": "machine/0", "at": "300 ms", "notice": "200 ms", "repair": "1 ms"}
    done = run(small(notice, durability="none", stop={"updates": 10}))
    assert wrong(done) == []
    persisted = next(record for record in done.records if (record.event, record.node) == ("persisted", "shard/0"))
    restored = next(record for record in done.records if (record.event, record.node) == ("restored", "shard/0"))
    assert persisted.number > restored.number == 0


class Pair:
    """A replica that asks, and a shard that takes 0.1 s to answer, 0.1 s apart."""

    def __init__(self) -> None:
        self.loop, self.journal = SimLoop(), Journal()
        self.network = Latency(self.loop, star({"replica/0": 1e8, "shard/0": 1e8}), constant(0.1))
        self.places: dict[str, Any] = {name: Place(name, Machine(name, 1e9, 1e8, 1e8)) for name in ("replica/0", "shard/0")}
        self.caller = self.live("replica/0", 1)
        self.answers: list[object] = []
        self.live("shard/0", 1)

    def live(self, name: str, incarnation: int) -> Host:
        place, life = self.places[name], Life(name, incarnation, self.loop)
        device, own = Device(self.loop, place.machine, chance.stream(0, name, "jitter"), 0.0), chance.stream(0, name, "own")
        store: Any = None  # nobody here keeps anything
        place.host = host = Host(life, place, self.network, {}, self.journal, device, own, store, 1.0, 1.0)
        host.peers, host.server = dict(self.places), Slow()
        return host

    def restart_shard(self, *, silent: bool) -> None:
        self.places["shard/0"].host.life.crash()
        self.live("shard/0", 2)
        if not silent:
            self.caller.reset_calls_to(self.places["shard/0"])

    def ask(self, times: int) -> None:
        async def body() -> None:
            for _ in range(times):
                try:
                    self.answers.append(await self.caller.call("shard/0", Ask()))
                except Unreachable as error:
                    self.answers.append(str(error))

        self.caller.life.start(body())


class Slow:
    def handle(self, _request: object, sender: Sender) -> Outcome:
        return Outcome(Progress(sender.incarnation, 0), Cost(0.0, 1e7))


def test_a_late_reset_does_not_stop_the_next_life_from_serving() -> None:
    """On a slow network, the news of a crash reached the caller while the next life was serving its request.

    That call was then marked as reset, so its service never came to an end, and nobody else was served.
    """
    pair = Pair()
    pair.ask(times=2)
    pair.loop.call_later(0.05, lambda: pair.restart_shard(silent=False))
    pair.loop.run(until=2.0)
    assert pair.answers[0] == "the connection was reset"
    assert isinstance(pair.answers[1], Progress)


def test_a_request_meant_for_an_earlier_life_is_not_served() -> None:
    """The caller hears which life it met, and the next request is for that one."""
    pair = Pair()
    pair.ask(times=3)
    pair.loop.call_later(0.35, lambda: pair.restart_shard(silent=True))  # the second request is on its way
    pair.loop.run(until=2.0)
    assert [isinstance(answer, Progress) for answer in pair.answers] == [True, False, True]
    assert pair.answers[1] == "meant for life 1, this is life 2"
