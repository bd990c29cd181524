"""A graph run whole, as a plain torch module: what a job trains that describes its layers and splits none of them."""

from __future__ import annotations

import torch
from torch import nn

from core.boxes import slices, whole
from core.graph import Graph, GraphError, Node, Part
from models.layers import Source


class GraphModule(nn.Module):
    """Each layer in one part; its output is the graph's, before any loss.

    Parameters go by their keys, "conv.weight" as if a submodule `conv` had them, and begin as the layers say, from torch's stream, in the
    order of the graph.  It has no mode for evaluation: batch normalisation takes the statistics of whatever minibatch it is given.
    """

    def __init__(self, graph: Graph) -> None:
        """Raises GraphError unless the graph has one output that needs no targets."""
        super().__init__()
        self.graph = graph
        self.nodes = [node for node in graph if node.name not in beyond_targets(graph)]
        names = {node.name for node in self.nodes}
        outputs = [node.name for node in self.nodes if names.isdisjoint(graph.nx.succ[node.name])]
        if len(outputs) != 1:
            raise GraphError(f"the graph has the outputs {', '.join(outputs) or 'none'} apart from its loss; allowed: one")
        self.output = outputs[0]
        for node in self.nodes:
            for weight, shape in node.weights.items():
                parameter = nn.Parameter(torch.empty(shape))
                with torch.no_grad():
                    node.layer.initialise(node.at, weight, parameter)
                register(self, node.key(weight), parameter)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """`inputs`: samples x the shape of the source, or samples x as many numbers."""
        parameters: dict[str, torch.Tensor] = dict(self.named_parameters())
        values: dict[str, torch.Tensor] = {}
        for node in self.nodes:
            if isinstance(node.layer, Source):
                values[node.name] = node.layer.fitted(inputs)
            else:
                values[node.name] = computed(node, [values[name] for name in node.inputs], parameters)
        return values[self.output]


def computed(node: Node, inputs: list[torch.Tensor], parameters: dict[str, torch.Tensor]) -> torch.Tensor:
    """The whole output of a layer."""
    at, box = node.at, whole(node.at.output)
    part = Part(at, box, node.layer.needs(at, box), node.layer.weight_boxes(at, box))
    seen = [
        given[(slice(None), *slices(need, whole(shape)))] for given, need, shape in zip(inputs, part.needs, at.inputs, strict=True)
    ]  # fmt: skip
    weights = {weight: parameters[node.key(weight)].view(shape) for weight, shape in node.weights.items()}
    found: torch.Tensor = node.layer.forward(seen, weights, part)
    return found


def beyond_targets(graph: Graph) -> set[str]:
    """The targets, and all layers that need them."""
    found: set[str] = set()
    for node in graph:  # inputs come first
        if (isinstance(node.layer, Source) and node.layer.what == "targets") or not found.isdisjoint(node.inputs):
            found.add(node.name)
    return found


def register(module: nn.Module, key: str, parameter: nn.Parameter) -> None:
    """Under its whole key.  Past `add_module`, which knows names that a layer may well have, such as "train"."""
    *path, last = key.split(".")
    for name in path:
        module = module._modules.setdefault(name, nn.Module())  # type: ignore[assignment]
    module._parameters[last] = parameter
