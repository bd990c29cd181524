"""The stream between the launcher and each process it started: reports one way, instructions the other.

It is also how either learns that the other is gone: a process whose launcher has vanished ends itself, so nobody is left
behind.  Messages are small, so this is gRPC's asyncio side; the byte work of calls has threads (`exec/server.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from exec.codec import Identity
from exec.transport import CLIENT_OPTIONS, HEADER_LIMIT, SERVER_OPTIONS
from exec.wire import control_pb2 as wire
from report.exits import StartError

METHOD = "/distbelief.Launcher/Attend"


class Orphaned(Exception):
    """The launcher is gone."""


@dataclass(slots=True, eq=False)
class Attached:
    """The launcher's end of one process's stream."""

    hello: wire.Hello
    instructions: asyncio.Queue[wire.Instruction] = field(default_factory=asyncio.Queue)


class Launcher(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """The launcher's side: whoever attends with the right job is announced to `on_report`."""

    def __init__(self, job: str, on_report: Callable[[str, int, wire.Report], None]) -> None:
        self.job, self.on_report = job, on_report
        self.attached: dict[str, Attached] = {}
        self.address = ""
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        self._server.add_generic_rpc_handlers((self,))

    def service(self, details: Any) -> Any:
        return grpc.stream_stream_rpc_method_handler(self.attend) if details.method == METHOD else None

    async def start(self, port: int) -> None:
        """Listen on loopback.  Raises StartError when the port is taken."""
        try:
            bound = self._server.add_insecure_port(f"127.0.0.1:{port}")
        except RuntimeError:
            raise StartError(f"cannot listen at port {port} of 127.0.0.1: it is in use; allowed: another exec.port, or 0 for any") from None
        self.address = f"127.0.0.1:{bound}"
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(grace=None)

    def instruct(self, role: str, instruction: wire.Instruction) -> None:
        """Tell the present process of a role, if it attends."""
        if role in self.attached:
            self.attached[role].instructions.put_nowait(instruction)

    async def attend(self, reports: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """One process's stream, for as long as it lives."""
        hello = (await self.next_report(reports)).hello
        if hello.job != self.job or not hello.role:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not of this job")
        attached = self.attached[hello.role] = Attached(hello)
        self.on_report(hello.role, hello.incarnation, wire.Report(hello=hello))
        listening = asyncio.create_task(self.listen(hello, reports))
        try:
            while True:
                yield (await attached.instructions.get()).SerializeToString()
        finally:
            listening.cancel()
            if self.attached.get(hello.role) is attached:
                del self.attached[hello.role]

    async def listen(self, hello: wire.Hello, reports: AsyncIterator[bytes]) -> None:
        while (report := await self.next_report(reports)).WhichOneof("what") is not None:
            self.on_report(hello.role, hello.incarnation, report)

    async def next_report(self, reports: AsyncIterator[bytes]) -> wire.Report:
        """The next report; an empty one at the stream's end, and for nonsense, after which nothing more is heard."""
        try:
            async for data in reports:
                if len(data) <= HEADER_LIMIT:
                    return wire.Report.FromString(data)
                break
        except DecodeError:
            pass  # somebody else's bytes: as if the stream had ended
        return wire.Report()


class Attendant:
    """A process's side."""

    def __init__(self) -> None:
        self.begun: asyncio.Future[wire.Begin] = asyncio.get_running_loop().create_future()
        self.concluded = asyncio.Event()
        """Set when the launcher says that this process should come to its end."""
        self._stream: Any = None
        self._writing = asyncio.Lock()  # grpc takes one write at a time

    async def report(self, **what: Any) -> None:
        """Send a report: `status=` or `ended=`.  Raises Orphaned."""
        try:
            async with self._writing:
                await self._stream.write(wire.Report(**what).SerializeToString())
        except (grpc.RpcError, asyncio.InvalidStateError) as error:
            raise Orphaned("the launcher is gone") from error

    async def obey(self) -> None:
        """Take instructions; raises Orphaned when there will be none any more."""
        try:
            async for data in self._stream:
                instruction = wire.Instruction.FromString(data)
                if instruction.HasField("begin"):
                    if not self.begun.done():
                        self.begun.set_result(instruction.begin)
                elif instruction.HasField("conclude"):
                    self.concluded.set()
        except grpc.RpcError as error:
            raise Orphaned(f"the launcher is gone: {error.details()}") from error
        raise Orphaned("the launcher has ended")


@asynccontextmanager
async def attend(launcher: str, own: Identity, address: str) -> AsyncIterator[Attendant]:
    """Attend to the launcher from here on; `address` is where this process serves, "" for nowhere."""
    attendant = Attendant()
    async with grpc.aio.insecure_channel(launcher, options=CLIENT_OPTIONS) as channel:
        attendant._stream = channel.stream_stream(METHOD)()
        await attendant.report(hello=wire.Hello(job=own.job, role=own.name, incarnation=own.incarnation, address=address))
        yield attendant
        await attendant._stream.done_writing()
