"""When messages arrive: exact arithmetic of the network models, in numbers that floats hold exactly."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenarios.distributions import constant
from scenarios.topology import star
from sim.device import Machine
from sim.loop import SimLoop
from sim.network import MODELS, Message, Network

LATENCY_S = 0.5


class Letter(Message):
    """A message that notes when it is there."""

    __slots__ = ("arrived", "destination", "name", "nbytes", "network", "waits")

    def __init__(self, name: Any, network: Network, arrived: list[Any]) -> None:
        self.name, self.network, self.arrived = name, network, arrived

    def __call__(self) -> None:
        if self.network.is_there(self):
            self.arrived.append((self.network.loop.time(), self.name))


class Meddler:
    """A fault, with what becomes of the first messages; the others are left alone."""

    name = "a fault"

    def __init__(self, fates: list[float | None]) -> None:
        self.fates = iter(fates)

    def __call__(self, _: object) -> float | None:
        return next(self.fates, 0.0)


class World:
    """Machines by name; a NIC of 1 B/s and memory of 4 B/s unless a test says otherwise."""

    def __init__(self, model: str, **nics: float) -> None:
        self.loop = SimLoop()
        self.network = MODELS[model](self.loop, star(dict.fromkeys("abcd", 1.0) | nics), constant(LATENCY_S))
        self.machines: dict[str, Machine] = {}
        self.arrived: list[Any] = []
        self.dropped: list[str] = []
        self.network.on_dropped = lambda message, why: self.dropped.append(why)

    def machine(self, name: str) -> Machine:
        return self.machines.setdefault(name, Machine(name, 1.0, 4.0, 1.0))

    def send(self, time_s: float, path: str, nbytes: float, name: Any = None) -> None:
        source, destination = path.split(">")
        letter = Letter(name if name is not None else path, self.network, self.arrived)
        self.loop.call_at(time_s, lambda: self.network.send(letter, self.machine(source), self.machine(destination), nbytes))

    def run(self) -> list[Any]:
        self.loop.run()
        return self.arrived


every = pytest.mark.parametrize("model", MODELS)


@every
def test_one_message_takes_the_latency_and_the_wire_once(model: str) -> None:
    world = World(model)
    world.send(1.0, "a>b", 8)
    assert world.run() == [(1.0 + LATENCY_S + 8, "a>b")]


@every
@pytest.mark.parametrize(("out", "into"), [(4.0, 1.0), (1.0, 4.0)], ids=["fast to slow", "slow to fast"])
def test_the_slower_of_two_nics_sets_the_pace(model: str, out: float, into: float) -> None:
    world = World(model, a=out, b=into)
    world.send(0.0, "a>b", 8)
    assert world.run() == [(LATENCY_S + 8, "a>b")]


@every
def test_a_message_to_the_same_machine_takes_its_memory_and_no_latency(model: str) -> None:
    world = World(model)
    world.send(0.0, "a>a", 8)
    assert world.run() == [(2.0, "a>a")]


def test_where_nothing_is_shared_messages_do_not_know_of_each_other() -> None:
    world = World("latency")
    for path in ("a>c", "b>c", "a>b"):
        world.send(0.0, path, 8)
    assert world.run() == [(LATENCY_S + 8, path) for path in ("a>c", "b>c", "a>b")]


def test_two_senders_to_one_receiver_take_turns_at_its_nic() -> None:
    world = World("fifo")
    world.send(0.0, "a>c", 8)
    world.send(0.0, "b>c", 8)
    assert world.run() == [(LATENCY_S + 8, "a>c"), (LATENCY_S + 16, "b>c")]


def test_one_sender_to_two_receivers_sends_one_after_the_other() -> None:
    world = World("fifo")
    world.send(0.0, "a>b", 8)
    world.send(0.0, "a>c", 4)
    assert world.run() == [(LATENCY_S + 8, "a>b"), (LATENCY_S + 12, "a>c")]


def test_a_stream_between_two_machines_takes_the_latency_once() -> None:
    world = World("fifo")
    for number in range(4):
        world.send(0.0, "a>b", 2, number)
    assert world.run() == [(LATENCY_S + 2 * (number + 1), number) for number in range(4)]


def test_a_receiver_takes_messages_in_the_order_in_which_they_could_have_arrived() -> None:
    """B's is shorter and could be there first, though it was sent later."""
    world = World("fifo")
    world.send(0.0, "a>c", 8)
    world.send(1.0, "b>c", 4)
    assert world.run() == [(1.0 + LATENCY_S + 4, "b>c"), (1.0 + LATENCY_S + 4 + 8, "a>c")]


def test_a_receiver_that_is_half_through_makes_the_next_wait_the_rest() -> None:
    world = World("fifo")
    world.send(0.0, "a>c", 8)
    world.send(3.0, "b>c", 8)
    assert world.run() == [(LATENCY_S + 8, "a>c"), (LATENCY_S + 16, "b>c")]


def test_a_free_nic_remembers_nothing() -> None:
    world = World("fifo")
    world.send(0.0, "a>b", 8)
    world.send(100.0, "a>b", 8, "later")
    assert world.run() == [(LATENCY_S + 8, "a>b"), (100 + LATENCY_S + 8, "later")]


def test_a_fast_receiver_takes_two_slow_senders_at_once() -> None:
    """Each occupies a quarter of it: the second is late by its own time through the fast NIC at most."""
    world = World("fifo", c=4.0)
    world.send(0.0, "a>c", 8)
    world.send(0.0, "b>c", 8)
    assert world.run() == [(LATENCY_S + 8, "a>c"), (LATENCY_S + 8 + 2, "b>c")]


def test_a_fast_sender_is_free_again_before_a_slow_receiver_is() -> None:
    world = World("fifo", a=4.0)
    world.send(0.0, "a>b", 8)
    world.send(0.0, "a>c", 8)
    assert world.run() == [(LATENCY_S + 8, "a>b"), (LATENCY_S + 2 + 8, "a>c")]


def test_sending_and_receiving_do_not_hinder_each_other() -> None:
    world = World("fifo")
    world.send(0.0, "a>b", 8)
    world.send(0.0, "b>a", 8)
    assert [time_s for time_s, _ in world.run()] == [LATENCY_S + 8] * 2


def test_a_machine_s_own_messages_do_not_take_its_nic() -> None:
    world = World("fifo")
    world.send(0.0, "a>a", 400)
    world.send(0.0, "a>b", 8)
    assert world.run()[0] == (LATENCY_S + 8, "a>b")


@every
def test_a_message_to_a_machine_that_is_down_is_dropped_and_told(model: str) -> None:
    world = World(model)
    world.send(0.0, "a>b", 8)
    world.loop.call_at(3.0, lambda: setattr(world.machine("b"), "up", False))
    assert world.run() == []
    assert world.dropped == ["b is down"]
    assert (world.network.messages, world.network.bytes) == (1, 8)


def test_a_machine_that_goes_down_while_a_message_waits_for_its_nic_drops_it_too() -> None:
    world = World("fifo")
    world.send(0.0, "a>c", 8)
    world.send(0.0, "b>c", 8)
    world.loop.call_at(12.0, lambda: setattr(world.machine("c"), "up", False))
    assert world.run() == [(LATENCY_S + 8, "a>c")]
    assert world.dropped == ["c is down"]


def test_a_machine_that_is_up_again_in_time_receives() -> None:
    world = World("fifo")
    world.send(0.0, "a>b", 8)
    world.loop.call_at(3.0, lambda: setattr(world.machine("b"), "up", False))
    world.loop.call_at(5.0, lambda: setattr(world.machine("b"), "up", True))
    assert world.run() == [(LATENCY_S + 8, "a>b")]


def test_a_message_that_is_lost_on_the_way_has_taken_the_sender_s_nic_and_not_the_receiver_s() -> None:
    world = World("fifo")
    world.network.meddlers.append(Meddler([None]))
    world.send(0.0, "a>b", 8, "lost")
    world.send(0.0, "a>c", 8, "after it")
    world.send(2.0, "d>b", 4, "into b")
    assert world.run() == [(2.0 + LATENCY_S + 4, "into b"), (LATENCY_S + 16, "after it")]
    assert world.dropped == ["a fault"]
    assert (world.network.messages, world.network.bytes) == (3, 20)


def test_a_message_that_is_held_up_lets_others_pass() -> None:
    world = World("latency")
    world.network.meddlers.append(Meddler([5.0]))
    world.send(0.0, "a>b", 8, "late")
    world.send(1.0, "a>b", 8, "in time")
    assert world.run() == [(1.0 + LATENCY_S + 8, "in time"), (LATENCY_S + 8 + 5, "late")]


@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from(("a>c", "b>c", "a>d", "b>d", "c>d")), st.integers(1, 16)), max_size=25))
def test_every_message_arrives_when_a_naive_account_of_the_nics_says(sent: list[tuple[int, str, int]]) -> None:
    """First the sending NICs, in the order of sending; then the receiving ones, in the order in which messages could be there."""
    world, sent = World("fifo"), sorted(sent)
    for number, (quarter, path, nbytes) in enumerate(sent):
        world.send(quarter / 4, path, nbytes, number)
    sends_until, receives_until = dict.fromkeys("abc", 0.0), dict.fromkeys("cd", 0.0)
    due = []
    for number, (quarter, path, nbytes) in enumerate(sent):
        starts = max(quarter / 4, sends_until[path[0]])
        sends_until[path[0]] = starts + nbytes
        due.append((starts + LATENCY_S + nbytes, number))
    expected = {}
    for due_s, number in sorted(due):
        _, path, nbytes = sent[number]
        expected[number] = receives_until[path[2]] = max(due_s, receives_until[path[2]] + nbytes)
    assert {name: time_s for time_s, name in world.run()} == expected
