"""The asking end of calls: one channel to each peer, and the byte work of a call in a thread of its own."""

from __future__ import annotations

from typing import Any, NamedTuple

import grpc
import torch

from core.messages import CallFailed, Reply, Request, TimedOut, Unreachable
from exec.codec import Answer, Fault, Malformed, Payload, decode_reply
from exec.transport import CLIENT_OPTIONS, METHOD, end_here, message, next_header, receive


class Landed(NamedTuple):
    """A whole answer."""

    answer: Answer
    reply: Reply
    nbytes: int


class Peer:
    """The way to one peer, at one address."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address
        self.channel = grpc.insecure_channel(address, options=CLIENT_OPTIONS)
        self.begin = self.channel.stream_stream(METHOD)

    def ask(self, header: bytes, request: Request[Any], deadline_s: float) -> Landed:
        """One call, to its end; blocks, so for a thread that has nothing else to do.

        Raises Unreachable, TimedOut, or Malformed for an answer that is nonsense.  Nothing writes into a buffer that the
        request lent once this is over.
        """
        try:
            stream = self.begin(message(header, request.payload), timeout=deadline_s)
        except ValueError as error:  # grpc's word for a closed channel
            raise Unreachable(f"the way to {self.name} is closed") from error
        try:
            return self.take_in(stream, getattr(request, "into", None))
        except grpc.RpcError as error:
            raise failure(self.name, error) from error
        finally:
            stream.cancel()  # changes nothing once the call is over

    def take_in(self, stream: Any, into: torch.Tensor | None) -> Landed:
        header = next_header(stream)
        answer = decode_reply(header)
        if answer.payload is None:
            end_here(stream)
            return Landed(answer, answer.reply(None), len(header))
        vector = landing(answer.payload, into)
        receive(stream, vector)
        return Landed(answer, answer.reply(vector), len(header) + answer.payload.nbytes)

    def close(self) -> None:
        """End every call on this way; each raises Unreachable."""
        self.channel.close()


def landing(payload: Payload, into: torch.Tensor | None) -> torch.Tensor:
    """Where a payload goes: the buffer that the request lent, else fresh memory."""
    if into is None:
        return torch.empty(payload.nbytes // payload.dtype.itemsize, dtype=payload.dtype)
    if (into.dtype, into.nbytes) != payload:
        reason = f"{payload.nbytes} bytes of {payload.dtype} for a buffer of {into.nbytes} bytes of {into.dtype}"
        raise Malformed(Fault.DTYPE, reason)
    return into


def failure(peer: str, error: grpc.RpcError) -> CallFailed:
    """What a status of gRPC says about a call: that its time is up, or that nobody sensible is there."""
    code, details = error.code(), error.details()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TimedOut(f"{peer} did not answer in time")
    return Unreachable(f"{peer}: {code.name.lower().replace('_', ' ')}, {details}")
