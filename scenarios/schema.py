"""What may stand in a scenario file.  One model for each table; the same file drives both worlds.

`HONOURED_BY` says which keys only one world can honour; the other says so, every time.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, PrivateAttr

from core.job import Durability, Wire
from models.catalogue import BUNDLED
from scenarios.units import Bandwidth, Duration, Operations, PositiveDuration, Size, Speed, Updates

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Table(BaseModel):
    """A TOML table: unknown keys are mistakes, values are never changed after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def known_network(name: str) -> str:
    """A bundled network, or "file.py:function", or "package.module:function"."""
    if ":" not in name and name not in BUNDLED:
        raise ValueError(f"allowed: {', '.join(BUNDLED)}, or 'my_file.py:function', or 'package.module:function'")
    return name


def known_source(name: str) -> str:
    if ":" not in name and name not in ("digits", "synthetic") and not name.endswith(".npz"):
        raise ValueError("allowed: digits, synthetic, a file that ends in .npz, 'my_file.py:function', or 'package.module:function'")
    return name


class DeclaredCost(Table):
    """Charge these instead of the network's own size and work."""

    parameters: PositiveInt
    flops: Operations
    """Forward and backward, for one sample."""


def declared(value: Any) -> Any:
    """A bundled network's name stands for its parameters and FLOPs."""
    if not isinstance(value, str):
        return value
    if value not in BUNDLED or BUNDLED[value].layers is None:
        priced = ", ".join(name for name, network in BUNDLED.items() if network.layers)
        raise ValueError(f"allowed: {priced}, or {{ parameters = 41_777_152, flops = '250 MFLOP' }}")
    shape = BUNDLED[value]
    return DeclaredCost.model_construct(parameters=shape.parameters(), flops=shape.flops_per_sample())


class Model(Table):
    network: Annotated[str, AfterValidator(known_network)] = "mlp"
    layers: Annotated[tuple[PositiveInt, ...], Field(min_length=2, strict=False)] | None = None
    loss: Literal["auto", "cross-entropy", "mse"] = "auto"
    cost: Annotated[DeclaredCost | None, BeforeValidator(declared)] = None
    start: str | None = None
    """A .safetensors file to begin from."""


class Data(Table):
    source: Annotated[str, AfterValidator(known_source)] = "digits"
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2
    samples: PositiveInt = 10_000
    """How many the synthetic source makes."""


class SgdRule(Table):
    kind: Literal["sgd"]
    learning_rate: Positive


class MomentumRule(Table):
    kind: Literal["momentum"]
    learning_rate: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9


class AdagradRule(Table):
    kind: Literal["adagrad"]
    learning_rate: Positive


class AdamRule(Table):
    kind: Literal["adam"]
    learning_rate: Positive
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


class Protocol(Table):
    """What every protocol has."""

    replicas: PositiveInt = 4
    shards: PositiveInt = 2
    durability: Durability = "snapshot"
    """What an acknowledgement promises: core/durability.py."""
    snapshot_every: PositiveDuration = 30.0
    detect_within: PositiveDuration = 1.0
    """Within which time a failure is noticed; every other time follows from it: `execctl explain`."""
    deadline: PositiveDuration | None = None
    """Of a call, before it is repeated; left out, it follows from detect_within."""
    evaluate_every: PositiveDuration = 10.0

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
    """In which type gradients and parameters travel; what the shorter ones round away is carried on (error feedback)."""
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


class Synchronous(Protocol):
    """Synchronous SGD with backup workers (Chen et al., 2016)."""

    kind: Literal["sync"]
    backup_workers: Annotated[int, Field(ge=0)] = 0
    """Replicas beyond `replicas`: a step is taken with the gradients of the first `replicas` that are there."""
    batch: PositiveInt = 32
    """Of each replica."""
    rule: Rule = AdagradRule(kind="adagrad", learning_rate=0.05)
    stop: Stop = Stop(epochs=20)

    @property
    def all_replicas(self) -> int:
        return self.replicas + self.backup_workers

    @property
    def needed_replicas(self) -> int:
        return self.replicas


class SpeedSpread(Table):
    """Static speed of each machine, lognormal about the median."""

    median: Speed
    sigma: NotNegative = 0.0


def spread(value: Any) -> Any:
    return {"median": value} if isinstance(value, str | int | float) else value


class Jitter(Table):
    """Noise of each task, lognormal with mean 1."""

    sigma: NotNegative = 0.0


class Cluster(Table):
    """The simulated machines."""

    machines: PositiveInt | None = None
    """Left out: one for each role."""
    speed: Annotated[SpeedSpread, BeforeValidator(spread)] = SpeedSpread.model_construct(median=40e9, sigma=0.0)
    jitter: Jitter = Jitter()
    memory: Bandwidth = 10e9
    disk: Bandwidth = 200e6
    start_up: Duration = 1.0


class Network(Table):
    """The simulated network: `latency` (latency + bytes / NIC, nothing shared), or `fifo`: also serialised at each NIC."""

    model: Literal["latency", "fifo"] = "fifo"
    nic: Bandwidth = 1.25e9
    latency: Duration = 50e-6


class Crash(Table):
    """`target = "replica/3"` loses the process (peers see resets), `"machine/3"` the machine (peers see silence)."""

    kind: Literal["crash"]
    target: str
    at: Duration
    repair: PositiveDuration | None = None
    """Until a new life starts; left out: never."""


class Pause(Table):
    kind: Literal["pause"]
    target: str
    at: Duration
    for_: Annotated[PositiveDuration, Field(alias="for")]


class Slowdown(Table):
    kind: Literal["slowdown"]
    target: str
    at: Duration = 0.0
    for_: Annotated[PositiveDuration | None, Field(alias="for")] = None
    factor: Annotated[float, Field(gt=1, allow_inf_nan=False)]
    """How many times slower."""


class Loss(Table):
    """Messages to and from the target are lost, each with this probability."""

    kind: Literal["loss"]
    target: str
    at: Duration = 0.0
    for_: Annotated[PositiveDuration | None, Field(alias="for")] = None
    probability: Probability


class Delay(Table):
    """Messages to and from the target take so much longer."""

    kind: Literal["delay"]
    target: str
    at: Duration = 0.0
    for_: Annotated[PositiveDuration | None, Field(alias="for")] = None
    by: PositiveDuration


class Duplication(Table):
    """Requests to and from the target arrive twice, each with this probability."""

    kind: Literal["duplication"]
    target: str
    at: Duration = 0.0
    for_: Annotated[PositiveDuration | None, Field(alias="for")] = None
    probability: Probability


Fault = Annotated[Crash | Pause | Slowdown | Loss | Delay | Duplication, Field(discriminator="kind")]


class Needs(Table):
    """What a process of one kind of role takes of its machine."""

    cores: NotNegative = 0.0
    gpus: Annotated[int, Field(ge=0)] = 0
    memory: Size = 0


class Placement(Table):
    """On which machines a job runs for real, and what its roles need there."""

    on: Literal["local", "ssh", "ray", "slurm"] = "local"
    machines: PositiveInt | None = None
    """How many; left out: one where `on` is local, else all there are.  More than one local machine are so many agents here."""
    hosts: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """For ssh: where to."""
    through: Annotated[tuple[str, ...], Field(strict=False)] = ("ssh", "-o", "BatchMode=yes", "{host}")
    """For ssh: the command that leads there; an agent's own follows."""
    python: str | None = None
    """Of the machines, with this package installed; left out: the path of the launcher's own."""
    storage: Literal["auto", "machine"] = "auto"
    """Do machines see each other's files?  "auto": those that see the run folder do; "machine": each keeps its own."""
    shard: Needs = Needs()
    mirror: Needs = Needs()
    replica: Needs = Needs()
    evaluator: Needs = Needs()
    coordinator: Needs = Needs()


class Execution(Table):
    """The real processes."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: PositiveInt = 1
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Of the supervisor; 0 takes any that is free."""
    listen: str = "127.0.0.1"
    """The address at which the supervisor is reached from every machine; nothing listens anywhere else."""
    certificates: str | None = None
    """A folder that `execctl certs` made.  Left out: none for a job on loopback, else some made for this job alone."""
    shared_memory: bool = True
    """Between processes of one host."""
    metrics: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port of Prometheus metrics at the supervisor; 0: none."""
    tensorboard: bool = False
    start_within: PositiveDuration = 60.0


def plain_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,79}", name):
        raise ValueError("allowed: letters, digits, '_', '-' and '.', at most 80, a letter or digit first")
    return name


class Scenario(Table):
    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    name: Annotated[str, AfterValidator(plain_name)] = "scenario"
    """The run folder is named after it."""
    seed: Annotated[int, Field(ge=0)] = 0
    numerics: Literal["real", "timing"] = "real"
    model: Model = Model()
    data: Data = Data()
    protocol: Annotated[
        Downpour | Sandblaster | MapReduce | Synchronous, Field(discriminator="kind", default_factory=lambda: Downpour(kind="downpour"))
    ]
    cluster: Cluster = Cluster()
    network: Network = Network()
    fault: Annotated[tuple[Fault, ...], Field(strict=False)] = ()
    placement: Placement = Placement()
    exec: Execution = Execution()

    _file: str = PrivateAttr("")

    @property
    def file(self) -> str:
        """Where it was loaded from, as the user named it; its own name if it was made otherwise."""
        return self._file or self.name


HONOURED_BY: dict[str, tuple[str, str]] = {
    "numerics": ("sim", "execctl always trains for real"),
    "model.cost": ("sim", "real machines take what the network takes"),
    "cluster": ("sim", "the machines are the ones you have"),
    "network": ("sim", "the network is the one you have"),
    "placement": ("exec", "simulated roles have a machine each, or as many as cluster.machines"),
    "exec": ("exec", "the simulator has no processes and computes on the CPU"),
}
"""Key: the world that honours it, and why the other does not."""
