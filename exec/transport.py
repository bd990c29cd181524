"""What both ends of a call share: its method, its limits, and vectors as raw chunks.

Each direction of a call is a stream of raw gRPC messages: the envelope (`exec/codec.py`), then its payload in chunks.
grpcio takes only `bytes`, so one copy out is unavoidable; chunks are cut while the stream runs, never all at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from exec.malformed import Fault, Malformed

METHOD = "/distbelief.Node/Call"

CHUNK = 1 << 20
"""Bytes of every chunk but the last.  From 256 KiB to 4 MiB the rate is the same, at 64 KiB half of it (bench/wire.py)."""
MESSAGE_LIMIT = 4 << 20
"""Bytes of one gRPC message, beyond which gRPC itself ends the call: four times what we send."""
HEADER_LIMIT = 1 << 20
"""Bytes of an envelope: a roster, a piece of a file, the manifest of a snapshot with a line for every replica."""

COMMON_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
)
SERVER_OPTIONS = (
    *COMMON_OPTIONS,
    ("grpc.so_reuseport", 0),  # else two processes could share a port, and calls would reach either
    ("grpc.http2.min_ping_interval_without_data_ms", 10),
    ("grpc.http2.max_ping_strikes", 0),  # else keepalive ends healthy calls with "Too many pings"
)


def client_options(keepalive_s: float) -> tuple[tuple[str, Any], ...]:
    """Without keepalive a pulled cable is noticed at the deadline of a call only; with 1 s, in 1.25 s."""
    return (
        *COMMON_OPTIONS,
        ("grpc.enable_retries", 0),  # repetition is the protocol's, by the push's sequence
        ("grpc.use_local_subchannel_pool", 1),  # a connection of its own for each channel
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 500),
        ("grpc.keepalive_time_ms", max(10, round(keepalive_s * 1000))),
        ("grpc.keepalive_timeout_ms", max(10, round(keepalive_s * 1000))),
        ("grpc.keepalive_permit_without_calls", 1),
    )


@dataclass(slots=True)
class Traffic:
    """Messages and bytes that went one way; a call is one message each way, envelope and payload together."""

    messages: int = 0
    nbytes: int = 0

    def count(self, nbytes: int) -> None:
        self.messages += 1
        self.nbytes += nbytes


def message(header: bytes, vector: Any) -> Iterator[bytes]:
    """An envelope and its payload."""
    yield header
    if vector is not None:
        from exec.tensors import chunks

        yield from chunks(vector)


def next_header(messages: Iterator[bytes]) -> bytes:
    """The envelope that a stream begins with.  Raises Malformed."""
    header = next(messages, None)
    if header is None:
        raise Malformed(Fault.SHORT, "a stream without an envelope")
    if len(header) > HEADER_LIMIT:
        raise Malformed(Fault.OVERSIZED, f"an envelope of {len(header)} bytes; the limit is {HEADER_LIMIT}")
    return header


def whole_chunks(messages: Iterator[bytes], nbytes: int) -> Iterator[bytes]:
    """The rest of a stream that should bring so many bytes, cut as `chunks` cuts them.  Raises Malformed."""
    left = nbytes
    for chunk in messages:
        if len(chunk) != min(left, CHUNK) or not chunk:
            fault = Fault.SURPLUS if len(chunk) > left else Fault.UNEVEN
            raise Malformed(fault, f"a chunk of {len(chunk)} bytes where {min(left, CHUNK)} belong")
        left -= len(chunk)
        yield chunk
    if left:
        raise Malformed(Fault.SHORT, f"{nbytes - left} bytes; {nbytes} were announced")


def end_here(messages: Iterator[bytes]) -> None:
    """A message without a payload ends with its envelope.  Raises Malformed."""
    for surplus in messages:
        raise Malformed(Fault.SURPLUS, f"{len(surplus)} bytes or more; none were announced")
