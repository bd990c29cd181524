"""Peers that move, and lives that follow each other: nobody talks to a life that is over."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest

from core.journal import Journal
from core.messages import Ask, Fetch, Unreachable
from exec.codec import Identity
from exec.host import Host
from exec.malformed import Fault
from tests.exec.hosts import REPLICA, WITHIN_S, fake_shard, pair, push, real

FOREVER_S = 1000.0


def later_life(**options: object) -> Host:
    return Host(Identity("job", "shard/0", 4), Journal(), deadline_s=WITHIN_S, **options)  # type: ignore[arg-type]


@real
async def test_a_peer_that_was_never_introduced_is_unreachable() -> None:
    async with Host(REPLICA, Journal(), deadline_s=WITHIN_S) as host:
        with pytest.raises(Unreachable, match="knows no address of shard/1"):
            await host.call("shard/1", Ask())


@real
async def test_a_peer_that_serves_nowhere_is_unreachable() -> None:
    async with pair() as it:
        it.replica.introduce("shard/0", 4, "")
        with pytest.raises(Unreachable, match="knows no address of shard/0"):
            await it.call(Ask())


@real
async def test_a_later_life_at_another_address_is_reached_at_once() -> None:
    async with pair() as it, later_life(limits=it.host._limits) as later:
        await it.call(push())
        it.replica.introduce("shard/0", 4, later.serve(it.shard))
        assert (await it.call(push(2))).updates == 2
        assert it.host.refusals == {}


@real
async def test_an_introduction_of_an_earlier_life_changes_nothing() -> None:
    async with pair() as it:
        it.replica.introduce("shard/0", 2, "127.0.0.1:1")
        assert (await it.call(push())).updates == 1


@real
async def test_a_caller_that_was_told_no_life_learns_it_and_is_told_of_the_next() -> None:
    async with pair() as it, later_life(limits=it.host._limits) as later, Host(REPLICA, Journal(), deadline_s=WITHIN_S) as caller:
        caller.introduce("shard/0", 0, it.address)
        await caller.call("shard/0", push())
        caller.introduce("shard/0", 0, later.serve(it.shard))
        with pytest.raises(Unreachable, match="meant for life 3, this is life 4"):
            await caller.call("shard/0", push(2))
        assert it.tally == 1.0
        assert later.refusals == {Fault.MISADDRESSED: 1}
        assert (await caller.call("shard/0", push(2))).updates == 2


@real
async def test_calls_under_way_to_a_peer_that_was_replaced_end_at_once() -> None:
    asked, over = threading.Semaphore(0), threading.Event()

    def silent(messages: Iterator[bytes]) -> Iterator[bytes]:
        next(messages)
        asked.release()
        over.wait()
        yield b""

    with fake_shard(silent) as address:
        async with pair() as it, Host(REPLICA, Journal(), deadline_s=FOREVER_S) as caller:
            caller.introduce("shard/0", 2, address)
            calls = [caller.call("shard/0", request) for request in (Ask(), push(), Fetch())]
            for _ in calls:
                await asyncio.to_thread(asked.acquire)
            caller.introduce("shard/0", 3, it.address)
            async with asyncio.timeout(WITHIN_S):
                outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [Unreachable] * 3
            assert (await caller.call("shard/0", push())).updates == 1
            over.set()


@real
async def test_calls_that_wait_for_a_connection_end_at_once_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        async with Host(REPLICA, Journal(), deadline_s=FOREVER_S) as caller:
            for life in range(1, 11):
                caller.introduce("shard/0", life, f"127.0.0.{life}:{nobody.getsockname()[1]}")
                call = caller.call("shard/0", Ask())
                caller.introduce("shard/0", life, "")
                async with asyncio.timeout(WITHIN_S):
                    with pytest.raises(Unreachable):
                        await call
            assert not caller.failure.done()


@real
async def test_a_life_that_is_over_for_good_is_not_called_any_more() -> None:
    async with pair() as it:
        it.replica.introduce("shard/0", 4, it.address)
        with pytest.raises(Unreachable, match="meant for life 4, this is life 3"):
            await it.call(push())
        assert it.tally == 0.0
