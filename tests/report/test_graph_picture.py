"""A model on machines, as figures, as a picture, and as `simctl graph` shows it."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from core.graph import Graph, Node
from core.partitioning import Partitioned
from models.catalogue import BUNDLED
from models.layers import Add, Dense, Elementwise, Source
from models.losses import with_loss
from models.placement import balanced, metis
from models.windows import Contrast, Convolution, LocallyConnected, Pool
from report.graph_figures import Figures, scaled
from report.graph_picture import draw
from sim.cli import main

IMAGE = with_loss(
    Graph([
        Node("pixels", Source((3, 16, 16))),
        Node("filters", Convolution(4, 3), "pixels"),
        Node("relu", Elementwise("relu"), "filters"),
        Node("local <&>", LocallyConnected(4, 3), "relu"),
        Node("pool", Pool("l2", 2, 2), "local <&>"),
        Node("contrast", Contrast(3), "pool"),
        Node("skip", Add(), "contrast", "pool"),
        Node("classes", Dense(10), "skip"),
    ]),
    "cross-entropy",
)  # fmt: skip
MLP = with_loss(BUNDLED["mlp"].graph((64, 40, 10)), "cross-entropy")


def figures(graph: Graph, machines: int, samples: int = 8) -> Figures:
    return Figures(Partitioned(graph, balanced(graph, machines), machines), samples)


def drawn(found: Figures) -> tuple[list[ET.Element], list[str], ET.Element]:
    """Every element and every text of the picture, and the whole."""
    root = ET.fromstring(draw(found, "a title", ["a remark"]))
    elements = list(root.iter())
    return elements, [element.text or "" for element in elements if element.tag.endswith("}text")], root


def test_what_machines_send_and_receive_adds_up():
    found = figures(IMAGE, 4)
    elements = found.partitioned.elements(8)
    assert found.bytes_up == 4 * elements == sum(crossing.nbytes for crossing in found.crossings)
    for ways in (("sends_up_bytes", "receives_up_bytes"), ("sends_down_bytes", "receives_down_bytes")):
        assert [sum(getattr(machine, way) for machine in found.machines) for way in ways] == [4 * elements] * 2
    assert sum(machine.share for machine in found.machines) == pytest.approx(1)
    assert sum(machine.parameters for machine in found.machines) == IMAGE.parameters
    assert sum(found.owned.values()) == IMAGE.parameters
    assert sum(crossing.messages for crossing in found.crossings) == len(found.partitioned.messages)


@pytest.mark.parametrize("machines", [1, 2, 5, 12])
def test_of_few_machines_every_part_is_a_box_and_every_crossing_an_arrow(machines):
    found = figures(IMAGE, machines)
    elements, texts, _ = drawn(found)
    titles = [element.text or "" for element in elements if element.tag.endswith("}title")]
    assert sum(" a sample" in title and "parameters" in title for title in titles) == sum(map(len, found.parts.values()))
    assert sum("comes back" in title for title in titles) == len(found.crossings)
    for layer in found.layers:
        assert layer.name in texts
    assert sum(text.startswith("machine ") for text in texts) == 2 * machines  # a column and a row of the table


@pytest.mark.parametrize("machines", [13, 81])
def test_of_many_machines_every_layer_is_one_box_and_the_table_has_three_rows(machines):
    graph = with_loss(BUNDLED["mlp"].graph((64, 200, 100)), "cross-entropy")
    _, texts, _ = drawn(figures(graph, machines))
    assert texts.count(f"\u00d7 {machines} parts on machines 0 to {machines - 1}") == 4
    assert [text for text in texts if text in ("least", "most") or text.startswith("median")] == ["least", f"median of {machines}", "most"]
    assert f"{machines * (machines - 1):,} messages, {8 * 4 * 200 * (machines - 1) / 1e3:.3g} kB" in texts


@pytest.mark.parametrize("placement", [balanced(MLP, 4), metis(MLP, 4)])
def test_nothing_is_drawn_outside_the_picture(placement):
    elements, _, root = drawn(Figures(Partitioned(MLP, placement, 4), 8))
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for element in elements:
        if element.tag.endswith("}rect") and not (element.get("width") or "").endswith("%"):
            x, y, w, h = (float(element.get(key, 0)) for key in ("x", "y", "width", "height"))
            assert 0 <= x <= x + w <= width
            assert 0 <= y <= y + h <= height


def test_numbers_are_told_in_three_digits():
    assert [scaled(0), scaled(999), scaled(41_777_152), scaled(2.5e9, "FLOP")] == ["0", "999", "41.8 M", "2.5 GFLOP"]


# the command

SCENARIO = """
schema = 1
numerics = "timing"
[model]
layers = [64, 40, 10]
partitions = 3
[protocol]
kind = "downpour"
replicas = 2
shards = 3
batch = 16
stop = { updates = 60 }
"""


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    file = tmp_path / "small.toml"
    file.write_text(SCENARIO)
    return str(file)


def simctl(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_the_command_prints_tables_and_draws_where_it_is_told_to(scenario, tmp_path):
    result = simctl("graph", scenario, "--out", str(tmp_path / "graph.svg"))
    assert result.exit_code == 0, result.output
    assert "mlp of small, on 3 machines, balanced" in result.stdout
    for word in ("hidden-1", "cross-entropy", "parameters", "sends up", "receives up"):
        assert word in result.stdout
    assert ET.fromstring((tmp_path / "graph.svg").read_text()).tag.endswith("svg")


def test_every_figure_is_one_object(scenario):
    result = simctl("graph", scenario, "--json", "--set", "model.placement=search")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["partitions"], told["samples"], told["parameters"], told["picture"]) == (3, 16, 64 * 40 + 40 + 40 * 10 + 10, None)
    assert [machine["machine"] for machine in told["machines"]] == [0, 1, 2]
    assert told["minibatch_s"] == min(one["seconds"] for one in told["tried"])


def test_one_machine_has_the_whole_graph(scenario):
    result = simctl("graph", scenario, "--json", "--set", "model.partitions=1")
    told = json.loads(result.stdout)
    assert told["minibatch_s"] == told["minibatch_on_one_machine_s"]
    assert (told["bytes_up"], told["crossings"]) == (0, [])


def test_what_is_kept_whole_is_told_with_the_reason(tmp_path):
    (tmp_path / "own.py").write_text(
        "from torch import nn\ndef network(): return nn.Sequential(nn.Linear(64, 8), nn.PReLU(), nn.Linear(8, 10))\n"
    )
    file = tmp_path / "own.toml"
    file.write_text(SCENARIO.replace('"timing"', '"real"').replace("layers = [64, 40, 10]", 'network = "own.py:network"'))
    told = "layer '1' is kept whole: PReLU is none of the kinds that can be split"
    assert told in simctl("graph", str(file)).stdout.splitlines()
    assert json.loads(simctl("graph", str(file), "--json").stdout)["notes"] == [told]


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ("model.partitions=99", 2, "model.placement: 99 partitions are more than parts can be made for"),
        ("model.placement={hidden-1=0, rellu-1=1}", 2, "model.placement: layer 'rellu-1' cannot be placed: there is no such layer; did you mean"),
        ("cluster.memory='10 kB'", 2, "cluster.memory: machine 2 of a replica would need"),
        ("seed=0", 5, "cannot write /proc/nothing/graph.svg"),
    ],
)  # fmt: skip
def test_each_error_is_one_line_with_its_exit_code(scenario, change, code, message):
    result = simctl("graph", scenario, "--set", change, "--out", "/proc/nothing/graph.svg")
    assert result.exit_code == code
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
