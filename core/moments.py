"""The moments that failures make dangerous: named, and recognised in a journal, by one small rule each.

A rule is asked at the events that it names, with the `core.scene.Scene` before the record; its name is the situation's, and its
docstring says why a hunt must have been there.  `core/situations.py` reads journals with them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

from core.job import COORDINATOR, SUPERVISOR, Durability, mirror_of, role_kind, shard_of, unit_of
from core.journal import Record
from core.scene import Scene, sender_of

Rule = Callable[[Scene, Record], bool]
Kind = Literal["downpour", "sandblaster", "mapreduce", "sync"]

BATCHES: tuple[Kind, ...] = ("sandblaster", "mapreduce")
DESKS: tuple[Kind, ...] = (*BATCHES, "sync")
"""Protocols with a coordinator."""

NO_LOG: tuple[Durability, ...] = ("none", "snapshot", "mirror")
"""Where something that was acknowledged may be lost: with a mirror, if both copies are."""

MIRROR: tuple[Durability, ...] = ("mirror",)


@dataclass(frozen=True, slots=True)
class Situation:
    """One that a hunt should have reached; what is left empty restricts nothing."""

    name: str
    why: str
    """It matters."""
    rule: Rule
    events: tuple[str, ...]
    kinds: tuple[Kind, ...]
    durabilities: tuple[Durability, ...]
    faults: tuple[str, ...]
    """Kinds of which there must be one."""
    split: bool
    """Only where replicas are on several machines."""
    warm: bool
    """Only where something goes before Sandblaster."""

    def possible(
        self, kind: str, durability: str, partitions: int, faults: Collection[str] | None = None, *, warm: bool = True
    ) -> bool:  # fmt: skip
        """Can such a job come into it at all?"""
        return (
            (not self.kinds or kind in self.kinds)
            and (not self.durabilities or durability in self.durabilities)
            and (not self.split or partitions > 1)
            and (not self.warm or warm)
            and (not self.faults or faults is None or any(fault in faults for fault in self.faults))
        )


SITUATIONS: dict[str, Situation] = {}
RULES: defaultdict[str, list[tuple[str, Rule]]] = defaultdict(list)
"""By event."""


def situation(
    *events: str, kinds: tuple[Kind, ...] = (), durabilities: tuple[Durability, ...] = (), faults: tuple[str, ...] = (),
    split: bool = False, warm: bool = False,
) -> Callable[[Rule], Rule]:  # fmt: skip
    """What follows is the rule of one, asked at each of these events."""

    def declare(rule: Rule) -> Rule:
        name, why = rule.__name__.replace("_", " "), rule.__doc__ or ""
        SITUATIONS[name] = Situation(name, why.rstrip("."), rule, events, kinds, durabilities, faults, split, warm)
        for event in events:
            RULES[event].append((name, rule))
        return rule

    return declare


# pushes


@situation("applied", "duplicate", "staged")
def a_push_was_repeated_after_a_restart(scene: Scene, record: Record) -> bool:
    """The shard's next life must find out from what was kept, not from memory, whether it counts already."""
    sender, life = sender_of(record)
    sent = scene.sent[record.node].get(sender)
    return sent is not None and sent[:2] == (life, record.number) and sent.shard_life < record.life


@situation("duplicate")
def a_duplicate_was_recognised(_scene: Scene, _record: Record) -> bool:
    """A reply was lost, or a message doubled: it must not be learnt from twice."""
    return True


@situation("duplicate")
def a_duplicate_was_recognised_by_a_later_life_of_its_shard(scene: Scene, record: Record) -> bool:
    """Which pushes are counted must be durable together with what they changed."""
    sender, life = sender_of(record)
    taken = scene.taken[record.node].get(sender)
    return taken is not None and taken[:2] == (life, record.number) and taken.shard_life < record.life


@situation("refused")
def a_push_of_an_earlier_life_was_refused(scene: Scene, record: Record) -> bool:
    """A life that was given up may still run, and must not be heard any more; nor may what it sent long ago."""
    sender, life = sender_of(record)
    return role_kind(record.node) == "shard" and role_kind(sender) in ("replica", COORDINATOR) and 0 < life < scene.lives.get(sender, 0)


@situation("applied", "staged")
def a_push_was_taken_whose_sender_had_died(scene: Scene, record: Record) -> bool:
    """It was on its way: it counts, though nobody will ever hear of it."""
    return sender_of(record) in scene.dead


@situation("crashed")
def a_shard_died_between_taking_a_push_and_its_acknowledgement(scene: Scene, record: Record) -> bool:
    """The sender cannot know whether it counts; neither losing it nor counting it twice is allowed."""
    if role_kind(record.peer) != "shard" or not scene.latest(record):
        return False
    taken = scene.taken[record.peer]
    return any(
        (last := taken.get(sender)) is not None and last[:3] == (sent.life, sent.sequence, record.number)
        for sender, sent in scene.sent[record.peer].items()
    )  # fmt: skip


@situation("crashed")
def a_push_lost_both_its_ends(scene: Scene, record: Record) -> bool:
    """Neither its sender's next life nor its shard's may make half of it count."""
    if role_kind(record.peer) == "shard":
        return False
    return scene.latest(record) and any(record.peer in sent and shard in scene.down for shard, sent in scene.sent.items())


# what is durable


@situation("restored", durabilities=NO_LOG)
def a_restart_lost_updates_that_had_been_acknowledged(scene: Scene, record: Record) -> bool:
    """Without a log, or a mirror that was there, that is allowed; everybody has to live with parameters that go back."""
    return record.number < scene.promised[record.node]


@situation("crashed", durabilities=("snapshot", "log"))
def a_shard_died_while_it_read_what_it_had_kept(scene: Scene, record: Record) -> bool:
    """A recovery that is cut short must be repeatable."""
    return role_kind(record.peer) == "shard" and scene.latest(record) and record.number > max(1, scene.restored.get(record.peer, 0))


@situation("finished", durabilities=NO_LOG)
def a_shard_had_finished_and_lost_that(scene: Scene, record: Record) -> bool:
    """The job counts as over for those who heard of it, and is not."""
    return 0 < scene.over.get(("finished", record.node), 0) < record.life


@situation("promoted", durabilities=MIRROR)
def a_mirror_was_promoted_while_a_push_was_in_flight(scene: Scene, record: Record) -> bool:
    """Whether or not the mirror has it, the push must be answered by what the mirror knows."""
    return scene.awaiting(record.peer)


@situation("crashed", durabilities=MIRROR)
def a_mirror_died_while_a_push_waited(scene: Scene, record: Record) -> bool:
    """The push must be answered all the same, once another mirror has everything."""
    if role_kind(record.peer) != "mirror" or not scene.latest(record):
        return False
    shard = shard_of(record.peer)
    return scene.alive(shard) and scene.awaiting(shard)


@situation("persisted", durabilities=MIRROR)
def a_new_mirror_was_filled(scene: Scene, record: Record) -> bool:
    """While it is, the shard is the only copy, and goes on being pushed to."""
    return bool(record.peer) and record.value > max(1, scene.synced.get(record.node, 0))


@situation("crashed", "ended", durabilities=MIRROR)
def both_copies_of_a_mirrored_shard_were_gone(scene: Scene, record: Record) -> bool:
    """The one loss that a mirror does not cover: the job must go on, from less."""
    if not scene.latest(record) or record.note == "promoted":
        return False
    if role_kind(record.peer) == "mirror":
        shard = shard_of(record.peer)
        return shard in scene.down and scene.updates[shard] > 0
    mirrored = role_kind(record.peer) == "shard" and mirror_of(record.peer) in scene.lives
    return mirrored and not scene.synced.get(record.peer) and scene.updates[record.peer] > 0


@situation("choked", faults=("slow-disk",))
def a_disk_grew_slow_while_a_push_waited(scene: Scene, record: Record) -> bool:
    """Where it must be durable first, its acknowledgement waits as well, and deadlines go by meanwhile."""
    return any(sent and scene.homes.get(shard) == record.peer for shard, sent in scene.sent.items())


@situation("unwritten", durabilities=("snapshot",), faults=("full-disk",))
def a_snapshot_could_not_be_written(_scene: Scene, _record: Record) -> bool:
    """A full disk is no reason to stop, as long as the snapshot before stays whole."""
    return True


# lives


def woke_replaced(scene: Scene, record: Record, kind: str) -> bool:
    life = record.number or scene.paused.get(record.peer, 0)
    return role_kind(record.peer) == kind and 0 < life < scene.lives.get(record.peer, 0)


@situation("resumed", faults=("pause",))
def a_paused_shard_woke_after_it_was_replaced(scene: Scene, record: Record) -> bool:
    """It takes itself for the shard, and answers as such until it hears otherwise."""
    return woke_replaced(scene, record, "shard")


@situation("resumed", faults=("pause",))
def a_paused_replica_woke_after_it_was_replaced(scene: Scene, record: Record) -> bool:
    """What it had in hand goes out, in a life that is over."""
    return woke_replaced(scene, record, "replica")


@situation("resumed", kinds=DESKS, faults=("pause",))
def a_paused_coordinator_woke_after_it_was_replaced(scene: Scene, record: Record) -> bool:
    """Two of them give out work, and only one may move the shards."""
    return woke_replaced(scene, record, COORDINATOR)


@situation("applied", "staged")
def a_shard_that_had_been_replaced_took_a_push(scene: Scene, record: Record) -> bool:
    """Two lives of a shard at once: what the earlier one takes counts for nobody, and nobody may rely on it."""
    return record.life < scene.lives.get(record.node, 0)


@situation("lost")
def somebody_who_was_alive_was_taken_for_lost(scene: Scene, record: Record) -> bool:
    """Silence proves nothing: the one who is replaced goes on."""
    return record.note.startswith("silent") and record.number > 0 and (record.peer, record.number) not in scene.dead


@situation("enlisted")
def a_machine_that_was_taken_for_lost_was_heard_again(_scene: Scene, record: Record) -> bool:
    """What runs there may have been replaced, and must be ended."""
    return record.note.endswith("is heard again")


@situation("crashed")
def two_roles_were_down_at_once(scene: Scene, record: Record) -> bool:
    """Recoveries that wait for each other must not wait for ever."""
    return scene.latest(record) and not scene.down <= {record.peer}


@situation("crashed")
def two_shards_were_down_at_once(scene: Scene, record: Record) -> bool:
    """Pushes to both are repeated, and the parameters come back from two moments."""
    return (
        scene.latest(record)
        and role_kind(record.peer) == "shard"
        and any(role_kind(other) == "shard" for other in scene.down - {record.peer})
    )


@situation("crashed")
def somebody_died_while_the_supervisor_was_dead(scene: Scene, record: Record) -> bool:
    """Nobody saw it; the next supervisor has to find it out."""
    return scene.latest(record) and record.peer != SUPERVISOR and SUPERVISOR in scene.down


@situation("recovered")
def the_supervisor_recovered_while_somebody_was_lost(scene: Scene, _record: Record) -> bool:
    """Its ledger says that they are there, or on their way."""
    return bool(scene.down - {SUPERVISOR})


@situation("crashed")
def the_supervisor_died_between_a_grant_and_its_start(scene: Scene, record: Record) -> bool:
    """The life may begin although the one who granted it is gone, and must not be granted again."""
    return record.peer == SUPERVISOR and bool(scene.pending)


@situation("granted")
def a_replica_was_called_back(scene: Scene, record: Record) -> bool:
    """It had ended, since the job was over as far as it could see; then a shard was not through, or not any more."""
    return record.peer in scene.retired


@situation("concluded")
def the_job_ended_while_somebody_was_down(scene: Scene, _record: Record) -> bool:
    """Nobody may be waited for who is not needed."""
    return bool(scene.down)


# machines, messages, clocks


@situation("left", faults=("preemption",))
def a_machine_was_drained_before_it_was_taken(scene: Scene, record: Record) -> bool:
    """Whoever leaves in order loses nothing, and is not waited for."""
    return record.peer in scene.leaving


@situation("crashed", faults=("preemption",))
def a_machine_was_taken_before_it_was_drained(scene: Scene, record: Record) -> bool:
    """The notice was too short: what was being written down is half written."""
    return record.peer in scene.leaving


@situation("dropped")
def a_message_was_lost(_scene: Scene, _record: Record) -> bool:
    """Whoever sent it cannot know which way it was lost."""
    return True


@situation("doubled", faults=("duplication",))
def a_request_was_sent_twice(_scene: Scene, _record: Record) -> bool:
    """Both copies arrive, the second perhaps long after."""
    return True


@situation("delayed", faults=("delay", "reordering"))
def a_request_was_held_up_so_that_later_ones_overtook_it(_scene: Scene, _record: Record) -> bool:
    """A late request must not undo what came after it."""
    return True


@situation("misled", faults=("clock-drift",))
def the_clock_of_a_machine_with_a_role_on_it_was_wrong(scene: Scene, record: Record) -> bool:
    """Deadlines and signs of life are counted on it."""
    return record.peer in scene.homes.values()


@situation("misled", faults=("clock-drift",))
def the_clock_of_the_supervisor_was_wrong(scene: Scene, record: Record) -> bool:
    """Everybody seems silent at once, or nobody ever."""
    return record.peer == scene.homes.get(SUPERVISOR)


# coordinators


@situation("crashed", kinds=DESKS)
def a_shard_died_between_stage_and_commit(scene: Scene, record: Record) -> bool:
    """Bundles were acknowledged as staged, and the coordinator counts on them."""
    return role_kind(record.peer) == "shard" and scene.latest(record) and scene.staged[record.peer] > 0


@situation("given", "reset", kinds=DESKS, durabilities=NO_LOG)
def a_bundle_that_was_staged_was_lost(_scene: Scene, record: Record) -> bool:
    """Its portions must be made again, and exactly those."""
    return record.note.startswith("a shard lost") or (record.event == "reset" and record.note.endswith("bundles lost"))


@situation("arrived", kinds=BATCHES)
def a_backup_won(scene: Scene, record: Record) -> bool:
    """The first copy to be staged counts, and the other must not."""
    return record.note.startswith("new") and record.peer in scene.backups


@situation("arrived", kinds=BATCHES)
def a_copy_came_after_its_portion_was_there(_scene: Scene, record: Record) -> bool:
    """The loser of a race is ignored, not subtracted."""
    return record.note.startswith("useless: everything")


@situation("arrived", kinds=DESKS)
def a_gradient_came_after_its_batch_or_step_was_over(_scene: Scene, record: Record) -> bool:
    """Backups and backup workers help only if the slowest is dropped; and it must not be counted in what comes next."""
    return record.note.startswith(("useless: its batch is over", "useless: the step has"))


@situation("arrived", kinds=DESKS)
def the_work_of_a_life_that_was_over_counted(scene: Scene, record: Record) -> bool:
    """That all shards hold it stays true after its end."""
    sender, life = sender_of(record)
    return record.note.startswith("new") and life < scene.lives.get(sender, 0)


@situation("crashed", kinds=BATCHES)
def the_coordinator_died_between_cover_and_step(scene: Scene, record: Record) -> bool:
    """The next one has to find the same step, or make another."""
    return record.peer == COORDINATOR and scene.latest(record) and scene.covered


@situation("crashed", kinds=DESKS)
def the_coordinator_died_when_some_shards_had_taken_a_step_and_others_not(scene: Scene, record: Record) -> bool:
    """The others must take that very step before anything else happens."""
    return record.peer == COORDINATOR and scene.latest(record) and 0 < len(scene.stepped & scene.stepping) < len(scene.stepping)


@situation("crashed", kinds=DESKS)
def a_shard_and_the_coordinator_were_down_at_once(scene: Scene, record: Record) -> bool:
    """Neither can tell the other where they were."""
    kind = role_kind(record.peer)
    other = {"shard": COORDINATOR, COORDINATOR: "shard"}.get(kind)
    return scene.latest(record) and other is not None and any(role_kind(role) == other for role in scene.down)


@situation("reset", kinds=DESKS, durabilities=NO_LOG)
def the_optimisation_began_anew_because_a_shard_had_lost_steps(_scene: Scene, record: Record) -> bool:
    """It goes on from parameters of different moments, with no history."""
    return "lost steps" in record.note


@situation("warmed", kinds=BATCHES, warm=True)
def a_warm_start_ended_while_a_replica_was_down(scene: Scene, _record: Record) -> bool:
    """It comes back into another protocol than the one that it left."""
    return any(role_kind(role) == "replica" for role in scene.down)


@situation("warmed", kinds=BATCHES, durabilities=NO_LOG, warm=True)
def a_shard_ended_its_warm_start_a_second_time(scene: Scene, record: Record) -> bool:
    """It fell back into Downpour when others were through with it."""
    return 0 < scene.over.get(("warmed", record.node), 0) < record.life


# replicas of several machines


def first_loss(scene: Scene, record: Record) -> bool:
    """Is this the first machine of the latest life of its replica to be lost?"""
    unit = unit_of(record.peer)
    return unit != record.peer and scene.latest(record) and scene.broken.get(unit, 0) < record.number


@situation("crashed", split=True)
def a_machine_of_a_replica_died_while_the_replica_was_at_work(scene: Scene, record: Record) -> bool:
    """The others wait for what it would have sent, or send what nobody takes; the replica must end, and come back, as a unit."""
    passes = scene.passes[unit_of(record.peer)]
    return first_loss(scene, record) and min(passes.values(), default=0) > 0


@situation("crashed", split=True)
def a_machine_of_a_replica_died_in_the_middle_of_a_phase_that_another_was_through_with(scene: Scene, record: Record) -> bool:
    """The other has its half of the gradient, which must not be pushed."""
    passes = scene.passes[unit_of(record.peer)]
    return first_loss(scene, record) and passes.get(record.peer, 0) < max(passes.values(), default=0)


@situation("crashed", split=True)
def a_machine_of_a_replica_died_when_it_was_through_and_another_was_not(scene: Scene, record: Record) -> bool:
    """The other waits for messages that will not come, or has them all and must hear that it was in vain."""
    passes = scene.passes[unit_of(record.peer)]
    return first_loss(scene, record) and passes.get(record.peer, 0) > min(passes.values(), default=0)


@situation("crashed", split=True)
def a_second_machine_of_a_replica_died_before_the_first_was_back(scene: Scene, record: Record) -> bool:
    """All of them must still meet in one and the same life."""
    unit = unit_of(record.peer)
    return first_loss(scene, record) and any(other != record.peer and unit_of(other) == unit for other in scene.down)
