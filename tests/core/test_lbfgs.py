"""L-BFGS over shards against torch's, SciPy's and itself."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch.optim import lbfgs as torch_lbfgs

from core import lbfgs
from core.lbfgs import DIRECTION, GRADIENT, PARAMETERS, Line, NoProgress, Settings, State, Stopped, Trial, minimise, rehearse, s, y
from core.operations import Combine, Dot, Largest, Operation, run
from core.vector import Phantom
from models.data import digits
from tests.core.shards import Loss, Shards, quadratic, rosenbrock, valley

ENDLESS = Settings(gradient=0, change=0)
FEW = {"gradient": 0.0, "change": 0.0, "iterations": 20}


def logistic() -> Loss:
    """Multinomial logistic regression on the digits."""
    inputs, targets = digits().tensors
    inputs = inputs.double()

    def loss(w: torch.Tensor) -> torch.Tensor:
        scores = inputs @ w[:640].view(64, 10) + w[640:]
        return torch.nn.functional.cross_entropy(scores, targets) + 1e-4 * w.dot(w)

    return loss


PROBLEMS: dict[str, Callable[[], tuple[torch.Tensor, Loss]]] = {
    "rosenbrock-2": lambda: (valley(2), rosenbrock),
    "rosenbrock-10": lambda: (valley(10), rosenbrock),
    "rosenbrock-1000": lambda: (valley(1000), rosenbrock),
    "digits": lambda: (torch.zeros(650, dtype=torch.float64), logistic()),
    "quadratic-10000": lambda: (torch.zeros(10_000, dtype=torch.float64), quadratic(10_000)),
}
each_problem = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS.keys())
each_direction = pytest.mark.parametrize("direction", ["vector_free", "two_loop"])


def minimised(shards: Shards, settings: Settings, state: State | None = None) -> Stopped:
    return asyncio.run(minimise(shards, shards.evaluate, settings, state or State(), shards.commit))


def by_torch(start: torch.Tensor, loss: Loss, iterations: int, memory: int) -> tuple[list[float], int]:
    """The loss after each iteration of torch's own, and its evaluations; each `step` repeats the one at its beginning."""
    point = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [point], max_iter=1, max_eval=25, history_size=memory, line_search_fn="strong_wolfe", tolerance_grad=0, tolerance_change=0
    )
    evaluations = 0

    def closure() -> torch.Tensor:
        nonlocal evaluations
        evaluations += 1
        optimizer.zero_grad()
        value = loss(point)
        value.backward()
        return value

    losses = []
    for _ in range(iterations):
        optimizer.step(closure)
        losses.append(loss(point).item())
    return losses, evaluations - (iterations - 1)


@each_problem
@each_direction
@pytest.mark.parametrize("memory", [3, 100])
def test_every_iterate_is_that_of_torch(problem: Callable[[], tuple[torch.Tensor, Loss]], direction: Any, memory: int) -> None:
    start, loss = problem()
    losses, evaluations = by_torch(start, loss, 20, memory)
    shards = Shards(start, loss)
    stopped = minimised(shards, Settings(memory=memory, direction=direction, **FEW))
    assert stopped == Stopped("20 iterations", ok=True)
    assert shards.losses[1:] == pytest.approx(losses, rel=1e-6, abs=0)
    assert len(shards.steps) == evaluations


@pytest.mark.parametrize(
    "problem",
    [PROBLEMS[name] for name in PROBLEMS if name != "rosenbrock-1000"],
    ids=[name for name in PROBLEMS if name != "rosenbrock-1000"],
)
def test_it_gets_as_far_as_scipy_and_not_at_twice_the_cost(problem: Callable[[], tuple[torch.Tensor, Loss]]) -> None:
    start, loss = problem()

    def value_and_gradient(x: Any) -> tuple[float, Any]:
        point = torch.tensor(x, requires_grad=True)
        value = loss(point)
        return value.item(), torch.autograd.grad(value, point)[0].numpy()

    theirs = minimize(
        value_and_gradient, start.numpy(), jac=True, method="L-BFGS-B", options={"maxcor": 10, "ftol": 1e-9, "gtol": 1e-6, "maxfun": 10**5}
    )
    shards, state = Shards(start, loss), State()
    stopped = minimised(shards, Settings(gradient=1e-6, change=1e-9), state)
    assert stopped.ok
    assert state.loss == pytest.approx(theirs.fun, rel=1e-4, abs=1e-6)
    assert state.evaluations <= 2 * theirs.nfev
    assert state.resets == 0


@given(st.integers(1, 6), st.integers(1, 40), st.integers(0, 10**6))
def test_both_recursions_give_one_direction(pairs: int, count: int, seed: int) -> None:
    """Pairs of a strictly convex function: y = H s, H positive definite."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(count, count, dtype=torch.float64, generator=generator)
    hessian = root @ root.T / count + torch.eye(count, dtype=torch.float64)
    vectors = {s(k): torch.randn(count, dtype=torch.float64, generator=generator) for k in range(pairs)}
    vectors |= {y(k): hessian @ vectors[s(k)] for k in range(pairs)}
    vectors[GRADIENT] = torch.randn(count, dtype=torch.float64, generator=generator)
    directions = []
    for name in ("vector_free", "two_loop"):
        shards = Shards(torch.zeros(count, dtype=torch.float64), rosenbrock, shards=3)
        for part, mine in zip(shards.parts, shards.vectors, strict=True):
            mine.update({name: vector[part].clone() for name, vector in vectors.items()})
        downhill = asyncio.run(lbfgs.descend(shards, Settings(direction=name), State(history=list(range(pairs)))))
        directions.append(shards.whole(DIRECTION))
        assert downhill.slope < 0
    difference = (directions[0] - directions[1]).abs().max()
    assert difference <= 1e-8 * directions[0].abs().max()


def test_vector_free_takes_two_rounds_and_asks_no_product_twice() -> None:
    shards = Shards(valley(10), rosenbrock)
    minimised(shards, Settings(memory=5, **FEW))
    finding = [batch for batch in shards.rounds if any(isinstance(operation, Largest) for operation in batch)]
    assert len(finding) == 2 * 20
    asked = [
        operation for batch in finding for operation in batch if isinstance(operation, Dot) and GRADIENT not in (operation.a, operation.b)
    ]
    assert len(asked) == len(set(asked))
    assert max(map(len, finding[::2])) == 2 + 4 * 5


class Real(float):
    """A float with what torch's line search wants of a tensor."""

    __slots__ = ()

    def __add__(self, other: Any) -> Real:
        return Real(float(self) + other)

    def __sub__(self, other: Any) -> Real:
        return Real(float(self) - other)

    def __pow__(self, other: Any, _: Any = None) -> Real:
        assert other == 2
        return Real(float(self) * float(self))  # C's pow rounds otherwise, once in a thousand

    def sqrt(self) -> float:
        return math.sqrt(self)


def exactly(cubic: Callable[..., Any]) -> Callable[..., float]:
    """The formula of torch on Python's floats: on tensors it rounds quotients and roots in ways of its own."""

    def interpolate(x1: Any, f1: float, g1: Any, x2: Any, f2: float, g2: Any, bounds: Any = None) -> float:
        try:
            return float(cubic(x1, f1, Real(g1), x2, f2, Real(g2), bounds))
        except ZeroDivisionError:  # which a tensor answers with infinity
            return float(cubic(x1, f1, g1, x2, f2, g2, bounds))

    return interpolate


amplitudes = st.just(0.0) | st.builds(math.copysign, st.floats(1e-6, 1), st.sampled_from((-1, 1)))
tilts = st.just(0.0) | st.builds(math.copysign, st.floats(1e-6, 3), st.sampled_from((-1, 1)))
"""Not so small that a quotient depends on whether a float that is almost none is rounded away."""


@example([(0.8, 13.0, 1.6)], -1.3, 0.71, 0, 25, 0.5)  # the second extrapolation passes a hill: only from the third on does torch look
@example([(0.0, 1.0, 0.0)], -1.0, 1.0, 0, 25, 0.5)  # a straight line, for ever down
@given(
    st.lists(st.tuples(amplitudes, st.floats(0.1, 20), st.floats(0, 6)), min_size=1, max_size=4),
    tilts, st.floats(1e-3, 3), st.integers(-30, 4), st.integers(1, 25), st.floats(0.1, 0.95),
)  # fmt: skip
def test_on_any_line_the_search_tries_the_points_that_torch_tries(
    waves: Any, tilt: float, first: float, wide: int, most: int, c2: float
) -> None:
    widest = 2.0**wide  # dividing by it loses nothing

    def at(t: float) -> tuple[float, float]:
        return (
            tilt * t + sum(a * math.sin(w * t + p) for a, w, p in waves),
            tilt + sum(a * w * math.cos(w * t + p) for a, w, p in waves),
        )

    loss, slope = at(0.0)
    assume(slope < 0)
    theirs: list[float] = []

    def objective(_x: Any, t: Any, _d: Any) -> tuple[float, torch.Tensor]:
        theirs.append(float(t))
        loss, slope = at(float(t))
        return loss, torch.tensor([slope / widest], dtype=torch.float64)

    d = torch.tensor([widest], dtype=torch.float64)
    gtd = torch.tensor(slope, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_lbfgs, "_cubic_interpolate", exactly(torch_lbfgs._cubic_interpolate))
        _, _, chosen, _ = torch_lbfgs._strong_wolfe(objective, None, first, d, loss, d, gtd, c2=c2, max_ls=most - 1)

    ours: list[float] = []

    class Nowhere:
        async def operate(self, *_: Operation) -> list[float]:
            return []

    async def evaluate(step: float) -> Trial:
        ours.append(step)
        return Trial(step, *at(step), f"trial.{len(ours)}")

    line = Line(Nowhere(), evaluate, Settings(c2=c2, search_evaluations=most), State(), Trial(0.0, loss, slope, GRADIENT), widest)
    found = asyncio.run(lbfgs.strong_wolfe(line, first))
    assert ours == theirs
    assert found.step == float(chosen)


@each_direction
@pytest.mark.parametrize("search", ["strong_wolfe", "armijo"])
def test_a_new_life_goes_on_from_any_boundary_as_if_nothing_had_happened(direction: Any, search: Any) -> None:
    settings = Settings(memory=3, direction=direction, search=search, **FEW)
    whole = Shards(valley(10), rosenbrock)
    minimised(whole, settings)
    lives = Shards(valley(10), rosenbrock)
    for boundary in range(20):
        state = State.from_json(lives.states[-1]) if lives.states else State()
        minimised(lives, Settings(**{**settings_of(settings), "iterations": boundary + 1}), state)
    assert lives.states == whole.states
    assert torch.equal(lives.whole(PARAMETERS), whole.whole(PARAMETERS))
    assert lives.steps == whole.steps


def settings_of(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in Settings.__slots__}


def test_only_a_commit_changes_what_outlives_an_iteration() -> None:
    """Parameters, gradient and history change in one batch for each iteration; all else makes directions and trials."""
    shards, committed = Shards(valley(10), rosenbrock), []

    async def commit(state: State, operations: list[Operation]) -> None:
        committed.append(tuple(operations))
        await shards.commit(state, operations)

    asyncio.run(minimise(shards, shards.evaluate, Settings(memory=3, **FEW), State(), commit))
    lasting = [
        batch for batch in shards.rounds if any(isinstance(o, Combine) and o.into not in (DIRECTION, "trial parameters") for o in batch)
    ]
    assert lasting == committed
    assert len(committed) == 1 + 20


@pytest.mark.parametrize("search", ["strong_wolfe", "armijo"])
@pytest.mark.parametrize("loss", [rosenbrock, lambda x: (torch.sin(7 * x) + x * x).sum()], ids=["valley", "waves"])
def test_few_vectors_lie_on_a_shard_and_none_is_left_over(loss: Loss, search: Any) -> None:
    shards, state = Shards(valley(6), loss), State()
    minimised(shards, Settings(memory=3, search=search, **FEW), state)
    assert shards.gradients <= 4
    assert all(len(batch) for batch in shards.rounds)
    assert len(state.history) <= 3
    assert {name for names in state.products for name in names.split()} <= {*map(s, state.history), *map(y, state.history)}
    assert set(shards.vectors[0]) == {PARAMETERS, GRADIENT, DIRECTION, *map(s, state.history), *map(y, state.history)}


def test_backtracking_finds_the_minimum_too() -> None:
    shards, state = Shards(valley(10), rosenbrock), State()
    assert minimised(shards, Settings(search="armijo", change=1e-12), state).ok
    assert state.loss < 1e-6


# When it is over


def test_a_flat_place_is_where_it_ends() -> None:
    stopped = minimised(Shards(valley(5), lambda x: (x * x).sum()), Settings(gradient=1e-5))
    assert stopped == Stopped("no element of the gradient exceeds 1e-05", ok=True)


def test_a_start_at_the_minimum_takes_one_evaluation() -> None:
    shards = Shards(torch.zeros(5, dtype=torch.float64), lambda x: (x * x).sum())
    assert minimised(shards, Settings()).ok
    assert shards.steps == [0.0]


def test_a_loss_that_hardly_changes_ends_it() -> None:
    stopped = minimised(Shards(valley(5), rosenbrock), Settings(gradient=0, change=1e-3))
    assert stopped.ok
    assert "changed the loss" in stopped.reason


@pytest.mark.parametrize("most", range(1, 12))
def test_no_more_evaluations_than_allowed(most: int) -> None:
    shards = Shards(valley(5), rosenbrock)
    assert minimised(shards, Settings(gradient=0, change=0, evaluations=most)) == Stopped(f"{most} evaluations", ok=True)
    assert len(shards.steps) == most


# When it goes wrong


class Troubled(Shards):
    """From evaluation `since` on, or only then, `trouble` happens to the loss."""

    def __init__(self, trouble: Callable[[int], float], since: int = 9, until: int = 10**9) -> None:
        super().__init__(valley(10), rosenbrock)
        self.trouble, self.since, self.until = trouble, since, until

    async def evaluate(self, step: float) -> Trial:
        trial = await super().evaluate(step)
        number = len(self.steps)
        if not self.since <= number <= self.until:
            return trial
        self.whole_at_reset = self.whole(GRADIENT)
        return Trial(step, trial.loss + self.trouble(number), trial.slope, trial.gradient)


@pytest.mark.parametrize(
    "trouble",
    [lambda _: math.nan, lambda _: math.inf, lambda _: -math.inf, lambda number: 1e3 * number],
    ids=["nan", "inf", "-inf", "rising"],
)
def test_a_loss_gone_wrong_for_good_costs_one_reset_and_is_the_reason(trouble: Callable[[int], float]) -> None:
    shards, state = Troubled(trouble), State()
    stopped = minimised(shards, ENDLESS, state)
    assert not stopped.ok
    assert "along steepest descent" in stopped.reason
    assert ("loss at step" if not math.isfinite(trouble(1)) else "no lower loss in the") in stopped.reason
    assert state.resets == 1
    assert shards.losses[-1] == shards.losses[-2]
    assert set(shards.vectors[0]) == {PARAMETERS, GRADIENT, DIRECTION}


def test_a_loss_gone_wrong_once_costs_one_reset_and_no_more() -> None:
    shards, state = Troubled(lambda _: math.nan, until=9), State()
    assert minimised(shards, Settings(), state).ok
    assert state.resets == 1
    assert state.loss < 1e-6
    gradient = shards.whole_at_reset
    assert shards.steps[9] == pytest.approx(min(1.0, 1.0 / gradient.abs().sum().item()))  # as cautious as the first


def test_backtracking_comes_back_from_where_the_loss_is_no_number() -> None:
    shards, state = Troubled(lambda _: math.nan, until=12), State()
    assert minimised(shards, Settings(search="armijo"), state).ok
    assert state.resets == 0


@pytest.mark.parametrize("answer", [0.5, math.nan])
def test_a_direction_that_is_no_descent_costs_one_reset_and_is_the_reason(answer: float) -> None:
    class Misled(Shards):
        async def operate(self, *operations: Operation) -> list[float]:
            numbers = await super().operate(*operations)
            return [answer, numbers[1]] if Dot(GRADIENT, DIRECTION) in operations and len(self.steps) > 8 else numbers

    shards, state = Misled(valley(10), rosenbrock), State()
    stopped = minimised(shards, ENDLESS, state)
    assert not stopped.ok
    assert ("no descent" if answer > 0 else "NaN") in stopped.reason
    assert state.resets == 1


def test_a_pair_whose_curvature_is_lost_to_rounding_is_not_divided_by() -> None:
    shards = Shards(torch.zeros(2, dtype=torch.float64), rosenbrock, shards=1)
    shards.vectors[0] |= {
        GRADIENT: torch.ones(2).double(),
        s(1): torch.tensor([1.0, 0.0]).double(),
        y(1): torch.tensor([0.0, 1.0]).double(),
    }
    with pytest.raises(NoProgress, match="curvature"):
        asyncio.run(lbfgs.descend(shards, Settings(), State(history=[1])))


def test_a_first_loss_that_is_no_number_is_the_reason() -> None:
    stopped = minimised(Shards(valley(3), lambda x: x.sum() * math.nan), Settings())
    assert stopped == Stopped("the loss of the first parameters is nan", ok=False)


def test_a_pair_without_curvature_is_not_kept() -> None:
    """A straight slope: the gradient never changes, and every step goes on as far as the search may."""
    shards, state = Shards(torch.zeros(4, dtype=torch.float64), lambda x: x.sum()), State()
    minimised(shards, Settings(gradient=0, change=0, iterations=3, search="armijo"), state)
    assert state.iteration == 3
    assert state.history == []
    assert set(shards.vectors[0]) == {PARAMETERS, GRADIENT, DIRECTION}


def test_what_is_not_the_searchs_own_failure_goes_through() -> None:
    class Lost(Exception):
        pass

    class Broken(Shards):
        async def evaluate(self, step: float) -> Trial:
            if len(self.steps) > 5:
                raise Lost
            return await super().evaluate(step)

    with pytest.raises(Lost):
        minimised(Broken(valley(10), rosenbrock), ENDLESS)
    assert not issubclass(Lost, NoProgress)


# Timing alone


@each_direction
def test_a_rehearsal_sends_what_a_performance_sends(direction: Any) -> None:
    """Batch for batch the same operations on the same names, only the coefficients made up."""
    settings = Settings(memory=3, direction=direction, gradient=0, change=0, iterations=8)
    real, state = Shards(valley(10), rosenbrock), State()
    minimised(real, settings, state)
    assert state.history == [6, 7, 8]  # no pair was without curvature
    vectors: dict[str, Any] = {PARAMETERS: Phantom(10)}
    rounds: list[tuple[Operation, ...]] = []
    evaluations = 0

    class Phantoms:
        async def operate(self, *operations: Operation) -> list[float]:
            rounds.append(operations)
            return run(operations, vectors)

        async def commit(self, _: State, operations: list[Operation]) -> None:
            await self.operate(*operations)

    async def evaluate(step: float) -> Trial:
        nonlocal evaluations
        evaluations += 1
        vectors[f"trial.{evaluations}"] = Phantom(10)
        return Trial(step, 0.0, 0.0, f"trial.{evaluations}")

    space = Phantoms()
    assert asyncio.run(rehearse(space, evaluate, settings, State(), space.commit)) == Stopped("8 iterations", ok=True)
    assert evaluations == 1 + 8

    def plain(batches: list[tuple[Operation, ...]]) -> list[Any]:
        """Without evaluations, which are not the optimiser's, and without the lone drops of what a search tried in vain."""
        own = [batch for batch in batches if len(batch) > 1 and "trial parameters" not in str(batch)]
        return [
            [re.sub(r"trial\.\d+", "trial", str([type(o), o.reads(), getattr(o, "into", ""), getattr(o, "names", "")])) for o in batch]
            for batch in own
        ]

    assert plain(rounds) == plain(real.rounds)
