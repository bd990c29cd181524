"""What only two values of a scenario together make a mistake of, and what files it names that are not there."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from core.graph import shape_told
from core.job import replica_name
from models.catalogue import BUNDLED, DIGITS_CLASSES, DIGITS_INPUTS
from models.mlp import Layered
from scenarios import expectations
from scenarios.fault_checks import senseless_faults
from scenarios.places import Places, places, role_names
from scenarios.topology import wire
from scenarios.wiring import Unwired, machine_names
from scenarios.words import nearest


def senseless(sections: dict[str, Any], partitions: int | None) -> Iterable[tuple[str, str]]:
    """Mistakes that only two values together make; `sections` holds the tables whose form is right.

    `partitions`: machines of a replica, None where a mistake leaves that open; so may what is wrong with a table leave open who there is, and
    whoever is named is then taken for somebody.
    """
    model, data, protocol = sections.get("model"), sections.get("data"), sections.get("protocol")
    yield from senseless_network(sections, partitions)
    yield from (mistake for reference in sections.get("invariants") or () for mistake in missing_file("invariants", reference))
    if model is not None:
        yield from senseless_model(model, data)
        yield from missing_file("model.network", model.network)
        yield from missing_file("model.start", model.start or "")
    if data is not None:
        yield from missing_file("data.source", data.source)
    if protocol is not None:
        yield from senseless_own(protocol)
        stop = protocol.stop
        sure = [key for key in ("updates", "epochs", "iterations", "time") if key in type(stop).model_fields]
        if all(getattr(stop, key) is None for key in sure):
            yield (
                "protocol.stop",
                f"nothing here is sure to happen; allowed: {', '.join(sure[:-1])} or {sure[-1]}, and loss or accuracy beside one of them",
            )
        if not learns(sections) and model is not None and model.start is not None:
            yield "model.start", "a saved model needs numerics = 'real'"
        if not learns(sections) and (stop.loss is not None or stop.accuracy is not None):
            yield "protocol.stop", f"loss and accuracy need numerics = 'real'; allowed: {', '.join(sure)}"
        replicas = [replica_name(number) for number in range(protocol.all_replicas)]
        yield from expectations.senseless(sections.get("expect") or (), real=learns(sections), replicas=replicas)
        yield from senseless_faults(sections.get("fault") or (), protocol, places_of(sections, partitions))


def places_of(sections: dict[str, Any], partitions: int | None) -> Places | None:
    """Who and what there is; None where a mistake, which is told elsewhere, leaves that open."""
    protocol, cluster, network = sections.get("protocol"), sections.get("cluster"), sections.get("network")
    if protocol is None or cluster is None or network is None or partitions is None:
        return None
    try:
        return places(protocol, cluster, network, real=learns(sections), partitions=partitions)
    except Unwired:
        return None


def senseless_own(protocol: Any) -> Iterable[tuple[str, str]]:
    for key, value in protocol.own:
        yield from missing_file(f"protocol.own.{key}", value or "")
    if protocol.own.replica is not None and protocol.kind != "downpour":
        yield "protocol.own.replica", f"only Downpour's replica can be replaced; found kind = {protocol.kind!r}"


def learns(sections: dict[str, Any]) -> bool:
    """Are numbers those of a network that learns?  If the key is wrong, they count as such."""
    return sections.get("numerics") not in ("timing", "exact")


def file_in(value: str) -> tuple[Path | None, str]:
    """The file that is named by "file.py:function", "arrays.npz" or "model.safetensors", and what is meant in it, as ":function"."""
    file, colon, what = value.rpartition(":") if ".py:" in value else (value, "", "")
    return (Path(file), colon + what) if Path(file).suffix in (".py", ".npz", ".safetensors") else (None, "")


def missing_file(path: str, value: str) -> Iterable[tuple[str, str]]:
    """A file that a key names, and that is not there."""
    file, _ = file_in(value)
    if file is not None and not file.is_file():
        beside = sorted(other.name for other in file.parent.glob(f"*{file.suffix}")) if file.parent.is_dir() else []
        yield path, f"found {value!r}; no such file{nearest(file.name, beside)}"


def senseless_model(model: Any, data: Any) -> Iterable[tuple[str, str]]:
    bundled = BUNDLED.get(model.network)
    if model.layers is not None and (bundled is None or not bundled.layered):
        layered = " and ".join(name for name, network in BUNDLED.items() if network.layered)
        what = "makes its own" if bundled is None else f"has its own; allowed: for {layered}"
        yield "model.layers", f"only bundled networks have layers; {model.network!r} {what}"
        return
    if bundled is None:
        return
    if model.layers is None and not bundled.complete:
        yield "model.layers", f"missing; {model.network!r} needs its widths, inputs first, as [{DIGITS_INPUTS}, 128, {DIGITS_CLASSES}]"
        return
    shape, classes = bundled.inputs(model.layers), bundled.classes(model.layers)
    if data is not None and data.source == "digits" and (math.prod(shape), classes) != (DIGITS_INPUTS, DIGITS_CLASSES):
        digits = f"digits have {DIGITS_INPUTS} inputs and {DIGITS_CLASSES} classes"
        if isinstance(bundled, Layered):
            yield "model.layers", f"found {list(bundled.widths(model.layers))}; {digits}"
        else:
            yield "data.source", f"found 'digits'; {digits}, {model.network!r} takes {shape_told(shape)} and has {classes:,}"


def machines_of(sections: dict[str, Any], partitions: int | None) -> list[str]:
    """The cluster's machines, without the head; none where it cannot be told how many there are."""
    cluster, protocol = sections.get("cluster"), sections.get("protocol")
    if cluster is None:
        return []
    if cluster.machines:
        return machine_names(cluster.machines)
    if protocol is None or partitions is None:
        return []
    return machine_names(len(role_names(protocol, real=learns(sections), partitions=partitions)))


def senseless_network(sections: dict[str, Any], partitions: int | None) -> Iterable[tuple[str, str]]:
    network, machines = sections.get("network"), machines_of(sections, partitions)
    if network is not None and machines:
        try:
            wire(network, machines)
        except Unwired as error:
            yield from error.mistakes
