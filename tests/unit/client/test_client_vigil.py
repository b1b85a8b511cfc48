"""A stream that says nothing: when the client stays with it, and when it goes to another node. Real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from replicad.client import AsyncClient
from replicad.client import posting as posting_module
from replicad.errors import Forbidden, ServiceError
from replicad.wire.v1 import log_pb2
from tests.support.scripted_server import PostCall, ScriptedServer, soon

SILENCE_S = 0.1
STAYS_S = 6 * SILENCE_S  # it would have left by then


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting_module, "SILENCE_S", SILENCE_S)
    monkeypatch.setattr(posting_module, "BLIND_S", 3 * SILENCE_S)


@pytest.fixture
async def servers() -> AsyncIterator[list[ScriptedServer]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(ScriptedServer()) for _ in range(3)]


def says(server: ScriptedServer, role: str, state: str, epoch: int) -> None:
    server.unary = lambda _: log_pb2.StatusResponse(role=role, state=state, epoch=epoch)


def client_of(servers: list[ScriptedServer]) -> AsyncClient:
    return AsyncClient([server.address for server in servers], timeout_s=10)


async def test_a_master_that_hangs_is_left_for_one_of_a_higher_epoch_with_the_same_id(
    servers: list[ScriptedServer],
) -> None:
    says(servers[0], "master", "open", 3)  # it believes so, and answers no post
    says(servers[1], "worker", "following", 4)
    says(servers[2], "master", "open", 4)
    async with client_of(servers) as client:
        posting = asyncio.create_task(client.post(b"x", id="one"))
        first = await (await servers[0].call()).frame()
        call = await servers[2].call()
        frame = await call.frame()
        assert list(frame.messages.ids) == list(first.messages.ids) == ["one"]
        call.accept(frame, first_offset=7)
        assert (await soon(posting)).offset == 7


@pytest.mark.parametrize(
    ("role", "state", "epoch"),
    [("worker", "following", 9), ("master", "opening", 9), ("master", "open", 3), ("master", "open", 2)],
)
async def test_a_silent_master_is_waited_for_as_long_as_no_other_leads_a_higher_epoch(
    servers: list[ScriptedServer], role: str, state: str, epoch: int
) -> None:
    """It may wait itself, for a node that is away."""
    says(servers[0], "master", "open", 3)
    for server in servers[1:]:
        says(server, role, state, epoch)
    async with client_of(servers) as client:
        posting = asyncio.create_task(client.post(b"x"))
        call = await servers[0].call()
        frame = await call.frame()
        await asyncio.sleep(STAYS_S)
        assert servers[1].requests, "they were asked"
        call.accept(frame, first_offset=5)
        assert (await soon(posting)).offset == 5


async def test_a_stream_without_a_post_on_it_asks_nobody(servers: list[ScriptedServer]) -> None:
    says(servers[0], "master", "open", 3)
    async with client_of(servers) as client:
        posting = asyncio.create_task(client.post(b"x"))
        call = await servers[0].call()
        call.accept(await call.frame())
        await soon(posting)
        await asyncio.sleep(STAYS_S)
    assert [server.requests for server in servers] == [[], [], []]


async def test_who_may_not_ask_leaves_a_silent_stream_after_a_while(servers: list[ScriptedServer]) -> None:
    def refuse(_: object) -> ServiceError:
        return Forbidden("writer lacks the role reader")

    for server in servers:
        server.unary = refuse
    async with client_of(servers) as client:
        posting = asyncio.create_task(client.post(b"x", id="one"))
        await (await servers[0].call()).frame()
        call = await servers[1].call()
        frame = await call.frame()
        assert list(frame.messages.ids) == ["one"]
        call.accept(frame, first_offset=3)
        assert (await soon(posting)).offset == 3


async def test_a_master_that_was_replaced_is_left_though_it_answers_what_others_post(
    servers: list[ScriptedServer],
) -> None:
    """It takes what is content with one node."""
    says(servers[0], "master", "open", 3)
    says(servers[1], "worker", "following", 4)
    says(servers[2], "master", "open", 4)
    async with client_of(servers) as client:

        async def chatter() -> None:
            while True:
                await client.post(b"here alone", write_concern=1)
                await asyncio.sleep(SILENCE_S / 10)

        chatting = asyncio.create_task(chatter())
        call = await servers[0].call()
        answering = asyncio.create_task(_answer(call, "1"))
        posting = asyncio.create_task(client.post(b"x", id="one", write_concern=2))
        call = await servers[2].call()
        other = asyncio.create_task(_answer(call, "2"))
        assert (await soon(posting)).id == "one"
        for task in (chatting, answering, other):
            task.cancel()


async def test_a_node_that_answers_others_is_asked_about_ever_more_seldom(servers: list[ScriptedServer]) -> None:
    says(servers[0], "master", "open", 3)
    looks = []
    for beside in (True, False):
        servers[1].requests.clear()
        async with client_of(servers) as client:
            posting = asyncio.create_task(client.post(b"x", write_concern=3))
            call = await servers[0].call()
            frame = await call.frame()
            for _ in range(30):
                if beside:
                    other = asyncio.create_task(client.post(b"y", write_concern=1))
                    call.accept(await call.frame())
                    await soon(other)
                await asyncio.sleep(SILENCE_S / 2)
            looks.append(len(servers[1].requests))
            if beside:  # and now it hangs: it is not left to the end of a long pause
                await asyncio.sleep(5 * SILENCE_S)
                assert len(servers[1].requests) >= looks[0] + 2
            call.accept(frame)
            await soon(posting)
    assert 2 <= looks[0] <= 6, "after 1, 3, 7 and 15 times the silence"
    assert looks[1] > looks[0]


async def _answer(call: PostCall, concern: str) -> None:
    while True:
        frame = await call.frames.get()
        if frame.write_concern == concern:
            call.accept(frame)


async def test_a_large_message_on_a_slow_line_is_not_begun_anew_at_once(servers: list[ScriptedServer]) -> None:
    """Its writing ends when all of it is on its way; it is a node that answers nothing after that."""
    async with client_of(servers) as client:
        post = asyncio.create_task(client.post(b"x", id="one"))
        call = await servers[0].call()
        frame = await call.frame()
        poster = client._poster
        assert poster is not None
        [stream] = poster._streams
        [(_, sent)] = stream.in_flight.values()
        sent.written_at = 0.0
        stream.heard_at = 0.0
        now = asyncio.get_running_loop().time()
        waits = {}
        for writing in (True, False):
            sent.written_at = 0.0 if writing else now - 10.0
            sent.sent_at = now - 10.0
            for tries in (1, 3):
                sent.tries = tries
                waits[writing, tries] = poster._seems_dead(stream)
        assert waits == {(True, 1): False, (True, 3): False, (False, 1): True, (False, 3): True}
        call.accept(frame)
        await soon(post)
