"""The supervisor's ledger, called plainly: who is lost, who begins where, and when the job is over."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from core.lives import Role, State
from core.membership import Membership
from core.messages import Sender
from core.patience import BUSY
from core.reports import Beat, Capacity, End, Orders, Process, Report, Standing, Status
from core.timings import GIVE_UP_AFTER, Timings

TIMINGS = Timings(1.0)


@dataclass
class Ledger:
    """A ledger with a clock that the test sets, and everybody's voices."""

    names: tuple[str, ...] = ("shard/0", "replica/0", "evaluator")
    keeps: bool = False
    time_s: float = 0.0
    life: int = 1
    records: list[tuple[Any, ...]] = field(default_factory=list)
    silent: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        roles = [Role(name, keeps=self.keeps and name.startswith("shard")) for name in self.names]
        self.it = Membership(roles, TIMINGS, now=lambda: self.time_s, record=self.record, life=self.life)
        self.orders: dict[int, Orders] = {}

    def record(self, event: str, peer: str = "", number: int = 0, value: float = 0.0, note: str = "") -> None:
        self.records.append((event, peer, number, note))

    def events(self, event: str) -> list[tuple[Any, ...]]:
        return [record[1:] for record in self.records if record[0] == event]

    def report(
        self, agent: int = 0, *ended: End, boot: int = 1, held: tuple[Process, ...] = (), storage: str = "", leaving: bool = False
    ) -> Orders:
        report = Report(boot, f"host-{agent}", Capacity(storage=storage), held=held, ended=ended, leaving=leaving)
        self.orders[agent] = self.it.report(Sender(f"agent/{agent}", boot), report)
        return self.orders[agent]

    def beat(self, name: str, life: int, status: Status | None = None, known: int = 0) -> Standing:
        return self.it.beat(Sender(name, life), Beat(f"at-{name}-{life}", known, status or Status()))

    def pass_by(self, seconds: float, *agents: int, **statuses: Status) -> None:
        """Time passes; agents report, and whoever is up and not silent gives signs of life."""
        until = self.time_s + seconds
        while self.time_s < until - 1e-9:
            self.time_s += TIMINGS.look_s
            for agent in agents or (0,):
                self.report(agent)
            for role in list(self.it.roles.values()):
                if role.process is not None and role.name not in self.silent and role.state in (State.STARTING, State.UP):
                    self.beat(role.name, role.life, statuses.get(role.name.replace("/", "_")))
            self.it.look()

    def started(self) -> Ledger:
        self.report(0)
        self.it.look()
        self.pass_by(0.5)
        assert self.it.phase == "running"
        return self


def test_every_role_is_granted_its_first_life_and_the_job_begins_when_all_are_there() -> None:
    ledger = Ledger()
    assert ledger.report().wanted == ()
    ledger.it.look()
    assert set(ledger.report().wanted) == {Process("shard/0", 1), Process("replica/0", 1), Process("evaluator", 1)}
    for name in ("shard/0", "replica/0"):
        assert not ledger.beat(name, 1).begun
    standing = ledger.beat("evaluator", 1)
    assert standing.begun
    assert [(member.name, member.address) for member in standing.members] == [("shard/0", "at-shard/0-1")]
    assert {member.name for member in ledger.beat("shard/0", 1).members} == {"shard/0", "replica/0", "evaluator"}


def test_orders_are_a_state_that_can_be_told_twice() -> None:
    ledger = Ledger().started()
    assert ledger.report().wanted == ledger.report().wanted
    assert ledger.report().version == ledger.report().version


def test_a_crash_is_a_new_life_at_once_and_everybody_hears_of_it() -> None:
    ledger = Ledger().started()
    version = ledger.beat("replica/0", 1).version
    orders = ledger.report(0, End(Process("shard/0", 1), "crashed", "was killed by SIGKILL"))
    assert Process("shard/0", 2) in orders.wanted
    assert Process("shard/0", 1) not in orders.wanted
    ledger.beat("shard/0", 2)
    assert [(m.name, m.life) for m in ledger.beat("replica/0", 1, known=version).members] == [("shard/0", 2)]
    assert ledger.beat("shard/0", 1).outlived


def test_silence_is_noticed_within_what_was_asked_for() -> None:
    ledger = Ledger().started()
    ledger.silent.add("shard/0")
    began = ledger.time_s
    while not ledger.events("lost"):
        ledger.pass_by(TIMINGS.look_s)
    assert ledger.time_s - began <= TIMINGS.detect_within_s
    assert ("shard/0", 2, "machine/0") in ledger.events("granted")
    assert ledger.beat("shard/0", 1).outlived, "the old one, when it wakes"


def test_whoever_is_seen_to_work_may_be_silent_for_longer() -> None:
    ledger = Ledger().started()
    ledger.silent.add("replica/0")
    for _ in range(20):
        ledger.it.report(Sender("agent/0", 1), Report(1, "host-0", Capacity(), lively=(Process("replica/0", 1),)))
        ledger.pass_by(TIMINGS.look_s)
    assert not ledger.events("lost")
    ledger.pass_by(5 * TIMINGS.detect_within_s)
    assert ledger.events("lost")


def test_a_supervisor_that_was_asleep_holds_it_against_nobody() -> None:
    ledger = Ledger().started()
    ledger.time_s += 10
    ledger.it.look()
    assert not ledger.events("lost")


def test_a_machine_that_was_asleep_holds_it_against_none_of_its_roles() -> None:
    ledger = Ledger().started()
    ledger.silent = {"shard/0", "replica/0"}
    for _ in range(8):  # nobody says a word, while the supervisor is awake
        ledger.time_s += TIMINGS.look_s
        ledger.it.look()
    ledger.report()
    ledger.pass_by(2 * TIMINGS.look_s)
    ledger.silent = {"replica/0"}
    ledger.pass_by(TIMINGS.detect_within_s)
    assert [name for name, *_ in ledger.events("lost")] == ["replica/0"]


def test_what_crashes_again_and_again_is_given_up_with_its_last_words() -> None:
    ledger = Ledger(("shard/0", "replica/0", "replica/1", "evaluator")).started()
    for life in range(1, GIVE_UP_AFTER + 1):
        ledger.pass_by(8)
        ledger.report(0, End(Process("replica/1", life), "crashed", "no such module"))
    assert ledger.events("abandoned") == [("replica/1", GIVE_UP_AFTER, f"{GIVE_UP_AFTER} crashes in a row: no such module")]
    assert ledger.it.phase == "running", "the other replica goes on"


def test_with_fewer_replicas_left_than_it_takes_the_job_has_failed() -> None:
    ledger = Ledger(("shard/0", "replica/0", "replica/1", "replica/2", "evaluator"))
    ledger.it.needed = 2
    ledger.started()
    for replica in ("replica/1", "replica/2"):
        assert ledger.it.phase == "running"
        for life in range(1, GIVE_UP_AFTER + 1):
            ledger.pass_by(8)
            ledger.report(0, End(Process(replica, life), "crashed", "no such module"))
        ledger.pass_by(1)
    assert (ledger.it.verdict, ledger.it.reason.partition(";")[0]) == ("failed", "only 1 of the 2 replicas that it takes are left")


def test_a_declared_fault_is_no_reason_to_give_up() -> None:
    ledger = Ledger().started()
    for life in range(1, 3 * GIVE_UP_AFTER):
        ledger.report(0, End(Process("replica/0", life), "fault", "fault.0 crash"))
        ledger.pass_by(0.5)
    assert not ledger.events("abandoned")


def test_the_supervisor_need_not_wait_for_the_silence_of_agents_that_have_left() -> None:
    ledger = Ledger().started()
    ledger.report(1)
    ledger.it.conclude("interrupted", "enough")
    ledger.it.enter("over")
    assert ledger.report(0).conclude
    ledger.report(0, leaving=True)
    assert ledger.report(0).conclude, "what it said before comes late"
    assert not ledger.it.deserted, "the other has not left"
    ledger.report(1, leaving=True)
    assert ledger.it.deserted
    assert ledger.report(1, leaving=True).conclude, "its answer was lost, and it says so again"
    assert ledger.events("left") == [("machine/0", 0, "host-0"), ("machine/1", 0, "host-1")]


def test_an_agent_whose_last_word_is_lost_falls_silent() -> None:
    ledger = Ledger().started()
    ledger.it.conclude("interrupted", "enough")
    ledger.it.enter("over")
    until_s = ledger.time_s + 4 * TIMINGS.detect_within_s
    while not ledger.it.deserted:
        ledger.time_s += TIMINGS.look_s
        ledger.it.look()
        assert ledger.time_s < until_s


def test_an_agent_that_leaves_early_leaves_its_roles_to_others_and_may_come_back() -> None:
    ledger = Ledger().started()
    ledger.report(0, leaving=True)
    assert {role.state for role in ledger.it.roles.values()} == {State.WAITING}
    assert not any(role.crashes for role in ledger.it.roles.values())
    ledger.report(1)
    ledger.it.look()
    assert set(ledger.report(1).wanted) == {Process(name, 2) for name in ledger.names}
    assert not ledger.report(0, boot=2).conclude


def test_a_machine_that_is_gone_gives_its_roles_to_another() -> None:
    ledger = Ledger()
    ledger.report(0)
    ledger.report(1)
    ledger.it.look()
    ledger.pass_by(0.5, 0, 1)
    there = {role.name for role in ledger.it.roles.values() if role.machine == "machine/1"}
    assert there
    ledger.silent |= there
    ledger.pass_by(1.2, 0)
    assert {role.machine for role in ledger.it.roles.values()} == {"machine/0"}


def test_what_is_kept_on_a_machine_waits_for_it() -> None:
    ledger = Ledger(keeps=True)
    ledger.report(0, storage="disk/0")
    ledger.it.look()
    ledger.report(1, storage="disk/1")
    ledger.pass_by(0.5)
    ledger.silent.add("shard/0")
    while ledger.it.machines["machine/0"].up:
        ledger.time_s += TIMINGS.look_s
        ledger.report(1, storage="disk/1")
        ledger.it.look()
    assert ledger.it.roles["shard/0"].state is State.WAITING
    assert "does not hold what shard/0 has kept" in ledger.it.roles["shard/0"].note
    ledger.report(0, boot=2, storage="disk/0")
    ledger.it.look()
    assert ledger.it.roles["shard/0"].machine == "machine/0"


def test_an_agent_that_begins_anew_has_lost_everything_and_no_life_is_granted_twice() -> None:
    ledger = Ledger().started()
    ledger.report(0, boot=2)
    ledger.it.look()
    assert set(ledger.report(0, boot=2).wanted) == {Process("shard/0", 2), Process("replica/0", 2), Process("evaluator", 2)}
    assert ledger.it.report(Sender("agent/0", 1), Report(1, "host-0", Capacity())).conclude, "an agent of before"
    granted = [record[:2] for record in ledger.events("granted")]
    assert len(granted) == len(set(granted))


def test_a_lost_shard_lives_on_in_a_mirror_that_holds_everything() -> None:
    ledger = Ledger(("shard/0", "mirror/0", "replica/0", "evaluator")).started()
    ledger.beat("mirror/0", 1, Status(synced=True))
    orders = ledger.report(0, End(Process("shard/0", 1), "crashed", "gone"))
    assert ledger.events("promoted") == [("shard/0", 2, "mirror/0#1 on machine/0")]
    assert Process("mirror/0", 1) in orders.wanted, "its process goes on"
    assert Process("mirror/0", 2) in orders.wanted, "and a new mirror begins"
    assert ledger.beat("mirror/0", 1).promoted == 2
    ledger.beat("shard/0", 2)
    assert ledger.it.roles["shard/0"].state is State.UP
    ledger.silent.add("mirror/0")
    ledger.report(0, End(Process("mirror/0", 1), "crashed", "gone too"))
    assert ledger.it.roles["shard/0"].life == 2
    assert ledger.it.roles["shard/0"].process is None, "the end of that process is the end of the shard"


def lost_after_s(ledger: Ledger, **statuses: Status) -> float:
    """How long somebody who has just fallen silent is waited for."""
    began = ledger.time_s
    while not ledger.events("lost"):
        ledger.pass_by(TIMINGS.look_s, **statuses)
    return ledger.time_s - began


def test_the_last_copy_of_a_shard_is_waited_for_longer_than_one_of_two() -> None:
    names = ("shard/0", "mirror/0", "replica/0", "evaluator")
    alone, one_of_two = Ledger(names).started(), Ledger(names).started()
    one_of_two.pass_by(0.5, mirror_0=Status(synced=True))
    for ledger in (alone, one_of_two):
        ledger.silent.add("shard/0")
    assert lost_after_s(one_of_two, mirror_0=Status(synced=True)) <= TIMINGS.detect_within_s
    assert lost_after_s(alone) >= BUSY * TIMINGS.silence_s - TIMINGS.beat_s


def test_a_shard_without_a_mirror_begins_anew() -> None:
    ledger = Ledger(("shard/0", "mirror/0", "replica/0", "evaluator")).started()
    orders = ledger.report(0, End(Process("mirror/0", 1), "crashed", "gone"), End(Process("shard/0", 1), "crashed", "gone"))
    assert not ledger.events("promoted")
    assert Process("shard/0", 2) in orders.wanted


def test_the_job_is_over_when_the_evaluator_has_ended() -> None:
    ledger = Ledger().started()
    orders = ledger.report(0, End(Process("evaluator", 1), "ended", "done"))
    assert (ledger.it.phase, ledger.it.verdict) == ("over", "done")
    assert orders.conclude
    assert not orders.wanted


def test_a_replica_that_thought_the_job_over_is_needed_again_when_a_shard_has_lost_its_end() -> None:
    ledger = Ledger().started()
    ledger.beat("shard/0", 1, Status(finished="40 updates"))
    ledger.report(0, End(Process("replica/0", 1), "ended", "done"))
    ledger.pass_by(1.0, shard_0=Status(finished="40 updates"))
    assert ledger.it.roles["replica/0"].state is State.ENDED
    ledger.report(0, End(Process("shard/0", 1), "crashed", "gone"))
    ledger.pass_by(1.0)
    assert ledger.it.roles["replica/0"].life == 2


def test_the_first_verdict_stays() -> None:
    ledger = Ledger().started()
    ledger.report(0, End(Process("replica/0", 1), "failed", "the loss is nan"))
    ledger.it.conclude("interrupted", "Ctrl-C")
    assert (ledger.it.verdict, ledger.it.reason) == ("failed", "the loss is nan")
    assert ledger.beat("evaluator", 1).conclude == "the loss is nan"


def test_who_is_missing_at_the_start_is_named_with_what_to_check() -> None:
    ledger = Ledger()
    ledger.it.look()
    ledger.time_s = 59.0
    ledger.report(0)
    ledger.it.look()
    ledger.silent |= {"shard/0"}
    while ledger.it.phase == "starting":
        ledger.pass_by(1.0)
    assert ledger.it.verdict == "unstarted"
    assert "shard/0 on machine/0" in ledger.it.reason
    assert "look into its log" in ledger.it.reason


def test_a_later_life_of_the_supervisor_goes_on_where_the_last_one_was() -> None:
    ledger = Ledger(("shard/0", "mirror/0", "replica/0", "evaluator")).started()
    ledger.beat("mirror/0", 1, Status(synced=True))
    ledger.report(0, End(Process("shard/0", 1), "crashed", "gone"))
    later = Ledger(ledger.names, time_s=ledger.time_s, life=2)
    later.it.restore(json.loads(json.dumps(ledger.it.to_json())))
    assert set(later.report(0).wanted) == set(ledger.report(0).wanted)
    assert later.report(0).version > ledger.report(0).version
    assert later.beat("mirror/0", 1).promoted == 2
    assert later.beat("replica/0", 1, known=99).begun
    later.pass_by(3.0)
    assert not later.events("lost")


def test_a_later_life_of_the_supervisor_gives_everybody_longer_until_the_first_word() -> None:
    ledger = Ledger().started()
    later = Ledger(life=2)
    later.time_s = ledger.time_s
    later.it.restore(json.loads(json.dumps(ledger.it.to_json())))
    later.silent = {"shard/0", "replica/0"}
    later.pass_by((BUSY - 1) * TIMINGS.silence_s)
    assert not later.events("lost"), "they may still look for us"
    later.silent = {"replica/0"}
    later.pass_by(2 * TIMINGS.silence_s)
    assert [name for name, *_ in later.events("lost")] == ["replica/0"]
