"""What passes between lives: delivered in the destination's context, whatever becomes of the sender; dead doors do nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

from core.journal import Journal
from core.messages import Ask, Progress, Push, Refusal, Refused, Request, Sender, TimedOut, Unreachable
from core.node import NOTHING, Outcome, StoreFailed
from core.vector import Phantom
from core.work import Cost, Work
from scenarios.distributions import constant
from scenarios.load import validate
from scenarios.network import HEADER_BYTES
from scenarios.topology import star
from sim.accounts import State
from sim.calls import REQUEST, Place, Twin
from sim.device import Device, Machine
from sim.host import Host
from sim.loop import LIFE, Life, SimLoop
from sim.network import Fifo
from sim.run import Run
from sim.store import Disk, DiskStore

LATENCY_S = 1.0
DEADLINE_S = 100.0
LIVES = {1: "machine of life 1", 2: "machine of life 2"}


@dataclass
class Echo:
    """Answers with how many it has handled, and remembers in whose life it did."""

    cost: Cost = NOTHING
    handled: list[tuple[float, str, Any]] = field(default_factory=list)
    refuse: str = ""
    durable: list[asyncio.Future[None]] = field(default_factory=list)
    """Of the first requests, what their replies wait for."""

    def handle(self, request: Request[Any], sender: Sender) -> Outcome:
        life = LIFE.get()
        assert life is not None
        self.handled.append((life.loop.time(), sender.label, (life.name, life.incarnation)))
        reply = Refusal(self.refuse) if self.refuse else Progress(len(self.handled), 0)
        return Outcome(reply, self.cost, self.durable.pop(0) if self.durable else None)


class World:
    """Roles on machines of their own: 1 FLOP/s, 1 B/s of memory, infinitely fast NICs, 1 s of latency."""

    def __init__(self) -> None:
        self.loop = SimLoop()
        self.network = Fifo(self.loop, star(dict.fromkeys(("a", "b", "server", *LIVES.values()), float("inf"))), constant(LATENCY_S))
        self.places = {name: Place(name, Machine(name, 1.0, 1.0, 1.0)) for name in ("a", "b", "server")}
        self.journal = Journal()
        self.log: list[Any] = []

    def host(self, name: str, incarnation: int = 1) -> Host:
        place, life = self.places[name], Life(name, incarnation, self.loop)
        device = Device(self.loop, place.machine, random.Random(0), 0.0)
        store = DiskStore(life, Disk(), place.machine, 1.0)
        host = Host(life, place, self.network, self.places, self.journal, device, random.Random(0), store, DEADLINE_S, 1.0)
        host.introduce("server", 0, "server")
        return host

    def serve(self, incarnation: int = 1, **how: Any) -> tuple[Host, Echo]:
        host, echo = self.host("server", incarnation), Echo(**how)
        host.serve(echo)
        return host, echo

    def crash(self, host: Host) -> None:
        """As the cluster does it."""
        host.life.crash()
        host.place.host = None

    def at(self, time_s: float, action: Callable[[], Any]) -> None:
        self.loop.call_at(time_s, action)

    async def asks(self, host: Host, request: Request[Any] | None = None) -> None:
        try:
            reply = await host.call("server", request or Ask())
            self.log.append((self.loop.time(), host.name, reply.updates))
        except (Unreachable, TimedOut, Refused) as failure:
            self.log.append((self.loop.time(), host.name, type(failure).__name__))

    def begins(self, host: Host, coroutine: Coroutine[Any, Any, Any]) -> None:
        host.life.start(coroutine)


@pytest.fixture
def world() -> World:
    return World()


def test_a_request_is_handled_in_the_life_of_whom_it_was_sent_to(world: World) -> None:
    _, echo = world.serve()
    client = world.host("a")
    world.begins(client, world.asks(client))
    world.loop.run()
    assert echo.handled == [(1.0, "a#1", ("server", 1))]
    assert world.log == [(2.0, "a", 1)]


@pytest.mark.parametrize("fate", ["crash", "pause"])
def test_a_request_arrives_whatever_becomes_of_its_sender(world: World, fate: str) -> None:
    _, echo = world.serve()
    client = world.host("a")
    world.begins(client, world.asks(client))
    world.at(0.5, getattr(client.life, fate))
    world.loop.run()
    assert echo.handled == [(1.0, "a#1", ("server", 1))]
    assert world.log == []


def test_a_reply_to_a_paused_caller_is_there_when_it_is_resumed(world: World) -> None:
    world.serve()
    client = world.host("a")
    world.begins(client, world.asks(client))
    world.at(0.5, client.life.pause)
    world.at(7.0, client.life.resume)
    world.loop.run()
    assert world.log == [(7.0, "a", 1)]


def test_a_paused_server_handles_what_came_meanwhile_in_order(world: World) -> None:
    server, echo = world.serve()
    clients = [world.host(name) for name in ("a", "b")]
    for client in clients:
        world.begins(client, world.asks(client))
    world.at(0.5, server.life.pause)
    world.at(5.0, server.life.resume)
    world.loop.run()
    assert [entry[:2] for entry in echo.handled] == [(5.0, "a#1"), (5.0, "b#1")]
    assert world.log == [(6.0, "a", 1), (6.0, "b", 2)]


def test_a_server_that_crashes_while_a_request_travels_is_found_gone(world: World) -> None:
    server, echo = world.serve()
    client = world.host("a")
    world.begins(client, world.asks(client))

    world.at(0.5, lambda: world.crash(server))
    world.loop.run()
    assert echo.handled == []
    assert world.log == [(2.0, "a", "Unreachable")]


def test_a_server_that_crashes_at_work_never_answers_and_its_caller_hears_of_it(world: World) -> None:
    server, echo = world.serve(cost=Cost(10.0))
    client = world.host("a")
    world.begins(client, world.asks(client))

    def crash() -> None:
        world.crash(server)
        assert client.reset_calls_to(server.place) == 1

    world.at(5.0, crash)
    world.loop.run()
    assert len(echo.handled) == 1
    assert world.log == [(6.0, "a", "Unreachable")]


def test_silence_ends_at_the_deadline(world: World) -> None:
    world.places["server"].machine.up = False
    client = world.host("a")
    world.begins(client, world.asks(client))
    world.loop.run()
    assert world.log == [(DEADLINE_S, "a", "TimedOut")]


def test_calls_expire_one_by_one_each_at_its_own_deadline(world: World) -> None:
    world.places["server"].machine.up = False
    client = world.host("a")

    async def body() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(world.asks(client))
                await asyncio.sleep(0.1)

    world.begins(client, body())
    world.loop.run()
    assert [round(entry[0] - DEADLINE_S, 9) for entry in world.log] == [0.0, 0.1, 0.2]


def test_an_answer_after_the_deadline_is_nobody_s_error(world: World) -> None:
    world.serve(cost=Cost(2 * DEADLINE_S))
    client = world.host("a")
    world.begins(client, world.asks(client))
    world.loop.run()
    assert world.log == [(DEADLINE_S, "a", "TimedOut")]


def test_a_refusal_is_an_exception_with_its_reason(world: World) -> None:
    world.serve(refuse="because")
    client = world.host("a")

    async def body() -> None:
        with pytest.raises(Refused, match="because"):
            await client.call("server", Ask())
        world.log.append("refused")

    world.begins(client, body())
    world.loop.run()
    assert world.log == ["refused"]


def test_requests_are_handled_one_at_a_time_and_each_pays_its_cost(world: World) -> None:
    _, echo = world.serve(cost=Cost(3.0))
    clients = [world.host(name) for name in ("a", "b")]
    for client in clients:
        world.begins(client, world.asks(client))
    world.loop.run()
    assert [entry[:2] for entry in echo.handled] == [(1.0, "a#1"), (4.0, "b#1")]
    assert world.log == [(5.0, "a", 1), (8.0, "b", 2)]


def test_a_request_for_an_earlier_life_is_not_handled_by_its_successor(world: World) -> None:
    first, _ = world.serve()
    client = world.host("a")
    later: list[Echo] = []

    async def body() -> None:
        await world.asks(client)  # from now on the client knows whom it talks to
        await world.asks(client)
        await world.asks(client)

    def restart() -> None:
        first.life.crash()
        later.append(world.serve(incarnation=2)[1])

    world.begins(client, body())
    world.at(2.5, restart)
    world.loop.run()
    assert world.log == [(2.0, "a", 1), (4.0, "a", "Unreachable"), (6.0, "a", 1)]
    assert [entry[2] for entry in later[0].handled] == [("server", 2)]


def test_what_travels_weighs_its_header_and_its_payload(world: World) -> None:
    world.serve()
    client = world.host("a")
    client.payload_scale = 10.0
    world.begins(client, world.asks(client, Push(1, Phantom(100), 1, 1, 0)))
    world.loop.run()
    assert (world.network.messages, world.network.bytes) == (2, HEADER_BYTES + 10 * 400 + HEADER_BYTES)


# what a reply waits for


@pytest.mark.parametrize(("cost_s", "durable_s", "leaves_s"), [(3.0, 5.0, 5.0), (7.0, 5.0, 8.0), (0.0, 5.0, 5.0)])
def test_a_reply_leaves_when_its_cost_is_paid_and_what_it_promises_is_durable(
    world: World, cost_s: float, durable_s: float, leaves_s: float
) -> None:
    durable = world.loop.create_future()
    world.serve(cost=Cost(cost_s), durable=[durable])
    client = world.host("a")
    world.begins(client, world.asks(client))
    world.at(durable_s, lambda: durable.set_result(None))
    world.loop.run()
    assert world.log == [(leaves_s + LATENCY_S, "a", 1)]


def test_others_are_served_while_a_reply_waits_until_it_is_durable(world: World) -> None:
    durable = world.loop.create_future()
    _, echo = world.serve(durable=[durable])
    for client in (world.host("a"), world.host("b")):
        world.begins(client, world.asks(client))
    world.at(9.0, lambda: durable.set_result(None))
    world.loop.run()
    assert [entry[0] for entry in echo.handled] == [1.0, 1.0]
    assert world.log == [(2.0, "b", 2), (10.0, "a", 1)]


@pytest.mark.parametrize(
    "end", [lambda future: future.cancel(), lambda future: future.set_exception(StoreFailed("full"))], ids=["cancelled", "failed"]
)
def test_nobody_is_told_what_did_not_become_durable(world: World, end: Callable[[Any], Any]) -> None:
    durable = world.loop.create_future()
    world.serve(durable=[durable])
    client = world.host("a")
    world.begins(client, world.asks(client))
    world.at(5.0, lambda: end(durable))
    world.loop.run()
    assert world.log == [(6.0, "a", "Unreachable")]


@pytest.mark.parametrize("fate", ["crash", "pause"])
def test_who_has_stopped_tells_nobody_what_became_durable_afterwards(world: World, fate: str) -> None:
    durable = world.loop.create_future()
    server, _ = world.serve(durable=[durable])
    client = world.host("a")
    world.begins(client, world.asks(client))
    world.at(3.0, getattr(server.life, fate))
    world.at(5.0, lambda: durable.set_result(None))
    if fate == "pause":
        world.at(8.0, server.life.resume)
    world.loop.run()
    assert world.log == ([(9.0, "a", 1)] if fate == "pause" else [(DEADLINE_S, "a", "TimedOut")])


# who is where


def test_who_is_not_known_or_does_not_serve_cannot_be_reached(world: World) -> None:
    client = world.host("a")
    world.host("server")
    stranger = world.host("b")
    stranger.peers.clear()

    async def body() -> None:
        for host in (stranger, client):
            await world.asks(host)

    world.begins(client, body())
    world.loop.run()
    assert world.log == [(0.0, "b", "Unreachable"), (2.0, "a", "Unreachable")]


def test_two_lives_are_reached_at_addresses_of_their_own(world: World) -> None:
    """The earlier one does not know that it was given up."""
    echoes = []
    for life in (1, 2):
        world.places["server"] = Place("server", Machine(LIVES[life], 1.0, 1.0, 1.0))
        server, echo = world.serve(life)
        echoes.append(echo)
        assert server.serve(echo) == f"server#{life}"
    clients = [world.host("a"), world.host("b")]
    for life, client in enumerate(clients, start=1):
        client.introduce("server", life, f"server#{life}")
        world.begins(client, world.asks(client))
    clients[1].introduce("server", 1, "server#1")  # late news change nothing
    world.loop.run()
    assert [[entry[1] for entry in echo.handled] for echo in echoes] == [["a#1"], ["b#1"]]


def test_calls_to_a_life_that_has_a_successor_end_when_that_is_introduced(world: World) -> None:
    _, first = world.serve(cost=Cost(50.0))
    world.places["server#1"] = world.places["server"]
    world.places["server"] = Place("server", world.places["server"].machine)
    _, second = world.serve(2)
    client = world.host("a")
    client.introduce("server", 1, "server#1")

    async def body() -> None:
        await world.asks(client)
        await world.asks(client)

    world.begins(client, body())
    world.at(5.0, lambda: client.introduce("server", 2, "server#2"))
    world.loop.run()
    assert world.log == [(5.0, "a", "Unreachable"), (7.0, "a", 1)]
    assert (len(first.handled), len(second.handled)) == (1, 1)


def test_a_request_that_arrives_twice_is_answered_once(world: World) -> None:
    _, echo = world.serve()
    client = world.host("a")

    class Twice:
        name = "a fault"

        def __call__(self, call: Any) -> float:
            if type(call) is not Twin and call.stage == REQUEST:
                world.network.send(call.twin(), call.caller.machine, call.to.machine, call.nbytes)
            return 0.0

    world.network.meddlers.append(Twice())
    world.begins(client, world.asks(client))
    world.loop.run()
    assert len(echo.handled) == 2
    assert [entry[:2] for entry in world.log] == [(2.0, "a")]


# what is told


def test_what_is_told_is_handled_and_not_answered(world: World) -> None:
    host, echo = world.serve()
    client = world.host("a")
    client.tell("server", Ask())
    world.loop.run()
    assert echo.handled == [(1.0, "a#1", ("server", 1))]
    assert world.network.messages == 1
    client.account.waited(world.loop.time())
    assert client.account.spent[State.SENDING] == LATENCY_S
    assert host.refusals == {}


def test_what_is_told_takes_its_turn_and_its_time(world: World) -> None:
    _, echo = world.serve(cost=Cost(5.0))
    client = world.host("a")
    for _ in range(2):
        client.tell("server", Ask())
    world.begins(client, world.asks(client))
    world.loop.run()
    assert [time_s for time_s, _, _ in echo.handled] == [1.0, 6.0, 11.0]
    assert world.log == [(17.0, "a", 3)]


@pytest.mark.parametrize("fate", ["nobody serves", "it is unknown", "the teller is dead", "meant for another life"])
def test_of_what_is_told_in_vain_nobody_hears(world: World, fate: str) -> None:
    client = world.host("a")
    if fate == "meant for another life":
        host, echo = world.serve(2)
        client.lives["server"] = 1
    elif fate == "the teller is dead":
        host, echo = world.serve()
        client.life.crash()
    else:
        host, echo = world.host("b"), Echo()
    client.tell("nobody" if fate == "it is unknown" else "server", Ask())
    world.loop.run()
    assert echo.handled == []
    assert world.log == []
    assert host.refusals == ({"misaddressed": 1} if fate == "meant for another life" else {})


def test_what_is_told_arrives_twice_if_a_fault_doubles_it(world: World) -> None:
    _, echo = world.serve()
    client = world.host("a")

    class Twice:
        name = "a fault"

        def __call__(self, told: Any) -> float:
            if not told.doubled:
                world.network.send(told.twin(), told.caller.machine, told.to.machine, told.nbytes)
            return 0.0

    world.network.meddlers.append(Twice())
    client.tell("server", Ask())
    world.loop.run()
    assert len(echo.handled) == 2


# the doors of the dead


def test_a_dead_host_s_call_goes_nowhere_and_never_ends(world: World) -> None:
    _, echo = world.serve()
    client = world.host("a")
    client.life.crash()
    call = client.call("server", Ask())
    world.loop.run()
    assert not call.done()
    assert (world.network.messages, echo.handled) == (0, [])


def test_a_dead_host_s_computation_is_not_even_begun(world: World) -> None:
    client = world.host("a")
    client.life.crash()
    future = client.compute(Work(lambda: world.log.append("computed"), Cost(1.0)))
    world.loop.run()
    assert not future.done()
    assert world.log == []


def test_a_computation_that_was_running_ends_for_nobody(world: World) -> None:
    client = world.host("a")

    async def body() -> None:
        world.log.append(await client.compute(Work(lambda: "begun", Cost(5.0))))

    world.begins(client, body())
    world.at(2.0, client.life.crash)
    world.loop.run()
    assert world.log == []


def test_a_computation_whose_waiter_gave_up_ends_quietly(world: World) -> None:
    client = world.host("a")

    async def body() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.0):
                await client.compute(Work(lambda: None, Cost(5.0)))
        await asyncio.sleep(10.0)
        world.log.append("after")

    world.begins(client, body())
    world.loop.run()
    assert world.log == ["after"]


def test_a_computation_takes_its_cost(world: World) -> None:
    client = world.host("a")

    async def body() -> None:
        for cost in (Cost(5.0, 0.0), Cost(1.0, 7.0), Cost()):
            await client.compute(Work(lambda: None, cost))
            world.log.append(world.loop.time())

    world.begins(client, body())
    world.loop.run()
    assert world.log == [5.0, 12.0, 12.0]


def test_a_reply_to_the_dead_wakes_nobody(world: World) -> None:
    world.serve()
    client = world.host("a")
    world.begins(client, world.asks(client))
    world.at(1.5, client.life.crash)
    world.loop.run()
    assert world.log == []


def test_a_later_life_of_the_caller_does_not_get_the_answers_of_the_earlier(world: World) -> None:
    _, echo = world.serve()
    first = world.host("a")
    world.begins(first, world.asks(first))

    def restart() -> None:
        first.life.crash()
        second = world.host("a", 2)
        world.begins(second, world.asks(second))

    world.at(0.5, restart)
    world.loop.run()
    assert [entry[1] for entry in echo.handled] == ["a#1", "a#2"]
    assert world.log == [(2.5, "a", 2)]


def test_the_dead_record_nothing() -> None:
    """Through the cluster, which knows who is dead: every line a crashed life could write is missing from the journal."""
    tables = {
        "name": "small", "numerics": "timing", "model": {"layers": [64, 10]}, "cluster": {"speed": "1 MFLOP/s"},
        "protocol": {"kind": "downpour", "replicas": 2, "shards": 1, "stop": {"updates": 40}},
        "fault": [{"kind": "crash", "target": "replica/1", "at": "2 s"}],
    }  # fmt: skip
    scenario, mistakes = validate(tables, "small")
    assert scenario is not None, mistakes
    run = Run(scenario)
    seen: list[float] = []
    for event in ("pushed", "acknowledged", "joined", "repeated"):
        run.journal.watch(event, lambda time_s, node, *_: seen.append(time_s) if node == "replica/1" else None)
    dead: list[Host] = []

    def remember() -> None:
        dead.append(run.cluster.hosts["replica/1"])

    def speak() -> None:
        lines = run.journal.digest()
        dead[0].record("pushed", "shard/0", 99)
        assert run.journal.digest() == lines

    run.loop.call_at(1.9, remember)
    run.loop.call_at(2.1, speak)
    run.simulate()
    assert dead
    assert 0 < max(seen) <= 2.0
