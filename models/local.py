"""A small network of the image networks' kind, for the digits: local filters, pooling, contrast, ten classes; some ten thousand parameters."""

from __future__ import annotations

from dataclasses import dataclass

from core.graph import Graph, Node
from models.bundled import Bundled
from models.layers import Dense, Elementwise, Source
from models.windows import Contrast, LocallyConnected, Pool

SIDE, CLASSES = 8, 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Local(Bundled):
    """Filters see 3 x 3 pixels, at each of 8 x 8 places others."""

    filters: int

    def graph(self, layers: tuple[int, ...] | None = None) -> Graph:
        assert layers is None, "the scenario is checked for layers when it is loaded"
        return Graph([
            Node("inputs", Source((1, SIDE, SIDE))),
            Node("filters", LocallyConnected(self.filters, 3, padding=1), "inputs"),
            Node("relu", Elementwise("relu"), "filters"),
            Node("pool", Pool("max", 2, 2), "relu"),
            Node("contrast", Contrast(3), "pool"),
            Node("classes", Dense(CLASSES), "contrast"),
        ])  # fmt: skip


LOCAL = Local(about="local filters, pooling, contrast and ten classes, for the digits; small", filters=12)
