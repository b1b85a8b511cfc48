"""What an answer to a post means: so many nodes have it on disk; and who waits for whom."""

from __future__ import annotations

import asyncio
import time

import pytest

from replicad.dev import DevCluster
from replicad.errors import Applied, BadRequest, RateLimited, ServiceError, WriteConcernTimeout
from tests.support.nodes import all_level
from tests.support.rawlog import RawLog, new_id

Logs = dict[str, RawLog]

STREAM_FRAMES = 1024  # the default of limits.stream_frames
PROMPT_S = 2.0  # for a post that waits for nobody: thousands of times what it takes, for machines that are busy


async def nodes_holding(logs: Logs, offset: int) -> int:
    states = await asyncio.gather(*(log.status() for log in logs.values()))
    return sum(state.size > offset for state in states)


@pytest.mark.parametrize(("w", "least"), [("1", 1), ("2", 2), ("3", 3), ("majority", 2), ("all", 3), ("", 2)])
async def test_a_post_is_answered_when_as_many_nodes_as_asked_have_it_on_disk(logs: Logs, w: str, least: int) -> None:
    for _ in range(20):
        posted = await logs["node-1"].post(b"a message", w=w)

        holding = await nodes_holding(logs, posted.offset)
        assert least <= posted.nodes <= holding
        assert (posted.code, posted.name, posted.duplicate) == (200, "OK", False)


@pytest.mark.parametrize("w", ["4", "0", "-1", "1.5", "+2", " 2", "most", "٢", "2" * 100])
async def test_a_write_concern_that_is_not_to_be_had_is_refused_and_nothing_is_appended(logs: Logs, w: str) -> None:
    before = (await logs["node-1"].status()).size

    with pytest.raises(BadRequest) as caught:
        await logs["node-1"].post(b"a message", w=w)

    assert caught.value.applied is Applied.NO
    assert (await logs["node-1"].status()).size == before


async def posts_in_a_row(log: RawLog, *, w: int, count: int) -> float:
    """Seconds for that many posts, one after the other."""
    began = time.monotonic()
    for _ in range(count):
        await log.post(b"in a row", w=w)
    return time.monotonic() - began


async def test_w3_waits_while_a_worker_is_down_and_w1_and_w2_do_not(cluster: DevCluster, logs: Logs) -> None:
    master = logs["node-1"]
    undisturbed_s = await posts_in_a_row(master, w=2, count=100)
    await asyncio.to_thread(cluster.kill, "node-3")

    waiting = asyncio.create_task(master.post(b"for three", w=3, timeout_s=60))
    w1_s = await posts_in_a_row(master, w=1, count=100)
    w2_s = await posts_in_a_row(master, w=2, count=100)
    assert not waiting.done()
    assert max(w1_s, w2_s) < 5 * undisturbed_s + 1

    await asyncio.to_thread(cluster.start, "node-3")
    posted = await waiting
    assert posted.nodes == 3
    assert await nodes_holding(logs, posted.offset) == 3


async def test_a_frame_that_waits_for_three_holds_up_none_behind_it_on_its_stream(
    cluster: DevCluster, logs: Logs
) -> None:
    await asyncio.to_thread(cluster.kill, "node-2")
    async with logs["node-1"].post_stream() as stream:
        first = await stream.send([new_id()], w=3, timeout_s=60)
        later = [await stream.send([new_id(), new_id()], w=1 + number % 2, timeout_s=60) for number in range(10)]

        answered = [await stream.result() for _ in later]
        assert sorted(result.sequence for result in answered) == later
        assert all(result.error is None and not result.errors for result in answered)

        await asyncio.to_thread(cluster.start, "node-2")
        last = await stream.result()
        assert (last.sequence, last.error, last.nodes) == (first, None, 3)


async def test_a_timeout_tells_the_offset_and_the_nodes_and_the_record_stays(cluster: DevCluster, logs: Logs) -> None:
    master, message_id = logs["node-1"], new_id()
    await asyncio.to_thread(cluster.kill, "node-3")

    with pytest.raises(WriteConcernTimeout) as caught:
        await master.post(b"for three", id=message_id, w=3, timeout_s=0.5)

    error = caught.value
    assert (error.code, error.applied, error.nodes) == (504, Applied.YES, 2)
    assert error.offset is not None
    assert (await master.list(error.offset, limit=1)).records[0].id == message_id

    with pytest.raises(WriteConcernTimeout) as again:
        await master.post(b"for three", id=message_id, w=3, timeout_s=0.2)
    assert (again.value.offset, again.value.nodes) == (error.offset, 2)

    await asyncio.to_thread(cluster.start, "node-3")
    retried = await master.post(b"for three", id=message_id, w=3, timeout_s=30)
    assert (retried.offset, retried.duplicate, retried.nodes, retried.code) == (error.offset, True, 3, 409)


async def test_with_both_workers_down_w1_is_answered_and_w2_waits_until_one_is_back(
    cluster: DevCluster, logs: Logs
) -> None:
    master = logs["node-1"]
    await asyncio.to_thread(cluster.kill, "node-2", "node-3")

    alone = await asyncio.wait_for(master.post(b"alone", w=1), PROMPT_S)
    assert alone.nodes == 1
    waiting = asyncio.create_task(master.post(b"for two", w=2, timeout_s=60))
    with pytest.raises(WriteConcernTimeout) as caught:
        await master.post(b"for a majority", w="majority", timeout_s=0.3)
    assert caught.value.nodes == 1
    assert not waiting.done()

    await asyncio.to_thread(cluster.start, "node-2")
    assert (await waiting).nodes >= 2


async def test_a_thousand_that_wait_for_a_worker_that_is_down_are_all_answered_when_it_is_back(
    cluster: DevCluster, logs: Logs
) -> None:
    master = logs["node-1"]
    await asyncio.to_thread(cluster.kill, "node-3")
    waiting = [asyncio.create_task(master.post(b"for three", w=3, timeout_s=60)) for _ in range(1000)]
    await asyncio.wait_for(master.post(b"for one", w=1), PROMPT_S)

    await asyncio.to_thread(cluster.start, "node-3")
    posted = await asyncio.gather(*waiting)
    assert len({each.offset for each in posted}) == 1000
    assert {each.nodes for each in posted} == {3}
    await all_level(logs)


async def test_more_frames_than_the_limit_that_wait_on_one_stream_are_refused_unapplied(
    cluster: DevCluster, logs: Logs
) -> None:
    before = (await all_level(logs)).size
    await asyncio.to_thread(cluster.kill, "node-3")
    async with logs["node-1"].post_stream() as stream:
        for _ in range(STREAM_FRAMES + 20):
            await stream.send([new_id()], w=3, timeout_s=60)
        refused = [await stream.result() for _ in range(20)]
        assert {type(result.error) for result in refused} == {RateLimited}
        assert {result.sequence for result in refused} == set(range(STREAM_FRAMES + 1, STREAM_FRAMES + 21))
        assert all(result.error is not None and result.error.applied is Applied.NO for result in refused)

        await asyncio.to_thread(cluster.start, "node-3")
        answered = [await stream.result() for _ in range(STREAM_FRAMES)]
    assert all(result.error is None and not result.errors for result in answered)
    assert (await all_level(logs)).size == before + STREAM_FRAMES


async def test_the_longest_timeout_there_is_is_no_reason_to_wait(logs: Logs) -> None:
    longest_s = ((1 << 32) - 1) / 1000
    posted = await asyncio.wait_for(logs["node-1"].post(b"patient", w=3, timeout_s=longest_s), 10 * PROMPT_S)
    assert posted.nodes == 3


async def test_a_worker_takes_no_post_and_names_the_master(cluster: DevCluster, logs: Logs) -> None:
    for worker in ("node-2", "node-3"):
        with pytest.raises(ServiceError) as caught:
            await logs[worker].post(b"to the wrong one")
        error = caught.value
        assert (error.code, error.name, error.applied) == (421, "NOT_MASTER", Applied.NO)
        assert (error.master, error.master_address) == ("node-1", cluster.master.address)
