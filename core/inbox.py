"""Where one machine of a replica receives what the others send: each thing once, kept until the round that it is for.

All machines of a replica live the same life, and go through the same rounds, at most two apart.  What is of an earlier life is refused; what
comes again is acknowledged again and dropped; what is of a later life has come too early, and its sender must try again, or be asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from core.job import partition_number, unit_of
from core.messages import Accepted, Behind, Refusal, Request, Sender
from core.node import Node, Outcome
from core.passing import Overdue, Pass, Word
from core.phases import Arrival, Expected, Phase

AHEAD = 2
"""Rounds that another machine can be ahead: nobody ends the one in which all say that they are through before all are there.  Then the
first machine may tell what comes next, and a minibatch begin, while the news of that end has yet to reach somebody; or whoever needs
nothing of the first machine be through with a minibatch that it has not begun."""


KEPT = Outcome(Accepted(0))


class Inbox:
    """Of one life of one machine of a replica."""

    def __init__(
        self, node: Node, names: Sequence[str], expected: Mapping[Arrival, Expected],
        deliver: Callable[[Expected | str, Any], None], again: Callable[[Overdue, str], None],
    ) -> None:  # fmt: skip
        """`names`: of the replica's machines; `expected`: every message that may come.

        `deliver` is handed what has come for the present round: a message's vector, or a word by its sender; `again`: what another
        machine asks for once more, and its name.
        """
        self.node, self.names, self.expected, self.deliver, self.again = node, names, expected, deliver, again
        self.unit, self.round = unit_of(node.name), 0
        self._early: defaultdict[int, list[tuple[Expected | str, Any]]] = defaultdict(list)
        """For the next rounds, by round."""
        self._seen: dict[int, int] = {}
        """Of each round: bits, of the messages first and then of the words."""

    def handle(self, request: Request[Any], sender: Sender) -> Outcome:
        """Keep what is meant for a round that is not over."""
        if isinstance(request, Pass):
            expected = self.expected.get((request.phase, request.message))  # type: ignore[call-overload]  # equal to the Arrival, and sooner made
            length = len(request.vector)
            if expected is None or self.names[expected.machine] != sender.name:
                return self.refuse(
                    sender, f"message {request.message} {request.phase} is not for {self.node.name} to have of {sender.name}"
                )
            if not length or length % expected.multiple:
                return self.refuse(sender, f"message {request.message} of {length} elements, not so many times {expected.multiple}")
            return self.keep(expected.bit, expected, request, sender)
        if isinstance(request, Overdue):
            return self.overdue(request, sender)
        if isinstance(request, Word):
            return self.word(request, sender)
        return self.refuse(sender, f"a machine of a replica does not serve {type(request).__name__}")

    def word(self, request: Word, sender: Sender) -> Outcome:
        if unit_of(sender.name) != self.unit:
            return self.refuse(sender, f"{sender.name} is no machine of {self.unit}")
        return self.keep(1 << (len(self.expected) + partition_number(sender.name)), sender.name, request, sender)

    def keep(self, bit: int, key: Expected | str, request: Pass | Word, sender: Sender) -> Outcome:
        """If it is of this life, and comes for the first time, in this round or one of the next."""
        number = request.round
        if sender.incarnation != self.node.incarnation:
            return self.other_life(sender)
        if number > self.round + AHEAD:
            return self.refuse(sender, f"round {number} is ahead of round {self.round}")
        if number < self.round:
            return KEPT
        seen = self._seen.get(number, 0)
        if not seen & bit:
            self._seen[number] = seen | bit
            kept = request if isinstance(request, Word) else request.vector.clone()
            if number == self.round:
                self.deliver(key, kept)
            else:
                self._early[number].append((key, kept))
        return KEPT

    def overdue(self, request: Overdue, sender: Sender) -> Outcome:
        """What goes there in one phase comes from there in the other."""
        backward: list[tuple[Phase, int]] = [*(("down", number) for number in request.up), *(("up", number) for number in request.down)]
        for key in backward:
            expected = self.expected.get(key)  # type: ignore[call-overload]
            if expected is None or self.names[expected.machine] != sender.name:
                return self.refuse(sender, f"message {key[1]} is not for {sender.name} to have of {self.node.name}")
        if sender.incarnation != self.node.incarnation:
            return self.other_life(sender)
        self.again(request, sender.name)
        return KEPT

    def other_life(self, sender: Sender) -> Outcome:
        if sender.incarnation < self.node.incarnation:
            return self.refuse(sender, f"{sender.name} lives life {sender.incarnation}, {self.node.name} lives {self.node.incarnation}")
        return Outcome(Behind())

    def refuse(self, sender: Sender, reason: str) -> Outcome:
        self.node.record("refused", sender.label, 0, 0.0, reason)
        return Outcome(Refusal(reason))

    def enter(self, number: int) -> None:
        """A round begins, and the one before is over."""
        self.round = number
        self._seen.pop(number - 1, None)
        for key, kept in self._early.pop(number, ()):
            self.deliver(key, kept)
