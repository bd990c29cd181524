"""Tables written as TOML are read as what they were."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenarios.load import bundled, load
from scenarios.toml import dumps

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
plain = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
)
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=6)


@given(st.dictionaries(names, values, max_size=4))
def test_whatever_tables_come_back_as_they_were(tables: dict[str, Any]) -> None:
    assert tomllib.loads(dumps(tables)) == tables


@pytest.mark.parametrize("name", sorted(bundled()))
def test_a_bundled_scenario_is_written_as_it_was_read_with_its_overrides(name: str) -> None:
    scenario = load(name, ["seed=99", "protocol.detect_within='7 s'"])
    tables = tomllib.loads(scenario.toml())
    assert (tables["seed"], tables["protocol"]["detect_within"]) == (99, "7 s")
    assert tables == scenario._given
