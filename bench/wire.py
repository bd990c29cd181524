"""How fast a push and a fetch of 64 MiB are: ours over gRPC and over shared memory, beside what else moves tensors.

    python -m bench.wire [--rounds 15] [--mib 64] [--threads 1] [--bare-keeps-memory] [--device cuda] [--json]

Ours is the executor's whole path: a `Shard` with Adagrad on a `Host` in a process of its own, a replica's `Host` in another.
A push is staged whole, applied and acknowledged; every fetch follows a push, so the shard copies its parameters for each.
*Bare* is the least that gRPC does between two processes: chunks cut beforehand on one side, dropped on the other; with
`--bare-keeps-memory` under the setting of malloc that our roles run with.  *rpc* is torch.distributed.rpc with the same
Adagrad, block by block, behind a push.  *gloo* sends and receives, and answers with one element; it applies nothing.  Rounds
alternate between them all, figures are medians; what to compare between machines is the ratios, not the rates.
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
from exec.addresses import free_port
from exec.codec import Identity, Payload
from exec.device import keep_memory
from exec.host import Host
from exec.transport import CHUNK, METHOD, SERVER_OPTIONS, client_options

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
    limits = (Payload("float32", count * 4),)
    async with Host(Identity("bench", "shard/0", 1), Journal(), deadline_s=60, limits=limits) as host:
        shard = Shard(host, job, torch.zeros(count), Adagrad(0.01))
        pipe.send(host.serve(shard))
        over = asyncio.ensure_future(asyncio.to_thread(pipe.recv))
        await asyncio.wait([over, host.failure], return_when=asyncio.FIRST_COMPLETED)


def replica_process(pipe: Connection, options: argparse.Namespace, address: str) -> None:
    """Ours over gRPC, the asking side: for each step it is sent, sends the seconds it took."""
    keep_memory()
    torch.set_num_threads(1)
    asyncio.run(ask_shard(pipe, options, address, shared_memory=False))


def near_replica_process(pipe: Connection, options: argparse.Namespace, address: str) -> None:
    """Ours over shared memory."""
    keep_memory()
    torch.set_num_threads(1)
    asyncio.run(ask_shard(pipe, options, address, shared_memory=True))


async def ask_shard(pipe: Connection, options: argparse.Namespace, address: str, *, shared_memory: bool) -> None:
    async with Host(Identity("bench", "replica/0", 1), Journal(), deadline_s=60, shared_memory=shared_memory) as host:
        host.introduce("shard/0", 1, address)
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
        if reply.vector is not self.parameters:
            self.parameters.copy_(reply.vector)  # it lies in shared memory: a replica installs it from there
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
    with grpc.insecure_channel(address, options=client_options(1.0)) as channel:
        begin = channel.stream_stream(METHOD)
        while (step := pipe.recv()) in STEPS:
            began = time.perf_counter()
            for _chunk in begin(iter(messages[step])):
                pass
            pipe.send(time.perf_counter() - began)


RPC: dict[str, Any] = {}
"""What the server of torch.distributed.rpc holds."""


def rpc_push(gradient: torch.Tensor) -> int:
    RPC["rule"].apply(RPC["parameters"], gradient)
    return 1


def rpc_fetch() -> torch.Tensor:
    return RPC["parameters"]  # type: ignore[no-any-return]


def rpc_begin(name: str, rank: int, port: int) -> Any:
    from torch.distributed import rpc

    rpc.init_rpc(name, rank=rank, world_size=2, rpc_backend_options=rpc.TensorPipeRpcBackendOptions(init_method=f"tcp://127.0.0.1:{port}"))
    return rpc


def rpc_server(pipe: Connection, options: argparse.Namespace) -> None:
    keep_memory()
    torch.set_num_threads(options.threads)
    port = free_port("127.0.0.1", 0)
    RPC.update(parameters=torch.zeros(options.count), rule=Adagrad(0.01))
    RPC["rule"].start(RPC["parameters"])
    pipe.send(str(port))
    rpc = rpc_begin("server", 0, port)
    pipe.recv()
    rpc.shutdown(graceful=False)


def rpc_client(pipe: Connection, options: argparse.Namespace, port: str) -> None:
    keep_memory()
    torch.set_num_threads(1)
    rpc = rpc_begin("client", 1, int(port))
    gradient, parameters = torch.full((options.count,), 0.5), torch.zeros(options.count)
    while (step := pipe.recv()) in STEPS:
        began = time.perf_counter()
        if step == "push":
            rpc.rpc_sync("server", rpc_push, (gradient,))
        else:
            parameters.copy_(rpc.rpc_sync("server", rpc_fetch))
        pipe.send(time.perf_counter() - began)
    rpc.shutdown(graceful=False)


def gloo_begin(rank: int, port: int) -> Any:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    return dist


def gloo_server(pipe: Connection, options: argparse.Namespace) -> None:
    port = free_port("127.0.0.1", 0)
    pipe.send(str(port))
    dist = gloo_begin(0, port)
    vector, what, told = torch.zeros(options.count), torch.zeros(1), torch.zeros(1)
    while True:
        dist.recv(what, 1)
        if what.item() == STEPS.index("push"):
            dist.recv(vector, 1)
            dist.send(told, 1)
        elif what.item() == STEPS.index("fetch"):
            dist.send(vector, 1)
        else:
            break
    pipe.recv()
    dist.destroy_process_group()


def gloo_client(pipe: Connection, options: argparse.Namespace, port: str) -> None:
    dist = gloo_begin(1, int(port))
    vector, told = torch.zeros(options.count), torch.zeros(1)
    while (step := pipe.recv()) in STEPS:
        began = time.perf_counter()
        dist.send(torch.tensor([float(STEPS.index(step))]), 0)
        if step == "push":
            dist.send(vector, 0)
            dist.recv(told, 0)
        else:
            dist.recv(vector, 0)
        pipe.send(time.perf_counter() - began)
    dist.send(torch.tensor([-1.0]), 0)
    dist.destroy_process_group()


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
    kinds = {
        "bare gRPC": (bare_server, bare_client), "ours, gRPC": (shard_process, replica_process),
        "ours, shared": (shard_process, near_replica_process), "torch rpc": (rpc_server, rpc_client), "gloo": (gloo_server, gloo_client),
    }  # fmt: skip
    pairs = {name: Pair(server, client, options) for name, (server, client) in kinds.items()}
    times: dict[str, list[float]] = {}
    for _ in range(WARM_UP + options.rounds):
        for step in STEPS:
            for name, pair in pairs.items():
                times.setdefault(f"{name} {step}", []).append(pair.time(step))
    for pair in pairs.values():
        pair.close()
    return {name: statistics.median(taken[WARM_UP:]) for name, taken in times.items()}


def show(seconds: dict[str, float], options: argparse.Namespace) -> None:
    names = list(dict.fromkeys(key.rsplit(" ", 1)[0] for key in seconds))
    both = {name: seconds[f"{name} push"] + seconds[f"{name} fetch"] for name in names}
    ratios = {
        "ours, gRPC / bare gRPC": both["bare gRPC"] / both["ours, gRPC"],
        "ours, shared / torch rpc": both["torch rpc"] / both["ours, shared"],
    }
    if options.json:
        print(json.dumps({**vars(options), "seconds": seconds, "ratios": ratios}))
        return
    print(f"{options.mib} MiB of float32 on {options.device}, {options.threads} threads, medians of {options.rounds} rounds")
    size = options.count * 4
    for name in names:
        push, fetch = seconds[f"{name} push"], seconds[f"{name} fetch"]
        print(
            f"  {name:<13} push {push * 1e3:6.1f} ms {size / push / 1e9:5.2f} GB/s   fetch {fetch * 1e3:6.1f} ms {size / fetch / 1e9:5.2f} GB/s"
            f"   together {2 * size / both[name] / 1e9:5.2f} GB/s"
        )
    for name, ratio in ratios.items():
        print(f"  rate of {name}: {ratio:.2f}")


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
