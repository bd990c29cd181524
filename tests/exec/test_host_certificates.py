"""Hosts with certificates of one job talk; nobody else gets a word in, or out."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import grpc
import pytest

from core.journal import Journal
from core.messages import Ask, Fetch, Unreachable
from exec.certificates import TARGET, Authority, Credentials
from exec.codec import encode_request
from exec.host import Host
from exec.malformed import Fault
from exec.transport import METHOD, client_options
from tests.exec.hosts import COUNT, REPLICA, SHARD, WITHIN_S, Pair, pair, push, raw_call, real

AUTHORITY, ANOTHER = Authority.for_job("job"), Authority.for_job("another")
OWN, PEER, FOREIGN = AUTHORITY.issue("node-1", ["127.0.0.1"]), AUTHORITY.issue("node-2"), ANOTHER.issue("node-1")
ASK = encode_request(REPLICA, 0, Ask())


@asynccontextmanager
async def closed(peer: Credentials = PEER) -> AsyncIterator[Pair]:
    """A shard that asks for certificates, and a replica that shows one."""
    async with pair(credentials=OWN, replica={"credentials": peer}) as it:
        yield it


def unheard(it: Pair) -> bool:
    """Has the server seen nothing of anybody, but perhaps that there was somebody?"""
    return it.host.received.messages == 0 and set(it.host.refusals) <= {Fault.STRANGER}


@real
async def test_hosts_of_one_job_talk() -> None:
    async with closed() as it:
        assert (await it.call(push())).updates == 1
        assert float((await it.call(Fetch())).vector[COUNT - 1]) == 1.0


@real
async def test_hosts_of_one_job_share_memory_too() -> None:
    async with pair(credentials=OWN, replica={"credentials": PEER, "shared_memory": True}) as it:
        assert (await it.call(push())).updates == 1
        assert it.tally == 1.0


@real
async def test_a_certificate_of_another_job_is_shown_the_door() -> None:
    for stranger in (FOREIGN, replace(FOREIGN, ca=OWN.ca)):  # the latter believes us, and still is not believed
        async with closed(stranger) as it:
            with pytest.raises(Unreachable):
                await it.call(push())
            assert it.tally == 0.0
            assert unheard(it)


@real
async def test_who_shows_no_certificate_is_not_heard() -> None:
    def ask(address: str) -> None:
        options = (*client_options(1.0), ("grpc.ssl_target_name_override", TARGET))
        with grpc.secure_channel(address, grpc.ssl_channel_credentials(OWN.ca), options) as channel:
            list(channel.stream_stream(METHOD)(iter([ASK]), timeout=WITHIN_S))

    async with closed() as it:
        with pytest.raises(grpc.RpcError) as caught:
            await asyncio.to_thread(ask, it.address)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert unheard(it)
        assert (await it.call(push())).updates == 1


@real
async def test_who_does_not_even_speak_tls_is_not_heard() -> None:
    async with closed() as it:
        with pytest.raises(grpc.RpcError):
            await raw_call(it.address, ASK)
        assert unheard(it)
        assert (await it.call(push())).updates == 1


@real
async def test_a_server_that_cannot_show_its_certificate_is_not_told_anything() -> None:
    for server in (None, FOREIGN):
        async with pair(credentials=server) as it, Host(REPLICA, Journal(), deadline_s=WITHIN_S, credentials=PEER) as careful:
            careful.introduce("shard/0", SHARD.incarnation, it.address)
            with pytest.raises(Unreachable):
                await careful.call("shard/0", push())
            assert unheard(it)


@real
async def test_a_handshake_that_never_ends_keeps_nobody_else_waiting() -> None:
    async with closed() as it:
        host, _, port = it.address.rpartition(":")
        strangers = [socket.create_connection((host, int(port))) for _ in range(100)]
        for number, stranger in enumerate(strangers):
            stranger.sendall(bytes(number))
        assert (await it.call(push())).updates == 1
        for stranger in strangers:
            stranger.close()


@real
async def test_with_certificates_a_host_may_serve_at_every_address() -> None:
    async with pair(credentials=OWN, bind="0.0.0.0", replica={"credentials": PEER}) as it:
        it.replica.introduce("shard/0", SHARD.incarnation + 1, "")
        it.replica.introduce("shard/0", SHARD.incarnation + 2, f"127.0.0.1:{it.address.rpartition(':')[2]}")
        with pytest.raises(Unreachable, match="this is life 3"):
            await it.call(push())
