"""A user's own code, named as "path/to/file.py:function" or "package.module:function".

A file is loaded by its path, under a name of its own.  While it is loaded and called, its folder (for a package: the folder
that the user stands in) is the last on `sys.path`, so that it finds its neighbours and hides nobody; afterwards the path is
as it was.
"""

from __future__ import annotations

import importlib
import importlib.util
import random
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from core import chance
from models.errors import UserCodeError

FOREIGN = re.compile(rf"^<|[\\/]site-packages[\\/]|{re.escape(sysconfig.get_path('stdlib'))}|{re.escape(str(Path(__file__).parent))}[\\/]")
"""Files that no user of ours wrote."""


def call(reference: str, key: str) -> Any:
    """Load the function that `reference` names and call it; `key` is the scenario's key, for the message."""
    with at_home(reference):
        function = load(reference, key)
        try:
            return function()
        except (Exception, SystemExit) as error:
            raise UserCodeError(f"{key} = {reference!r}: failed: {told(error)}") from error


def find(reference: str, key: str) -> Any:
    """Load the function or class that `reference` names."""
    with at_home(reference):
        return load(reference, key)


def at_home(reference: str) -> AbstractContextManager[None]:
    place = reference.rpartition(":")[0]
    return neighbours(Path(place).resolve().parent if place.endswith(".py") else Path.cwd())


@contextmanager
def neighbours(folder: Path) -> Iterator[None]:
    """Let imports look there last."""
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


@contextmanager
def seeded(seed: int, what: str) -> Iterator[None]:
    """Global random streams at a place that depends on the seed alone, and back where they were afterwards.

    Every process of a job calls the user's functions by itself, and all must get the same network and the same data.
    """
    import numpy as np
    import torch

    key = chance.number(seed, what, "global streams")
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key)
        np.random.seed(key % 2**32)
        random.seed(key)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def load(reference: str, key: str) -> Any:
    place, _, name = reference.rpartition(":")
    try:
        module = load_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        found = getattr(module, name)
    except UserCodeError as error:
        raise UserCodeError(f"{key} = {reference!r}: {error}") from None
    except AttributeError:
        functions = ", ".join(n for n, value in vars(module).items() if callable(value) and not n.startswith("_")) or "none"
        raise UserCodeError(f"{key} = {reference!r}: no {name!r} there; it has {functions}") from None
    except (Exception, SystemExit) as error:
        raise UserCodeError(f"{key} = {reference!r}: cannot be loaded: {told(error)}") from error
    if not callable(found):
        raise UserCodeError(f"{key} = {reference!r}: {name!r} is a {type(found).__name__}, not a function")
    return found


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
    """The error with the last line of the user's own code that it passed, if it passed any."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not FOREIGN.search(frame.filename)]
    where = f" (line {frames[-1].lineno} of {frames[-1].filename})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
