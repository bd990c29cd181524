"""Core messages to envelopes and back; vectors travel behind an envelope, never in it (`exec/transport.py`).

The peer is not trusted to be of our job, our version or our mind: whatever is not exactly what we would have written is
`Malformed`, with a kind to count and a reason to read.  An envelope must be byte for byte what encoding its meaning gives,
so rubbish that protobuf would take for unknown fields is rubbish here too; the processes of a job run one version.
"""

from __future__ import annotations

import enum
import json
import re
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from google.protobuf.message import DecodeError

from core.messages import (
    Accepted,
    Ask,
    Behind,
    Copy,
    Entry,
    Fetch,
    Finish,
    Finished,
    Install,
    Join,
    Parameters,
    Progress,
    Push,
    Refusal,
    Reply,
    Request,
    Sender,
)
from exec import documents
from exec.relay import PIECE_LIMIT, Relay, Relayed
from exec.wire import distbelief_pb2 as wire

Envelope = TypeVar("Envelope", wire.RequestEnvelope, wire.ReplyEnvelope)

DTYPES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}
"""Bytes of an element, by the name that torch gives the type.  Nothing here imports torch: supervisor and agents do not."""

ROLE = re.compile(r"[a-z][a-z-]{0,40}(/[0-9]{1,9})?")
TEXT_LIMIT = 1000
"""Characters of a reason; one is a line of the journal at most."""


class Fault(enum.StrEnum):
    """What can be wrong with a message, as far as anybody counts it."""

    UNDECODABLE = "undecodable"
    MISADDRESSED = "misaddressed"
    DTYPE = "dtype"
    OVERSIZED = "oversized"
    SHORT = "short"
    SURPLUS = "surplus"
    UNEVEN = "uneven chunks"
    BROKEN = "broken off"
    DECLINED = "declined by the server"


class Malformed(Exception):
    """A peer's nonsense: what kind, and in words."""

    def __init__(self, fault: Fault, reason: str) -> None:
        super().__init__(reason)
        self.fault, self.reason = fault, reason


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
        match self.envelope.WhichOneof("request"):
            case "join":
                return Join()
            case "fetch":
                return Fetch()
            case "push":
                push = self.envelope.push
                return Push(push.sequence, vector, push.gradients, push.samples, push.based_on)
            case "ask":
                return Ask()
            case "finish":
                return Finish(self.envelope.finish.reason)
            case "copy":
                copy = self.envelope.copy
                change: Push | Finish = Finish(copy.finish.reason)
                if copy.HasField("push"):
                    change = Push(copy.push.sequence, vector, copy.push.gradients, copy.push.samples, copy.push.based_on)
                return Copy(Entry(copy.number, Sender(copy.sender, copy.life), change))
            case "install":
                return Install(manifest_of(self.envelope.install.manifest), self.envelope.install.name, vector)
            case "relay":
                return Relay(self.envelope.relay.path, self.envelope.relay.offset, self.envelope.relay.data)
            case "document":
                return document_of(self.envelope.document, Request)
        raise Malformed(Fault.UNDECODABLE, "an envelope without a request")


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
    """Why the request's segment was no use ("": it was, or there was none)."""
    envelope: wire.ReplyEnvelope

    def reply(self, vector: Any) -> Reply:
        """The reply, given its payload (None where there is none)."""
        match self.envelope.WhichOneof("reply"):
            case "progress":
                return progress_from_wire(self.envelope.progress)
            case "parameters":
                return Parameters(vector, progress_from_wire(self.envelope.parameters.progress))
            case "accepted":
                return Accepted(self.envelope.accepted.updates)
            case "finished":
                return Finished(self.envelope.finished.reason)
            case "refusal":
                return Refusal(self.envelope.refusal.reason)
            case "misaddressed":
                return Refusal(self.envelope.misaddressed.reason)
            case "not_mapped":
                return Refusal(self.envelope.not_mapped.reason)
            case "behind":
                return Behind()
            case "relayed":
                return Relayed(self.envelope.relayed.size_bytes)
            case "document":
                return document_of(self.envelope.document, Reply)
        raise Malformed(Fault.UNDECODABLE, "an envelope without a reply")


def encode_request(own: Identity, addressee_life: int, request: Request[Any], ticket: str = "", room: str = "") -> bytes:
    """The envelope of a request; its payload is `request.payload`."""
    body: dict[str, Any]
    match request:
        case Join():
            body = {"join": wire.Join()}
        case Fetch():
            body = {"fetch": wire.Fetch()}
        case Push(sequence, _, gradients, samples, based_on):
            body = {"push": wire.Push(sequence=sequence, gradients=gradients, samples=samples, based_on=based_on)}
        case Ask():
            body = {"ask": wire.Ask()}
        case Finish(reason):
            body = {"finish": wire.Finish(reason=fit(reason))}
        case Copy(entry):
            body = {"copy": copy_to_wire(entry)}
        case Install(manifest, name):
            body = {"install": wire.Install(manifest=json.dumps(manifest), name=name)}
        case Relay(path, offset, data):
            body = {"relay": wire.Relay(path=path, offset=offset, data=data)}
        case _ if documents.is_document(request):
            kind, text = documents.encode(request)
            body = {"document": wire.Document(kind=kind, json=text)}
        case _:
            raise TypeError(f"{type(request).__name__} has no envelope")
    envelope = wire.RequestEnvelope(
        job=own.job,
        sender=own.name,
        incarnation=own.incarnation,
        addressee_life=addressee_life,
        payload=describe(request.payload),
        ticket=ticket,
        room=room,
        **body,
    )
    return envelope.SerializeToString()


def decode_request(header: bytes) -> Call:
    """Raises Malformed."""
    envelope = parse(wire.RequestEnvelope, header)
    if not ROLE.fullmatch(envelope.sender):
        raise Malformed(Fault.UNDECODABLE, f"the sender {fit(envelope.sender)!r} is no role")
    if envelope.incarnation < 1:
        raise Malformed(Fault.UNDECODABLE, "the sender's lives count from 1")
    check_text(envelope.job, envelope.finish.reason, envelope.copy.finish.reason, envelope.install.name, envelope.relay.path)
    if len(envelope.relay.data) > PIECE_LIMIT:
        raise Malformed(Fault.OVERSIZED, f"a piece of a file of {len(envelope.relay.data)} bytes; the limit is {PIECE_LIMIT}")
    if envelope.HasField("copy"):
        check_copy(envelope.copy)
    expected = envelope.HasField("push") or envelope.HasField("install") or envelope.copy.HasField("push")
    payload = payload_of(envelope, expected=expected)
    if envelope.ticket and payload is None:
        raise Malformed(Fault.UNDECODABLE, "a ticket for nothing")
    check_text(envelope.ticket, envelope.room)
    sender = Sender(envelope.sender, envelope.incarnation)
    call = Call(envelope.job, sender, envelope.addressee_life, payload, envelope.ticket, envelope.room, envelope)
    call.request(None)  # raises now, before anybody waits for a payload
    return call


def encode_reply(own: Identity, reply: Reply, *, in_room: bool = False) -> bytes:
    """The envelope of a reply; its payload is `reply.payload`."""
    body: dict[str, Any]
    match reply:
        case Progress():
            body = {"progress": progress_to_wire(reply)}
        case Parameters(_, progress):
            body = {"parameters": wire.Parameters(progress=progress_to_wire(progress))}
        case Accepted(updates):
            body = {"accepted": wire.Accepted(updates=updates)}
        case Finished(reason):
            body = {"finished": wire.Finished(reason=fit(reason))}
        case Refusal(reason):
            body = {"refusal": wire.Refusal(reason=fit(reason))}
        case Behind():
            body = {"behind": wire.Behind()}
        case Relayed(size_bytes):
            body = {"relayed": wire.Relayed(size_bytes=size_bytes)}
        case _ if documents.is_document(reply):
            kind, text = documents.encode(reply)
            body = {"document": wire.Document(kind=kind, json=text)}
        case _:
            raise TypeError(f"{type(reply).__name__} has no envelope")
    payload = describe(reply.payload)
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
    check_text(
        envelope.job,
        envelope.progress.finished,
        envelope.parameters.progress.finished,
        envelope.finished.reason,
        envelope.refusal.reason,
        envelope.misaddressed.reason,
        envelope.not_mapped.reason,
    )
    payload = payload_of(envelope, expected=envelope.HasField("parameters"))
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


def copy_to_wire(entry: Entry) -> wire.Copy:
    change: dict[str, Any]
    if isinstance(entry.change, Push):
        push = entry.change
        change = {"push": wire.Push(sequence=push.sequence, gradients=push.gradients, samples=push.samples, based_on=push.based_on)}
    else:
        change = {"finish": wire.Finish(reason=fit(entry.change.reason))}
    return wire.Copy(number=entry.number, sender=entry.sender.name, life=entry.sender.incarnation, **change)


def check_copy(copy: wire.Copy) -> None:
    if not ROLE.fullmatch(copy.sender) or copy.life < 1 or copy.number < 1 or copy.WhichOneof("change") is None:
        raise Malformed(Fault.UNDECODABLE, f"a copy of entry {copy.number} of {fit(copy.sender)!r}")


def manifest_of(text: str) -> dict[str, Any]:
    """Of a snapshot."""
    try:
        manifest = json.loads(text)
    except ValueError as error:
        raise Malformed(Fault.UNDECODABLE, f"a manifest that is no JSON: {error}") from error
    counts = ("position", "updates", "samples")
    if not isinstance(manifest, dict) or not all(isinstance(manifest.get(count), int) for count in counts):
        raise Malformed(Fault.UNDECODABLE, "a manifest that is none")
    return manifest


def document_of(document: wire.Document, kind: type[Any]) -> Any:
    try:
        message = documents.decode(document.kind, document.json)
    except documents.NoDocument as error:
        raise Malformed(Fault.UNDECODABLE, fit(str(error))) from error
    if not isinstance(message, kind):
        raise Malformed(Fault.UNDECODABLE, f"a {document.kind} is no {kind.__name__.lower()}")
    return message


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


def progress_to_wire(progress: Progress) -> wire.Progress:
    return wire.Progress(updates=progress.updates, samples=progress.samples, finished=fit(progress.finished))


def progress_from_wire(progress: wire.Progress) -> Progress:
    return Progress(progress.updates, progress.samples, progress.finished)


def check_text(*texts: str) -> None:
    """A peer's texts may end up in the journal, which a tab or a line end would break."""
    for text in texts:
        if len(text) > TEXT_LIMIT or not text.isprintable():
            raise Malformed(Fault.UNDECODABLE, f"a text of {len(text)} characters, too long or not all printable")


def fit(text: str) -> str:
    """Any text as `check_text` takes it."""
    return "".join(character if character.isprintable() else " " for character in text[:TEXT_LIMIT])
