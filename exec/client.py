"""The asking end of calls: one channel to each peer, and the byte work of a call in a thread of its own."""

from __future__ import annotations

from typing import Any, NamedTuple

import grpc

from core.messages import CallFailed, Reply, Request, TimedOut, Unreachable
from exec.certificates import TARGET, Credentials
from exec.codec import DTYPES, Answer, Fault, Malformed, Payload, decode_reply, dtype_of
from exec.transport import METHOD, client_options, end_here, message, next_header


class Landed(NamedTuple):
    """A whole answer."""

    answer: Answer
    reply: Reply
    nbytes: int


class Peer:
    """The way to one peer, at one address."""

    def __init__(self, name: str, life: int, address: str, *, keepalive_s: float, credentials: Credentials | None) -> None:
        self.name, self.life, self.address = name, life, address
        options = client_options(keepalive_s)
        if credentials is None:
            self.channel = grpc.insecure_channel(address, options=options)
        else:
            shown = grpc.ssl_channel_credentials(credentials.ca, credentials.key, credentials.certificate)
            self.channel = grpc.secure_channel(address, shown, options=(*options, ("grpc.ssl_target_name_override", TARGET)))
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

    def take_in(self, stream: Any, into: Any) -> Landed:
        header = next_header(stream)
        answer = decode_reply(header)
        if answer.payload is None:
            end_here(stream)
            return Landed(answer, answer.reply(None), len(header))
        from exec.tensors import receive

        vector = landing(answer.payload, into)
        receive(stream, vector)
        return Landed(answer, answer.reply(vector), len(header) + answer.payload.nbytes)

    def close(self) -> None:
        """End every call on this way; each raises Unreachable."""
        self.channel.close()


def landing(payload: Payload, into: Any) -> Any:
    """Where a payload goes: the buffer that the request lent, else fresh memory."""
    if into is None:
        import torch

        return torch.empty(payload.nbytes // DTYPES[payload.dtype], dtype=getattr(torch, payload.dtype))
    if (dtype_of(into), into.nbytes) != payload:
        reason = f"{payload.nbytes} bytes of {payload.dtype} for a buffer of {into.nbytes} bytes of {dtype_of(into)}"
        raise Malformed(Fault.DTYPE, reason)
    return into


def failure(peer: str, error: grpc.RpcError) -> CallFailed:
    """What a status of gRPC says about a call: that its time is up, or that nobody sensible is there."""
    code, details = error.code(), error.details()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TimedOut(f"{peer} did not answer in time")
    return Unreachable(f"{peer}: {code.name.lower().replace('_', ' ')}, {details}")
