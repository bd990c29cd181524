"""A replica on one machine, or on several that compute one minibatch together (paper, section 3).

Both drivers (`core/downpour.py`, `core/sandblaster.py`) run on each machine of a replica, on that machine's own parameters, and with its own
shards.  What they share goes through a team: the gradient of a minibatch, and whether and how to go on.  Of a replica of one machine that is
a computation and nothing else.

    minibatch: the upward phase, states to whoever needs them; the downward phase, gradients back     gradient
               the first machine hears from all the others that they are through, and tells them      agree

A gradient is given to the driver, which pushes it, only when every machine is through: the gradient of a minibatch that one
of them did not live to finish reaches no shard, not even in part.  A machine that is lost takes the whole replica's life with it
(`core/membership.py`): the others wait for it for ever, and are ended.

States and gradients are told, and not acknowledged: being through is.  A machine that waits for long asks for what may have got lost.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from core.coordination import Task
from core.inbox import Inbox
from core.job import Job, partition_number, replica_name, role_number
from core.messages import Finished, Refused
from core.node import Node
from core.outbox import Outbox
from core.partitioning import Partitioned
from core.passing import Overdue, Pass, Word
from core.phases import Arrival, Expected, Ledger, Phase, Phases, phases_of
from core.work import Cost, Gradient, Network, Partition, Work

LONGEST_PATIENCE = 8
"""Deadlines without anything new before a machine asks again.  Had it always one, what is slow would be sent so often that it comes never."""


class Team(Protocol):
    """What a driver asks of the machines of its replica."""

    def over(self, *, finished: bool, leaving: bool) -> bool:
        """Shall no further minibatch begin?  What this machine says for itself may be heard one minibatch later."""

    async def gradient(self, parameters: Any, batch: Any) -> Gradient:
        """Of this machine's parameters, once every machine is through with the minibatch; the first machine has the loss, too."""

    async def agree(self, *, well: bool) -> bool:
        """Is all well everywhere?"""

    async def told(self, ask: Callable[[], Awaitable[Task | Finished]]) -> Task | Finished:
        """What the first machine, which alone asks, has been told."""

    def anew(self) -> None:
        """What was over is; something else begins."""


class Alone:
    """The one machine of a replica."""

    def __init__(self, node: Node, network: Network) -> None:
        self.node, self.network = node, network

    def over(self, *, finished: bool, leaving: bool) -> bool:
        return finished or leaving

    async def gradient(self, parameters: Any, batch: Any) -> Gradient:
        return await self.node.compute(self.network.gradient(parameters, batch))

    async def agree(self, *, well: bool) -> bool:
        return well

    async def told(self, ask: Callable[[], Awaitable[Task | Finished]]) -> Task | Finished:
        return await ask()

    def anew(self) -> None:
        pass


class Together:
    """One of several machines of a replica."""

    def __init__(self, node: Node, job: Job, partitioned: Partitioned, partition: Partition) -> None:
        self.node, self.partition, self.deadline_s = node, partition, job.deadline_s
        self.partitioned, self.machine = partitioned, partition_number(node.name)
        self.names = [replica_name(role_number(node.name), machine) for machine in range(partitioned.machines)]
        self.first = self.machine == 0
        self.phases = phases_of(partitioned, self.machine)
        self.outbox = Outbox(node, job.deadline_s, self.turned_away)
        self.inbox = Inbox(node, self.names, self.phases.expected, self.delivered, self.outbox.again)
        self._round = 0
        self._met = False
        """Is every machine known to live this life?  One that has not begun it would not hear what it is told."""
        self._watch: asyncio.TimerHandle | None = None
        self._seen = 0, 0
        self._patience_s = job.deadline_s
        self._finished = self._leaving = self._over = False
        self._ledger: Ledger | None = None
        self._came: list[tuple[Arrival, Any]] = []
        """Messages that the computation has not been handed yet, since it may be under way."""
        self._words: list[Word] = []
        self._news: asyncio.Future[None] | None = None
        self._refused: Refused | None = None

    # one minibatch

    def over(self, *, finished: bool, leaving: bool) -> bool:
        self._finished, self._leaving = finished, leaving
        return self._over

    async def gradient(self, parameters: Any, batch: Any) -> Gradient:
        computation, messages, nbytes = await self.minibatch(self.phases, parameters, batch)
        gradient: Gradient = await self.node.compute(Work(computation.gradient, Cost()))
        self.node.record("passed", "", messages, nbytes)
        word = await self.say(Word(0, True, self._finished, self._leaving, gradient.loss))
        self._over = word.finished or word.leaving
        return gradient._replace(loss=word.value if self.first else None)

    def anew(self) -> None:
        self._finished = self._leaving = self._over = False

    async def infer(self, parameters: Any, batch: Any) -> Any:
        """The upward phase alone: the computation, which has this machine's share of the graph's outputs."""
        computation, _, _ = await self.minibatch(phases_of(self.partitioned, self.machine, down=False), parameters, batch)
        await self.agree(well=True)
        return computation

    async def minibatch(self, phases: Phases, parameters: Any, batch: Any) -> tuple[Any, int, int]:
        """Both phases; the computation, and the messages and bytes that it sent."""
        if not self._met:
            await self.agree(well=True)
        self._ledger = ledger = phases.begin()
        computation = self.partition.begin(parameters, batch)
        self.enter()
        self.watch()
        sent = nbytes = 0
        leaving, vectors = phases.at_once, [computation.payload(arrival) for arrival in phases.at_once]
        while True:
            for arrival, vector in zip(leaving, vectors, strict=True):
                sent, nbytes = sent + 1, nbytes + vector.nbytes
                crossing = Pass(self._round, arrival.phase, arrival.message, vector)
                self.outbox.tell(self.peer(arrival), crossing)
            while ledger.waits:
                await self.news()
            came, self._came = self._came, []
            for arrival, vector in came:
                computation.take(arrival, vector)
            tasks, leaving = ledger.stretch()
            if not tasks:
                self._ledger = None
                return computation, sent, nbytes
            vectors = await self.node.compute(computation.work(tasks, leaving))

    def delivered(self, key: Expected | str, kept: Any) -> None:
        """Something has come for this round."""
        if isinstance(key, str):
            self._words.append(kept)
            self.wake()
        elif self._ledger is not None and self._ledger.arrived(key):
            self._came.append((key.arrival, kept))
            if not self._ledger.waits:
                self.wake()

    def peer(self, arrival: Arrival) -> str:
        """Where a message goes."""
        message = self.partitioned.messages[arrival.message]
        return self.names[message.destination if arrival.phase == "up" else message.source]

    # words

    async def agree(self, *, well: bool) -> bool:
        return (await self.say(Word(0, well))).well

    async def told(self, ask: Callable[[], Awaitable[Task | Finished]]) -> Task | Finished:
        """The first machine asks, and passes on what it hears."""
        if self.first:
            answer = await ask()
            self.enter()
            if isinstance(answer, Finished):
                self.tell_all(Word(self._round, finished=True))
                await self.outbox.sent()
            else:
                self.tell_all(Word(self._round, point=answer.point, portions=answer.portions))
            return answer
        self.enter()
        word = (await self.words(1))[0]
        return Finished("as the first machine was told") if word.finished else Task(word.point, word.portions)

    async def say(self, word: Word) -> Word:
        """Tell the first machine, which tells everybody what came of it."""
        self.enter()
        word.round = self._round
        if not self.first:
            self.outbox.send(self.names[0], word)
            result = (await self.words(1))[0]
            self.ended()
            return result
        words = [word, *await self.words(len(self.names) - 1)]
        self.ended()
        values = [one.value for one in words if one.value is not None]
        result = Word(
            self._round, all(one.well for one in words), all(one.finished for one in words), any(one.leaving for one in words),
            sum(values) if values else None,
        )  # fmt: skip
        self.tell_all(result)
        if result.finished:
            await self.outbox.sent()
        return result

    async def words(self, count: int) -> list[Word]:
        """So many of this round."""
        while len(self._words) < count:
            await self.news()
        found, self._words = self._words, []
        return found

    def tell_all(self, word: Word) -> None:
        for name in self.names[1:]:
            self.outbox.send(name, word)

    def ended(self) -> None:
        """Every machine has come to the end of the round."""
        self._met = True
        self.outbox.forget()

    # messages

    def enter(self) -> None:
        """The next round begins."""
        self._round += 1
        self.inbox.enter(self._round)

    async def news(self) -> None:
        """Wait until something has come.  Raises Refused once another machine says that it lives a later life."""
        if self._refused is not None:
            raise self._refused
        self._news = asyncio.get_running_loop().create_future()
        await self._news
        if self._refused is not None:
            raise self._refused

    def wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def watch(self) -> None:
        """Look after a while whether anything has come meanwhile."""
        if self._watch is None:
            self._seen = self.seen()
            self._watch = asyncio.get_running_loop().call_later(self._patience_s, self.look)

    def seen(self) -> tuple[int, int]:
        """It changes with whatever comes."""
        return self._round, 0 if self._ledger is None else self._ledger.come

    def look(self) -> None:
        """Ask for what is missing if nothing has come for so long, and be more patient then: it may only be slow."""
        self._watch = None
        if self.seen() != self._seen:
            self._patience_s = self.deadline_s
        elif self._ledger is not None and self._ledger.waits:
            self._patience_s = min(2 * self._patience_s, LONGEST_PATIENCE * self.deadline_s)
            missing: defaultdict[int, dict[Phase, list[int]]] = defaultdict(lambda: {"up": [], "down": []})
            for expected in self._ledger.missing():
                missing[expected.machine][expected.arrival.phase].append(expected.arrival.message)
            for machine, numbers in missing.items():
                self.outbox.ask(self.names[machine], Overdue(self._round, tuple(numbers["up"]), tuple(numbers["down"])))
        if self._ledger is not None:
            self.watch()  # else with the next minibatch

    def turned_away(self, error: Refused) -> None:
        self._refused = error
        self.wake()
