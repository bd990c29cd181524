"""Two hosts of one process, over real sockets: what is asked is answered, and what is nonsense is refused, counted, survived."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import torch

from core.journal import Journal
from core.messages import Accepted, Ask, Fetch, Finish, Finished, Join, Progress, Push, Refused, Request, Sender, TimedOut, Unreachable
from core.node import Outcome
from core.rules import Sgd
from core.shard import Shard
from core.work import Cost, Work
from exec.addresses import free_port
from exec.codec import Identity, encode_reply, encode_request
from exec.host import Host
from exec.malformed import Fault
from exec.server import AddressInUse
from exec.transport import HEADER_LIMIT, MESSAGE_LIMIT, METHOD, message
from exec.wire import distbelief_pb2 as wire
from tests.exec.hosts import COUNT, LIMIT, REPLICA, SHARD, STRANGER, WITHIN_S, fake_shard, job, pair, push, raw_call, real


@real
async def test_every_request_is_answered() -> None:
    async with pair() as it:
        joined = await it.call(Join())
        accepted = await it.call(push())
        fetched = await it.call(Fetch())
        finishing = await it.call(Finish("enough"))
        finished = await it.call(push(2))
        asked = await it.call(Ask())
    assert (joined.updates, joined.finished) == (0, "")
    assert isinstance(accepted, Accepted)
    assert accepted.updates == 1
    assert torch.equal(fetched.vector, torch.ones(COUNT))
    assert fetched.progress.samples == 32
    assert finishing.finished == "enough"
    assert isinstance(finished, Finished)
    assert finished.reason == "enough"
    assert isinstance(asked, Progress)
    assert (asked.updates, asked.finished) == (1, "enough")


@real
async def test_many_calls_at_once_are_each_answered_with_their_own() -> None:
    async with pair() as it:
        replies = await asyncio.gather(*(it.call(request) for _ in range(20) for request in (Ask(), Fetch())))
    assert [type(reply).__name__ for reply in replies] == ["Progress", "Parameters"] * 20


@real
async def test_a_push_repeated_is_applied_once() -> None:
    async with pair() as it:
        for _ in range(3):
            assert (await it.call(push())).updates == 1
        assert (await it.call(push(2))).updates == 2
        assert it.tally == 2.0


@real
async def test_what_is_told_arrives_also_where_nobody_was_there_at_first() -> None:
    port, there = free_port("127.0.0.1", 0), asyncio.Event()
    journal = Journal()
    journal.watch("applied", lambda *_: there.set())
    async with pair() as it:
        it.replica.introduce("shard/0", SHARD.incarnation + 1, f"127.0.0.1:{port}")
        it.replica.tell("nobody", push())
        it.replica.tell("shard/0", push())
        await asyncio.sleep(0.2)
        async with (
            Host(Identity("job", "shard/0", SHARD.incarnation + 1), journal, deadline_s=WITHIN_S, limits=(LIMIT,), port=port) as late,
            asyncio.timeout(WITHIN_S),
        ):
            late.serve(Shard(late, job(), torch.zeros(COUNT), Sgd(-1.0)))
            await there.wait()


@real
async def test_both_ends_count_the_same_messages_and_bytes() -> None:
    async with pair() as it:
        for request in (Join(), push(), Fetch()):
            await it.call(request)
    assert it.replica.sent == it.host.received
    assert it.replica.received == it.host.sent
    assert it.replica.sent.messages == 3
    assert LIMIT.nbytes < it.replica.sent.nbytes < LIMIT.nbytes + 300
    assert f"counted\t\t3\t{it.host.sent.nbytes}\tsent\n" in it.file.getvalue().decode()


ASK, HEADER = encode_request(REPLICA, 0, Ask()), encode_request(REPLICA, 0, push())
FIRST, LAST = list(message(b"", push().gradient))[1:]
EARLIER = encode_request(REPLICA, 2, push())
DOUBLES = Push(1, torch.ones(2, dtype=torch.float64), 1, 1, 0)

NONSENSE = {
    "nothing": ([], Fault.SHORT),
    "an empty message": ([b""], Fault.UNDECODABLE),
    "rubbish": ([b"GET / HTTP/1.1\r\n\r\n"], Fault.UNDECODABLE),
    "an envelope as long as a book": ([bytes(HEADER_LIMIT + 1)], Fault.OVERSIZED),
    "a payload behind a request that has none": ([ASK, b"surplus"], Fault.SURPLUS),
    "a payload cut short": ([HEADER, FIRST], Fault.SHORT),
    "a payload that never comes": ([HEADER], Fault.SHORT),
    "a payload with more behind it": ([HEADER, FIRST, LAST, b"more"], Fault.SURPLUS),
    "a payload longer than announced": ([HEADER, FIRST, LAST + b"more"], Fault.SURPLUS),
    "a payload in crumbs": ([HEADER, b"0123"], Fault.UNEVEN),
    "a payload longer than the shard": (list(message(encode_request(REPLICA, 0, push(count=COUNT + 1)), None)), Fault.OVERSIZED),
    "a payload of another type": (list(message(encode_request(REPLICA, 0, DOUBLES), DOUBLES.gradient)), Fault.DTYPE),
    "a push of another job": ([encode_request(STRANGER, 0, push()), FIRST, LAST], Fault.MISADDRESSED),
    "a push for an earlier life": ([EARLIER, FIRST, LAST], Fault.MISADDRESSED),
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_is_refused_and_counted_and_the_server_serves_on(kind: str) -> None:
    messages, fault = NONSENSE[kind]

    async def test() -> None:
        async with pair() as it:
            (answer,) = await raw_call(it.address, *messages)
            reply = wire.ReplyEnvelope.FromString(answer)
            assert reply.WhichOneof("reply") == ("misaddressed" if fault is Fault.MISADDRESSED else "refusal")
            assert it.host.refusals == {fault: 1}
            assert it.file.getvalue().count(b"\trefused\t") == 1
            assert (await it.call(push())).updates == 1
            assert it.tally == 1.0

    real(test)()


@real
async def test_a_push_of_the_wrong_length_is_refused_by_the_shard() -> None:
    async with pair() as it:
        with pytest.raises(Refused, match=f"a gradient of {COUNT - 1} elements"):
            await it.call(push(count=COUNT - 1))
        assert it.host.refusals == {Fault.DECLINED: 1}
        assert it.file.getvalue().count(b"\trefused\t") == 1
        assert (await it.call(push())).updates == 1


@real
async def test_an_earlier_life_of_the_sender_is_refused_by_the_shard() -> None:
    async with pair() as it, Host(Identity("job", "replica/0", 2), Journal(), deadline_s=WITHIN_S) as later:
        later.introduce("shard/0", SHARD.incarnation, it.address)
        await later.call("shard/0", Join())
        with pytest.raises(Refused, match="of life 1 is older"):
            await it.call(push())
        assert it.tally == 0.0


@real
async def test_a_caller_of_another_job_reaches_nobody() -> None:
    async with pair() as it, Host(STRANGER, Journal(), deadline_s=WITHIN_S) as stranger:
        stranger.introduce("shard/0", SHARD.incarnation, it.address)
        with pytest.raises(Unreachable, match="answers job 'job'"):
            await stranger.call("shard/0", push())
        assert it.host.refusals == {Fault.MISADDRESSED: 1}
        assert it.tally == 0.0


@real
async def test_a_caller_that_breaks_off_in_the_middle_of_a_push_changes_nothing() -> None:
    async with pair() as it:
        half_sent, over = threading.Event(), threading.Event()

        def messages() -> Iterator[bytes]:
            yield from (HEADER, FIRST)
            half_sent.set()
            over.wait()  # the rest never comes

        with grpc.insecure_channel(it.address) as channel:
            call = channel.stream_stream(METHOD)(messages())
            await asyncio.to_thread(half_sent.wait)
            call.cancel()
            await it.refused.wait()
        over.set()
        assert it.host.refusals in ({Fault.BROKEN: 1}, {Fault.SHORT: 1})  # gRPC tells of it either way
        assert (await it.call(push())).updates == 1
        assert it.tally == 1.0


@pytest.mark.parametrize("sent", [[], [HEADER], [HEADER, FIRST]])
def test_a_caller_that_never_sends_the_rest_holds_no_thread_for_ever(sent: list[bytes]) -> None:
    async def test() -> None:
        async with pair() as it:
            it.host.deadline_s, over = 0.1, threading.Event()
            it.host._expire()  # which the host does of itself; its next look would only come by its first deadline

            def messages() -> Iterator[bytes]:
                yield from sent
                over.wait()  # the rest never comes

            with grpc.insecure_channel(it.address) as channel:
                call = channel.stream_stream(METHOD)(messages())
                await it.refused.wait()
                with pytest.raises(grpc.RpcError) as ended:
                    await asyncio.to_thread(list, call)
                assert ended.value.code() is grpc.StatusCode.CANCELLED  # type: ignore[attr-defined]  # grpc has no types
            over.set()
            assert it.host.refusals == {Fault.BROKEN: 1}
            assert "not whole in time" in it.file.getvalue().decode()
            assert (await it.call(push())).updates == 1

    real(test)()


@real
async def test_a_message_beyond_what_grpc_takes_is_refused() -> None:
    async with pair() as it:
        with pytest.raises(grpc.RpcError):
            await raw_call(it.address, HEADER, bytes(MESSAGE_LIMIT + 1))
        await it.refused.wait()
        assert it.host.refusals in ({Fault.BROKEN: 1}, {Fault.SHORT: 1})  # gRPC tells the server either
        assert (await it.call(push())).updates == 1


@real
async def test_rubbish_on_the_bare_port_harms_nobody() -> None:
    async with pair() as it:
        host, port = it.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(bytes(range(256)) * 100)
        with contextlib.suppress(ConnectionError):
            await reader.read()  # until the server has had enough
        writer.close()
        assert (await it.call(push())).updates == 1


class Broken:
    """A server with a mistake in it."""

    calls = 0

    def handle(self, _: Request[Any], __: Sender) -> Outcome:
        self.calls += 1
        raise ZeroDivisionError("a mistake")


@real
async def test_a_server_with_a_mistake_fails_loudly_and_serves_nobody_any_more() -> None:
    async with Host(SHARD, Journal(), deadline_s=WITHIN_S) as host, Host(REPLICA, Journal(), deadline_s=WITHIN_S) as replica:
        server = Broken()
        replica.introduce("shard/0", 0, host.serve(server))
        for _ in range(2):
            with pytest.raises(Unreachable, match="shard/0 failed"):
                await replica.call("shard/0", Ask())
        with pytest.raises(ZeroDivisionError, match="a mistake"):
            await host.failure
        assert server.calls == 1


ANSWER = encode_reply(SHARD, Accepted(1))


@pytest.mark.parametrize(
    ("messages", "fault"),
    [
        ([], Fault.SHORT),
        ([b"rubbish"], Fault.UNDECODABLE),
        ([ANSWER], Fault.UNDECODABLE),  # nobody accepts a question
        ([ANSWER, b"surplus"], Fault.SURPLUS),
    ],
)
def test_a_nonsensical_answer_is_counted_and_the_peer_as_good_as_unreachable(messages: list[bytes], fault: Fault) -> None:
    async def test() -> None:
        with fake_shard(lambda _: iter(messages)) as address:
            async with Host(REPLICA, Journal(), deadline_s=WITHIN_S) as host:
                host.introduce("shard/0", 0, address)
                with pytest.raises(Unreachable, match="answered nonsense"):
                    await host.call("shard/0", Ask())
                assert host.refusals == {fault: 1}
                assert not host.failure.done()

    real(test)()


@real
async def test_a_port_in_use_is_an_error_that_says_so() -> None:
    async with pair() as it:
        port = int(it.address.rpartition(":")[2])
        async with Host(Identity("job", "shard/1", 1), Journal(), deadline_s=WITHIN_S, port=port) as other:
            with pytest.raises(AddressInUse, match=f"shard/1 cannot serve at port {port}"):
                other.serve(it.shard)


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "192.0.2.1"])
def test_nobody_serves_at_an_address_that_others_reach_without_certificates(bind: str) -> None:
    async def test() -> None:
        async with Host(SHARD, Journal(), deadline_s=WITHIN_S, bind=bind) as host:
            with pytest.raises(ValueError, match="without certificates; only loopback addresses may go without"):
                host.serve(Broken())

    real(test)()


@real
async def test_an_answer_that_nobody_waits_for_makes_no_noise() -> None:
    async with Host(REPLICA, Journal(), deadline_s=WITHIN_S) as host:
        host.call("shard/0", Ask())
        host.call("shard/0", Ask()).cancel()


@real
async def test_where_nobody_listens_nobody_is_reached() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused, and nobody else gets the port
        async with Host(REPLICA, Journal(), deadline_s=WITHIN_S) as host:
            host.introduce("shard/0", 0, f"127.0.0.1:{unused.getsockname()[1]}")
            with pytest.raises(Unreachable):
                await host.call("shard/0", push())


@real
async def test_a_silent_peer_runs_into_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with Host(REPLICA, Journal(), deadline_s=0.3) as host:
            host.introduce("shard/0", 0, f"127.0.0.1:{silent.getsockname()[1]}")
            with pytest.raises(TimedOut):
                await host.call("shard/0", Ask())


@real
async def test_a_host_that_closes_ends_its_calls() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with Host(REPLICA, Journal(), deadline_s=60) as host:
            host.introduce("shard/0", 0, f"127.0.0.1:{silent.getsockname()[1]}")
            calls = [host.call("shard/0", request) for request in (Ask(), push(), Fetch())]
        for call in calls:
            with pytest.raises(Unreachable):
                await call


@real
async def test_the_device_does_one_piece_of_work_at_a_time_in_order() -> None:
    count, under_way = itertools.count(), threading.Lock()

    def work() -> tuple[int, str]:
        assert under_way.acquire(blocking=False)
        number = next(count)
        under_way.release()
        return number, threading.current_thread().name

    async with Host(REPLICA, Journal(), deadline_s=WITHIN_S) as host:
        results = await asyncio.gather(*(host.compute(Work(work, Cost())) for _ in range(50)))
    assert [number for number, _ in results] == list(range(50))
    assert {name for _, name in results} == {"device_0"}


@real
async def test_what_work_raises_reaches_whoever_asked_for_it() -> None:
    async with Host(REPLICA, Journal(), deadline_s=WITHIN_S) as host:
        with pytest.raises(ZeroDivisionError):
            await host.compute(Work(lambda: 1 / 0, Cost()))


@real
async def test_the_clock_of_a_job_goes_on_from_when_it_was_launched() -> None:
    async with Host(REPLICA, Journal(), deadline_s=WITHIN_S, launched_at=0.0) as host:
        assert host.now() > 1e9
        assert host.now() <= host.now()
