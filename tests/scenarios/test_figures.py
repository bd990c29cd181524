"""The scenarios of the paper's figure 4: what makes them comparable."""

from __future__ import annotations

from typing import Any

import torch

from scenarios.load import bundled, load
from scenarios.plan import plan
from scenarios.schema import Scenario

FIGURE_4 = [name for name in bundled() if name.startswith("figure-4-")]


def all_but_the_method(scenario: Scenario) -> dict[str, Any]:
    protocol = scenario.protocol
    stop = {key: getattr(protocol.stop, key) for key in ("time", "loss", "accuracy")}
    same = {key: getattr(protocol, key) for key in ("shards", "durability", "detect_within", "deadline", "evaluate_every")}
    return scenario.model_dump(exclude={"name", "protocol"}) | same | {"stop": stop}


def test_the_five_methods_have_the_same_task_machines_and_budget() -> None:
    first, *others = (all_but_the_method(load(name)) for name in FIGURE_4)
    assert len(others) == 4
    assert all(other == first for other in others)


def test_they_begin_at_the_same_parameters_which_have_learnt_something_and_far_from_all() -> None:
    networks = [plan(load(name), shared=True).torch_network() for name in FIGURE_4]
    first = networks[0].initial()
    assert all(torch.equal(network.initial(), first) for network in networks[1:])
    accuracy = networks[0].evaluate(first).run().accuracy
    assert accuracy is not None
    assert 0.3 < accuracy < 0.6, "chance is 1 in 40"
