"""How long something lasts, or until it happens again: a duration, or a distribution that durations are drawn from.

"30 s"                                                     always that
{ exponential = { mean = "30 min" } }
{ weibull = { shape = 0.7, mean = "30 min" } }             shape < 1: the longer it went well, the longer it will
{ lognormal = { median = "60 s", sigma = 1.4 } }           or mean in the place of median
{ empirical = { file = "repairs.csv" } }                   one of the durations in that file, each as likely

`draw` is a whole one; `residual` what is left of one for somebody who comes along at any moment: of gaps between failures of
a machine that has long been running when a job begins on it, the first.  It has the density (1 - F(x)) / mean: a length-biased
draw (density x f(x) / mean) times a uniform one (Cox, Renewal Theory, 1962, section 5.2).
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, model_validator

from scenarios.table import NotNegative, Positive, Table
from scenarios.units import Duration, PositiveDuration, duration


class Constant(Table):
    value: Duration

    def draw(self, _: random.Random) -> float:
        return self.value

    def residual(self, _: random.Random) -> float:
        """A timetable begins at 0."""
        return self.value

    @property
    def mean_s(self) -> float:
        return self.value

    @property
    def longest_s(self) -> float:
        return self.value


class Exponential(Table):
    mean: PositiveDuration

    def draw(self, stream: random.Random) -> float:
        return stream.expovariate(1 / self.mean)

    def residual(self, stream: random.Random) -> float:
        return self.draw(stream)  # it has no memory

    @property
    def mean_s(self) -> float:
        return self.mean


class Weibull(Table):
    shape: Positive
    mean: PositiveDuration

    def draw(self, stream: random.Random) -> float:
        return stream.weibullvariate(self.scale_s, self.shape)

    def residual(self, stream: random.Random) -> float:
        biased: float = stream.gammavariate(1 + 1 / self.shape, 1.0) ** (1 / self.shape)
        return self.scale_s * biased * stream.random()

    @property
    def scale_s(self) -> float:
        return self.mean / math.gamma(1 + 1 / self.shape)

    @property
    def mean_s(self) -> float:
        return self.mean


class Lognormal(Table):
    median: PositiveDuration | None = None
    mean: PositiveDuration | None = None
    sigma: NotNegative

    @model_validator(mode="after")
    def one_of_both(self) -> Self:
        if (self.median is None) == (self.mean is None):
            raise ValueError("allowed: median or mean, one of them")
        return self

    @property
    def mean_s(self) -> float:
        return self.mean if self.mean is not None else (self.median or 0.0) * math.exp(self.sigma**2 / 2)

    def draw(self, stream: random.Random) -> float:
        return self.sampler(stream)()

    def sampler(self, stream: random.Random) -> Callable[[], float]:
        return functools.partial(stream.lognormvariate, math.log(self.mean_s) - self.sigma**2 / 2, self.sigma)

    def residual(self, stream: random.Random) -> float:
        return stream.lognormvariate(math.log(self.mean_s) + self.sigma**2 / 2, self.sigma) * stream.random()


class Empirical(Table):
    file: str

    @model_validator(mode="after")
    def readable(self) -> Self:
        durations_in(self.file)
        return self

    def draw(self, stream: random.Random) -> float:
        return stream.choice(durations_in(self.file))

    def residual(self, stream: random.Random) -> float:
        found = durations_in(self.file)
        return stream.choices(found, weights=found)[0] * stream.random()

    @property
    def mean_s(self) -> float:
        return math.fsum(durations_in(self.file)) / len(durations_in(self.file))

    @property
    def longest_s(self) -> float:
        return max(durations_in(self.file))


@functools.cache
def durations_in(file: str) -> tuple[float, ...]:
    """Seconds: one quantity with its unit in each line; empty lines and what follows a # are skipped.  Raises ValueError, with every bad line."""
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    found, wrong = [], []
    for number, line in enumerate(lines, start=1):
        if text := line.partition("#")[0].strip():
            try:
                found.append(duration(text))
            except ValueError:
                wrong.append(f"line {number} ({text!r})")
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: no duration; allowed: one in each line, as 30 s")
    if not found:
        raise ValueError("holds no duration; allowed: one in each line, as 30 s")
    return tuple(found)


class Distribution(Table):
    """One of the laws above."""

    constant: Constant | None = None
    exponential: Exponential | None = None
    weibull: Weibull | None = None
    lognormal: Lognormal | None = None
    empirical: Empirical | None = None

    @model_validator(mode="after")
    def exactly_one(self) -> Self:
        if sum(getattr(self, name) is not None for name in type(self).model_fields) != 1:
            raise ValueError(f"allowed: one of {', '.join(type(self).model_fields)}")
        return self

    @functools.cached_property
    def law(self) -> Any:
        return next(law for name in type(self).model_fields if (law := getattr(self, name)) is not None)

    def draw(self, stream: random.Random) -> float:
        """Seconds, to the nanosecond: libm differs in the last bit from machine to machine."""
        return round(float(self.law.draw(stream)), 9)

    def sampler(self, stream: random.Random) -> Callable[[], float]:
        """`draw` of that stream, for whoever draws often: what depends on the law alone is worked out once."""
        draw = self.law.sampler(stream) if isinstance(self.law, Lognormal) else functools.partial(self.law.draw, stream)
        return lambda: round(float(draw()), 9)

    def residual(self, stream: random.Random) -> float:
        """Seconds that are left of one that began long ago, to the nanosecond."""
        return round(float(self.law.residual(stream)), 9)

    @property
    def mean_s(self) -> float:
        return float(self.law.mean_s)

    @property
    def longest_s(self) -> float:
        """The longest that there can be: infinite but for a constant and a file."""
        return float(getattr(self.law, "longest_s", math.inf))

    @property
    def drawn(self) -> bool:
        """Does it depend on chance?"""
        return self.constant is None


def distribution(value: Any) -> Any:
    """A plain duration is always that."""
    return {"constant": {"value": value}} if isinstance(value, str | int | float) else value


Durations = Annotated[Distribution, BeforeValidator(distribution)]


def lasting(value: Distribution) -> Distribution:
    if value.mean_s <= 0:
        raise ValueError("must be more than 0 s on average")
    return value


Lasting = Annotated[Durations, AfterValidator(lasting)]
"""For what takes turns, which would never end in an instant."""


def constant(seconds: float) -> Distribution:
    """Always that."""
    return Distribution.model_construct(constant=Constant.model_construct(value=seconds))
