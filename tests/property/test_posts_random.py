"""Posts under random use: every frame is answered once, and truly, as the log shows when all is done.

The test's number is the seed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from replicad.core.record import Messages, parse_leaf
from replicad.errors import Applied, StorageFull
from replicad.wire.codec import decode_records
from tests.support.builders import LogBuilder, messages
from tests.support.post_stage import PostStage

FULL = StorageFull("no room")


@dataclass
class Posted:
    batch: Messages
    w: int


class RandomUse:
    """Drives a stage at random and checks every answer against the log as it turned out."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.stage = PostStage(recent_ids=self.rng.choice((1, 3, 20)), log=self.start_log())
        self.posted: dict[int, Posted] = {}
        self.nodes = [self.stage.stored] * 3
        self.now = 0.0

    def start_log(self) -> LogBuilder:
        log = LogBuilder()
        log.add_messages(messages(*(f"{n:03}" for n in self.rng.sample(range(300), 20))))
        return log

    def step(self) -> None:
        stage, rng = self.stage, self.rng
        draw = rng.random()
        if draw < 0.4:
            self.post()
        elif draw < 0.6 and stage.asked:
            rng.shuffle(stage.asked)
            stage.disk()
        elif draw < 0.7 and stage.posts.queued:
            stage.seal(max_records=rng.choice((1, 5, 100)))
        elif draw < 0.8:
            stage.out(stage.posts.stored(self.sync()))
        elif draw < 0.84:
            stage.out(stage.posts.refuse_queued(FULL, tip=stage.log.size))
        elif draw < 0.87:
            self.now += rng.random()
            stage.out(stage.posts.expired(self.now, self.nodes))
        stage.reach(*self.nodes)

    def sync(self) -> int:
        self.stage.stored = self.rng.choice([self.stage.stored, self.stage.log.size])
        third = self.rng.randint(self.nodes[2], self.stage.stored)
        self.nodes = [self.stage.stored, self.rng.randint(max(self.nodes[1], third), self.stage.stored), third]
        return self.stage.stored

    def post(self) -> None:
        rng = self.rng
        ids = [f"{rng.randrange(300):03}" for _ in range(rng.choice((1, 1, 2, 6)))]
        payloads = [rng.choice((b"payload of " + i.encode(), b"other")) for i in ids]
        w = rng.randint(1, 3)
        self.posted[self.stage.tickets + 1] = Posted(messages(*ids, payloads=payloads), w)
        self.stage.post(*ids, payloads=payloads, w=w, deadline=self.now + 3 * rng.random())

    def finish(self) -> None:
        """Everything that can happen has happened, and every frame has its answer."""
        stage = self.stage
        while stage.asked or stage.posts.queued or stage.stored < stage.log.size:
            while stage.asked:
                stage.disk()
            if stage.posts.queued:
                stage.seal()
            stage.sync()
        self.nodes = [stage.log.size] * 3
        stage.reach(*self.nodes)
        assert set(stage.answers) == set(self.posted)

    def check(self) -> None:
        offsets = self.stage.offsets()
        logged = [i for append in self.stage.log.appends for i in append.ids]
        assert len(logged) == len(set(logged)), "an id is in the log once"
        for ticket, posted in self.posted.items():
            result = self.stage.answers[ticket]
            ids, payloads = posted.batch.ids, posted.batch.payloads
            if result.error is not None:
                assert result.error.applied is Applied.UNKNOWN
                continue
            told = [run.first_index + n for run in result.runs for n in range(run.count)]
            told += [index for index, _ in result.errors]
            assert sorted(told) == list(range(len(ids))), "each message is told its outcome once"
            for run in result.runs:
                assert result.nodes >= posted.w
                for n in range(run.count):
                    index = run.first_index + n
                    assert offsets[ids[index]] == run.first_offset + n
                    assert self.payload_at(run.first_offset + n) == payloads[index]
                    own = self.author_at(run.first_offset + n) == f"frame {ticket}"
                    assert own or run.duplicate
            unknown = {ids[index] for index, error in result.errors if error.applied is Applied.UNKNOWN}
            for index, error in result.errors:
                if error.name == "ID_CONFLICT" and ids[index] not in unknown:  # with a message of its own frame
                    assert error.offset is not None
                    assert self.payload_at(error.offset, ids[index]) != payloads[index]
                elif error.name == "WRITE_CONCERN_TIMEOUT":
                    assert offsets[ids[index]] == error.offset
                elif error.applied is Applied.NO and ids[index] in offsets:
                    offset = offsets[ids[index]]
                    written = self.author_at(offset) == f"frame {ticket}" and self.payload_at(offset) == payloads[index]
                    assert not written, "what was answered applied=no never appears"

    def author_at(self, offset: int) -> str:
        return parse_leaf(self.stage.content(offset).leaf).author

    def payload_at(self, offset: int, message_id: str | None = None) -> bytes:
        append = next(each for each in self.stage.log.appends if offset < each.batch.end)
        records, at = decode_records(append.batch.body), offset - append.batch.first_offset
        if message_id is not None:
            assert parse_leaf(records.leaves[at]).id == message_id
        return records.payloads[at]


@pytest.mark.parametrize("seed", range(60))
def test_under_random_use_every_frame_is_answered_once_and_truly(seed: int) -> None:
    use = RandomUse(seed)
    for _ in range(400):
        use.step()
    use.finish()
    use.check()
