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
from tests.support.scripted_server import ScriptedServer, soon

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
