"""The journal: the record of what happened, one line for each event, the same columns in both worlds.

    time_s  node  life  event  peer  number  value  note          (separated by tabs)

`LEGEND` says what peer, number, value and note mean for each event.  The digest is BLAKE2b over the lines as they stand in
the file, whether or not a file is kept: two runs with the same digest did the same things at the same times.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

COLUMNS = ("time_s", "node", "life", "event", "peer", "number", "value", "note")

LEGEND: dict[str, str] = {
    # replicas
    "joined": "peer: shard; a replica's life announced itself there; number: the shard's updates",
    "computed": "number: step of this life; value: loss of the minibatch",
    "passed": "a machine of several is through with both phases of a minibatch; number: messages it sent the others; value: their bytes",
    "pushed": "peer: shard; number: sequence; value: gradients in the push",
    "acknowledged": "peer: shard; number: sequence of the push that is counted",
    "repeated": "peer; number: attempts so far; value: seconds until the next; note: why",
    # shards
    "applied": "peer: sender, with its life; number: sequence; value: staleness in updates",
    "duplicate": "peer: sender, with its life; number: sequence already counted, acknowledged again",
    "refused": "peer: sender, with its life; note: reason",
    "broken": "peer: address; note: what came was not whole, or more than may come; whoever sent it may just have gone away",
    "finished": "number: updates; value: samples; note: which stop condition",
    "restored": "number: updates in the snapshot that this life starts from",
    "persisted": "peer: mirror, if it is there; number: updates that are durable now; value: the mirror's life",
    "warmed": "number: updates; value: samples; note: why Downpour, which goes before Sandblaster, is over here",
    "staged": "peer: sender, with its life; number: sequence; value: portions in the bundle",
    # coordinator
    "given": "peer: replica, with its life; number: first portion, or the step; value: how many; note: why",
    "arrived": "peer: replica, with its life; number: sequence of the bundle; value: portions; note: what became of it, and why",
    "cleared": "a shard drops what was staged for the point before; number: bundles; value: their bytes",
    "covered": "number: bundles of the exact cover; value: loss; note: portions given again, backups given and won, portions wasted",
    "tried": "number: evaluations so far; value: loss; note: step and slope",
    "stepped": "number: iteration; value: training loss; note: evaluations, or samples so far",
    "reset": "number: iteration; note: why the history is begun anew",
    # evaluator
    "evaluated": "number: least updates of any shard; value: loss; note: accuracy",
    "unwritten": "number: updates in a snapshot that could not be written; note: why",
    # supervisor
    "enlisted": "peer: machine; note: the host it is; its agent reports",
    "left": "peer: machine; note: the host it is; its agent has ended in order",
    "granted": "peer: role; number: the life that may begin; note: on which machine",
    "lost": "peer: role or machine; number: the life that counts as over; note: why",
    "promoted": "peer: shard; number: its life from now on; note: the mirror that it lives on in",
    "abandoned": "peer: role that is given up; number: its last life; note: last words",
    "begun": "number: roles that are there; note: who is not",
    "recovered": "a life of the supervisor that goes on from its ledger; note: what that holds",
    "concluded": "note: how the job ended, and why",
    # cluster
    "started": "peer: role; number: the life that begins; note: machine or process",
    "ended": "peer: role; number: its life; note: why",
    "crashed": "peer: role or machine; number: the life that is over, 0 for a machine; note: fault, or the exit status",
    "paused": "peer: role; note: fault",
    "resumed": "peer: role; note: fault",
    "slowed": "peer: machine; value: factor, 1 = full speed; note: fault",
    "preempted": "peer: machine that will be taken; value: seconds until then; note: fault",
    "filled": "peer: machine whose disk is full; note: fault",
    "choked": "peer: machine whose disk is slower; value: factor; note: fault",
    "misled": "peer: machine whose clock is wrong; value: seconds a second too fast; note: fault",
    "narrowed": "peer: link; value: factor by which its bandwidth is divided, 1 = whole; note: fault",
    "stalled": "number: roles that wait; value: time of the last update that was seen; note: who waits for whom",
    "dropped": "peer: addressee; number: bytes; note: why the message was lost",
    "delayed": "peer: addressee; value: seconds that a message is held up, so that later ones may overtake it; note: fault",
    "doubled": "peer: addressee of a request that was sent twice; note: fault",
    "counted": "number: messages; value: bytes; note: which",
    "failed": "note: error that ended the job",
}


Watcher = Callable[[float, str, int, str, str, int, float, str], None]
"""Takes the columns one by one: making a `Record` for each update would be a tenth of the simulator's time."""


class Record(NamedTuple):
    """One event."""

    time_s: float
    node: str
    life: int
    event: str
    peer: str = ""
    number: int = 0
    value: float = 0.0
    note: str = ""

    def line(self) -> str:
        return f"{self[0]:.9f}\t{self[1]}\t{self[2]}\t{self[3]}\t{self[4]}\t{self[5]}\t{self[6]}\t{self[7]}\n"


def parse(line: str) -> Record:
    """The record that a line says.  Raises ValueError for a line cut short, as `kill -9` leaves one at the end."""
    if not line.endswith("\n"):
        raise ValueError("a line without its end")
    time_s, node, life, event, peer, number, value, note = line[:-1].split("\t")
    return Record(float(time_s), node, int(life), event, peer, int(number), float(value), note)


def read(lines: Iterator[str]) -> Iterator[Record]:
    """Every whole line; the last may be torn, an earlier one may not."""
    previous: str | None = None
    for line in lines:
        if previous is not None:
            yield parse(previous)
        previous = line
    if previous is not None and previous.endswith("\n") and previous.count("\t") == len(COLUMNS) - 1:
        yield parse(previous)


class Journal:
    """Takes records, passes them to its watchers, keeps the digest, and writes the lines to a file if it has one."""

    BATCH = 1024
    """Lines formatted before they are hashed and written together."""

    def __init__(self, file: IO[bytes] | None = None, *, prompt: bool = False) -> None:
        """`prompt`: write each line at once, for a process that may be killed; nothing is buffered in it then."""
        self.file = file
        self.lines = 0
        self._digest = hashlib.blake2b(digest_size=16)
        self._pending: list[str] = []
        self._batch = 1 if prompt else self.BATCH
        self._now, self._stamp = math.nan, ""
        self.watchers: dict[str, list[Watcher]] = {}

    def watch(self, event: str, watcher: Watcher) -> None:
        """Call `watcher` with the columns of each record of that event, as it happens."""
        self.watchers.setdefault(event, []).append(watcher)

    def watch_all(self, watcher: Watcher) -> None:
        """The same of every event."""
        for event in LEGEND:
            self.watch(event, watcher)

    def records(self) -> list[Record]:
        """A list that grows by every record from now on."""
        found: list[Record] = []
        self.watch_all(lambda *columns: found.append(Record(*columns)))
        return found

    def recorder(self, node: str, life: int, clock: Callable[[], float]) -> Callable[..., None]:
        """A `core.node.Recorder` for one life of a role."""
        pending, watchers, batch, stamp = self._pending, self.watchers, self._batch, f"\t{node}\t{life}\t"

        def record(event: str, peer: str = "", number: int = 0, value: float = 0.0, note: str = "") -> None:
            now = clock()
            if now != self._now:
                self._now, self._stamp = now, f"{now:.9f}"  # many records share an instant, and formatting it is dear
            pending.append(f"{self._stamp}{stamp}{event}\t{peer}\t{number}\t{value}\t{note}\n")
            if event in watchers:
                for watcher in watchers[event]:
                    watcher(now, node, life, event, peer, number, value, note)
            if len(pending) >= batch:
                self.flush()

        return record

    def flush(self) -> None:
        """Hash and write what is pending."""
        if not self._pending:
            return
        data = "".join(self._pending).encode()
        self.lines += len(self._pending)
        self._pending.clear()
        self._digest.update(data)
        if self.file is not None:
            self.file.write(data)
            self.file.flush()

    def digest(self) -> str:
        """Hexadecimal digest of every line so far."""
        self.flush()
        return self._digest.hexdigest()


def one_line(text: str, limit: int = 300) -> str:
    """A note holds no tab and no line end, and is not a novel."""
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def number_or_nan(text: str) -> float:
    """The number a note holds, NaN if it holds none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
