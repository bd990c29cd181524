"""The best trace that a journal allows, of either world.

Lives, faults and pushes are slices; a push leads by an arrow to where it was applied, or staged.  A step lasts from the one before
it to its own end, waiting included, since a journal does not say when computing began.  Staleness, loss and accuracy are counters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from core.job import SUPERVISOR, role_kind
from core.journal import Record, Watcher, number_or_nan
from report.trace import TraceWriter, Track
from report.watching import Watching

FAULTS, TRAINING = "faults", "training"
"""Processes of the trace that are no machines."""


class Open(NamedTuple):
    """A slice whose end is not known yet."""

    track: Track
    name: str
    begin_s: float


class Sent(NamedTuple):
    """A push that is not acknowledged yet."""

    begin_s: float
    gradients: float
    taken: tuple[Track, float] | None
    """Where and when it was applied or staged."""


def from_journal(records: Iterable[Record], writer: TraceWriter) -> None:
    """Everything that the records tell, in the order of time.  Ends what is open at the last of them."""
    tracer, last_s = Tracer(writer), 0.0

    def timed() -> Iterator[Record]:
        nonlocal last_s
        for record in records:
            last_s = max(last_s, record.time_s)
            yield record

    tracer.read(timed())
    tracer.finish(last_s)


class Tracer(Watching):
    """Follows a journal and writes what it tells; `finish` ends what is open."""

    NOTED = (
        "joined", "repeated", "duplicate", "refused", "finished", "restored", "persisted", "warmed", "unwritten", "reset", "lost",
        "promoted", "abandoned", "begun", "recovered", "concluded", "failed",
    )  # fmt: skip
    """Told as they are, as moments."""

    def __init__(self, writer: TraceWriter, *, steps: bool = True) -> None:
        """`steps`: show them as the journal tells of them, for lack of anybody who knows better."""
        self.writer, self.steps = writer, steps
        self._machines: dict[str, str] = {}
        self._lives: dict[str, Open] = {}
        self._faults: dict[tuple[str, str], Open] = {}
        """By what happens and to whom."""
        self._sent: dict[tuple[str, int, str, int], Sent] = {}
        self._marks: dict[str, float] = {}
        """When each replica's present step began, at the earliest."""
        self._batch_began_s, self._batches, self._arrows, self._lost_messages = math.inf, 0, 0, 0

    @property
    def takers(self) -> dict[str, Watcher]:
        takers: dict[str, Watcher] = {
            "granted": self.granted, "started": self.started, "ended": self.ended, "crashed": self.crashed, "enlisted": self.enlisted,
            "paused": self.paused, "resumed": self.resumed, "slowed": self.slowed, "dropped": self.dropped,
            "pushed": self.pushed, "applied": self.taken, "staged": self.taken, "acknowledged": self.acknowledged,
            "given": self.given, "covered": self.covered, "stepped": self.stepped, "evaluated": self.evaluated,
        }  # fmt: skip
        return takers | ({"computed": self.computed} if self.steps else {}) | dict.fromkeys(self.NOTED, self.noted)

    def machine(self, role: str) -> str:
        """Where a role lives; a role of which that is not told has a process of its own."""
        return self._machines.get(role, role)

    # lives

    def granted(self, _time_s: float, _node: str, _life: int, _event: str, peer: str, _number: int, _value: float, note: str) -> None:
        self._machines[peer] = note

    def started(self, time_s: float, _node: str, _life: int, _event: str, peer: str, number: int, _value: float, note: str) -> None:
        if not note.startswith("process"):
            self._machines[peer] = note
        self._end(self._lives, peer, time_s)
        self._end(self._faults, ("crash", peer), time_s)
        self._lives[peer] = Open(Track(self.machine(peer), f"{peer} lives"), f"life {number}", max(0.0, time_s))
        self._marks[peer] = time_s

    def ended(self, time_s: float, _node: str, _life: int, _event: str, peer: str, _number: int, _value: float, note: str) -> None:
        self._end(self._lives, peer, time_s, why=note)

    def crashed(self, time_s: float, _node: str, _life: int, _event: str, peer: str, _number: int, _value: float, note: str) -> None:
        self._end(self._lives, peer, time_s, why=note)
        fault = named(note) or "not declared"
        self._faults["crash", peer] = Open(Track(FAULTS, fault), f"{peer} is down", time_s)

    def enlisted(self, time_s: float, _node: str, _life: int, _event: str, peer: str, *_: object) -> None:
        self._end(self._faults, ("crash", peer), time_s)

    # faults

    def paused(self, time_s: float, _node: str, _life: int, _event: str, peer: str, _number: int, _value: float, note: str) -> None:
        self._faults["pause", peer] = Open(Track(FAULTS, named(note)), f"{peer} is stopped", time_s)

    def resumed(self, time_s: float, _node: str, _life: int, _event: str, peer: str, *_: object) -> None:
        self._end(self._faults, ("pause", peer), time_s)

    def slowed(self, time_s: float, _node: str, _life: int, _event: str, peer: str, _number: int, value: float, note: str) -> None:
        self._end(self._faults, ("slow", peer), time_s)
        if value > 1:
            self._faults["slow", peer] = Open(Track(FAULTS, named(note)), f"{peer} is {value:g} times slower", time_s)

    def dropped(self, time_s: float, *_: object) -> None:
        self._lost_messages += 1
        self.writer.counter(FAULTS, "messages lost", max(0.0, time_s), self._lost_messages)

    # pushes and steps

    def pushed(self, time_s: float, node: str, life: int, _event: str, peer: str, number: int, value: float, _note: str) -> None:
        self._sent[node, life, peer, number] = Sent(max(0.0, time_s), value, None)

    def taken(self, time_s: float, node: str, _life: int, event: str, peer: str, number: int, value: float, _note: str) -> None:
        at = max(0.0, time_s)
        machine = self.machine(node)
        track = self.writer.slice(Track(machine, f"{node} {event}"), f"push {number} of {peer}", at, at, value=value)
        if event == "applied":
            self.writer.counter(machine, f"staleness at {node}", at, value)
        sender, _, life = peer.rpartition("#")
        sent = self._sent.get((sender, int(life), node, number))
        if sent is not None:
            self._sent[sender, int(life), node, number] = sent._replace(taken=(track, at))

    def acknowledged(self, time_s: float, node: str, life: int, _event: str, peer: str, number: int, *_: object) -> None:
        sent = self._sent.pop((node, life, peer, number), None)
        if sent is not None:
            self._show(node, peer, number, sent, time_s)

    def _show(self, node: str, peer: str, number: int, sent: Sent, end_s: float, **args: str) -> None:
        lane = Track(self.machine(node), f"{node} pushes to {peer}")
        track = self.writer.slice(lane, f"push {number}", sent.begin_s, max(sent.begin_s, end_s), gradients=sent.gradients, **args)
        if sent.taken is not None:
            self._arrows += 1
            self.writer.flow(f"push {self._arrows}", (track, sent.begin_s), sent.taken)

    def computed(self, time_s: float, node: str, _life: int, _event: str, _peer: str, number: int, value: float, _note: str) -> None:
        end = max(0.0, time_s)
        begin = min(end, max(0.0, self._marks.get(node, time_s)))
        told = {"loss": value} if math.isfinite(value) else {}
        self.writer.slice(Track(self.machine(node), f"{node} steps"), f"step {number}", begin, end, **told)
        self._marks[node] = time_s

    # coordinator and evaluator

    def given(self, time_s: float, _node: str, _life: int, _event: str, peer: str, *_: object) -> None:
        role = peer.rpartition("#")[0]
        self._marks[role] = max(time_s, self._marks.get(role, time_s))
        self._batch_began_s = min(time_s, self._batch_began_s)

    def covered(self, time_s: float, node: str, _life: int, _event: str, _peer: str, number: int, value: float, note: str) -> None:
        self._batches += 1
        begin = max(0.0, min(self._batch_began_s, time_s))
        told = {"loss": value} if math.isfinite(value) else {}
        self.writer.slice(
            Track(self.machine(node), f"{node} batches"),
            f"batch {self._batches}",
            begin,
            max(0.0, time_s),
            bundles=number,
            cost=note,
            **told,
        )
        self._batch_began_s = math.inf

    def stepped(self, time_s: float, _node: str, _life: int, _event: str, _peer: str, _number: int, value: float, _note: str) -> None:
        self.writer.counter(TRAINING, "training loss", max(0.0, time_s), value)

    def evaluated(self, time_s: float, _node: str, _life: int, _event: str, _peer: str, _number: int, value: float, note: str) -> None:
        self.writer.counter(TRAINING, "held-out loss", max(0.0, time_s), value)
        if note:
            self.writer.counter(TRAINING, "held-out accuracy", max(0.0, time_s), number_or_nan(note))

    def noted(self, time_s: float, node: str, _life: int, event: str, peer: str, number: int, _value: float, note: str) -> None:
        if role_kind(node) == "replica" and event == "joined":
            self._marks[node] = time_s
        name = " ".join(filter(None, (event, peer)))
        lane = Track(self.machine(node) if node != SUPERVISOR else SUPERVISOR, f"{node} events")
        self.writer.instant(lane, name, max(0.0, time_s), number=number, note=note)

    # the end

    def _end(self, opened: dict[Any, Open], key: object, time_s: float, **args: str) -> None:
        one = opened.pop(key, None)
        if one is not None:
            self.writer.slice(one.track, one.name, max(0.0, one.begin_s), max(0.0, one.begin_s, time_s), **args)

    def finish(self, time_s: float) -> None:
        """The run is over: whatever is open ends now."""
        for opened in (self._lives, self._faults):
            for key in list(opened):
                self._end(opened, key, time_s, why="the run is over")
        for (node, _, peer, number), sent in self._sent.items():
            self._show(node, peer, number, sent, time_s, answer="none")
        self._sent.clear()


def named(note: str) -> str:
    """The "fault.1 crash" that a note begins with; "" if it names none."""
    return " ".join(note.split()[:2]) if note.startswith("fault.") else ""
