"""Payloads between two hosts arrive to the bit, by the stream or through shared memory; and nobody writes where it was not let."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from core.journal import Journal
from core.messages import Fetch, Parameters, Progress, Refused, TimedOut, Unreachable
from exec.codec import DTYPES, Payload, decode_request, encode_not_mapped, encode_reply
from exec.host import Host
from exec.malformed import Fault
from exec.shared_memory import Mapped, Segments
from exec.wire import distbelief_pb2 as wire
from tests.exec.hosts import COUNT, REPLICA, SHARD, WITHIN_S, fake_shard, pair, push, real

NEAR = {"shared_memory": True}


def segments() -> int:
    """How many of them this process has open."""
    gc.collect()  # hosts of earlier tests, and those tests' failures, hold what they hold
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            found.add(str(path.readlink()))
    return sum(name.startswith("/memfd:distbelief") for name in found)


def mapped() -> int:
    """Segments that are mapped in this process, by its own hosts or for others."""
    return Path("/proc/self/maps").read_text(encoding="ascii").count("memfd:distbelief")


@real
async def test_a_fetch_lands_in_the_buffer_that_was_lent() -> None:
    async with pair() as it:
        buffer = torch.zeros(COUNT)
        await it.call(push(value=7.0))
        reply = await it.call(Fetch(buffer))
    assert reply.vector is buffer
    assert torch.equal(buffer, torch.full((COUNT,), 7.0))


@real
async def test_a_buffer_of_another_size_is_not_written_to() -> None:
    for near in (False, True):
        async with pair(replica={"shared_memory": near}) as it:
            buffer = torch.zeros(COUNT - 1)
            await it.call(push())
            with pytest.raises(Unreachable, match="for a buffer of"):
                await it.call(Fetch(buffer))
            assert it.replica.refusals == {Fault.DTYPE: 1}
        assert torch.equal(buffer, torch.zeros(COUNT - 1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_payload_lies_in_a_segment_as_it_was_laid(dtype: str) -> None:
    sent = torch.randn(COUNT).to(getattr(torch, dtype))
    own = Segments(REPLICA)
    segment = own.take(sent.nbytes)
    assert segment is not None
    segment.lay(sent)
    found = Mapped().find(segment.name, sent.nbytes, *REPLICA)
    assert torch.equal(found.tensor(Payload(dtype, sent.nbytes)), sent)
    own.forget(segment)


@real
async def test_whichever_way_they_go_the_shard_and_the_replica_hold_the_same() -> None:
    torch.manual_seed(1)
    gradients = [torch.randn(COUNT) for _ in range(5)]
    held = []
    for near in (False, True):
        async with pair(replica={"shared_memory": near}) as it:
            fetched = []
            for sequence, gradient in enumerate(gradients, start=1):
                sent = push(sequence)
                sent.gradient = gradient
                await it.call(sent)
                fetched.append((await it.call(Fetch(torch.zeros(COUNT)))).vector.clone())
            assert (segments() > 0) is near
            assert torch.equal(fetched[-1], it.shard.parameters)
            held.append(torch.stack(fetched))
        assert (it.replica.sent.messages, it.host.received.messages) == (10, 10)
        assert it.replica.sent.nbytes == it.host.received.nbytes > 5 * 4 * COUNT
        assert it.replica.received.nbytes == it.host.sent.nbytes > 5 * 4 * COUNT
    assert held[0].numpy().tobytes() == held[1].numpy().tobytes()


@real
async def test_what_was_fetched_does_not_change_while_anybody_holds_a_part_of_it() -> None:
    async with pair(replica=NEAR) as it:
        parts = []
        for sequence in range(1, 6):
            await it.call(push(sequence))
            parts.append((await it.call(Fetch(torch.zeros(COUNT)))).vector[7:9])
        assert [float(part[0]) for part in parts] == [1.0, 2.0, 3.0, 4.0, 5.0]


@real
async def test_segments_are_used_again_once_nobody_holds_them() -> None:
    async with pair(replica=NEAR) as it:
        for sequence in range(1, 21):
            await it.call(push(sequence))
            await it.call(Fetch(torch.zeros(COUNT)))
        assert segments() <= 3  # one for pushes, and for fetches one more while its predecessor is let go


@real
async def test_nothing_is_left_after_closing() -> None:
    before = segments(), mapped()
    async with pair(replica=NEAR) as it:
        await it.call(push())
        held = (await it.call(Fetch(torch.zeros(COUNT)))).vector
        assert segments() > before[0]
    assert torch.equal(held, torch.ones(COUNT))
    del held, it
    async with asyncio.timeout(WITHIN_S):  # a thread of gRPC's may still hold the last request
        while (segments(), mapped()) != before:  # noqa: ASYNC110  nobody says when it lets go
            await asyncio.sleep(0.01)


@real
async def test_a_memory_that_is_full_is_no_obstacle() -> None:
    async with pair(replica=NEAR) as it:
        it.replica._segments.take = lambda _: None  # type: ignore[method-assign]
        await it.call(push(value=3.0))
        buffer = torch.zeros(COUNT)
        assert (await it.call(Fetch(buffer))).vector is buffer
        assert (float(buffer[0]), segments()) == (3.0, 0)


class Blind(Mapped):
    """Of a server in another container: it sees nobody's memory."""

    def find(self, ticket: str, nbytes: int, job: str, role: str, life: int) -> Any:
        return super().find(ticket.replace("distbelief-", "distbelief-0"), nbytes, job, role, life)


@real
async def test_a_server_that_cannot_see_our_memory_says_so_and_is_sent_the_payload() -> None:
    async with pair(replica=NEAR) as it:
        door = next(iter(it.host._listener.server._state.generic_handlers))
        door.segments = Blind()
        assert (await it.call(push())).updates == 1
        buffer = torch.zeros(COUNT)
        assert (await it.call(Fetch(buffer))).vector is buffer
        assert it.tally == float(buffer[0]) == 1.0
        assert it.replica._peers["shard/0"].near is False
        assert (await it.call(push(2))).updates == 2
        assert segments() == 0


@real
async def test_a_refused_push_leaves_its_segment_for_the_next() -> None:
    async with pair(replica=NEAR) as it:
        wrong = push()
        wrong.gradient = torch.zeros(COUNT - 1)
        for _ in range(5):
            with pytest.raises(Refused):
                await it.call(wrong)
        assert segments() == 1


@real
async def test_a_server_that_answers_too_late_tears_nothing() -> None:
    """It writes into the room of a call that is over: nobody may ever look there again."""
    late, go_on, written = threading.Event(), threading.Event(), threading.Event()
    rooms, shown = [], Mapped()

    def answer(messages: Iterator[bytes]) -> Iterator[bytes]:
        call = decode_request(next(messages))
        room = shown.find(call.room, COUNT * 4, *REPLICA).tensor(Payload("float32", COUNT * 4))
        rooms.append(call.room)
        if len(rooms) == 1:
            late.set()
            go_on.wait()
            room.fill_(-1.0)
            written.set()
        else:
            room.fill_(2.0)
        yield encode_reply(SHARD, Parameters(room, Progress(2, 0)), in_room=True)

    with fake_shard(answer) as address:
        async with Host(REPLICA, Journal(), deadline_s=0.5) as host:
            host.introduce("shard/0", 0, address)
            with pytest.raises(TimedOut):
                await host.call("shard/0", Fetch(torch.zeros(COUNT)))
            await asyncio.to_thread(late.wait)
            host.deadline_s = WITHIN_S
            fetched = [(await host.call("shard/0", Fetch(torch.zeros(COUNT)))).vector for _ in range(3)]
            go_on.set()
            await asyncio.to_thread(written.wait)
            assert [float(vector.min()) for vector in fetched] == [2.0] * 3
            assert len(set(rooms)) == 4


@real
async def test_a_pushed_segment_is_not_written_again_while_a_late_server_may_read_it() -> None:
    late, go_on, read = threading.Event(), threading.Event(), threading.Event()
    tickets, seen, shown = [], [], Mapped()

    def answer(messages: Iterator[bytes]) -> Iterator[bytes]:
        call = decode_request(next(messages))
        gradient = shown.find(call.ticket, COUNT * 4, *REPLICA).tensor(Payload("float32", COUNT * 4))
        tickets.append(call.ticket)
        if len(tickets) == 1:
            late.set()
            go_on.wait()
            seen.append(float(gradient.unique()))
            read.set()
        yield wire.ReplyEnvelope(job="job", life=3, accepted=wire.Accepted(updates=1)).SerializeToString()

    with fake_shard(answer) as address:
        async with Host(REPLICA, Journal(), deadline_s=0.5) as host:
            host.introduce("shard/0", 0, address)
            with pytest.raises(TimedOut):
                await host.call("shard/0", push(value=1.0))
            await asyncio.to_thread(late.wait)
            host.deadline_s = WITHIN_S
            for sequence in range(2, 5):
                await host.call("shard/0", push(sequence, value=9.0))
            go_on.set()
            await asyncio.to_thread(read.wait)
    assert seen == [1.0]
    assert (len(set(tickets)), len(tickets)) == (2, 4)


LIES = {
    "a segment could not be used that was never named": (encode_not_mapped(SHARD, "no"), Fault.UNDECODABLE),
    "more numbers than there is memory": (
        wire.ReplyEnvelope(
            job="job", life=3, payload=wire.Payload(dtype="float32", size_bytes=1 << 62), parameters=wire.Parameters()
        ).SerializeToString(),
        Fault.OVERSIZED,
    ),
    "more numbers than can be counted": (
        wire.ReplyEnvelope(
            job="job", life=3, payload=wire.Payload(dtype="bfloat16", size_bytes=2**64 - 2), parameters=wire.Parameters()
        ).SerializeToString(),
        Fault.OVERSIZED,
    ),
    "a room that was never left": (encode_reply(SHARD, Parameters(torch.zeros(COUNT), Progress(0, 0)), in_room=True), Fault.DTYPE),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_server_harms_no_caller(lie: str) -> None:
    answer, fault = LIES[lie]

    async def test() -> None:
        with fake_shard(lambda _: iter([answer])) as address:
            async with Host(REPLICA, Journal(), deadline_s=WITHIN_S) as host:
                host.introduce("shard/0", 0, address)
                with pytest.raises(Unreachable, match="answered nonsense"):
                    await host.call("shard/0", Fetch())
                assert host.refusals == {fault: 1}
                assert not host.failure.done()

    real(test)()


@real
async def test_a_room_of_another_type_is_refused() -> None:
    wrong = encode_reply(SHARD, Parameters(torch.zeros(COUNT * 2, dtype=torch.bfloat16), Progress(0, 0)), in_room=True)
    with fake_shard(lambda _: iter([wrong])) as address:
        async with Host(REPLICA, Journal(), deadline_s=WITHIN_S) as host:
            host.introduce("shard/0", 0, address)
            with pytest.raises(Unreachable, match="no such room was left"):
                await host.call("shard/0", Fetch(torch.zeros(COUNT)))
    assert segments() == 0


@real
async def test_a_refusal_that_nobody_asked_shared_memory_for_ends_the_call_and_not_the_caller() -> None:
    """A server that says for ever that a segment is no use, whatever it is sent."""
    with fake_shard(lambda _: iter([encode_not_mapped(SHARD, "never")])) as address:
        async with Host(REPLICA, Journal(), deadline_s=WITHIN_S) as host:
            host.introduce("shard/0", 0, address)
            with pytest.raises(Unreachable, match="answered nonsense"):
                await host.call("shard/0", push())
            assert not host.failure.done()
    assert segments() == 0
