"""How fast a push and a fetch of 64 MiB are, beside a bare gRPC stream of the same chunks measured in the same run.

    python -m bench.wire [--rounds 15] [--mib 64] [--threads 1] [--bare-keeps-memory] [--device cuda] [--json]

Ours is the executor's whole path: a `Shard` with Adagrad on a `Host` in a process of its own, a replica's `Host` in another.
A push is staged whole, applied and acknowledged; every fetch follows a push, so the shard copies its parameters for each,
and they land in a buffer that is used again.  Bare is the least that gRPC does between two processes: chunks cut beforehand
on one side, dropped on the other; with `--bare-keeps-memory` under the setting of malloc that our roles run with.  Rounds
alternate between ours and bare, figures are medians; what to compare between machines is the ratio, not the rates.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
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
"""Rounds not counted: the first ones fault memory in, and grow gRPC's windows."""

STEPS = ("push", "fetch")


def shard_process(pipe: Connection, options: argparse.Namespace) -> None:
    """Ours, the serving side: sends its address, ends when told to."""
    keep_memory()
    torch.set_num_threads(options.threads)
    asyncio.run(serve_shard(pipe, options.count))


async def serve_shard(pipe: Connection, count: int) -> None:
    job = Job(shards=(Shared("shard/0", slice(0, count)),), replicas=1)
    async with Host(Identity("bench", "shard/0", 1), Journal(), deadline_s=60) as host:
        parameters = torch.zeros(count)
        shard = Shard(host, job, parameters, Adagrad(0.01))
        pipe.send(host.serve(shard, Payload(parameters.dtype, parameters.nbytes)))
        over = asyncio.ensure_future(asyncio.to_thread(pipe.recv))
        await asyncio.wait([over, host.failure], return_when=asyncio.FIRST_COMPLETED)


def replica_process(pipe: Connection, options: argparse.Namespace, address: str) -> None:
    """Ours, the asking side: for each step it is sent, sends the seconds it took."""
    keep_memory()
    torch.set_num_threads(1)
    asyncio.run(ask_shard(pipe, options, address))


async def ask_shard(pipe: Connection, options: argparse.Namespace, address: str) -> None:
    async with Host(Identity("bench", "replica/0", 1), Journal(), deadline_s=60) as host:
        host.introduce("shard/0", address)
        replica = Replica(host, options.count, options.device)
        while (step := await asyncio.to_thread(pipe.recv)) in STEPS:
            began = time.perf_counter()
            await (replica.push() if step == "push" else replica.fetch())
            pipe.send(time.perf_counter() - began)


class Replica:
    """A replica's calls, with its vectors on a device; a GPU's pass through pinned memory."""

    def __init__(self, host: Host, count: int, device: str) -> None:
        self.host, self.updates, self.remote = host, 0, device != "cpu"
        self.gradient = torch.full((count,), 0.5, pin_memory=self.remote)
        self.parameters = torch.zeros(count, pin_memory=self.remote)
        self.device_gradient = self.gradient.to(device)
        self.device_parameters = self.parameters.to(device)

    async def push(self) -> None:
        if self.remote:
            self.gradient.copy_(self.device_gradient)
        await self.host.call("shard/0", Push(self.updates + 1, self.gradient, 1, 32, self.updates))
        self.updates += 1

    async def fetch(self) -> None:
        reply = await self.host.call("shard/0", Fetch(self.parameters))
        assert reply.progress.updates == self.updates
        if self.remote:
            self.device_parameters.copy_(self.parameters)
            torch.cuda.synchronize()


def cut_beforehand(count: int) -> list[bytes]:
    return [bytes(CHUNK) for _ in range(count * 4 // CHUNK)]


def bare_server(pipe: Connection, options: argparse.Namespace) -> None:
    """Drops what comes, then sends as much again if asked for it."""
    if options.bare_keeps_memory:
        keep_memory()
    cut = cut_beforehand(options.count)

    def answer(messages: Iterator[bytes], _: object) -> Iterator[bytes]:
        step = next(messages)
        for _chunk in messages:
            pass
        yield from cut if step == b"fetch" else (b"here",)

    class Bare(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
        def service(self, _: object) -> Any:
            return grpc.stream_stream_rpc_method_handler(answer)

    server = grpc.server(ThreadPoolExecutor(4), handlers=(Bare(),), options=SERVER_OPTIONS)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    pipe.send(f"127.0.0.1:{port}")
    pipe.recv()
    server.stop(0).wait()


def bare_client(pipe: Connection, options: argparse.Namespace, address: str) -> None:
    if options.bare_keeps_memory:
        keep_memory()
    messages = {"push": [b"push", *cut_beforehand(options.count)], "fetch": [b"fetch"]}
    with grpc.insecure_channel(address, options=CLIENT_OPTIONS) as channel:
        begin = channel.stream_stream(METHOD)
        while (step := pipe.recv()) in STEPS:
            began = time.perf_counter()
            for _chunk in begin(iter(messages[step])):
                pass
            pipe.send(time.perf_counter() - began)


class Pair:
    """A server and its client, each a process; started by `spawn`, for a fork after gRPC has begun crashes (grpc#32992)."""

    def __init__(self, server: Callable[..., None], client: Callable[..., None], options: argparse.Namespace) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.pipes, self.children = [], []
        arguments: tuple[Any, ...] = (options,)
        for target in (server, client):
            pipe, end = spawn.Pipe()
            child = spawn.Process(target=target, args=(end, *arguments))
            child.start()
            end.close()  # so that a child's death is an EOFError here
            self.pipes.append(pipe)
            self.children.append(child)
            if target is server:
                arguments = (options, pipe.recv())

    def time(self, step: str) -> float:
        """Seconds that one step took."""
        self.pipes[1].send(step)
        return float(self.pipes[1].recv())

    def close(self) -> None:
        for pipe, child in zip(reversed(self.pipes), reversed(self.children), strict=True):
            pipe.send("over")
            child.join()


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Median seconds of each step of each pair."""
    pairs = {"bare": Pair(bare_server, bare_client, options), "ours": Pair(shard_process, replica_process, options)}
    times: dict[str, list[float]] = {}
    for _ in range(WARM_UP + options.rounds):
        for step in STEPS:
            for name, pair in pairs.items():
                times.setdefault(f"{name} {step}", []).append(pair.time(step))
    for pair in pairs.values():
        pair.close()
    return {name: statistics.median(taken[WARM_UP:]) for name, taken in times.items()}


def show(seconds: dict[str, float], options: argparse.Namespace) -> None:
    rates = {name: options.count * 4 / taken / 1e9 for name, taken in seconds.items()}
    ratio = (seconds["bare push"] + seconds["bare fetch"]) / (seconds["ours push"] + seconds["ours fetch"])
    if options.json:
        print(json.dumps({**vars(options), "seconds": seconds, "gigabytes_per_second": rates, "ratio": ratio}))
        return
    print(f"{options.mib} MiB of float32 on {options.device}, {options.threads} threads, medians of {options.rounds} rounds")
    for name, rate in rates.items():
        print(f"  {name:<12} {seconds[name] * 1e3:7.1f} ms  {rate:5.2f} GB/s")
    print(f"  push and fetch together: {ratio:.2f} of the bare stream's rate")


def main() -> None:
    parser = argparse.ArgumentParser("bench.wire", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--mib", type=int, default=64, help="size of the vector, float32")
    parser.add_argument("--threads", type=int, default=1, help="torch's, in the shard's process")
    parser.add_argument("--bare-keeps-memory", action="store_true", help="set malloc for the bare stream as for ours")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the replica's vectors are")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("this machine has no CUDA device that torch can use: nothing measured")
        return
    options.count = options.mib * (1 << 20) // 4
    show(measure(options), options)


if __name__ == "__main__":
    main()
