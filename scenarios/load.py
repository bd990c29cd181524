"""From a TOML file to a checked `Scenario`, or every mistake in it at once."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from models.catalogue import BUNDLED
from scenarios.cluster import filled_in
from scenarios.expectations import Expectation
from scenarios.faults import Fault
from scenarios.protocols import one_shard_each
from scenarios.schema import Model, Scenario
from scenarios.sense import file_in, senseless
from scenarios.words import nearest


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong: where, what was found, what is allowed, the nearest name."""

    file: str
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}: {self.path}: {self.message}" if self.path else f"{self.file}: {self.message}"


class ScenarioError(Exception):
    """The scenario cannot be used; `mistakes` holds every reason."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(map(str, self.mistakes)))


def bundled() -> dict[str, Path]:
    """The scenarios that come with the distribution, by name."""
    folder = Path(__file__).parent
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find(given: str) -> Path:
    """The file itself, or the bundled scenario of that name ("quickstart", "scenarios/quickstart.toml")."""
    path = Path(given)
    if path.is_file():
        return path
    known = bundled()
    name = path.stem if path.parent in (Path(), Path("scenarios")) else ""
    if name in known:
        return known[name]
    raise ScenarioError([Mistake(given, "", f"no such file{nearest(path.stem, known)}; bundled: {', '.join(known)}")])


def load(given: str, overrides: Sequence[str] = ()) -> Scenario:
    """Read and check a scenario; `overrides` are "protocol.replicas=4".  Raises ScenarioError."""
    path = find(given)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ScenarioError([Mistake(given, "", f"cannot be read as TOML: {error}")]) from None
    mistakes = [mistake for override in overrides if (mistake := apply(raw, override))]
    raw.setdefault("name", re.sub(r"[^A-Za-z0-9_.-]|^[^A-Za-z0-9]", "-", path.stem)[:80].lstrip("-._") or "scenario")
    anchor(raw, path.parent)
    scenario, found = validate(raw, given)
    if mistakes or found or scenario is None:
        raise ScenarioError([*mistakes, *found])
    scenario._file, scenario._given = given, raw
    return scenario


def apply(raw: dict[str, Any], override: str) -> Mistake | None:
    """Put one "a.b.c=value" into the tables; the value is TOML, or a plain word taken as a string."""
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        return Mistake("--set", override, "found no 'key.path=value'; allowed: as protocol.replicas=4")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    table: Any = raw
    *parents, last = key.split(".")
    for parent in parents:
        if isinstance(table, list) and parent.isdigit() and int(parent) < len(table):
            table = table[int(parent)]
        elif isinstance(table, dict):
            table = table.setdefault(parent, {})
        else:
            return Mistake("--set", key, f"{parent!r} is not in a table")
    if isinstance(table, list) and last.isdigit() and int(last) < len(table):
        table[int(last)] = value
    elif isinstance(table, dict):
        table[last] = value
    else:
        return Mistake("--set", key, f"{last!r} is not in a table")
    return None


def anchor(raw: dict[str, Any], folder: Path) -> None:
    """Files that a scenario names are beside it, unless they are found from where the user stands."""
    for name, key in (("model", "network"), ("model", "start"), ("data", "source")):
        table: Any = raw.get(name)
        if isinstance(table, dict) and key in table:
            table[key] = beside(table[key], folder)
    anchor_code(raw, folder)
    for name in ("cluster", "network", "fault"):
        anchor_files(raw.get(name), folder)


def anchor_code(raw: dict[str, Any], folder: Path) -> None:
    """The same for `protocol.own` and `invariants`."""
    protocol = raw.get("protocol")
    own: Any = protocol.get("own") if isinstance(protocol, dict) else None
    for key, value in list(own.items()) if isinstance(own, dict) else ():
        own[key] = beside(value, folder)
    if isinstance(raw.get("invariants"), list):
        raw["invariants"] = [beside(value, folder) for value in raw["invariants"]]


def beside(value: Any, folder: Path) -> Any:
    """The name of a file, perhaps with what is meant in it, as it is found from where the user stands."""
    if not isinstance(value, str):
        return value
    file, what = file_in(value)
    return f"{folder / file}{what}" if file is not None and not file.is_file() and (folder / file).is_file() else value


def anchor_files(table: Any, folder: Path) -> None:
    """The same for every key `file`, however deep: of a distribution, a topology, a trace."""
    for value in table.values() if isinstance(table, dict) else table if isinstance(table, list) else ():
        anchor_files(value, folder)
    if isinstance(table, dict) and isinstance(file := table.get("file"), str) and not Path(file).is_file() and (folder / file).is_file():
        table["file"] = str(folder / file)


def validate(raw: dict[str, Any], file: str) -> tuple[Scenario | None, list[Mistake]]:
    """Every mistake of form, and every mistake of sense among the tables whose form is right."""
    raw = one_shard_each(filled_in(raw))
    try:
        scenario = Scenario.model_validate(raw)
        sections: dict[str, Any] = {name: getattr(scenario, name) for name in type(scenario).model_fields}
        mistakes: list[Mistake] = []
    except ValidationError as error:
        scenario, sections = None, {}
        mistakes = [in_words(problem, file) for problem in error.errors(include_url=False)]
        for name, info in Scenario.model_fields.items():
            if (info.alias or name) in raw:
                value = raw[info.alias or name]
                sections[name] = valid_each(EACH[name], value) if name in EACH else valid(info.rebuild_annotation(), value)
            else:
                sections[name] = info.get_default(call_default_factory=True, validated_data={})
    mistakes += [Mistake(file, path, message) for path, message in senseless(sections, partitions_of(raw))]
    return scenario, mistakes


def partitions_of(raw: dict[str, Any]) -> int | None:
    """How many machines a replica is of, whatever else is wrong with that table; None where it cannot be told."""
    table, field = raw.get("model", {}), Model.model_fields["partitions"]
    return valid(field.rebuild_annotation(), table.get("partitions", field.default)) if isinstance(table, dict) else None


def valid(annotation: Any, value: Any) -> Any:
    """The value as that type, or None: what is wrong with it is told already."""
    try:
        return TypeAdapter(annotation).validate_python(value)
    except ValidationError:
        return None


EACH: dict[str, Any] = {"fault": Fault, "expect": Expectation}
"""Tables that stand several times."""


def valid_each(annotation: Any, value: Any) -> list[Any]:
    """Each by itself, None in the place of one whose form is wrong."""
    return [valid(annotation, one) for one in value] if isinstance(value, list) else []


def in_words(problem: Any, file: str) -> Mistake:
    """One of pydantic's errors: what was found, what is allowed, the nearest name."""
    loc = problem["loc"]
    path = ".".join(str(part) for index, part in enumerate(loc) if not is_tag(part, loc[:index]))
    path = path.removesuffix(".constant.value")  # a plain duration that stands for a distribution
    if problem["type"].startswith("union_tag"):
        path = f"{path}.kind"
    tell = TOLD.get(
        problem["type"], lambda problem: f"found {short(problem['input'])}; allowed: {problem['msg'].removeprefix('Input should be ')}"
    )
    return Mistake(file, path, tell(problem))


def unknown_key(problem: Any) -> str:
    *table, key = problem["loc"]
    keys = allowed_keys(table)
    return f"unknown key{nearest(str(key), keys)}; allowed: {', '.join(keys)}"


def unknown_tag(problem: Any) -> str:
    tags, tag = problem["ctx"]["expected_tags"].replace("'", ""), problem["ctx"]["tag"]
    return f"found {tag!r}{nearest(tag, tags.split(', '))}; allowed: {tags}"


def unknown_word(problem: Any) -> str:
    found, words = problem["input"], problem["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
    return f"found {found!r}{nearest(str(found), words.split(', '))}; allowed: {words}"


def our_own_check(problem: Any) -> str:
    near = nearest(str(problem["input"]), BUNDLED) if problem["loc"] == ("model", "network") else ""
    return f"found {short(problem['input'])}{near}; {problem['ctx']['error']}"


TOLD: dict[str, Callable[[Any], str]] = {
    "extra_forbidden": unknown_key,
    "missing": lambda _: "missing; it has no default",
    "union_tag_not_found": lambda problem: f"missing; allowed: {', '.join(sorted(map(tag, tables_at(problem['loc']))))}",
    "union_tag_invalid": unknown_tag,
    "literal_error": unknown_word,
    "value_error": our_own_check,
}
"""How each of pydantic's kinds of error is told; the others say themselves what is allowed."""


def short(found: object) -> str:
    text = repr(found)
    return text if len(text) <= 60 else text[:57] + "..."


def is_tag(part: int | str, before: Sequence[int | str]) -> bool:
    """Pydantic puts the tag of a tagged union into the path, which nobody wrote: ("fault", 0, "crash", "at")."""
    tables = tables_at(before)
    return len(tables) > 1 and part in [tag(table) for table in tables]


def tables_at(loc: Sequence[int | str]) -> set[type[BaseModel]]:
    """The tables that may stand at that place of the schema; several where a kind has yet to be told."""
    models: set[type[BaseModel]] = {Scenario}
    for part in loc:
        tagged = {model for model in models if tag(model) == part} if len(models) > 1 else set()
        fields = [model.model_fields[str(part)] for model in models if part in model.model_fields]
        if tagged:  # first, since "racks" is also a key of that table
            models = tagged
        elif fields:
            models = {found for field in fields for found in models_in(field.annotation)}
    return models


def allowed_keys(loc: Sequence[int | str]) -> list[str]:
    """The keys of the table at that place."""
    return [field.alias or name for model in tables_at(loc) for name, field in model.model_fields.items()]


def models_in(annotation: Any) -> set[type[BaseModel]]:
    """Every table type that a field's annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {found for argument in getattr(annotation, "__args__", ()) for found in models_in(argument)}


def tag(model: type[BaseModel]) -> str:
    kind = model.model_fields.get("kind")
    return str(kind.annotation.__args__[0]) if kind and kind.annotation else ""
