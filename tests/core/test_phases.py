"""What may be computed when, and what crosses: whatever the order in which it happens."""

from __future__ import annotations

import random
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from core.boxes import Box, meet
from core.graph import Graph
from core.partitioning import Partitioned, Task
from core.phases import Arrival
from tests.models.driver import Course, Nothing, walk
from tests.models.graphs import graphs, placements


@st.composite
def placed(draw: st.DrawFn) -> Partitioned:
    graph: Graph = draw(graphs())
    return Partitioned(graph, draw(placements(graph)))


def course(partitioned: Partitioned, order: random.Random | None = None, *, down: bool = True, drop: Arrival | None = None) -> Course:
    return walk(partitioned, [Nothing()] * partitioned.machines, order, down=down, drop=drop)


@settings(max_examples=60)
@given(placed(), st.randoms())
def test_every_part_is_computed_once_in_each_direction_where_it_lives_after_all_that_it_needs(
    partitioned: Partitioned, order: random.Random
) -> None:
    happened = course(partitioned, order)
    assert not happened.stuck
    both = [(part.machine, Task(way, part.number)) for part in partitioned.parts for way in ("forward", "backward")]
    assert sorted(happened.computed) == sorted(both)
    when = {task: place for place, (_, task) in enumerate(happened.computed)}
    for user, is_weight, take in partitioned.takes():
        assert when[Task("forward", user.number)] < when[Task("backward", user.number)]
        if not is_weight:
            assert when[Task("forward", take.source)] < when[Task("forward", user.number)]
            assert when[Task("backward", user.number)] < when[Task("backward", take.source)]


@settings(max_examples=60)
@given(placed(), st.randoms())
def test_every_message_crosses_once_in_each_phase(partitioned: Partitioned, order: random.Random) -> None:
    happened = course(partitioned, order)
    assert happened.crossed == dict.fromkeys(
        (Arrival(phase, message.number) for message in partitioned.messages for phase in ("up", "down")), 1
    )
    alone = course(partitioned, order, down=False)
    assert not alone.stuck
    assert set(alone.crossed) == {Arrival("up", message.number) for message in partitioned.messages}
    assert all(task.direction == "forward" for _, task in alone.computed)


@settings(max_examples=100)
@given(placed())
def test_what_a_machine_needs_of_a_part_crosses_to_it_in_one_message_and_no_element_twice(partitioned: Partitioned) -> None:
    ways = [(message.weights, message.of, message.destination) for message in partitioned.messages]
    assert len(ways) == len(set(ways))
    needed: dict[tuple[bool, int, int], list[Box]] = {}
    for user, is_weight, take in partitioned.takes():
        if partitioned.home(is_weight, take.source) != user.machine:
            needed.setdefault((is_weight, take.source, user.machine), []).append(take.box)
    assert set(ways) == set(needed)
    for message in partitioned.messages:
        assert message.source != message.destination
        home = partitioned.pieces[message.of].box if message.weights else partitioned.parts[message.of].part.box
        assert all(meet(box, home) == box for box in message.boxes)
        assert all(meet(one, other) is None for one, other in combinations(message.boxes, 2))
        for want in needed[message.weights, message.of, message.destination]:
            covered = sum(size(both) for box in message.boxes if (both := meet(want, box)) is not None)
            assert covered == size(want)
        for box in message.boxes:
            assert any(meet(box, want) is not None for want in needed[message.weights, message.of, message.destination])


def size(box: Box) -> int:
    found = 1
    for begin, end in box:
        found *= end - begin
    return found


@settings(max_examples=30)
@given(placed(), st.randoms(), st.data())
def test_a_minibatch_is_not_over_without_any_one_of_its_messages(
    partitioned: Partitioned, order: random.Random, data: st.DataObject
) -> None:
    if partitioned.messages:
        number = data.draw(st.integers(0, len(partitioned.messages) - 1))
        for phase in ("up", "down"):
            assert course(partitioned, order, drop=Arrival(phase, number)).stuck
        assert course(partitioned, order, down=False, drop=Arrival("up", number)).stuck


@settings(max_examples=60)
@given(placed())
def test_every_parameter_has_one_owner_and_those_of_a_machine_lie_together(partitioned: Partitioned) -> None:
    for node in partitioned.graph:
        for weight, shape in node.weights.items():
            pieces = [piece for piece in partitioned.pieces if (piece.node, piece.weight) == (node.name, weight)]
            assert all(meet(one.box, other.box) is None for one, other in combinations(pieces, 2))
            whole_size = size(tuple((0, side) for side in shape))
            assert sum(piece.count for piece in pieces) <= whole_size
    for machine in range(partitioned.machines):
        taken = sorted(place for piece in partitioned.pieces_of(machine) for place in range(piece.first, piece.first + piece.count))
        assert taken == list(range(partitioned.sizes[machine]))
    assert sum(partitioned.sizes) == partitioned.graph.parameters
