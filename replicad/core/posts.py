"""Posts on their way into the log: admission, duplicates, the queue, and who waits for what.

Owns every submitted frame from its arrival to its answer. Must not know of workers, or of how batches are made.

A frame's way: *admitted* (every message is new, or a duplicate of equal content, or in conflict) -> its new messages
have offsets and are *queued* -> taken into a batch -> *waiting* for its write concern -> answered. A frame with ids
that memory cannot tell about is held while the disk is asked; what follows it goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

from replicad.core.concern import Waiting
from replicad.core.duplicates import RecentIds
from replicad.core.effects import Answer, Content, Effect, FindIds, FrameResult, ReadContent, Run, Submit
from replicad.core.record import LEAF_HEAD, NO_HEADERS, Messages, says_encrypted
from replicad.core.seal import Part
from replicad.errors import IdConflict, OutcomeUnknown, RateLimited, ServiceError, WriteConcernTimeout

_NO_MESSAGES = Messages([], [], [], 0)
_UNSURE = "a message with this id is on its way into the log; post it again, or ask for the outcome of the id"
_OFFSET_DIFFERS = "id {id!r} stands at offset {offset} with other content; post other content under an id of its own"


@dataclass(slots=True)
class Frame:
    """1. ``runs`` and ``errors`` are filled at admission, once; ``end`` is the log's size that covers all runs.
    2. From then on ``messages`` is empty: a frame may wait for long, and for a node that is away.
    """

    ticket: int
    messages: Messages
    author: str
    nodes: int
    deadline: float
    asked: Sequence[str] = ()  # ids that the disk is being asked about
    looked_up: dict[str, int | None] = field(default_factory=dict)  # what it said
    contents: dict[int, Content] = field(default_factory=dict)  # by offset: what to compare with
    runs: list[Run] = field(default_factory=list)
    errors: list[tuple[int, ServiceError]] = field(default_factory=list)
    end: int = 0


class Posts:
    """1. Offsets are given at admission, in the queue's order: the queue's first message has the offset of the log's
    tip, and nothing else is appended while it is not empty.
    """

    def __init__(self, *, next_offset: int, recent_ids: int, greatest_id: str, waiting_frames: int) -> None:
        self.ids = RecentIds(limit=recent_ids, greatest_id=greatest_id)
        self.next_offset = next_offset
        self._queued_bytes = self._doubtful_bytes = 0  # of messages
        self._queue: deque[tuple[Part, int]] = deque()
        self._held: dict[int, Frame] = {}  # the disk is being asked
        self._unstored: list[tuple[int, Frame]] = []  # (size, frame): duplicates of what is not on disk yet
        self._unstored_due = float("inf")  # the earliest deadline of those
        self._admitted: dict[int, Frame] = {}
        self._waiting = Waiting()
        self.waiting_frames = waiting_frames

    # --- admission ---------------------------------------------------------------------------------

    def submit(self, submit: Submit, *, stored_size: int) -> list[Effect]:
        if len(self._admitted) + len(self._held) + len(self._unstored) >= self.waiting_frames:
            text = f"{self.waiting_frames} frames wait for their write concern already (limits.waiting_frames)"
            return [Answer(submit.ticket, FrameResult(error=RateLimited(text, retry_after_s=0.1)))]
        frame = Frame(submit.ticket, submit.messages, submit.author, submit.nodes, submit.deadline)
        if self.ids.all_new(submit.messages.ids):
            self._admit_all(frame)
            return []
        self.ids.hold(submit.ticket, stored_size=stored_size)
        self._doubtful_bytes += submit.messages.size_bytes
        return self._resolve(frame, stored_size)

    def _admit_all(self, frame: Frame) -> None:
        messages = frame.messages
        frame.runs.append(Run(0, len(messages), self.next_offset, duplicate=False))
        self._enqueue(messages, frame.author)
        self._await_concern(frame)

    def _enqueue(self, messages: Messages, author: str) -> None:
        self.ids.add(messages.ids, self.next_offset)
        self.next_offset += len(messages)
        self._queue.append((Part(messages, author), messages.size_bytes))
        self._queued_bytes += messages.size_bytes

    def _await_concern(self, frame: Frame) -> None:
        frame.end = max(run.first_offset + run.count for run in frame.runs)
        frame.messages, frame.asked = _NO_MESSAGES, ()
        frame.looked_up.clear()
        frame.contents.clear()
        self._admitted[frame.ticket] = frame
        self._waiting.add(frame.ticket, nodes=frame.nodes, size=frame.end, deadline=frame.deadline)

    def _resolve(self, frame: Frame, stored_size: int) -> list[Effect]:
        """Take a frame with doubtful ids one step on: ask the index, then read what to compare with, then admit."""
        ticket, ids = frame.ticket, frame.messages.ids
        unsure = [i for i in ids if self.ids.get(i) is None and i not in frame.looked_up and self.ids.may_be_older(i)]
        if unsure:
            self._held[ticket], frame.asked = frame, unsure
            return [FindIds(ticket, unsure)]
        known = {offset for i in ids if (offset := self._offset(frame, i)) is not None}
        unread = sorted(known - frame.contents.keys())
        if unread and unread[-1] >= stored_size:
            self._unstored.append((unread[-1] + 1, frame))
            self._unstored_due = min(self._unstored_due, frame.deadline)
            return []
        if unread:
            self._held[ticket] = frame
            return [ReadContent(ticket, unread)]
        self._settle(frame)
        return self._admit_each(frame)

    def _settle(self, frame: Frame) -> None:
        """It is in doubt no more."""
        self.ids.release(frame.ticket)
        self._doubtful_bytes -= frame.messages.size_bytes

    def _offset(self, frame: Frame, message_id: str) -> int | None:
        """Where the id stands in the log. Memory first: it knows what came in after the disk was asked."""
        offset = self.ids.get(message_id)
        return frame.looked_up.get(message_id) if offset is None else offset

    def _admit_each(self, frame: Frame) -> list[Effect]:
        """Every id is known to be new or not, and what to compare with is at hand."""
        messages = frame.messages
        fresh: list[int] = []  # indexes of new messages
        first: dict[str, tuple[int, int]] = {}  # index and offset of an id's first message in this frame
        for index, message_id in enumerate(messages.ids):
            offset = self._offset(frame, message_id)
            is_stored = offset is not None
            if offset is not None:
                same = _same_content(messages, index, frame.contents[offset], author=frame.author)
            elif message_id in first:
                earlier, offset = first[message_id]
                same = _same(messages, index, earlier)
            else:
                offset = self.next_offset + len(fresh)
                first[message_id] = index, offset
                _add(frame.runs, index, offset, duplicate=False)
                fresh.append(index)
                continue
            if same and is_stored:
                _add(frame.runs, index, offset, duplicate=True)
            elif same:  # by itself: it goes where the first one goes, which may be refused yet
                frame.runs.append(Run(index, 1, offset, duplicate=True))
            else:
                text = _OFFSET_DIFFERS.format(id=message_id, offset=offset)
                frame.errors.append((index, IdConflict(text, offset=offset)))
        if fresh:
            self._enqueue(_pick(messages, fresh), frame.author)
        if frame.runs:
            self._await_concern(frame)
            return []
        return [Answer(frame.ticket, FrameResult(errors=frame.errors))]

    def ids_found(self, ticket: int, offsets: dict[str, int], *, stored_size: int) -> list[Effect]:
        frame = self._held.pop(ticket, None)
        if frame is None:
            return []
        for message_id in frame.asked:  # of no other id does the answer tell anything
            frame.looked_up[message_id] = offsets.get(message_id)
        return self._resolve(frame, stored_size)

    def content_read(self, ticket: int, contents: dict[int, Content], *, stored_size: int) -> list[Effect]:
        frame = self._held.pop(ticket, None)
        if frame is None:
            return []
        frame.contents.update(contents)
        return self._resolve(frame, stored_size)

    def read_failed(self, ticket: int, text: str) -> list[Effect]:
        """Answer a frame whose ids can't be looked up. It may be one that the log has: so nothing is known of it."""
        frame = self._held.pop(ticket, None)
        if frame is None:
            return []
        self._settle(frame)
        return [Answer(ticket, FrameResult(error=OutcomeUnknown(text)))]

    # --- the queue ---------------------------------------------------------------------------------

    @property
    def queued(self) -> bool:
        return bool(self._queue)

    @property
    def queue_bytes(self) -> int:
        """Of messages that were accepted and are in no batch yet, those among them of which the disk is asked."""
        return self._queued_bytes + self._doubtful_bytes

    def take(self, *, max_bytes: int, max_records: int) -> list[Part]:
        """The next batch's messages: whole frames, one at least, more while they fit."""
        parts: list[Part] = []
        size = records = 0
        while self._queue:
            part, part_bytes = self._queue[0]
            if parts and (size + part_bytes > max_bytes or records + len(part.messages) > max_records):
                break
            self._queue.popleft()
            parts.append(part)
            size += part_bytes
            records += len(part.messages)
        self._queued_bytes -= size
        return parts

    def stored(self, size: int) -> list[Effect]:
        """Everything below ``size`` is on disk: duplicates of it can be compared now."""
        self.ids.trim(stored_size=size)
        if not self._unstored:
            return []
        ready = [frame for needed, frame in self._unstored if needed <= size]
        if not ready:
            return []
        self._keep_unstored([entry for entry in self._unstored if entry[0] > size])
        return [effect for frame in ready for effect in self._resolve(frame, size)]

    # --- answers -----------------------------------------------------------------------------------

    def reached(self, sizes: Sequence[int]) -> list[Effect]:
        """Answer the frames whose write concern is met; ``sizes[n-1]`` is what n voters have on disk."""
        answers: list[Effect] = []
        for ticket in self._waiting.reached(sizes):
            frame = self._admitted.pop(ticket)
            result = FrameResult(runs=frame.runs, errors=frame.errors, nodes=_nodes_with(frame.end, sizes))
            answers.append(Answer(ticket, result))
        return answers

    def expired(self, now: float, sizes: Sequence[int]) -> list[Effect]:
        """Answer the frames whose timeout has passed, with what is known of each message."""
        answers: list[Effect] = []
        for ticket in self._waiting.expired(now):
            frame = self._admitted.pop(ticket)
            wanted, errors, met = frame.nodes, list(frame.errors), list[Run]()
            for run in frame.runs:  # of which a frame of messages in doubt may have as many as messages
                good = min(max(0, sizes[wanted - 1] - run.first_offset), run.count)
                if good:
                    met.append(replace(run, count=good))
                late = range(good, run.count)
                errors += [(run.first_index + n, _late(wanted, run.first_offset + n, sizes)) for n in late]
            nodes = min((_nodes_with(run.first_offset + run.count, sizes) for run in met), default=0)
            answers.append(Answer(ticket, FrameResult(runs=met, errors=errors, nodes=nodes)))
        if now < self._unstored_due:
            return answers
        expired = [frame for _, frame in self._unstored if frame.deadline <= now]
        self._keep_unstored([entry for entry in self._unstored if entry[1].deadline > now])
        for frame in expired:
            self._settle(frame)
            answers.append(Answer(frame.ticket, FrameResult(error=OutcomeUnknown(_UNSURE))))
        return answers

    def next_deadline(self) -> float:
        return min(self._waiting.next_deadline(), self._unstored_due)

    def _keep_unstored(self, entries: list[tuple[int, Frame]]) -> None:
        self._unstored = entries
        self._unstored_due = min((frame.deadline for _, frame in entries), default=float("inf"))

    def refuse_queued(self, error: ServiceError, *, tip: int) -> list[Effect]:
        """Take back what was queued and is in no batch: it was never written or sent, so it is not applied."""
        lost = [message_id for part, _ in self._queue for message_id in part.messages.ids]
        self.ids.remove(lost)
        self._queue.clear()
        self._queued_bytes, self.next_offset = 0, tip
        gone = [t for t, frame in self._admitted.items() if frame.end > tip]
        answers = [effect for t in gone for effect in self._take_back(self._admitted[t], error, tip)]
        return answers + self._refuse_unstored(error, tip)

    def _take_back(self, frame: Frame, error: ServiceError, tip: int) -> list[Effect]:
        """Refuse a frame's new messages; its duplicates of what is in the log go on waiting for their concern."""
        ticket = frame.ticket
        kept = [run for run in frame.runs if run.first_offset + run.count <= tip]
        # nor is a conflict with one of the frame's own messages one any more
        frame.errors = [(n, error if e.offset is not None and e.offset >= tip else e) for n, e in frame.errors]
        for run in frame.runs:
            if run.first_offset + run.count > tip:
                frame.errors += [(index, error) for index in range(run.first_index, run.first_index + run.count)]
        if not kept:
            self._waiting.discard([ticket])
            del self._admitted[ticket]
            return [Answer(ticket, FrameResult(errors=frame.errors))]
        frame.runs = kept
        self._await_concern(frame)
        return []

    def _refuse_unstored(self, error: ServiceError, tip: int) -> list[Effect]:
        """Refuse frames that wait to be compared with what was taken back. What is in a batch already may yet come
        to be: of a message with its id nothing is known."""
        gone = [frame for needed, frame in self._unstored if needed > tip]
        self._keep_unstored([entry for entry in self._unstored if entry[0] <= tip])
        answers: list[Effect] = []
        for frame in gone:
            self._settle(frame)
            ids = frame.messages.ids
            errors = [
                (n, error if self._offset(frame, i) is None else OutcomeUnknown(_UNSURE)) for n, i in enumerate(ids)
            ]
            answers.append(Answer(frame.ticket, FrameResult(errors=errors)))
        return answers

    def abandon(self, error: ServiceError) -> list[Effect]:
        """Answer everything that is under way with an error that says: unknown. For a master that stops being one."""
        tickets = [*self._admitted, *self._held, *(frame.ticket for _, frame in self._unstored)]
        self._waiting.clear()
        self._admitted.clear()
        self._held.clear()
        self._keep_unstored([])
        self._doubtful_bytes = 0
        return [Answer(ticket, FrameResult(error=error)) for ticket in tickets]


def _nodes_with(end: int, sizes: Sequence[int]) -> int:
    return sum(size >= end for size in sizes)


def _add(runs: list[Run], index: int, offset: int, *, duplicate: bool) -> None:
    """One message more, to the last run where it goes on from that."""
    if runs:
        last = runs[-1]
        ends = (last.first_index + last.count, last.first_offset + last.count, last.duplicate)
        if ends == (index, offset, duplicate):
            runs[-1] = Run(last.first_index, last.count + 1, last.first_offset, duplicate)
            return
    runs.append(Run(index, 1, offset, duplicate))


def _late(wanted: int, offset: int, sizes: Sequence[int]) -> ServiceError:
    nodes = _nodes_with(offset + 1, sizes)
    if not nodes:
        return OutcomeUnknown(f"the record is not on the master's disk yet; it was to have offset {offset}")
    text = f"the record is in this master's log at offset {offset}, on {nodes} of the {wanted} nodes asked for"
    return WriteConcernTimeout(text, offset=offset, nodes=nodes)


def _pick(messages: Messages, indexes: Sequence[int]) -> Messages:
    payloads = [messages.payloads[i] for i in indexes]
    headers = [messages.headers[i] for i in indexes] if messages.headers else []
    size_bytes = sum(map(len, payloads)) + sum(map(len, headers))
    return Messages([messages.ids[i] for i in indexes], payloads, headers, size_bytes)


def _same(messages: Messages, index: int, other: int) -> bool:
    headers = messages.headers
    if headers and headers[index] != headers[other]:
        return False
    payload, other_payload = messages.payloads[index], messages.payloads[other]
    if payload == other_payload:
        return True
    return len(payload) == len(other_payload) and bool(headers) and says_encrypted(headers[index])


def _same_content(messages: Messages, index: int, content: Content, *, author: str) -> bool:
    """Whether a message is the one a leaf was made of: payload and headers. Who posts the retry does not matter.

    A retry may have been encrypted anew. Then its headers, which hold the message's content tag, tell that it is the
    same; but only to who posted the first: others can copy a tag, and must not be able to stand in for its owner.
    """
    _, _, _, _, length, digest, headers_digest, id_length, _ = LEAF_HEAD.unpack_from(content.leaf)
    payload, headers = messages.payloads[index], messages.headers[index] if messages.headers else NO_HEADERS
    if len(payload) != length or sha256(headers).digest() != headers_digest:
        return False
    if sha256(content.salt + payload).digest() == digest:
        return True
    return says_encrypted(headers) and content.leaf[LEAF_HEAD.size + id_length :] == author.encode()
