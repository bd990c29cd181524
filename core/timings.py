"""Everything that is timed follows from one number of the user's: within which time a failure should be noticed.

`execctl explain` prints this table.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timings:
    """Durations in seconds, derived from `detect_within_s`."""

    detect_within_s: float = 1.0

    @property
    def beat_s(self) -> float:
        """Between two signs of life of a role, and of an agent."""
        return self.detect_within_s / 4

    @property
    def silence_s(self) -> float:
        """Whoever is silent for so long counts as lost: three beats missed, and a little."""
        return self.detect_within_s * 17 / 20

    @property
    def look_s(self) -> float:
        """Between two looks for whoever is silent; together with the silence it stays within what was asked for."""
        return self.detect_within_s / 10

    @property
    def keepalive_s(self) -> float:
        """Between two probes of a connection, and until an unanswered one ends it: a pulled cable makes no other noise."""
        return self.detect_within_s / 2

    @property
    def deadline_s(self) -> float:
        """After which a call counts as unanswered, and is repeated.  Whether its peer lives is not judged by it."""
        return self.detect_within_s * 10

    @property
    def steady_s(self) -> float:
        """A life that lasted so long was no failure to start: earlier crashes of its role are forgotten."""
        return self.detect_within_s * 30

    @property
    def orphan_s(self) -> float:
        """An agent that has not heard of its supervisor for so long ends its processes and itself."""
        return max(60.0, self.detect_within_s * 60)

    @property
    def conclude_s(self) -> float:
        """What the roles of a job that is ending get for their last words."""
        return 10.0 + 2 * self.deadline_s

    def explain(self) -> list[tuple[str, float, str]]:
        """Name, seconds and meaning of each."""
        return [
            ("beat", self.beat_s, "between two signs of life of a role or an agent"),
            ("silence", self.silence_s, "after which whoever is silent counts as lost"),
            ("look", self.look_s, "between two looks for whoever is silent"),
            ("keepalive", self.keepalive_s, "between probes of a connection, and until one counts as unanswered"),
            ("deadline", self.deadline_s, "of a call, before it is repeated (protocol.deadline overrides it)"),
            ("steady", self.steady_s, "of living, after which earlier crashes are forgotten"),
            ("conclude", self.conclude_s, "for the last words of a job that is ending"),
            ("orphan", self.orphan_s, "without a supervisor, after which an agent ends itself and its processes"),
        ]


GIVE_UP_AFTER = 5
"""Lives in a row that were not steady, after which a role is given up with its last words."""


def pause_before(crashes: int, timings: Timings) -> float:
    """How long a role that has crashed so many times in a row waits before its next life: not at all after the first."""
    return 0.0 if crashes <= 1 else timings.beat_s * 2.0 ** (crashes - 2)
