"""A user's own code, named as "path/to/file.py:function" or "package.module:function".

A file is loaded by its path, under a name of its own: `sys.path` stays as it is for everyone else.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from models.errors import UserCodeError


def call(reference: str, key: str) -> Any:
    """Load the function that `reference` names and call it; `key` is the scenario's key, for the message."""
    place, _, name = reference.rpartition(":")
    try:
        module = load_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        function = getattr(module, name)
    except UserCodeError as error:
        raise UserCodeError(f"{key} = {reference!r}: {error}") from None
    except AttributeError:
        functions = ", ".join(n for n, value in vars(module).items() if callable(value) and not n.startswith("_")) or "none"
        raise UserCodeError(f"{key} = {reference!r}: no {name!r} there; it has {functions}") from None
    except Exception as error:
        raise UserCodeError(f"{key} = {reference!r}: cannot be loaded: {told(error)}") from error
    if not callable(function):
        raise UserCodeError(f"{key} = {reference!r}: {name!r} is a {type(function).__name__}, not a function")
    try:
        return function()
    except Exception as error:
        raise UserCodeError(f"{key} = {reference!r}: failed: {told(error)}") from error


def load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserCodeError(f"no file {path}")
    name = f"user_{path.stem}_{abs(hash(str(path.resolve()))):x}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling of the user's own look here
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def told(error: BaseException) -> str:
    """The error with the last line of the user's own code that it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" (line {frames[-1].lineno} of {frames[-1].filename})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
