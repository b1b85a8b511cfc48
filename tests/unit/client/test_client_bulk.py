"""AsyncClient.post_many against a real gRPC server that answers what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from replicad.client import AsyncClient, NewMessage, Posted
from replicad.client.bulk import FRAMES_UNDER_WAY
from replicad.client.frames import FRAME_BYTES, FRAME_MESSAGES
from replicad.errors import BadRequest, IdConflict, OutcomeUnknown, StorageFull, TooLarge, Unavailable
from replicad.wire.codec import PostFrame, PostFrameResult, PostRun
from tests.support.scripted_server import PostCall, ScriptedServer, soon


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as made:
        yield made


@pytest.fixture
async def client(server: ScriptedServer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.address, token="") as made:
        yield made


class Log:
    """Accepts every frame at the next offsets."""

    def __init__(self) -> None:
        self.frames: list[PostFrame] = []
        self.size = 0

    def accept(self, call: PostCall, frame: PostFrame) -> None:
        self.frames.append(frame)
        call.accept(frame, first_offset=self.size)
        self.size += len(frame.messages)

    @property
    def payloads(self) -> list[bytes]:
        return [payload for frame in self.frames for payload in frame.messages.payloads]


@pytest.fixture
def log(server: ScriptedServer) -> Log:
    made = Log()
    server.on_frame = made.accept
    return made


async def slowly(*messages: bytes) -> AsyncIterator[bytes]:
    for message in messages:
        await asyncio.sleep(0)
        yield message


async def test_all_messages_arrive_in_order_and_so_do_the_results(log: Log, client: AsyncClient) -> None:
    messages = [b"%d" % index for index in range(20_000)]
    results = [posted async for batch in client.post_many(messages) for posted in batch]
    assert log.payloads == messages
    assert [each.offset for each in results] == list(range(20_000))
    assert [each.id for each in results] == [each for frame in log.frames for each in frame.messages.ids]
    assert max(len(frame.messages) for frame in log.frames) == FRAME_MESSAGES


async def test_an_async_iterable_is_posted_all_the_same(log: Log, client: AsyncClient) -> None:
    messages = [b"%d" % index for index in range(1000)]
    results = [posted async for batch in client.post_many(slowly(*messages)) for posted in batch]
    assert log.payloads == messages
    assert [each.offset for each in results] == list(range(1000))


async def test_a_fast_async_iterable_fills_whole_frames(log: Log, client: AsyncClient) -> None:
    async def fast() -> AsyncIterator[bytes]:
        for index in range(10_000):
            yield b"%d" % index

    results = [posted async for batch in client.post_many(fast()) for posted in batch]
    assert [each.offset for each in results] == list(range(10_000))
    assert [len(frame.messages) for frame in log.frames][:2] == [FRAME_MESSAGES, FRAME_MESSAGES]


async def test_a_slow_input_is_answered_as_it_comes(log: Log, client: AsyncClient) -> None:
    """The next message is read only when the one before it is in the log."""
    confirmed = asyncio.Event()

    async def one_by_one() -> AsyncIterator[bytes]:
        yield b"first"
        await soon(confirmed.wait())
        yield b"second"

    offsets = []
    async for batch in client.post_many(one_by_one()):
        offsets.append(batch[0].offset)
        confirmed.set()
    assert offsets == [0, 1]


async def test_ids_and_headers_are_the_callers(log: Log, client: AsyncClient) -> None:
    batches = client.post_many([NewMessage("a", id="mine", headers={"k": "v"}), "b"], write_concern="all")
    [[first, second]] = [batch async for batch in batches]
    assert first.id == "mine"
    [frame] = log.frames
    assert (frame.write_concern, list(frame.messages.headers)) == ("all", [b"\x01k\x00\x01v", b""])
    assert second.id == frame.messages.ids[1]


async def test_results_come_in_input_order_though_answers_do_not(server: ScriptedServer, client: AsyncClient) -> None:
    large = [b"%d" % index * FRAME_BYTES for index in range(3)]
    batches = asyncio.ensure_future(_all(client.post_many(large)))
    call = await server.call()
    frames = [await call.frame() for _ in range(3)]
    for offset in (2, 0, 1):
        call.accept(frames[offset], first_offset=offset)
    assert [batch[0].offset for batch in await soon(batches)] == [0, 1, 2]


async def _all(source: AsyncIterator[list[Posted]]) -> list[list[Posted]]:
    return [each async for each in source]


async def test_the_input_is_read_only_some_frames_ahead(server: ScriptedServer, client: AsyncClient) -> None:
    read = 0

    def messages() -> Iterator[bytes]:
        nonlocal read
        for read in range(1, 1001):  # noqa: B007 - counted for the test
            yield b"x" * FRAME_BYTES

    batches = client.post_many(messages())
    first = asyncio.ensure_future(anext(batches))
    call = await server.call()
    frames = [await call.frame() for _ in range(FRAMES_UNDER_WAY)]
    probe = asyncio.ensure_future(client.post("probe", write_concern=1))
    assert (await call.frame()).messages.payloads == [b"probe"]  # and no further frame of the bulk before it
    ahead = read
    call.accept(frames[0])
    await soon(first)
    assert read == ahead
    probe.cancel()
    await batches.aclose()


async def test_an_error_names_how_many_were_confirmed(server: ScriptedServer, client: AsyncClient) -> None:
    batches = client.post_many([b"a" * FRAME_BYTES, b"b" * FRAME_BYTES, b"c" * FRAME_BYTES])
    first = asyncio.ensure_future(anext(batches))
    call = await server.call()
    frames = [await call.frame() for _ in range(3)]
    call.accept(frames[0])
    call.answer(PostFrameResult(frames[1].sequence, errors=((0, IdConflict("taken", offset=3)),)))
    assert len(await soon(first)) == 1
    with pytest.raises(IdConflict, match=r"taken \(the first 1 messages are confirmed") as caught:
        await soon(anext(batches))
    assert caught.value.offset == 3


async def test_a_frame_that_was_lost_is_sent_again_whole(server: ScriptedServer, client: AsyncClient) -> None:
    results = asyncio.ensure_future(_all(client.post_many(["a", "b", "c"])))
    call = await server.call()
    lost = await call.frame()
    call.end(Unavailable("going down"))
    call = await server.call()
    again = await call.frame()
    assert again.messages == lost.messages
    call.answer(PostFrameResult(again.sequence, (PostRun(0, 2, 0, True), PostRun(2, 1, 2, False)), nodes=2))
    [[*posted]] = await soon(results)
    assert [(each.offset, each.duplicate) for each in posted] == [(0, True), (1, True), (2, False)]


async def test_a_frame_of_which_a_part_was_not_taken_is_sent_again_whole(
    server: ScriptedServer, client: AsyncClient
) -> None:
    results = asyncio.ensure_future(_all(client.post_many(["a", "b"])))
    call = await server.call()
    frame = await call.frame()
    call.answer(PostFrameResult(frame.sequence, (PostRun(0, 1, 0, False),), ((1, Unavailable("stopping")),), nodes=2))
    again = await call.frame()
    assert again.messages == frame.messages
    call.answer(PostFrameResult(again.sequence, (PostRun(0, 1, 0, True), PostRun(1, 1, 1, False)), nodes=2))
    [[*posted]] = await soon(results)
    assert [each.offset for each in posted] == [0, 1]


async def test_a_server_that_wants_smaller_frames_gets_them(server: ScriptedServer, client: AsyncClient) -> None:
    log = Log()

    def small_only(call: PostCall, frame: PostFrame) -> None:
        if len(frame.messages) > 10:
            call.refuse(frame, TooLarge("at most 10 messages are taken"))
        else:
            log.accept(call, frame)

    server.on_frame = small_only
    messages = [b"%d" % index for index in range(100)]
    results = await soon(_all(client.post_many(messages)))
    posted = [each for batch in results for each in batch]
    assert sorted(log.payloads) == sorted(messages)
    assert sorted(each.offset for each in posted) == list(range(100))
    by_id = {i: p for frame in log.frames for i, p in zip(frame.messages.ids, frame.messages.payloads, strict=True)}
    assert [by_id[each.id] for each in posted] == messages


async def test_an_error_of_the_input_comes_out_after_what_was_posted(log: Log, client: AsyncClient) -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield b"a"
        raise OSError("disk gone")

    batches = client.post_many(breaks())
    assert [each.offset for each in await soon(anext(batches))] == [0]
    with pytest.raises(OSError, match="disk gone"):
        await soon(anext(batches))
    assert log.payloads == [b"a"]


async def test_no_messages_are_no_frames(log: Log, client: AsyncClient) -> None:
    assert await _all(client.post_many([])) == []
    assert await _all(client.post_many(slowly())) == []
    assert log.frames == []


async def test_bulk_and_single_posts_share_the_stream(server: ScriptedServer, client: AsyncClient) -> None:
    bulk = asyncio.ensure_future(_all(client.post_many([b"a"])))
    single = asyncio.ensure_future(client.post(b"b"))
    call = await server.call()
    for frame in (await call.frame(), await call.frame()):
        call.accept(frame, first_offset=5 if frame.messages.payloads == [b"b"] else 4)
    assert (await soon(single)).offset == 5
    [[posted]] = await soon(bulk)
    assert posted.offset == 4


async def test_a_full_disk_ends_a_bulk_post_at_once(server: ScriptedServer, client: AsyncClient) -> None:
    server.on_frame = lambda call, frame: call.refuse(frame, StorageFull("disk full"))
    with pytest.raises(StorageFull, match=r"the first 0 messages are confirmed"):
        await soon(_all(client.post_many([b"a"] * 10)))


async def test_an_error_of_a_plain_iterable_comes_out_after_what_was_posted_and_counts_it(
    log: Log, client: AsyncClient
) -> None:
    def breaks(last: bytes | int | None) -> Iterator[bytes]:
        yield from [bytes(100)] * FRAME_MESSAGES
        if last is None:
            raise OSError("disk gone")
        yield last  # type: ignore[misc]

    for last, error, text in (
        (7, BadRequest, "int; bytes or str is wanted (the first {} messages"),
        (None, OSError, "disk gone"),
    ):
        confirmed, before = 0, log.size
        told: Exception | None = None
        try:
            async for posted in client.post_many(breaks(last)):
                confirmed += len(posted)
        except (BadRequest, OSError) as exc:
            told = exc
        assert 0 < confirmed == log.size - before
        assert isinstance(told, error)
        assert text.format(confirmed) in str(told)


async def test_closing_leaves_the_outcome_of_what_is_under_way_unknown(server: ScriptedServer) -> None:
    client = AsyncClient(server.address, token="")
    posting = client.post_many([bytes(FRAME_BYTES)] * 20)
    first = asyncio.ensure_future(anext(posting))
    call = await server.call()
    call.accept(await call.frame())
    await soon(first)
    await soon(client.close())
    with pytest.raises(OutcomeUnknown, match="the first 1 messages are confirmed"):
        await anext(posting)
