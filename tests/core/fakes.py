"""Fakes for the core's tests: a node that only remembers, and a node whose peers are plain objects on a simulated loop."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from core.messages import Refusal, Refused, Request, Sender
from core.node import Server
from core.work import Cost, Gradient, Quality, Work
from sim.loop import Life, SimLoop


class Half(random.Random):
    """Draws 0.5 and nothing else, so that jitter of 0.5 to 1.5 is 1."""

    def random(self) -> float:
        return 0.5


@dataclass
class FakeNode:
    """Remembers what is recorded; the clock stands where the test puts it."""

    name: str = "shard/0"
    incarnation: int = 1
    time_s: float = 0.0
    random: random.Random = field(default_factory=Half)
    records: list[tuple[Any, ...]] = field(default_factory=list)

    def now(self) -> float:
        return self.time_s

    def record(self, event: str, peer: str = "", number: int = 0, value: float = 0.0, note: str = "") -> None:
        self.records.append((event, peer, number, value, note))

    def events(self, event: str) -> list[tuple[Any, ...]]:
        return [record for record in self.records if record[0] == event]

    def call(self, peer: str, request: Request[Any]) -> asyncio.Future[Any]:
        raise AssertionError("a server calls nobody")

    def tell(self, peer: str, request: Request[Any]) -> None:
        raise AssertionError("a server tells nobody anything")

    def compute(self, work: Work[Any]) -> asyncio.Future[Any]:
        raise AssertionError("a server computes nothing")


Answer = Callable[[str, Request[Any]], tuple[float, Any]]
"""What becomes of a call: seconds until it ends, and the reply, or the exception it ends with."""


@dataclass
class LoopNode(FakeNode):
    """A node on a simulated loop; `answer` says what becomes of each call, a computation takes `step_s`."""

    loop: SimLoop = field(default_factory=SimLoop)
    answer: Answer = lambda peer, request: (0.0, AssertionError(f"nobody to ask: {peer} {request}"))
    step_s: float = 1.0
    calls: list[tuple[float, str, Request[Any]]] = field(default_factory=list)
    """When, whom, what."""

    def now(self) -> float:
        return self.loop.time()

    def call(self, peer: str, request: Request[Any]) -> asyncio.Future[Any]:
        self.calls.append((self.now(), peer, request))
        future = self.loop.create_future()
        delay_s, result = self.answer(peer, request)

        def end() -> None:
            if future.done():
                return
            if isinstance(result, Exception):
                future.set_exception(result)
                future.exception()
            else:
                future.set_result(result)

        self.loop.call_later(delay_s, end)
        return future

    def compute(self, work: Work[Any]) -> asyncio.Future[Any]:
        future, result = self.loop.create_future(), work.run()
        self.loop.call_later(self.step_s, future.set_result, result)
        return future

    def run(self, coroutine: Coroutine[Any, Any, Any], until: float | None = None) -> Any:
        """Run it to its end, or to that time: then None."""
        life = Life(self.name, self.incarnation, self.loop)
        life.start(coroutine)
        self.loop.run(until=until)
        return life.exited.result() if life.exited.done() else None


def served_by(servers: dict[str, Server], sender: Sender, latency_s: float) -> Answer:
    """Every call is handled at once, and its reply is back after `latency_s`."""

    def answer(peer: str, request: Request[Any]) -> tuple[float, Any]:
        reply = servers[peer].handle(request, sender).reply
        return latency_s, Refused(reply.reason) if isinstance(reply, Refusal) else reply

    return answer


@dataclass
class Unit:
    """A network whose gradients are marks: step k has -1 at coordinate k of every shard's slice of `width`, 0 elsewhere."""

    width: int
    shards: int
    zeros: Callable[[int], Any]
    loss: float | None = 0.0
    quality: Callable[[Any], Quality] = lambda parameters: Quality(0.0, None)
    computed_on: list[Any] = field(default_factory=list)

    def __len__(self) -> int:
        return self.width * self.shards

    def initial(self) -> Any:
        return self.zeros(len(self))

    def gradient(self, parameters: Any, batch: int) -> Work[Gradient]:
        def run() -> Gradient:
            self.computed_on.append(parameters.clone())
            vector = self.zeros(len(self))
            for shard in range(self.shards):
                vector[shard * self.width + batch] = -1.0
            return Gradient(vector, self.loss, 10)

        return Work(run, Cost())

    def evaluate(self, parameters: Any) -> Work[Quality]:
        return Work(lambda: self.quality(parameters), Cost())


class Steps:
    """Minibatches that are their own number."""

    def minibatch(self, step: int) -> int:
        return step
