"""What a reader sees on which node, and when: levels, min_offset, tails, and that nothing seen is taken back."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Mapping

import pytest

from replicad.client import AsyncClient
from replicad.dev import DevCluster
from replicad.errors import BadRequest, NotFound, NotMaster, Unavailable
from replicad.wire.codec import Record
from tests.support.nodes import TOKEN, all_level, edit, events, log_lines, reload, same_records
from tests.support.rawlog import Page, RawLog, new_id
from tests.support.waiting import eventually

Logs = dict[str, RawLog]

READ_WAIT_S = 1.5
BUSY_S = 5.0  # what a busy machine may add


@pytest.fixture(scope="module")
def settings() -> Mapping[str, object]:
    """Reads give up soon, and so does the master with a worker that is silent."""
    return {"timeouts": {"read_wait": f"{READ_WAIT_S}s", "suspect": "1s", "unhealthy": "2s"}}


async def test_all_nodes_come_to_the_same_root_after_posts_at_w1(logs: Logs) -> None:
    async with logs["node-1"].post_stream() as stream:
        for _ in range(50):
            await stream.send([new_id() for _ in range(20)], w=1)
        for _ in range(50):
            assert (await stream.result()).error is None

    await all_level(logs, size=1000)
    await same_records(logs)


async def test_a_read_with_min_offset_on_a_worker_includes_what_was_just_posted(logs: Logs) -> None:
    for number in range(60):
        message_id, worker = new_id(), f"node-{2 + number % 2}"
        posted = await logs["node-1"].post(b"read it there", id=message_id, w=1)

        for level in ("committed", "local"):
            page = await logs[worker].list(posted.offset, min_offset=posted.offset, level=level)
            assert [page.records[0].offset, page.records[0].id] == [posted.offset, message_id]


async def test_a_read_with_a_min_offset_that_does_not_come_fails_after_the_wait(logs: Logs) -> None:
    size = (await all_level(logs)).size
    for name in logs:
        began = time.monotonic()
        with pytest.raises(Unavailable):
            await logs[name].list(0, min_offset=size)
        assert READ_WAIT_S <= time.monotonic() - began < READ_WAIT_S + BUSY_S


async def test_a_worker_that_is_cut_off_fails_a_read_of_what_it_has_not(cluster: DevCluster, logs: Logs) -> None:
    await asyncio.to_thread(cluster.kill, "node-1")
    size = (await logs["node-2"].status()).size

    with pytest.raises(Unavailable):
        await logs["node-2"].list(0, min_offset=size, level="local")


async def test_what_no_majority_has_is_seen_at_level_local_alone_and_marked(cluster: DevCluster, logs: Logs) -> None:
    master = logs["node-1"]
    committed = await all_level(logs)
    await asyncio.to_thread(cluster.kill, "node-2", "node-3")
    posted = await master.post(b"on the master alone", w=1)

    page = await master.list(posted.offset)
    assert page == Page(committed.commit_size, [])
    local = await master.list(posted.offset - 1, level="local")
    assert [(record.offset, record.committed) for record in local.records] == [
        (posted.offset - 1, True),
        (posted.offset, False),
    ]
    assert not (await master.outcome(local.records[1].id)).committed

    await asyncio.to_thread(cluster.start, "node-2", "node-3")
    await all_level(logs, size=posted.offset + 1)
    assert (await logs["node-3"].list(posted.offset)).records == [local.records[1]._replace(committed=True)]


async def test_a_linearizable_read_on_the_master_includes_every_post_answered_before(logs: Logs) -> None:
    for _ in range(50):
        posted = await logs["node-1"].post(b"answered", w="majority")
        page = await logs["node-1"].list(posted.offset, level="linearizable")
        assert page.records[0].offset == posted.offset


async def test_a_linearizable_read_includes_what_only_the_master_had_on_disk_when_it_was_answered(logs: Logs) -> None:
    for _ in range(50):
        posted = await logs["node-1"].post(b"answered by one", w=1)
        page = await logs["node-1"].list(posted.offset, level="linearizable")
        assert [record.offset for record in page.records] == [posted.offset]
        assert page.records[0].committed


async def test_a_linearizable_read_on_a_worker_names_the_master(cluster: DevCluster, logs: Logs) -> None:
    with pytest.raises(NotMaster) as caught:
        await logs["node-2"].list(level="linearizable")
    assert (caught.value.code, caught.value.master) == (421, "node-1")
    assert caught.value.master_address == cluster.master.address


async def test_a_master_cut_from_its_majority_answers_no_linearizable_read(cluster: DevCluster, logs: Logs) -> None:
    await all_level(logs)
    for worker in ("node-2", "node-3"):
        cluster.send_signal(worker, signal.SIGSTOP)

    began = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        await logs["node-1"].list(level="linearizable")
    assert caught.value.code == 503
    assert time.monotonic() - began < READ_WAIT_S + BUSY_S
    assert (await logs["node-1"].list(level="committed")).records  # what it knows it still tells

    cluster.send_signal("node-2", signal.SIGCONT)
    assert (await logs["node-1"].list(level="linearizable")).records


async def test_a_worker_that_was_silent_until_it_was_given_up_is_dialled_again(cluster: DevCluster, logs: Logs) -> None:
    """A stream that we cancel ourselves must not end the dialling: the worker would never come back."""
    seen = len(log_lines(cluster.master))
    cluster.send_signal("node-2", signal.SIGSTOP)

    async def in_log(event: str) -> bool:
        return any(f"event={event} peer=node-2 " in line for line in log_lines(cluster.master)[seen:])

    await eventually(lambda: in_log("lost"), within_s=10, what="the silent worker is given up")
    health = {node.name: node.health for node in (await logs["node-1"].status()).nodes}
    assert health == {"node-1": "self", "node-2": "UNHEALTHY", "node-3": "HEALTHY"}
    posted = await logs["node-1"].post(b"without it", w=2)
    await eventually(lambda: in_log("unreachable"), within_s=15, what="it is dialled again, in vain")
    cluster.send_signal("node-2", signal.SIGCONT)

    await all_level(logs, size=posted.offset + 1)


async def test_what_was_read_as_committed_is_there_after_kill_9_of_the_node_that_served_it(
    cluster: DevCluster, logs: Logs
) -> None:
    """Without the master too: what a node has shown it knows by itself, from its own disk."""
    for name in ("node-2", "node-3", "node-1"):
        posted = await logs["node-1"].post(new_id().encode(), w=2)
        seen = await logs[name].list(posted.offset, min_offset=posted.offset)
        await asyncio.to_thread(cluster.kill)
        if name == "node-1":  # a master opens with a majority only, but it reads at once
            await asyncio.to_thread(cluster.start, name, wait=False)
        else:
            await asyncio.to_thread(cluster.start, name)

        again = await logs[name].list(posted.offset)
        assert again.records[: len(seen.records)] == seen.records
        assert again.commit_size >= seen.commit_size
        await asyncio.to_thread(cluster.start, *[node.name for node in cluster.nodes if node.name != name])
        await all_level(logs, size=posted.offset + 1)


async def test_a_tail_on_every_node_gives_every_record_in_order_while_posts_go_on(
    cluster: DevCluster, logs: Logs
) -> None:
    begin = (await all_level(logs)).size

    async def follow(address: str) -> list[Record]:
        seen: list[Record] = []
        async with AsyncClient(address, token=cluster.layout.token) as client:
            async for record in client.tail(begin):
                seen.append(record)
                if len(seen) == 500:
                    return seen
        raise AssertionError("a tail has no end")

    tails = [asyncio.create_task(follow(node.address)) for node in cluster.nodes]
    async with AsyncClient(cluster.master.address, token=cluster.layout.token) as client:
        for _ in range(50):
            await asyncio.gather(*(client.post(f"{number}") for number in range(10)))

    first, second, third = await asyncio.wait_for(asyncio.gather(*tails), 30)
    assert first == second == third
    assert [record.offset for record in first] == list(range(begin, begin + 500))
    assert all(record.committed for record in first)


async def test_a_tail_goes_on_at_the_right_offset_when_its_node_is_killed_and_comes_back(
    cluster: DevCluster, logs: Logs
) -> None:
    begin = (await all_level(logs)).size
    seen: list[int] = []

    async def follow() -> None:
        async with AsyncClient(cluster.node("node-3").address, token=cluster.layout.token) as client:
            async for record in client.tail(begin):
                seen.append(record.offset)
                if len(seen) == 60:
                    return

    tail = asyncio.create_task(follow())
    for number in range(60):
        await logs["node-1"].post(b"follow", w=2)
        if number == 30:
            await asyncio.to_thread(cluster.kill, "node-3")
        elif number == 45:
            await asyncio.to_thread(cluster.start, "node-3")

    await asyncio.wait_for(tail, 30)
    assert seen == list(range(begin, begin + 60))


async def test_a_range_is_cut_to_the_record_also_inside_batches(logs: Logs) -> None:
    async with logs["node-1"].post_stream() as stream:
        await stream.send([f"{new_id()}-{number}" for number in range(100)], w=3)
        first = (await stream.result()).runs[0].first_offset
    await all_level(logs, size=first + 100)

    for name in logs:
        for start, limit in ((0, 1), (17, 1), (17, 50), (99, 1), (99, 5), (50, 0)):
            records = (await logs[name].list(first + start, limit=limit)).records
            until = min(start + limit, 100) if limit else 100
            assert [record.offset for record in records] == list(range(first + start, first + until))


async def test_a_range_of_time_gives_exactly_the_records_of_that_time(logs: Logs) -> None:
    offsets = []
    for _ in range(5):
        offsets.append((await logs["node-1"].post(b"timed", w=3)).offset)
        await eventually(lambda: _clock_after(logs, offsets[-1]), within_s=5, what="the clock has moved")
    await all_level(logs)
    everything = (await logs["node-1"].list()).records
    since, until = (next(r.time_ms for r in everything if r.offset == offset) for offset in (offsets[1], offsets[3]))

    for name in logs:
        page = await logs[name].list(since_ms=since, until_ms=until)
        assert page.records == [record for record in everything if since <= record.time_ms < until]
        assert [record.offset for record in page.records] == offsets[1:3]


async def _clock_after(logs: Logs, offset: int) -> bool:
    record = (await logs["node-1"].list(offset, limit=1)).records[0]
    return time.time_ns() // 1_000_000 > record.time_ms


@pytest.mark.parametrize("level", ["newest", "COMMITTED", "x" * 1000])
async def test_a_level_that_there_is_not_is_refused(logs: Logs, level: str) -> None:
    with pytest.raises(BadRequest):
        await logs["node-2"].list(level=level)


@pytest.mark.parametrize("offset", [1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
async def test_a_read_from_beyond_the_end_is_empty_however_far(logs: Logs, offset: int) -> None:
    size = (await all_level(logs)).size
    for name in logs:
        assert await logs[name].list(offset) == Page(size, [])
        assert await logs[name].list(offset, limit=(1 << 64) - 1) == Page(size, [])
        assert await logs[name].list(0, since_ms=offset, until_ms=offset) == Page(size, [])


# --- outcome ----------------------------------------------------------------------------------------------------------


async def test_that_an_id_is_nowhere_is_said_by_a_confirmed_master_alone(cluster: DevCluster, logs: Logs) -> None:
    """Another one may have taken over, and acknowledged it."""
    posted = await logs["node-1"].post(b"here", id="here", w=3)
    with pytest.raises(NotFound) as found:
        await logs["node-1"].outcome("nowhere")
    assert found.value.master == "node-1"
    with pytest.raises(NotMaster) as named:
        await logs["node-2"].outcome("nowhere")
    assert named.value.master == "node-1"

    for worker in ("node-2", "node-3"):
        cluster.send_signal(worker, signal.SIGSTOP)
    assert (await logs["node-1"].outcome("here")).offset == posted.offset
    with pytest.raises(Unavailable, match="confirmed"):
        await logs["node-1"].outcome("nowhere")

    await asyncio.to_thread(cluster.kill, "node-1")
    await asyncio.to_thread(cluster.start, "node-1", wait=False)
    await eventually(lambda: _answers(logs["node-1"]), within_s=20, what="node-1 is back")
    with pytest.raises(Unavailable, match=r"opening|asks"):
        await logs["node-1"].outcome("nowhere")

    for worker in ("node-2", "node-3"):
        cluster.send_signal(worker, signal.SIGCONT)
    await eventually(lambda: _is_open(logs["node-1"]), within_s=20, what="its epoch is open")
    with pytest.raises(NotFound):
        await logs["node-1"].outcome("nowhere")


async def _is_open(log: RawLog) -> bool:
    return (await log.status()).state == "open"


async def _answers(log: RawLog) -> bool:
    try:
        return (await log.status()).node != ""
    except Unavailable:
        return False


async def test_a_reader_whose_records_are_dropped_meanwhile_is_told_so_and_no_disk_is_called_damaged(
    cluster: DevCluster, logs: Logs
) -> None:
    """A slow reader at level local; another node becomes the master, and this one drops what it alone had."""
    for node in cluster.nodes:
        edit(node, limits={"read": 65536})
    await reload(cluster, "node-1")
    await logs["node-1"].post(b"everywhere", w=3)
    for worker in ("node-2", "node-3"):
        cluster.send_signal(worker, signal.SIGSTOP)
    async with AsyncClient(cluster.node("node-1").address, token=TOKEN) as client:
        async for _ in client.post_many([bytes(20_000)] * 600, write_concern=1):
            pass
        reading = client.list_batches(0, level="local")
        await anext(reading)  # and no more: the node waits for the reader, with most of it unread
        cluster.send_signal("node-1", signal.SIGSTOP)
        for worker in ("node-2", "node-3"):
            cluster.send_signal(worker, signal.SIGCONT)
        async with AsyncClient([cluster.node(name).address for name in ("node-2", "node-3")], token=TOKEN) as rest:
            await rest.promote(cluster.node("node-2").address, timeout_s=20)
            await rest.post("of the new epoch")
        cluster.send_signal("node-1", signal.SIGCONT)
        await all_level({name: logs[name] for name in ("node-2", "node-1", "node-3")})
        async for _ in reading:  # it goes on behind what it has, where there is nothing now
            pass
    assert (await logs["node-1"].status()).damage == ""
    assert "damaged" not in events(cluster.node("node-1"))
