"""AsyncClient.list and tail against a real gRPC server that breaks off, lags, skips and repeats as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random
from typing import Any, cast

import pytest

from replicad.client import AsyncClient, Record
from replicad.client.connection import Connections
from replicad.client.reading import Reader
from replicad.errors import BadRequest, NotMaster, OffsetExpired, PeerError, RateLimited, ServiceError, Unavailable
from replicad.wire.v1 import log_pb2
from tests.support.builders import LogBuilder, messages
from tests.support.ending_call import EndingCall, broken
from tests.support.scripted_server import ScriptedServer, forever, listing, soon


@pytest.fixture
async def a() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        yield server


@pytest.fixture
async def b() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        yield server


@pytest.fixture
async def client(a: ScriptedServer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(a.address, token="") as made:
        yield made


def log(*counts: int) -> list[bytes]:
    """Bodies of batches with so many records each, from offset 0."""
    builder = LogBuilder()
    return [builder.add(count).batch.body for count in counts]


async def offsets(records: AsyncIterator[Record]) -> list[int]:
    async with asyncio.timeout(10):
        return [record.offset async for record in records]


async def first_offsets(records: AsyncIterator[Record], count: int) -> list[int]:
    """Of a tail, which never ends."""
    async with asyncio.timeout(10):
        return [(await anext(records)).offset for _ in range(count)]


async def test_a_list_gives_every_record_of_every_response(a: ScriptedServer, client: AsyncClient) -> None:
    first, second, third = log(3, 1, 2)
    a.scripts.append([listing(first, second), listing(third)])
    records = [record async for record in client.list()]
    assert [record.offset for record in records] == list(range(6))
    assert records[4].id == "m-000004"
    assert records[4].payload == b"payload of m-000004"


async def test_a_list_asks_for_what_its_caller_wants(a: ScriptedServer, client: AsyncClient) -> None:
    a.scripts += [[], []]
    await offsets(client.list(7, limit=3, level="local", min_offset=9, since_ms=1, until_ms=2))
    await offsets(client.list())
    assert a.requests == [
        log_pb2.ListRequest(from_offset=7, limit=3, level="local", min_offset=9, since_ms=1, until_ms=2),
        log_pb2.ListRequest(level="committed"),
    ]


async def test_batches_come_as_they_are_stored(a: ScriptedServer, client: AsyncClient) -> None:
    first, second = log(3, 2)
    a.scripts.append([listing(first, second)])
    assert [len(batch) async for batch in client.list_batches()] == [3, 2]


async def test_a_limit_holds_even_when_the_server_sends_more(a: ScriptedServer, client: AsyncClient) -> None:
    first, second = log(3, 3)
    a.scripts.append([listing(first, second)])
    assert await offsets(client.list(limit=4)) == [0, 1, 2, 3]
    assert await offsets(client.list(limit=0)) == []
    assert len(a.requests) == 1


async def test_a_list_that_breaks_off_goes_on_where_it_was_with_another_node(
    a: ScriptedServer, b: ScriptedServer
) -> None:
    first, second, third = log(3, 1, 2)
    a.scripts.append([listing(first, commit_size=6), Unavailable("going down")])
    b.scripts.append([listing(second, third, commit_size=6)])
    async with AsyncClient([a.address, b.address], token="") as client:
        assert await offsets(client.list()) == list(range(6))
    assert b.requests == [log_pb2.ListRequest(from_offset=3, level="committed", min_offset=5)]


async def test_a_list_with_a_limit_that_breaks_off_asks_for_what_is_left(a: ScriptedServer, b: ScriptedServer) -> None:
    first, second = log(3, 2)
    a.scripts.append([listing(first, commit_size=100), Unavailable("going down")])
    b.scripts.append([listing(second)])
    async with AsyncClient([a.address, b.address], token="") as client:
        assert await offsets(client.list(limit=5)) == list(range(5))
    assert b.requests == [log_pb2.ListRequest(from_offset=3, limit=2, level="committed", min_offset=4)]


async def test_a_node_that_dies_in_the_middle_is_replaced(a: ScriptedServer, b: ScriptedServer) -> None:
    first, second = log(3, 2)

    async def dies(request: object) -> AsyncIterator[bytes | ServiceError]:
        yield listing(first)
        await forever()

    a.scripts.append(dies)
    b.scripts.append([listing(second)])
    async with AsyncClient([a.address, b.address], token="") as client:
        records = client.list()
        assert await first_offsets(records, 3) == [0, 1, 2]
        await a.stop()
        assert await offsets(records) == [3, 4]


@pytest.mark.parametrize("kept", [[0, 2], [1], [0, 0], [1, 0]])
async def test_a_node_that_skips_or_repeats_a_record_is_an_error(
    a: ScriptedServer, client: AsyncClient, kept: list[int]
) -> None:
    bodies = log(2, 2, 2)
    for script in ([listing(*(bodies[index] for index in kept))], [listing(bodies[index]) for index in kept]):
        a.scripts.append(script)
        with pytest.raises(PeerError, match="the next record is") as caught:
            await offsets(client.list())
        assert caught.value.reason == "gap"
        a.scripts.append(script)
        with pytest.raises(PeerError, match="the next record is"):
            await offsets(client.tail())


async def test_a_list_by_time_may_leave_out_records_but_not_repeat_them(a: ScriptedServer, client: AsyncClient) -> None:
    bodies = log(2, 2, 2)
    a.scripts.append([listing(bodies[0], bodies[2])])
    assert await offsets(client.list(since_ms=0)) == [0, 1, 4, 5]
    a.scripts.append([listing(bodies[2], bodies[0])])
    with pytest.raises(PeerError):
        await offsets(client.list(until_ms=1 << 60))


async def test_a_linearizable_list_follows_to_the_master(a: ScriptedServer, b: ScriptedServer) -> None:
    [body] = log(2)
    a.scripts.append([NotMaster("ask b", master="b", master_address=b.address)])
    b.scripts.append([listing(body)])
    async with AsyncClient(a.address, token="") as client:
        assert await offsets(client.list(level="linearizable")) == [0, 1]
    assert b.requests[0].level == "linearizable"


async def test_reads_stay_with_the_address_that_works(a: ScriptedServer, b: ScriptedServer) -> None:
    [body] = log(2)
    await a.stop()
    b.scripts += [[listing(body)], [listing(body)]]
    async with AsyncClient([a.address, b.address], token="") as client:
        await offsets(client.list())
        await a.start()
        await offsets(client.list())
    assert a.requests == []


@pytest.mark.parametrize("error", [OffsetExpired("gone", offset=9), BadRequest("no")])
async def test_what_waiting_does_not_mend_is_raised_at_once(
    a: ScriptedServer, client: AsyncClient, error: ServiceError
) -> None:
    a.scripts += [[error], [error]]
    with pytest.raises(type(error), match=error.message) as caught:
        await offsets(client.list())
    assert caught.value.offset == error.offset
    with pytest.raises(type(error), match=error.message):
        await offsets(client.tail())


async def test_a_list_gives_up_when_its_time_is_over(a: ScriptedServer) -> None:
    await a.stop()
    async with AsyncClient(a.address, token="", timeout_s=0.2) as client:
        with pytest.raises(Unavailable, match=a.address):
            await offsets(client.list())


async def test_a_node_that_stops_in_the_middle_is_not_waited_for_for_ever(a: ScriptedServer, b: ScriptedServer) -> None:
    first, second = log(2, 2)

    async def hangs(request: object) -> AsyncIterator[bytes | ServiceError]:
        yield listing(first)
        await forever()

    a.scripts.append(hangs)
    b.scripts.append([listing(second)])
    async with AsyncClient([a.address, b.address], token="", timeout_s=0.2) as client:
        assert await offsets(client.list()) == [0, 1, 2, 3]


async def test_a_rate_limited_reader_comes_back_when_it_is_asked_to(a: ScriptedServer, client: AsyncClient) -> None:
    [body] = log(2)
    a.scripts += [[RateLimited("too many", retry_after_s=0.1)], [listing(body)]]
    loop = asyncio.get_running_loop()
    begun = loop.time()
    assert await offsets(client.list()) == [0, 1]
    assert loop.time() - begun >= 0.1


async def test_a_large_record_comes_whole(a: ScriptedServer, client: AsyncClient) -> None:
    payload = bytes(32 << 20)
    a.scripts.append([listing(LogBuilder().add_messages(messages("large", payloads=[payload])).batch.body)])
    [record] = [record async for record in client.list()]
    assert record.payload == payload


async def test_a_tail_follows_what_comes_and_takes_signs_of_life_for_what_they_are(
    a: ScriptedServer, client: AsyncClient
) -> None:
    first, second = log(2, 1)
    more = asyncio.Event()

    async def follow(request: Any) -> AsyncIterator[bytes | ServiceError]:
        assert (request.from_offset, request.level) == (0, "local")
        yield listing(first, commit_size=1)
        yield listing(commit_size=1)
        await more.wait()
        yield listing(second, commit_size=3)
        await forever()

    a.scripts.append(follow)
    tail = client.tail(level="local")
    records = [await soon(anext(tail)) for _ in range(2)]
    assert [(record.offset, record.committed) for record in records] == [(0, True), (1, False)]
    more.set()
    assert (await soon(anext(tail))).offset == 2
    await tail.aclose()


async def test_a_tail_goes_on_where_it_was_through_every_kind_of_break(a: ScriptedServer, b: ScriptedServer) -> None:
    bodies = log(2, 2, 2, 2)

    async def dies(request: object) -> AsyncIterator[bytes | ServiceError]:
        yield listing(bodies[2])
        await forever()

    a.scripts += [[listing(bodies[0])], dies]  # the first ends well, which a tail never should
    b.scripts += [[listing(bodies[1]), Unavailable("going down")], [listing(bodies[3])], [RateLimited("x")] * 99]
    async with AsyncClient([a.address, b.address], token="") as client:
        tail = client.tail()
        assert await first_offsets(tail, 6) == list(range(6))
        await a.stop()
        assert await first_offsets(tail, 2) == [6, 7]
        await tail.aclose()
    assert [request.from_offset for request in a.requests] == [0, 4]
    assert [request.from_offset for request in b.requests][:2] == [2, 6]


async def test_a_tail_that_worked_once_never_gives_up(a: ScriptedServer) -> None:
    first, second = log(2, 1)
    a.scripts.append([listing(first)])
    async with AsyncClient(a.address, token="", timeout_s=0.05) as client:
        tail = client.tail()
        assert await first_offsets(tail, 2) == [0, 1]
        following = asyncio.ensure_future(first_offsets(tail, 1))
        await a.stop()
        done, _ = await asyncio.wait([following], timeout=0.3)  # several times the client's timeout
        assert not done
        a.scripts[:] = [[listing(second)]]
        await a.start()
        assert await following == [2]
        await tail.aclose()


async def test_a_tail_that_reaches_nobody_at_first_says_so(a: ScriptedServer) -> None:
    await a.stop()
    async with AsyncClient(a.address, token="", timeout_s=0.2) as client:
        with pytest.raises(Unavailable, match=a.address):
            await first_offsets(client.tail(), 1)


async def test_leaving_a_tail_ends_the_call_on_the_server(a: ScriptedServer, client: AsyncClient) -> None:
    [body] = log(2)
    left = asyncio.Event()

    async def follow(request: object) -> AsyncIterator[bytes | ServiceError]:
        try:
            yield listing(body)
            await forever()
        finally:
            left.set()

    a.scripts.append(follow)
    tail = client.tail()
    await anext(tail)
    await tail.aclose()
    await soon(left.wait())


async def test_arguments_that_can_never_work_are_refused_at_once(a: ScriptedServer, client: AsyncClient) -> None:
    wrong: list[Callable[[], object]] = [
        lambda: client.list(-1),
        lambda: client.list(1 << 63),
        lambda: client.list(limit=-1),
        lambda: client.list(level="strict"),
        lambda: client.tail(level="linearizable"),
        lambda: client.tail(-1),
    ]
    for call in wrong:
        with pytest.raises(BadRequest):
            call()
    assert a.requests == []


async def test_a_list_by_time_that_breaks_off_is_not_ended_by_a_node_that_is_behind(
    a: ScriptedServer, b: ScriptedServer
) -> None:
    first, _ = log(2, 2)
    a.scripts.append([listing(first, commit_size=4), Unavailable("gone")])
    b.scripts.append([Unavailable("it is behind")])
    a.scripts.append([listing(commit_size=4)])
    async with AsyncClient([a.address, b.address], token="") as client:
        assert await offsets(client.list(since_ms=0, limit=3)) == [0, 1]
    assert [(each.HasField("min_offset"), each.min_offset) for each in b.requests] == [(True, 3)]


async def test_closing_ends_reads_with_an_error_of_ours_and_none_begins_after_it(a: ScriptedServer) -> None:
    [body] = log(1)

    async def waits(_: object) -> AsyncIterator[bytes | ServiceError]:
        yield listing(body)
        await forever()

    a.scripts += [waits, waits]
    client = AsyncClient(a.address, token="")
    reads = [client.tail(), client.list()]
    for read in reads:
        await soon(anext(read))
    waiting = [asyncio.ensure_future(anext(read)) for read in reads]
    await asyncio.sleep(0)
    await client.close()
    later: list[Awaitable[object]] = [client.status(), anext(client.list()), client.outcome("x")]
    for each in [*waiting, *later]:
        with pytest.raises(Unavailable, match="the client was closed"):
            await soon(each)


async def test_a_node_that_hangs_leaves_time_for_the_others(a: ScriptedServer, b: ScriptedServer) -> None:
    [body] = log(2)

    async def hangs(_: object) -> AsyncIterator[bytes | ServiceError]:
        await forever()
        yield b""

    a.scripts += [hangs] * 4
    b.scripts += [[listing(body)]] * 4
    async with AsyncClient([a.address, b.address], token="", timeout_s=3.0) as client:
        async with asyncio.timeout(3.0):
            reads = await asyncio.gather(*(offsets(client.list()) for _ in range(4)))
    assert reads == [[0, 1]] * 4


def test_on_a_slow_line_a_response_is_given_longer_with_each_try() -> None:
    reader = Reader(("a", "b"), Connections(""), timeout_s=10.0, rng=Random())

    def waits(**known: bool) -> list[float]:
        return [reader._wait_s(tries=tries, left_s=9.0, **known) for tries in (0, 1, 3, 99)]

    assert waits(endless=True, heard=True) == [10.0, 20.0, 80.0, 640.0]
    assert waits(endless=False, heard=False) == [5.0, 9.0, 9.0, 9.0]
    assert waits(endless=False, heard=True) == [10.0] * 4


async def _hangs(_: object) -> AsyncIterator[bytes | ServiceError]:
    await forever()
    yield b""


async def test_a_tail_whose_first_node_hangs_goes_to_another(a: ScriptedServer, b: ScriptedServer) -> None:
    [body] = log(1)
    a.scripts.append(_hangs)
    b.scripts.append([listing(), listing(body)])
    async with AsyncClient([a.address, b.address], token="", timeout_s=3.0) as client:
        assert (await soon(anext(client.tail()))).offset == 0


async def test_errors_that_come_at_once_do_not_make_a_silent_node_be_waited_for_longer(
    a: ScriptedServer, b: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replicad.client.reading.TAIL_SILENCE_S", 0.3)
    first, second = log(1, 1)
    refused = [Unavailable("restarting")]
    a.scripts += [[listing(first), *refused], refused, refused, refused, _hangs]
    b.scripts += [refused] * 4 + [[listing(), listing(second)]]
    async with AsyncClient([a.address, b.address], token="") as client:
        tail = client.tail()
        await soon(anext(tail))
        async with asyncio.timeout(4.0):  # of which the tries take up to 2.5; doubled seven times it were 20
            assert (await anext(tail)).offset == 1


async def test_a_node_that_only_greets_a_tail_is_not_asked_without_a_pause(a: ScriptedServer) -> None:
    a.scripts += [[listing(), Unavailable("offset 0 is damaged")]] * 5000
    async with AsyncClient(a.address, token="") as client:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(client.tail()), 1.0)
    assert len(a.requests) < 50


async def test_who_is_cancelled_while_the_call_that_it_reads_ends_is_cancelled() -> None:
    """Else a closed client's reader goes on, and tries the next node."""
    call = EndingCall(broken)
    task = asyncio.create_task(Connections("").read(cast("Any", call), "127.0.0.1:1"))
    await soon(call.waited_for.wait())
    task.cancel()
    await soon(asyncio.wait([task]))
    assert task.cancelled()
