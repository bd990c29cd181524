"""A user's own code: found by path or by module, and every mistake in it told with its key."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from models import user
from models.errors import InputError, UserCodeError


@pytest.fixture
def module(tmp_path: Path) -> Path:
    return tmp_path / "mine.py"


def told(reference: str) -> str:
    with pytest.raises(UserCodeError) as caught:
        user.call(reference, "model.network")
    assert isinstance(caught.value, InputError)
    message = str(caught.value)
    assert message.startswith(f"model.network = {reference!r}: ")
    return message


def test_a_function_of_a_file_is_called(module: Path) -> None:
    module.write_text("def f():\n    return 7\n")
    assert user.call(f"{module}:f", "key") == 7


def test_a_function_of_an_installed_module_is_called() -> None:
    assert user.call("time:monotonic", "key") > 0


def test_a_missing_file_is_told(module: Path) -> None:
    assert f"no file {module}" in told(f"{module}:f")


def test_a_missing_module_is_told() -> None:
    assert "cannot be loaded: ModuleNotFoundError" in told("no_such_package.at_all:f")


def test_a_missing_function_is_told_with_those_that_are_there(module: Path) -> None:
    module.write_text("def network(): ...\ndef _hidden(): ...\nnumber = 3\n")
    assert told(f"{module}:netwrk").endswith("no 'netwrk' there; it has network")


def test_what_is_no_function_is_told(module: Path) -> None:
    module.write_text("number = 3\n")
    assert "'number' is a int, not a function" in told(f"{module}:number")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("def f(:\n", "SyntaxError"),
        ("import no_such_thing\n", "ModuleNotFoundError"),
        ("1 / 0\n", "ZeroDivisionError: division by zero (line 1 of"),
    ],
)
def test_a_file_that_fails_to_load_is_told_with_its_error(module: Path, code: str, error: str) -> None:
    module.write_text(code)
    message = told(f"{module}:f")
    assert "cannot be loaded" in message
    assert error in message


def test_a_function_that_fails_is_told_with_its_line(module: Path) -> None:
    module.write_text("def g():\n    raise KeyError('deep')\ndef f():\n    g()\n")
    assert f"failed: KeyError: 'deep' (line 2 of {module})" in told(f"{module}:f")


def test_a_function_that_wants_arguments_is_told(module: Path) -> None:
    module.write_text("def f(x): ...\n")
    assert "failed: TypeError" in told(f"{module}:f")


def test_the_search_path_of_everyone_else_stays_as_it_was(module: Path) -> None:
    module.write_text("def f():\n    return 7\n")
    before = list(sys.path)
    user.call(f"{module}:f", "key")
    assert sys.path == before
    assert "mine" not in sys.modules


def test_a_file_named_as_one_of_our_rooms_is_loaded_and_takes_nobody_s_place(tmp_path: Path) -> None:
    import models

    (tmp_path / "models.py").write_text("def f():\n    return 'mine'\n")
    assert user.call(f"{tmp_path / 'models.py'}:f", "key") == "mine"
    assert sys.modules["models"] is models


def test_dataclasses_of_a_user_s_file_work(module: Path) -> None:
    module.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass Point:\n    x: int\ndef f():\n    return Point(3).x\n"
    )
    assert user.call(f"{module}:f", "key") == 3


def test_a_file_that_failed_is_read_anew_the_next_time(module: Path) -> None:
    module.write_text("1 / 0\n")
    told(f"{module}:f")
    module.write_text("def f():\n    return 'mended'\n")
    assert user.call(f"{module}:f", "key") == "mended"
