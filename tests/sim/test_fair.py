"""Max-min fair sharing: what can be worked out by hand, and each flow's end against a solver that starts anew after every change."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sim import fair, heap
from sim.fair import Flow, Link, Sharing
from sim.filling import fill
from tests.sim.naive_sharing import Cancel, Change, Driven, Happening, Join, max_min, naive


def from_its_source(module: ModuleType) -> ModuleType:
    """Whether or not it is compiled here."""
    name = module.__name__.rpartition(".")[2]
    assert module.__file__ is not None
    spec = importlib.util.spec_from_file_location(f"{name}_from_its_source", Path(module.__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


with patch.dict(sys.modules, {"sim.heap": from_its_source(heap)}):
    SOURCE = from_its_source(fair)

thoroughly = settings(max_examples=max(200, settings().max_examples))


def ends(happenings: list[Happening], **capacities: float) -> dict[int, float]:
    return Driven(happenings, capacities).through


# by hand


def test_flows_on_one_link_share_it_and_the_rest_is_faster_when_one_is_through() -> None:
    """10 B/s for two: 5 each until the shorter is through after 4 s; the other has 30 of 50 left and all of the link."""
    assert ends([Join(0, 0, ("l",), 20), Join(0, 1, ("l",), 50)], l=10.0) == {0: 4.0, 1: 7.0}


def test_a_flow_that_comes_later_slows_down_the_first() -> None:
    assert ends([Join(0, 0, ("l",), 60), Join(2, 1, ("l",), 20)], l=10.0) == {0: 8.0, 1: 6.0}


def test_senders_to_one_receiver_share_its_link() -> None:
    incast: list[Happening] = [Join(0, number, (f"out{number}", "in"), 10) for number in range(4)]
    assert ends(incast, **{"in": 8.0}, **{f"out{number}": 8.0 for number in range(4)}) == dict.fromkeys(range(4), 5.0)


def test_all_to_all_takes_as_long_as_one_machine_needs_for_its_own() -> None:
    machines = range(5)
    pairs = [(a, b) for a in machines for b in machines if a != b]
    happenings: list[Happening] = [Join(0, number, (f"out{a}", f"in{b}"), 10) for number, (a, b) in enumerate(pairs)]
    capacities = {f"{way}{machine}": 10.0 for way in ("out", "in") for machine in machines}
    assert Driven(happenings, capacities).through == dict.fromkeys(range(len(pairs)), 4.0)


def test_what_a_slow_link_leaves_is_for_those_who_do_not_cross_it() -> None:
    """Three flows into 12 B/s, one of which comes from a link of 2: the others have 5 each."""
    happenings: list[Happening] = [Join(0, 0, ("slow", "in"), 4), Join(0, 1, ("in",), 10), Join(0, 2, ("in",), 10)]
    assert ends(happenings, slow=2.0, **{"in": 12.0}) == dict.fromkeys(range(3), 2.0)


def test_flows_that_cross_each_other_on_three_links() -> None:
    """The long one crosses both: the narrow link gives it 1, and the wide one's other flow has the 9 that this leaves."""
    happenings: list[Happening] = [Join(0, 0, ("narrow", "wide"), 10), Join(0, 1, ("narrow",), 10), Join(0, 2, ("wide",), 90)]
    assert ends(happenings, narrow=2.0, wide=10.0) == {0: 10.0, 1: 10.0, 2: 10.0}


def test_a_link_that_is_cut_stops_its_flows_until_it_carries_again() -> None:
    happenings: list[Happening] = [Join(0, 0, ("l", "m"), 20), Change(1, "l", 0.0), Change(5, "l", 10.0)]
    assert ends(happenings, l=10.0, m=100.0) == {0: 6.0}


def test_a_link_that_never_carries_lets_nothing_through_and_takes_nothing_from_others() -> None:
    assert ends([Join(0, 0, ("cut", "l"), 20), Join(0, 1, ("l",), 20)], cut=0.0, l=10.0) == {1: 2.0}


def test_what_is_cancelled_leaves_its_share_to_the_others() -> None:
    assert ends([Join(0, 0, ("l",), 100), Join(0, 1, ("l",), 20), Cancel(2, 0)], l=10.0) == {1: 3.0}


def test_what_is_cancelled_at_the_instant_at_which_it_joins_has_carried_nothing() -> None:
    driven = Driven([Join(1, 0, ("l",), 100), Cancel(1, 0), Join(1, 1, ("l",), 10)], {"l": 10.0})
    assert driven.through == {1: 2.0}
    assert driven.links["l"].carried(2.0) == 10.0


def test_a_link_knows_what_it_has_carried_so_far() -> None:
    link = Link("l", 10.0)
    sharing = Sharing([link])
    sharing.join(Flow((link,), 20.0))
    sharing.settle(0.0)
    assert [link.carried(0.0), link.carried(0.5), link.carried(1.0)] == [0.0, 5.0, 10.0]
    (flow,) = sharing.across(link)
    sharing.cancel(flow, 1.5)
    sharing.settle(1.5)
    assert link.carried(9.0) == 15.0
    assert sharing.next_due() == math.inf


def test_cancelling_the_next_that_is_due_does_not_let_the_one_after_it_through() -> None:
    link = Link("l", 10.0)
    sharing = Sharing([link])
    flows = [Flow((link,), 10.0), Flow((link,), 30.0)]
    for flow in flows:
        sharing.join(flow)
    sharing.settle(0.0)
    sharing.cancel(flows[0], 2.0)
    assert sharing.settle(2.0) == []
    assert sharing.next_due() == 4.0


def test_cancelling_what_is_through_already_changes_nothing() -> None:
    link = Link("l", 10.0)
    sharing, flow = Sharing([link]), Flow((link,), 10.0)
    sharing.join(flow)
    sharing.settle(0.0)
    assert sharing.settle(1.0) == [flow]
    sharing.cancel(flow, 1.0)
    assert link.carried(1.0) == 10.0


# against a solver that starts anew

MACHINES, RACKS = 6, 2
GRID = st.integers(0, 40).map(lambda quarter: quarter / 4)
ANY_TIME = st.floats(0, 10)
TIMES = GRID | ANY_TIME
CAPACITIES = st.sampled_from((1.0, 2.0, 10.0)) | st.floats(0.5, 20)
BYTES = st.sampled_from((1.0, 10.0)) | st.floats(0.1, 30)


@st.composite
def traffic(draw: st.DrawFn) -> tuple[list[Happening], dict[str, float]]:
    """Messages between machines in two racks, some in bursts; links that change, or are cut for a while; transfers cut short."""
    capacities = {f"{machine} {way}": draw(CAPACITIES) for machine in range(MACHINES) for way in ("out", "in")}
    capacities |= {f"rack {rack} {way}": draw(CAPACITIES) for rack in range(RACKS) for way in ("up", "down")}
    ends = st.tuples(st.integers(0, MACHINES - 1), st.integers(0, MACHINES - 1)).filter(lambda pair: pair[0] != pair[1])
    happenings: list[Happening] = []
    for at, pairs, nbytes in draw(st.lists(st.tuples(TIMES, st.lists(ends, min_size=1, max_size=6), BYTES), max_size=12)):
        for source, destination in pairs:
            flow, racks = len(happenings), (source % RACKS, destination % RACKS)
            across = () if racks[0] == racks[1] else (f"rack {racks[0]} up", f"rack {racks[1]} down")
            happenings.append(Join(at, flow, (f"{source} out", *across, f"{destination} in"), nbytes))
    flows = [one for one in happenings if isinstance(one, Join)]
    if flows:
        happenings += [Cancel(one.at + draw(TIMES), one.flow) for one in draw(st.lists(st.sampled_from(flows), max_size=5))]
    for name, at, lasting in draw(st.lists(st.tuples(st.sampled_from(sorted(capacities)), TIMES, TIMES), max_size=4)):
        happenings.append(Change(at, name, draw(st.just(0.0) | CAPACITIES)))
        happenings.append(Change(at + lasting, name, capacities[name]))
    return happenings, capacities


def differences(found: dict[int, float], expected: dict[int, float], happenings: list[Happening]) -> list[Any]:
    """Flows that ended otherwise; what is cancelled at the moment at which it is through, but for rounding, may be either."""
    cancelled = {(one.flow, one.at) for one in happenings if isinstance(one, Cancel)}
    wrong: list[Any] = []
    for flow in sorted(found.keys() | expected.keys()):
        if flow in found and flow in expected:
            if found[flow] != pytest.approx(expected[flow], rel=1e-9):
                wrong.append((flow, found[flow], expected[flow]))
        else:
            at = found.get(flow, expected.get(flow))
            if not any(other == flow and at == pytest.approx(when, rel=1e-9) for other, when in cancelled):
                wrong.append((flow, found.get(flow), expected.get(flow)))
    return wrong


ACROSS = ("0 out", "rack 0 up", "rack 1 down", "1 in")
BACK = ("rack 1 up", "rack 0 down", "0 in")
AFTER_A_CUT: tuple[list[Happening], dict[str, float]] = (
    [
        *(Join(0.0, number, ACROSS, 1.0) for number in range(4)),
        Join(0.0, 4, ("1 out", *BACK), 1.0), Join(0.0, 5, ("5 out", *BACK), 1.0), Join(0.0, 6, ("5 out", "1 in"), 1.0),
        Change(0.25, "5 out", 0.0), Change(0.5, "5 out", 1.0),
    ],
    dict.fromkeys((*ACROSS, *BACK, "1 out", "5 out"), 1.0),
)  # fmt: skip
"""A link that was cut carried 1e-17 of its capacity, by a residue of subtracting rates."""


@thoroughly
@given(traffic())
@example(([Join(0.0, 0, ("0 out", "1 in"), 1.0), Cancel(0.0, 0)], {"0 out": 1.0, "1 in": 1.0}))
@example(AFTER_A_CUT)
def test_each_flow_ends_when_a_solver_that_starts_anew_says(drawn: tuple[list[Happening], dict[str, float]]) -> None:
    """Besides, after each change no link is over its capacity and every bottleneck is one: see `Driven.check`."""
    happenings, capacities = drawn
    driven = Driven(happenings, capacities)
    assert differences(driven.through, naive(happenings, capacities), happenings) == []
    assert driven.sharing.refills == 0


@given(traffic())
def test_compiled_it_comes_to_the_same_to_the_last_bit(drawn: tuple[list[Happening], dict[str, float]]) -> None:
    """Where it is not compiled here, this shows no more than that it can be loaded twice."""
    happenings, capacities = drawn
    here, source = Driven(happenings, capacities), Driven(happenings, capacities, SOURCE)
    assert here.through == source.through
    assert here.carried == source.carried


@given(traffic())
def test_so_it_does_where_repairs_never_come_to_an_end(drawn: tuple[list[Happening], dict[str, float]]) -> None:
    """Everything is filled anew each time: the guard against what nobody has proved."""
    happenings, capacities = drawn
    driven = Driven(happenings, capacities, repairs_of_a_link=0)
    assert differences(driven.through, naive(happenings, capacities), happenings) == []
    assert driven.sharing.refills or not driven.through


@given(traffic())
@example(AFTER_A_CUT)
def test_no_byte_is_lost_or_made(drawn: tuple[list[Happening], dict[str, float]]) -> None:
    """A link has carried the sum of its rates over time, and every flow that is through has all its bytes on each of its links."""
    happenings, capacities = drawn
    driven = Driven(happenings, capacities)
    for name, link in driven.links.items():
        assert link.carried(driven.now) == pytest.approx(driven.carried[name], rel=1e-9, abs=1e-9)
        through = sum(one.nbytes for one in happenings if isinstance(one, Join) and name in one.path and one.flow in driven.through)
        assert link.carried(driven.now) >= through * (1 - 1e-12)


@given(traffic())
def test_filling_gives_each_flow_the_rate_that_the_definition_says(drawn: tuple[list[Happening], dict[str, float]]) -> None:
    happenings, capacities = drawn
    paths = [one.path for one in happenings if isinstance(one, Join)]
    names = list(capacities)
    filled = fill(list(capacities.values()), [[names.index(link) for link in path] for path in paths])
    rates = {flow: level for _, level, flows in filled for flow in flows}
    assert rates == pytest.approx(max_min(dict(enumerate(paths)), capacities), rel=1e-12)


def test_the_same_changes_give_the_same_order_of_ends_and_the_same_bits() -> None:
    happenings: list[Happening] = [
        Join(number % 7 / 3, number, (f"{number % 5} out", f"{(number * 3 + 1) % 5} in"), 1 + number % 4) for number in range(60)
    ]
    capacities = {f"{machine} {way}": 1.0 + machine % 2 for machine in range(5) for way in ("out", "in")}
    runs = [list(Driven(happenings, capacities).through.items()) for _ in range(2)]
    assert runs[0] == runs[1]
