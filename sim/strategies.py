"""Hypothesis strategies: small clusters, and the faults that befall them.

    from hypothesis import given
    from sim.strategies import scenarios

    @given(scenarios())
    def test_mine(scenario): ...

A drawn scenario is timing-only and small: a few machines, a few dozen updates, a second or two of virtual time, in which
computing, sending and applying take times of the same order, so that a fault falls into each of them.  All faults heal.
`tables()` draws the same as the tables of a scenario file: a failing one can be written down, replayed by `simctl run`,
and kept as an example.  Which kinds of fault there are at all is drawn first, since a mixture of everything hides
whatever needs much of one thing (swarm testing; Groce et al., ISSTA 2012).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from hypothesis import strategies as st

from models.catalogue import held_out_samples
from scenarios.cluster import Cluster
from scenarios.faults import GROUP, LINK, MACHINE, ROLE
from scenarios.load import validate
from scenarios.network import Network
from scenarios.places import Places, places, role_names
from scenarios.protocols import Downpour, MapReduce, Protocol, Sandblaster, Synchronous
from scenarios.schema import Scenario
from scenarios.toml import dumps
from sim.bounds import latest_s
from sim.network import MODELS

Tables = dict[str, Any]

PARAMETERS = 12_000
"""Of the network that is charged; 1, 2, 3 and 4 shards share them equally."""

STEP_MS = 50
"""One minibatch on a healthy machine.  A shard's slice of 48 kB takes 5 ms on a NIC of 10 MB/s and 1.5 ms to apply."""

LONGEST_MS = 2000
"""Of a fault; as long as a middling job, and several deadlines."""

KINDS = (
    "crash", "pause", "slowdown", "loss", "delay", "duplication",
    "reordering", "cut", "degraded", "slow-disk", "preemption", "clock-drift",
)  # fmt: skip


DURABILITIES = ("none", "snapshot", "mirror", "log")


@functools.cache
def milliseconds(least: int, most: int) -> st.SearchStrategy[str]:
    return st.integers(least, most).map("{} ms".format)


@st.composite
def downpours(
    draw: st.DrawFn, *, replicas: int = 4, shards: int = 3, rounds: int = 20, durabilities: Sequence[str] = DURABILITIES
) -> Tables:
    """A job of Downpour: at most so many replicas, shards, and pushes for each."""
    crowd = draw(st.integers(1, replicas))
    return {
        "kind": "downpour",
        "replicas": crowd,
        "shards": draw(st.integers(1, shards)),
        "batch": 1,
        "n_fetch": draw(st.integers(1, 3)),
        "n_push": draw(st.integers(1, 3)),
        "max_behind": draw(st.integers(1, 5)),
        "warmstart": f"{draw(st.just(0) | st.integers(1, 6))} updates",
        "rule": {"kind": "sgd", "learning_rate": 1},
        "local_rate": 0,
        **promises(draw, durabilities),
        "stop": {"updates": crowd * draw(st.integers(1, rounds))},
    }


@st.composite
def sandblasters(
    draw: st.DrawFn, *, replicas: int = 4, shards: int = 3, rounds: int = 6, durabilities: Sequence[str] = DURABILITIES,
    warmstarts: bool = True,
) -> Tables:  # fmt: skip
    """A job of Sandblaster: at most so many replicas, shards and iterations, of a dozen portions at most; perhaps a warm start."""
    crowd = draw(st.integers(1, replicas))
    warmstart = draw(st.none() | warm_starts(crowd)) if warmstarts else None
    return {
        "kind": "sandblaster",
        "replicas": crowd,
        "shards": draw(st.integers(1, shards)),
        "portions": draw(st.integers(1, 12)),
        "bundle": draw(st.integers(1, 5)),
        "backup": draw(st.sampled_from(("end-of-batch", "none"))),
        "copies": draw(st.integers(1, 3)),
        "minimum_age": draw(st.sampled_from((0, 0.5, 1.5))),
        "memory": draw(st.integers(1, 5)),
        "direction": draw(st.sampled_from(("vector-free", "two-loop"))),
        "line_search": draw(st.sampled_from(("wolfe", "armijo"))),
        **({} if warmstart is None else {"warmstart": warmstart}),
        **promises(draw, durabilities),
        "stop": {"iterations": draw(st.integers(1, rounds))},
    }


@st.composite
def warm_starts(draw: st.DrawFn, replicas: int) -> Tables:
    """Downpour before Sandblaster, of up to ten pushes for each replica; steps so small that no staleness makes them diverge."""
    return {
        "protocol": "downpour",
        "updates": replicas * draw(st.integers(1, 10)),
        "batch": 1,
        "n_fetch": draw(st.integers(1, 3)),
        "n_push": draw(st.integers(1, 3)),
        "rule": draw(st.sampled_from(({"kind": "sgd", "learning_rate": 2.0**-8}, {"kind": "adam", "learning_rate": 0.1}))),
    }


@st.composite
def mapreduces(draw: st.DrawFn, /, **limits: Any) -> Tables:
    """The same in jobs of MapReduce."""
    return draw(sandblasters(**limits)) | {"kind": "mapreduce", "job_start_up": draw(milliseconds(0, 200))}


@st.composite
def syncs(
    draw: st.DrawFn, *, replicas: int = 3, backups: int = 2, shards: int = 3, rounds: int = 12, durabilities: Sequence[str] = DURABILITIES
) -> Tables:
    """A job of synchronous SGD: at most so many replicas, backup workers, shards and steps."""
    return {
        "kind": "sync",
        "replicas": draw(st.integers(1, replicas)),
        "backup_workers": draw(st.integers(0, backups)),
        "shards": draw(st.integers(1, shards)),
        "batch": 1,
        "rule": {"kind": draw(st.sampled_from(("sgd", "momentum", "adagrad", "adam"))), "learning_rate": 0.05},
        **promises(draw, durabilities),
        "stop": {"updates": draw(st.integers(1, rounds))},
    }


def samples_for(portions: int) -> int:
    """How many samples there are, so that each portion has one of those that are not held out."""
    return next(samples for samples in count(portions) if samples - held_out_samples(samples, 0.2) == portions)


def promises(draw: st.DrawFn, durabilities: Sequence[str]) -> Tables:
    """What is kept, and what is noticed when."""
    return {
        "durability": draw(st.sampled_from(durabilities)),
        "snapshot_every": draw(milliseconds(1, 300)),
        "detect_within": draw(st.sampled_from(("100 ms", "200 ms", "500 ms"))),
        "deadline": draw(st.sampled_from(("300 ms", "1 s"))),
        "evaluate_every": "400 ms",
    }


SPLIT = [64, 40, 10]
"""Widths of a network that can be split.  A minibatch takes `STEP_MS` on a machine of `SPLIT_SPEED`."""

SPLIT_SPEED = "360 kFLOP/s"


@st.composite
def clusters(draw: st.DrawFn, /, *, kind: str = "downpour", numerics: str = "timing", partitions: int = 1, **limits: Any) -> Tables:
    """A healthy cluster and its job; `limits` are those of the strategy of that kind.  Real numerics bring an evaluator.

    `partitions`: if more than one, replicas are split over two to so many machines.
    """
    protocol: Tables = draw(PROTOCOLS[kind][0](**limits))
    model: Tables = {"layers": [64, 10], "cost": {"parameters": PARAMETERS, "flops": f"{STEP_MS} MFLOP"}}
    split = draw(st.integers(2, partitions)) if partitions > 1 else 1
    if split > 1:
        model = {"layers": SPLIT, "partitions": split}
        protocol["shards"] = max(protocol["shards"], split)
    roles = len(role_names(protocol_of(protocol), real=numerics == "real", partitions=split))
    machines = draw(st.just(roles) | st.integers(1, roles + 2))
    return {
        "schema": 1,
        "seed": draw(st.integers(0, 1000)),
        "numerics": numerics,
        "model": model,
        **({"data": {"source": "synthetic", "samples": samples_for(protocol["portions"])}} if "portions" in protocol else {}),
        "protocol": protocol,
        "cluster": {
            "machines": machines,
            "speed": {"median": SPLIT_SPEED if split > 1 else "1 GFLOP/s", "sigma": draw(st.sampled_from((0, 0.3)))},
            "jitter": {"sigma": draw(st.sampled_from((0, 0.3)))},
            "memory_bandwidth": "100 MB/s",
            "disk": draw(st.sampled_from(("2 MB/s", "200 kB/s"))),
            "start_up": draw(milliseconds(0, 300)),
        },
        "network": draw(networks(machines)),
    }


@st.composite
def networks(draw: st.DrawFn, machines: int) -> Tables:
    """Of that many machines, in a few racks perhaps."""
    racks = draw(st.integers(1, min(machines, 3)).map(lambda number: {"kind": "racks", "racks": number}))
    return {
        "model": draw(st.sampled_from(tuple(MODELS))),
        "nic": "10 MB/s",
        "latency": draw(st.sampled_from(("50 us", "5 ms", "60 ms", {"lognormal": {"median": "5 ms", "sigma": 0.5}}))),
        "topology": draw(st.sampled_from(({"kind": "star"}, racks | {"uplink": "10 MB/s"}, racks | {"oversubscription": 2}))),
    }


PROTOCOLS: dict[str, tuple[Callable[..., st.SearchStrategy[Tables]], type[Protocol]]] = {
    "downpour": (downpours, Downpour),
    "sandblaster": (sandblasters, Sandblaster),
    "mapreduce": (mapreduces, MapReduce),
    "sync": (syncs, Synchronous),
}
"""What draws a job of that kind, and the table that it is."""


def protocol_of(drawn: Tables) -> Protocol:
    return PROTOCOLS[drawn["kind"]][1].model_validate(drawn)


def faults(cluster: Tables, *, most: int = 8, kinds: Sequence[str] = KINDS) -> st.SearchStrategy[list[Tables]]:
    """Up to `most` faults of those kinds, of that cluster's roles, machines, racks and links, each of which heals."""
    protocol = protocol_of(cluster["protocol"])
    there = places(
        protocol, Cluster.model_validate(cluster["cluster"]), Network.model_validate(cluster["network"]), real=cluster["numerics"] == "real",
        partitions=cluster["model"].get("partitions", 1),
    )  # fmt: skip
    return schedules(there, likely_ms(cluster), kinds=that_bite(kinds, protocol.durability), most=most)


def that_bite(kinds: Sequence[str], durability: str) -> Sequence[str]:
    """Without those that cannot hit a job which keeps what it promises elsewhere than on disks."""
    if durability in ("snapshot", "log"):
        return kinds
    return [kind for kind in kinds if kind != "slow-disk"] or kinds


@st.composite
def schedules(
    draw: st.DrawFn, there: Places, within_ms: int, *, longest_ms: int = LONGEST_MS, kinds: Sequence[str] = KINDS, most: int = 8
) -> list[Tables]:  # fmt: skip
    """Up to `most` faults of what there is; which kinds there are at all is drawn first."""
    present = draw(st.lists(st.sampled_from(kinds), min_size=1, unique=True))
    least = draw(st.integers(0, most // 2))  # lists by themselves are empty too often
    return draw(st.lists(fault(present, there, within_ms, longest_ms), min_size=least, max_size=most))


Moments = dict[str, list[tuple[int, tuple[str, ...]]]]
"""By event: when it happens, in ms, and to which roles."""

LATER_MS = 30
"""After a moment, at most: what a protocol was made for is over soon."""


@st.composite
def aimed(draw: st.DrawFn, moments: Moments, longest_ms: int, durability: str, *, paired: bool = False) -> list[Tables]:
    """Faults of whoever something happens to, at that moment or a little later.

    What a protocol was made for lasts for moments; a fault that is drawn from all of the time hardly ever meets one.  They are crashes and
    pauses, each by itself; or, `paired`, of more kinds, and every other one hits the same roles again, before they have got over the
    last: a reply that was lost, and then the crash of who gave it, is more than two faults.
    """
    kinds = that_bite(tuple(AIMED), durability) if paired else ("crash", "pause")
    found: list[Tables] = []
    at_ms, names = 0, tuple[str, ...]()
    for _ in range(draw(st.integers(1, 3))):
        again = paired and bool(found) and bool(draw(st.integers(0, 1)))
        if again:
            at_ms += draw(st.integers(0, max(1, longest_ms // 4)))
        else:
            at_ms, names = draw(st.sampled_from(moments[draw(st.sampled_from(sorted(moments)))]))
            at_ms += draw(st.integers(0, LATER_MS))
        kind = draw(st.sampled_from(kinds))
        lasting = {"repair" if kind == "crash" else "for": draw(milliseconds(1, max(1, longest_ms // 4)))}
        found.append({"kind": kind, "target": draw(st.sampled_from(names)), "at": f"{at_ms} ms"} | lasting | draw(AIMED[kind]))
    return found


@st.composite
def losses(draw: st.DrawFn, units: Sequence[str], within_ms: int) -> list[Tables]:
    """Some of these roles, but not all of them, are lost for good."""
    gone = draw(st.lists(st.sampled_from(units), unique=True, max_size=len(units) - 1)) if len(units) > 1 else []
    return [{"kind": "crash", "target": unit, "at": draw(later(0, within_ms))} for unit in gone]


def later(least: int, most: int) -> st.SearchStrategy[str]:
    """A moment; the later, the simpler: what happens before it is undisturbed."""
    return st.integers(0, most - least).map(lambda before: f"{most - before} ms")


def likely_ms(cluster: Tables) -> int:
    """About how long that job takes with nothing but some failures: when to begin one, so that it bites."""
    protocol: Tables = cluster["protocol"]
    start_up_ms = int(cluster["cluster"]["start_up"].split()[0])
    if protocol["kind"] == "downpour":
        steps: int = protocol["stop"]["updates"] * protocol["n_push"] // protocol["replicas"]
    elif protocol["kind"] == "sync":
        steps = protocol["stop"]["updates"]
    else:
        steps = 2 * protocol["stop"]["iterations"] * protocol["portions"] // protocol["replicas"]
        if warm := protocol.get("warmstart"):
            steps += warm["updates"] * warm["n_push"] // protocol["replicas"]
    return start_up_ms + STEP_MS * (2 + steps)


@st.composite
def fault(draw: st.DrawFn, kinds: Sequence[str], there: Places, within_ms: int, longest_ms: int = LONGEST_MS) -> Tables:
    """One fault that heals: at a time, or again and again for a while."""
    kind = draw(st.sampled_from(kinds))
    lasting = draw(milliseconds(1, longest_ms) | milliseconds(1, max(1, longest_ms // 20)))
    reaches = REACHES.get(kind, (ROLE, MACHINE, MACHINE, GROUP))
    one: Tables = {"kind": kind, "target": draw(st.sampled_from([name for reach in reaches for name in there.of(reach)]))}
    if draw(st.integers(0, 4)):
        one["at"] = draw(later(0, within_ms))
    else:
        mean = draw(milliseconds(max(1, longest_ms // 20), longest_ms))
        one |= {"every": {"weibull": {"shape": draw(st.sampled_from((0.7, 1))), "mean": mean}}, "until": draw(milliseconds(1, within_ms))}
    if kind in ("crash", "preemption"):
        notice = {"notice": draw(milliseconds(0, longest_ms // 4))} if kind == "preemption" else {}
        return one | {"repair": lasting} | notice
    return one | {"for": lasting} | draw(MORE[kind]())


FLAPS = milliseconds(20, LONGEST_MS // 4)

MORE: dict[str, Callable[[], st.SearchStrategy[Tables]]] = {
    "pause": lambda: st.just({}),
    "slowdown": lambda: st.builds(dict, factor=st.integers(2, 20)),
    "loss": lambda: st.builds(dict, probability=st.sampled_from((0.2, 0.5, 0.8, 1.0))),
    "delay": lambda: st.builds(dict, by=milliseconds(1, LONGEST_MS // 10)),
    "duplication": lambda: st.builds(dict, probability=st.sampled_from((0.5, 1.0))),
    "reordering": lambda: st.builds(
        dict, probability=st.sampled_from((0.2, 0.8)), by=st.builds(exponential, milliseconds(1, LONGEST_MS // 10))
    ),
    "cut": lambda: (
        st.builds(dict, direction=st.sampled_from(("both", "out", "in"))) | st.builds(dict, flapping=st.builds(flapping, FLAPS, FLAPS))
    ),
    "degraded": lambda: st.builds(dict, factor=st.integers(2, 20)),
    "slow-disk": lambda: st.builds(dict, factor=st.integers(2, 20)),
    "clock-drift": lambda: st.builds(dict, rate=st.sampled_from(("200 ppm", "-100000 ppm")), step=st.sampled_from(("0 s", "-2 s", "3 s"))),
}
"""What each kind has besides its times."""

AIMED: dict[str, st.SearchStrategy[Tables]] = {
    "crash": st.just({}),
    "pause": st.just({}),
    "cut": st.builds(dict, direction=st.sampled_from(("both", "out", "in"))),
    "slow-disk": st.builds(dict, factor=st.integers(2, 20)),
}
"""What can be aimed at a moment, and what it has besides its times."""

REACHES = {
    "degraded": (MACHINE, GROUP, LINK), "preemption": (MACHINE, GROUP), "cut": (ROLE, MACHINE, GROUP), "reordering": (ROLE, MACHINE, LINK),
}  # fmt: skip
"""What a fault of that kind is aimed at, if not at what most are."""


def exponential(mean: str) -> Tables:
    return {"exponential": {"mean": mean}}


def flapping(up: str, down: str) -> Tables:
    return {"up": exponential(up), "down": exponential(down)}


@st.composite
def tables(draw: st.DrawFn, /, *, most_faults: int = 8, kinds: Sequence[str] = KINDS, **limits: Any) -> Tables:
    """A whole scenario as the tables of its file; `limits` are those of `clusters`."""
    cluster: Tables = draw(clusters(**limits))
    return over_in_time(cluster | {"fault": draw(faults(cluster, most=most_faults, kinds=kinds))})


def over_in_time(drawn: Tables) -> Tables:
    """With a time by which the job must be over, since all that failed has healed by then."""
    return drawn | {"give_up_after": f"{math.ceil(latest_s(scenario(drawn)))} s"}


def scenarios(**limits: Any) -> st.SearchStrategy[Scenario]:
    """A whole scenario, checked as one from a file is; `limits` are those of `tables`."""
    return tables(**limits).map(scenario)


def scenario(drawn: Tables) -> Scenario:
    """The scenario that such tables describe."""
    made, mistakes = validate({"name": "drawn"} | drawn, "drawn")
    assert made is not None, mistakes
    assert not mistakes, mistakes
    return made


def toml(drawn: Tables) -> str:
    """The scenario file that holds such tables, for `simctl run`."""
    return dumps(drawn)
