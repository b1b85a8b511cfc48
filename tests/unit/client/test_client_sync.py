"""The blocking client, called from threads as its users do, against a real gRPC server in the test's loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from itertools import islice

import pytest

from replicad.client import Client, NewMessage
from replicad.errors import Applied, IdConflict, OutcomeUnknown, Unavailable
from replicad.wire.codec import PostFrame, PostFrameResult
from replicad.wire.v1 import log_pb2
from tests.support.builders import LogBuilder
from tests.support.scripted_server import PostCall, ScriptedServer, forever, listing, soon

THREADS = 8


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as made:
        yield made


@pytest.fixture
async def client(server: ScriptedServer) -> AsyncIterator[Client]:
    made = Client(server.address, token="")
    yield made
    await asyncio.to_thread(made.close)


class Log:
    """Accepts every frame at the next offsets."""

    def __init__(self, server: ScriptedServer) -> None:
        self.frames: list[PostFrame] = []
        self.size = 0
        server.on_frame = self.accept

    def accept(self, call: PostCall, frame: PostFrame) -> None:
        self.frames.append(frame)
        call.accept(frame, first_offset=self.size)
        self.size += len(frame.messages)


async def test_a_post_blocks_until_it_is_answered(server: ScriptedServer, client: Client) -> None:
    Log(server)
    first = await asyncio.to_thread(client.post, "x", id="a", headers={"k": "v"}, write_concern=2, timeout_s=5)
    second = await asyncio.to_thread(client.post, b"y")
    assert (first.id, first.offset, second.offset) == ("a", 0, 1)


async def test_posts_of_many_threads_each_get_their_own_answer(server: ScriptedServer, client: Client) -> None:
    Log(server)
    results: dict[str, int] = {}

    def work(thread: int) -> None:
        for index in range(20):
            message_id = f"{thread}-{index}"
            results[message_id] = client.post("x", id=message_id).offset

    await asyncio.gather(*(asyncio.to_thread(work, thread) for thread in range(THREADS)))
    assert len(results) == THREADS * 20
    assert sorted(results.values()) == list(range(THREADS * 20))


async def test_an_error_is_raised_in_the_thread_that_called(server: ScriptedServer, client: Client) -> None:
    server.on_frame = lambda call, frame: call.answer(
        PostFrameResult(frame.sequence, errors=((0, IdConflict("taken", offset=3)),))
    )
    with pytest.raises(IdConflict, match="taken"):
        await asyncio.to_thread(client.post, "x")


async def test_bulk_results_come_in_order(server: ScriptedServer, client: Client) -> None:
    log = Log(server)
    messages = [b"%d" % index for index in range(10_000)]
    batches = await asyncio.to_thread(lambda: list(client.post_many(messages)))
    assert [posted.offset for batch in batches for posted in batch] == list(range(10_000))
    assert [payload for frame in log.frames for payload in frame.messages.payloads] == messages


async def test_a_bulk_error_names_how_many_were_confirmed(server: ScriptedServer, client: Client) -> None:
    def answer(call: PostCall, frame: PostFrame) -> None:
        if "bad" in frame.messages.ids:
            call.refuse(frame, IdConflict("taken"))
        else:
            call.accept(frame)

    server.on_frame = answer
    messages = [NewMessage(bytes(1 << 19), id=name) for name in ("a", "b", "bad", "c")]
    confirmed = []

    def work() -> None:
        for batch in client.post_many(messages):
            confirmed.extend(batch)

    with pytest.raises(IdConflict, match=r"the first 2 messages are confirmed"):
        await asyncio.to_thread(work)
    assert [each.id for each in confirmed] == ["a", "b"]


async def test_a_list_and_the_head_of_a_tail_are_plain_iterators(server: ScriptedServer, client: Client) -> None:
    builder = LogBuilder()
    bodies = [builder.add(3).batch.body, builder.add(2).batch.body]
    left = asyncio.Event()

    async def follow(request: object) -> AsyncIterator[bytes]:
        try:
            yield listing(*bodies)
            await forever()
        finally:
            left.set()

    server.scripts += [[listing(bodies[0]), listing(bodies[1])], [listing(*bodies)], follow]
    assert await asyncio.to_thread(lambda: [each.offset for each in client.list()]) == [0, 1, 2, 3, 4]
    assert await asyncio.to_thread(lambda: [len(each) for each in client.list_batches()]) == [3, 2]
    assert await asyncio.to_thread(lambda: [each.offset for each in islice(client.tail(), 4)]) == [0, 1, 2, 3]
    await soon(left.wait())


async def test_status_and_outcome_are_asked(server: ScriptedServer, client: Client) -> None:
    def unary(request: object) -> object:
        if isinstance(request, log_pb2.StatusRequest):
            return log_pb2.StatusResponse(node="n1", master_address=server.address)
        return log_pb2.OutcomeResponse(offset=4)

    server.unary = unary
    assert (await asyncio.to_thread(client.status)).node == "n1"
    assert (await asyncio.to_thread(client.outcome, "x")).offset == 4


async def test_a_closed_client_ends_its_thread_and_takes_no_more(server: ScriptedServer) -> None:
    client = Client(server.address, token="")
    posting = asyncio.create_task(asyncio.to_thread(client.post, "x"))
    await (await server.call()).frame()
    await asyncio.to_thread(client.close)
    with pytest.raises(OutcomeUnknown):
        await posting
    with pytest.raises(Unavailable, match="closed") as caught:
        client.post("y")
    assert caught.value.applied is Applied.NO
    client.close()
    assert "replicad-client" not in {thread.name for thread in threading.enumerate()}


async def test_it_works_as_a_context_manager(server: ScriptedServer) -> None:
    Log(server)

    def work() -> int:
        with Client(server.address, token="") as client:
            return client.post("x").offset

    assert await asyncio.to_thread(work) == 0
