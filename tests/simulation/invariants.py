"""What semantics.md promises, checked after every step against all that the simulation knows.

Owns a copy of every node's durable log, the one committed log, and what every post was told. The checks are
incremental: a step costs the same however long the log is. Must not look into a machine further than its public sizes
and limits.

"No two nodes differ below a commit size" is checked as: what a node itself calls committed is the committed log. Above
its own commit size a node that was away may still hold records that no commit size ever covered.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicad.core.batch import Append, Batch
from replicad.core.effects import Event, FrameArrived, FrameResult, HandOverEnded, State, Submit, Tick
from replicad.core.frames import (
    Ack,
    Aligned,
    AppendBatch,
    Hello,
    MasterFrame,
    Refused,
    Standing,
    Welcome,
    WorkerFrame,
)
from replicad.core.master import Master
from replicad.core.progress import Phase
from replicad.core.record import RESERVED_ID_PREFIX, parse_leaf
from replicad.core.voters import parse_lists
from replicad.errors import Applied, IdConflict, ServiceError, WriteConcernTimeout
from replicad.wire.codec import decode_records
from tests.simulation.history import Attempt, History, Message
from tests.simulation.world import World

if TYPE_CHECKING:
    from tests.simulation.network import Stream
    from tests.simulation.node import Node

Key = tuple[int, int, str]  # (epoch, first offset, signer) of a batch: no two batches of a cluster share it
Content = tuple[str, bytes, bytes]  # id, payload, encoded headers


@dataclass(slots=True)
class DurableLog:
    """A node's log as its disk has it, and all that ever was on it."""

    batches: list[Batch] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    size: int = 0
    promise: tuple[int, str] = (0, "")
    commit_size: int = 0  # on disk
    shown_commit: int = 0  # the largest that any reader of this node was shown
    checked_commit: int = 0  # up to here this node's log was compared with the committed one
    commit_in_memory: int = 0  # in this life
    ever: set[Key] = field(default_factory=set)

    def at(self, offset: int) -> Batch | None:
        """The batch that holds the offset."""
        return self.batches[bisect_right(self.starts, offset) - 1] if 0 <= offset < self.size else None


class Checker:
    """1. ``committed`` holds every batch that any node ever called committed, in order: nothing ever leaves it."""

    def __init__(self, world: World, history: History, *, voters: int, same_lists: bool) -> None:
        """``same_lists``: all nodes have the same voters, ``voters`` of them, all the time."""
        self.world, self.history = world, history
        self.one_begins = same_lists and voters % 2 == 1  # two fence quorums share a voter
        self.logs: dict[str, DurableLog] = {}
        self.committed = DurableLog()
        self.committed_in: list[int] = []  # the epoch of the master that committed it, by batch
        self.committed_ids: dict[str, int] = {}
        self.sealed: dict[Key, Batch] = {}
        self.contents: dict[Key, list[Content]] = {}
        self.epoch_masters: dict[int, str] = {}  # who began an epoch
        self.epoch_opened: dict[int, tuple[str, int]] = {}
        self.answered_offsets: dict[str, tuple[int, int]] = {}  # id: offset and epoch it was answered with
        self.told_first: set[tuple[int, int]] = set()  # (offset, epoch) answered with duplicate=false
        self.moved = False  # whether a second node was ever made master
        self.may_open: set[str] = set()  # whom the operator has called, and who has not been the master since

    def fail(self, invariant: int, text: str) -> None:
        self.world.fail(f"invariant {invariant}: {text}")

    def log_of(self, node: Node) -> DurableLog:
        return self.logs.setdefault(node.name, DurableLog())

    # --- the disks ---------------------------------------------------------------------------------

    def promised(self, node: Node, epoch: int, master: str) -> None:
        log = self.log_of(node)
        if epoch < log.promise[0] or (epoch == log.promise[0] and master != log.promise[1]):
            self.fail(7, f"{node.name} promised {log.promise}, now {epoch} to {master}")
        log.promise = (epoch, master)

    def appended(self, node: Node, append: Append) -> None:
        """A batch has come on a node's disk."""
        log, batch = self.log_of(node), append.batch
        key = _key(batch)
        if batch.first_offset != log.size:
            self.fail(1, f"{node.name}: a batch at {batch.first_offset} after a log of {log.size}")
        if log.batches and batch.epoch < log.batches[-1].epoch:
            self.fail(1, f"{node.name}: epoch {batch.epoch} after {log.batches[-1].epoch}")
        sealed = self.sealed.get(key)
        if sealed != batch:
            self.fail(13, f"{node.name} took in a batch that no master made: {key}, {sealed}, {batch}")
        if [content[0] for content in self.contents[key]] != list(append.ids):
            self.fail(13, f"{node.name}: ids of the index are not those of the batch at {batch.first_offset}")
        log.batches.append(batch)
        log.starts.append(batch.first_offset)
        log.size = batch.end
        log.ever.add(key)

    def commit_on_disk(self, node: Node, size: int) -> None:
        log = self.log_of(node)
        log.commit_size = max(log.commit_size, size)
        if log.commit_size > log.size:
            self.fail(5, f"{node.name}: commit size {log.commit_size} on disk passes the log, {log.size}")

    def truncated(self, node: Node, size: int) -> None:
        log = self.log_of(node)
        if size < max(log.commit_size, log.checked_commit):
            self.fail(11, f"{node.name} truncated to {size}, below its commit size {log.commit_size}")
        kept = [batch for batch in log.batches if batch.first_offset < size]
        dropped = log.batches[len(kept) :]
        quarantine = {_key(batch): batch for batch in node.platter.quarantine}
        for batch in dropped:
            if quarantine.get(_key(batch)) != batch:
                self.fail(11, f"{node.name} dropped records from {batch.first_offset} on that are in no quarantine")
        del log.batches[len(kept) :], log.starts[len(kept) :]
        log.size = size

    # --- machines ----------------------------------------------------------------------------------

    def started(self, node: Node) -> None:
        """A process has begun, from what its disk has."""
        log, machine = self.log_of(node), node.running
        if machine.log.commit_size < log.shown_commit:
            self.fail(5, f"{node.name} showed commit size {log.shown_commit}, starts with {machine.log.commit_size}")
        log.commit_in_memory = machine.log.commit_size

    def ends(self, node: Node) -> None:
        """A process is about to end: what it knows of its last epoch's voters is what its disk says."""
        log, durable = node.running.log, self.log_of(node)
        if node.cutting or not log.stored_size == log.tip == durable.size:
            return  # it has yet to hear of what is on the disk, or has not stored all
        record = node.platter.store.load().epoch_record
        said = (record.offset, parse_lists(record.payload)) if record else (-1, None)
        if (log.epoch_offset, log.lists) != said:
            self.fail(4, f"{node.name} knows of voters {log.epoch_offset, log.lists}, its disk says {said}")

    def stepped(self, node: Node) -> None:
        """After every step of a machine, before its effects."""
        log, machine = self.log_of(node), node.running
        commit_size = machine.log.commit_size
        if commit_size != log.commit_in_memory:
            if commit_size < log.commit_in_memory:
                self.fail(5, f"{node.name}: commit size fell from {log.commit_in_memory} to {commit_size}")
            if commit_size > log.size:
                self.fail(5, f"{node.name}: commit size {commit_size} passes what is on disk, {log.size}")
            log.commit_in_memory = commit_size
            self._compare_committed(node, log, commit_size)
        if machine.log.stored_size > log.size and not node.cutting:
            self.fail(3, f"{node.name} believes {machine.log.stored_size} records on disk, {log.size} are")

    def performed(self, node: Node, event: Event) -> None:
        """After the effects of a step."""
        if isinstance(node.machine, Master):
            self._bounded(node, node.machine)
            if isinstance(event, Tick) and not node.behind and node.overdue:
                self.fail(17, f"{node.name} has left a frame without an answer long after its deadline")

    def _compare_committed(self, node: Node, log: DurableLog, commit_size: int) -> None:
        """What the node calls committed is the committed log, which grows by what it says first."""
        at = bisect_right(log.starts, log.checked_commit - 1) if log.checked_commit else 0
        for batch in log.batches[at:]:
            if batch.first_offset >= commit_size:
                break
            if batch.end > commit_size:
                self.fail(2, f"{node.name}: commit size {commit_size} is inside the batch at {batch.first_offset}")
            known = self.committed.at(batch.first_offset)
            if known is None:
                self._commit(node, batch)
            elif known != batch:
                self.fail(2, f"{node.name} calls {_name(batch)} committed, before it was {_name(known)}")
        log.checked_commit = max(log.checked_commit, commit_size)
        last, epoch = log.at(commit_size - 1), node.running.epoch
        if node.is_master and (last is None or last.epoch != epoch):
            self.fail(4, f"{node.name} moves its commit size to {commit_size} over no record of its epoch {epoch}")

    def _commit(self, node: Node, batch: Batch) -> None:
        committed, key = self.committed, _key(batch)
        if batch.first_offset != committed.size:
            self.fail(2, f"{node.name} calls {_name(batch)} committed, after a committed log of {committed.size}")
        have, voters = self._voters_with(node, key)
        if have < voters // 2 + 1:
            self.fail(4, f"{node.name} calls {_name(batch)} committed, only {have} voters ever had it on disk")
        self.committed_in.append(node.running.epoch)
        committed.batches.append(batch)
        committed.starts.append(batch.first_offset)
        committed.size = batch.end
        for offset, content in enumerate(self.contents[key], batch.first_offset):
            message_id = content[0]
            if message_id in self.committed_ids:
                earlier = self.committed_ids[message_id]
                self.fail(10, f"id {message_id} is committed at {earlier} and at {offset}")
            self.committed_ids[message_id] = offset
            if not message_id.startswith(RESERVED_ID_PREFIX):
                fault = self.history.fault_of_record(content)
                if fault:
                    self.fail(9, f"{message_id} is committed at {offset}: {fault}")

    def _voters_with(self, node: Node, key: Key) -> tuple[int, int]:
        """How many of the voters, as the node's process has them, ever had the batch on disk, and of how many."""
        voters = node.running.settings.voter_list
        return sum(key in self.logs[name].ever for name in voters if name in self.logs), len(voters)

    def _bounded(self, node: Node, master: Master) -> None:
        """Memory per worker is bounded, dead or alive (17)."""
        settings = master.settings
        for worker in master.workers.values():
            if worker.phase is Phase.DOWN and (worker.window or worker.in_flight_bytes):
                self.fail(17, f"{node.name} keeps a window for {worker.name}, which is down")
            if worker.in_flight_bytes > settings.window_bytes + self.largest_body:
                self.fail(17, f"{node.name} has {worker.in_flight_bytes} bytes under way to {worker.name}")
        unstored_bytes = (settings.unstored_batches + 2) * self.largest_body + settings.read_bytes
        if not node.behind and node.unanswered > settings.waiting_frames:
            self.fail(17, f"{node.name} has {node.unanswered} frames waiting")
        if master.log.recent.size_bytes > settings.cache_bytes + unstored_bytes:
            self.fail(17, f"{node.name} holds {master.log.recent.size_bytes} bytes of batches in memory")

    largest_body = 0

    # --- masters -----------------------------------------------------------------------------------

    def sealed_by(self, node: Node, batch: Batch) -> None:
        """A master asks its disk to store a batch of its own (again, perhaps)."""
        key = _key(batch)
        if key in self.sealed:
            if self.sealed[key] != batch:
                self.fail(8, f"{node.name} made a second batch at {key}")
            return
        if batch.signer != node.name or batch.epoch != node.running.epoch:
            self.fail(13, f"{node.name} took in a batch that no master made: {batch}")
        if self.epoch_masters.setdefault(batch.epoch, node.name) != node.name and self.one_begins:
            self.fail(8, f"{node.name} makes batches in epoch {batch.epoch} of {self.epoch_masters[batch.epoch]}")
        records = decode_records(batch.body)
        headers = list(records.headers) or [b""] * batch.count
        ids = [parse_leaf(leaf).id for leaf in records.leaves]
        self.sealed[key] = batch
        self.contents[key] = list(zip(ids, records.payloads, headers, strict=True))
        self.largest_body = max(self.largest_body, len(batch.body))
        if ids[0] == f"{RESERVED_ID_PREFIX}epoch:{batch.epoch}":
            self._began(node, batch)

    def _began(self, node: Node, batch: Batch) -> None:
        """A master begins its epoch: every record that was committed in an earlier one is in its log."""
        log = self.log_of(node)
        if log.promise != (batch.epoch, node.name):
            self.fail(7, f"{node.name} begins epoch {batch.epoch}, has promised {log.promise}")
        for committed, in_epoch in zip(self.committed.batches, self.committed_in, strict=True):
            if in_epoch < batch.epoch and log.at(committed.first_offset) != committed:
                self.fail(4, f"{node.name} begins epoch {batch.epoch} without {_name(committed)}, which is committed")

    def called(self, name: str) -> None:
        """The operator wants this node to be the master."""
        self.moved = True
        self.may_open.add(name)

    def handed_over(self, node: Node, ended: HandOverEnded) -> None:
        """A switchover is done: the other node has all that this one has, and so all that it ever acknowledged."""
        if ended.error is not None:
            return
        ours, theirs = self.log_of(node), self.logs[ended.to]
        for batch in ours.batches:
            if theirs.at(batch.first_offset) != batch:
                self.fail(4, f"{node.name} hands over to {ended.to}, which lacks {_name(batch)}")
        if node.running.log.tip > ours.size:
            self.fail(4, f"{node.name} hands over to {ended.to} with a batch that is on no disk")

    def changed_state(self, node: Node, state: State) -> None:
        if state is State.OPEN and isinstance(node.machine, Master):
            epoch, life = node.machine.epoch, (node.name, node.life)
            newest = max(self.epoch_opened, default=0)
            if epoch > newest:
                last = self.epoch_opened[newest][0] if newest else node.name
                if node.name not in {last, *self.may_open}:
                    self.fail(8, f"{node.name} opens epoch {epoch}, after {last}, and nobody wanted it to")
                self.may_open.discard(node.name)
            if self.epoch_opened.setdefault(epoch, life) != life:
                self.fail(8, f"{node.name} opens epoch {epoch}, which {self.epoch_opened[epoch]} has opened")

    def master_sends(self, node: Node, stream: Stream, frame: MasterFrame) -> None:
        promise = self.log_of(node).promise
        if isinstance(frame, Hello) and (promise[0] < frame.epoch or frame.master != node.name):
            self.fail(7, f"{node.name} greets {stream.worker.name} in epoch {frame.epoch}, has promised {promise}")

    # --- workers -----------------------------------------------------------------------------------

    def worker_sends(self, node: Node, stream: Stream, frame: WorkerFrame) -> None:
        """Nothing is answered below the promise, or before it is on disk (7); nothing acknowledged before it is (3)."""
        if isinstance(frame, Refused | Standing):
            return
        log, hello = self.log_of(node), stream.hello
        if hello is None or log.promise != (hello.epoch, hello.master):
            self.fail(7, f"{node.name} answers {hello} with {frame}, has promised {log.promise}")
        if isinstance(frame, Ack | Welcome | Aligned) and frame.size > log.size:
            self.fail(3, f"{node.name} says that {frame.size} records are on disk, {log.size} are")
        if isinstance(frame, Welcome) and frame.commit_size > log.size:
            self.fail(5, f"{node.name} claims commit size {frame.commit_size} of {log.size}")

    def before_step(self, node: Node, event: object) -> tuple[object, ...] | None:
        """What must not change when this event brings a batch that no master made (13)."""
        if not isinstance(event, FrameArrived) or not isinstance(event.frame, AppendBatch):
            return None
        batch = event.frame.batch
        if self.sealed.get(_key(batch)) == batch:
            return None
        return self._state(node)

    def after_bad_batch(self, node: Node, before: tuple[object, ...]) -> None:
        if self._state(node) != before:
            self.fail(13, f"a bad batch changed {node.name}: {before} to {self._state(node)}")

    @staticmethod
    def _state(node: Node) -> tuple[object, ...]:
        log = node.running.log
        return log.tip, log.tree.root(), log.stored_size, log.commit_size, log.last_epoch

    # --- answers -----------------------------------------------------------------------------------

    def answered(self, node: Node, submit: Submit, attempt: Attempt, result: FrameResult) -> None:
        """A master answers a frame: each message once, and nothing that is not so."""
        count = len(submit.messages)
        whole = [(index, result.error) for index in range(count) if result.error is not None]
        errors = whole or list(result.errors)
        good = [run.first_index + step for run in result.runs for step in range(run.count)]
        told = sorted([*good, *(index for index, _ in errors)])
        if told != list(range(count)):
            self.fail(9, f"{node.name} answers messages {told} of a frame of {count}")
        for index, error in errors:
            self._refused(node, attempt.messages[index], error, wanted=submit.nodes)
        for run in result.runs:
            if result.nodes < submit.nodes:
                self.fail(3, f"{node.name} answers w={submit.nodes} with {result.nodes} nodes")
            for step in range(run.count):
                message = attempt.messages[run.first_index + step]
                self._stands(node, message, run.first_offset + step, nodes=submit.nodes)
                self._first_or_not(node, message, run.first_offset + step, duplicate=run.duplicate)
                attempt.concluded(run.first_index + step)

    def _refused(self, node: Node, message: Message, error: ServiceError, *, wanted: int) -> None:
        if isinstance(error, WriteConcernTimeout) and error.nodes >= wanted:
            self.fail(3, f"{node.name} answers 504 for {message.id}, which is on {error.nodes} nodes of {wanted}")
        if isinstance(error, IdConflict):
            self._in_conflict(node, message, error)
        if error.applied is Applied.YES and error.offset is not None:
            self._stands(node, message, error.offset, nodes=error.nodes)
        if error.applied is not Applied.NO:
            return
        message.refused()
        if not message.may_be_applied and message.content in self._committed_contents(message.id):
            self.fail(9, f"{node.name} answers {error.name} for {message.id}, which is committed")

    def _in_conflict(self, node: Node, message: Message, error: IdConflict) -> None:
        batch = self.log_of(node).at(error.offset if error.offset is not None else -1)
        content = self._content(batch, error.offset or 0) if batch else None
        if content is not None and (content[0] != message.id or content == message.content):
            self.fail(10, f"{node.name} says that {message.id} is in conflict with {content} at {error.offset}")

    def _stands(self, node: Node, message: Message, offset: int, *, nodes: int) -> None:
        """The record is at that offset, on the answering master's disk and on as many as that."""
        log = self.log_of(node)
        batch = log.at(offset)
        if batch is None:
            self.fail(3, f"{node.name} answers for offset {offset}, its disk has {log.size} records")
            return
        content, key = self._content(batch, offset), _key(batch)
        if content != message.content:
            self.fail(10, f"{node.name} answers that {message.content} stands at {offset}, where {content} does")
        have, voters = self._voters_with(node, key)
        if have < nodes:
            self.fail(3, f"{node.name} answers that offset {offset} is on {nodes} voters, {have} ever had it")
        if nodes >= voters // 2 + 1 and self.committed.at(offset) != batch:
            self.fail(4, f"{node.name} answers w={nodes} for offset {offset}, which is not committed")
        self._same_offset(node, message.id, offset, batch.epoch)

    def _first_or_not(self, node: Node, message: Message, offset: int, *, duplicate: bool) -> None:
        """One post of a record at the most is told that it is the first; and only a repeated one that it is not."""
        batch = self.log_of(node).at(offset)
        place = (offset, batch.epoch if batch else 0)
        if (place in self.told_first) if not duplicate else message.posts == 1:
            self.fail(10, f"{node.name} answers duplicate={duplicate} for {message.id}, posted {message.posts} times")
        if not duplicate:
            self.told_first.add(place)

    def _same_offset(self, node: Node, message_id: str, offset: int, epoch: int) -> None:
        """Every retry gets the same offset, unless another master never had the record (10)."""
        earlier = self.answered_offsets.get(message_id)
        if earlier is not None and earlier[0] != offset:
            batch = self.committed.at(earlier[0])
            kept = batch is not None and self._content(batch, earlier[0])[0] == message_id
            if kept and batch is not None and epoch < batch.epoch and self.moved:
                return  # of a master that has not heard that its epoch is over: w=1 asks for its own disk alone
            if kept or not self.moved:
                self.fail(10, f"{node.name} answers offset {offset} for {message_id}, before it was {earlier[0]}")
        self.answered_offsets[message_id] = (offset, epoch)

    def _content(self, batch: Batch, offset: int) -> Content:
        return self.contents[_key(batch)][offset - batch.first_offset]

    def _committed_contents(self, message_id: str) -> list[Content]:
        offset = self.committed_ids.get(message_id)
        batch = self.committed.at(offset) if offset is not None else None
        return [self._content(batch, offset)] if batch is not None and offset is not None else []

    def check_answers(self) -> None:
        """In the end: what was answered with an offset is there, and what was refused is nowhere."""
        for message_id, (offset, _) in self.answered_offsets.items():
            committed = self.committed_ids.get(message_id)
            if committed != offset and not self.moved:
                self.fail(10, f"{message_id} was answered with offset {offset}, and is at {committed}")
        for content, message in self.history.messages.items():
            if not message.may_be_applied and content in self._committed_contents(message.id):
                self.fail(9, f"every post of {message.id} was refused, and it is in the log")

    # --- readers -----------------------------------------------------------------------------------

    def shown(self, node: Node, size: int) -> None:
        """A reader of this node is shown this commit size."""
        log = self.log_of(node)
        if log.commit_size < size:
            self.fail(5, f"{node.name} shows commit size {size}, on disk is {log.commit_size}")
        log.shown_commit = max(log.shown_commit, size)

    def read(self, node: Node, batches: list[Batch], *, from_offset: int, commit_size: int) -> int:
        """A committed read: contiguous, and what is committed (6, 18). Returns the offset after it."""
        offset = from_offset
        for batch in batches:
            if not batch.first_offset <= offset < batch.end or batch.end > commit_size:
                self.fail(18, f"{node.name}: {_name(batch)} read at offset {offset}, commit size {commit_size}")
            if self.committed.at(batch.first_offset) != batch:
                self.fail(6, f"{node.name}: {_name(batch)} is read as committed, and is not")
            offset = batch.end
        if offset < commit_size and not batches:
            self.fail(18, f"{node.name} has nothing at {offset}, its commit size is {commit_size}")
        return offset


def _key(batch: Batch) -> Key:
    return batch.epoch, batch.first_offset, batch.signer


def _name(batch: Batch) -> str:
    return f"batch {batch.first_offset}..{batch.end} of epoch {batch.epoch}"
