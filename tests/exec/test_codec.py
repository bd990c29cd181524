"""Every message survives the way through its envelope; whatever is not exactly an envelope is turned away with a reason."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.messages import (
    Accepted,
    Ask,
    Fetch,
    Finish,
    Finished,
    Join,
    Parameters,
    Progress,
    Push,
    Refusal,
    Reply,
    Request,
)
from exec.codec import (
    TEXT_LIMIT,
    Fault,
    Identity,
    Malformed,
    Payload,
    decode_reply,
    decode_request,
    encode_misaddressed,
    encode_reply,
    encode_request,
)
from exec.wire import distbelief_pb2 as wire

OWN = Identity("job", "replica/3", 2)

counts = st.integers(0, 2**63)
vectors = st.builds(torch.zeros, st.integers(0, 9), dtype=st.sampled_from([torch.float32, torch.float64]))
reasons = st.text(max_size=30).filter(str.isprintable)
progresses = st.builds(Progress, counts, counts, reasons)
requests = st.one_of(
    st.builds(Join),
    st.builds(Ask),
    st.builds(Fetch),
    st.builds(Finish, reasons),
    st.builds(Push, counts, vectors, counts, counts, counts),
)
replies = st.one_of(
    progresses,
    st.builds(Parameters, vectors, progresses),
    st.builds(Accepted, counts),
    st.builds(Finished, reasons),
    st.builds(Refusal, reasons),
)


def told(message: Any) -> Any:
    """What a message says, to compare: messages themselves are equal only to themselves."""
    names = [name for kind in type(message).__mro__ for name in getattr(kind, "__slots__", ()) if name != "__weakref__"]
    values = {name: getattr(message, name) for name in names}
    return type(message), {key: told(value) if isinstance(value, Progress) else value for key, value in values.items()}


def payload(vector: torch.Tensor | None) -> Payload | None:
    return None if vector is None else Payload(vector.dtype, vector.nbytes)


@given(requests, counts)
def test_a_request_comes_back_as_it_went(request: Request[Any], life: int) -> None:
    call = decode_request(encode_request(OWN, life, request))
    assert (call.job, call.sender.label, call.addressee_life) == ("job", "replica/3#2", life)
    assert call.payload == payload(request.payload)
    assert told(call.request(request.payload)) == told(request)


@given(replies)
def test_a_reply_comes_back_as_it_went(reply: Reply) -> None:
    answer = decode_reply(encode_reply(OWN, reply))
    assert (answer.job, answer.life, answer.misaddressed) == ("job", 2, "")
    assert answer.payload == payload(reply.payload)
    assert told(answer.reply(reply.payload)) == told(reply)


def test_who_reached_another_life_is_told_which() -> None:
    answer = decode_reply(encode_misaddressed(OWN, "meant for life 1, this is life 2"))
    assert (answer.life, answer.misaddressed) == (2, "meant for life 1, this is life 2")


def test_the_buffer_of_a_fetch_never_travels() -> None:
    assert encode_request(OWN, 0, Fetch(torch.ones(9))) == encode_request(OWN, 0, Fetch())


@given(st.binary(max_size=200))
def test_rubbish_is_malformed_or_else_an_envelope_to_the_last_bit(rubbish: bytes) -> None:
    ends: list[tuple[Any, Any]] = [(decode_request, wire.RequestEnvelope), (decode_reply, wire.ReplyEnvelope)]
    for decode, kind in ends:
        try:
            decode(rubbish)
        except Malformed as nonsense:
            assert nonsense.reason  # noqa: PT017
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


PUSH = wire.Push(sequence=1, gradients=1, samples=1)

NONSENSE = {
    "nothing at all": (b"", Fault.UNDECODABLE),
    "no request": (request_envelope(), Fault.UNDECODABLE),
    "no sender": (request_envelope(sender="", ask=wire.Ask()), Fault.UNDECODABLE),
    "a sender that would break the journal": (request_envelope(sender="replica/3\t", ask=wire.Ask()), Fault.UNDECODABLE),
    "a sender that was never born": (request_envelope(incarnation=0, ask=wire.Ask()), Fault.UNDECODABLE),
    "a reason of two lines": (request_envelope(finish=wire.Finish(reason="a\nb")), Fault.UNDECODABLE),
    "a reason without end": (request_envelope(finish=wire.Finish(reason="a" * (TEXT_LIMIT + 1))), Fault.UNDECODABLE),
    "a field nobody knows": (request_envelope(ask=wire.Ask()) + b"\xf8\x01\x01", Fault.UNDECODABLE),
    "a push without a payload": (request_envelope(push=PUSH), Fault.UNDECODABLE),
    "a payload that belongs to nothing": (
        request_envelope(ask=wire.Ask(), payload=wire.Payload(dtype="float32", size_bytes=4)),
        Fault.UNDECODABLE,
    ),
    "numbers of an unknown type": (
        request_envelope(push=PUSH, payload=wire.Payload(dtype="complex64", size_bytes=8)),
        Fault.DTYPE,
    ),
    "half a number": (request_envelope(push=PUSH, payload=wire.Payload(dtype="float32", size_bytes=6)), Fault.DTYPE),
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_is_told_apart(kind: str) -> None:
    header, fault = NONSENSE[kind]
    with pytest.raises(Malformed) as caught:
        decode_request(header)
    assert caught.value.fault is fault


def test_our_own_texts_are_made_fit_to_travel() -> None:
    answer = decode_reply(encode_reply(OWN, Refusal("two\nlines " + "x" * TEXT_LIMIT)))
    reply = answer.reply(None)
    assert isinstance(reply, Refusal)
    assert reply.reason.startswith("two lines xxx")
    assert len(reply.reason) == TEXT_LIMIT


def test_a_type_that_does_not_travel_is_our_own_mistake() -> None:
    with pytest.raises(TypeError, match=r"float16 does not travel"):
        encode_request(OWN, 0, Push(1, torch.zeros(2, dtype=torch.float16), 1, 1, 0))
