"""Core messages to envelopes and back; vectors travel behind an envelope, never in it (`exec/transport.py`).

The peer is not trusted to be of our job, our version or our mind: whatever is not exactly what we would have written is
`Malformed`, with a kind to count and a reason to read.  An envelope must be byte for byte what encoding its meaning gives,
so rubbish that protobuf would take for unknown fields is rubbish here too; the processes of a job run one version.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from google.protobuf.message import DecodeError

from core.messages import Reply, Request, Sender
from exec.bodies import REPLIES, REQUESTS, write
from exec.malformed import Fault, Malformed, check_role, check_text, fit
from exec.wire import distbelief_pb2 as wire

Envelope = TypeVar("Envelope", wire.RequestEnvelope, wire.ReplyEnvelope)

DTYPES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}
"""Bytes of an element, by the name that torch gives the type.  Nothing here imports torch: supervisor and agents do not."""


class Payload(NamedTuple):
    """What the bytes behind an envelope are."""

    dtype: str
    nbytes: int


class Identity(NamedTuple):
    """Who a process is: its job, its role, and which life of that role."""

    job: str
    name: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Call:
    """A request as it came, its payload yet to come."""

    job: str
    sender: Sender
    addressee_life: int
    payload: Payload | None
    ticket: str
    """The segment in which the payload lies, "" where it follows."""
    room: str
    """The segment that the reply's payload may be put into, "" for none."""
    envelope: wire.RequestEnvelope

    def request(self, vector: Any) -> Request[Any]:
        """The request, given its payload (None where there is none)."""
        request: Request[Any] = read(self.envelope, "request", vector)
        return request


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply as it came, its payload yet to come; `misaddressed` says why nobody looked at the request ("": they did)."""

    job: str
    life: int
    payload: Payload | None
    in_room: bool
    """Does it lie where the caller left room for it?"""
    misaddressed: str
    not_mapped: str
    """Why the request's segment was no use ("": it was, or there was none); nobody looked at the request."""
    envelope: wire.ReplyEnvelope

    def reply(self, vector: Any) -> Reply:
        """The reply, given its payload (None where there is none)."""
        reply: Reply = read(self.envelope, "reply", vector)
        return reply


def encode_request(own: Identity, addressee_life: int, request: Request[Any], ticket: str = "", room: str = "") -> bytes:
    """The envelope of a request; its payload is `request.payload`."""
    return wire.RequestEnvelope(
        job=own.job,
        sender=own.name,
        incarnation=own.incarnation,
        addressee_life=addressee_life,
        payload=describe(request.payload),
        ticket=ticket,
        room=room,
        **write(request, REQUESTS),
    ).SerializeToString()


def decode_request(header: bytes) -> Call:
    """Raises Malformed."""
    envelope = parse(wire.RequestEnvelope, header)
    check_role(envelope.sender, envelope.incarnation)
    check_text(envelope.job, envelope.ticket, envelope.room)
    expected = envelope.HasField("push") or envelope.HasField("crossing") or envelope.HasField("install") or envelope.copy.HasField("push")
    payload = payload_of(envelope, expected=expected)
    if envelope.ticket and (payload is None or not payload.nbytes):
        raise Malformed(Fault.UNDECODABLE, "a ticket for nothing")
    sender = Sender(envelope.sender, envelope.incarnation)
    call = Call(envelope.job, sender, envelope.addressee_life, payload, envelope.ticket, envelope.room, envelope)
    call.request(None)  # raises now, before anybody waits for a payload
    return call


def encode_reply(own: Identity, reply: Reply, *, in_room: bool = False) -> bytes:
    """The envelope of a reply; its payload is `reply.payload`."""
    payload, body = describe(reply.payload), write(reply, REPLIES)
    return wire.ReplyEnvelope(job=own.job, life=own.incarnation, payload=payload, in_room=in_room, **body).SerializeToString()


def encode_misaddressed(own: Identity, reason: str) -> bytes:
    """The envelope that tells a caller which job and life it reached instead."""
    misaddressed = wire.Misaddressed(reason=fit(reason))
    return wire.ReplyEnvelope(job=own.job, life=own.incarnation, misaddressed=misaddressed).SerializeToString()


def encode_not_mapped(own: Identity, reason: str) -> bytes:
    """The envelope that tells a caller to send its payload along."""
    not_mapped = wire.NotMapped(reason=fit(reason))
    return wire.ReplyEnvelope(job=own.job, life=own.incarnation, not_mapped=not_mapped).SerializeToString()


def decode_reply(header: bytes) -> Answer:
    """Raises Malformed."""
    envelope = parse(wire.ReplyEnvelope, header)
    if envelope.life < 1:
        raise Malformed(Fault.UNDECODABLE, "the responder's lives count from 1")
    check_text(envelope.job)
    payload = payload_of(envelope, expected=envelope.HasField("parameters"))
    if envelope.in_room and payload is None:
        raise Malformed(Fault.UNDECODABLE, "nothing, where there was room for something")
    told = envelope.misaddressed.reason, envelope.not_mapped.reason
    answer = Answer(envelope.job, envelope.life, payload, envelope.in_room, *told, envelope)
    answer.reply(None)  # raises now, before anybody waits for a payload
    return answer


def parse(envelope_type: type[Envelope], header: bytes) -> Envelope:
    """An envelope that encodes to just these bytes."""
    try:
        envelope = envelope_type.FromString(header)
    except DecodeError as error:
        raise Malformed(Fault.UNDECODABLE, f"{len(header)} bytes that are no envelope") from error
    canonical = envelope_type()
    canonical.CopyFrom(envelope)
    canonical.DiscardUnknownFields()
    if canonical.SerializeToString() != header:
        raise Malformed(Fault.UNDECODABLE, f"an envelope of {len(header)} bytes, not all of which mean something")
    return canonical


def read(envelope: Any, choice: str, vector: Any) -> Any:
    """The message that one of the fields of an envelope says, given its payload."""
    field = envelope.WhichOneof(choice)
    if field is None:
        raise Malformed(Fault.UNDECODABLE, f"an envelope without a {choice}")
    return (REQUESTS if choice == "request" else REPLIES)[field].read(getattr(envelope, field), vector)


def describe(vector: Any) -> wire.Payload | None:
    if vector is None:
        return None
    dtype = dtype_of(vector)
    if dtype not in DTYPES:
        raise TypeError(f"{dtype} does not travel; these do: {', '.join(DTYPES)}")
    return wire.Payload(dtype=dtype, size_bytes=vector.nbytes)


def dtype_of(vector: Any) -> str:
    """The "float32" of torch.float32."""
    return str(vector.dtype).removeprefix("torch.")


def payload_of(envelope: wire.RequestEnvelope | wire.ReplyEnvelope, *, expected: bool) -> Payload | None:
    if envelope.HasField("payload") != expected:
        raise Malformed(Fault.UNDECODABLE, "a payload is missing" if expected else "a payload where none belongs")
    if not expected:
        return None
    dtype, nbytes = envelope.payload.dtype, envelope.payload.size_bytes
    if dtype not in DTYPES:
        raise Malformed(Fault.DTYPE, f"numbers of type {fit(envelope.payload.dtype)!r}; allowed: {', '.join(DTYPES)}")
    if nbytes % DTYPES[dtype]:
        raise Malformed(Fault.DTYPE, f"{nbytes} bytes are no whole number of {envelope.payload.dtype}")
    return Payload(dtype, nbytes)
