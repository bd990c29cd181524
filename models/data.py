"""Data for real numerics: inputs and targets, split into training and held-out parts, and each replica's minibatches.

A source is the digits bundled with scikit-learn, an .npz file, synthetic noise, or a user's function that returns a pair
of tensors or a map-style `torch.utils.data.Dataset`.
"""

from __future__ import annotations

import importlib.util
import zipfile
import zlib
from collections.abc import Sized
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch.utils.data import Dataset, TensorDataset, default_collate

from core import chance
from models import user
from models.bundled import Bundled
from models.catalogue import held_out_samples
from models.errors import DataError


class Batch(NamedTuple):
    """Inputs and targets of some samples, and the seed of whatever the network draws for them (dropout)."""

    inputs: torch.Tensor
    targets: torch.Tensor
    seed: int


@dataclass(slots=True)
class Samples:
    """A dataset and which of its items belong to this part, in an order of their own."""

    dataset: Dataset[Any]
    indices: torch.Tensor

    def __len__(self) -> int:
        return len(self.indices)

    def pick(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The samples at these positions, stacked.  Raises DataError for a value that is no finite number."""
        chosen = self.indices[positions]
        if isinstance(self.dataset, TensorDataset):
            inputs, targets = (tensor[chosen] for tensor in self.dataset.tensors)
            return inputs, targets
        try:
            inputs, targets = default_collate([self.dataset[int(index)] for index in chosen])
        except Exception as error:  # the user's own code may raise anything
            raise DataError(f"data.source: items {chosen.tolist()[:8]} cannot be read and stacked: {user.told(error)}") from error
        if not isinstance(inputs, torch.Tensor) or not isinstance(targets, torch.Tensor):
            raise DataError("data.source: an item must be a pair of an input and a target, each a tensor or a number")
        finite = finite_samples(inputs) & finite_samples(targets)
        if not bool(finite.all()):
            raise DataError(f"data.source: item {int(chosen[~finite][0])} of the Dataset holds NaN or infinity")
        return inputs, targets


@dataclass(slots=True)
class Data:
    train: Samples
    held_out: Samples


def load(source: str, held_out: float, seed: int, synthetic: tuple[int, Bundled, tuple[int, ...] | None] | None = None) -> Data:
    """The source, split at random by the seed.  Raises DataError or UserCodeError."""
    dataset = open_source(source, seed, synthetic)
    try:
        total = len(cast(Sized, dataset))
    except TypeError as error:
        raise DataError(
            f"data.source = {source!r}: the Dataset has no length; allowed: (inputs, targets), or a map-style Dataset"
        ) from error
    if total < 2:
        raise DataError(f"data.source = {source!r}: {total} samples; at least 2 are needed, one of them held out")
    kept = held_out_samples(total, held_out)
    order = torch.randperm(total, generator=torch.Generator().manual_seed(chance.number(seed, "data", "split")))
    return Data(Samples(dataset, order[kept:]), Samples(dataset, order[:kept]))


def open_source(source: str, seed: int, synthetic: tuple[int, Bundled, tuple[int, ...] | None] | None) -> Dataset[Any]:
    if source == "digits":
        return digits()
    if source == "synthetic":
        if synthetic is None:
            raise DataError("data.source = 'synthetic': only for bundled networks, whose shape is known; give your own source")
        samples, network, layers = synthetic
        generator = torch.Generator().manual_seed(chance.number(seed, "data", "synthetic"))
        inputs = torch.randn(samples, *network.inputs(layers), generator=generator)
        return TensorDataset(inputs, torch.randint(network.classes(layers), (samples,), generator=generator))
    if source.endswith(".npz"):
        return from_pair(read_npz(source), source)
    with user.seeded(seed, "data"):
        given = user.call(source, "data.source")
    if isinstance(given, TensorDataset):
        if len(given.tensors) != 2:
            raise DataError(f"data.source = {source!r}: a TensorDataset of {len(given.tensors)} tensors; needed are inputs and targets")
        for name, tensor in zip(("inputs", "targets"), given.tensors, strict=True):
            check_finite(name, tensor, source)
    return given if isinstance(given, Dataset) else from_pair(given, source)


def digits() -> TensorDataset:
    """The handwritten digits that scikit-learn bundles, pixels from 0 to 1.

    Its file is read as `sklearn.datasets.load_digits` reads it; importing scikit-learn for that would cost every process
    two seconds.
    """
    package = importlib.util.find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    table = np.loadtxt(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    return TensorDataset(torch.tensor(table[:, :-1] / 16.0, dtype=torch.float32), torch.tensor(table[:, -1], dtype=torch.int64))


def read_npz(source: str) -> tuple[Any, Any]:
    """Arrays `x` and `y`.  Object arrays would need pickle and are refused."""
    try:
        with Path(source).open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if isinstance(arrays, np.ndarray):
                raise DataError(f"data.source = {source!r}: holds a single array; needed are x and y")
            if not {"x", "y"} <= set(arrays.files):
                raise DataError(f"data.source = {source!r}: holds {', '.join(arrays.files) or 'nothing'}; needed are x and y")
            return arrays["x"], arrays["y"]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"data.source = {source!r}: cannot be read: {error}") from None


def from_pair(given: Any, source: str) -> TensorDataset:
    """Inputs and targets of equal length, all finite; floats become float32."""
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise DataError(f"data.source = {source!r}: gave a {type(given).__name__}; allowed: (inputs, targets), or a map-style Dataset")
    tensors = []
    for name, value in zip(("inputs", "targets"), given, strict=True):
        try:
            tensor = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"data.source = {source!r}: {name} are no numbers: {error}") from None
        if tensor.dtype == torch.float64:
            tensor = tensor.float()
        if tensor.dim() == 0:
            raise DataError(f"data.source = {source!r}: {name} are a single number; the first dimension counts samples")
        check_finite(name, tensor, source)
        tensors.append(tensor)
    if len(tensors[0]) != len(tensors[1]):
        raise DataError(f"data.source = {source!r}: {len(tensors[0])} inputs and {len(tensors[1])} targets; these must be equally many")
    return TensorDataset(*tensors)


def finite_samples(tensor: torch.Tensor) -> torch.Tensor:
    """For each sample, whether all of it is finite."""
    return torch.isfinite(tensor).unsqueeze(-1).flatten(1).all(1)


def check_finite(name: str, tensor: torch.Tensor, source: str) -> None:
    wrong = ~finite_samples(tensor)
    if bool(wrong.any()):
        raise DataError(
            f"data.source = {source!r}: {name} of {int(wrong.sum())} samples hold NaN or infinity, the first is sample {int(wrong.nonzero()[0])}"
        )


class ReplicaMinibatches:
    """One replica's subset of the training data (every `replicas`-th sample), in a fresh order for each epoch and life.

    All batches have the same size; what an epoch leaves over comes back, elsewhere, in the next.
    """

    def __init__(self, samples: Samples, number: int, replicas: int, batch: int, seed: int, life: int) -> None:
        self.samples, self.entity, self.seed, self.life = samples, f"replica/{number}", seed, life
        if number >= len(samples):
            raise DataError(f"{len(samples)} training samples for {replicas} replicas: replica/{number} has none")
        self.own = torch.arange(number, len(samples), replicas)
        self.batch = min(batch, len(self.own))
        self.in_epoch = len(self.own) // self.batch
        self._epoch, self._order = -1, self.own

    def minibatch(self, step: int) -> Batch:
        epoch, position = divmod(step, self.in_epoch)
        if epoch != self._epoch:
            key = chance.number(self.seed, self.entity, f"order of epoch {epoch}, life {self.life}")
            self._order = self.own[torch.randperm(len(self.own), generator=torch.Generator().manual_seed(key))]
            self._epoch = epoch
        inputs, targets = self.samples.pick(self._order[position * self.batch : (position + 1) * self.batch])
        return Batch(inputs, targets, chance.number(self.seed, self.entity, f"draws of step {step}, life {self.life}"))


class TrainingPortions:
    """The first so many of the training samples, which are in an order of the seed's, cut into portions that differ by one sample.

    The last `kept` of them stay as they were picked out: a replica is given its own again in the next batch.
    """

    def __init__(self, samples: Samples, count: int, portions: int, seed: int, kept: int = 0) -> None:
        self.samples, self.count, self.portions, self.seed = samples, count, portions, seed
        self.portion = lru_cache(maxsize=kept)(self.picked)

    def picked(self, number: int) -> Batch:
        first, end = self.count * number // self.portions, self.count * (number + 1) // self.portions
        inputs, targets = self.samples.pick(torch.arange(first, end))
        return Batch(inputs, targets, chance.number(self.seed, f"portion/{number}", "draws"))
