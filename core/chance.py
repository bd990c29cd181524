"""Named random streams: keyed by (seed, entity, purpose), so that adding one never shifts another's draws.

Two variants of a scenario can so be compared draw by draw, and a new fault changes nothing but what it hits.
"""

from __future__ import annotations

import hashlib
import random


def number(seed: int, entity: str, purpose: str) -> int:
    """63 bits that depend on all three and on nothing else."""
    key = f"{seed}\x00{entity}\x00{purpose}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1


def stream(seed: int, entity: str, purpose: str) -> random.Random:
    """The stream of that name, at its beginning."""
    return random.Random(number(seed, entity, purpose))
