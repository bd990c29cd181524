"""Messages of supervision and coordination as JSON documents: many small fields, seldom sent, checked by pydantic against core's own types."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from core.coordination import Memory, Missing, Operate, Recall, Task, Values, Want
from core.messages import Reply, Request
from core.passing import Overdue, Word
from core.reports import Beat, Conclude, Inquire, Orders, Overview, Report, Standing
from exec.malformed import fit

KINDS: dict[str, type[Any]] = {
    kind.__name__.lower(): kind
    for kind in (
        *(Beat, Standing, Report, Orders, Inquire, Conclude, Overview),
        *(Want, Task, Recall, Memory, Operate, Values, Missing),
        *(Word, Overdue),
    )
}


WHOLE = "memo"
"""What a coordinator's next life must have to the letter: no text for people, and of no length that is known beforehand."""


class NoDocument(Exception):
    """It is not what encoding its meaning gives; the message says in what way."""


def is_document(message: Request[Any] | Reply) -> bool:
    return type(message).__name__.lower() in KINDS


def encode(message: Any) -> tuple[str, bytes]:
    """Kind and text."""
    kind = type(message).__name__.lower()
    return kind, to_json(fitted(adapter(kind).dump_python(message)), inf_nan_mode="constants")  # a loss may be none, or no number


def decode(kind: str, text: bytes) -> Any:
    """Raises NoDocument."""
    if kind not in KINDS:
        raise NoDocument(f"a document of kind {kind[:40]!r}")
    try:
        message = adapter(kind).validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise NoDocument(f"a {kind} whose {'.'.join(map(str, first['loc'])) or 'text'} is wrong: {first['msg']}") from error
    if encode(message) != (kind, text):
        raise NoDocument(f"a {kind} of {len(text)} bytes, not all of which mean something")
    return message


def fitted(value: Any) -> Any:
    """The same with every text in it as `exec.malformed.check_text` takes it; a memo is no text for people, and must come back whole."""
    if isinstance(value, str):
        return fit(value)
    if isinstance(value, dict):
        return {key: part if key == WHOLE else fitted(part) for key, part in value.items()}
    return [fitted(part) for part in value] if isinstance(value, list | tuple) else value


@cache
def adapter(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(KINDS[kind])
