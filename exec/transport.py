"""What both ends of a call share: its method, its limits, and vectors as raw chunks.

Each direction of a call is a stream of raw gRPC messages: the envelope (`exec/codec.py`), then its payload in chunks.
grpcio takes only `bytes`, so one copy out is unavoidable; chunks are cut while the stream runs, never all at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from exec.codec import Fault, Malformed, Payload

METHOD = "/distbelief.Node/Call"

CHUNK = 1 << 20
"""Bytes.  From 256 KiB to 4 MiB the rate is the same, at 64 KiB half of it (bench/wire.py)."""
MESSAGE_LIMIT = 4 << 20
"""Bytes of one gRPC message, beyond which gRPC itself ends the call: four times what we send."""
HEADER_LIMIT = 1 << 16
"""Bytes of an envelope: its texts are held to a thousand characters each."""

KEEPALIVE_MS = 1000
"""Without it a pulled cable is noticed at the deadline of a call only; with it, in 1.25 s (FACTS, section 4)."""

COMMON_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
)
SERVER_OPTIONS = (
    *COMMON_OPTIONS,
    ("grpc.so_reuseport", 0),  # else two processes could share a port, and calls would reach either
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
    ("grpc.http2.max_ping_strikes", 0),  # else keepalive ends healthy calls with "Too many pings"
)
CLIENT_OPTIONS = (
    *COMMON_OPTIONS,
    ("grpc.enable_retries", 0),  # repetition is the protocol's, by the push's sequence
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own for each channel
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_MS),
)


@dataclass(slots=True)
class Traffic:
    """Messages and bytes that went one way; a call is one message each way, envelope and payload together."""

    messages: int = 0
    nbytes: int = 0

    def count(self, nbytes: int) -> None:
        self.messages += 1
        self.nbytes += nbytes


def raw(vector: torch.Tensor) -> memoryview:
    """The vector's own memory, as bytes."""
    assert vector.device.type == "cpu" and vector.is_contiguous(), "only plain vectors of the CPU travel"
    return vector.view(torch.uint8).numpy().data


def chunks(vector: torch.Tensor) -> Iterator[bytes]:
    """Cut a vector into what grpcio takes."""
    memory = raw(vector)
    for start in range(0, len(memory), CHUNK):
        yield bytes(memory[start : start + CHUNK])


def message(header: bytes, vector: torch.Tensor | None) -> Iterator[bytes]:
    """An envelope and its payload."""
    yield header
    if vector is not None:
        yield from chunks(vector)


def next_header(messages: Iterator[bytes]) -> bytes:
    """The envelope that a stream begins with.  Raises Malformed."""
    header = next(messages, None)
    if header is None:
        raise Malformed(Fault.SHORT, "a stream without an envelope")
    if len(header) > HEADER_LIMIT:
        raise Malformed(Fault.OVERSIZED, f"an envelope of {len(header)} bytes; the limit is {HEADER_LIMIT}")
    return header


def receive(messages: Iterator[bytes], payload: Payload, into: torch.Tensor) -> None:
    """Fill `into`, which is as long as the payload, with the rest of a stream.  Raises Malformed."""
    memory, filled = raw(into), 0
    for chunk in messages:
        end = filled + len(chunk)
        if end > payload.nbytes or not chunk:
            raise Malformed(Fault.SURPLUS, f"{end} bytes or more; {payload.nbytes} were announced")
        memory[filled:end] = chunk
        filled = end
    if filled < payload.nbytes:
        raise Malformed(Fault.SHORT, f"{filled} bytes; {payload.nbytes} were announced")


def end_here(messages: Iterator[bytes]) -> None:
    """A message without a payload ends with its envelope.  Raises Malformed."""
    for surplus in messages:
        raise Malformed(Fault.SURPLUS, f"{len(surplus)} bytes or more; none were announced")
