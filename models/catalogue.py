"""The bundled networks, described without torch: the simulator's timing-only runs need their sizes and nothing else.

Each has a file of its own: `mlp.py`, `speech.py`, `image.py`, `local.py`.
"""

from __future__ import annotations

from models.bundled import Bundled
from models.image import IMAGE_1_7B, IMAGE_80M, IMAGE_330M
from models.local import LOCAL
from models.mlp import MLP
from models.speech import SPEECH

BUNDLED: dict[str, Bundled] = {
    "mlp": MLP,
    "speech": SPEECH,
    "image-80m": IMAGE_80M,
    "image-330m": IMAGE_330M,
    "image-1.7b": IMAGE_1_7B,
    "local": LOCAL,
}

DIGITS_SAMPLES, DIGITS_INPUTS, DIGITS_CLASSES = 1797, 64, 10
"""The handwritten digits that scikit-learn bundles (8 x 8 pixels; UCI optical recognition, test part)."""


def held_out_samples(total: int, share: float) -> int:
    """How many of all samples are held out: at least one, and never the last that could be trained on."""
    return max(1, min(total - 1, round(total * share)))
