"""The paper's acoustic network (section 5): "five layers: four hidden layer with sigmoidal activations and 2560 nodes each, and a softmax output
layer with 8192 nodes.  The input representation was 11 consecutive overlapping 25 ms frames of speech, each represented by 40 log-energy
values.  The network was fully-connected layer-to-layer, for a total of approximately 42 million model parameters": 41,777,152.
"""

from __future__ import annotations

from models.mlp import Layered

SPEECH = Layered(
    about="the paper's acoustic model: 11 frames x 40 energies, 4 x 2,560 sigmoid, softmax of 8,192; 41,777,152 parameters",
    activation="sigmoid",
    layers=(11 * 40, 2560, 2560, 2560, 2560, 8192),
)
