"""Every message survives the way through its envelope; whatever is not exactly an envelope is turned away with a reason."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core import reports
from core.coordination import Done, Gather, Memory, Missing, Operate, Recall, Task, Values, Want
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
from core.operations import Combine, Dot, Drop, Largest, Norm1, Update
from core.passing import Overdue, Pass, Word
from core.portions import BundleId
from exec.bodies import AT_ONCE_LIMIT
from exec.codec import (
    DTYPES,
    Identity,
    Payload,
    decode_reply,
    decode_request,
    dtype_of,
    encode_misaddressed,
    encode_not_mapped,
    encode_reply,
    encode_request,
)
from exec.malformed import TEXT_LIMIT, Fault, Malformed
from exec.relay import PIECE_LIMIT, Relay, Relayed
from exec.wire import distbelief_pb2 as wire

OWN = Identity("job", "replica/3", 2)

counts = st.integers(0, 2**63)
few = st.integers(0, AT_ONCE_LIMIT)
numbers = st.floats(allow_nan=False)
vectors = st.builds(torch.zeros, st.integers(0, 9), dtype=st.sampled_from([getattr(torch, name) for name in DTYPES]))
texts = st.text(max_size=30).filter(str.isprintable)
roles = st.sampled_from(["shard/0", "replica/12", "replica/3/1", "evaluator", "mirror/3"])
progresses = st.builds(Progress, counts, counts, texts)
pushes = st.builds(Push, counts, vectors, few, few, counts)
finishes = st.builds(Finish, texts)
senders = st.builds(Sender, roles, st.integers(1, 2**63))
json_values = st.recursive(st.none() | st.booleans() | counts | numbers | st.text(max_size=9), lambda inner: st.lists(inner, max_size=3))
manifests = st.fixed_dictionaries(
    {
        "position": counts, "updates": counts, "samples": counts, "finished": st.text(max_size=9),
        "last": st.dictionaries(roles, st.lists(counts, min_size=2, max_size=2)), "state": st.dictionaries(texts, json_values),
        "vectors": st.lists(texts, max_size=3).map(lambda names: [*names, "parameters"]),
    }
)  # fmt: skip

memos = st.text(max_size=30) | st.integers(1000, 9000).map(lambda length: "\n" * length)
portions = st.lists(counts, max_size=4).map(tuple)
bundles = st.lists(st.builds(BundleId, roles, counts, counts), max_size=3).map(tuple)
terms = st.lists(st.tuples(texts, numbers), min_size=1, max_size=3).map(tuple)
operations = st.one_of(
    st.builds(Dot, texts, texts),
    st.builds(Norm1, texts),
    st.builds(Largest, texts),
    st.builds(Combine, texts, terms),
    st.builds(Drop, st.lists(texts, max_size=3).map(tuple)),
    st.builds(Update, texts),
)
operates = st.builds(
    Operate,
    counts,
    counts,
    st.lists(operations, max_size=3).map(tuple),
    st.none() | st.builds(Gather, texts, bundles, numbers),
    counts,
    counts,
    memos,
)

processes = st.builds(reports.Process, roles, counts)
many_processes = st.lists(processes, max_size=3).map(tuple)
statuses = st.builds(reports.Status, counts, texts, st.booleans(), numbers, st.none() | numbers, st.none() | numbers)
capacities = st.builds(reports.Capacity, counts, counts, counts, texts)
ends = st.builds(reports.End, processes, texts, texts)
role_rows = st.builds(reports.RoleRow, roles, texts, counts, texts, numbers, statuses, texts)
machine_rows = st.builds(reports.MachineRow, texts, texts, texts, capacities, numbers)

requests = st.one_of(
    st.builds(Join),
    st.builds(Ask),
    st.builds(Fetch),
    st.builds(FetchPoint, point=counts),
    finishes,
    pushes,
    st.builds(Copy, st.builds(Entry, st.integers(1, 2**63), senders, pushes | finishes | operates)),
    st.builds(Want, st.none() | st.builds(Done, counts, counts, portions, numbers, counts)),
    operates,
    st.builds(Recall),
    st.builds(Pass, counts, st.sampled_from(("up", "down")), counts, vectors),
    st.builds(Word, counts, st.booleans(), st.booleans(), st.booleans(), st.none() | numbers, counts, portions),
    st.builds(Overdue, counts, portions, portions),
    st.builds(Install, manifests, st.just("parameters"), vectors),
    st.builds(Relay, texts, counts, st.binary(max_size=99)),
    st.builds(reports.Beat, texts, counts, statuses),
    st.builds(
        reports.Report, counts, texts, capacities, many_processes, many_processes, many_processes, st.lists(ends, max_size=2).map(tuple)
    ),
    st.builds(reports.Inquire),
    st.builds(reports.Conclude, texts),
)
replies = st.one_of(
    progresses,
    st.builds(Parameters, vectors, progresses),
    st.builds(Accepted, counts),
    st.builds(Finished, texts),
    st.builds(Refusal, texts),
    st.builds(Task, counts, portions),
    st.builds(Values, st.lists(numbers, max_size=3).map(tuple)),
    st.builds(Missing, bundles),
    st.builds(Memory, memos, st.lists(texts, max_size=3).map(tuple), texts, counts),
    st.builds(Behind),
    st.builds(Relayed, counts),
    st.builds(
        reports.Standing,
        counts,
        st.lists(st.builds(reports.Member, roles, counts, texts), max_size=3).map(tuple),
        st.booleans(),
        st.booleans(),
        texts,
        counts,
    ),
    st.builds(reports.Orders, counts, many_processes, st.booleans()),
    st.builds(
        reports.Overview,
        texts,
        texts,
        texts,
        numbers,
        st.lists(role_rows, max_size=2).map(tuple),
        st.lists(machine_rows, max_size=2).map(tuple),
    ),
)


def told(message: Any) -> Any:
    """What a message says, to compare: messages themselves are equal only to themselves."""
    if isinstance(message, tuple):
        return type(message), [told(part) for part in message]
    if not dataclasses.is_dataclass(message):
        return message
    return type(message), {field.name: told(getattr(message, field.name)) for field in dataclasses.fields(message)}


def payload(vector: torch.Tensor | None) -> Payload | None:
    return None if vector is None else Payload(dtype_of(vector), vector.nbytes)


@given(requests, counts)
def test_a_request_comes_back_as_it_went(request: Request[Any], life: int) -> None:
    call = decode_request(encode_request(OWN, life, request))
    assert (call.job, call.sender.label, call.addressee_life) == ("job", "replica/3#2", life)
    assert (call.ticket, call.room) == ("", "")
    assert call.payload == payload(request.payload)
    assert told(call.request(request.payload)) == told(request)


@given(replies)
def test_a_reply_comes_back_as_it_went(reply: Reply) -> None:
    answer = decode_reply(encode_reply(OWN, reply))
    assert (answer.job, answer.life, answer.misaddressed, answer.not_mapped, answer.in_room) == ("job", 2, "", "", False)
    assert answer.payload == payload(reply.payload)
    assert told(answer.reply(reply.payload)) == told(reply)


def kinds_under(kind: type[Any]) -> set[type[Any]]:
    """Those that nothing derives from."""
    children = [child for child in kind.__subclasses__() if child.__module__.startswith(("core", "exec"))]
    return {below for child in children for below in kinds_under(child)} or {kind}


def test_no_message_is_left_out_above() -> None:
    drawn = {Join, Ask, Fetch, FetchPoint, Finish, Push, Copy, Install, Relay, Want, Operate, Recall, Pass, Word, Overdue}
    drawn |= {reports.Beat, reports.Report, reports.Inquire, reports.Conclude}
    answered = {Progress, Parameters, Accepted, Finished, Refusal, Behind, Relayed, Task, Values, Missing, Memory}
    answered |= {reports.Standing, reports.Orders, reports.Overview}
    assert kinds_under(Request) == drawn
    assert kinds_under(Reply) == answered


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, 0.1 + 0.2, 5e-324])
def test_a_loss_that_is_no_number_travels_as_just_that(loss: float) -> None:
    beat = decode_request(encode_request(OWN, 0, reports.Beat("", 0, reports.Status(loss=loss)))).request(None)
    assert isinstance(beat, reports.Beat)
    assert repr(beat.status.loss) == repr(loss)


def test_where_payloads_lie_in_shared_memory_is_said() -> None:
    call = decode_request(encode_request(OWN, 0, Push(1, torch.zeros(2), 1, 1, 0), "a ticket", "a room"))
    assert (call.ticket, call.room) == ("a ticket", "a room")
    assert decode_reply(encode_reply(OWN, Parameters(torch.zeros(2), Progress(0, 0)), in_room=True)).in_room


def test_who_reached_another_life_is_told_which() -> None:
    answer = decode_reply(encode_misaddressed(OWN, "meant for life 1, this is life 2"))
    assert (answer.life, answer.misaddressed) == (2, "meant for life 1, this is life 2")


def test_who_named_a_segment_that_cannot_be_used_is_told_why() -> None:
    assert decode_reply(encode_not_mapped(OWN, "it is too small")).not_mapped == "it is too small"


def test_the_buffer_of_a_fetch_never_travels() -> None:
    assert encode_request(OWN, 0, Fetch(torch.ones(9), torch.ones(9))) == encode_request(OWN, 0, Fetch())


@given(st.binary(max_size=200))
def test_rubbish_is_malformed_or_else_an_envelope_to_the_last_bit(rubbish: bytes) -> None:
    ends: list[tuple[Any, Any]] = [(decode_request, wire.RequestEnvelope), (decode_reply, wire.ReplyEnvelope)]
    for decode, kind in ends:
        try:
            decode(rubbish)
        except Malformed as nonsense:
            assert nonsense.reason.isprintable()  # noqa: PT017
        else:
            assert kind.FromString(rubbish).SerializeToString() == rubbish


@given(requests, st.data())
def test_a_request_with_a_bit_turned_is_malformed_or_says_something_else(request: Request[Any], data: Any) -> None:
    header = encode_request(OWN, 1, request)
    turned = bytearray(header)
    turned[data.draw(st.integers(0, len(header) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        call = decode_request(bytes(turned))
    except Malformed:
        return
    assert call.envelope.SerializeToString() != header


@given(requests, st.data())
def test_a_request_cut_short_is_malformed_or_says_something_else(request: Request[Any], data: Any) -> None:
    header = encode_request(OWN, 1, request)
    try:
        call = decode_request(header[: data.draw(st.integers(0, len(header) - 1))])
    except Malformed:
        return
    assert call.envelope.SerializeToString() != header


def request_envelope(**fields: Any) -> bytes:
    return wire.RequestEnvelope(**{"job": "job", "sender": "replica/3", "incarnation": 1, **fields}).SerializeToString()


def document(kind: str, text: bytes) -> bytes:
    return request_envelope(document=wire.Document(kind=kind, json=text))


def install(manifest: str) -> bytes:
    return request_envelope(install=wire.Install(manifest=manifest, name="parameters"), payload=FOUR)


PUSH, FOUR = wire.Push(sequence=1, gradients=1, samples=1), wire.Payload(dtype="float32", size_bytes=4)
MANIFEST = {"position": 1, "updates": 1, "samples": 1, "finished": "", "last": {}, "state": {}, "vectors": ["parameters"]}
CONCLUDE = b'{"reason":"enough"}'

NONSENSE = {
    "nothing at all": (b"", Fault.UNDECODABLE),
    "no request": (request_envelope(), Fault.UNDECODABLE),
    "no sender": (request_envelope(sender="", ask=wire.Ask()), Fault.UNDECODABLE),
    "a sender that would break the journal": (request_envelope(sender="replica/3\t", ask=wire.Ask()), Fault.UNDECODABLE),
    "a sender that was never born": (request_envelope(incarnation=0, ask=wire.Ask()), Fault.UNDECODABLE),
    "a job of two lines": (request_envelope(job="a\nb", ask=wire.Ask()), Fault.UNDECODABLE),
    "a reason of two lines": (request_envelope(finish=wire.Finish(reason="a\nb")), Fault.UNDECODABLE),
    "a reason without end": (request_envelope(finish=wire.Finish(reason="a" * (TEXT_LIMIT + 1))), Fault.UNDECODABLE),
    "a text that is no text": (
        request_envelope(finish=wire.Finish(reason="abcd")).replace(b"abcd", b"\xff\xfe\xfd\xfc"),
        Fault.UNDECODABLE,
    ),
    "a field nobody knows": (request_envelope(ask=wire.Ask()) + b"\xf8\x01\x01", Fault.UNDECODABLE),
    "fields in another order": (wire.RequestEnvelope(ask=wire.Ask()).SerializeToString() + request_envelope(), Fault.UNDECODABLE),
    "a field said twice": (request_envelope(ask=wire.Ask()) * 2, Fault.UNDECODABLE),
    "a push without a payload": (request_envelope(push=PUSH), Fault.UNDECODABLE),
    "a push of more samples than anybody has": (request_envelope(push=wire.Push(samples=AT_ONCE_LIMIT + 1), payload=FOUR), Fault.OVERSIZED),
    "a payload that belongs to nothing": (request_envelope(ask=wire.Ask(), payload=FOUR), Fault.UNDECODABLE),
    "numbers of an unknown type": (
        request_envelope(push=PUSH, payload=wire.Payload(dtype="complex64", size_bytes=8)),
        Fault.DTYPE,
    ),
    "half a number": (request_envelope(push=PUSH, payload=wire.Payload(dtype="float32", size_bytes=6)), Fault.DTYPE),
    "a ticket for nothing": (request_envelope(ask=wire.Ask(), ticket="a"), Fault.UNDECODABLE),
    "a ticket for no bytes": (request_envelope(push=PUSH, payload=wire.Payload(dtype="float32"), ticket="a"), Fault.UNDECODABLE),
    "a ticket of two lines": (request_envelope(push=PUSH, payload=FOUR, ticket="a\nb"), Fault.UNDECODABLE),
    "a room of two lines": (request_envelope(fetch=wire.Fetch(), room="a\nb"), Fault.UNDECODABLE),
    "a copy of nothing": (request_envelope(copy=wire.Copy(number=1, sender="replica/0", life=1)), Fault.UNDECODABLE),
    "a copy of entry 0": (request_envelope(copy=wire.Copy(sender="replica/0", life=1, finish=wire.Finish())), Fault.UNDECODABLE),
    "a copy of nobody's": (request_envelope(copy=wire.Copy(number=1, sender="\t", life=1, finish=wire.Finish())), Fault.UNDECODABLE),
    "a copy of a push without its payload": (request_envelope(copy=wire.Copy(number=1, sender="a", life=1, push=PUSH)), Fault.UNDECODABLE),
    "a manifest that is no JSON": (install("{"), Fault.UNDECODABLE),
    "a manifest that is a list": (install("[]"), Fault.UNDECODABLE),
    "a manifest without an end to its depth": (install("[" * 500_000), Fault.UNDECODABLE),
    "a manifest that lacks its vectors": (install(json.dumps({**MANIFEST, "vectors": None})), Fault.UNDECODABLE),
    "a manifest whose position is a truth": (install(json.dumps({**MANIFEST, "position": True})), Fault.UNDECODABLE),
    "a manifest with spaces": (install(json.dumps(MANIFEST) + " "), Fault.UNDECODABLE),
    "a manifest that says a thing twice": (install(json.dumps(MANIFEST)[:-1] + ', "position": 1}'), Fault.UNDECODABLE),
    "a piece too large": (request_envelope(relay=wire.Relay(path="a", data=bytes(PIECE_LIMIT + 1))), Fault.OVERSIZED),
    "a path of two lines": (request_envelope(relay=wire.Relay(path="a\nb")), Fault.UNDECODABLE),
    "a document of no kind": (document("", CONCLUDE), Fault.UNDECODABLE),
    "a document of an unknown kind": (document("wish", CONCLUDE), Fault.UNDECODABLE),
    "a document that is a reply": (document("orders", b'{"version":1,"wanted":[],"conclude":false}'), Fault.UNDECODABLE),
    "a document that is no JSON": (document("conclude", b'{"reason":'), Fault.UNDECODABLE),
    "a document that is no text": (document("conclude", b"\xff"), Fault.UNDECODABLE),
    "a document with spaces": (document("conclude", b'{"reason": "enough"}'), Fault.UNDECODABLE),
    "a document that says more": (document("conclude", b'{"reason":"enough","more":1}'), Fault.UNDECODABLE),
    "a document that lacks something": (document("conclude", b"{}"), Fault.UNDECODABLE),
    "a document whose number is a text": (document("beat", b'{"address":"","known":"1","status":{}}'), Fault.UNDECODABLE),
    "a document of two lines": (document("conclude", b'{"reason":"a\\nb"}'), Fault.UNDECODABLE),
    "a document with a text without end": (document("conclude", b'{"reason":"%s"}' % (b"a" * (TEXT_LIMIT + 1))), Fault.UNDECODABLE),
    "a document without an end to its depth": (document("conclude", b"[" * 500_000), Fault.UNDECODABLE),
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_is_told_apart(kind: str) -> None:
    header, fault = NONSENSE[kind]
    with pytest.raises(Malformed) as caught:
        decode_request(header)
    assert caught.value.fault is fault
    assert caught.value.reason.isprintable()


def test_what_the_nonsense_is_made_of_makes_sense() -> None:
    assert told(decode_request(document("conclude", CONCLUDE)).request(None)) == told(reports.Conclude("enough"))
    assert told(decode_request(install(json.dumps(MANIFEST))).request(None)) == told(Install(MANIFEST, "parameters", None))


def reply_envelope(**fields: Any) -> bytes:
    return wire.ReplyEnvelope(**{"job": "job", "life": 1, **fields}).SerializeToString()


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        (reply_envelope(), Fault.UNDECODABLE),
        (reply_envelope(life=0, behind=wire.Behind()), Fault.UNDECODABLE),
        (reply_envelope(refusal=wire.Refusal(reason="a\tb")), Fault.UNDECODABLE),
        (reply_envelope(not_mapped=wire.NotMapped(reason="a\tb")), Fault.UNDECODABLE),
        (reply_envelope(progress=wire.Progress(finished="a\tb")), Fault.UNDECODABLE),
        (reply_envelope(parameters=wire.Parameters()), Fault.UNDECODABLE),
        (reply_envelope(accepted=wire.Accepted(), payload=FOUR), Fault.UNDECODABLE),
        (reply_envelope(accepted=wire.Accepted(), in_room=True), Fault.UNDECODABLE),
        (reply_envelope(document=wire.Document(kind="conclude", json=CONCLUDE)), Fault.UNDECODABLE),
        (reply_envelope(parameters=wire.Parameters(), payload=wire.Payload(dtype="int8", size_bytes=1)), Fault.DTYPE),
    ],
)
def test_a_nonsensical_reply_is_told_apart(header: bytes, fault: Fault) -> None:
    with pytest.raises(Malformed) as caught:
        decode_reply(header)
    assert caught.value.fault is fault


def test_our_own_texts_are_made_fit_to_travel() -> None:
    answer = decode_reply(encode_reply(OWN, Refusal("two\nlines " + "x" * TEXT_LIMIT)))
    reply = answer.reply(None)
    assert isinstance(reply, Refusal)
    assert reply.reason.startswith("two lines xxx")
    assert len(reply.reason) == TEXT_LIMIT


def test_the_texts_of_our_own_documents_too() -> None:
    end = reports.End(reports.Process("shard/0", 1), "crashed", "two\nlines\t\udcff")
    report = decode_request(encode_request(OWN, 0, reports.Report(1, "a\tb", reports.Capacity(), ended=(end,)))).request(None)
    assert isinstance(report, reports.Report)
    assert (report.host, report.ended[0].how) == ("a b", "two lines  ")


def test_a_memo_is_whole_however_long_it_is() -> None:
    memo = json.dumps({"products": {f"s.{number} y.{number}": 1 / 3 for number in range(TEXT_LIMIT)}})
    operate = decode_request(encode_request(OWN, 0, Operate(1, 0, memo=memo))).request(None)
    memory = decode_reply(encode_reply(OWN, Memory(memo, ("parameters",), "", 1))).reply(None)
    assert (operate.memo, memory.memo) == (memo, memo)  # type: ignore[attr-defined]


def test_a_type_that_does_not_travel_is_our_own_mistake() -> None:
    with pytest.raises(TypeError, match=r"int32 does not travel"):
        encode_request(OWN, 0, Push(1, torch.zeros(2, dtype=torch.int32), 1, 1, 0))


def test_a_request_without_an_envelope_is_our_own_mistake() -> None:
    class Wish(Request[Any]):
        pass

    with pytest.raises(TypeError, match=r"Wish has no envelope"):
        encode_request(OWN, 0, Wish())
