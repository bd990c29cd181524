"""When messages arrive: exact arithmetic of the network models, in numbers that floats hold exactly."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.chance import stream
from scenarios.distributions import Distribution, constant
from scenarios.network import Network as NetworkTable
from scenarios.topology import star, wire
from scenarios.wiring import Wiring
from sim.device import Machine
from sim.loop import SimLoop
from sim.network import MODELS, PACKET_BYTES, Message, Network

LATENCY_S = 0.5

BIG = 6000
"""Bytes: several packets."""


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

    def __init__(
        self,
        model: str,
        *,
        ties: random.Random | None = None,
        latency: Distribution | None = None,
        wiring: Wiring | None = None,
        **nics: float,
    ) -> None:
        self.loop = SimLoop(ties)
        wiring = wiring or star(dict.fromkeys("abcd", 1.0) | nics)
        self.network = MODELS[model](self.loop, wiring, latency or constant(LATENCY_S))
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


# fair


def test_two_senders_to_one_receiver_share_its_nic() -> None:
    world = World("fair")
    for path, nbytes in (("a>c", BIG), ("b>c", 2 * BIG)):
        world.send(0.0, path, nbytes)
    assert world.run() == [(LATENCY_S + 2 * BIG, "a>c"), (LATENCY_S + 3 * BIG, "b>c")]


def test_sending_and_receiving_do_not_hinder_each_other_where_they_are_shared() -> None:
    world = World("fair")
    world.send(0.0, "a>b", BIG)
    world.send(0.0, "b>a", BIG)
    assert world.run() == [(LATENCY_S + BIG, "a>b"), (LATENCY_S + BIG, "b>a")]


def test_a_message_of_one_packet_has_its_turn_at_once() -> None:
    world = World("fair")
    world.send(0.0, "a>b", 10 * BIG)
    world.send(1.0, "a>b", PACKET_BYTES, "small")
    assert world.run() == [(1.0 + LATENCY_S + PACKET_BYTES, "small"), (LATENCY_S + 10 * BIG, "a>b")]


def test_everything_that_is_sent_in_one_instant_is_shared_together_whatever_the_order_of_ties() -> None:
    arrived = []
    for ties in (None, random.Random(1), random.Random(2)):
        world = World("fair", ties=ties)
        for path in ("a>c", "b>c", "a>d", "b>d"):
            world.send(1.0, path, BIG)
        arrived.append(sorted(world.run()))
    assert arrived[0] == [(1.0 + LATENCY_S + 2 * BIG, path) for path in ("a>c", "a>d", "b>c", "b>d")]
    assert arrived.count(arrived[0]) == 3


def test_a_change_of_capacity_is_felt_by_what_is_under_way() -> None:
    """1 B/s until half of it is through, then 4."""
    world = World("fair", a=4.0)
    world.send(0.0, "a>b", 2 * BIG)
    world.loop.call_at(BIG, lambda: world.network.set_capacity("b in", 4.0))
    assert world.run() == [(LATENCY_S + BIG + BIG / 4, "a>b")]


def test_what_is_under_way_waits_while_a_link_is_cut() -> None:
    world = World("fair")
    world.send(0.0, "a>b", 2 * BIG)
    world.send(BIG + 1.0, "a>b", 8, "sent meanwhile")
    world.loop.call_at(BIG, lambda: world.network.set_capacity("a out", 0.0))
    world.loop.call_at(BIG + 100.0, lambda: world.network.set_capacity("a out", 1.0))
    assert world.run() == [(BIG + 100.0 + LATENCY_S + 16, "sent meanwhile"), (BIG + 108.0 + LATENCY_S + BIG, "a>b")]


@pytest.mark.parametrize("model", ["latency", "fifo"])
def test_where_nothing_is_shared_what_meets_a_cut_link_is_lost_and_told(model: str) -> None:
    world = World(model)
    world.send(0.0, "a>b", 8, "before")
    world.send(2.0, "a>b", 8, "meanwhile")
    world.send(4.0, "a>b", 8, "after")
    world.loop.call_at(1.0, lambda: world.network.set_capacity("b in", 0.0))
    world.loop.call_at(3.0, lambda: world.network.set_capacity("b in", 2.0))
    assert [name for _, name in world.run()] == ["before", "after"]
    assert world.dropped == ["b in carries nothing"]


def test_a_machine_that_goes_down_takes_what_it_sends_and_receives_with_it() -> None:
    """What had to share links with it has its share from then on."""
    world = World("fair")
    for path in ("b>d", "c>b", "c>d", "a>d"):
        world.send(0.0, path, BIG)

    def down() -> None:
        world.machine("b").up = False
        world.network.tear_down(world.machine("b"))

    world.loop.call_at(BIG, down)  # b>d, c>d and a>d have had a third of D's NIC each, c>b two thirds of C's
    assert world.run() == [(LATENCY_S + BIG + 2 * (BIG - BIG / 3), path) for path in ("c>d", "a>d")]
    assert sorted(world.dropped) == ["b went down"] * 2


def test_what_is_sent_to_a_machine_that_is_down_takes_nobody_s_share() -> None:
    world = World("fair")
    world.machine("b").up = False
    world.send(0.0, "a>b", BIG)
    world.send(0.0, "a>c", BIG)
    assert world.run() == [(LATENCY_S + BIG, "a>c")]
    assert world.dropped == ["b is down"]


def test_a_message_that_a_fault_swallows_still_takes_its_share_of_the_sender_s_nic() -> None:
    world = World("fair")
    world.network.meddlers.append(Meddler([None]))
    world.send(0.0, "a>b", BIG, "lost")
    world.send(0.0, "a>c", BIG)
    world.send(0.0, "d>b", BIG)
    assert world.run() == [(LATENCY_S + BIG, "d>b"), (LATENCY_S + 2 * BIG, "a>c")]
    assert world.dropped == ["a fault"]


def test_a_message_that_is_held_up_has_left_its_links_in_time() -> None:
    world = World("fair")
    world.network.meddlers.append(Meddler([5.0]))
    world.send(0.0, "a>b", BIG, "late")
    world.send(BIG, "a>b", BIG, "after it")
    assert world.run() == [(LATENCY_S + BIG + 5.0, "late"), (LATENCY_S + 2 * BIG, "after it")]


@every
def test_links_know_what_they_have_carried(model: str) -> None:
    world = World(model)
    for path, nbytes in (("a>b", 2 * BIG), ("a>c", 8), ("b>b", BIG)):
        world.send(0.0, path, nbytes)
    world.run()
    now = world.loop.time()
    assert {name: link.carried(now) for name, link in world.network.links.items() if link.carried(now)} == {
        "a out": 2 * BIG + 8, "b in": 2 * BIG, "c in": 8,
    }  # fmt: skip


def test_a_link_that_is_shared_has_carried_part_of_what_is_under_way() -> None:
    world = World("fair")
    world.send(0.0, "a>b", 2 * BIG)
    world.loop.run(until=500.0)
    assert world.network.links["a out"].carried(500.0) == 500.0


# latencies and ways


LOGNORMAL = Distribution.model_validate({"lognormal": {"median": "1 s", "sigma": 0.5}})


@every
def test_latencies_are_drawn_from_a_stream_of_the_sender_s_own(model: str) -> None:
    """What others send shifts none of them."""
    alone, beside = (World(model, latency=LOGNORMAL, a=1e9, b=1e9, c=1e9, d=1e9) for _ in range(2))
    for world in (alone, beside):
        for number in range(5):
            world.send(10.0 * number, "a>b", 1, number)
    for number in range(20):
        beside.send(7.0 * number, "c>d", 1, "other")
    arrived = {name: time_s for time_s, name in alone.run()}
    assert {name: time_s for time_s, name in beside.run() if name != "other"} == pytest.approx(arrived)
    draws = stream(0, "a", "latency")
    assert arrived == pytest.approx({number: 10.0 * number + LOGNORMAL.draw(draws) for number in range(5)})
    assert len(set(arrived.values())) == 5


@every
def test_messages_between_racks_take_the_uplinks_latency_and_their_bandwidth(model: str) -> None:
    table = NetworkTable.model_validate(
        {"nic": "2 B/s", "topology": {"kind": "racks", "racks": 2, "uplink": "1 B/s", "uplink_latency": "3 s"}}
    )
    world = World(model, wiring=wire(table, ["a", "b", "c", "d"]))
    world.send(0.0, "a>b", 2 * BIG)
    world.send(10 * BIG, "c>b", 2 * BIG)
    assert world.run() == [(LATENCY_S + BIG, "a>b"), (10 * BIG + LATENCY_S + 6 + 2 * BIG, "c>b")]
    assert [link.name for link in world.network.path(world.machine("c"), world.machine("b"))] == [
        "c out",
        "rack/1 up",
        "rack/0 down",
        "b in",
    ]
    assert world.network.alone_s(world.machine("c"), world.machine("b"), 10.0) == LATENCY_S + 6 + 10.0


def test_an_uplink_is_shared_by_all_who_leave_the_rack() -> None:
    table = NetworkTable.model_validate({"nic": "1 B/s", "topology": {"kind": "racks", "racks": 2, "oversubscription": 2}})
    world = World("fair", wiring=wire(table, ["a", "b", "c", "d"]))
    for path in ("a>c", "b>d", "c>d"):
        world.send(0.0, path, BIG)
    assert sorted(world.run()) == [(LATENCY_S + 2 * BIG, path) for path in ("a>c", "b>d", "c>d")]
