"""Where the time of a role went: by calls made by hand, and in whole runs."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenarios.load import load
from sim.accounts import NAMES, Account, Accounts, State, nothing, shares
from sim.run import simulate

ALONE_S = 0.25


def call(sent: float, arrived: float = 0.0, handled: float = 0.0, replied: float = math.inf) -> Any:
    return SimpleNamespace(sent_s=sent, arrived_s=arrived, handled_s=handled, replied_s=replied, answered=True)


def told(sent: float) -> Any:
    return SimpleNamespace(sent_s=sent, answered=False)


def account(life: int = 1) -> Account:
    return Account(0.0, life, lambda _call, _outward: ALONE_S)


def spent(one: Account) -> dict[str, float]:
    return {name: seconds for name, seconds in zip(NAMES, one.spent, strict=True) if seconds}


def test_a_wait_is_divided_among_the_stages_of_the_call_that_ended_it() -> None:
    one = account()
    one.call_ended(10.0, call(1.0, 3.0, 6.0, 8.0))
    one.waited(10.0)
    assert spent(one) == {
        "idle": 1.0, "sending": 0.25, "server_queue": 3.0, "waiting": 2.0, "receiving": 0.25, "contention": 1.75 + 1.75,
    }  # fmt: skip


def test_what_a_call_took_while_its_caller_computed_is_not_counted() -> None:
    one = account()
    one.computed(7.0)
    one.call_ended(8.5, call(1.0, 3.0, 6.0, 8.0))
    one.waited(8.5)
    assert spent(one) == {"computing": 7.0, "waiting": 1.0, "receiving": 0.25, "contention": 0.25}


def test_a_wait_for_one_call_after_the_other_is_divided_among_both() -> None:
    one = account()
    one.call_ended(2.0, call(0.0, 0.25, 0.25, 1.75))
    one.call_ended(4.0, call(2.0, 2.25, 2.25, 3.75))
    one.waited(4.0)
    assert spent(one) == {"sending": 0.5, "waiting": 3.0, "receiving": 0.5}


def test_what_was_told_was_under_way_until_it_got_there() -> None:
    one = account()
    one.call_ended(4.0, told(1.0))
    one.call_ended(5.0, told(3.0))
    one.waited(7.0)
    assert spent(one) == {"idle": 3.0, "sending": 0.5, "contention": 3.5}


def test_a_call_that_failed_was_waited_for() -> None:
    one = account()
    one.call_ended(5.0, call(2.0))
    one.waited(6.0)
    assert spent(one) == {"idle": 3.0, "waiting": 3.0}


def test_a_later_life_recovers_until_it_computes() -> None:
    one = account(life=2)
    one.call_ended(3.0, call(1.0, 1.25, 1.25, 2.75))
    one.productive(4.0)
    one.computed(6.0)
    assert spent(one) == {"recovering": 4.0, "computing": 2.0}


def test_a_server_waits_for_messages_and_a_message_on_its_way_is_being_received() -> None:
    one = account()
    one.serves(1.0)
    one.asked(5.0, call(4.0))
    one.computed(6.0)
    one.cut(9.0, working=False)
    assert spent(one) == {"idle": 1.0, "waiting": 3.0 + 3.0, "receiving": 0.25, "contention": 0.75, "computing": 1.0}


def test_a_crash_makes_lost_work_of_what_was_being_computed_and_a_stop_is_no_work() -> None:
    one = account()
    one.stop(2.0, working=True)
    one.go_on(5.0)
    one.cut(6.0, working=True)
    assert spent(one) == {"computing": 2.0, "down": 3.0, "lost_work": 1.0}


@given(st.lists(st.tuples(*[st.integers(0, 9)] * 5, st.booleans(), st.booleans()), max_size=300))
def test_whatever_the_calls_were_the_account_adds_up(calls: list[tuple[int, int, int, int, int, bool, bool]]) -> None:
    one, now = account(), 0.0
    for back, queued, served, returned, between, failed, computes in calls:
        now += between
        sent = max(0.0, now - back)
        stages = [sent, sent + queued, sent + queued + served, sent + queued + served + returned]
        now = max(now, stages[-1])
        one.call_ended(now, call(*stages[:3], math.inf if failed else stages[3]))
        if computes:
            one.waited(now)
            now += 1.0
            one.computed(now)
    one.waited(now)
    assert math.fsum(one.spent) == pytest.approx(now)
    assert min(one.spent) >= 0


def test_roles_and_machines_add_up_over_lives() -> None:
    all_ = Accounts(["replica/0"], ["machine/0", "machine/1"])
    first, second = account(), account(life=2)
    all_.begins("replica/0", "machine/0", first, 2.0)
    first.since_s = 2.0
    all_.ends("replica/0", first, 5.0, working=True)
    all_.machine_down("machine/0", 5.0)
    second.since_s = 7.0
    all_.begins("replica/0", "machine/1", second, 7.0)
    all_.settle(10.0, lambda _: False)
    assert all_.roles["replica/0"][State.DOWN] == 2.0 + 2.0
    assert all_.roles["replica/0"][State.LOST_WORK] == 3.0
    assert all_.roles["replica/0"][State.RECOVERING] == 3.0
    assert all_.machines["machine/0"][State.DOWN] == 5.0
    assert all_.machines["machine/1"][State.RECOVERING] == 3.0
    assert shares([all_.roles["replica/0"]])["down"] == 0.4
    assert shares([nothing()])["down"] == 0.0


def test_a_life_that_was_replaced_without_noticing_counts_no_longer() -> None:
    all_ = Accounts(["replica/0"], ["machine/0"])
    old, new = account(), account(life=2)
    all_.begins("replica/0", "machine/0", old, 0.0)
    new.since_s = 4.0
    all_.begins("replica/0", "machine/0", new, 4.0)
    old.computed(9.0)
    all_.ends("replica/0", old, 9.0, working=False)
    all_.settle(10.0, lambda _: False)
    assert math.fsum(all_.roles["replica/0"]) == 10.0


def test_in_a_whole_run_a_straggler_and_a_crash_show_in_the_accounts() -> None:
    run = simulate(load("quickstart", ["numerics=timing"]))
    roles = run.cluster.settle().roles
    assert roles["replica/2"][State.LOST_WORK] > 0
    assert roles["replica/2"][State.DOWN] > 42
    assert all(roles[f"replica/{n}"][State.LOST_WORK] == 0 for n in (0, 1, 3, 4, 5, 6, 7))
    assert all(math.fsum(spent) == pytest.approx(run.loop.time()) for spent in roles.values())
