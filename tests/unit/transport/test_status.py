"""What a node tells of an id while a new master has it drop, or replace, the record that it stands at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from replicad.errors import Unavailable
from replicad.storage.memory import MemoryStore
from replicad.transport.status import Status
from replicad.wire.v1 import log_pb2 as pb
from tests.support.builders import LogBuilder, messages
from tests.support.script import master_log, stored
from tests.support.worker_runtime import worker_runtime

ASKED = pb.OutcomeRequest(id="asked").SerializeToString()


class Node:
    """A worker with one record that is committed, and another, ``asked``, that is not. ``meanwhile`` happens to its log
    as soon as the id is found."""

    def __init__(self, meanwhile: Callable[[MemoryStore, LogBuilder], None]) -> None:
        before = master_log()
        log = before.fork()
        log.add_messages(messages("asked"))
        store = stored(log, commit_size=1)
        find = store.find_ids

        def find_ids(ids: Sequence[str]) -> dict[str, int]:
            found = find(ids)
            meanwhile(store, before)
            self.runtime.machine.log.reset(store.load().tree, store.load().last_epoch, store.load().epoch_record)
            self.runtime.machine.log.commit(store.load().commit_size)
            return found

        cast(Any, store).find_ids = find_ids
        self.faults: list[BaseException] = []
        self.runtime = worker_runtime(store, fatal=self.faults.append, damaged=self.faults.append)
        config = SimpleNamespace(node="n2", timeouts=SimpleNamespace(read_wait_s=1.0))
        self.status = Status(self.runtime, cast(Any, config), key_id=lambda: "")

    async def outcome(self) -> pb.OutcomeResponse:
        try:
            return pb.OutcomeResponse.FromString(await self.status.outcome(ASKED, "anonymous"))
        finally:
            await self.runtime.close()


async def test_an_id_that_is_there_is_told_with_whether_it_is_committed() -> None:
    found = await Node(lambda store, before: None).outcome()
    assert (found.offset, found.epoch, found.committed) == (1, 1, False)


def drops(store: MemoryStore, before: LogBuilder) -> None:
    store.truncate(before.size)


def replaces(store: MemoryStore, before: LogBuilder) -> None:
    store.truncate(before.size)
    before.add_epoch(2, node="n3")
    store.append(before.appends[1:], commit_size=before.size)


@pytest.mark.parametrize("meanwhile", [drops, replaces])
async def test_what_stands_there_now_is_not_told_of_an_id_that_was_dropped(
    meanwhile: Callable[[MemoryStore, LogBuilder], None],
) -> None:
    node = Node(meanwhile)
    with pytest.raises(Unavailable, match="n2 has dropped records meanwhile that no majority had, 'asked' among them"):
        await node.outcome()
    assert node.faults == [], "nothing is damaged"
