"""Operations on named vectors, against one whole vector, however it is cut."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core import operations, vector
from core.operations import Combine, Dot, Drop, Largest, Norm1, Operation, Unknown, cost, largest, merged, run
from core.vector import Phantom, cut

NAMES = ("a", "b", "c", "d")
numbers = (
    st.builds(Dot, st.sampled_from(NAMES), st.sampled_from(NAMES))
    | st.builds(Norm1, st.sampled_from(NAMES))
    | st.builds(Largest, st.sampled_from(NAMES))
)
terms = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(-2, 2).map(float)), min_size=1, max_size=5).map(tuple)
batches = st.lists(numbers | st.builds(Combine, st.sampled_from((*NAMES, "e")), terms) | st.just(Drop(("e",))), max_size=12)


def naive(batch: list[Operation], whole: dict[str, torch.Tensor]) -> list[float]:
    """The definitions, on whole vectors."""
    answers = []
    for operation in batch:
        match operation:
            case Dot(a, b):
                answers.append(float((whole[a] * whole[b]).sum()))
            case Norm1(a):
                answers.append(float(whole[a].abs().sum()))
            case Largest(a):
                answers.append(float(max(whole[a].abs(), default=0.0)))
            case Combine(into, some):
                whole[into] = sum((coefficient * whole[name] for name, coefficient in some), torch.zeros_like(whole["a"]))
            case Drop(names):
                for name in names:
                    whole.pop(name, None)
    return answers


def integers(count: int, seed: int) -> dict[str, torch.Tensor]:
    """Whole numbers in float64, of which every sum is exact in any order."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randint(-9, 10, (count,), generator=generator).double() for name in NAMES}


@given(batches, st.integers(0, 60), st.integers(1, 7), st.integers(1, 9), st.integers(0, 99))
def test_however_it_is_cut_every_answer_is_that_of_one_vector(
    batch: list[Operation], count: int, shards: int, block: int, seed: int
) -> None:
    whole = integers(count, seed)
    parts = [{name: vector[part].clone() for name, vector in whole.items()} for part in cut(count, shards)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector, "BLOCK", block)
        patch.setattr(operations, "CACHED", block)
        answers = merged(batch, [run(batch, part) for part in parts])
    assert answers == naive(batch, whole)
    assert all(part.keys() == whole.keys() for part in parts)
    for name in whole:
        assert torch.equal(torch.cat([part[name] for part in parts]), whole[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_of_long_vectors_are_exact_but_for_the_last_digits(dtype: torch.dtype) -> None:
    """All of one sign, where float32's sums of a million lose four digits; and cancelling, where they lose all."""
    one = torch.rand(1_000_003, dtype=dtype, generator=torch.Generator().manual_seed(0))
    other = torch.cat([one[:500_001], -one[:500_001], one[:1]])
    answers = run([Dot("one", "one"), Norm1("one"), Dot("other", "ones")], {"one": one, "other": other, "ones": torch.ones_like(other)})
    assert answers[0] == pytest.approx(math.fsum((one.double() ** 2).tolist()), rel=1e-13)
    assert answers[1] == pytest.approx(math.fsum(one.tolist()), rel=1e-13)
    assert answers[2] == pytest.approx(float(one[0]), rel=1e-8)


def test_combining_into_itself_is_in_place() -> None:
    vectors: dict[str, Any] = {"w": torch.ones(5), "d": torch.arange(5.0)}
    before = vectors["w"].data_ptr()
    run([Combine("w", (("w", 1.0), ("d", 0.5), ("w", 1.0)))], vectors)
    assert vectors["w"].tolist() == [2.0, 2.5, 3.0, 3.5, 4.0]
    assert vectors["w"].data_ptr() == before


def test_an_old_value_that_is_no_term_leaves_no_trace() -> None:
    vectors: dict[str, Any] = {"w": torch.full((5,), math.nan), "d": torch.arange(5.0)}
    run([Combine("w", (("d", 2.0),))], vectors)
    assert vectors["w"].tolist() == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    "last",
    [Dot("w", "nothing"), Norm1("nothing"), Largest("dropped"), Combine("x", (("w", 1.0), ("nothing", 1.0)))],
    ids=lambda last: type(last).__name__,
)
def test_an_unknown_name_is_found_before_anything_is_done(last: Operation) -> None:
    vectors: dict[str, Any] = {"w": torch.ones(3), "dropped": torch.ones(3)}
    with pytest.raises(Unknown):
        run([Combine("w", (("w", 2.0),)), Combine("new", (("w", 1.0),)), Drop(("dropped",)), last], vectors)
    assert vectors.keys() == {"w", "dropped"}
    assert vectors["w"].tolist() == [1, 1, 1]


def test_a_name_made_in_the_batch_is_known_in_it_and_dropping_nothing_is_no_error() -> None:
    vectors: dict[str, Any] = {"w": torch.ones(3)}
    assert run([Combine("new", (("w", 2.0),)), Dot("new", "w"), Drop(("new", "never"))], vectors) == [6.0]
    assert vectors.keys() == {"w"}


def test_phantoms_are_made_and_dropped_and_all_their_numbers_are_zero() -> None:
    vectors: dict[str, Any] = {"w": Phantom(10**12)}
    assert run([Combine("new", (("w", 2.0),)), Dot("new", "w"), Norm1("new"), Largest("w")], vectors) == [0.0, 0.0, 0.0]
    assert (len(vectors["new"]), vectors["new"].nbytes) == (10**12, 4 * 10**12)
    run([Drop(("new",))], vectors)
    assert vectors.keys() == {"w"}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_no_finite_number_hides_one_that_is_not(bad: float) -> None:
    vectors: dict[str, Any] = {"w": torch.cat([torch.ones(20_000), torch.tensor([bad]), torch.ones(20_000)])}
    batch = [Dot("w", "w"), Norm1("w"), Largest("w")]
    answers = merged(batch, [run(batch, {"w": torch.ones(9)}), run(batch, vectors), run(batch, {"w": torch.ones(9)})])
    assert not any(map(math.isfinite, answers))


def test_what_together_is_beyond_float64_is_infinite() -> None:
    batch = [Dot("w", "w")]
    assert merged(batch, [[1e308], [1e308]]) == [math.inf]
    assert math.isnan(merged(batch, [[math.inf], [-math.inf]])[0])
    assert math.isnan(largest([1.0, math.nan, 2.0]))
    assert largest([]) == 0.0


def test_what_a_batch_costs() -> None:
    batch = [Dot("a", "b"), Norm1("a"), Combine("a", (("a", 1.0), ("b", 2.0))), Drop(("b",))]
    assert cost(batch, 100).bytes == 100 * (2 + 1 + 3)
