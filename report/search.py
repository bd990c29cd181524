"""Lines of a journal that somebody asks for: looked for in the raw text, and parsed when found, since journals have millions."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from core.journal import COLUMNS, LEGEND, Record, parse
from models.errors import InputError
from report.folder import RunFolder
from scenarios.words import nearest

BLOCK = 1 << 22
"""Bytes read at once."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines.  Names are globs ("replica/*"); one without a life stands for all lives ("replica/3", "replica/3#2")."""

    nodes: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    from_s: float = float("-inf")
    to_s: float = float("inf")
    numbers: tuple[int, ...] = ()

    def needle(self) -> re.Pattern[bytes] | None:
        """Something short that every such line holds, whatever else does; None if any line may be one."""
        numbers = [re.escape(f"\t{number}\t") for number in self.numbers]
        kinds = [f"\t{kind}\t" for kind in map(glob, self.kinds)]
        nodes = [f"\t{glob(node.partition('#')[0])}\t" for node in self.nodes]
        peers = [f"\t{glob(peer)}[#\t]" for peer in self.peers]
        found = kinds or nodes or peers or numbers
        return re.compile("|".join(found).encode()) if found else None

    def line(self) -> re.Pattern[bytes]:
        """Of a whole line, times aside."""
        nodes = "|".join(f"{glob(name)}\t{glob(life) if life else FIELD}" for name, _, life in (n.partition("#") for n in self.nodes))
        peers = "|".join(glob(peer) if "#" in peer else f"{glob(peer)}(?:#{FIELD})?" for peer in self.peers)
        columns = nodes or f"{FIELD}\t{FIELD}", "|".join(map(glob, self.kinds)), peers, "|".join(map(str, self.numbers))
        return re.compile("\t".join([FIELD, *(f"(?:{column or FIELD})" for column in columns), ".*\n"]).encode())


FIELD = r"[^\t\n]*"


def glob(pattern: str) -> str:
    """A shell's pattern as a regular expression that stays within a column."""
    wild = {"*": FIELD, "?": r"[^\t\n]"}
    parts = re.split(r"([*?]|\[[^\]\t]+\])", pattern)
    return "".join(wild.get(part) or (part if part.startswith("[") and part.endswith("]") else re.escape(part)) for part in parts)


def journals_of(run: Path) -> list[Path]:
    """The journal of a run's folder, those of its processes while it goes on, or the file itself.  Raises InputError."""
    if run.is_file():
        return [run]
    folder = RunFolder(run)
    if folder.journal.is_file():
        return [folder.journal]
    parts = sorted((run / folder.JOURNALS).glob("*.tsv"))
    if not parts:
        raise InputError(f"{run}: no journal is there; allowed: the folder of a run, or a journal's file")
    return parts


def search(paths: Collection[Path], wanted: Wanted) -> Iterator[Record]:
    """The records, in the order of the file; of several files in the order of time.  Raises InputError for what is no journal."""
    found = (record for path in paths for record in search_one(path, wanted))
    return iter(sorted(found, key=lambda record: record.time_s)) if len(paths) > 1 else found


def search_one(path: Path, wanted: Wanted) -> Iterator[Record]:
    """Of one journal, whose last line may be torn."""
    needle, whole = wanted.needle(), wanted.line()
    for block in blocks(path):
        place = 0
        while place < len(block):
            if needle is not None:
                hit = needle.search(block, place)
                if hit is None:
                    break
                place = block.rfind(b"\n", 0, hit.start()) + 1
            end = block.index(b"\n", place) + 1
            if wanted.from_s <= time_of(block, place, path) <= wanted.to_s and whole.fullmatch(block, place, end):
                yield parsed(block[place:end], path)
            place = end


def time_of(block: bytes, place: int, path: Path) -> float:
    try:
        return float(block[place : block.index(b"\t", place)])
    except ValueError:
        raise not_a_journal(path) from None


def blocks(path: Path) -> Iterator[bytes]:
    """The file in pieces of whole lines."""
    rest = b""
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            data = rest + block
            end = data.rfind(b"\n") + 1
            rest = data[end:]
            yield data[:end]


def parsed(line: bytes, path: Path) -> Record:
    try:
        return parse(line.decode())
    except ValueError:
        raise not_a_journal(path) from None


def not_a_journal(path: Path) -> InputError:
    return InputError(f"{path} is not a journal: allowed: lines of {len(COLUMNS)} columns with tabs between ({', '.join(COLUMNS)})")


def check_kinds(kinds: Collection[str]) -> None:
    """Raises InputError for an event that no journal has."""
    for kind in kinds:
        if not any(re.fullmatch(glob(kind), event) for event in LEGEND):
            raise InputError(f"--kind {kind}: no such event{nearest(kind, LEGEND)}; allowed: {', '.join(LEGEND)}, or a pattern as 're*'")


def check_names(paths: Collection[Path], wanted: Wanted) -> None:
    """For when nothing was found.  Raises InputError for a node or peer that the journal never mentions."""
    names: dict[str, set[str]] = {"--node": set(), "--peer": set()}
    for path in paths:
        for block in blocks(path):
            for _, node, life, _, peer in re.findall(
                rf"^({FIELD})\t({FIELD})\t({FIELD})\t({FIELD})\t({FIELD})".encode(), block, re.MULTILINE
            ):
                names["--node"] |= {node.decode(), f"{node.decode()}#{life.decode()}"}
                names["--peer"] |= {peer.decode(), peer.partition(b"#")[0].decode()}
    for option, patterns in (("--node", wanted.nodes), ("--peer", wanted.peers)):
        known = sorted(names[option] - {""})
        for pattern in patterns:
            if not any(re.fullmatch(glob(pattern), name) for name in known):
                some = ", ".join(name for name in known if "#" not in name)
                raise InputError(f"{option} {pattern}: nobody of that name{nearest(pattern, known)}; there: {some[:300]}")
