"""What passes between the machines of one replica: states and gradients of a minibatch, and words about how to go on.

Nobody acknowledges a state or a gradient: the word that a machine is through with its minibatch says that all have come.  What gets lost
on the way is asked for again, by whoever waits for it (`Overdue`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from core.messages import Accepted, Behind, Request
from core.phases import Phase


@dataclass(slots=True, eq=False)
class Pass(Request[Accepted | Behind]):
    """What crosses in one phase of a minibatch: the state of a part (or a parameter), or its gradient on the way back.

    `round` counts the minibatches of this life, and what else its machines do together; `message`: which of the partitioned graph's.
    """

    round: int
    phase: Phase
    message: int
    vector: Any = field(repr=False)

    @property
    def payload(self) -> Any:
        return self.vector


@dataclass(slots=True, eq=False)
class Overdue(Request[Accepted | Behind]):
    """What should have come from the addressee in this round, by phase, and has not for long: what of it had left leaves once more."""

    round: int
    up: tuple[int, ...]
    down: tuple[int, ...]


@dataclass(slots=True, eq=False)
class Word(Request[Accepted | Behind]):
    """A machine of a replica has come to the end of a round; or the first of them, to whom all say so, says that all have.

    `well`: did everything go as it should, here (or everywhere)?  `finished`: is there nothing more to do for any shard of it?
    `leaving`: has it been asked to end?  `value`: the loss, of whoever has it.  `point`, `portions`: the work that comes next, which the
    first machine was given.
    """

    round: int
    well: bool = True
    finished: bool = False
    leaving: bool = False
    value: float | None = None
    point: int = 0
    portions: tuple[int, ...] = ()
