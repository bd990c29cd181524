"""What may stand in a scenario file.  One model for each table; the same file drives both worlds.

The larger tables have files of their own: `protocols.py`, `cluster.py`, `network.py`, `faults.py`, `expectations.py`.  `HONOURED_BY` says which keys only
one world can honour; the other says so, every time.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, PrivateAttr

from models.catalogue import BUNDLED
from scenarios.cluster import Cluster
from scenarios.expectations import Expectation
from scenarios.faults import Fault
from scenarios.network import Network
from scenarios.protocols import Downpour, MapReduce, Reference, Sandblaster, Synchronous
from scenarios.table import NotNegative, Table
from scenarios.toml import dumps
from scenarios.units import Operations, PositiveDuration, Size


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
    if value not in BUNDLED or not BUNDLED[value].complete:
        priced = ", ".join(name for name, network in BUNDLED.items() if network.complete)
        raise ValueError(f"allowed: {priced}, or {{ parameters = 41_777_152, flops = '250 MFLOP' }}")
    shape = BUNDLED[value]
    return DeclaredCost.model_construct(parameters=shape.parameters(), flops=shape.flops_per_sample())


PLACEMENTS = ("balanced", "metis", "search")


def placed(value: Any) -> Any:
    """One of these words, or a machine or several by layer, counted from 0."""
    if not isinstance(value, dict):
        if value in PLACEMENTS:
            return value
        raise ValueError(f"allowed: {', '.join(PLACEMENTS)}, or a table as {{ hidden = [0, 1], classes = 0 }}")
    given = {layer: tuple(machines) if isinstance(machines, list | tuple) else machines for layer, machines in value.items()}
    for layer, machines in given.items():
        numbers = machines if isinstance(machines, tuple) else (machines,)
        if not numbers or not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError(f"{layer} = {value[layer]!r}; allowed: a machine of the replica, from 0, or one for each part, as [0, 1]")
    return given


class Model(Table):
    network: Annotated[str, AfterValidator(known_network)] = "mlp"
    layers: Annotated[tuple[PositiveInt, ...], Field(min_length=2, strict=False)] | None = None
    loss: Literal["auto", "cross-entropy", "logistic", "mse"] = "auto"
    """auto: logistic for the image networks; else mse where targets are real numbers, and cross-entropy where they are classes."""
    cost: Annotated[DeclaredCost | None, BeforeValidator(declared)] = None
    start: str | None = None
    """A .safetensors file to begin from."""
    partitions: PositiveInt = 1
    """Machines of a replica, over which the model is split."""
    placement: Annotated[Literal["balanced", "metis", "search"] | dict[str, int | tuple[int, ...]], BeforeValidator(placed)] = "balanced"
    """Who decides which machine of a replica has which part; or, by hand, the machine of each layer, or one for each part of it."""


class Data(Table):
    source: Annotated[str, AfterValidator(known_source)] = "digits"
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2
    samples: PositiveInt = 10_000
    """How many the synthetic source makes."""


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

    @property
    def alone(self) -> bool:
        """Does one real machine play all that the scenario declares?"""
        return self.on == "local" and self.machines in (None, 1)


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
    numerics: Literal["real", "timing", "exact"] = "real"
    """timing: what everything costs, and nothing else; exact: the same, with a tally of gradients or a sum of parabolas for a model, that
    shows whether each gradient counted exactly once."""
    model: Model = Model()
    data: Data = Data()
    protocol: Annotated[
        Downpour | Sandblaster | MapReduce | Synchronous, Field(discriminator="kind", default_factory=lambda: Downpour(kind="downpour"))
    ]
    cluster: Cluster = Cluster()
    network: Network = Network()
    fault: Annotated[tuple[Fault, ...], Field(strict=False)] = ()
    expect: Annotated[tuple[Expectation, ...], Field(strict=False)] = ()
    invariants: Annotated[tuple[Reference, ...], Field(strict=False)] = ()
    """The user's own rules for `--check` and `simctl hunt`: functions of the journal's records that yield what is wrong, in words."""
    give_up_after: PositiveDuration | None = None
    """Of virtual time: a simulated job that is not over by then has failed."""
    placement: Placement = Placement()
    exec: Execution = Execution()

    _file: str = PrivateAttr("")
    _given: dict[str, Any] = PrivateAttr(default_factory=dict)
    """The tables as they were read, with overrides."""

    @property
    def file(self) -> str:
        """Where it was loaded from, as the user named it; its own name if it was made otherwise."""
        return self._file or self.name

    def given(self) -> dict[str, Any]:
        """What was given, overrides included."""
        return self._given

    def toml(self) -> str:
        """What was given, overrides included, as a file that says the same."""
        return dumps(self._given)


HONOURED_BY: dict[str, tuple[str, str]] = {
    "numerics": ("sim", "execctl always trains for real"),
    "model.cost": ("sim", "real machines take what the network takes"),
    "cluster": ("sim", "the machines are the ones you have"),
    "give_up_after": ("sim", "a real job is ended with Ctrl-C, or by stop.time"),
    "network": ("sim", "the network is the one you have"),
    "placement": ("exec", "simulated roles have a machine each, or as many as cluster.machines"),
    "exec": ("exec", "the simulator has no processes and computes on the CPU"),
}
"""Key: the world that honours it, and why the other does not."""
