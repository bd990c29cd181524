"""Two hosts of one process over real sockets, and what else the tests of `exec/host.py` share."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import torch

from core.job import Job, Shared
from core.journal import Journal
from core.messages import Push, Request
from core.rules import Sgd
from core.shard import Shard
from exec.codec import Identity, Payload
from exec.host import Host
from exec.transport import CHUNK, METHOD

COUNT = CHUNK // 4 + 3
"""A chunk of float32, and a little."""
LIMIT = Payload("float32", COUNT * 4)
SHARD, REPLICA = Identity("job", "shard/0", 3), Identity("job", "replica/0", 1)
STRANGER = Identity("another", "replica/0", 1)
WITHIN_S = 20.0
"""The deadline of calls that are to be answered."""


def push(sequence: int = 1, count: int = COUNT, value: float = 1.0) -> Push:
    return Push(sequence, torch.full((count,), value), 1, 32, 0)


def job(count: int = COUNT) -> Job:
    return Job(shards=(Shared("shard/0", slice(0, count)),), replicas=1)


@dataclass
class Pair:
    """A shard that adds up what is pushed, and a replica."""

    host: Host
    shard: Shard
    replica: Host
    address: str
    file: io.BytesIO
    refused: asyncio.Event

    @property
    def tally(self) -> float:
        """What every coordinate of the shard holds, if they are all the same."""
        assert self.shard.parameters.unique().numel() == 1
        return float(self.shard.parameters[0])

    def call(self, request: Request[Any]) -> asyncio.Future[Any]:
        return self.replica.call("shard/0", request)


@asynccontextmanager
async def pair(deadline_s: float = WITHIN_S, *, replica: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[Pair]:
    """`replica`: options of that host; `options`: of the shard's.  By the stream, unless either asks for shared memory."""
    file, refused = io.BytesIO(), asyncio.Event()
    journal = Journal(file, prompt=True)
    journal.watch("refused", lambda *_: refused.set())
    journal.watch("broken", lambda *_: refused.set())
    options, other = {"limits": (LIMIT,), **options}, {"shared_memory": False, **(replica or {})}
    async with (
        Host(SHARD, journal, deadline_s=WITHIN_S, **options) as host,
        Host(REPLICA, Journal(), deadline_s=deadline_s, **other) as asking,
    ):
        shard = Shard(host, job(), torch.zeros(COUNT), Sgd(-1.0))
        address = host.serve(shard)
        asking.introduce("shard/0", SHARD.incarnation, address)
        yield Pair(host, shard, asking, address, file, refused)


def real(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test that runs on the real loop; nothing may be left to complain about afterwards, nor any thread of ours."""

    def run() -> None:
        complaints: list[dict[str, Any]] = []

        async def watched() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
            await test()

        asyncio.run(watched())
        assert complaints == []
        ours = ("calling", "serving", "device")
        assert [thread.name for thread in threading.enumerate() if thread.name.startswith(ours)] == []

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def raw_call(address: str, *messages: bytes) -> list[bytes]:
    """A call that knows nothing of envelopes."""

    def ask() -> list[bytes]:
        with grpc.insecure_channel(address) as channel:
            return list(channel.stream_stream(METHOD)(iter(messages), timeout=WITHIN_S))

    return await asyncio.to_thread(ask)


@contextmanager
def fake_shard(answer: Callable[[Iterator[bytes]], Iterator[bytes]]) -> Iterator[str]:
    """Somebody who answers every call in a way of its own; its address."""

    class Fake(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
        def service(self, _: object) -> Any:
            return grpc.stream_stream_rpc_method_handler(lambda messages, _: answer(messages))

    with ThreadPoolExecutor(4) as threads:
        server = grpc.server(threads, handlers=(Fake(),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(0).wait()
