"""A protocol of one's own, broken on purpose, and a rule of one's own: `simctl hunt own_protocol` finds what is wrong with it.

The shard keeps, beside its parameters, which push of each replica it counted last, so that a push which is repeated does not count
twice.  This one forgets that when it begins from a copy, and so does its mirror.  It takes two faults to show: a mirror has to be lost, so
that the next is filled with a copy; then the shard, so that this mirror takes its place while the answer to a push is on its way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Self

from core.job import Job
from core.journal import Record
from core.node import Node
from core.rules import Rule
from core.shard import Shard


class Forgetful(Shard):
    """`protocol.own.shard`: a class that inherits the protocol's, with the mistake that we look for."""

    @classmethod
    def restored(cls, node: Node, job: Job, rule: Rule, manifest: dict[str, Any], vectors: dict[str, Any]) -> Self:
        return super().restored(node, job, rule, manifest | {"last": {}}, vectors)


def counted_once(records: Iterable[Record]) -> Iterator[str]:
    """`invariants`: a function of the journal's records, in order, that says what is wrong; nothing if all is well."""
    last: dict[tuple[str, int, str], int] = {}
    for record in records:
        if record.event == "applied":  # by a life of the shard: what an earlier life had not passed on may rightly count again
            key = record.node, record.life, record.peer
            if record.number <= last.get(key, 0):
                yield f"{record.node}#{record.life} counts push {record.number} of {record.peer} after {last[key]}"
            last[key] = record.number
