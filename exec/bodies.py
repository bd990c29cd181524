"""Each message of the core and its body in an envelope: one line of a table for each, and both ways beside each other.

What an envelope says beyond its body is `exec/codec.py`.  A vector is in neither: it is handed over when a message is made.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from core.coordination import Operate
from core.messages import (
    Accepted,
    Ask,
    Behind,
    Copy,
    Entry,
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
    Reply,
    Request,
    Sender,
)
from core.passing import Pass
from core.phases import Phase
from exec import documents
from exec.malformed import Fault, Malformed, check_role, check_text, fit
from exec.relay import PIECE_LIMIT, Relay, Relayed
from exec.wire import distbelief_pb2 as wire

AT_ONCE_LIMIT = 1 << 40
"""Gradients, or samples, of one push: so that no sum of them grows beyond what an envelope holds."""
MANIFEST = {"position": int, "updates": int, "samples": int, "finished": str, "last": dict, "state": dict, "vectors": list}
"""What a snapshot's says, as `core.shard.Shard` wants it."""


PHASES: dict[str, Phase] = {"up": "up", "down": "down"}


class Body(NamedTuple):
    """`write` takes a message; `read` takes a body and the vector that came with it, and raises Malformed."""

    kind: type[Any]
    write: Callable[[Any], Any]
    read: Callable[[Any, Any], Any]


def write_push(push: Push) -> wire.Push:
    return wire.Push(sequence=push.sequence, gradients=push.gradients, samples=push.samples, based_on=push.based_on)


def read_push(body: wire.Push, gradient: Any) -> Push:
    if max(body.gradients, body.samples) > AT_ONCE_LIMIT:
        raise Malformed(Fault.OVERSIZED, f"a push of {body.gradients} gradients, {body.samples} samples")
    return Push(body.sequence, gradient, body.gradients, body.samples, body.based_on)


def write_pass(crossing: Pass) -> wire.Pass:
    return wire.Pass(round=crossing.round, phase=crossing.phase, message=crossing.message)


def read_pass(body: wire.Pass, vector: Any) -> Pass:
    phase = PHASES.get(body.phase)
    if phase is None:
        raise Malformed(Fault.UNDECODABLE, f"{fit(body.phase)!r} is no phase")
    return Pass(body.round, phase, body.message, vector)


def read_finish(body: wire.Finish, _: Any = None) -> Finish:
    check_text(body.reason)
    return Finish(body.reason)


def write_copy(copy: Copy) -> wire.Copy:
    sender, change = copy.entry.sender, copy.entry.change
    head: dict[str, Any] = {"number": copy.entry.number, "sender": sender.name, "life": sender.incarnation}
    if isinstance(change, Push):
        return wire.Copy(push=write_push(change), **head)
    if isinstance(change, Finish):
        return wire.Copy(finish=wire.Finish(reason=fit(change.reason)), **head)
    return wire.Copy(document=write_document(change), **head)


def read_copy(body: wire.Copy, gradient: Any) -> Copy:
    check_role(body.sender, body.life)
    if body.number < 1:
        raise Malformed(Fault.UNDECODABLE, f"entry {body.number}: entries count from 1")
    sender = Sender(body.sender, body.life)
    if body.HasField("push"):
        return Copy(Entry(body.number, sender, read_push(body.push, gradient)))
    if body.HasField("finish"):
        return Copy(Entry(body.number, sender, read_finish(body.finish)))
    if body.HasField("document"):
        return Copy(Entry(body.number, sender, reader_of(Operate)(body.document, None)))
    raise Malformed(Fault.UNDECODABLE, f"entry {body.number} changes nothing")


def write_install(install: Install) -> wire.Install:
    return wire.Install(manifest=json.dumps(install.manifest), name=install.name)


def read_install(body: wire.Install, vector: Any) -> Install:
    """The manifest must be, to the letter, what we would have written, and say what it is the manifest of."""
    check_text(body.name)
    try:
        manifest = json.loads(body.manifest)
        canonical = json.dumps(manifest) == body.manifest
    except (ValueError, RecursionError) as error:
        raise Malformed(Fault.UNDECODABLE, f"a manifest that is no JSON: {fit(str(error))}") from error
    if not canonical or not isinstance(manifest, dict):
        raise Malformed(Fault.UNDECODABLE, f"a manifest of {len(body.manifest)} characters, not all of which mean something")
    if not all(type(manifest.get(key)) is kind for key, kind in MANIFEST.items()) or body.name not in manifest["vectors"]:
        raise Malformed(Fault.UNDECODABLE, f"a manifest that does not say what {body.name!r} is part of")
    return Install(manifest, body.name, vector)


def write_relay(relay: Relay) -> wire.Relay:
    return wire.Relay(path=relay.path, offset=relay.offset, data=relay.data)


def read_relay(body: wire.Relay, _: Any) -> Relay:
    check_text(body.path)
    if len(body.data) > PIECE_LIMIT:
        raise Malformed(Fault.OVERSIZED, f"a piece of a file of {len(body.data)} bytes; the limit is {PIECE_LIMIT}")
    return Relay(body.path, body.offset, body.data)


def write_progress(progress: Progress) -> wire.Progress:
    return wire.Progress(updates=progress.updates, samples=progress.samples, finished=fit(progress.finished))


def read_progress(body: wire.Progress, _: Any = None) -> Progress:
    check_text(body.finished)
    return Progress(body.updates, body.samples, body.finished)


def write_document(message: Any) -> wire.Document:
    kind, text = documents.encode(message)
    return wire.Document(kind=kind, json=text)


def reader_of(family: type[Any]) -> Callable[[wire.Document, Any], Any]:
    def read(body: wire.Document, _: Any) -> Any:
        try:
            message = documents.decode(body.kind, body.json)
        except documents.NoDocument as error:
            raise Malformed(Fault.UNDECODABLE, fit(str(error))) from error
        if not isinstance(message, family):
            raise Malformed(Fault.UNDECODABLE, f"a {body.kind} is no {family.__name__.lower()}")
        return message

    return read


def empty(body: type[Any], kind: type[Any]) -> Body:
    """Of a message that says nothing but its kind."""
    return Body(kind, lambda _: body(), lambda _, __: kind())


def reason(body: type[Any], kind: type[Any]) -> Body:
    """Of a message that is a reason."""

    def read(body: Any, _: Any) -> Any:
        check_text(body.reason)
        return kind(body.reason)

    return Body(kind, lambda message: body(reason=fit(message.reason)), read)


REQUESTS: dict[str, Body] = {
    "join": empty(wire.Join, Join),
    "fetch": empty(wire.Fetch, Fetch),
    "fetch_point": Body(FetchPoint, lambda fetch: wire.FetchPoint(point=fetch.point), lambda body, _: FetchPoint(point=body.point)),
    "push": Body(Push, write_push, read_push),
    "crossing": Body(Pass, write_pass, read_pass),
    "ask": empty(wire.Ask, Ask),
    "finish": reason(wire.Finish, Finish),
    "copy": Body(Copy, write_copy, read_copy),
    "install": Body(Install, write_install, read_install),
    "relay": Body(Relay, write_relay, read_relay),
    "document": Body(Request, write_document, reader_of(Request)),
}
"""By the field of the envelope."""

REPLIES: dict[str, Body] = {
    "progress": Body(Progress, write_progress, read_progress),
    "parameters": Body(
        Parameters,
        lambda parameters: wire.Parameters(progress=write_progress(parameters.progress)),
        lambda body, vector: Parameters(vector, read_progress(body.progress)),
    ),
    "accepted": Body(Accepted, lambda accepted: wire.Accepted(updates=accepted.updates), lambda body, _: Accepted(body.updates)),
    "finished": reason(wire.Finished, Finished),
    "refusal": reason(wire.Refusal, Refusal),
    "misaddressed": reason(wire.Misaddressed, Refusal),
    "not_mapped": reason(wire.NotMapped, Refusal),
    "behind": empty(wire.Behind, Behind),
    "relayed": Body(Relayed, lambda relayed: wire.Relayed(size_bytes=relayed.size_bytes), lambda body, _: Relayed(body.size_bytes)),
    "document": Body(Reply, write_document, reader_of(Reply)),
}


def write(message: Any, bodies: dict[str, Body]) -> dict[str, Any]:
    """The field of an envelope and its body.  Raises TypeError."""
    for field, body in bodies.items():
        if type(message) is body.kind:
            return {field: body.write(message)}
    if documents.is_document(message):
        return {"document": write_document(message)}
    raise TypeError(f"{type(message).__name__} has no envelope")
