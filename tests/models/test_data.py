"""Data: every source, every mistake in one, and minibatches that cover each replica's subset."""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from models.catalogue import BUNDLED, DIGITS_CLASSES, DIGITS_INPUTS, DIGITS_SAMPLES
from models.data import Data, ReplicaMinibatches, Samples, from_pair, load
from models.errors import DataError, UserCodeError

SYNTHETIC = (100, BUNDLED["mlp"], (5, 3))


def numbered(count: int) -> Samples:
    """Samples whose input is their own number."""
    return Samples(TensorDataset(torch.arange(float(count)).reshape(-1, 1), torch.arange(count)), torch.arange(count))


@pytest.fixture
def npz(tmp_path: Path) -> Callable[..., str]:
    def write(**arrays: Any) -> str:
        np.savez(tmp_path / "data.npz", **arrays)
        return str(tmp_path / "data.npz")

    return write


@pytest.fixture
def code(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        (tmp_path / "own.py").write_text("import torch\nfrom torch.utils.data import Dataset, IterableDataset, TensorDataset\n" + text)
        return f"{tmp_path / 'own.py'}:data"

    return write


def told(source: str) -> str:
    with pytest.raises(DataError) as caught:
        load(source, 0.2, 0)
    assert str(caught.value).startswith("data.source")
    return str(caught.value)


# sources


def test_the_digits_are_those_of_scikit_learn() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    data = load("digits", 0.2, 0)
    every = torch.cat([data.train.indices, data.held_out.indices]).sort().values
    inputs, targets = Samples(data.train.dataset, every).pick(torch.arange(DIGITS_SAMPLES))
    assert torch.equal(inputs, torch.tensor(images / 16, dtype=torch.float32))
    assert torch.equal(targets, torch.tensor(labels))
    assert (inputs.shape, int(targets.max()) + 1) == ((DIGITS_SAMPLES, DIGITS_INPUTS), DIGITS_CLASSES)


def test_an_npz_file_is_read(npz: Callable[..., str]) -> None:
    data = load(npz(x=np.arange(20.0).reshape(10, 2), y=np.arange(10)), 0.2, 0)
    inputs, targets = data.train.pick(torch.arange(8))
    assert inputs.dtype == torch.float32
    assert torch.equal(inputs[:, 0], 2.0 * targets)


def test_synthetic_data_fit_the_network_and_depend_on_the_seed() -> None:
    first, again, other = (load("synthetic", 0.2, seed, SYNTHETIC) for seed in (1, 1, 2))
    inputs = [data.train.dataset[0][0] for data in (first, again, other)]
    assert inputs[0].shape == (5,)
    assert torch.equal(inputs[0], inputs[1])
    assert not torch.equal(inputs[0], inputs[2])


def test_synthetic_data_for_an_unknown_shape_is_refused() -> None:
    assert "only for bundled networks" in told("synthetic")


def test_a_user_s_pair_and_a_user_s_dataset_are_taken(code: Callable[[str], str]) -> None:
    for text in (
        "def data(): return torch.zeros(10, 2), torch.arange(10)\n",
        "def data(): return [[0.0, 1.0]] * 10, list(range(10))\n",
        "def data(): return TensorDataset(torch.zeros(10, 2), torch.arange(10))\n",
        "class Own(Dataset):\n    def __len__(self): return 10\n    def __getitem__(self, i): return torch.zeros(2), i\ndef data(): return Own()\n",
        "class Own(Dataset):\n    def __len__(self): return 10\n    def __getitem__(self, i): return i / 2, i\ndef data(): return Own()\n",
    ):
        inputs, targets = load(code(text), 0.2, 0).train.pick(torch.arange(8))
        assert inputs.shape in ((8, 2), (8,))
        assert len(set(targets.tolist())) == 8


# the split


@given(st.integers(2, 300), st.floats(0.001, 0.999), st.integers(0, 5))
def test_the_split_is_a_partition_with_something_on_each_side(total: int, share: float, seed: int) -> None:
    data = split(total, share, seed)
    train, held_out = data.train.indices.tolist(), data.held_out.indices.tolist()
    assert sorted(train + held_out) == list(range(total))
    assert train
    assert held_out
    assert abs(len(held_out) - share * total) <= 1
    assert split(total, share, seed).train.indices.tolist() == train


def split(total: int, share: float, seed: int) -> Data:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.data.open_source", lambda *_: numbered(total).dataset)
        return load("any", share, seed)


# what is wrong with data


def test_an_npz_without_x_or_y_is_told_with_what_it_has(npz: Callable[..., str]) -> None:
    assert "holds a, x; needed are x and y" in told(npz(a=[1], x=[1]))


def test_an_npz_of_objects_is_refused(npz: Callable[..., str]) -> None:
    assert "cannot be read" in told(npz(x=np.array([{}, []], dtype=object), y=[1, 2]))


@pytest.mark.parametrize(
    "content", [b"", b"no archive", b"PK\x03\x04 and then nothing", b"\x80\x04N."], ids=["empty", "text", "torn zip", "pickle"]
)
def test_a_file_that_is_no_npz_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.npz").write_bytes(content)
    assert "cannot be read" in told(str(tmp_path / "data.npz"))


def test_a_missing_npz_is_told(tmp_path: Path) -> None:
    assert "cannot be read" in told(str(tmp_path / "absent.npz"))


def test_an_npz_whose_bytes_are_damaged_is_told(tmp_path: Path, npz: Callable[..., str]) -> None:
    path = Path(npz(x=np.arange(100.0), y=np.arange(100)))
    content = bytearray(path.read_bytes())
    content[300:320] = b"\xff" * 20
    path.write_bytes(content)
    assert "cannot be read" in told(str(path))


def test_a_single_array_under_the_name_of_an_npz_is_told(tmp_path: Path) -> None:
    array = io.BytesIO()
    np.save(array, np.zeros(3))
    (tmp_path / "data.npz").write_bytes(array.getvalue())
    assert "data.npz" in told(str(tmp_path / "data.npz"))


def test_a_zip_of_something_else_is_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr("x", "text")
        archive.writestr("y", "text")
    assert "data.npz" in told(str(tmp_path / "data.npz"))


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ((np.zeros((4, 2)), np.zeros(5)), "4 inputs and 5 targets"),
        ((np.array([[1.0], [np.nan], [np.inf]]), np.zeros(3)), "inputs of 2 samples hold NaN or infinity, the first is sample 1"),
        ((np.zeros(3), np.array([1.0, 2.0, np.nan])), "targets of 1 samples hold NaN or infinity, the first is sample 2"),
        ((3.0, np.zeros(3)), "inputs are a single number"),
        ((["a", "b"], [1, 2]), "inputs are no numbers"),
        (([[1, 2], [3]], [1, 2]), "inputs are no numbers"),
        ((None, [1]), "inputs are no numbers"),
        (7, "gave a int; allowed: (inputs, targets)"),
        ((1, 2, 3), "gave a tuple"),
        (None, "gave a NoneType"),
    ],
)
def test_a_pair_that_is_none_is_told(pair: Any, said: str) -> None:
    with pytest.raises(DataError, match=r"data\.source = 'mine'") as caught:
        from_pair(pair, "mine")
    assert said in str(caught.value)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_samples_are_told(npz: Callable[..., str], count: int) -> None:
    assert f"{count} samples; at least 2" in told(npz(x=np.zeros((count, 2)), y=np.zeros(count)))


@pytest.mark.parametrize(
    "text",
    [
        "def data(): return TensorDataset(torch.zeros(10, 2))\n",
        "def data(): return TensorDataset(torch.zeros(10, 2), torch.zeros(10), torch.zeros(10))\n",
        "class Own(IterableDataset):\n    def __iter__(self): return iter([(torch.zeros(2), 1)] * 10)\ndef data(): return Own()\n",
        "class Own(Dataset):\n    def __getitem__(self, i): return torch.zeros(2), i\ndef data(): return Own()\n",
        "class Own(Dataset):\n    def __len__(self): return 10\n    def __getitem__(self, i): raise OSError('the disk')\ndef data(): return Own()\n",
        "class Own(Dataset):\n    def __len__(self): return 10\n    def __getitem__(self, i): return torch.zeros(i), i\ndef data(): return Own()\n",
        "class Own(Dataset):\n    def __len__(self): return 10\n    def __getitem__(self, i): return {'x': torch.zeros(2)}, i\ndef data(): return Own()\n",
        "class Own(Dataset):\n    def __len__(self): return 10\n    def __getitem__(self, i): return torch.zeros(2)\ndef data(): return Own()\n",
        "class Own(Dataset):\n    def __len__(self): return 10\n    def __getitem__(self, i): return torch.full((2,), float('nan')), i\ndef data(): return Own()\n",
        "def data(): return TensorDataset(torch.full((10, 2), float('nan')), torch.arange(10))\n",
    ],
    ids=[
        "one tensor",
        "three tensors",
        "iterable",
        "no length",
        "fails",
        "unequal",
        "dictionaries",
        "no pairs",
        "NaN",
        "NaN in a TensorDataset",
    ],
)
def test_a_dataset_that_cannot_be_trained_on_is_told_and_never_a_traceback(code: Callable[[str], str], text: str) -> None:
    source = code(text)
    with pytest.raises((DataError, UserCodeError), match=r"data\.source"):
        load(source, 0.2, 0).train.pick(torch.arange(8))


# minibatches


@given(st.integers(1, 60), st.integers(1, 6), st.integers(1, 20))
def test_each_epoch_covers_the_replica_s_subset_without_repeating(samples: int, replicas: int, batch: int) -> None:
    replicas = min(replicas, samples)
    subsets = []
    for number in range(replicas):
        batches = ReplicaMinibatches(numbered(samples), number, replicas, batch, 0, 1)
        own = set(range(number, samples, replicas))
        steps = [batches.minibatch(step).targets.tolist() for step in range(2 * batches.in_epoch)]
        assert {len(one) for one in steps} == {batches.batch}
        assert batches.batch <= batch
        for epoch in (steps[: batches.in_epoch], steps[batches.in_epoch :]):
            seen = Counter(chain.from_iterable(epoch))
            assert set(seen) <= own
            assert set(seen.values()) == {1}
            assert len(own) - len(seen) < batches.batch
        subsets.append(own)
    assert sum(map(len, subsets)) == samples
    assert set.union(*subsets) == set(range(samples))


def test_an_epoch_that_divides_evenly_has_every_sample_and_another_order_each_time() -> None:
    batches = ReplicaMinibatches(numbered(64), 0, 2, 8, 0, 1)
    epochs = [[target for step in range(4) for target in batches.minibatch(4 * epoch + step).targets.tolist()] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(0, 64, 2)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_what_one_epoch_leaves_over_comes_back_in_others() -> None:
    batches = ReplicaMinibatches(numbered(10), 0, 1, 8, 0, 1)
    seen = {target for step in range(20) for target in batches.minibatch(step).targets.tolist()}
    assert seen == set(range(10))


def minibatch(step: int = 5, *, seed: int = 1, number: int = 0, life: int = 1) -> tuple[list[int], int]:
    batch = ReplicaMinibatches(numbered(100), number, 2, 7, seed, life).minibatch(step)
    return batch.targets.tolist(), batch.seed


def test_a_minibatch_depends_on_seed_replica_life_and_step_alone() -> None:
    assert minibatch() == minibatch()
    drawn = [minibatch(), minibatch(seed=2), minibatch(number=1), minibatch(life=2), minibatch(6)]
    assert len({tuple(targets) for targets, _ in drawn}) == 5
    assert len({seed for _, seed in drawn}) == 5


def test_a_minibatch_can_be_asked_for_again_and_in_any_order() -> None:
    batches = ReplicaMinibatches(numbered(40), 0, 2, 6, 0, 1)
    forward = [batches.minibatch(step).targets.tolist() for step in range(12)]
    assert [batches.minibatch(step).targets.tolist() for step in reversed(range(12))] == forward[::-1]


def test_a_replica_without_samples_is_told() -> None:
    with pytest.raises(DataError, match="3 training samples for 5 replicas: replica/4 has none"):
        ReplicaMinibatches(numbered(3), 4, 5, 1, 0, 1)


def test_inputs_and_targets_stay_together() -> None:
    batches = ReplicaMinibatches(numbered(40), 1, 2, 6, 0, 1)
    for step in range(9):
        batch = batches.minibatch(step)
        assert torch.equal(batch.inputs[:, 0].long(), batch.targets)
