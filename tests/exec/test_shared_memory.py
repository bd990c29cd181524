"""A ticket opens its sender's own segment, whole and of the size it says, and nothing else; and nothing outlives its process."""

from __future__ import annotations

import gc
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from exec.codec import Identity, Payload
from exec.shared_memory import MAPPED_LIMIT, WORTH, Mapped, NotMapped, Segment, Segments, prefix, worth

OWN = Identity("0123456789ab", "replica/3", 2)
SIZE = WORTH


@pytest.fixture
def own() -> Iterator[Segments]:
    segments = Segments(OWN)
    yield segments
    segments.close()


@pytest.fixture
def segment(own: Segments) -> Iterator[Segment]:
    taken = own.take(SIZE)
    assert taken is not None
    yield taken
    own.forget(taken)


def find(ticket: str, nbytes: int = SIZE, who: Identity = OWN) -> Segment:
    return Mapped().find(ticket, nbytes, *who)


def test_what_is_laid_into_a_segment_is_seen_by_whoever_has_its_ticket(segment: Segment) -> None:
    sent = torch.randn(SIZE // 4)
    segment.lay(sent)
    assert torch.equal(find(segment.name).tensor(Payload("float32", SIZE)), sent)


@pytest.mark.parametrize(
    "who",
    [
        Identity("another-job", "replica/3", 2),
        Identity(OWN.job, "replica/4", 2),
        Identity(OWN.job, "replica/3", 1),
        Identity(OWN.job, "replica/3", 22),
        Identity(OWN.job, "replica/33", 2),
    ],
)
def test_a_ticket_is_of_no_use_to_another_job_role_or_life(segment: Segment, who: Identity) -> None:
    with pytest.raises(NotMapped, match="is no segment of"):
        find(segment.name, who=who)


@pytest.mark.parametrize("nbytes", [0, SIZE - 4, SIZE + 4, 2**63])
def test_a_segment_of_another_size_is_refused_whether_it_is_known_or_not(segment: Segment, nbytes: int) -> None:
    mapped = Mapped()
    for _ in range(2):
        with pytest.raises(NotMapped, match=f"has {SIZE} bytes; {nbytes} were announced"):
            mapped.find(segment.name, nbytes, *OWN)
        assert mapped.find(segment.name, SIZE, *OWN).nbytes == SIZE


NAME = prefix(*OWN) + "0" * 16


@pytest.mark.parametrize(
    "ticket",
    [
        "",
        "1/2",
        NAME,
        f"0/3/{NAME}",
        f"-1/3/{NAME}",
        f"1/../{NAME}",
        f"self/3/{NAME}",
        f"1/3/4/{NAME}",
        f"1/3/{NAME}\n",
        f"1/3/{NAME}0",
        f"1/3/{NAME[:-1]}",
        f"1/3/{NAME[:-1]}G",
        "1/3/" + "x" * 10_000,
    ],
)
def test_what_is_no_ticket_is_refused_unseen(ticket: str) -> None:
    with pytest.raises(NotMapped, match="is no segment of"):
        find(ticket)


def memfd(name: str, *, size: int = SIZE, sealed: bool = True) -> int:
    import fcntl

    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.truncate(fd, size)
    if sealed:
        fcntl.fcntl(fd, 1033, 1 | 2 | 4)
    return fd


def test_a_ticket_of_a_process_that_is_not_there_is_refused() -> None:
    with pytest.raises(NotMapped, match="is not shown here"):
        find(f"2147483646/3/{NAME}")


def test_a_descriptor_that_is_something_else_is_not_even_opened(tmp_path: Path) -> None:
    """Opening may itself do something: end a wait on a pipe, rewind a tape."""
    pipe = os.pipe()
    link = tmp_path / f"memfd:{NAME} (deleted)"
    link.symlink_to("/dev/zero")
    file = (tmp_path / NAME).open("wb+")
    through = link.open("rb")
    for fd in (*pipe, file.fileno(), through.fileno(), 999_999):
        with pytest.raises(NotMapped, match="is not shown here"):
            find(f"{os.getpid()}/{fd}/{NAME}")
    for fd in pipe:
        os.close(fd)
    file.close()
    through.close()


def test_a_segment_of_another_name_is_refused(segment: Segment) -> None:
    ticket = segment.name[:-1] + ("0" if segment.name[-1] != "0" else "1")
    with pytest.raises(NotMapped, match="is not shown here"):
        find(ticket)


def test_a_segment_that_may_shrink_under_its_reader_is_refused() -> None:
    """Reading what was cut off would kill the reader."""
    fd = memfd(NAME, sealed=False)
    with pytest.raises(NotMapped, match="may shrink"):
        find(f"{os.getpid()}/{fd}/{NAME}")
    os.close(fd)


def test_our_own_segments_cannot_shrink_or_grow(segment: Segment) -> None:
    for size in (0, SIZE // 2, SIZE * 2):
        with pytest.raises(PermissionError):
            os.truncate(segment.fd, size)


def test_a_segment_that_was_given_back_is_the_next_of_its_size(own: Segments, segment: Segment) -> None:
    other = own.take(SIZE)
    assert other is not None
    assert other.name != segment.name
    own.give_back(other)
    larger = own.take(SIZE * 2)
    assert larger is not None
    assert larger.name not in {other.name, segment.name}
    assert own.take(SIZE) is other
    for taken in (other, larger):
        own.forget(taken)


def test_a_segment_that_was_forgotten_is_never_taken_again_nor_found(own: Segments) -> None:
    first = own.take(SIZE)
    assert first is not None
    own.forget(first)
    own.forget(first)
    own.give_back(first)
    second = own.take(SIZE)
    assert second is not None
    assert second.name != first.name
    with pytest.raises(NotMapped):
        find(first.name)
    own.give_back(second)


def test_a_segment_stays_in_use_while_anybody_holds_a_part_of_it(own: Segments) -> None:
    taken = own.take(SIZE)
    assert taken is not None
    part = taken.tensor(Payload("float32", SIZE), lambda: own.give_back(taken))[3:4].view(torch.uint8)
    gc.collect()
    other = own.take(SIZE)
    assert other is not taken
    del part
    assert own.take(SIZE) is taken
    for one in (taken, other):
        assert one is not None
        own.forget(one)


def test_views_that_are_collected_in_the_middle_of_anything_stop_nothing(own: Segments) -> None:
    """The collector runs where it likes: also within `take` and `give_back`, on the thread that is there."""

    class Knot:
        """Only the collector ends it."""

        def __init__(self, view: torch.Tensor) -> None:
            self.view, self.itself = view, self

    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(200):
            taken = own.take(SIZE)
            assert taken is not None
            Knot(taken.tensor(Payload("float32", SIZE), lambda taken=taken: own.give_back(taken)))
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert sum(map(len, own._free.values())) < 20


@pytest.mark.parametrize(("limit", "to"), [(resource.RLIMIT_FSIZE, SIZE - 1), (resource.RLIMIT_NOFILE, 3)])
def test_where_there_is_no_room_there_is_no_segment_and_nothing_is_left(own: Segments, limit: int, to: int) -> None:
    before = resource.getrlimit(limit)
    held = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(limit, (to, before[1]))
    try:
        taken = own.take(SIZE)
    finally:
        resource.setrlimit(limit, before)
    assert taken is None
    assert len(list(Path("/proc/self/fd").iterdir())) == held


def test_what_is_viewed_when_its_owner_closes_stays_whole_and_then_goes(own: Segments) -> None:
    taken = own.take(SIZE)
    assert taken is not None
    taken.lay(torch.ones(SIZE // 4))
    view = taken.tensor(Payload("float32", SIZE), lambda: own.give_back(taken))
    own.close()
    assert torch.equal(view, torch.ones(SIZE // 4))
    del view
    assert taken.fd == -1


def test_a_server_lets_go_of_what_its_owners_have_forgotten(own: Segments) -> None:
    mapped = Mapped()
    for _ in range(10):
        taken = own.take(SIZE)
        assert taken is not None
        mapped.find(taken.name, SIZE, *OWN)
        own.forget(taken)
    assert len(mapped) == 1


def test_a_server_keeps_only_so_many_mapped_and_finds_the_others_again(own: Segments) -> None:
    mapped, taken = Mapped(), [own.take(SIZE) for _ in range(MAPPED_LIMIT + 10)]
    for number, segment in enumerate(taken):
        assert segment is not None
        segment.lay(torch.full((SIZE // 4,), float(number)))
        mapped.find(segment.name, SIZE, *OWN)
    assert len(mapped) == MAPPED_LIMIT
    for number, segment in enumerate(taken):
        assert segment is not None
        assert float(mapped.find(segment.name, SIZE, *OWN).tensor(Payload("float32", SIZE))[-1]) == number
        own.forget(segment)


OWNER = """
import struct, sys
from exec.codec import Identity
from exec.shared_memory import Segments
segment = Segments(Identity("0123456789ab", "replica/3", 2)).take(65536)
segment.memory[:] = struct.pack("<f", 7.0) * 16384
print(segment.name, flush=True)
sys.stdin.read()
"""


def test_an_owner_killed_leaves_what_a_server_has_mapped_and_nothing_more() -> None:
    mapped, before = Mapped(), set(Path("/dev/shm").glob("*"))
    with subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        ticket = owner.stdout.readline().strip()
        view = mapped.find(ticket, SIZE, *OWN).tensor(Payload("float32", SIZE))
        owner.send_signal(signal.SIGKILL)
    assert torch.equal(view, torch.full((SIZE // 4,), 7.0))
    assert not [path for path in set(Path("/dev/shm").glob("*")) - before if "distbelief" in path.name]
    with pytest.raises(NotMapped, match="is not shown here"):
        find(ticket)
    mapped.let_go()
    assert len(mapped) == 0


def test_small_payloads_are_not_worth_a_segment() -> None:
    assert [worth(None), worth(torch.zeros(WORTH // 4 - 1)), worth(torch.zeros(WORTH // 4))] == [False, False, True]
