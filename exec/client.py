"""The asking end of calls: one channel to each peer, and the byte work of a call in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import grpc

from core.messages import CallFailed, Reply, Request, TimedOut, Unreachable
from exec.certificates import TARGET, Credentials
from exec.codec import DTYPES, Answer, Identity, Payload, decode_reply, dtype_of, encode_request
from exec.malformed import Fault, Malformed
from exec.shared_memory import Segment, Segments, worth
from exec.transport import METHOD, client_options, end_here, message, next_header


class Landed(NamedTuple):
    """A whole answer."""

    answer: Answer
    reply: Reply
    nbytes: int


class Peer:
    """The way to one peer, at one address."""

    def __init__(
        self, name: str, life: int, address: str, *, keepalive_s: float, credentials: Credentials | None, segments: Segments, near: bool,
        sending: Callable[[int], None],
    ) -> None:  # fmt: skip
        """`near`: is it on this host, as far as its address tells?  Then payloads go through `segments`.

        `sending` is told of each request's bytes as it goes, from any thread.
        """
        self.name, self.life, self.address, self.segments, self.near = name, life, address, segments, near
        self.sending = sending
        options = client_options(keepalive_s)
        if credentials is None:
            self.channel = grpc.insecure_channel(address, options=options)
        else:
            shown = grpc.ssl_channel_credentials(credentials.ca, credentials.key, credentials.certificate)
            self.channel = grpc.secure_channel(address, shown, options=(*options, ("grpc.ssl_target_name_override", TARGET)))
        self.begin = self.channel.stream_stream(METHOD)

    def ask(self, own: Identity, life: int, request: Request[Any], deadline_s: float) -> Landed:
        """One call to that life (0: whichever is there), to its end; blocks, so for a thread that has nothing else to do.

        Raises Unreachable, TimedOut, or Malformed for an answer that is nonsense.  Nothing writes into a buffer that the
        request lent once this is over.
        """
        into = getattr(request, "into", None)
        ticket, room = self.lent(request.payload), self.lent(into)
        try:
            if ticket is not None:
                ticket.lay(request.payload)
            header = encode_request(own, life, request, ticket.name if ticket else "", room.name if room else "")
            self.sending(len(header) + (0 if request.payload is None else request.payload.nbytes))
            landed = self.call(message(header, request.payload if ticket is None else None), into, room, deadline_s)
        except BaseException:
            self.give_up(ticket, room)
            raise
        if landed.answer.not_mapped and ticket is None:
            self.give_up(room)
            raise Malformed(Fault.UNDECODABLE, "a segment could not be used, where none was named")
        if landed.answer.not_mapped:
            self.near = False  # it does not see our memory, as in another container; and it has not looked at the request
            self.give_up(ticket, room)
            return self.ask(own, life, request, deadline_s)
        for segment in (ticket, None if landed.answer.in_room else room):
            if segment is not None:
                self.segments.give_back(segment)
        return landed

    def lent(self, vector: Any) -> Segment | None:
        """A segment for it, where that is worth it and works."""
        return self.segments.take(vector.nbytes) if self.near and worth(vector) else None

    def give_up(self, *segments: Segment | None) -> None:
        """Nobody knows what the other side still does with them."""
        for segment in segments:
            if segment is not None:
                self.segments.forget(segment)

    def call(self, messages: Iterator[bytes], into: Any, room: Segment | None, deadline_s: float) -> Landed:
        try:
            stream = self.begin(messages, timeout=deadline_s)
        except ValueError as error:  # grpc's word for a closed channel
            raise Unreachable(f"the way to {self.name} is closed") from error
        try:
            return self.take_in(stream, into, room)
        except grpc.RpcError as error:
            raise failure(self.name, error) from error
        finally:
            stream.cancel()  # changes nothing once the call is over

    def take_in(self, stream: Any, into: Any, room: Segment | None) -> Landed:
        header = next_header(stream)
        answer = decode_reply(header)
        if answer.payload is None:
            end_here(stream)
            return Landed(answer, answer.reply(None), len(header))
        if answer.in_room:
            end_here(stream)
            if room is None or answer.payload.nbytes != room.nbytes or answer.payload.dtype != dtype_of(into):
                raise Malformed(Fault.DTYPE, f"{answer.payload.nbytes} bytes of {answer.payload.dtype} where no such room was left")
            vector = room.tensor(answer.payload, then=partial(self.segments.give_back, room))
        else:
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

        try:
            return torch.empty(payload.nbytes // DTYPES[payload.dtype], dtype=getattr(torch, payload.dtype))
        except (RuntimeError, TypeError) as error:  # torch's words for too many
            raise Malformed(Fault.OVERSIZED, f"{payload.nbytes} bytes of {payload.dtype}, for which there is no memory") from error
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
