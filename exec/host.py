"""One life of a role as a real process: `core.node.Node` over gRPC, threads and the wall clock.

    async with Host(Identity(job, "shard/0", 1), journal, deadline_s=10, limits=(Payload("float32", nbytes),)) as host:
        shard = Shard(host, job, parameters, rule)
        address = host.serve(shard)
        await host.failure                      # never ends, unless the server raises: then it raises that

    async with Host(Identity(job, "replica/3", 1), journal, deadline_s=10) as host:
        host.introduce("shard/0", 1, address)   # again whenever it moves
        await replica(host, job, network, data)

Everything here happens on the thread of the event loop that made the host, except the byte work of calls (`exec/client.py`,
`exec/server.py`) and computation (`exec/device.py`); those threads come back through `call_soon_threadsafe`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

from core.chance import stream
from core.coordination import Memory, Missing, Operate, Recall, Task, Values, Want
from core.journal import Journal, one_line
from core.messages import (
    Accepted,
    Ask,
    Behind,
    CallFailed,
    Copy,
    Fetch,
    FetchPoint,
    Finish,
    Finished,
    Install,
    Join,
    Parameters,
    Progress,
    Push,
    Refusal,
    Refused,
    Reply,
    Request,
    Sender,
    TimedOut,
    Unreachable,
)
from core.node import Outcome, Recorder, Server, Store
from core.passing import Overdue, Pass, Word
from core.reports import Beat, Conclude, Inquire, Orders, Overview, Report, Standing
from core.timings import Timings
from core.work import Work
from exec import addresses
from exec.certificates import Credentials
from exec.chaos import Fate, Interference
from exec.client import Landed, Peer
from exec.codec import Identity, Payload
from exec.device import Device
from exec.handshakes import Handshakes
from exec.malformed import Fault, Malformed
from exec.relay import Relay, Relayed
from exec.server import Listener, NotDurable, ServerFailed
from exec.shared_memory import Segments
from exec.transport import Traffic

R = TypeVar("R")

DEFAULT = Timings()

RECORDED = 1000
"""Refusals of one kind that get a line of the journal each; the others are counted."""

TELLING = 6
"""Attempts, over about one deadline: whoever is just starting, or has no thread to spare, may hear the next."""

CALLS_AT_ONCE = 64
"""Threads for calls made, and again for calls answered: two for each lane, of thirty-two peers.  Beyond it calls made wait
for a thread, and calls that come in are turned away, to be repeated."""

ANSWERS: dict[type[Request[Any]], tuple[type[Reply], ...]] = {
    Join: (Progress,),
    Ask: (Progress,),
    Finish: (Progress,),
    Fetch: (Parameters,),
    FetchPoint: (Parameters, Behind),
    Push: (Accepted, Finished),
    Copy: (Accepted, Behind),
    Install: (Accepted, Behind),
    Beat: (Standing,),
    Report: (Orders,),
    Inquire: (Overview,),
    Conclude: (Overview,),
    Relay: (Relayed,),
    Want: (Task, Finished),
    Recall: (Memory,),
    Operate: (Values, Missing, Behind, Finished),
    Pass: (Accepted, Behind),
    Word: (Accepted, Behind),
    Overdue: (Accepted, Behind),
}
"""What each request can be answered with, a refusal apart."""

PROMPT = (Beat, Report)
"""Signs of life: the next is on its way before an answer to the last would be missed."""


class Host:
    """A node of the real world."""

    def __init__(
        self, own: Identity, journal: Journal, *, deadline_s: float, timings: Timings = DEFAULT, launched_at: float | None = None,
        seed: int = 0, store: Store | None = None, bind: str = "127.0.0.1", port: int = 0, credentials: Credentials | None = None,
        limits: tuple[Payload, ...] = (), shared_memory: bool = True, interference: Interference | None = None,
    ) -> None:  # fmt: skip
        """To be made where an event loop runs.

        `launched_at`: when the job was, in seconds since 1970; now, if left out.  `bind`, `port`: where it will serve; 0 for any.
        `limits`: the types of payload that are taken in, each with the most bytes of one.  `interference`: declared faults.
        """
        self.own, self.deadline_s, self.timings = own, deadline_s, timings
        self.name, self.incarnation = own.name, own.incarnation
        self.random = stream(seed, f"{own.name}#{own.incarnation}", "jitter")
        # The wall clock, the only one that processes share, is read once: it may be set anew while the job runs.
        self._launched = time.monotonic() - (0.0 if launched_at is None else time.time() - launched_at)  # noqa: TID251
        self.record: Recorder = journal.recorder(own.name, own.incarnation, self.now)
        self.loop = asyncio.get_running_loop()
        self.failure: asyncio.Future[None] = self.loop.create_future()
        self.sent, self.received = Traffic(), Traffic()
        self.refusals: Counter[str] = Counter()
        self._store, self._bind, self._port, self._credentials, self._limits = store, bind, port, credentials, limits
        self._shared_memory, self._interference = shared_memory, interference
        self._segments = Segments(own)
        self._peers: dict[str, Peer] = {}
        self._lives: dict[str, int] = {}
        self._threads = ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="calling")
        self._device = Device()
        self._listener: Listener | None = None
        self._expiring: asyncio.TimerHandle | None = None
        self._closing = threading.Event()
        self._handshakes: Handshakes | None = None
        self._keeping: dict[concurrent.futures.Future[bool], asyncio.Future[None]] = {}

    @property
    def store(self) -> Store:
        assert self._store is not None, f"{self.name} keeps nothing"
        return self._store

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def now(self) -> float:
        return time.monotonic() - self._launched

    def compute(self, work: Work[R]) -> asyncio.Future[R]:
        return self._device.compute(work)

    def introduce(self, peer: str, life: int, address: str) -> None:
        """That life of a peer is at this address from now on; calls under way to an earlier one end with Unreachable.

        Life 0: whichever is there.  An address of "" means that it serves nowhere.
        """
        known = self._peers.get(peer)
        if known is not None and (life < known.life or (life, address) == (known.life, known.address)):
            return
        if known is not None:
            known.close()
            del self._peers[peer]
        self._lives[peer] = max(life, self._lives.get(peer, 0))
        if address:
            near = self._shared_memory and self._segments.usable and addresses.split(address)[0] == self._bind
            self._peers[peer] = Peer(
                peer, life, address, keepalive_s=self.timings.keepalive_s, credentials=self._credentials, segments=self._segments, near=near,
                sending=self._sending,
            )  # fmt: skip

    def call(self, peer: str, request: Request[R]) -> asyncio.Future[R]:
        """See `core.node.Node`.  Whoever cancels the future of a Fetch has given its buffer up: it may still be written."""
        future: asyncio.Future[R] = self.loop.create_future()
        future.add_done_callback(look)
        way = self._peers.get(peer)
        if way is None:
            future.set_exception(Unreachable(f"{self.name} knows no address of {peer}"))
            return future
        life = self._lives.get(peer, 0)
        deadline_s = min(self.deadline_s, self.timings.detect_within_s) if isinstance(request, PROMPT) else self.deadline_s
        if self._interference is not None:
            fate = self._interference.judge(peer, self.now(), self.record)
            asked = self._threads.submit(self._interfered, fate, way, life, request, deadline_s)
        else:
            asked = self._threads.submit(way.ask, self.own, life, request, deadline_s)
        asked.add_done_callback(lambda asked: self.loop.call_soon_threadsafe(self._land, peer, request, future, asked))
        return future

    def tell(self, peer: str, request: Request[Any], attempt: int = 1) -> None:
        """See `core.node.Node`.  Over gRPC it has an answer all the same, so that what did not get through is tried again, a few times."""

        def answered(call: asyncio.Future[Any]) -> None:
            failed = not call.cancelled() and isinstance(call.exception(), Unreachable)
            if failed and attempt < TELLING and not self._closing.is_set():
                pause_s = self.deadline_s * 2.0**attempt / 2.0**TELLING * self.random.random()
                self.loop.call_later(pause_s, self.tell, peer, request, attempt + 1)

        if not self._closing.is_set():
            self.call(peer, request).add_done_callback(answered)

    def _interfered(self, fate: Fate, way: Peer, life: int, request: Request[Any], deadline_s: float) -> Landed:
        """A call under a declared fault."""
        self._closing.wait(min(fate.delay_s, deadline_s))
        began = time.monotonic()
        if not fate.request_lost:
            landed = way.ask(self.own, life, request, deadline_s)
            if fate.twice:
                landed = way.ask(self.own, life, request, deadline_s)
            if not fate.reply_lost:
                return landed
        self._closing.wait(deadline_s - (time.monotonic() - began))
        raise TimedOut(f"{way.name} did not answer in time: a declared fault")

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

    def serve(self, server: Server) -> str:
        """Answer calls with this server from here on; the address, for others to be told.  Raises AddressInUse."""
        assert self._listener is None, "a node has one server"
        self._server = server
        if self._credentials is not None:
            self._handshakes = Handshakes(lambda why: self.refused(Fault.STRANGER, "stranger", why))
        self._listener = Listener(
            self.own, self, self._limits, bind=self._bind, port=self._port, credentials=self._credentials, calls_at_once=CALLS_AT_ONCE
        )
        self._expire()
        return self._listener.address

    def _expire(self) -> None:
        """Now and then: whoever has not sent a whole request within the time that a call has does not hold a thread any longer."""
        assert self._listener is not None
        self._listener.door.expire(self.deadline_s)
        self._expiring = self.loop.call_later(self.deadline_s / 4, self._expire)

    def handle(self, request: Request[Any], sender: Sender, nbytes: int) -> Reply:
        """Have the node's own thread handle a request, and make durable what the reply owes (`exec.server.Handler`)."""
        handled: concurrent.futures.Future[Outcome] = concurrent.futures.Future()
        self.loop.call_soon_threadsafe(self._handle, request, sender, nbytes, handled)
        outcome = handled.result()
        if outcome.durable is not None:
            kept: concurrent.futures.Future[bool] = concurrent.futures.Future()
            self.loop.call_soon_threadsafe(self._when_durable, outcome.durable, kept)
            if not kept.result():
                raise NotDurable("what was carried out could not be kept")
        return outcome.reply

    def _when_durable(self, durable: asyncio.Future[None], kept: concurrent.futures.Future[bool]) -> None:
        """Tell a thread of gRPC what becomes of a future of the loop: did it end as it should?"""

        def tell(durable: asyncio.Future[None]) -> None:
            self._keeping.pop(kept, None)
            kept.set_result(not durable.cancelled() and durable.exception() is None)

        self._keeping[kept] = durable
        durable.add_done_callback(tell)
        if self._closing.is_set():
            durable.cancel()  # it came too late to be among those that `close` ends

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
        self._sending(nbytes)

    def _sending(self, nbytes: int) -> None:
        self.loop.call_soon_threadsafe(self.sent.count, nbytes)

    def refused(self, fault: Fault, peer: str, reason: str) -> None:
        """A request was turned away before the server saw it (`exec.server.Handler`)."""
        self.loop.call_soon_threadsafe(self._refused, fault, peer, reason)

    def _refused(self, fault: Fault, peer: str, reason: str) -> None:
        self.refusals[fault] += 1
        if self.refusals[fault] > RECORDED:
            return
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
        self._closing.set()
        if self._expiring is not None:
            self._expiring.cancel()
        for durable in list(self._keeping.values()):
            durable.cancel()
        peers, self._peers = self._peers, {}
        for peer in peers.values():
            peer.close()
        await asyncio.to_thread(self._end_threads)
        self._segments.close()
        if self._handshakes is not None:
            await asyncio.to_thread(self._handshakes.close)
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
