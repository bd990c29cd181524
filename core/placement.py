"""Which machine a process should run on: pure, and every refusal comes with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from core.reports import Capacity


class Needs(NamedTuple):
    """What one process takes of its machine.  Nothing is taken of what nobody asks for."""

    cores: float = 0.0
    gpus: int = 0
    memory_bytes: int = 0


@dataclass(slots=True)
class Site:
    """A machine that may take processes, and what the roles that live there need."""

    capacity: Capacity
    taken: dict[str, Needs] = field(default_factory=dict)

    def lacks(self, needs: Needs) -> str:
        """What is missing here, "" if nothing is."""
        if needs == NOTHING:
            return ""
        short = []
        for name, wanted in zip(Needs._fields, needs, strict=True):
            left = getattr(self.capacity, name) - sum(getattr(other, name) for other in self.taken.values())
            if wanted > left:
                short.append(f"{name}: {wanted:g} wanted, {max(0, left):g} free")
        return ", ".join(short)


NOTHING = Needs()


def place(
    role: str, needs: Needs, sites: Mapping[str, Site], *, last: str = "", storage: str = "", apart_from: str = ""
) -> tuple[str, str]:  # fmt: skip
    """The machine for a role, or "" and why there is none.

    `last`: where it lived before, taken again if possible; `storage`: what it has kept lies there and nowhere else;
    `apart_from`: a role that should not be on the same machine, if there is another.  Of equals the one with the fewest
    roles is taken, in the order given: roles are spread.
    """
    fitting: list[tuple[bool, bool, int, int, str]] = []
    refused = []
    for number, (name, site) in enumerate(sites.items()):
        if storage and site.capacity.storage != storage:
            refused.append(f"{name} does not hold what {role} has kept")
        elif lack := site.lacks(needs):
            refused.append(f"{name} lacks {lack}")
        else:
            fitting.append((apart_from in site.taken, name != last, len(site.taken), number, name))
    if fitting:
        return min(fitting)[-1], ""
    return "", f"no machine for {role}: {'; '.join(refused) or 'none is up'}"
