"""The ledger of a batch against one that keeps a diary and decides everything by searching it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.portions import Assignment, Backups, BundleId, Counters, Decision, Portions

REPLICAS = ("replica/0", "replica/1", "replica/2")


# the naive ledger


@dataclass(eq=False)
class Gave:
    """One line of the diary: who was given what, and what became of it."""

    at_s: float
    replica: str
    life: int
    portions: tuple[int, ...]
    backup: bool
    bundle: BundleId | None = None
    took_s: float = 0.0
    counted: bool = False


@dataclass
class Diary:
    """The naive ledger: everything that was given, in order; questions are answered by reading all of it."""

    count: int
    bundle: int
    backups: Backups
    affinity: Mapping[int, str]
    usual_s: float | None
    gave: list[Gave] = field(default_factory=list)
    over: set[tuple[str, int]] = field(default_factory=set)
    lost: set[BundleId] = field(default_factory=set)
    waiting: list[int] = field(default_factory=list)

    def stretches(self) -> list[tuple[int, ...]]:
        return [tuple(range(self.count))[first : first + self.bundle] for first in range(0, self.count, self.bundle)]

    def staged(self) -> list[Gave]:
        return [gave for gave in self.gave if gave.counted and gave.bundle not in self.lost]

    def covered(self, portion: int) -> bool:
        return any(portion in gave.portions for gave in self.staged())

    def out(self, portion: int) -> list[Gave]:
        """Who works on it, of those alive."""
        return [g for g in self.gave if portion in g.portions and g.bundle is None and not self.is_over(g.replica, g.life)]

    def is_over(self, replica: str, life: int) -> bool:
        return any(name == replica and life <= ended for name, ended in self.over)

    def wait(self) -> None:
        """After each event: what is nobody's, in the order in which it came to be so."""
        nobodys = [
            portion for portion in range(self.count)
            if any(portion in gave.portions for gave in self.gave) and not self.covered(portion) and not self.out(portion)
        ]  # fmt: skip
        self.waiting = [p for p in self.waiting if p in nobodys] + [p for p in nobodys if p not in self.waiting]

    def usual(self) -> float | None:
        took_s = sorted(gave.took_s / len(gave.portions) for gave in self.gave if gave.bundle is not None)
        return took_s[len(took_s) // 2] if took_s else self.usual_s

    def choose(self, replica: str, now: float) -> tuple[int, ...] | None:
        free = [stretch for stretch in self.stretches() if not any(set(stretch) & set(gave.portions) for gave in self.gave)]
        if free:
            owner = {stretch: self.affinity.get(stretch[0]) for stretch in free}
            return min(free, key=lambda stretch: (owner[stretch] != replica, owner[stretch] is not None, stretch))
        if self.waiting:
            return (self.waiting[0],)
        usual_s = self.usual()
        late = [
            (out[-1].at_s, portion)
            for portion in range(self.count)
            if not self.covered(portion) and 1 <= len(out := self.out(portion)) <= self.backups.copies
            and usual_s is not None and now - out[-1].at_s > self.backups.minimum_age * usual_s * len(out[-1].portions)
        ]  # fmt: skip
        return (min(late)[1],) if late else None

    def give(self, replica: str, life: int, now: float) -> tuple[int, ...] | None:
        self.gone(replica, life - 1)
        if self.is_over(replica, life) or self.complete():
            return None
        holds = [gave for gave in self.gave if (gave.replica, gave.life, gave.bundle) == (replica, life, None)]
        if holds:
            return holds[-1].portions
        portions = self.choose(replica, now)
        if portions is not None:
            self.gave.append(Gave(now, replica, life, portions, any(self.out(portion) for portion in portions)))
            self.wait()
        return portions

    def arrived(self, bundle: BundleId, portions: tuple[int, ...], now: float) -> Decision:
        if any(gave.bundle == bundle for gave in self.gave):
            return Decision.REPEATED
        for gave in self.gave:
            if (gave.replica, gave.life, gave.portions, gave.bundle) == (bundle.replica, bundle.life, portions, None):
                gave.counted = bundle not in self.lost and not all(map(self.covered, portions))
                gave.bundle, gave.took_s = bundle, now - gave.at_s
                self.wait()
                return Decision.NEW if gave.counted else Decision.USELESS
        return Decision.USELESS

    def gone(self, replica: str, life: int) -> None:
        self.over.add((replica, life))
        self.wait()

    def unstaged(self, bundles: set[BundleId]) -> None:
        self.lost |= bundles
        self.wait()

    def complete(self) -> bool:
        return all(map(self.covered, range(self.count)))

    def covers(self) -> Iterator[list[Gave]]:
        """All ways to have each portion in exactly one staged bundle."""
        staged = self.staged()
        for size in range(len(staged) + 1):
            for some in itertools.combinations(staged, size):
                if sorted(portion for gave in some for portion in gave.portions) == list(range(self.count)):
                    yield sorted(some, key=lambda gave: gave.portions)

    def counters(self) -> Counters:
        arrived = sum(len(gave.portions) for gave in self.gave if gave.bundle is not None)
        backups = [gave for gave in self.gave if gave.backup]
        won = [
            b for b in backups if b in self.staged()
            and not any(len(other.portions) > 1 and b.portions[0] in other.portions for other in self.staged())
        ]  # fmt: skip
        return Counters(len(self.gave), len(backups), len(won), arrived - sum(map(self.covered, range(self.count))))


# both at once


def loss_of(bundle: BundleId) -> float:
    """Each bundle has a power of two of its own, so that the sum says which ones are in it."""
    return 2.0 ** (REPLICAS.index(bundle.replica) + 3 * (bundle.sequence % 12))


class Both:
    """The ledger, the diary, and replicas that may be asked to do anything."""

    def __init__(
        self, count: int, bundle: int, backups: Backups, affinity: Mapping[int, str] | None = None, usual_s: float | None = None, replicas: int = 3
    ) -> None:  # fmt: skip
        self.now, self.sequence, self.checking = 0.0, 0, True
        self.ledger = Portions(count, bundle=bundle, backups=backups, now=lambda: self.now, affinity=affinity, usual_s=usual_s)
        self.diary = Diary(count, bundle, backups, affinity or {}, usual_s)
        self.lives = dict.fromkeys(REPLICAS[:replicas], 1)
        self.working: dict[tuple[str, int], tuple[int, ...]] = {}
        self.reported: list[tuple[BundleId, tuple[int, ...]]] = []

    def ask(self, replica: str, life: int = 0) -> Assignment | None:
        life = life or self.lives[replica]
        assignment = self.ledger.give(replica, life)
        portions = self.diary.give(replica, life, self.now)
        assert (assignment.portions if assignment else None) == portions
        if assignment is None:
            assert self.ledger.idle_reason
        else:
            assert assignment.reason
            assert self.working.setdefault((replica, life), assignment.portions) == assignment.portions
            one = next(
                gave for gave in self.diary.gave if (gave.replica, gave.life, gave.portions, gave.bundle) == (replica, life, portions, None)
            )
            before = self.diary.gave[: self.diary.gave.index(one)]
            assert assignment.again == any(set(gave.portions) & set(one.portions) for gave in before)
            assert len(assignment.portions) == 1 or not assignment.again
        self.check()
        return assignment

    def report(self, replica: str, life: int = 0) -> Decision | None:
        life = life or self.lives[replica]
        portions = self.working.pop((replica, life), None)
        if portions is None:
            return None
        self.sequence += 1
        self.reported.append((BundleId(replica, life, self.sequence), portions))
        return self.tell(*self.reported[-1])

    def tell(self, bundle: BundleId, portions: tuple[int, ...]) -> Decision:
        decision, reason = self.ledger.arrived(bundle, portions, loss_of(bundle), len(portions))
        assert decision is self.diary.arrived(bundle, portions, self.now), reason
        assert reason
        self.check()
        return decision

    def crash(self, replica: str) -> None:
        self.ledger.gone(replica, self.lives[replica])
        self.diary.gone(replica, self.lives[replica])
        self.check()

    def lose(self, *bundles: BundleId) -> None:
        self.ledger.unstaged(bundles)
        self.diary.unstaged(set(bundles))
        self.check()

    def check(self) -> None:
        if not self.checking:
            return
        ledger, covers = self.ledger, list(self.diary.covers())
        assert ledger.counters == self.diary.counters()
        assert ledger.usual_s == self.diary.usual()
        assert ledger.complete == self.diary.complete() == bool(covers)
        if not ledger.complete:
            return
        (cover,) = covers  # there is only one
        assert ledger.cover() == tuple(gave.bundle for gave in cover)
        assert ledger.loss() == sum(loss_of(bundle) for bundle in ledger.cover())
        assert ledger.samples() == ledger.count
        assert ledger.affinity_after() == {portion: gave.replica for gave in cover for portion in gave.portions}

    def finish(self) -> None:
        """Whoever lives reports what it holds, and goes on: nothing must be left over."""
        self.checking = False
        for _ in range(4 * self.ledger.count + 4):
            for replica, life in self.lives.items():
                if self.diary.is_over(replica, life):
                    self.lives[replica] += 1
                self.report(replica)
                self.ask(replica)
                if self.ledger.complete:
                    self.checking = True
                    self.check()
                    return
        pytest.fail(f"never complete; waiting: {self.diary.waiting}")


class Step(NamedTuple):
    action: Literal["ask", "report", "repeat", "crash", "restart", "lose", "foretell", "pass"]
    replica: int
    number: int


def act(both: Both, step: Step) -> None:
    replica = tuple(both.lives)[step.replica % len(both.lives)]
    life = both.lives[replica]
    speaks = max(1, life - max(0, step.number - 7))  # now and then an earlier life, which does not know that it is over
    match step.action:
        case "ask":
            both.ask(replica, speaks)
        case "report":
            both.report(replica, speaks)
        case "repeat" if both.reported:
            both.tell(*both.reported[-1 - step.number % len(both.reported)])
        case "crash":
            both.crash(replica)
        case "restart":  # and nobody had noticed
            both.lives[replica] += 1
        case "lose" if both.reported:
            first = step.number % len(both.reported)
            both.lose(*(bundle for bundle, _ in both.reported[first : first + 2]))
        case "foretell":  # a shard has lost what will be reported next
            both.lose(BundleId(replica, life, both.sequence + 1))
        case "pass":
            both.now += 1 + step.number % 4


steps = st.lists(
    st.builds(
        Step,
        st.sampled_from(("ask",) * 4 + ("report",) * 3 + ("pass",) * 2 + ("repeat", "crash", "restart", "lose", "foretell")),
        st.integers(0, 2),
        st.integers(0, 9),
    ),
    min_size=20,  # shorter ones hardly get beyond what is fresh
    max_size=60,
)


@given(
    st.integers(1, 6), st.integers(1, 3), st.builds(Backups, st.integers(0, 2), st.sampled_from((0.5, 1.5))),
    st.dictionaries(st.integers(0, 5), st.sampled_from((*REPLICAS, "replica/9"))), st.none() | st.just(1.0), steps,
)  # fmt: skip
@example(2, 2, Backups(), {}, 1.0, [Step("ask", 0, 0), Step("pass", 0, 3), Step("ask", 1, 0), Step("report", 1, 0), Step("report", 0, 0)])
def test_the_ledger_decides_as_a_diary_read_from_the_beginning(
    count: int, bundle: int, backups: Backups, affinity: dict[int, str], usual_s: float | None, taken: list[Step]
) -> None:  # fmt: skip
    both = Both(count, bundle, backups, affinity, usual_s)
    for step in taken:
        act(both, step)
    both.finish()


@pytest.mark.parametrize(("count", "bundle", "copies"), [(2, 2, 1), (3, 2, 0), (3, 2, 1)])
def test_every_interleaving_of_two_replicas_agrees_and_can_be_finished(count: int, bundle: int, copies: int) -> None:
    moves = [Step(action, replica, 0) for action in ("ask", "report", "crash") for replica in (0, 1)]
    moves += [Step("report", 0, 8), Step("report", 1, 8), Step("lose", 0, 0), Step("lose", 0, 1), Step("pass", 0, 3)]

    def play(taken: tuple[Step, ...]) -> Both:
        both = Both(count, bundle, Backups(copies), usual_s=1.0, replicas=2)
        for number, step in enumerate(taken, 1):
            both.checking = number == len(taken)  # what comes before was checked before
            act(both, step)
            if step.action == "crash":
                both.lives[f"replica/{step.replica}"] += 1
        return both

    def known(both: Both) -> object:
        """What is different for what may still happen."""
        diary = [(g.at_s, g.replica, g.life, g.portions, g.bundle, g.counted, g.bundle in both.diary.lost) for g in both.diary.gave]
        return both.now, sorted(both.diary.over), sorted(both.working.items()), both.diary.waiting, diary

    ways: list[tuple[Step, ...]] = [()]
    for _ in range(6):
        further: dict[str, tuple[Step, ...]] = {}
        for way in ways:
            before = repr(known(play(way)))
            for move in moves:
                after = repr(known(play((*way, move))))
                if after != before:
                    further.setdefault(after, (*way, move))
        ways = list(further.values())
        for way in ways:
            play(way).finish()


# one sentence each


def made(
    count: int, bundle: int, backups: Backups | None = None, affinity: Mapping[int, str] | None = None, usual_s: float | None = None
) -> Both:
    return Both(count, bundle, backups or Backups(), affinity, usual_s)


def portions(assignment: Assignment | None) -> tuple[int, ...] | None:
    return assignment.portions if assignment else None


def test_a_bundle_says_whose_it_is() -> None:
    assert BundleId("replica/3", 1, 17).label == "replica/3#1:17"


def test_a_batch_is_cut_once_and_the_last_stretch_may_be_shorter() -> None:
    both = made(5, 2)
    assert [portions(both.ask(replica)) for replica in REPLICAS] == [(0, 1), (2, 3), (4,)]
    assert [both.report(replica) for replica in REPLICAS] == [Decision.NEW] * 3
    assert [bundle.replica for bundle in both.ledger.cover()] == list(REPLICAS)


def test_a_replica_gets_what_it_had_in_the_batch_before() -> None:
    both = made(6, 2, affinity={0: REPLICAS[1], 2: REPLICAS[0]})
    assert portions(both.ask(REPLICAS[0])) == (2, 3)
    assert portions(both.ask(REPLICAS[2])) == (4, 5)
    both.report(REPLICAS[2])
    assert portions(both.ask(REPLICAS[2])) == (0, 1)


def test_who_asks_again_without_having_reported_gets_the_same_again() -> None:
    both = made(4, 2)
    assert portions(both.ask(REPLICAS[0])) == portions(both.ask(REPLICAS[0])) == (0, 1)
    assert both.ledger.counters.given == 1


def test_what_a_lost_replica_held_is_given_out_singly_after_everything_fresh() -> None:
    both = made(4, 2)
    both.ask(REPLICAS[0])
    both.crash(REPLICAS[0])
    assert portions(both.ask(REPLICAS[1])) == (2, 3)
    again = both.ask(REPLICAS[2])
    assert again is not None
    assert again.portions == (0,)
    assert again.again
    assert again.reason == "replica/0#1 is over"


def test_a_later_life_that_asks_ends_the_earlier_one() -> None:
    both = made(2, 2)
    both.ask(REPLICAS[0], 1)
    assert portions(both.ask(REPLICAS[0], 2)) == (0,)
    assert both.ask(REPLICAS[0], 1) is None
    assert both.ledger.idle_reason == "replica/0#1 is over"


def test_a_life_that_is_over_is_believed_since_its_bundle_is_staged_all_the_same() -> None:
    both = made(2, 2)
    both.ask(REPLICAS[0])
    both.crash(REPLICAS[0])
    both.ask(REPLICAS[1])
    both.report(REPLICAS[1])
    assert both.report(REPLICAS[0]) is Decision.NEW
    assert both.ledger.cover() == (BundleId(REPLICAS[0], 1, 2),)
    assert both.ledger.counters.wasted == 1
    assert both.ask(REPLICAS[1]) is None


def test_what_arrives_late_is_not_given_out_again() -> None:
    both = made(3, 2)
    both.ask(REPLICAS[0])
    both.ask(REPLICAS[1])
    both.crash(REPLICAS[0])
    assert both.report(REPLICAS[0]) is Decision.NEW
    assert both.ask(REPLICAS[2]) is None


def test_news_of_an_earlier_life_do_not_concern_the_present_one() -> None:
    both = made(1, 1)
    both.ask(REPLICAS[0], 2)
    both.lives[REPLICAS[0]] = 1
    both.crash(REPLICAS[0])
    assert both.ask(REPLICAS[1]) is None
    assert portions(both.ask(REPLICAS[0], 2)) == (0,)


def test_nobody_can_report_what_he_was_not_given() -> None:
    both = made(4, 2)
    both.ask(REPLICAS[0])
    for bundle, reported in (
        (BundleId(REPLICAS[0], 1, 1), (0,)),
        (BundleId(REPLICAS[1], 1, 1), (0, 1)),
        (BundleId(REPLICAS[0], 2, 1), (0, 1)),
    ):
        assert both.tell(bundle, reported) is Decision.USELESS


def test_a_repeated_report_of_what_a_shard_has_lost_does_not_bring_it_back() -> None:
    both = made(1, 1)
    both.ask(REPLICAS[0])
    both.report(REPLICAS[0])
    bundle, reported = both.reported[0]
    both.lose(bundle)
    assert both.tell(bundle, reported) is Decision.REPEATED
    assert not both.ledger.complete
    assert portions(both.ask(REPLICAS[1])) == (0,)


def test_what_was_lost_before_it_is_reported_never_counts_and_comes_back() -> None:
    both = made(2, 2)
    both.ask(REPLICAS[0])
    both.lose(BundleId(REPLICAS[0], 1, 1))
    assert both.report(REPLICAS[0]) is Decision.USELESS
    assert portions(both.ask(REPLICAS[0])) == (0,)


def test_losing_a_bundle_brings_back_only_what_nothing_else_covers() -> None:
    both = made(2, 2, usual_s=1.0)
    both.ask(REPLICAS[0])
    both.now = 9.0
    both.ask(REPLICAS[1])
    both.report(REPLICAS[1])
    both.report(REPLICAS[0])
    both.lose(BundleId(REPLICAS[0], 1, 2))
    assert portions(both.ask(REPLICAS[2])) == (1,)
    assert both.ask(REPLICAS[1]) is None


def test_what_several_bundles_lost_comes_back_in_the_order_of_portions_however_they_were_named() -> None:
    for order in ((0, 1), (1, 0)):
        both = made(2, 1)
        for replica in REPLICAS[:2]:
            both.ask(replica)
            both.report(replica)
        both.lose(*(both.reported[number][0] for number in order))
        assert portions(both.ask(REPLICAS[0])) == (0,)


def test_only_what_is_late_is_backed_up_and_the_longest_outstanding_first() -> None:
    both = made(2, 1, usual_s=2.0)
    both.ask(REPLICAS[0])
    both.now = 1.0
    both.ask(REPLICAS[1])
    both.now = 3.0
    assert both.ask(REPLICAS[2]) is None
    assert both.ledger.idle_reason == "everything is given out, and nothing is late that has no backup"
    both.now = 4.5
    backup = both.ask(REPLICAS[2])
    assert backup is not None
    assert backup.portions == (0,)
    assert backup.reason == "backup: replica/0#1 has had it for 4.5 s, usual are 2 s a portion"


def test_a_long_assignment_is_late_later_than_a_short_one() -> None:
    both = made(3, 2, usual_s=1.0)
    both.ask(REPLICAS[0])
    both.ask(REPLICAS[1])
    both.now = 2.0
    assert portions(both.ask(REPLICAS[2])) == (2,)


def test_a_second_backup_waits_until_the_first_is_late_too() -> None:
    both = made(1, 1, Backups(copies=2), usual_s=1.0)
    both.ask(REPLICAS[0])
    both.now = 2.0
    assert portions(both.ask(REPLICAS[1])) == (0,)
    assert both.ask(REPLICAS[2]) is None
    both.now = 4.0
    assert portions(both.ask(REPLICAS[2])) == (0,)


def test_when_a_backup_is_lost_the_original_is_still_late() -> None:
    both = made(1, 1, usual_s=1.0)
    both.ask(REPLICAS[0])
    both.now = 2.0
    both.ask(REPLICAS[1])
    assert both.ask(REPLICAS[2]) is None
    both.crash(REPLICAS[1])
    assert portions(both.ask(REPLICAS[2])) == (0,)
    assert both.ledger.counters.backups == 2


def test_without_backups_whoever_is_free_waits() -> None:
    both = made(1, 1, Backups(copies=0), usual_s=1.0)
    both.ask(REPLICAS[0])
    both.now = 99.0
    assert both.ask(REPLICAS[1]) is None
    assert both.ledger.idle_reason == "everything is given out, and there are no backups"


def test_a_backup_that_comes_first_is_in_the_cover_and_the_late_original_is_wasted() -> None:
    both = made(1, 1, usual_s=1.0)
    both.ask(REPLICAS[0])
    both.now = 2.0
    both.ask(REPLICAS[1])
    assert both.report(REPLICAS[1]) is Decision.NEW
    assert both.report(REPLICAS[0]) is Decision.USELESS
    assert both.ledger.affinity_after() == {0: REPLICAS[1]}
    assert both.ledger.counters == Counters(given=2, backups=1, backups_won=1, wasted=1)


def test_when_everything_has_arrived_nobody_gets_anything_not_even_what_he_holds() -> None:
    both = made(1, 1, usual_s=1.0)
    both.ask(REPLICAS[0])
    both.now = 2.0
    both.ask(REPLICAS[1])
    both.report(REPLICAS[1])
    assert both.ask(REPLICAS[0]) is None
    assert both.ledger.idle_reason == "everything has arrived"
