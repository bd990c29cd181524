"""What both ends of a call share: its method, its limits, and vectors as raw chunks.

Each direction of a call is a stream of raw gRPC messages: the envelope (`exec/codec.py`), then its payload in chunks.
grpcio takes only `bytes`, so one copy out is unavoidable; chunks are cut while the stream runs, never all at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from exec.codec import Fault, Malformed, Payload

METHOD = "/distbelief.Node/Call"

CHUNK = 1 << 20
"""Bytes of every chunk but the last.  From 256 KiB to 4 MiB the rate is the same, at 64 KiB half of it (bench/wire.py)."""
MESSAGE_LIMIT = 4 << 20
"""Bytes of one gRPC message, beyond which gRPC itself ends the call: four times what we send."""
HEADER_LIMIT = 1 << 16
"""Bytes of an envelope: its texts are held to a thousand characters each."""

KEEPALIVE_MS = 1000
"""Without it a pulled cable is noticed at the deadline of a call only; with it, in 1.25 s."""

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


class Pieces:
    """A payload in the chunks it came in: a vector that is only read, a slice at a time.

    A rule takes a gradient block by block, and a block of float32 is a chunk (`core.vector.BLOCK`), so the chunks need not
    be copied together first; a slice that crosses chunks is.  Nobody else holds them: it may be kept.
    """

    __slots__ = ("chunks", "dtype", "nbytes")

    def __init__(self, chunks: list[bytes], payload: Payload) -> None:
        self.chunks, self.dtype, self.nbytes = chunks, payload.dtype, payload.nbytes

    def __len__(self) -> int:
        return self.nbytes // self.dtype.itemsize

    def __getitem__(self, part: slice) -> torch.Tensor:
        start, stop, step = part.indices(len(self))
        assert step == 1, "a vector is cut into pieces, not sampled"
        if start >= stop:
            return torch.empty(0, dtype=self.dtype)
        first, last = start * self.dtype.itemsize // CHUNK, (stop * self.dtype.itemsize - 1) // CHUNK
        memory = self.chunks[first] if first == last else b"".join(self.chunks[first : last + 1])
        return torch.frombuffer(memory, dtype=self.dtype, count=stop - start, offset=start * self.dtype.itemsize - first * CHUNK)


with warnings.catch_warnings():
    # torch says once that it cannot keep us from writing into bytes.  We only read.
    warnings.simplefilter("ignore")
    torch.frombuffer(b"read-only", dtype=torch.uint8)


def raw(vector: torch.Tensor) -> memoryview:
    """The vector's own memory, as bytes."""
    assert vector.device.type == "cpu", "a vector of another device must be copied to the CPU first"
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


def collect(messages: Iterator[bytes], payload: Payload) -> Pieces:
    """The rest of a stream as it came.  Raises Malformed."""
    return Pieces(list(whole_chunks(messages, payload.nbytes)), payload)


def receive(messages: Iterator[bytes], into: torch.Tensor) -> None:
    """Fill a vector with the rest of a stream.  Raises Malformed."""
    memory, filled = raw(into), 0
    for chunk in whole_chunks(messages, into.nbytes):
        memory[filled : filled + len(chunk)] = chunk
        filled += len(chunk)


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
