"""Work described, not performed: what a computation costs, and the function that does it.

The executor runs the function on its device's thread.  The simulator charges the cost in virtual time, and runs the
function too; under timing-only numerics the function just returns phantoms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from core.partitioning import Task
    from core.phases import Arrival

R = TypeVar("R")


class Cost(NamedTuple):
    """Floating-point operations, and bytes moved to and from memory."""

    flops: float = 0.0
    bytes: float = 0.0


@dataclass(slots=True, eq=False)
class Work(Generic[R]):
    """A computation on a node's own device."""

    run: Callable[[], R]
    cost: Cost


class Gradient(NamedTuple):
    """The gradient of the mean loss over one minibatch, as long as the parameters; a phantom's loss is None."""

    vector: Any
    loss: float | None
    samples: int


class Quality(NamedTuple):
    """Loss and accuracy on held-out data; None where it has no meaning (accuracy of a regression)."""

    loss: float
    accuracy: float | None


class Diverged(Exception):
    """The loss is no longer a finite number: going on would only spread it."""


class Model(Protocol):
    """What is trained: so many parameters, which begin somewhere."""

    def __len__(self) -> int:
        """How many parameters."""

    def initial(self) -> Any:
        """The first parameters, a vector; the same at every call."""


class Network(Model, Protocol):
    """A model and its data, as far as a protocol needs them; see `models/` for those that exist."""

    def gradient(self, parameters: Any, batch: Any) -> Work[Gradient]:
        """The vector returned may be overwritten by the next gradient's."""

    def evaluate(self, parameters: Any) -> Work[Quality]:
        """Loss and accuracy on the held-out data."""


class Computation(Protocol):
    """One minibatch on one machine of a replica; its methods are called by one thread at a time."""

    def work(self, tasks: Sequence[Task], leaving: Sequence[Arrival]) -> Work[list[Any]]:
        """Compute some parts, one after the other; yields what then leaves, a vector for each message, which nobody changes any more."""

    def payload(self, arrival: Arrival) -> Any:
        """What a message carries, of parameters: these leave before anything is computed."""

    def take(self, arrival: Arrival, vector: Any) -> None:
        """A message has come, with a vector that is this computation's own."""

    def gradient(self) -> Gradient:
        """Of the machine's parameters, once everything is computed and has come; the loss is None where it is computed elsewhere."""


class Partition(Model, Protocol):
    """What one machine of a replica has of a model, with the parameters that it owns; see `models/partitioned.py`."""

    def begin(self, parameters: Any, batch: Any) -> Computation: ...


class Minibatches(Protocol):
    """One replica's subset of the data."""

    def minibatch(self, step: int) -> Any:
        """The batch of that step of this life, opaque to the protocol."""


class Portioned(Protocol):
    """The data of one batch, cut into portions; the same at every call and for everybody."""

    def portion(self, number: int) -> Any:
        """Opaque to the protocol, as a minibatch."""


class NoPortions:
    """Of protocols that take minibatches."""

    def portion(self, number: int) -> Any:
        raise AssertionError(f"portion {number} of data that is not cut into any")
