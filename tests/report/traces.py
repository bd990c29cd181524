"""A small validator of Chrome traces: what Perfetto's importer needs, and what we promise besides."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from fractions import Fraction
from typing import Any


def ns(microseconds: str) -> int:
    exact = Fraction(microseconds) * 1000
    assert exact.denominator == 1, f"{microseconds} is no whole number of nanoseconds"
    return int(exact)


def validate(text: str) -> list[dict[str, Any]]:
    """The events, after every check."""
    events: list[dict[str, Any]] = json.loads(text, parse_float=ns_of, parse_constant=refuse)
    threads = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    processes = {e["pid"]: e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "process_name"}
    assert len(set(threads)) == len(threads)
    assert len(set(processes.values())) == len(processes), "two processes of one name"
    until: dict[tuple[int, int], int] = defaultdict(int)
    slices: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    counted: dict[tuple[int, str], int] = defaultdict(int)
    flows: dict[str, Counter[str]] = defaultdict(Counter)
    for event in events:
        form = event["ph"]
        assert form in "MXiCsf", form
        assert event["pid"] in processes
        if form in "Xisf":
            assert (event["pid"], event["tid"]) in threads, "a thread that was not named"
        if form in "Xi":
            lane, begin = (event["pid"], event["tid"]), event["ts"]
            assert begin >= until[lane], f"{event} goes back in time or overlaps"
            until[lane] = begin + event.get("dur", 0)
            slices[lane].append((begin, until[lane]))
        if form == "C":
            assert event["ts"] >= counted[event["pid"], event["name"]]
            counted[event["pid"], event["name"]] = event["ts"]
        if form in "sf":
            flows[event["id"]][form] += 1
    for event in events:
        if event["ph"] in "sf":
            assert any(begin <= event["ts"] <= end for begin, end in slices[event["pid"], event["tid"]]), f"{event} is bound to no slice"
    assert all(ends == {"s": 1, "f": 1} for ends in flows.values()), "an arrow without its other end"
    return events


def ns_of(text: str) -> int | float:
    """Times have a fraction of three digits, everything else its own."""
    return ns(text) if len(text.partition(".")[2]) == 3 and "e" not in text else float(text)


def refuse(text: str) -> None:
    raise AssertionError(f"{text} is no JSON")


def lanes(events: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Slices by the name of their lane."""
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event["ph"] in "Xi":
            found[names[event["pid"], event["tid"]]].append(event)
    return found
