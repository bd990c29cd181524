"""A scenario's tables written as TOML, so that a run's folder holds what was run, overrides included."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any


def dumps(tables: Mapping[str, Any]) -> str:
    """TOML of what `tomllib` read; dates and times, which no scenario has, aside."""
    return "\n".join(lines(tables)) + "\n"


def lines(tables: Mapping[str, Any]) -> Iterator[str]:
    """Plain values first, then the tables; those within tables are written inline, as scenarios do."""
    within = {name: value for name, value in tables.items() if is_table(value) or are_tables(value)}
    for name, value in tables.items():
        if name not in within:
            yield f"{key(name)} = {inline(value)}"
    for name, value in within.items():
        for one in value if isinstance(value, list) else [value]:
            yield ""
            yield f"[[{key(name)}]]" if isinstance(value, list) else f"[{key(name)}]"
            yield from (f"{key(inner)} = {inline(given)}" for inner, given in one.items())


def is_table(value: object) -> bool:
    return isinstance(value, Mapping)


def are_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_table, value))


def key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else string(name)


def inline(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return string(value)
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key(name)} = {inline(given)}' for name, given in value.items())} }}" if value else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(inline, value))}]"
    return repr(value)


def string(text: str) -> str:
    """A basic string; TOML's escapes are those of JSON, and DEL is escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
