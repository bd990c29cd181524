"""The end of a real run: every life's journal becomes one, and the summary is made of that and of nothing else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from core.journal import Record, read
from exec.jobfile import JobFile
from report.folder import RunFolder
from report.summary import summarise
from report.tally import Tally
from scenarios.declared import real_faults
from scenarios.plan import not_honoured
from scenarios.schema import Scenario


def sum_up(job: JobFile, scenario: Scenario, verdict: str, reason: str) -> dict[str, Any]:
    """Write journal.tsv and summary.json; returns the summary."""
    folder = RunFolder(Path(job.folder))
    records = merge(folder)
    tally = Tally()
    tally.read(records)
    counted = [r for r in records if r.event == "counted" and r.node.startswith("shard/") and r.note in ("sent", "received")]
    status: dict[str, Any] = {}
    if verdict == "interrupted":
        status = {"status": "interrupted", "reason": reason}
    elif verdict != "done":
        status = {"status": "failed", "reason": reason, "verdict": verdict}
    model = folder.model
    summary = summarise(
        scenario, "exec", tally, **status,
        numerics="real",
        seconds=tally.finished_at() if not status else max((r.time_s for r in records), default=0.0),
        wall_seconds=round(max((r.time_s for r in records), default=0.0), 3),
        messages=sum(record.number for record in counted),
        bytes=int(sum(record.value for record in counted)),
        faults=[*declared(scenario, records), *met(records)],
        notes=[*not_honoured(scenario, "exec"), f"device: {job.device}"],
        model=str(model) if model.exists() else None,
        journal=str(folder.journal),
        run=str(folder.path),
    )  # fmt: skip
    folder.write_summary(summary)
    return summary


def merge(folder: RunFolder) -> list[Record]:
    """Every life's journal as one, in the order of time, written to journal.tsv."""
    records: list[Record] = []
    for path in sorted((folder.path / folder.JOURNALS).glob("*.tsv")):
        with path.open(encoding="utf-8") as lines:
            records += read(lines)
    records.sort(key=lambda record: record.time_s)
    with folder.journal.open("w", encoding="utf-8") as file:
        file.writelines(record.line() for record in records)
    return records


def declared(scenario: Scenario, records: list[Record]) -> list[dict[str, Any]]:
    """Every declared fault with what it bit: lines of the journal that name it."""
    found = []
    for name, fault, at_s, _ in real_faults(scenario):
        bit = Counter(record.event for record in records if record.note.startswith(name))
        found.append({"kind": fault.kind, "target": ", ".join(fault.target), "at_s": at_s, "bit": dict(sorted(bit.items()))})
    return found


def met(records: list[Record]) -> list[dict[str, Any]]:
    """Failures that nobody declared: processes that died, and roles and machines that fell silent."""
    return [
        {"kind": "crash" if record.event == "crashed" else "loss", "target": record.peer, "at_s": record.time_s, "bit": {"process": record.note}}
        for record in records
        if (record.event == "crashed" and not record.note.startswith("fault."))
        or (record.event == "lost" and "silent" in record.note)
    ]  # fmt: skip
