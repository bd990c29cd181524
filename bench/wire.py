"""How fast a push and a fetch of 64 MiB are, beside a bare gRPC stream of the same chunks measured in the same run.

    python -m bench.wire [--rounds 15] [--mib 64] [--threads 2] [--device cuda] [--json]

Ours is the executor's whole path: a `Shard` with Adagrad on a `Host` in a process of its own; a push is staged whole, applied
and acknowledged; every fetch follows a push, so the shard copies its parameters for each, and they land in a buffer of ours.
Bare is the least that gRPC can do: chunks cut beforehand, dropped on arrival.  Rounds alternate between the two, figures
are medians, and what to compare between machines is the ratio of the times, not the rates.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

import grpc
import torch

from core.job import Job, Shared
from core.journal import Journal
from core.messages import Fetch, Push
from core.rules import Adagrad
from core.shard import Shard
from exec.codec import Identity, Payload
from exec.device import keep_memory
from exec.host import Host
from exec.transport import CHUNK, CLIENT_OPTIONS, METHOD, SERVER_OPTIONS

WARM_UP = 3
"""Rounds not counted: the first ones fault buffers in, and grow gRPC's windows."""


def shard_process(pipe: Connection, count: int, threads: int) -> None:
    keep_memory()
    torch.set_num_threads(threads)
    asyncio.run(serve_shard(pipe, count))


async def serve_shard(pipe: Connection, count: int) -> None:
    job = Job(shards=(Shared("shard/0", slice(0, count)),), replicas=1)
    async with Host(Identity("bench", "shard/0", 1), Journal(), deadline_s=60) as host:
        parameters = torch.zeros(count)
        shard = Shard(host, job, parameters, Adagrad(0.01))
        pipe.send(host.serve(shard, Payload(parameters.dtype, parameters.nbytes)))
        over = asyncio.ensure_future(asyncio.to_thread(pipe.recv))
        await asyncio.wait([over, host.failure], return_when=asyncio.FIRST_COMPLETED)


def bare_process(pipe: Connection, count: int) -> None:
    """Takes chunks in and drops them; then gives as many as it was asked for."""
    cut = cut_beforehand(count)

    def answer(messages: Iterator[bytes], _: object) -> Iterator[bytes]:
        wants = next(messages) == b"fetch"
        for _chunk in messages:
            pass
        yield b"here"
        if wants:
            yield from cut

    class Bare(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
        def service(self, _: object) -> Any:
            return grpc.stream_stream_rpc_method_handler(answer)

    server = grpc.server(ThreadPoolExecutor(4), handlers=(Bare(),), options=SERVER_OPTIONS)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    pipe.send(f"127.0.0.1:{port}")
    pipe.recv()
    server.stop(0).wait()


def cut_beforehand(count: int) -> list[bytes]:
    return [bytes(CHUNK) for _ in range(count * 4 // CHUNK)]


class Bare:
    """The asking end of the bare stream."""

    def __init__(self, address: str, count: int) -> None:
        self.begin = grpc.insecure_channel(address, options=CLIENT_OPTIONS).stream_stream(METHOD)
        self.cut = cut_beforehand(count)

    def push(self) -> None:
        for _ in self.begin(iter([b"push", *self.cut])):
            pass

    def fetch(self) -> None:
        for _ in self.begin(iter([b"fetch"])):
            pass


class Ours:
    """A replica's calls, with its vectors on a device; a GPU's pass through pinned memory."""

    def __init__(self, host: Host, count: int, device: str) -> None:
        self.host, self.sequence = host, 0
        pinned = device != "cpu"
        self.own_gradient = torch.full((count,), 0.5, device=device)
        self.own_parameters = torch.zeros(count, device=device)
        self.gradient = torch.zeros(count, pin_memory=True) if pinned else self.own_gradient
        self.parameters = torch.zeros(count, pin_memory=True) if pinned else self.own_parameters

    async def push(self) -> None:
        self.sequence += 1
        if self.gradient is not self.own_gradient:
            self.gradient.copy_(self.own_gradient)
        await self.host.call("shard/0", Push(self.sequence, self.gradient, 1, 32, self.sequence - 1))

    async def fetch(self) -> None:
        reply = await self.host.call("shard/0", Fetch(self.parameters))
        assert reply.progress.updates == self.sequence
        if self.parameters is not self.own_parameters:
            self.own_parameters.copy_(self.parameters)
            torch.cuda.synchronize()


async def timed(what: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await what()
    return time.perf_counter() - began


async def measure(shard_address: str, bare_address: str, count: int, rounds: int, device: str) -> dict[str, float]:
    """Median seconds of each."""
    bare = Bare(bare_address, count)
    async with Host(Identity("bench", "replica/0", 1), Journal(), deadline_s=60) as host:
        host.introduce("shard/0", shard_address)
        ours = Ours(host, count, device)
        steps = {
            "bare push": lambda: asyncio.to_thread(bare.push),
            "push": ours.push,
            "bare fetch": lambda: asyncio.to_thread(bare.fetch),
            "fetch": ours.fetch,
        }
        times: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(WARM_UP + rounds):
            for name, step in steps.items():
                times[name].append(await timed(step))
    return {name: statistics.median(taken[WARM_UP:]) for name, taken in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.wire", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--mib", type=int, default=64, help="size of the vector, float32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch's, in the shard's process")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the replica's vectors are")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("this machine has no CUDA device that torch can use: nothing measured")
        return
    count = options.mib * (1 << 20) // 4
    spawn = multiprocessing.get_context("spawn")  # a fork after gRPC has begun crashes (grpc#32992)
    to_shard, shard_end = spawn.Pipe()
    to_bare, bare_end = spawn.Pipe()
    children = [
        spawn.Process(target=shard_process, args=(shard_end, count, options.threads)),
        spawn.Process(target=bare_process, args=(bare_end, count)),
    ]
    for child in children:
        child.start()
    import os
    if 'KEEP' in os.environ: keep_memory()
    torch.set_num_threads(1)
    seconds = asyncio.run(measure(to_shard.recv(), to_bare.recv(), count, options.rounds, options.device))
    for pipe, child in zip((to_shard, to_bare), children, strict=True):
        pipe.send("over")
        child.join()
    show(seconds, options)


def show(seconds: dict[str, float], options: argparse.Namespace) -> None:
    rates = {name: options.mib * (1 << 20) / taken / 1e9 for name, taken in seconds.items()}
    ratio = (seconds["bare push"] + seconds["bare fetch"]) / (seconds["push"] + seconds["fetch"])
    if options.json:
        figures = {"mib": options.mib, "threads": options.threads, "device": options.device, "rounds": options.rounds}
        print(json.dumps({**figures, "seconds": seconds, "gigabytes_per_second": rates, "ratio": ratio}))
        return
    print(f"{options.mib} MiB of float32, vectors on {options.device}, medians of {options.rounds} rounds")
    for name, rate in rates.items():
        print(f"  {name:<12} {seconds[name] * 1e3:7.1f} ms  {rate:5.2f} GB/s")
    print(f"  push and fetch together: {ratio:.2f} of the bare stream's rate")


if __name__ == "__main__":
    main()
