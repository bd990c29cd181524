"""The simulated host: one life of a role on a machine, as `core.node.Node` describes it.

At the addressee a request waits its turn, is handled in one go, and its reply
leaves when the cost of handling it is paid, and what it promises is durable.  Deadlines are the caller's: one timer for the
earliest, since calls of one host have the same patience and so end in the order in which they began.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import Counter, deque
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from core.job import SUPERVISOR
from core.journal import Journal
from core.messages import Refusal, Refused, Request, Sender, TimedOut, Unreachable, misaddressed
from core.node import NOTHING, Outcome, Server, Store
from core.work import Gradient, Work
from scenarios.network import HEADER_BYTES
from sim.accounts import Account
from sim.calls import REPLY, REQUEST, RESET, SERVED, Call, Place, Told, Travelling
from sim.device import Device
from sim.loop import Future, Life, SimLoop, Timer
from sim.network import Network

if TYPE_CHECKING:
    from sim.spans import Spans


class Host:
    """One life of a role.  Its doors do nothing once that life is over."""

    def __init__(
        self, life: Life, place: Place, network: Network, places: dict[str, Place], journal: Journal,
        device: Device, stream: random.Random, store: Store, deadline_s: float, payload_scale: float,
    ) -> None:  # fmt: skip
        """`places`: by address; whoever serves adds his own."""
        self.life, self.place, self.network, self.places, self.device, self.store = life, place, network, places, device, store
        self.machine = place.machine
        self.loop: SimLoop = life.loop
        self.name, self.incarnation, self.random = life.name, life.incarnation, stream
        self.sender = Sender(life.name, life.incarnation)
        self.record = journal.recorder(life.name, life.incarnation, self.loop.now)
        self.deadline_s, self.payload_scale = deadline_s, payload_scale
        self.server: Server | None = None
        self.peers: dict[str, Place] = {}
        self.lives: dict[str, int] = {}
        self.refusals: Counter[str] = Counter()
        self._outstanding: dict[int, Call] = {}
        """What is unanswered, in the order in which it was sent, by identity; besides what was cancelled, until its deadline."""
        self._timer: Timer | None = None
        self._queue: deque[Travelling] = deque()
        self.serving: Travelling | None = None
        """The request whose cost is being paid."""
        self._supervisor = places.get(SUPERVISOR)
        self.account = Account(self.loop.env._now, life.incarnation, self._alone_s)
        self.spans: Spans | None = None
        """Where a trace is wanted."""

    @property
    def working(self) -> bool:
        """Does it compute, or pay for a request, at this moment?"""
        return self.life.active and self.busy

    @property
    def busy(self) -> bool:
        """The same, even if it is stopped in the middle."""
        return self.device.running is not None or self.serving is not None

    def pause(self) -> None:
        self.account.stop(self.loop.env._now, working=self.busy)
        self.device.pause()
        self.life.pause()

    def resume(self) -> None:
        self.account.go_on(self.loop.env._now)
        self.device.resume()
        self.life.resume()

    # core.node.Node

    def now(self) -> float:
        return self.machine.clock(self.loop.now()) if self.machine.drifts else self.loop.now()

    def call(self, peer: str, request: Request[Any]) -> Future:
        call = Call(loop=self.loop)
        if not self.life.up:
            return call
        place = self.peers.get(peer)
        if place is None:
            fail(call, Unreachable(f"{self.name} knows no address of {peer}"))
            return call
        call.caller, call.to, call.request, call.stage = self, place, request, REQUEST
        call.addressee_life = self.lives.get(peer, 0)
        call.sent_s = now_s = self.loop.env._now
        call.replied_s, call.deadline_s = inf, now_s + self.deadline_s
        self._outstanding[id(call)] = call
        if self._timer is None:
            self._arm()
        payload = request.payload
        nbytes = HEADER_BYTES if payload is None else HEADER_BYTES + payload.nbytes * self.payload_scale
        self.network.send(call, self.machine, place.machine, nbytes)
        return call

    def tell(self, peer: str, request: Request[Any]) -> None:
        place = self.peers.get(peer)
        if place is None or not self.life.up:
            return
        told = Told()
        told.caller, told.to, told.request, told.stage = self, place, request, REQUEST
        told.addressee_life = self.lives.get(peer, 0)
        told.sent_s = self.loop.env._now
        payload = request.payload
        nbytes = HEADER_BYTES if payload is None else HEADER_BYTES + payload.nbytes * self.payload_scale
        self.network.send(told, self.machine, place.machine, nbytes)

    def compute(self, work: Work[Any]) -> Future:
        """The function runs now, on what it finds now; its result is there when the cost is paid."""
        future = self.loop.create_future()
        if self.life.up:
            result, began_s = work.run(), self.loop.env._now

            def done() -> None:
                now_s = self.loop.env._now
                if self.spans is not None:
                    self.spans.computed(self, began_s, now_s)
                self.account.computed(now_s, min(self.device.contention_s, now_s - self.account.since_s))
                if type(result) is Gradient:
                    self.account.samples += result.samples
                if not future.done():  # else whoever asked has been cancelled
                    future.set_result(result)

            self.account.productive(began_s)
            self.account.waited(began_s)
            self.device.begin(work.cost, done)
        return future

    def serve(self, server: Server) -> str:
        """Answer with this server; the address is this life's label, since an earlier life may still answer at its own."""
        self.server, self.place.host = server, self
        self.account.serves(self.loop.env._now)
        self.places.setdefault(self.sender.label, self.place)
        return self.sender.label

    def introduce(self, peer: str, life: int, address: str) -> None:
        if life < self.lives.get(peer, 0):
            return
        before, place = self.peers.get(peer), self.places.get(address)
        if place is None:
            return  # it serves nothing
        self.peers[peer] = place
        if life:
            self.lives[peer] = life
        if before is not None and before is not place:
            for call in [one for one in self._outstanding.values() if one.to is before]:
                self._fail(call, Unreachable(f"{peer} lives life {life} by now"))

    # the caller's side

    def oldest_call(self) -> Call | None:
        """The call, of those that are no signs of life, that has been unanswered the longest."""
        return next((call for call in self._outstanding.values() if not call.done() and call.to is not self._supervisor), None)

    def _arm(self) -> None:
        oldest = next(call for call in self._outstanding.values() if not call.done())
        self._timer = self.loop.call_at(oldest.deadline_s, self._expire, context=self.life.context)

    def _expire(self) -> None:
        now_s = self.loop.env.now
        for call in list(self._outstanding.values()):
            if not call.done() and call.deadline_s > now_s:
                break
            self._fail(call, TimedOut(f"no answer in {self.deadline_s:g} s"))
        self._timer = None
        if self._outstanding:
            self._arm()

    def returned(self, call: Call) -> None:
        """A reply, or the news that nobody will send one, has come back to this host."""
        if not self.life.active and not self.life.admits(lambda: self.returned(call)):
            return
        if call.done():
            return
        self._outstanding.pop(id(call), None)  # a twin never was
        if call.stage == RESET:
            self._fail(call, Unreachable("nobody is there"))
            return
        if call.to is not self._supervisor:
            self.ended(call)
        reply, life, none_because = call.outcome
        if life != call.addressee_life and life > self.lives.get(call.to.name, 0):
            self.lives[call.to.name] = life
        if none_because:
            fail(call, Unreachable(none_because))
        elif type(reply) is Refusal:
            fail(call, Refused(reply.reason))
        else:
            call.set_result(reply)

    def reset_calls_to(self, place: Place) -> int:
        """The process at the other end is gone, and its machine says so.  Returns how many calls this cuts off."""
        cut_off = [call for call in self._outstanding.values() if call.to is place and not call.done()]
        for call in cut_off:
            self.loop.call_later(self.network.latency_s, self._reset, call, context=contextvars.Context())
        return len(cut_off)

    def _reset(self, call: Call) -> None:
        """The connection is gone: what has not arrived never will, and what the next life has taken up already stays its own."""
        if call.stage == REQUEST:
            call.stage = RESET
        if self.life.admits(lambda: self._reset(call)):
            self._fail(call, Unreachable("the connection was reset"))

    def _fail(self, call: Call, error: Exception) -> None:
        self._outstanding.pop(id(call), None)
        if not call.done() and call.to is not self._supervisor:
            call.replied_s = inf
            self.ended(call)
        fail(call, error)

    def ended(self, call: Travelling) -> None:
        """It has its reply, or will not get one; or, of what was told, has got there."""
        self.account.call_ended(self.loop.env._now, call)
        if self.spans is not None:
            self.spans.ended(call, self.loop.env._now)

    # the addressee's side

    def arrive(self, call: Travelling) -> None:
        """A request has reached this process: it is handled now, or after those that came before."""
        if not self.life.active and not self.life.admits(lambda: self.arrive(call)):
            return
        if self.serving is not None:
            self._queue.append(call)
            if self.spans is not None:
                self.spans.queued(self, len(self._queue), self.loop.env._now)
        else:
            self.handle(call)

    def handle(self, call: Travelling) -> None:
        """Handle one request in this life's context, and charge its cost before the reply may leave."""
        assert self.server is not None, "whoever does not serve has no address"
        call.handled_s = self.loop.env._now
        if call.addressee_life != self.incarnation and (why := misaddressed("", "", call.addressee_life, self.incarnation)):
            self.refusals["misaddressed"] += 1
            call.outcome = (None, self.incarnation, why)
            self.send_back(call)
            return
        outcome: Outcome = self.life.context.run(self.server.handle, call.request, call.caller.sender)
        call.outcome, call.durable = (outcome.reply, self.incarnation, ""), outcome.durable
        delay_s = 0.0 if outcome.cost is NOTHING else self.machine.takes(outcome.cost) * self.payload_scale
        if delay_s > 0:
            self.account.asked(call.handled_s, call)
            self.serving = call
            call.stage = SERVED
            self.loop.after(delay_s, call)
        elif call.durable is None:
            self.send_back(call)
        else:
            self.send_back_when_durable(call, call.durable)

    def departs(self, call: Travelling) -> None:
        """The cost of handling is paid: the reply may leave, and whoever waited longest is served."""
        if not self.life.active and not self.life.admits(lambda: self.departs(call)):
            return
        self.serving = None
        self.account.computed(self.loop.env._now)
        if self.spans is not None:
            self.spans.served(self, call, self.loop.env._now)
        if call.durable is None:
            self.send_back(call)
        else:
            self.send_back_when_durable(call, call.durable)
        while self._queue and self.serving is None:
            self.handle(self._queue.popleft())
            if self.spans is not None:
                self.spans.queued(self, len(self._queue), self.loop.env._now)

    def send_back_when_durable(self, call: Travelling, durable: asyncio.Future[None]) -> None:
        if not durable.done():
            durable.add_done_callback(partial(self.send_back_when_durable, call), context=self.life.context)
            return
        if durable.cancelled() or durable.exception() is not None:
            call.outcome = (None, self.incarnation, "what it asked for did not become durable")
        self.send_back(call)

    def _alone_s(self, call: Travelling, outward: bool) -> float:
        """How long its request, or its reply, would have been under way on an empty network."""
        payload = call.request.payload if outward else None if call.outcome[0] is None else call.outcome[0].payload
        nbytes = HEADER_BYTES if payload is None else HEADER_BYTES + payload.nbytes * self.payload_scale
        return self.network.alone_s(call.caller.machine, call.to.machine, nbytes)

    def retime(self, factor: float) -> None:
        """The machine has become so many times slower: what is left of the service in progress takes so much longer."""
        if self.serving is not None:
            self.loop.env.stretch(self.serving, factor)

    def send_back(self, call: Travelling) -> None:
        if not call.answered:
            return
        call.stage, call.replied_s = REPLY, self.loop.env._now
        reply = call.outcome[0]
        if type(reply) is Refusal:
            self.refusals["refused"] += 1
        payload = None if reply is None else reply.payload
        nbytes = HEADER_BYTES if payload is None else HEADER_BYTES + payload.nbytes * self.payload_scale
        self.network.send(call, self.machine, call.caller.machine, nbytes)


def fail(future: Future, error: Exception) -> None:
    """An answer that nobody waits for any more is nobody's error."""
    if not future.done():
        future.set_exception(error)
        future.exception()  # marks it as looked at
