"""Each rule against a naive dense implementation in float64, and against torch's own optimizers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from core import vector
from core.rules import RULES, Adagrad, Adam, Momentum, Rule, Sgd
from core.vector import BLOCK, Phantom
from scenarios.protocols import AdagradRule, AdamRule, MomentumRule, SgdRule

RATE = 0.05

MAKERS: dict[str, Callable[[], Rule]] = {
    "sgd": lambda: Sgd(RATE),
    "momentum": lambda: Momentum(RATE, 0.8),
    "adagrad": lambda: Adagrad(RATE),
    "adam": lambda: Adam(RATE, 0.8, 0.95, 1e-6),
}

each_rule = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


def naive(name: str, start: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    """The equations of the papers, coordinate by coordinate."""
    w = [float(value) for value in start]
    for i in range(len(w)):
        velocity = squares = mean = square = 0.0
        for t, gradient in enumerate(gradients, start=1):
            g = float(gradient[i])
            if name == "sgd":
                w[i] -= RATE * g
            elif name == "momentum":
                velocity = 0.8 * velocity + g
                w[i] -= RATE * velocity
            elif name == "adagrad":
                squares += g * g
                w[i] -= RATE * g / math.sqrt(squares) if squares else 0.0
            elif name == "adam":
                mean = 0.8 * mean + 0.2 * g
                square = 0.95 * square + 0.05 * g * g
                w[i] -= RATE * (mean / (1 - 0.8**t)) / (math.sqrt(square / (1 - 0.95**t)) + 1e-6)
    return np.array(w)


def some(count: int, updates: int, seed: int = 0) -> tuple[torch.Tensor, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(count, dtype=torch.float64, generator=generator)
    gradients = [torch.randn(count, dtype=torch.float64, generator=generator) for _ in range(updates)]
    for gradient in gradients:
        gradient[:2] = 0  # a coordinate that never has a gradient, and one that seldom has
    gradients[-1][1] = 1.5
    return start, gradients


def applied(rule: Rule, start: torch.Tensor, gradients: list[torch.Tensor]) -> torch.Tensor:
    parameters = start.clone()
    rule.start(parameters)
    for gradient in gradients:
        rule.apply(parameters, gradient)
    return parameters


@pytest.mark.parametrize("name", MAKERS)
def test_a_rule_is_its_paper_s_equation(name: str) -> None:
    start, gradients = some(11, 20)
    found = applied(MAKERS[name](), start, gradients)
    np.testing.assert_allclose(found.numpy(), naive(name, start.numpy(), [g.numpy() for g in gradients]), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("sgd", lambda p: torch.optim.SGD(p, lr=RATE)),
        ("momentum", lambda p: torch.optim.SGD(p, lr=RATE, momentum=0.8)),
        ("adam", lambda p: torch.optim.Adam(p, lr=RATE, betas=(0.8, 0.95), eps=1e-6)),
    ],
    ids=["sgd", "momentum", "adam"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_rule_is_what_torch_has_under_that_name(name: str, optimizer: Callable[[Any], torch.optim.Optimizer], dtype: torch.dtype) -> None:
    start, gradients = some(33, 25, seed=3)
    start, gradients = start.to(dtype), [g.to(dtype) for g in gradients]
    theirs = torch.nn.Parameter(start.clone())
    stepping = optimizer([theirs])
    for gradient in gradients:
        theirs.grad = gradient.clone()
        stepping.step()
    torch.testing.assert_close(
        applied(MAKERS[name](), start, gradients), theirs.detach(), rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=1e-7
    )


@each_rule
def test_a_coordinate_without_gradient_stays_put(make: Callable[[], Rule]) -> None:
    start = torch.tensor([1.0, -2.0, 0.0, 3.0])
    found = applied(make(), start, [torch.tensor([0.0, 0.0, 0.0, 1.0])] * 5)
    assert torch.equal(found[:3], start[:3])
    assert bool(torch.isfinite(found).all())
    assert found[3] < 3.0


finite32 = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**60), max_value=2.0**60)


@given(st.lists(finite32, min_size=1, max_size=8))
@example([1e-30])
@example([1e-45, -1e-45])
@example([1e-22, 1e-22])
@example([0.0, 1e-38, 0.0])
def test_adagrad_never_moves_more_than_its_rate_whatever_the_gradient(pushed: list[float]) -> None:
    parameters, rule = torch.zeros(1), Adagrad(RATE)
    rule.start(parameters)
    for gradient in pushed:
        before = float(parameters)
        rule.apply(parameters, torch.tensor([gradient]))
        moved = float(parameters) - before
        assert abs(moved) <= RATE * (1 + 1e-5)
        assert moved * gradient <= 0  # downhill; a NaN would fail


def test_the_first_step_of_adagrad_is_its_rate_exactly_as_in_the_paper() -> None:
    found = applied(Adagrad(0.5), torch.zeros(4), [torch.tensor([1e-15, -3.0, 1e15, 7.0])])
    torch.testing.assert_close(found, torch.tensor([-0.5, 0.5, -0.5, -0.5]))


@each_rule
def test_in_blocks_or_whole_it_is_the_same(make: Callable[[], Rule], monkeypatch: pytest.MonkeyPatch) -> None:
    start, gradients = some(50, 6)
    whole = applied(make(), start, gradients)
    monkeypatch.setattr(vector, "BLOCK", 7)
    torch.testing.assert_close(applied(make(), start, gradients), whole, rtol=1e-15, atol=0)


@each_rule
def test_a_vector_longer_than_a_block_is_updated_to_its_last_element(make: Callable[[], Rule]) -> None:
    count = 2 * BLOCK + 3
    found = applied(make(), torch.zeros(count, dtype=torch.float64), [torch.ones(count, dtype=torch.float64)] * 3)
    assert float(found[0]) < 0
    torch.testing.assert_close(found, found[:1].expand(count), rtol=1e-15, atol=0)


@each_rule
def test_the_gradient_that_was_pushed_is_left_as_it_was(make: Callable[[], Rule]) -> None:
    start, gradients = some(9, 1)
    before = gradients[0].clone()
    applied(make(), start, gradients * 3)
    assert torch.equal(gradients[0], before)


@each_rule
def test_state_that_was_restored_is_not_begun_again(make: Callable[[], Rule]) -> None:
    start, gradients = some(9, 6)
    first, second = make(), make()
    halfway = applied(first, start, gradients[:3])
    second.state.update(first.state)
    assert torch.equal(applied(second, halfway, gradients[3:]), applied(make(), start, gradients))


@each_rule
def test_on_phantoms_a_rule_does_nothing(make: Callable[[], Rule]) -> None:
    rule, parameters = make(), Phantom(10**10)
    rule.start(parameters)
    rule.apply(parameters, Phantom(10**10))
    assert len(parameters) == 10**10
    assert all(value == 1 or len(value) == 10**10 for value in rule.state.values())


@each_rule
@pytest.mark.parametrize(("staleness", "divisor"), [(0, 1), (1, 1), (2, 2), (40, 40)])
def test_a_rule_that_is_aware_of_staleness_divides_its_step_by_it_and_its_state_by_nothing(
    make: Callable[[], Rule], staleness: int, divisor: int
) -> None:
    start, gradients = some(9, 4)
    aware, unaware = make(), make()
    aware.staleness_aware = True  # type: ignore[attr-defined]
    before = applied(aware, start, gradients[:3])
    assert torch.equal(before, applied(unaware, start, gradients[:3])), "they were fresh"
    stale, fresh = before.clone(), before.clone()
    aware.apply(stale, gradients[3], staleness)
    unaware.apply(fresh, gradients[3], staleness)
    torch.testing.assert_close((stale - before) * divisor, fresh - before, rtol=1e-10, atol=1e-15)
    for key, value in unaware.state.items():
        assert torch.equal(torch.as_tensor(aware.state[key]), torch.as_tensor(value)), key


def test_every_rule_of_the_scenario_file_can_be_made() -> None:
    given = {"sgd": SgdRule, "momentum": MomentumRule, "adagrad": AdagradRule, "adam": AdamRule}
    assert given.keys() == RULES.keys()
    for kind, table in given.items():
        settings = table(kind=kind, learning_rate=0.1, staleness_aware=True).model_dump()
        rule = RULES[settings.pop("kind")](**settings)
        assert isinstance(rule, RULES[kind])
        assert rule.staleness_aware  # type: ignore[attr-defined]
