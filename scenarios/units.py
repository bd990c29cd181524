"""Quantities with units, as scenario files write them: "50 us", "10 Gbit/s", "167 MB", "40 GFLOP/s".

Inside the program a duration is float seconds, a size int bytes, a rate float bytes or operations a second.  A bare number
where a unit belongs is an error, because nobody remembers next year whether it was seconds.
"""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

SECONDS = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0,
    "min": 60.0, "h": 3600.0, "d": 86400.0, "days": 86400.0,
}  # fmt: skip
BYTES = {
    "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
    "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40,
}  # fmt: skip
BITS = {"bit": 1 / 8, "kbit": 1e3 / 8, "Mbit": 1e6 / 8, "Gbit": 1e9 / 8, "Tbit": 1e12 / 8}
OPERATIONS = {"FLOP": 1.0, "kFLOP": 1e3, "MFLOP": 1e6, "GFLOP": 1e9, "TFLOP": 1e12, "PFLOP": 1e15}

SHARES = {"ppm": 1e-6, "ppb": 1e-9}

QUANTITY = re.compile(r"\s*([-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-zµ]*(?:/s)?)\s*")


def parse(text: object, units: dict[str, float], example: str) -> float:
    """The quantity in base units.  Raises ValueError saying which units there are."""
    allowed = f"a number with a unit ({', '.join(units)}), as {example!r}"
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise ValueError(f"allowed: {allowed}")
    if not isinstance(text, str):
        unit = example.rsplit(maxsplit=1)[-1]
        raise ValueError(f"a bare number; did you mean '{text} {unit}'? allowed: {allowed}")
    match = QUANTITY.fullmatch(text)
    if match is None or match[2] not in units:
        raise ValueError(f"allowed: {allowed}")
    value = float(match[1].replace("_", "")) * units[match[2]]
    if value < 0 or not math.isfinite(value):
        raise ValueError(f"must be finite and not negative; allowed: {allowed}")
    return value


def per_second(units: dict[str, float]) -> dict[str, float]:
    return {f"{unit}/s": factor for unit, factor in units.items()}


def duration(text: object) -> float:
    """Seconds."""
    return parse(text, SECONDS, "30 s")


def positive_duration(text: object) -> float:
    """Seconds, more than none."""
    value = duration(text)
    if value <= 0:
        raise ValueError("must be more than 0 s")
    return value


def bandwidth(text: object) -> float:
    """Bytes a second, from bits or bytes a second."""
    value = parse(text, per_second(BITS) | per_second(BYTES), "10 Gbit/s")
    if value <= 0:
        raise ValueError("must be more than 0 bit/s")
    return value


def speed(text: object) -> float:
    """Floating-point operations a second."""
    value = parse(text, per_second(OPERATIONS), "40 GFLOP/s")
    if value <= 0:
        raise ValueError("must be more than 0 FLOP/s")
    return value


def operations(text: object) -> float:
    """Floating-point operations."""
    return parse(text, OPERATIONS, "250 MFLOP")


def size(text: object) -> int:
    """Bytes."""
    return round(parse(text, BYTES, "2 GB"))


def updates(text: object) -> int:
    """A count written as "200 updates"."""
    value = parse(text, {"updates": 1.0, "update": 1.0}, "200 updates")
    if value != int(value):
        raise ValueError("must be whole; allowed: as '200 updates'")
    return int(value)


def signed_duration(text: object) -> float:
    """Seconds, perhaps less than none."""
    return negated(text, SECONDS, "30 s")


def share(text: object) -> float:
    """A small part of the whole, perhaps negative, as of a clock's error."""
    return negated(text, SHARES, "200 ppm")


def negated(text: object, units: dict[str, float], example: str) -> float:
    if isinstance(text, str) and text.lstrip().startswith("-"):
        return -parse(text.lstrip()[1:], units, example)
    return parse(text, units, example)


def quantity(example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "examples": [example]})


Duration = Annotated[float, BeforeValidator(duration), quantity("30 s")]
PositiveDuration = Annotated[float, BeforeValidator(positive_duration), quantity("30 s")]
SignedDuration = Annotated[float, BeforeValidator(signed_duration), quantity("-30 s")]
Share = Annotated[float, BeforeValidator(share), quantity("200 ppm")]
Bandwidth = Annotated[float, BeforeValidator(bandwidth), quantity("10 Gbit/s")]
Size = Annotated[int, BeforeValidator(size), quantity("2 GB")]
Speed = Annotated[float, BeforeValidator(speed), quantity("40 GFLOP/s")]
Operations = Annotated[float, BeforeValidator(operations), quantity("250 MFLOP")]
Updates = Annotated[int, BeforeValidator(updates), quantity("200 updates")]


def in_words(seconds: float) -> str:
    """A duration as a person would say it: "350 us", "4.2 s", "3 min 20 s", "2 h 5 min"."""
    if not seconds:
        return "0 s"
    if seconds < 60:
        for unit in ("s", "ms", "us", "ns"):
            if seconds >= SECONDS[unit] or unit == "ns":
                return f"{seconds / SECONDS[unit]:.3g} {unit}"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def size_in_words(nbytes: float) -> str:
    """A size as a person would say it: "850 kB", "1.25 GB"."""
    unit = next(unit for unit in ("TB", "GB", "MB", "kB", "B") if nbytes >= BYTES[unit] or unit == "B")
    return f"{nbytes / BYTES[unit]:.3g} {unit}"


def rate_in_words(bytes_per_s: float) -> str:
    """A bandwidth as a person would say it: "850 kB/s", "1.25 GB/s"."""
    return f"{size_in_words(bytes_per_s)}/s"
