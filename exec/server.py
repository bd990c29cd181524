"""The serving end of calls: takes requests in whole, has them handled, sends the replies.

gRPC's threads do the byte work.  A request reaches the core's server only once all of it is here and in order, and only on
the thread of the node's event loop, which owns the node's state: so handling is atomic, and half a push never counts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc

from core.messages import Fetching, Refusal, Reply, Request, Sender, misaddressed
from exec import addresses
from exec.certificates import Credentials
from exec.codec import (
    Call,
    Identity,
    Payload,
    decode_request,
    dtype_of,
    encode_misaddressed,
    encode_not_mapped,
    encode_reply,
)
from exec.malformed import Fault, Malformed
from exec.shared_memory import Mapped, NotMapped
from exec.transport import METHOD, SERVER_OPTIONS, end_here, message, next_header


class AddressInUse(OSError):
    """Somebody else serves at this port."""


class Handler(Protocol):
    """What the host does for its door; called from any thread."""

    def handle(self, request: Request[Any], sender: Sender, nbytes: int) -> Reply:
        """Have a whole request of so many bytes handled; returns once the reply may be sent.  Raises ServerFailed."""

    def refused(self, fault: Fault, peer: str, reason: str) -> None:
        """Take note of a request that the server never saw."""

    def answered(self, nbytes: int) -> None:
        """Take note of a reply of so many bytes."""


class ServerFailed(Exception):
    """The core's server raised: its state may be half changed, so it serves nobody any more."""


class NotDurable(Exception):
    """The request was carried out, and what was promised of it cannot be kept: nobody may be told."""


@dataclass(slots=True)
class Door(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Answers calls for one life of a role."""

    own: Identity
    handler: Handler
    limits: tuple[Payload, ...]
    """The types of payload that are taken in, each with its greatest length; the last is that in which vectors travel."""
    segments: Mapped
    taking: dict[Any, float] = field(default_factory=dict)
    """Calls of which not everything is here yet, and when each began."""

    def service(self, details: Any) -> Any:
        return grpc.stream_stream_rpc_method_handler(self.answer) if details.method == METHOD else None

    def answer(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """One call, from its first message to its last."""
        peer, messages = context.peer(), self.timely(messages, context)
        try:
            header = next_header(messages)
            call = decode_request(header)
            peer = call.sender.label
            if reason := misaddressed(call.job, self.own.job, call.addressee_life, self.own.incarnation):
                self.handler.refused(Fault.MISADDRESSED, peer, reason)
                yield from self.told(encode_misaddressed(self.own, reason), None)
                return
            request, nbytes = self.take_in(call, header, messages)
            reply = self.handler.handle(request, call.sender, nbytes)
            if call.room and reply.payload is not None and self.put(reply, call):
                yield from self.told(encode_reply(self.own, reply, in_room=True), None, reply.payload.nbytes)
                return
        except NotMapped as missing:
            self.handler.refused(Fault.NOT_MAPPED, peer, str(missing))
            yield from self.told(encode_not_mapped(self.own, str(missing)), None)
            return
        except Malformed as nonsense:
            self.handler.refused(nonsense.fault, peer, nonsense.reason)
            reply = Refusal(nonsense.reason)
        except grpc.RpcError:
            # The caller went away, its deadline passed, or a message was beyond gRPC's own limit: nobody is left to tell.
            self.handler.refused(Fault.BROKEN, peer, "the request broke off")
            return
        except NotDurable as failure:
            context.abort(grpc.StatusCode.UNAVAILABLE, f"{self.own.name}: {failure}")
        except ServerFailed as failure:
            context.abort(grpc.StatusCode.INTERNAL, f"{self.own.name} failed: {failure}")
        yield from self.told(encode_reply(self.own, reply), reply.payload)

    def timely(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """The same, until they have taken too long.  To gRPC a call that was ended here has ended in one way or another."""
        self.taking[context] = time.monotonic()
        try:
            yield from messages
        except grpc.RpcError:
            if context in self.taking:
                raise
        finally:
            in_time = self.taking.pop(context, None) is not None
        if not in_time:
            raise Malformed(Fault.BROKEN, "the request was not whole in time")

    def expire(self, limit_s: float) -> None:
        """End calls that began so long ago and still are not all here: each holds a thread, and its caller need not have a deadline."""
        until_s = time.monotonic() - limit_s
        for context in [context for context, since_s in list(self.taking.items()) if since_s < until_s]:
            self.taking.pop(context, None)
            context.cancel()

    def take_in(self, call: Call, header: bytes, messages: Iterator[bytes]) -> tuple[Request[Any], int]:
        """What is left of the request; with its bytes, all together."""
        if call.payload is None:
            end_here(messages)
            request = call.request(None)
            if isinstance(request, Fetching):
                self.prepare(request, call)
            return request, len(header)
        self.check(call.payload)
        if call.ticket:
            end_here(messages)
            found = self.segments.find(call.ticket, call.payload.nbytes, call.job, call.sender.name, call.sender.incarnation)
            request = call.request(found.tensor(call.payload))
        else:
            from exec.tensors import collect

            request = call.request(collect(messages, call.payload))
        return request, len(header) + call.payload.nbytes

    def prepare(self, fetch: Fetching[Any], call: Call) -> None:
        """Where, and else in which form, the shard shall copy its slice."""
        from exec.tensors import cut

        fetch.copied = cut
        if call.room and self.limits:
            fetch.room = self.room(call, self.limits[-1])  # the type in which vectors travel

    def check(self, payload: Payload) -> None:
        limit = next((limit for limit in self.limits if limit.dtype == payload.dtype), None)
        if limit is None:
            taken = " or ".join(limit.dtype for limit in self.limits) or "none"
            raise Malformed(Fault.DTYPE, f"a payload of {payload.dtype}; {self.own.name} takes {taken}")
        if payload.nbytes > limit.nbytes:
            reason = f"a payload of {payload.nbytes} bytes; {self.own.name} takes {limit.nbytes}"
            raise Malformed(Fault.OVERSIZED, reason)

    def room(self, call: Call, payload: Payload) -> Any:
        """The room that a caller left, as a vector of that kind; None where there is none of just that size."""
        try:
            room = self.segments.find(call.room, payload.nbytes, call.job, call.sender.name, call.sender.incarnation)
        except NotMapped:
            return None
        return room.tensor(payload) if room.nbytes == payload.nbytes else None

    def put(self, reply: Reply, call: Call) -> bool:
        """See that a reply's payload lies where the caller left room for it; False if that cannot be, and it must be sent."""
        room = self.room(call, Payload(dtype_of(reply.payload), reply.payload.nbytes))
        if room is None or not hasattr(reply.payload, "data_ptr"):  # it is in pieces already
            return False
        if room.data_ptr() != reply.payload.data_ptr():
            room.copy_(reply.payload)
        return True

    def told(self, header: bytes, vector: Any, beside: int = 0) -> Iterator[bytes]:
        self.handler.answered(len(header) + beside + (0 if vector is None else vector.nbytes))
        return message(header, vector)


class Listener:
    """A gRPC server with one door, at one address of this machine and no other."""

    def __init__(
        self, own: Identity, handler: Handler, limits: tuple[Payload, ...], *, bind: str, port: int, credentials: Credentials | None,
        calls_at_once: int,
    ) -> None:  # fmt: skip
        """Listens from here on.  Raises AddressInUse, and ValueError for an address that others reach without credentials."""
        if credentials is None and not addresses.is_loopback(bind):
            raise ValueError(f"{own.name} would serve at {bind} without certificates; only loopback addresses may go without")
        self.threads = ThreadPoolExecutor(calls_at_once, thread_name_prefix="serving")
        self.door = Door(own, handler, limits, Mapped())
        self.server = grpc.server(
            self.threads,
            handlers=(self.door,),
            options=SERVER_OPTIONS,
            maximum_concurrent_rpcs=calls_at_once,
        )
        at = f"[{bind}]:{port}" if ":" in bind else f"{bind}:{port}"
        try:
            if credentials is None:
                bound = self.server.add_insecure_port(at)
            else:
                shown = grpc.ssl_server_credentials([(credentials.key, credentials.certificate)], credentials.ca, require_client_auth=True)
                bound = self.server.add_secure_port(at, shown)
        except RuntimeError as error:
            self.threads.shutdown()
            raise AddressInUse(f"{own.name} cannot serve at port {port} of {bind}: it is in use, or no address of this machine") from error
        self.address = at.removesuffix(f":{port}") + f":{bound}"
        self.server.start()

    def close(self) -> None:
        """End every call and every thread.  The event loop must still run: a call may wait for it."""
        self.server.stop(grace=0).wait()
        self.threads.shutdown()
