"""A model split over machines computes what it computes whole: its loss, its gradient, and its outputs."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.boxes import Shape
from core.graph import Graph, GraphError, Layer, Node, Part, Setting
from core.partitioning import Partitioned, Placement
from models.arranging import Concatenate, Permute, Reshape, Slice
from models.catalogue import BUNDLED
from models.data import Batch
from models.errors import DataError
from models.graph_module import GraphModule
from models.layers import Add, Dense, Elementwise, LayerNorm, Linear, Mean, Normalised, Source
from models.losses import with_loss
from models.placement import balanced, metis, search
from models.windows import Contrast, Convolution, LocallyConnected, Pool
from tests.models.driver import run_partitioned
from tests.models.graphs import drawn_batch, drawn_state, graphs, lossless_graphs, placements, plain_loss, plain_outputs, spread, staggered
from tests.models.plain_networks import SMALL, plain_gradient

CLOSE, NOTHING = 1e-9, 1e-12


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # these tensors are small, and threads that wait for each other are slow
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(threads)


def same(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], nothing: float = NOTHING) -> None:
    """Tensor by tensor; of a bias before batch normalisation the true gradient is nothing, and rounding is all there is."""
    assert found.keys() == wanted.keys()
    for key, tensor in wanted.items():
        apart = float((found[key] - tensor).norm())
        assert apart <= CLOSE * float(tensor.norm()) + nothing, f"{key}: {apart} of {float(tensor.norm())}"


def whole_gradient(
    graph: Graph, state: Mapping[str, torch.Tensor], inputs: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, float, dict[str, torch.Tensor]]:
    own = {key: tensor.clone().requires_grad_() for key, tensor in state.items()}
    outputs = plain_outputs(graph, own, inputs)
    assert graph.loss is not None
    loss = plain_loss(graph.loss.name, outputs, targets)
    gradients = torch.autograd.grad(loss, list(own.values()), allow_unused=True, materialize_grads=True)
    return outputs.detach(), loss.item(), dict(zip(own, gradients, strict=True))


@settings(max_examples=60)
@given(st.data(), st.integers(2, 4), st.integers(0, 2**32 - 1), st.randoms())
def test_any_graph_placed_anyhow_has_the_loss_and_the_gradient_of_the_whole(
    data: st.DataObject, samples: int, seed: int, order: random.Random
) -> None:
    graph = data.draw(graphs())
    partitioned = Partitioned(graph, data.draw(placements(graph)))
    state, (inputs, targets) = drawn_state(graph, seed), drawn_batch(graph, samples, seed)
    _, loss, gradients = whole_gradient(graph, state, inputs, targets)
    found = run_partitioned(partitioned, state, Batch(inputs, targets, seed=0), order)
    assert found.loss == pytest.approx(loss, rel=CLOSE)
    same(found.gradients, gradients)


@settings(max_examples=40)
@given(st.data(), st.integers(2, 4), st.integers(0, 2**32 - 1), st.randoms())
def test_the_upward_phase_alone_has_the_outputs_of_the_whole(data: st.DataObject, samples: int, seed: int, order: random.Random) -> None:
    graph = data.draw(lossless_graphs())
    state, (inputs, _) = drawn_state(graph, seed), drawn_batch(with_loss(graph, "mse"), samples, seed)
    wanted = plain_outputs(graph, state, inputs)
    found = run_partitioned(
        Partitioned(graph, data.draw(placements(graph))), state, Batch(inputs, torch.zeros(samples), seed=0), order, down=False
    )
    same(found.outputs, {"outputs": wanted})
    module = GraphModule(graph)
    module.load_state_dict(state)
    same({"outputs": module(inputs).detach()}, {"outputs": wanted})


def a_bit_of_everything() -> Graph:
    """The unshared filters, pooling and contrast of the paper's image model; shared filters; classes."""
    return with_loss(
        Graph(
            [
                Node("inputs", Source((2, 9, 9))),
                Node("shared", Convolution(4, 3, 1, 1), "inputs"),
                Node("normalised", Normalised(), "shared"),
                Node("own", LocallyConnected(5, 3, 2), "normalised"),
                Node("pool", Pool("l2", 2, 1), "own"),
                Node("contrast", Contrast(3), "pool"),
                Node("hidden", Dense(11), "contrast"),
                Node("tanh", Elementwise("tanh"), "hidden"),
                Node("outputs", Dense(6), "tanh"),
            ]
        ),
        "cross-entropy",
    )


@pytest.mark.parametrize("machines", range(1, 9))
def test_each_layer_over_as_many_machines_as_there_are(machines: int) -> None:
    graph = a_bit_of_everything()
    state, (inputs, targets) = drawn_state(graph, 1), drawn_batch(graph, 3, 1)
    _, loss, gradients = whole_gradient(graph, state, inputs, targets)
    found = run_partitioned(Partitioned(graph, spread(graph, machines)), state, Batch(inputs, targets, seed=0))
    assert found.loss == pytest.approx(loss, rel=CLOSE)
    same(found.gradients, gradients)


def searched(graph: Graph, machines: int) -> Placement:
    return search(graph, machines, lambda one: max(map(one.flops_of, range(machines))) + one.elements(1), evaluations=5).placement


@pytest.mark.parametrize("place", [balanced, metis, searched, staggered])
@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_network_has_the_loss_and_the_gradient_of_a_plain_module(name: str, place: Callable[[Graph, int], Placement]) -> None:
    graph = with_loss(SMALL[name].graph(), SMALL[name].loss)
    state = drawn_state(graph, 6)
    inputs, targets = drawn_batch(graph, 3, 6, "classes")
    loss, gradients = plain_gradient(name, state, inputs, targets)
    for machines in range(1, 9):
        partitioned = Partitioned(graph, place(graph, machines), machines)
        found = run_partitioned(partitioned, state, Batch(inputs, targets, seed=0), random.Random(machines))
        assert found.loss == pytest.approx(loss, rel=CLOSE)
        same(found.gradients, gradients, nothing=0.0)


@settings(max_examples=15)
@given(st.data(), st.randoms(), st.randoms())
def test_the_order_in_which_things_come_changes_no_bit_of_the_gradient(
    data: st.DataObject, one: random.Random, other: random.Random
) -> None:
    graph = data.draw(graphs())
    partitioned = Partitioned(graph, data.draw(placements(graph)))
    state, batch = drawn_state(graph, 2), Batch(*drawn_batch(graph, 2, 2), seed=0)
    wanted = run_partitioned(partitioned, state, batch)
    for order in (one, other):
        found = run_partitioned(partitioned, state, batch, order)
        assert found.loss == wanted.loss
        assert torch.equal(found.flat, wanted.flat)


def test_images_come_flat_and_without_their_channel() -> None:
    graph = with_loss(
        Graph([Node("inputs", Source((1, 4, 5))), Node("c", Convolution(3, 2), "inputs"), Node("outputs", Dense(4), "c")]), "mse"
    )
    state, (inputs, targets) = drawn_state(graph, 3), drawn_batch(graph, 3, 3)
    partitioned = Partitioned(graph, spread(graph, 3))
    wanted = run_partitioned(partitioned, state, Batch(inputs, targets, seed=0))
    for shape in ((3, 20), (3, 4, 5)):
        assert torch.equal(run_partitioned(partitioned, state, Batch(inputs.reshape(shape), targets, seed=0)).flat, wanted.flat)
    with pytest.raises(GraphError, match="inputs of 5x4x1; the graph takes 1x4x5"):
        run_partitioned(partitioned, state, Batch(inputs.reshape(3, 5, 4, 1), targets, seed=0))


@pytest.mark.parametrize("padding", range(4))
def test_windows_that_see_nothing_but_padding_need_nothing_of_the_image(padding: int) -> None:
    graph = with_loss(
        Graph(
            [
                Node("inputs", Source((2, 3, 3))),
                Node("first", Convolution(2, 1), "inputs"),
                Node("c", Convolution(3, 1, 1, padding), "first"),
                Node("outputs", Dense(4), "c"),
            ]
        ),
        "cross-entropy",
    )
    state, (inputs, targets) = drawn_state(graph, 4), drawn_batch(graph, 2, 4)
    places = (3 + 2 * padding) ** 2
    placement = spread(graph, 4) | {"c": tuple(number % 4 for number in range(places))}
    _, loss, gradients = whole_gradient(graph, state, inputs, targets)
    found = run_partitioned(Partitioned(graph, placement), state, Batch(inputs, targets, seed=0))
    assert found.loss == pytest.approx(loss, rel=CLOSE)
    same(found.gradients, gradients)


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (Convolution(4, (2, 6)), "a window of 6 does not fit into 5"),
        (Convolution(4, 2, dilation=(1, 5)), "a window of 6 does not fit into 5"),
        (Convolution(4, 2, groups=3), "3 groups; allowed: what divides its 2 channels and 4 filters"),
        (Convolution(3, 2, groups=2), "2 groups; allowed: what divides its 2 channels and 3 filters"),
        (Pool("max", (3, 2), 1, (1, 2)), "a padding of 2 around windows of 2; allowed: at most half of a window"),
        (Pool("mean", 2, 1, dilation=2), "a dilation of 2 with 'mean'; allowed: with 'max'"),
        (Pool("mean", 2, 2, 1, ceil_mode=True), "ceil_mode with a mean that counts the padding; allowed: either"),
    ],
)
def test_windows_that_cannot_be_are_refused(layer: Layer, why: str) -> None:
    with pytest.raises(GraphError, match=why):
        Graph([Node("inputs", Source((2, 5, 5))), Node("windows", layer, "inputs")])


@pytest.mark.parametrize(
    ("layer", "shape", "why"),
    [
        (Linear(3), (5,), "it takes several dimensions, not 5"),
        (LayerNorm(), (5,), "it takes several dimensions, not 5"),
        (LayerNorm(3), (2, 5, 5), "3 dimensions together; allowed: 1 to 2"),
        (Reshape((4, 2)), (3, 3), "8 numbers come of as many, not of 9"),
        (Permute((1, 2)), (2, 5), r"the order \(1, 2\); allowed: each of the dimensions 0 to 1 once"),
        (Slice(((0, 2), (3, 6)), (2, 3)), (2, 5), "allowed: one in 2x5"),
        (Slice(((0, 2),), (2,)), (2, 5), "allowed: one in 2x5"),
        (Slice(((0, 2), (1, 4)), (3, 2)), (2, 5), "as 3x2; allowed: to leave out dimensions of size 1, and to add such"),
        (Concatenate(2), (2, 5), "it takes inputs of one shape apart from dimension 2"),
        (Mean(), (2, 5), r"a mean over the dimensions \(1, 2\); allowed: of 0 to 1"),
    ],
)
def test_what_takes_other_dimensions_is_refused(layer: Layer, shape: Shape, why: str) -> None:
    with pytest.raises(GraphError, match=why):
        Graph([Node("inputs", Source(shape)), Node("layer", layer, "inputs")])


@pytest.mark.parametrize("shapes", [((2, 5), (2, 4)), ((2, 5), (5,)), ((1, 5), (2, 1), (3, 5))])
def test_what_is_put_together_is_of_one_shape_or_of_size_one(shapes: tuple[Shape, ...]) -> None:
    sources = [Node(f"n{number}", Source(shape)) for number, shape in enumerate(shapes)]
    for layer in (Add(), Elementwise("mul")):
        with pytest.raises(GraphError, match="it takes inputs of one shape, or of size 1 where they differ"):
            Graph([*sources, Node("layer", layer, *(node.name for node in sources))])


def test_rows_that_stay_where_they_are_take_nothing_from_each_other_but_weights() -> None:
    graph = Graph(
        [
            Node("inputs", Source((8, 6))),
            Node("norm", LayerNorm(), "inputs"),
            Node("up", Linear(12), "norm"),
            Node("gelu", Elementwise("gelu"), "up"),
            Node("heads", Reshape((8, 3, 4)), "gelu"),
            Node("back", Reshape((8, 12)), "heads"),
            Node("down", Linear(6), "back"),
            Node("gate", Elementwise("mul"), "down", "norm"),
            Node("rows", Mean(over=(1,)), "gate"),
        ]
    )
    partitioned = Partitioned(graph, spread(graph, 4))
    assert {partitioned.pieces[message.of].node for message in partitioned.messages if message.weights} == {"norm", "up", "down"}
    assert all(message.weights for message in partitioned.messages)
    assert {name: graph[name].layer.flops(graph[name].at, ((0, 2), (0, 6))) for name in ("norm", "down", "gate")} == {
        "norm": 72.0,
        "down": 2.0 * 12 * 12,
        "gate": 12.0,
    }


@pytest.mark.parametrize(
    ("given", "found", "parts"),
    [
        ((6,), (2, 3), 2),
        ((2, 3), (6,), 2),
        ((4, 6), (6, 4), 2),
        ((3, 4), (4, 3), 1),
        ((4, 2, 3), (4, 6), 4),
        ((1,), (), 1),
        ((), (1, 1), 1),
    ],
)
def test_a_reshape_is_split_where_rows_end_together(given: Shape, found: Shape, parts: int) -> None:
    graph = Graph([Node("inputs", Source(given)), Node("layer", Reshape(found), "inputs")])
    assert graph["layer"].layer.most_parts(graph["layer"].at) == parts
    given_and_found = torch.arange(math.prod(given)).reshape(1, *given), torch.arange(math.prod(found)).reshape(1, *found)
    for placed in Partitioned(graph, spread(graph, parts)).parts:
        boxes = placed.part.needs[0], placed.part.box
        one, other = (numbers[(0, *(slice(*side) for side in box))] for numbers, box in zip(given_and_found, boxes, strict=True))
        assert one.flatten().tolist() == other.flatten().tolist()


def test_what_is_drawn_is_the_same_wherever_a_part_is_computed_and_another_for_each_part() -> None:
    """It depends on the minibatch's seed and the part, and on nothing that happened before."""
    masks: list[torch.Tensor] = []

    class Drawn(Elementwise):
        def forward(self, inputs, weights, part: Part) -> torch.Tensor:
            masks.append(torch.rand_like(inputs[0]))
            return inputs[0] * masks[-1]

    graph = with_loss(
        Graph(
            [
                Node("inputs", Source((6,))),
                Node("a", Dense(8), "inputs"),
                Node("b", Drawn("relu"), "a"),
                Node("c", Drawn("relu"), "b"),
                Node("outputs", Dense(3), "c"),
            ]
        ),
        "cross-entropy",
    )
    state, batch = drawn_state(graph, 5), Batch(*drawn_batch(graph, 4, 5), seed=9)
    here = run_partitioned(Partitioned(graph, spread(graph, 2)), state, batch)
    assert len(masks) == 4
    assert not any(torch.equal(one, other) for one, other in combinations(masks, 2))
    moved = {name: tuple(1 - machine for machine in machines) for name, machines in spread(graph, 2).items()}
    there = run_partitioned(Partitioned(graph, moved), state, batch, random.Random(1))
    assert there.loss == here.loss
    same(there.gradients, here.gradients)
    again = run_partitioned(Partitioned(graph, spread(graph, 2)), state, batch._replace(seed=10))
    assert again.loss != here.loss


@pytest.mark.parametrize("loss", ["cross-entropy", "logistic"])
@pytest.mark.parametrize("wrong", [-100, -1, 4])
def test_a_target_that_is_no_class_is_refused_and_not_left_out(loss: str, wrong: int) -> None:
    graph = with_loss(Graph([Node("inputs", Source((5,))), Node("outputs", Dense(4), "inputs")]), loss)
    batch = Batch(torch.randn(3, 5), torch.tensor([0, wrong, 1]), seed=0)
    with pytest.raises(DataError, match=f"a target of {wrong}; the network has classes 0 to 3"):
        run_partitioned(Partitioned(graph, spread(graph, 3)), drawn_state(graph, 1), batch)


def test_a_loss_needs_one_output_of_the_right_shape() -> None:
    nodes = [Node("inputs", Source((1, 4, 4))), Node("c", Convolution(2, 3), "inputs")]
    with pytest.raises(GraphError, match="one row of classes"):
        with_loss(Graph(nodes), "cross-entropy")
    with pytest.raises(GraphError, match="allowed for mse: what the targets are, 3"):
        with_loss(Graph(nodes), "mse", (3,))
    with pytest.raises(GraphError, match="the outputs c, d; allowed: one"):
        with_loss(Graph([*nodes, Node("d", Dense(3), "inputs")]), "mse")
    assert with_loss(Graph(nodes), "mse")["targets"].at == Setting((), (2, 2, 2))
