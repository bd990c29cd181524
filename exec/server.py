"""The serving end of calls: takes requests in whole, has them handled, sends the replies.

gRPC's threads do the byte work.  A request reaches the core's server only once all of it is here and in order, and only on
the thread of the node's event loop, which owns the node's state: so handling is atomic, and half a push never counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import torch

from core.messages import Refusal, Reply, Request, Sender, misaddressed
from exec.codec import Call, Fault, Identity, Malformed, Payload, decode_request, encode_misaddressed, encode_reply
from exec.transport import METHOD, SERVER_OPTIONS, collect, end_here, message, next_header


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


@dataclass(slots=True)
class Door(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Answers calls for one life of a role."""

    own: Identity
    handler: Handler
    limit: Payload
    """The type of payload that is taken in, and its greatest length."""

    def service(self, details: Any) -> Any:
        return grpc.stream_stream_rpc_method_handler(self.answer) if details.method == METHOD else None

    def answer(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """One call, from its first message to its last."""
        peer = context.peer()
        try:
            header = next_header(messages)
            call = decode_request(header)
            peer = call.sender.label
            if reason := misaddressed(call.job, self.own.job, call.addressee_life, self.own.incarnation):
                self.handler.refused(Fault.MISADDRESSED, peer, reason)
                yield from self.told(encode_misaddressed(self.own, reason), None)
                return
            reply = self.carry_out(call, header, messages)
        except Malformed as nonsense:
            self.handler.refused(nonsense.fault, peer, nonsense.reason)
            reply = Refusal(nonsense.reason)
        except grpc.RpcError:
            # The caller went away, its deadline passed, or a message was beyond gRPC's own limit: nobody is left to tell.
            self.handler.refused(Fault.BROKEN, peer, "the request broke off")
            return
        except ServerFailed as failure:
            context.abort(grpc.StatusCode.INTERNAL, f"{self.own.name} failed: {failure}")
        yield from self.told(encode_reply(self.own, reply), reply.payload)

    def carry_out(self, call: Call, header: bytes, messages: Iterator[bytes]) -> Reply:
        """Take in what is left of the request, and have it handled."""
        if call.payload is None:
            end_here(messages)
            return self.handler.handle(call.request(None), call.sender, len(header))
        self.check(call.payload)
        request = call.request(collect(messages, call.payload))
        return self.handler.handle(request, call.sender, len(header) + call.payload.nbytes)

    def check(self, payload: Payload) -> None:
        if payload.dtype != self.limit.dtype:
            raise Malformed(Fault.DTYPE, f"a payload of {payload.dtype}; {self.own.name} takes {self.limit.dtype}")
        if payload.nbytes > self.limit.nbytes:
            reason = f"a payload of {payload.nbytes} bytes; {self.own.name} takes {self.limit.nbytes}"
            raise Malformed(Fault.OVERSIZED, reason)

    def told(self, header: bytes, vector: torch.Tensor | None) -> Iterator[bytes]:
        self.handler.answered(len(header) + (0 if vector is None else vector.nbytes))
        return message(header, vector)


class Listener:
    """A gRPC server with one door, at a port of this machine's loopback."""

    def __init__(self, own: Identity, handler: Handler, limit: Payload, *, port: int, calls_at_once: int) -> None:
        """Listens from here on.  Raises AddressInUse."""
        self.threads = ThreadPoolExecutor(calls_at_once, thread_name_prefix="serving")
        self.server = grpc.server(
            self.threads,
            handlers=(Door(own, handler, limit),),
            options=SERVER_OPTIONS,
            maximum_concurrent_rpcs=calls_at_once,
        )
        try:
            bound = self.server.add_insecure_port(f"127.0.0.1:{port}")
        except RuntimeError as error:
            self.threads.shutdown()
            raise AddressInUse(f"{own.name} cannot serve at port {port} of 127.0.0.1: it is in use") from error
        self.address = f"127.0.0.1:{bound}"
        self.server.start()

    def close(self) -> None:
        """End every call and every thread.  The event loop must still run: a call may wait for it."""
        self.server.stop(grace=0).wait()
        self.threads.shutdown()
