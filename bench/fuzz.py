"""Rubbish at a server's port: does it live, what does it hold afterwards, and what did it count?

    python -m bench.fuzz [--messages 100000] [--seed 0] [--json]

A shard on a `Host` in this process is sent raw bytes, and calls of valid gRPC whose messages are rubbish: random bytes, real
envelopes with bytes turned, cut, doubled or spliced, payloads in wrong or endless chunks, tickets that lie, documents with
wrong JSON.  All of it comes from the seed.  Between any two rounds, and at the end, a right call must be answered exactly.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import grpc.experimental
import torch

from core.job import Job, Shared
from core.journal import Journal
from core.messages import Ask, Copy, Entry, Fetch, Finish, Install, Join, Push, Request, Sender
from core.reports import Beat, Capacity, Conclude, End, Inquire, Process, Report, Status
from core.rules import Sgd
from core.shard import Shard
from exec.codec import Identity, Payload, encode_request
from exec.host import Host
from exec.relay import Relay
from exec.transport import CHUNK, METHOD, client_options
from exec.wire import distbelief_pb2 as wire

COUNT = 4096
"""Elements of the shard."""
SHARD, REPLICA, RUBBISH = Identity("fuzz", "shard/0", 1), Identity("fuzz", "replica/0", 1), Identity("fuzz", "replica/666", 1)
DEADLINE_S = 20.0
CALLERS = 8
"""Threads that call at once."""
ROUND = 1000
"""Messages between two right calls."""
GROWTH_LIMIT = 64 << 20
"""Bytes of memory that a server may hold more after any number of messages than after the first few: its threads' arenas."""

GRADIENT = torch.zeros(COUNT)
"""A push that gets through is none of the fuzz's mistakes; it must only do no harm."""
MANIFEST = {"position": 1, "updates": 1, "samples": 1, "finished": "", "last": {}, "state": {}, "vectors": ["parameters"]}


def specimens() -> list[Request[Any]]:
    """One request of each kind, which a mutation begins from."""
    push, process = Push(1, GRADIENT, 1, 32, 0), Process("shard/0", 1)
    sender = Sender("replica/666", 1)
    return [
        Join(), Ask(), Fetch(), push,
        Copy(Entry(1, sender, push)), Copy(Entry(1, sender, Finish("enough"))), Install(MANIFEST, "parameters", GRADIENT),
        Relay("journals/a.tsv", 0, b"a line\n" * 9), Beat("127.0.0.1:1", 3, Status(1, loss=0.5)),
        Report(1, "host", Capacity(), (process,), ended=(End(process, "crashed", "how"),)), Inquire(), Conclude("enough"),
    ]  # fmt: skip


class Fuzzer:
    """Draws messages; the same seed draws the same."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.envelopes = [encode_request(RUBBISH, 0, request) for request in specimens()]
        self.kinds: list[Callable[[], list[bytes]]] = [
            self.noise,
            self.mutated,
            self.mutated,
            self.chunks,
            self.ticket,
            self.document,
            self.lies,
        ]

    def call(self) -> list[bytes]:
        """The messages of one call."""
        return self.random.choice(self.kinds)()

    def noise(self) -> list[bytes]:
        return [self.random.randbytes(self.random.randrange(300)) for _ in range(self.random.randrange(4))]

    def mutated(self) -> list[bytes]:
        """A real envelope, its bytes turned, cut, doubled, or spliced with another's."""
        draw, header = self.random, bytearray(self.random.choice(self.envelopes))
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(header) + 1)
            match draw.randrange(4):
                case 0 if at < len(header):
                    header[at] ^= 1 << draw.randrange(8)
                case 1:
                    header[at:] = draw.choice(self.envelopes)[at:]
                case 2:
                    header[at:at] = header[: draw.randrange(20)]
                case _:
                    del header[at : at + draw.randrange(20)]
        return [bytes(header), *([GRADIENT.numpy().tobytes()] if draw.random() < 0.5 else [])]

    def chunks(self) -> list[bytes]:
        """A push whose payload is cut wrongly, is too short, or has no end."""
        sizes = [0, 1, 3, 4, COUNT * 4 - 1, COUNT * 4, COUNT * 4 + 1] + [CHUNK] * (self.random.random() < 0.02)
        header = encode_request(RUBBISH, 0, Push(1, GRADIENT, 1, 32, 0))
        if self.random.random() < 0.1:
            return [header] + [bytes(COUNT * 4)] * 50
        return [header, *(bytes(self.random.choice(sizes)) for _ in range(self.random.randrange(4)))]

    def ticket(self) -> list[bytes]:
        """Of a segment that is not there, or something else."""
        name = f"distbelief-fuzz-replica.666-1-{self.random.randbytes(8).hex()}"
        tickets = ["x", name, f"1/{self.random.randrange(64)}/{name}", f"1/1/{name}", f"../../{name}", name * 9]
        envelope = wire.RequestEnvelope(job="fuzz", sender=RUBBISH.name, incarnation=1)
        if self.random.random() < 0.5:
            envelope.fetch.SetInParent()
            envelope.room = self.random.choice(tickets)
        else:
            envelope.push.sequence = envelope.push.gradients = 1
            envelope.payload.dtype, envelope.payload.size_bytes = "float32", self.random.choice([0, 4, COUNT * 4, 1 << 40])
            envelope.ticket = self.random.choice(tickets)
        return [envelope.SerializeToString()]

    def document(self) -> list[bytes]:
        kind = self.random.choice(["beat", "report", "inquire", "conclude", "orders", "standing", "overview", "wish", ""])
        text = self.random.choice(
            [b"", b"{}", b"[]", b"null", b'{"reason":"a\\nb"}', b'{"reason":1}', b"[" * 5000, b'{"a":' * 999, b"\xff"]
        )
        envelope = wire.RequestEnvelope(job="fuzz", sender=RUBBISH.name, incarnation=1, document=wire.Document(kind=kind, json=text))
        return [envelope.SerializeToString()]

    def lies(self) -> list[bytes]:
        """Envelopes in good order that announce what cannot be."""
        draw, envelope = self.random, wire.RequestEnvelope(job="fuzz", sender=RUBBISH.name, incarnation=1)
        envelope.job = draw.choice(["fuzz", "another", "a\nb", ""])
        envelope.sender = draw.choice([RUBBISH.name, "\t", "x" * 99])
        envelope.incarnation, envelope.addressee_life = draw.choice([0, 1, 2**64 - 1]), draw.choice([0, 1, 2, 2**64 - 1])
        envelope.payload.dtype = draw.choice(["float32", "float64", "int8", ""])
        envelope.payload.size_bytes = draw.choice([0, 3, COUNT * 4, 1 << 50, 2**64 - 1])
        if draw.random() < 0.5:
            envelope.push.gradients, envelope.push.samples = draw.choice([0, 1, 2**64 - 1]), draw.choice([0, 2**64 - 1])
        else:
            envelope.install.manifest = draw.choice(["", "{", "[" * 9000, json.dumps(MANIFEST), json.dumps({**MANIFEST, "position": -1})])
        return [envelope.SerializeToString(), bytes(COUNT * 4)]


def rss() -> int:
    """Bytes that this process holds in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def send_raw(address: str, bursts: list[bytes]) -> None:
    """Bytes at the bare port, each burst on a connection of its own."""
    host, _, port = address.rpartition(":")
    for burst in bursts:
        with socket.create_connection((host, int(port)), timeout=DEADLINE_S) as connection, contextlib.suppress(OSError):
            connection.sendall(burst)


def send_calls(address: str, calls: list[list[bytes]]) -> Counter[str]:
    """Calls one after the other; how each ended, by gRPC's word or by the reply's."""
    ends: Counter[str] = Counter()
    options = (*client_options(DEADLINE_S), (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1))
    with grpc.insecure_channel(address, options=options) as channel:
        streaming, single = channel.stream_stream(METHOD), channel.unary_stream(METHOD)  # the latter costs no thread
        for messages in calls:
            try:
                begun = single(messages[0], timeout=DEADLINE_S) if len(messages) == 1 else streaming(iter(messages), timeout=DEADLINE_S)
                replies = list(begun)
                ends[str(wire.ReplyEnvelope.FromString(replies[0]).WhichOneof("reply"))] += 1
            except grpc.RpcError as error:
                ends[error.code().name.lower()] += 1
    return ends


async def right_calls(replica: Host, shard: Shard, number: int) -> None:
    """A push and a fetch, whose every bit must be right."""
    held, gradient = shard.parameters.clone(), torch.full((COUNT,), float(number))
    await replica.call("shard/0", Push(number, gradient, 1, 32, 0))
    reply = await replica.call("shard/0", Fetch(torch.zeros(COUNT)))
    assert torch.equal(reply.vector, held + gradient), "the shard holds something else"


async def fuzz(messages: int, seed: int) -> dict[str, Any]:
    """What came of it.  Raises AssertionError where the server did not live through it."""
    fuzzer, ends, journal = Fuzzer(seed), Counter[str](), Journal()
    job = Job(shards=(Shared("shard/0", slice(0, COUNT)),), replicas=1)
    began = time.monotonic()
    async with (
        Host(SHARD, journal, deadline_s=DEADLINE_S, limits=(Payload("float32", COUNT * 4),)) as host,
        Host(REPLICA, Journal(), deadline_s=DEADLINE_S, shared_memory=False) as replica,
    ):
        shard = Shard(host, job, torch.zeros(COUNT), Sgd(-1.0))
        address = host.serve(shard)
        replica.introduce("shard/0", SHARD.incarnation, address)
        first = sent = 0
        with ThreadPoolExecutor(CALLERS) as threads:
            while sent < messages:
                number = min(ROUND, messages - sent)
                raw = [fuzzer.random.randbytes(fuzzer.random.randrange(200)) for _ in range(number // 10)]
                calls = [fuzzer.call() for _ in range(number - len(raw))]
                work = [asyncio.get_running_loop().run_in_executor(threads, send_calls, address, calls[i::CALLERS]) for i in range(CALLERS)]
                await asyncio.to_thread(send_raw, address, raw)
                for ended in await asyncio.gather(*work):
                    ends += ended
                sent += number
                await right_calls(replica, shard, sent // ROUND + 1)
                assert not host.failure.done(), host.failure
                first = first or settled()
        grown = settled() - first
    return {
        "alive": True, "messages": sent, "seconds": round(time.monotonic() - began, 1), "rss_mib": round(rss() / 2**20, 1),
        "grown_mib": round(grown / 2**20, 1), "refusals": {str(kind): count for kind, count in sorted(host.refusals.items())},
        "ends": dict(sorted(ends.items())),
    }  # fmt: skip


def settled() -> int:
    """What is held once rubbish of our own is collected."""
    gc.collect()
    return rss()


def table(found: dict[str, Any]) -> Iterator[str]:
    yield f"alive after {found['messages']:,} messages in {found['seconds']:g} s"
    yield f"memory {found['rss_mib']:g} MiB, {found['grown_mib']:+g} MiB since the first {ROUND:,}"
    for title in ("refusals", "ends"):
        yield f"{title}:"
        yield from (f"  {count:>9,}  {kind}" for kind, count in found[title].items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = asyncio.run(fuzz(options.messages, options.seed))
    print(json.dumps(found) if options.json else "\n".join(table(found)))


if __name__ == "__main__":
    main()
