"""Which machine a role goes to, and why it goes nowhere."""

from __future__ import annotations

from core.placement import Needs, Site, place
from core.reports import Capacity


def sites(**machines: Capacity) -> dict[str, Site]:
    return {name: Site(capacity) for name, capacity in machines.items()}


def test_roles_are_spread_in_the_order_of_the_machines() -> None:
    two = sites(a=Capacity(), b=Capacity())
    found = []
    for role in ("shard/0", "shard/1", "shard/2"):
        name, _ = place(role, Needs(), two)
        two[name].taken[role] = Needs()
        found.append(name)
    assert found == ["a", "b", "a"]


def test_a_role_goes_back_to_where_it_was_if_it_fits() -> None:
    two = sites(a=Capacity(), b=Capacity())
    two["b"].taken["other"] = Needs()
    assert place("shard/0", Needs(), two, last="b") == ("b", "")
    assert place("shard/0", Needs(), {"a": two["a"]}, last="b") == ("a", "")


def test_a_mirror_keeps_apart_from_its_shard_where_there_is_another_machine() -> None:
    two = sites(a=Capacity(), b=Capacity())
    two["a"].taken["shard/0"] = Needs()
    two["b"].taken |= {"x": Needs(), "y": Needs()}
    assert place("mirror/0", Needs(), two, apart_from="shard/0") == ("b", "")
    assert place("mirror/0", Needs(), {"a": two["a"]}, apart_from="shard/0") == ("a", "")


def test_what_is_kept_binds_a_role_to_its_storage() -> None:
    three = sites(a=Capacity(storage="disk of a"), b=Capacity(storage="shared"), c=Capacity(storage="shared"))
    assert place("shard/0", Needs(), three, last="b", storage="shared") == ("b", "")
    del three["b"]
    assert place("shard/0", Needs(), three, last="b", storage="shared") == ("c", "")
    del three["c"]
    assert place("shard/0", Needs(), three, last="b", storage="shared") == (
        "",
        "no machine for shard/0: a does not hold what shard/0 has kept",
    )


def test_what_is_missing_is_said_of_every_machine() -> None:
    two = sites(a=Capacity(cores=4, gpus=1, memory_bytes=8), b=Capacity(cores=1, memory_bytes=99))
    two["a"].taken["replica/0"] = Needs(cores=3, gpus=1)
    name, why = place("replica/1", Needs(cores=2, gpus=1), two)
    assert name == ""
    assert "a lacks cores: 2 wanted, 1 free, gpus: 1 wanted, 0 free" in why
    assert "b lacks cores: 2 wanted, 1 free, gpus: 1 wanted, 0 free" in why
    assert place("replica/1", Needs(), {}) == ("", "no machine for replica/1: none is up")
