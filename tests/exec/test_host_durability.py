"""A reply is sent when what it owes is durable, or never; and declared faults of messages hit calls as they say."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from core.journal import Journal
from core.messages import Accepted, Ask, Progress, Request, Sender, TimedOut, Unreachable
from core.node import Outcome, StoreFailed
from exec.chaos import Fate
from exec.host import Host
from tests.exec.hosts import LIMIT, REPLICA, SHARD, WITHIN_S, pair, push, real


@dataclass
class Ledger:
    """A server that counts what it is asked, and whose promises somebody else keeps."""

    promises: list[asyncio.Future[None]] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    def handle(self, request: Request[Any], _: Sender) -> Outcome:
        if isinstance(request, Ask):
            return Outcome(Progress(len(self.promises), 0))
        self.promises.append(asyncio.get_running_loop().create_future())
        self.asked.set()
        return Outcome(Accepted(len(self.promises)), durable=self.promises[-1])


async def with_ledger(test: Any, deadline_s: float = WITHIN_S) -> None:
    async with (
        Host(SHARD, Journal(), deadline_s=WITHIN_S, limits=(LIMIT,)) as host,
        Host(REPLICA, Journal(), deadline_s=deadline_s) as replica,
    ):
        ledger = Ledger()
        replica.introduce("shard/0", 0, host.serve(ledger))
        await test(ledger, host, replica)


@real
async def test_a_reply_waits_until_what_it_promises_is_durable() -> None:
    async def test(ledger: Ledger, _: Host, replica: Host) -> None:
        call = replica.call("shard/0", push(count=4))
        await ledger.asked.wait()
        assert (await replica.call("shard/0", Ask())).updates == 1  # others are answered meanwhile
        assert not call.done()
        ledger.promises[0].set_result(None)
        assert (await call).updates == 1

    await with_ledger(test)


@real
async def test_a_request_that_is_whole_may_take_any_time() -> None:
    async def test(ledger: Ledger, host: Host, replica: Host) -> None:
        call = replica.call("shard/0", push(count=4))
        await ledger.asked.wait()
        assert host._listener is not None
        host._listener.door.expire(0.0)
        ledger.promises[0].set_result(None)
        assert (await call).updates == 1

    await with_ledger(test)


@real
async def test_nobody_is_told_of_what_could_not_be_kept_and_the_host_lives_on() -> None:
    async def test(ledger: Ledger, host: Host, replica: Host) -> None:
        call = replica.call("shard/0", push(count=4))
        await ledger.asked.wait()
        ledger.promises[0].set_exception(StoreFailed("the disk is full"))
        with pytest.raises(Unreachable, match="what was carried out could not be kept"):
            await call
        assert not host.failure.done()
        assert (await replica.call("shard/0", Ask())).updates == 1

    await with_ledger(test)


@real
async def test_a_promise_given_up_is_none() -> None:
    async def test(ledger: Ledger, _: Host, replica: Host) -> None:
        call = replica.call("shard/0", push(count=4))
        await ledger.asked.wait()
        ledger.promises[0].cancel()
        with pytest.raises(Unreachable, match="could not be kept"):
            await call

    await with_ledger(test)


@real
async def test_a_host_closes_though_its_promises_are_never_kept() -> None:
    async with Host(REPLICA, Journal(), deadline_s=60) as replica:
        async with Host(SHARD, Journal(), deadline_s=60, limits=(LIMIT,)) as host:
            ledger = Ledger()
            replica.introduce("shard/0", 0, host.serve(ledger))
            call = replica.call("shard/0", push(count=4))
            await ledger.asked.wait()
        with pytest.raises(Unreachable):
            await call
        assert ledger.promises[0].cancelled()


@real
async def test_a_call_answered_too_late_was_carried_out_all_the_same() -> None:
    """Why a push carries its sequence."""

    async def test(ledger: Ledger, _: Host, replica: Host) -> None:
        with pytest.raises(TimedOut):
            await replica.call("shard/0", push(count=4))
        ledger.promises[0].set_result(None)
        assert (await replica.call("shard/0", Ask())).updates == 1

    await with_ledger(test, deadline_s=0.5)


# declared faults


@dataclass
class Decreed:
    """Says beforehand what becomes of each call, and then of no more."""

    fates: list[Fate]

    def judge(self, _: str, __: float, ___: object) -> Fate:
        return self.fates.pop(0) if self.fates else Fate()


@real
async def test_a_request_that_is_lost_changes_nothing() -> None:
    async with pair(deadline_s=0.3, replica={"interference": Decreed([Fate(request_lost=True)])}) as it:
        with pytest.raises(TimedOut, match="a declared fault"):
            await it.call(push())
        assert it.tally == 0.0
        assert it.host.received.messages == 0


@real
async def test_a_reply_that_is_lost_was_earned() -> None:
    async with pair(deadline_s=1.0, replica={"interference": Decreed([Fate(reply_lost=True)])}) as it:
        with pytest.raises(TimedOut, match="a declared fault"):
            await it.call(push())
        assert it.tally == 1.0
        assert (await it.call(push())).updates == 1


@real
async def test_a_request_that_is_doubled_counts_once() -> None:
    async with pair(replica={"interference": Decreed([Fate(twice=True)])}) as it:
        assert (await it.call(push())).updates == 1
        assert it.tally == 1.0
        assert it.host.received.messages == 2
    assert it.replica.sent == it.host.received


@real
async def test_a_request_that_is_delayed_arrives_later() -> None:
    async with pair(replica={"interference": Decreed([Fate(delay_s=0.2)])}) as it:
        began = time.monotonic()
        await it.call(Ask())
        assert time.monotonic() - began >= 0.2


@real
async def test_a_host_that_closes_waits_for_no_fault() -> None:
    began = time.monotonic()
    async with pair(deadline_s=1000.0, replica={"interference": Decreed([Fate(request_lost=True), Fate(delay_s=500.0)])}) as it:
        calls = [it.call(Ask()), it.call(Ask())]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [TimedOut, Unreachable]
    assert time.monotonic() - began < WITHIN_S
