"""The bundled networks, described without torch: the simulator's timing-only runs need their sizes and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from core.graph import Graph, Node
from models.layers import Dense, Elementwise, Source


@dataclass(frozen=True, slots=True)
class Layered:
    """A fully connected network.  `layers` are the widths, inputs first; None: the scenario says."""

    about: str
    activation: Literal["relu", "sigmoid"]
    layers: tuple[int, ...] | None = None

    def widths(self, layers: tuple[int, ...] | None = None) -> tuple[int, ...]:
        widths = layers or self.layers
        assert widths is not None, "the scenario is checked for layers when it is loaded"
        return widths

    def parameters(self, layers: tuple[int, ...] | None = None) -> int:
        """Weights and biases."""
        return sum(a * b + b for a, b in pairwise(self.widths(layers)))

    def graph(self, layers: tuple[int, ...] | None = None) -> Graph:
        """Its layers; the keys are those of the plain torch module."""
        inputs, *widths = self.widths(layers)
        nodes = [Node("inputs", Source((inputs,)))]
        for number, width in enumerate(widths):
            keys = {"weight": f"{2 * number}.weight", "bias": f"{2 * number}.bias"}
            last = number + 1 == len(widths)
            name = "classes" if last else f"hidden-{number + 1}"
            nodes.append(Node(name, Dense(width), nodes[-1].name, keys=keys))
            if not last:
                nodes.append(Node(f"{self.activation}-{number + 1}", Elementwise(self.activation), name))
        return Graph(nodes)

    def flops_per_sample(self, layers: tuple[int, ...] | None = None) -> float:
        """Forward 2 for each weight; backward twice as many (gradients of inputs and of weights)."""
        return 6.0 * sum(a * b for a, b in pairwise(self.widths(layers)))


BUNDLED: dict[str, Layered] = {
    "mlp": Layered("fully connected, rectified; give its layers", "relu"),
    "speech": Layered(
        "the paper's acoustic model: 11 frames x 40 energies, 4 x 2,560 sigmoid, softmax of 8,192; 41,777,152 parameters",
        "sigmoid",
        (440, 2560, 2560, 2560, 2560, 8192),
    ),
}

DIGITS_SAMPLES, DIGITS_INPUTS, DIGITS_CLASSES = 1797, 64, 10
"""The handwritten digits that scikit-learn bundles (8 x 8 pixels; UCI optical recognition, test part)."""


def held_out_samples(total: int, share: float) -> int:
    """How many of all samples are held out: at least one, and never the last that could be trained on."""
    return max(1, min(total - 1, round(total * share)))
