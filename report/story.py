"""The story of one thing, from beginning to end, out of a journal: in sentences, with the time between them.

push/17  push/replica/3/17  push/replica/3#1/shard/0/17      pushes of that sequence, of one sender or life, to one shard
portion/12                                                   who had a portion of the batch, in every batch
batch/4                                                      the fourth pass over the data
replica/3  shard/0  machine/2  coordinator  …                the lives of a role or machine
replica/3#2                                                  one life
fault/0                                                      whatever a declared fault did
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from core.checks import PushId, push_of
from core.journal import Record
from models.errors import InputError
from report.search import Wanted, search
from scenarios.units import in_words

Sentence = Callable[[Record], str]

SENTENCES: dict[str, str] = {
    "joined": "{who} announced itself to {peer}, which stands at {number} updates",
    "computed": "{who} had computed {number}{loss}",
    "passed": "{who} was through with a minibatch, in which it sent the others of its replica {number} messages of {value:g} bytes",
    "pushed": "{who} sent push {number} to {peer}: {value:g} gradients or portions",
    "acknowledged": "{who} heard that {peer} counts push {number}",
    "repeated": "{who} had no answer of {peer} and asks again in {pause}, for the {number}th time: {note}",
    "applied": "{who} applied push {number} of {peer}, {value:g} updates stale",
    "duplicate": "{who} had push {number} of {peer} already, and acknowledged it again",
    "refused": "{who} refused {peer}: {note}",
    "broken": "{who} could not read what came from {peer}: {note}",
    "finished": "{who} finished with {number} updates: {note}",
    "restored": "{who} begins with {number} updates that were kept",
    "persisted": "{who} has {number} updates that are durable{with_peer}",
    "warmed": "{who} ended its warm start with {number} updates: {note}",
    "staged": "{who} staged bundle {number} of {peer}: {value:g} portions",
    "given": "{who} gave {peer} {portions}: {note}",
    "arrived": "{who} took bundle {number} of {peer}: {note}",
    "cleared": "{who} dropped {number} bundles of the point before",
    "covered": "{who} had every portion, in {number} bundles; loss {value:.6g}; {note}",
    "tried": "{who} tried {note}: loss {value:.6g}",
    "stepped": "{who} took step {number}; training loss {value:.6g}; {note}",
    "reset": "{who} began its history anew at iteration {number}: {note}",
    "evaluated": "{who} measured loss {value:.6g} at {number} updates{accuracy}",
    "unwritten": "{who} could not write a snapshot of {number} updates: {note}",
    "enlisted": "{who} heard of {peer}: {note}",
    "left": "{who} let {peer} go, in order: {note}",
    "granted": "{who} granted life {number} of {peer}, on {note}",
    "lost": "{who} took {peer} for lost: {note}",
    "promoted": "{who} made {note} the {peer}#{number}",
    "abandoned": "{who} gave {peer} up: {note}",
    "begun": "{who} let the job begin, with {number} roles {note}",
    "recovered": "{who} goes on from its ledger: {note}",
    "concluded": "{who} ended the job: {note}",
    "started": "{peer}#{number} started: {note}",
    "ended": "{peer}#{number} ended: {note}",
    "crashed": "{peer}#{number} crashed: {note}",
    "paused": "{peer} was stopped: {note}",
    "resumed": "{peer} goes on: {note}",
    "slowed": "{peer} is {value:g} times slower than it could be: {note}",
    "preempted": "{peer} will be taken in {value:g} s: {note}",
    "filled": "the disk of {peer} is full: {note}",
    "choked": "the disk of {peer} is {value:g} times slower: {note}",
    "misled": "the clock of {peer} goes wrong by {value:g} s a second: {note}",
    "narrowed": "{peer} carries one part in {value:g} of what it could: {note}",
    "dropped": "a message to {peer} was lost: {note}",
    "delayed": "a message to {peer} was held up by {value:g} s: {note}",
    "doubled": "a request to {peer} was sent twice: {note}",
    "counted": "{who} counted {number} messages of {value:.0f} bytes: {note}",
    "stalled": "nothing has moved: {note}",
    "failed": "{who} failed: {note}",
}
"""What each event is in words; the columns, and what `in_a_sentence` derives from them."""

UNKNOWN = "{who} {event} {peer} {number}: {note}"
"""An event of another version's journal."""

PUSHES_TOLD = 10
"""More are not told in full without asking for them."""


class Told(NamedTuple):
    """One sentence."""

    time_s: float
    gap_s: float | None
    """Since the one before it."""
    text: str

    def line(self) -> str:
        gap = f"  ({in_words(self.gap_s)} later)" if self.gap_s and self.gap_s > 0 else ""
        return f"{self.time_s:14.6f} s  {self.text}{gap}"


class Chapter(NamedTuple):
    """What belongs together, under a heading."""

    heading: str
    sentences: list[Told]


def in_a_sentence(record: Record) -> str:
    first, count = record.number, int(record.value)
    words = {
        "who": record.node if record.life in (0, 1) or record.node.startswith("agent") else f"{record.node}#{record.life}",
        "loss": f", loss {record.value:.6g}" if record.value else "", "pause": in_words(record.value) if record.event == "repeated" else "",
        "portions": f"portions {first} to {first + count - 1}" if count > 1 else f"portion {first}",
        "with_peer": f" with {record.peer}" if record.peer else "", "accuracy": f", accuracy {record.note}" if record.note else "",
    }  # fmt: skip
    told = SENTENCES.get(record.event, UNKNOWN).format(**words, **record._asdict())
    return told.replace(f"{record.peer}#0 ", f"{record.peer} ").rstrip(" :")


def chapter(heading: str, records: Iterable[Record], beyond: Iterable[tuple[float, str]] = ()) -> Chapter:
    """Records in the order of time, and sentences that are no record's."""
    lines = sorted(chain(((record.time_s, in_a_sentence(record)) for record in records), beyond), key=lambda line: line[0])
    told, before = [], None
    for time_s, text in lines:
        told.append(Told(time_s, None if before is None else time_s - before, text))
        before = time_s
    return Chapter(heading, told)


def story(paths: Collection[Path], subject: str, limit: int | None = None) -> Iterator[Chapter]:
    """Raises InputError for a subject that is none, or that the journal does not know."""
    if match := PUSH.fullmatch(subject):
        chapters = pushes(paths, match["sender"] or "", match["shard"] or "", int(match["sequence"]), limit or PUSHES_TOLD)
    elif match := re.fullmatch(r"(portion|batch|fault)/(\d+)", subject):
        chapters = {"portion": portion, "batch": batch, "fault": fault}[match[1]](paths, int(match[2]))
    elif match := ROLE.fullmatch(subject):
        chapters = lives(paths, match["name"], int(match["life"]) if match["life"] else None)
    else:
        raise InputError(f"{subject}: {ALLOWED}")
    first = next(chapters, None)
    if first is None:
        raise InputError(f"{subject}: the journal tells nothing of it; {ALLOWED}")
    yield first
    yield from chapters


PUSH = re.compile(
    r"push/(?:(?P<sender>(?:replica/\d+(?:/\d+(?=[/#](?:shard|\d)))?|coordinator)(?:#\d+)?)/)?(?:(?P<shard>shard/\d+)/)?(?P<sequence>\d+)"
)
ROLE = re.compile(
    r"(?P<name>replica/\d+/\d+|(?:replica|shard|mirror|agent|machine)/\d+|coordinator|evaluator|supervisor|launcher|cluster)(?:#(?P<life>\d+))?"
)
ALLOWED = (
    "allowed: push/17, push/replica/3/17, push/replica/3#1/shard/0/17, portion/12, batch/4, fault/0, "
    "a role as replica/3, one life of it as replica/3#2, machine/2"
)

CONTEXT = ("crashed", "lost", "paused", "resumed", "started", "restored", "promoted")
"""What explains why a push took long, if it happens to either end meanwhile."""


def pushes(paths: Collection[Path], sender: str, shard: str, sequence: int, limit: int) -> Iterator[Chapter]:
    """Each push of that sequence, sent, applied and acknowledged, and what came between."""
    found: dict[PushId, list[Record]] = {}
    ends = Wanted((sender,) if sender else (), ("pushed", "acknowledged"), (shard,) if shard else (), numbers=(sequence,))
    middle = Wanted((shard,) if shard else (), ("applied", "duplicate", "staged"), (sender,) if sender else (), numbers=(sequence,))
    for record in search(paths, ends):
        found.setdefault(PushId(record.node, record.life, record.peer, record.number), []).append(record)
    for record in search(paths, middle):
        found.setdefault(push_of(record), []).append(record)
    told = sorted(found)[:limit]
    troubles = list(search(paths, Wanted(kinds=(*CONTEXT, "repeated", "refused")))) if told else []
    for push in told:
        yield chapter(str(push), found[push] + [record for record in troubles if concerns(record, push, found[push])])
    if len(found) > limit:
        yield Chapter(
            f"… and {len(found) - limit} more of that sequence; name one, as push/{told[0].sender}/{told[0].shard}/{sequence}", []
        )


def concerns(record: Record, push: PushId, known: list[Record]) -> bool:
    """Did that happen to the push's sender or shard while it was on its way?"""
    times = [one.time_s for one in known]
    until = max(times) if any(one.event == "acknowledged" for one in known) else float("inf")
    if not min(times) <= record.time_s <= until:
        return False
    if record.event == "repeated":
        return (record.node, record.life, record.peer) == (push.sender, push.life, push.shard) and "Push" in record.note
    if record.event == "refused":
        return record.node == push.shard and record.peer == f"{push.sender}#{push.life}"
    return record.peer in (push.sender, push.shard) or (record.event == "restored" and record.node == push.shard)


def portion(paths: Collection[Path], number: int) -> Iterator[Chapter]:
    """Batch after batch: to whom it was given, and the bundles in which it came."""
    batches, records = 1, list[Record]()
    holders: set[str] = set()
    """Lives that have it, and have pushed nothing since."""
    bundles: set[tuple[str, int]] = set()
    for record in search(paths, Wanted(kinds=("given", "computed", "pushed", "staged", "arrived", "covered"))):
        who = f"{record.node}#{record.life}"
        if record.event == "given" and record.number <= number < record.number + record.value:
            holders.add(record.peer)
            records.append(record)
        elif record.event == "computed" and who in holders and record.number == number:
            records.append(record)
        elif record.event == "pushed" and (who in holders or (who, record.number) in bundles):
            holders.discard(who)
            bundles.add((who, record.number))
            records.append(record)
        elif record.event in ("staged", "arrived") and (record.peer, record.number) in bundles:
            records.append(record)
        elif record.event == "covered":
            if records:
                yield chapter(f"portion {number} in batch {batches}", [*records, record])
            batches, records = batches + 1, []
            holders.clear()
    if records:
        yield chapter(f"portion {number} in batch {batches}, which was not completed", records)


def batch(paths: Collection[Path], number: int) -> Iterator[Chapter]:
    """From the first portion that is given out to the loss of all, and what the coordinator made of it."""
    batches, records = 1, list[Record]()
    for record in search(paths, Wanted(kinds=("given", "arrived", "covered", "tried", "stepped", "reset"))):
        if batches == number or (batches == number + 1 and record.event in ("tried", "stepped", "reset")):
            records.append(record)
        elif batches > number:
            break
        batches += record.event == "covered"
    if records:
        yield chapter(f"batch {number}", records)


def fault(paths: Collection[Path], number: int) -> Iterator[Chapter]:
    """Every line that names it."""
    records = [record for record in search(paths, Wanted()) if record.note.startswith(f"fault.{number} ")]
    if records:
        yield chapter(" ".join(records[0].note.split()[:2]), records)


ROUTINE = (
    "computed", "pushed", "acknowledged", "applied", "staged", "persisted", "given", "arrived", "tried", "covered", "stepped", "cleared",
    "dropped", "delayed", "doubled", "evaluated",
)  # fmt: skip
"""Told as counts at the end of a life."""


TURNS = (
    "granted", "started", "ended", "crashed", "lost", "promoted", "abandoned", "paused", "resumed", "slowed", "enlisted", "left", "refused",
)  # fmt: skip
"""What others tell of a role or machine; `number` is its life, where they know."""


def lives(paths: Collection[Path], name: str, life: int | None) -> Iterator[Chapter]:
    """What a role did and what became of it, life by life; what is routine is counted."""
    told: dict[int, list[Record]] = {}
    routine: dict[int, Counter[str]] = {}
    last: dict[int, float] = {}
    others = search(paths, Wanted(peers=(name,), kinds=TURNS))
    present = 0
    for record in sorted(chain(others, search(paths, Wanted(nodes=(name,)))), key=lambda record: record.time_s):
        if record.node == name:
            present = record.life
            last[present] = record.time_s
        elif "#" in record.peer:
            present = int(record.peer.rpartition("#")[2])
        else:
            present = record.number or present
        if record.node == name and record.event in ROUTINE:
            routine.setdefault(present, Counter())[record.event] += 1
        else:
            told.setdefault(present, []).append(record)
    for lived in sorted(told.keys() | routine.keys()):
        if life is None or lived == life:
            counts = ", ".join(f"{event} {count:,}" for event, count in routine.get(lived, Counter()).items())
            summed = [(last[lived], f"that is the last that {name} did in this life; in all: {counts}")] if counts else []
            yield chapter(f"{name}, life {lived}" if lived else name, told.get(lived, []), summed)
