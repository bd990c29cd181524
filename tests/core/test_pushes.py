"""The ledger of pushes against one that forgets nothing and decides by searching."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from core.messages import Sender
from core.pushes import Admission, Pushes


class Sent(NamedTuple):
    """A message as it travels; it may arrive at any time, and more than once."""

    kind: Literal["push", "join"]
    sender: str
    life: int
    sequence: int


@dataclass
class Remembered:
    """The naive ledger: everything that was ever counted or announced, in order."""

    counted: list[Sent] = field(default_factory=list)
    heard: list[Sent] = field(default_factory=list)

    def judge(self, push: Sent) -> Admission:
        if any(one.sender == push.sender and one.life > push.life for one in self.heard):
            return Admission.STALE
        of_this_life = [one for one in self.counted if (one.sender, one.life) == (push.sender, push.life)]
        if push not in of_this_life:
            return Admission.NEW
        return Admission.REPEATED if of_this_life[-1] == push else Admission.STALE


@dataclass
class Author:
    """A sender that keeps its contract: the next push of a life only once the last one is answered."""

    name: str
    life: int = 1
    sequence: int = 0
    waiting: bool = False

    def act(self, action: str) -> Sent | None:
        if action == "restart":
            self.life, self.sequence, self.waiting = self.life + 1, 0, False
        elif action == "join":
            return Sent("join", self.name, self.life, 0)
        elif action == "push" and not self.waiting:
            self.sequence, self.waiting = self.sequence + 1, True
            return Sent("push", self.name, self.life, self.sequence)
        return None

    def hears(self, answered: Sent) -> None:
        if (answered.kind, answered.life, answered.sequence) == ("push", self.life, self.sequence):
            self.waiting = False


class Step(NamedTuple):
    action: Literal["push", "join", "restart", "deliver"]
    author: int
    message: int
    answer_lost: bool


steps = st.lists(
    st.builds(
        Step,
        st.sampled_from(("push", "push", "join", "restart", "deliver", "deliver", "deliver")),
        st.integers(0, 1),
        st.integers(0, 30),
        st.booleans(),
    ),
    max_size=60,
)


@given(steps)
def test_the_ledger_decides_as_one_that_remembers_everything(taken: list[Step]) -> None:
    ledger, naive = Pushes(), Remembered()
    authors, sent = [Author("replica/0"), Author("replica/1")], list[Sent]()
    for step in taken:
        if step.action != "deliver":
            message = authors[step.author].act(step.action)
            sent += [message] if message is not None else []
            continue
        if not sent:
            continue
        message = sent[-1 - step.message % len(sent)]  # the latest is the most likely, any may be
        sender = Sender(message.sender, message.life)
        outlived = any(one.sender == message.sender and one.life > message.life for one in naive.heard)
        assert ledger.outlived(sender) == outlived
        if message.kind == "join":
            assert ledger.join(sender) != outlived
            naive.heard.append(message)
            continue
        decision = ledger.judge(sender, message.sequence)
        assert decision is naive.judge(message), message
        if decision is Admission.NEW:
            ledger.count(sender, message.sequence)
            naive.counted.append(message)
            naive.heard.append(message)
        if decision is not Admission.STALE and not step.answer_lost:
            authors[int(message.sender[-1])].hears(message)
    assert len(set(naive.counted)) == len(naive.counted)


def test_a_retry_must_not_learn_twice() -> None:
    ledger, sender = Pushes(), Sender("replica/0", 1)
    assert ledger.judge(sender, 1) is Admission.NEW
    ledger.count(sender, 1)
    assert ledger.judge(sender, 1) is Admission.REPEATED


def test_a_restarted_replica_counts_from_1_again_and_is_heard() -> None:
    ledger = Pushes()
    ledger.count(Sender("replica/0", 1), 7)
    assert ledger.judge(Sender("replica/0", 2), 1) is Admission.NEW


def test_an_earlier_life_is_stale_from_the_moment_a_later_one_joins() -> None:
    ledger = Pushes()
    ledger.count(Sender("replica/0", 1), 7)
    assert ledger.join(Sender("replica/0", 2))
    assert ledger.judge(Sender("replica/0", 1), 8) is Admission.STALE
    assert not ledger.join(Sender("replica/0", 1))
    assert ledger.judge(Sender("replica/0", 2), 1) is Admission.NEW


def test_a_join_repeated_in_the_middle_of_a_life_forgets_no_push() -> None:
    ledger, sender = Pushes(), Sender("replica/0", 3)
    ledger.join(sender)
    ledger.count(sender, 4)
    assert ledger.join(sender)
    assert ledger.judge(sender, 4) is Admission.REPEATED


def test_senders_do_not_know_of_each_other() -> None:
    ledger = Pushes()
    ledger.count(Sender("replica/0", 5), 9)
    assert ledger.judge(Sender("replica/1", 1), 1) is Admission.NEW
    assert not ledger.outlived(Sender("replica/1", 1))
