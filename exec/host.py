"""One life of a role as a real process: `core.node.Node` over gRPC, threads and the wall clock.

    async with Host(Identity(job, "shard/0", 1), journal, deadline_s=10) as host:
        shard = Shard(host, job, parameters, rule)
        address = host.serve(shard, limit=Payload(torch.float32, parameters.nbytes))
        await host.failure                      # never ends, unless the server raises: then it raises that

    async with Host(Identity(job, "replica/3", 1), journal, deadline_s=10) as host:
        host.introduce("shard/0", address)      # again whenever it moves
        await replica(host, job, network, data)

Everything here happens on the thread of the event loop that made the host, except the byte work of calls (`exec/client.py`,
`exec/server.py`) and computation (`exec/device.py`); those threads come back through `call_soon_threadsafe`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

from core.chance import stream
from core.journal import Journal, one_line
from core.messages import (
    Accepted,
    Ask,
    CallFailed,
    Fetch,
    Finish,
    Finished,
    Join,
    Parameters,
    Progress,
    Push,
    Refusal,
    Refused,
    Reply,
    Request,
    Sender,
    Unreachable,
)
from core.node import Outcome, Recorder, Server
from core.work import Work
from exec.client import Landed, Peer
from exec.codec import Fault, Identity, Malformed, Payload, encode_request
from exec.device import Device
from exec.server import Listener, ServerFailed
from exec.transport import Traffic

R = TypeVar("R")

CALLS_AT_ONCE = 64
"""Threads for calls made, and again for calls answered: two for each lane, of thirty-two peers.  Beyond it calls made wait
for a thread, and calls that come in are turned away, to be repeated."""

ANSWERS: dict[type[Request[Any]], tuple[type[Reply], ...]] = {
    Join: (Progress,),
    Ask: (Progress,),
    Finish: (Progress,),
    Fetch: (Parameters,),
    Push: (Accepted, Finished),
}
"""What each request can be answered with, a refusal apart."""


class Host:
    """A node of the real world."""

    def __init__(
        self,
        own: Identity,
        journal: Journal,
        *,
        deadline_s: float,
        began_at: float | None = None,
        seed: int = 0,
        persist: Callable[[Any], None] | None = None,
    ) -> None:
        """To be made where an event loop runs.

        `began_at`: when the job began, in seconds since 1970; now, if left out.  `persist`: makes a snapshot durable,
        called in a thread before the reply that owes it is sent.
        """
        self.own, self.deadline_s, self.persist = own, deadline_s, persist
        self.name, self.incarnation = own.name, own.incarnation
        self.random = stream(seed, f"{own.name}#{own.incarnation}", "jitter")
        # The wall clock, the only one that processes share, is read once: it may be set anew while the job runs.
        self._began = time.monotonic() - (0.0 if began_at is None else time.time() - began_at)  # noqa: TID251
        self.record: Recorder = journal.recorder(own.name, own.incarnation, self.now)
        self.loop = asyncio.get_running_loop()
        self.failure: asyncio.Future[None] = self.loop.create_future()
        self.sent, self.received = Traffic(), Traffic()
        self.refusals: Counter[str] = Counter()
        self._peers: dict[str, Peer] = {}
        self._lives: dict[str, int] = {}
        self._threads = ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="calling")
        self._device = Device()
        self._listener: Listener | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def begin(self, began_at: float) -> None:
        """The job began then, in seconds since 1970: `now` counts from there."""
        self._began = time.monotonic() - (time.time() - began_at)  # noqa: TID251

    def now(self) -> float:
        return time.monotonic() - self._began

    def compute(self, work: Work[R]) -> asyncio.Future[R]:
        return self._device.compute(work)

    def introduce(self, peer: str, address: str) -> None:
        """A peer is at this address now; calls under way to another are Unreachable."""
        known = self._peers.get(peer)
        if known is not None and known.address == address:
            return
        if known is not None:
            known.close()
        self._peers[peer] = Peer(peer, address)

    def call(self, peer: str, request: Request[R]) -> asyncio.Future[R]:
        """See `core.node.Node`.  Whoever cancels the future of a Fetch has given its buffer up: it may still be written."""
        future: asyncio.Future[R] = self.loop.create_future()
        future.add_done_callback(look)
        way = self._peers.get(peer)
        if way is None:
            future.set_exception(Unreachable(f"{self.name} knows no address of {peer}"))
            return future
        header = encode_request(self.own, self._lives.get(peer, 0), request)
        self.sent.count(len(header) + (0 if request.payload is None else request.payload.nbytes))
        asked = self._threads.submit(way.ask, header, request, self.deadline_s)
        asked.add_done_callback(lambda asked: self.loop.call_soon_threadsafe(self._land, peer, request, future, asked))
        return future

    def _land(self, peer: str, request: Request[R], future: asyncio.Future[R], asked: concurrent.futures.Future[Landed]) -> None:
        try:
            reply = self._judge(peer, request, asked.result())
        except Malformed as nonsense:
            self._refused(nonsense.fault, peer, nonsense.reason)
            error: Exception = Unreachable(f"{peer} answered nonsense: {nonsense.reason}")
        except (CallFailed, Refused) as outcome:
            error = outcome
        except Exception as mistake:  # noqa: BLE001  ours: it goes to whoever awaits the call, and ends the process
            self._fail(mistake)
            error = mistake
        else:
            if not future.cancelled():
                future.set_result(reply)
            return
        if not future.cancelled():
            future.set_exception(error)

    def _judge(self, peer: str, request: Request[R], landed: Landed) -> Any:
        """What an answer comes to, once it is here.  Raises Malformed, Unreachable or Refused."""
        answer, reply = landed.answer, landed.reply
        self.received.count(landed.nbytes)
        if answer.job != self.own.job:
            raise Unreachable(f"at the address of {peer} answers job {answer.job!r}")
        self._lives[peer] = max(answer.life, self._lives.get(peer, 0))
        if answer.misaddressed:
            raise Unreachable(f"{peer}: {answer.misaddressed}")
        if isinstance(reply, Refusal):
            raise Refused(reply.reason)
        if not isinstance(reply, ANSWERS[type(request)]):
            raise Malformed(Fault.UNDECODABLE, f"{type(reply).__name__} in answer to {type(request).__name__}")
        return reply

    def serve(self, server: Server, limit: Payload, port: int = 0, calls_at_once: int = CALLS_AT_ONCE) -> str:
        """Answer calls with this server from here on; the address, for others to be told.

        `limit`: the type of payload that it takes, and the most bytes of one.  Port 0: any.  Raises AddressInUse.
        """
        assert self._listener is None, "a node has one server"
        self._server = server
        self._listener = Listener(self.own, self, limit, port=port, calls_at_once=calls_at_once)
        return self._listener.address

    def handle(self, request: Request[Any], sender: Sender, nbytes: int) -> Reply:
        """Have the node's own thread handle a request, and make durable what the reply owes (`exec.server.Handler`)."""
        handled: concurrent.futures.Future[Outcome] = concurrent.futures.Future()
        self.loop.call_soon_threadsafe(self._handle, request, sender, nbytes, handled)
        outcome = handled.result()
        if outcome.persist is not None and self.persist is not None:
            try:
                self.persist(outcome.persist)
            except Exception as error:
                self.loop.call_soon_threadsafe(self._fail, error)
                raise ServerFailed(repr(error)) from error
        return outcome.reply

    def _handle(self, request: Request[Any], sender: Sender, nbytes: int, handled: concurrent.futures.Future[Outcome]) -> None:
        self.received.count(nbytes)
        if self.failure.done():
            handled.set_exception(ServerFailed("it failed at an earlier request"))
            return
        try:
            outcome = self._server.handle(request, sender)
        except Exception as error:  # noqa: BLE001  whoever awaits `failure` raises it
            self._fail(error)
            handled.set_exception(ServerFailed(repr(error)))
            return
        if isinstance(outcome.reply, Refusal):
            self.refusals[Fault.DECLINED] += 1  # the server itself has recorded why
        handled.set_result(outcome)

    def answered(self, nbytes: int) -> None:
        """A reply goes out (`exec.server.Handler`)."""
        self.loop.call_soon_threadsafe(self.sent.count, nbytes)

    def refused(self, fault: Fault, peer: str, reason: str) -> None:
        """A request was turned away before the server saw it (`exec.server.Handler`)."""
        self.loop.call_soon_threadsafe(self._refused, fault, peer, reason)

    def _refused(self, fault: Fault, peer: str, reason: str) -> None:
        self.refusals[fault] += 1
        if fault is Fault.BROKEN:
            self.record("broken", peer, 0, 0.0, one_line(reason))
        else:
            self.record("refused", peer, 0, 0.0, one_line(f"{fault}: {reason}"))

    def _fail(self, error: Exception) -> None:
        """Ours, not a peer's: the first such error is what `failure` ends with."""
        if not self.failure.done():
            self.failure.set_exception(error)

    async def close(self) -> None:
        """End every call, made or being answered, and every thread; then write down what was counted."""
        peers, self._peers = self._peers, {}
        for peer in peers.values():
            peer.close()
        await asyncio.to_thread(self._end_threads)
        for which, traffic in (("sent", self.sent), ("received", self.received)):
            self.record("counted", "", traffic.messages, traffic.nbytes, which)
        for fault, count in sorted(self.refusals.items()):
            self.record("counted", "", count, 0.0, f"refused: {fault}")

    def _end_threads(self) -> None:
        if self._listener is not None:
            self._listener.close()
        self._threads.shutdown()
        self._device.close()


def look(future: asyncio.Future[Any]) -> None:
    """See a call's failure, so that asyncio does not complain when nobody else does: an answer may be ignored."""
    if not future.cancelled():
        future.exception()
