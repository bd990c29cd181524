"""Durations that are drawn: their means and shapes, what is left of one at any moment, and files of them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, pvariance
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from scenarios.distributions import Distribution, Durations

ADAPTER: TypeAdapter[Distribution] = TypeAdapter(Durations)
DRAWS = 40_000


def made(told: Any) -> Distribution:
    return ADAPTER.validate_python(told)


def weibull(shape: float, mean: str = "30 s") -> Distribution:
    return made({"weibull": {"shape": shape, "mean": mean}})


def lognormal(sigma: float) -> Distribution:
    return made({"lognormal": {"median": "60 s", "sigma": sigma}})


def close(draws: list[float], mean: float, deviation: float) -> bool:
    """Is their mean that, within four standard errors?"""
    return abs(fmean(draws) - mean) < 4 * deviation / math.sqrt(len(draws))


LAWS: list[tuple[Distribution, float, float]] = [
    (made({"exponential": {"mean": "30 s"}}), 30.0, 30.0),
    (weibull(1.0), 30.0, 30.0),
    (weibull(0.7), 30.0, 30.0 * math.sqrt(math.gamma(1 + 2 / 0.7) / math.gamma(1 + 1 / 0.7) ** 2 - 1)),
    (weibull(3.0), 30.0, 30.0 * math.sqrt(math.gamma(1 + 2 / 3) / math.gamma(1 + 1 / 3) ** 2 - 1)),
    (lognormal(0.5), 60 * math.exp(0.125), 60 * math.exp(0.125) * math.sqrt(math.exp(0.25) - 1)),
    (made({"lognormal": {"mean": "60 s", "sigma": 0.5}}), 60.0, 60 * math.sqrt(math.exp(0.25) - 1)),
]
"""Each with its mean and standard deviation, as the textbooks have them."""


@pytest.mark.parametrize(("law", "mean", "deviation"), LAWS)
def test_draws_have_the_mean_and_the_spread_of_their_law(law: Distribution, mean: float, deviation: float) -> None:
    stream = random.Random(1)
    draws = [law.draw(stream) for _ in range(DRAWS)]
    assert law.mean_s == pytest.approx(mean)
    assert close(draws, mean, deviation)
    assert math.sqrt(pvariance(draws)) == pytest.approx(deviation, rel=0.1)
    assert all(draw == round(draw, 9) for draw in draws)


@pytest.mark.parametrize(("law", "mean", "deviation"), LAWS)
def test_what_is_left_at_any_moment_is_on_average_half_the_mean_square_over_the_mean(
    law: Distribution, mean: float, deviation: float
) -> None:  # fmt: skip
    """E[residual] = E[X^2] / 2 E[X] (the inspection paradox): more than half a gap, and with a shape below 1 more than a whole one."""
    stream = random.Random(2)
    draws = [law.residual(stream) for _ in range(DRAWS)]
    assert fmean(draws) == pytest.approx((deviation**2 + mean**2) / (2 * mean), rel=0.06)


@pytest.mark.parametrize("law", [law for law, *_ in LAWS])
def test_so_a_process_that_has_long_been_running_strikes_at_its_rate_from_the_first_moment(law: Distribution) -> None:
    """In a stationary renewal process as many events fall into any interval: here into the first tenth of a mean."""
    stream, within = random.Random(3), law.mean_s / 10
    count = 0
    for _ in range(DRAWS):
        due = law.residual(stream)
        while due < within:
            count += 1
            due += law.draw(stream)
    assert count / DRAWS == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("shape", [0.5, 1.0, 2.0])
def test_a_weibull_s_shape_is_how_its_hazard_grows(shape: float) -> None:
    """P(X > t) = exp(-(t / scale)^shape)."""
    law, stream = weibull(shape), random.Random(4)
    draws = [law.draw(stream) for _ in range(DRAWS)]
    scale = 30.0 / math.gamma(1 + 1 / shape)
    for part in (0.25, 1.0, 2.0):
        assert sum(draw > part * scale for draw in draws) / DRAWS == pytest.approx(math.exp(-(part**shape)), abs=0.01)


def test_half_of_a_lognormal_is_above_its_median() -> None:
    law, stream = lognormal(1.4), random.Random(5)
    assert sum(law.draw(stream) > 60 for _ in range(DRAWS)) / DRAWS == pytest.approx(0.5, abs=0.01)


def test_a_plain_duration_is_always_that_and_nothing_is_drawn_for_it() -> None:
    law, stream = made("30 s"), random.Random(6)
    assert (law.draw(stream), law.residual(stream), law.mean_s, law.longest_s, law.drawn) == (30.0, 30.0, 30.0, 30.0, False)
    assert stream.random() == random.Random(6).random()


def write(tmp_path: Path, text: str) -> dict[str, Any]:
    (tmp_path / "gaps.csv").write_text(text, encoding="utf-8")
    return {"empirical": {"file": str(tmp_path / "gaps.csv")}}


def test_a_file_s_durations_are_drawn_each_as_likely(tmp_path: Path) -> None:
    law, stream = made(write(tmp_path, "# measured\n10 s\n\n2 min  # slow\n20 s\n")), random.Random(7)
    draws = [law.draw(stream) for _ in range(9000)]
    assert {draw: round(draws.count(draw) / len(draws), 1) for draw in draws} == {10.0: 0.3, 20.0: 0.3, 120.0: 0.3}
    assert (law.mean_s, law.longest_s) == (50.0, 120.0)
    residuals = [law.residual(stream) for _ in range(DRAWS)]
    assert fmean(residuals) == pytest.approx((100 + 400 + 14400) / 3 / (2 * 50), rel=0.03)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"weibull": {"shape": 0.7}}, "mean"),
        ({"exponential": {}}, "mean"),
        ({"lognormal": {"sigma": 1}}, "median or mean"),
        ({"lognormal": {"sigma": 1, "mean": "1 s", "median": "1 s"}}, "median or mean"),
        ({"weibull": {"shape": 0, "mean": "1 s"}}, "greater than 0"),
        ({}, "one of constant, exponential, weibull, lognormal, empirical"),
        ({"exponential": {"mean": "1 s"}, "weibull": {"shape": 1, "mean": "1 s"}}, "one of"),
        (30, "did you mean '30 s'"),
        ({"exponential": {"mean": "0 s"}}, "more than 0 s"),
    ],
)
def test_a_law_that_is_none_is_refused(told: Any, said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        made(told)
    assert said in str(refused.value)


def test_every_bad_line_of_a_file_is_told_with_its_number(tmp_path: Path) -> None:
    bad: list[Callable[[], Distribution]] = [
        lambda: made(write(tmp_path, "10 s\nten\n\n12\n5 s\n-3 s\n")),
        lambda: made({"empirical": {"file": str(tmp_path / "none.csv")}}),
    ]
    with pytest.raises(ValidationError, match=r"line 2 \('ten'\), line 4 \('12'\), line 6 \('-3 s'\): no duration"):
        bad[0]()
    with pytest.raises(ValidationError, match="No such file"):
        bad[1]()


def test_an_empty_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="holds no duration"):
        made(write(tmp_path, "# nothing yet\n"))
