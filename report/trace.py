"""A trace for Perfetto (https://ui.perfetto.dev) and chrome://tracing: Chrome's JSON, streamed to the file as things happen.

The format is the "Trace Event Format" (JSON Array Format): one object for each event, `ts` and `dur` in microseconds, here with
three decimals and so to the nanosecond.  A process of the trace is a machine, a thread of it is a *lane*: one activity of one role.
Slices of a lane never overlap and never go back in time: one that would, goes to a further lane of the same name, "... 2".
"""
# ruff: noqa: A005  -- within a package nothing is shadowed

from __future__ import annotations

import json
import math
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

NS = 1_000_000_000
NAMES_KEPT = 100_000
"""Names whose JSON is remembered."""


class Track(NamedTuple):
    """Where something is shown: the machine, and the role and activity there."""

    process: str
    lane: str


class Lane:
    """One thread of the trace, and up to when it is taken."""

    __slots__ = ("free_ns", "pid", "tid", "track")

    def __init__(self, track: Track, pid: int, tid: int) -> None:
        self.track, self.pid, self.tid = track, pid, tid
        self.free_ns = -1


class TraceWriter:
    """Writes events to a binary, buffered file; the file is valid JSON once this is closed, whatever ended the run.

    Times are seconds from the beginning of the run, and none is before that.  What is not a finite number is left out, since JSON has
    no word for it.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._pids: dict[str, int] = {}
        self._lanes: dict[Track, Lane] = {}
        self._counted: dict[tuple[str, str], int] = {}
        self._names: dict[str, str] = {}
        self.events = 0
        file.write(b'[\n{"ph":"M","pid":0,"name":"process_name","args":{"name":"run"}}')

    @classmethod
    def to(cls, path: Path) -> Self:
        """Closed with the writer."""
        return cls(path.open("wb", buffering=1 << 20))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the list, and the file."""
        if not self._file.closed:
            self._file.write(b"\n]\n")
            self._file.close()

    # what can be shown

    def slice(self, track: Track, name: str, begin_s: float, end_s: float, **args: Any) -> Track:
        """Something that takes time; returns the lane it is on, where flows may begin and end."""
        begin, end = round(begin_s * NS), round(end_s * NS)
        assert 0 <= begin <= end, f"{name} on {track} from {begin_s} to {end_s}"
        lane = self._lane(track, begin)
        lane.free_ns = end
        told = f',"args":{json.dumps(args)}' if args else ""
        self._write(
            f'{{"ph":"X","pid":{lane.pid},"tid":{lane.tid},"ts":{microseconds(begin)},"dur":{microseconds(end - begin)},"name":{self._name(name)}{told}}}'
        )
        return lane.track

    def instant(self, track: Track, name: str, time_s: float, **args: Any) -> Track:
        """Something that takes no time; like a slice, it does not go back on its lane."""
        at = round(time_s * NS)
        lane = self._lane(track, at)
        lane.free_ns = at
        told = f',"args":{json.dumps(args)}' if args else ""
        self._write(f'{{"ph":"i","s":"t","pid":{lane.pid},"tid":{lane.tid},"ts":{microseconds(at)},"name":{self._name(name)}{told}}}')
        return lane.track

    def flow(self, id_: str, begin: tuple[Track, float], end: tuple[Track, float]) -> None:
        """An arrow from a slice to a slice, each given by its lane and a time within it; `id_` is this arrow's own.

        One that would lead back in time, as clocks of two machines may make it, is left out.
        """
        times = [round(time_s * NS) for _, time_s in (begin, end)]
        if times[0] > times[1]:
            return
        for form, (track, _), at in zip(('"s"', '"f","bp":"e"'), (begin, end), times, strict=True):
            lane = self._lanes[track]
            self._write(
                f'{{"ph":{form},"pid":{lane.pid},"tid":{lane.tid},"ts":{microseconds(at)},"id":{self._name(id_)},"cat":"flow","name":"flow"}}'
            )

    def counter(self, process: str, name: str, time_s: float, value: float) -> None:
        """A number that has this value from now on; of one process and name it does not go back in time."""
        if not math.isfinite(value):
            return
        at = self._counted[process, name] = max(round(time_s * NS), self._counted.get((process, name), 0))
        self._write(
            f'{{"ph":"C","pid":{self._pid(process)},"ts":{microseconds(at)},"name":{self._name(name)},"args":{{"value":{value!r}}}}}'
        )

    # lanes

    def _pid(self, process: str) -> int:
        pid = self._pids.get(process)
        if pid is None:
            pid = self._pids[process] = len(self._pids) + 1
            number = process.rpartition("/")[2]
            order = int(number) + 1 if number.isdigit() else 0  # whatever is no machine stands above them
            self._write(f'{{"ph":"M","pid":{pid},"name":"process_name","args":{{"name":{self._name(process)}}}}}')
            self._write(f'{{"ph":"M","pid":{pid},"name":"process_sort_index","args":{{"sort_index":{order}}}}}')
        return pid

    def _lane(self, track: Track, begin_ns: int) -> Lane:
        """The first of that name that is free from then on."""
        name, number = track, 1
        while (lane := self._lanes.get(name)) is not None and lane.free_ns > begin_ns:
            number += 1
            name = Track(track.process, f"{track.lane} {number}")
        if lane is None:
            lane = self._lanes[name] = Lane(name, self._pid(name.process), len(self._lanes) + 1)
            told = f'{{"ph":"M","pid":{lane.pid},"tid":{lane.tid},"name":"thread_name","args":{{"name":{self._name(name.lane)}}}}}'
            self._write(told)
        return lane

    # the file

    def _name(self, text: str) -> str:
        """As JSON; names come again and again."""
        told = self._names.get(text)
        if told is None:
            told = json.dumps(text)
            if len(self._names) < NAMES_KEPT:
                self._names[text] = told
        return told

    def _write(self, event: str) -> None:
        # one call for each whole event: Ctrl-C interrupts a buffered writer before or after it, never within
        self._file.write(f",\n{event}".encode())
        self.events += 1


def microseconds(ns: int) -> str:
    return f"{ns // 1000}.{ns % 1000:03d}"
