"""Posts with a log behind them, and a test that plays the disk: it answers what was asked, by what is on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from replicad.core.effects import Answer, Content, Effect, FindIds, FrameResult, ReadContent, Submit
from replicad.core.posts import Posts
from replicad.wire.codec import decode_records
from tests.support.builders import LogBuilder, messages
from tests.support.transcript import show_all


class PostStage:
    """Posts with a log behind them. ``log`` is what was sealed, ``stored`` how much of it is on disk."""

    def __init__(self, *, recent_ids: int = 1000, waiting_frames: int = 1000, log: LogBuilder | None = None) -> None:
        self.log = log or LogBuilder()
        self.stored = self.log.size
        ids = [message_id for append in self.log.appends for message_id in append.ids]
        self.posts = Posts(
            next_offset=self.log.size,
            recent_ids=recent_ids,
            greatest_id=max(ids, default=""),
            waiting_frames=waiting_frames,
        )
        self.tickets = 0
        self.asked: list[FindIds | ReadContent] = []
        self.snapshots: dict[int, int] = {}  # by ticket: the size on disk when it was asked
        self.answers: dict[int, FrameResult] = {}

    def post(
        self,
        *ids: str,
        w: int = 1,
        deadline: float = 1e9,
        payloads: Sequence[bytes] | None = None,
        headers: Sequence[Mapping[str, str]] = (),
    ) -> list[str]:
        self.tickets += 1
        batch = messages(*ids, payloads=payloads, headers=headers)
        author = f"frame {self.tickets}"  # so that a record tells which frame it came with
        return self.out(self.posts.submit(Submit(self.tickets, batch, author, w, deadline), stored_size=self.stored))

    def out(self, effects: Sequence[Effect]) -> list[str]:
        for effect in effects:
            if isinstance(effect, FindIds | ReadContent):
                self.asked.append(effect)
                self.snapshots[effect.ticket] = self.stored
            if isinstance(effect, Answer):
                assert effect.ticket not in self.answers, "a frame is answered once"
                self.answers[effect.ticket] = effect.result
        return show_all(effects)

    def seal(self, *, max_records: int = 1000) -> int:
        """The queue's next messages become a batch."""
        parts = self.posts.take(max_bytes=1 << 20, max_records=max_records)
        self.log.add_parts(parts)
        return sum(len(part.messages) for part in parts)

    def sync(self, size: int | None = None) -> list[str]:
        """The disk has the log up to ``size``."""
        self.stored = self.log.size if size is None else size
        return self.out(self.posts.stored(self.stored)) + self.reach(self.stored)

    def reach(self, *sizes: int) -> list[str]:
        return self.out(self.posts.reached(sizes))

    def disk(self) -> list[str]:
        """The disk answers the oldest question, by what it held when it was asked."""
        effect = self.asked.pop(0)
        known = self.snapshots[effect.ticket]
        if isinstance(effect, FindIds):
            offsets = {i: at for i, at in self.offsets().items() if i in effect.ids and at < known}
            return self.out(self.posts.ids_found(effect.ticket, offsets, stored_size=self.stored))
        assert max(effect.offsets) < known, "only what is on disk is read from it"
        contents = {offset: self.content(offset) for offset in effect.offsets}
        return self.out(self.posts.content_read(effect.ticket, contents, stored_size=self.stored))

    def offsets(self) -> dict[str, int]:
        return {
            message_id: at
            for append in self.log.appends
            for at, message_id in enumerate(append.ids, append.batch.first_offset)
        }

    def content(self, offset: int) -> Content:
        append = next(each for each in self.log.appends if offset < each.batch.end)
        records, at = decode_records(append.batch.body), offset - append.batch.first_offset
        return Content(records.leaves[at], records.salts[16 * at : 16 * at + 16])
