"""A graph as a plain module of torch."""

from __future__ import annotations

import torch
from torch import nn

from core.boxes import slices, whole
from core.graph import Graph, Part
from models.layers import Source


class GraphModule(nn.Module):
    """Each layer in one part; its output is the graph's.  Parameters go by their keys, as if submodules had them."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        for node in graph:
            for weight, shape in node.weights.items():
                parameter = nn.Parameter(torch.empty(shape))
                with torch.no_grad():
                    node.layer.initialise(node.at, weight, parameter)
                *path, last = node.key(weight).split(".")
                at: nn.Module = self
                for name in path:
                    if name not in at._modules:
                        at._modules[name] = nn.Module()
                    at = at._modules[name]  # type: ignore[assignment]
                at.register_parameter(last, parameter)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """`inputs`: samples x the shape of the source, or samples x as many numbers."""
        parameters, values = dict(self.named_parameters()), {}
        for node in self.graph:
            if isinstance(node.layer, Source):
                values[node.name] = inputs.reshape(len(inputs), *node.layer.of)
                continue
            at, box = node.at, whole(node.at.output)
            part = Part(at, box, node.layer.needs(at, box), node.layer.weight_boxes(at, box))
            seen = [
                values[name][(slice(None), *slices(need, whole(shape)))]
                for name, need, shape in zip(node.inputs, part.needs, at.inputs, strict=True)
            ]
            values[node.name] = node.layer.forward(seen, {weight: parameters[node.key(weight)] for weight in node.weights}, part)
        return values[self.graph.outputs[0].name]
