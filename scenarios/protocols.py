"""The `[protocol]` table: how a job trains, one kind for each protocol."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveInt

from core.job import Durability, Wire
from scenarios.table import NotNegative, Positive, Probability, Table
from scenarios.units import Duration, PositiveDuration, Updates


def reference(name: str) -> str:
    if not all(name.rpartition(":")[::2]):
        raise ValueError("allowed: 'my_file.py:name', or 'package.module:name'")
    return name


Reference = Annotated[str, AfterValidator(reference)]
"""Of a user's own code."""


class Descent(Table):
    """What every rule has."""

    kind: str
    learning_rate: Positive
    staleness_aware: bool = False
    """Divide the rate of each push by its staleness, if that is more than 1."""


class SgdRule(Descent):
    kind: Literal["sgd"]


class MomentumRule(Descent):
    kind: Literal["momentum"]
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9


class AdagradRule(Descent):
    kind: Literal["adagrad"]


class AdamRule(Descent):
    kind: Literal["adam"]
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    epsilon: Positive = 1e-8


Rule = Annotated[SgdRule | MomentumRule | AdagradRule | AdamRule, Field(discriminator="kind")]


class Stop(Table):
    """Whichever comes first."""

    updates: PositiveInt | None = None
    epochs: Positive | None = None
    time: PositiveDuration | None = None
    loss: NotNegative | None = None
    accuracy: Probability | None = None


class Own(Table):
    """Code of the user's own in the place of a protocol's, as "my_file.py:name" or "package.module:name"."""

    shard: Reference | None = None
    """A class that inherits the shard of the protocol: `core.shard.Shard`, or `core.staging.StagingShard`."""
    replica: Reference | None = None
    """An async function that is called as `core.downpour.replica` is."""


class Protocol(Table):
    """What every protocol has."""

    replicas: PositiveInt = 4
    shards: PositiveInt = 2
    """Each machine of a replica talks to shards of its own: left out, there is one for each, and two at least."""
    durability: Durability = "snapshot"
    """What an acknowledgement promises: core/durability.py."""
    snapshot_every: PositiveDuration = 30.0
    detect_within: PositiveDuration = 1.0
    """Within which time a failure is noticed; every other time follows from it: `execctl explain`."""
    deadline: PositiveDuration | None = None
    """Of a call, before it is repeated; left out, it follows from detect_within."""
    evaluate_every: PositiveDuration = 10.0
    own: Own = Own()

    @property
    def all_replicas(self) -> int:
        """How many there are."""
        return self.replicas

    @property
    def needed_replicas(self) -> int:
        """Without how many of them the job cannot go on."""
        return 1


class Downpour(Protocol):
    kind: Literal["downpour"]
    batch: PositiveInt = 32
    n_fetch: PositiveInt = 1
    n_push: PositiveInt = 1
    rule: Rule = AdagradRule(kind="adagrad", learning_rate=0.05)
    local_rate: NotNegative | None = None
    """The replica's own step; left out, it follows from the rule (docs/PAPER.md)."""
    max_behind: PositiveInt = 8
    warmstart: Updates = 0
    wire: Wire = "float32"
    """In which type gradients and parameters travel; float32: as they are, also where that is float64.  What the shorter ones round away is
    carried on (error feedback)."""
    stop: Stop = Stop(epochs=20)


class WarmStart(Table):
    """Downpour before Sandblaster, in the same job: until a shard has seen so many updates, or samples."""

    protocol: Literal["downpour"]
    updates: PositiveInt | None = None
    epochs: Positive | None = None
    batch: PositiveInt = 32
    n_fetch: PositiveInt = 1
    n_push: PositiveInt = 1
    rule: Rule = AdagradRule(kind="adagrad", learning_rate=0.05)
    local_rate: NotNegative | None = None


def ends(warmstart: WarmStart | None) -> WarmStart | None:
    if warmstart is not None and warmstart.updates is None and warmstart.epochs is None:
        raise ValueError("nothing here says when it ends; allowed: updates or epochs, whichever comes first")
    return warmstart


class SandblasterStop(Table):
    """Whichever comes first."""

    iterations: PositiveInt | None = None
    time: PositiveDuration | None = None
    loss: NotNegative | None = None
    """On held-out data, as the accuracy."""
    accuracy: Probability | None = None
    gradient: NotNegative = 1e-5
    """The largest element of the gradient of the training loss."""
    relative_loss: NotNegative = 1e-9
    """By how much less of itself the training loss has become in an iteration."""


class Sandblaster(Protocol):
    """L-BFGS over portions of the data (paper, section 4.2)."""

    kind: Literal["sandblaster"]
    portions: PositiveInt = 64
    """Of a batch: many more than replicas, so that a slow one takes fewer of them."""
    bundle: PositiveInt = 4
    """Portions whose gradients a replica sums up before it pushes."""
    backup: Literal["none", "end-of-batch"] = "end-of-batch"
    """Is what is still out at the end of a batch given to somebody else as well?"""
    copies: PositiveInt = 1
    """So many such copies of a portion at a time."""
    minimum_age: NotNegative = 1.5
    """How late is late: so many times as long as usual."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of the training data that is a batch, the same in each iteration."""
    memory: PositiveInt = 10
    """Pairs of differences that the history keeps."""
    direction: Literal["vector-free", "two-loop"] = "vector-free"
    line_search: Literal["wolfe", "armijo"] = "wolfe"
    evaluations: PositiveInt = 25
    """Of one line search at most."""
    warmstart: Annotated[WarmStart | None, AfterValidator(ends)] = None
    """Begin from where Downpour leaves the parameters."""
    stop: SandblasterStop = SandblasterStop(iterations=100)


class MapReduce(Sandblaster):
    """The same with each pass over the batch as a job of MapReduce: what Sandblaster's replicas that stay are measured by."""

    kind: Literal["mapreduce"]  # type: ignore[assignment]
    job_start_up: Duration = 10.0
    """What each pass pays before its first portion is given out."""


def never_stale(rule: Descent) -> Descent:
    if rule.staleness_aware:
        raise ValueError("a step of synchronous SGD is never stale; allowed: staleness_aware = false, or kind = 'downpour'")
    return rule


class Synchronous(Protocol):
    """Synchronous SGD with backup workers (Chen et al., 2016)."""

    kind: Literal["sync"]
    backup_workers: Annotated[int, Field(ge=0)] = 0
    """Replicas beyond `replicas`: a step is taken with the gradients of the first `replicas` that are there."""
    batch: PositiveInt = 32
    """Of each replica."""
    rule: Annotated[Rule, AfterValidator(never_stale)] = AdagradRule(kind="adagrad", learning_rate=0.05)
    stop: Stop = Stop(epochs=20)

    @property
    def all_replicas(self) -> int:
        return self.replicas + self.backup_workers

    @property
    def needed_replicas(self) -> int:
        return self.replicas


def one_shard_each(raw: dict[str, Any]) -> dict[str, Any]:
    """The tables of a scenario with a shard for each machine of a replica, where they say nothing of shards; the given ones are left as they are."""
    model, protocol = raw.get("model"), raw.get("protocol", {"kind": "downpour"})
    partitions = model.get("partitions") if isinstance(model, dict) else None
    if type(partitions) is not int or partitions <= Protocol.model_fields["shards"].default or not isinstance(protocol, dict):
        return raw
    return raw | {"protocol": {"shards": partitions} | protocol}
