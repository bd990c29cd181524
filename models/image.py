"""The paper's image networks (section 5): images of 100 x 100, "three stages, each composed of filtering, pooling and local contrast
normalization, where each node in the filtering layer was connected to a 10x10 patch in the layer below", 8 to 36 filters at
each patch, and "21 thousand one-vs-all logistic classifier nodes".  Sizes of 80 million, 330 million and 1.7 billion parameters are named
(section 3, figure 3), but no sizes of layers.  What had to be chosen, once, before any speed-up was looked at:

- *The same network with more filters*: 8, 16 and 36 at each place, in every stage.  Almost all weights join filters to filters of the stage
  below, so they grow with the square: 80 : 330 : 1,700 is about 64 : 256 : 1,296.
- *One channel* of input.  With colours the first stage is thrice as large, and with 8 filters the smallest network could not be of 80M.
- *Filters at every place*, without padding (stride 1): 100 -> 91, 87 -> 78, 74 -> 65 places a side.  With a stride of 2 in any stage even 36
  filters fall far short of 1.7 billion.
- *Pooling* is the root of the sum of squares of 5 x 5 places, overlapping (stride 1), and *contrast* is normalised over 5 x 5 places of all
  filters: both as in the network of several of the same authors (Le et al., Building high-level features using large scale unsupervised
  learning, ICML 2012).  As there, filters are linear, and pooling is what is not.
- *The last pooling* alone makes maps smaller, by a stride of 9, 5 or 3: each place left costs 21,000 weights for each filter, and this brings
  the totals to those of the paper.  Its windows are the least, of 5 or more, that miss no place between two strides nor at the end.
- 21 thousand is 21,000.

    network       filters  last pooling      classes see   parameters       in filters   in classes
    image-80m        8     11 x 11, stride 9    7 x 7         81,004,120       90 %         10 %
    image-330m      16      5 x 5,  stride 5   13 x 13       334,262,440       83 %         17 %
    image-1.7b      36      5 x 5,  stride 3   21 x 21     1,699,944,240       80 %         20 %
"""

from __future__ import annotations

from dataclasses import dataclass

from core.graph import Graph, Node
from models.bundled import Bundled
from models.layers import Dense, Source
from models.windows import Contrast, LocallyConnected, Pool

STAGES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Image(Bundled):
    """`filters`: at each place.  `last_window`, `last_stride`: of the last pooling.  `near`: side of the other windows of pooling, and of
    contrast.  What has a default is the paper's.
    """

    filters: int
    last_window: int
    last_stride: int
    side: int = 100
    patch: int = 10
    near: int = 5
    classifiers: int = 21_000

    def graph(self, layers: tuple[int, ...] | None = None) -> Graph:
        assert layers is None, "the scenario is checked for layers when it is loaded"
        nodes = [Node("inputs", Source((1, self.side, self.side)))]
        for stage in range(1, STAGES + 1):
            window, stride = (self.last_window, self.last_stride) if stage == STAGES else (self.near, 1)
            nodes += [
                Node(f"filters-{stage}", LocallyConnected(self.filters, self.patch), nodes[-1].name),
                Node(f"pool-{stage}", Pool("l2", window, stride), f"filters-{stage}"),
                Node(f"contrast-{stage}", Contrast(self.near), f"pool-{stage}"),
            ]
        return Graph([*nodes, Node("classes", Dense(self.classifiers), nodes[-1].name)])


def image(size: str, filters: int, last_window: int, last_stride: int) -> Image:
    return Image(
        about=f"the paper's image model of {size}: 100 x 100, three stages of {filters} local filters, pooling and contrast, 21,000 classes",
        loss="logistic", filters=filters, last_window=last_window, last_stride=last_stride,
    )  # fmt: skip


IMAGE_80M = image("80 million parameters", 8, 11, 9)
IMAGE_330M = image("330 million parameters", 16, 5, 5)
IMAGE_1_7B = image("1.7 billion parameters", 36, 5, 3)
