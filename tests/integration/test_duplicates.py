"""The same id twice: a retry gets the original offset, other content gets a conflict, whatever happened in between."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import pytest

from replicad.dev import DevCluster
from replicad.errors import Applied, BadRequest, IdConflict, WriteConcernTimeout
from replicad.wire.codec import PostRun
from tests.support.nodes import TOKEN, all_level
from tests.support.rawlog import Posted, RawLog, new_id

Logs = dict[str, RawLog]

# More than the master keeps in memory (Settings.recent_ids and a quarter): the index on disk must know the oldest.
BEYOND_MEMORY = 50_000


class Message(NamedTuple):
    id: str
    payload: bytes
    headers: dict[str, str]


def some_message() -> Message:
    return Message(new_id(), b"the content", {"kind": "test", "part": "1"})


async def post(log: RawLog, message: Message, *, w: str | int = "majority") -> Posted:
    return await log.post(message.payload, id=message.id, headers=message.headers, w=w, timeout_s=30)


async def test_the_same_message_from_another_connection_gets_the_original_offset(logs: Logs) -> None:
    message = some_message()
    original = await post(logs["node-1"], message)
    before = (await logs["node-1"].status()).size

    async with RawLog(logs["node-1"].address, token=TOKEN) as other:
        again = await post(other, message)

    assert (again.offset, again.duplicate) == (original.offset, True)
    assert (again.code, again.name) == (409, "DUPLICATE_RECEIVED")
    assert (await logs["node-1"].status()).size == before


async def test_a_duplicate_waits_for_the_write_concern_that_it_asks_for(cluster: DevCluster, logs: Logs) -> None:
    message = some_message()
    await asyncio.to_thread(cluster.kill, "node-3")
    original = await post(logs["node-1"], message, w=1)

    with pytest.raises(WriteConcernTimeout) as caught:
        await logs["node-1"].post(message.payload, id=message.id, headers=message.headers, w=3, timeout_s=0.3)
    assert (caught.value.offset, caught.value.applied) == (original.offset, Applied.YES)

    await asyncio.to_thread(cluster.start, "node-3")
    again = await post(logs["node-1"], message, w=3)
    assert (again.offset, again.duplicate, again.nodes) == (original.offset, True, 3)


async def test_a_retry_after_a_restart_of_the_master_gets_the_original_offset(cluster: DevCluster, logs: Logs) -> None:
    message = some_message()
    original = await post(logs["node-1"], message)

    await asyncio.to_thread(cluster.restart, "node-1")
    again = await post(logs["node-1"], message)

    assert (again.offset, again.duplicate) == (original.offset, True)


async def test_a_retry_after_kill_9_of_all_nodes_gets_the_original_offset(cluster: DevCluster, logs: Logs) -> None:
    message = some_message()
    original = await post(logs["node-1"], message)

    await asyncio.to_thread(cluster.kill)
    await asyncio.to_thread(cluster.start)
    again = await post(logs["node-1"], message)

    assert (again.offset, again.duplicate) == (original.offset, True)


async def test_a_retry_of_a_record_older_than_memory_gets_the_original_offset(logs: Logs) -> None:
    message = Message("0-" + new_id(), b"old", {})  # a smaller id than all that follow
    original = await post(logs["node-1"], message)
    async with logs["node-1"].post_stream() as stream:
        for _ in range(BEYOND_MEMORY // 2000):
            await stream.send([new_id() for _ in range(2000)], [b""] * 2000, w=1, timeout_s=30)
        for _ in range(BEYOND_MEMORY // 2000):
            assert (await stream.result()).error is None

    again = await post(logs["node-1"], message)
    assert (again.offset, again.duplicate) == (original.offset, True)
    with pytest.raises(IdConflict) as caught:
        await post(logs["node-1"], message._replace(payload=b"new"))
    assert caught.value.offset == original.offset


@pytest.mark.parametrize(
    "change",
    [{"payload": b"other content"}, {"payload": b""}, {"headers": {}}, {"headers": {"kind": "test", "part": "2"}}],
)
async def test_the_same_id_with_other_content_is_a_conflict_and_changes_nothing(
    logs: Logs, change: dict[str, Any]
) -> None:
    message = some_message()
    original = await post(logs["node-1"], message)
    before = await all_level(logs)

    with pytest.raises(IdConflict) as caught:
        await post(logs["node-1"], message._replace(**change))

    error = caught.value
    assert (error.code, error.grpc_status, error.applied) == (409, "ALREADY_EXISTS", Applied.NO)
    assert error.offset == original.offset
    assert (await logs["node-1"].status()).root == before.root


async def test_a_conflict_is_still_one_after_a_restart(cluster: DevCluster, logs: Logs) -> None:
    message = some_message()
    original = await post(logs["node-1"], message)
    await asyncio.to_thread(cluster.restart, "node-1")

    with pytest.raises(IdConflict) as caught:
        await post(logs["node-1"], message._replace(payload=b"other content"))
    assert caught.value.offset == original.offset


async def test_one_id_posted_by_many_at_once_is_in_the_log_once(logs: Logs) -> None:
    message = some_message()
    others = [RawLog(logs["node-1"].address, token=TOKEN) for _ in range(8)]
    try:
        posted = await asyncio.gather(*(post(log, message) for log in others for _ in range(8)))
    finally:
        await asyncio.gather(*(log.channel.close() for log in others))

    assert len({each.offset for each in posted}) == 1
    assert sorted(each.duplicate for each in posted) == [False] + [True] * 63
    assert [record.id for record in (await logs["node-1"].list()).records].count(message.id) == 1


async def test_a_frame_tells_of_each_of_its_messages_what_became_of_it(logs: Logs) -> None:
    """New, in the log already, in conflict with the log, a twin within the frame, in conflict within the frame."""
    known = new_id()
    offset = (await logs["node-1"].post(b"known", id=known)).offset
    fresh, twin = new_id(), new_id()

    async with logs["node-1"].post_stream() as stream:
        await stream.send(
            [fresh, known, known, twin, twin, twin], [b"1", b"known", b"unknown", b"t", b"t", b"other"], w=2
        )
        result = await stream.result()

    first = min(run.first_offset for run in result.runs if not run.duplicate)
    assert set(result.runs) == {
        PostRun(0, 1, first, False),
        PostRun(1, 1, offset, True),
        PostRun(3, 1, first + 1, False),
        PostRun(4, 1, first + 1, True),
    }
    assert [(index, type(error), error.offset) for index, error in result.errors] == [
        (2, IdConflict, offset),
        (5, IdConflict, first + 1),
    ]


async def test_an_id_of_the_log_itself_is_refused_from_a_client(logs: Logs) -> None:
    with pytest.raises(BadRequest):
        await logs["node-1"].post(b"", id="replicad:epoch:1")
    assert (await logs["node-1"].outcome("replicad:epoch:1")).offset == 0


async def test_outcome_tells_on_every_node_where_an_id_stands(logs: Logs) -> None:
    message_id = new_id()
    posted = await logs["node-1"].post(b"ask for it", id=message_id, w=3)
    await all_level(logs, size=posted.offset + 1)

    for log in logs.values():
        outcome = await log.outcome(message_id)
        record = (await log.list(posted.offset, limit=1)).records[0]
        assert (outcome.offset, outcome.committed) == (posted.offset, True)
        assert (outcome.epoch, outcome.time_ms) == (record.epoch, record.time_ms)
