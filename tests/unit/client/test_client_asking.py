"""AsyncClient.status and outcome against a real gRPC server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from replicad.client import AsyncClient, NodeKey, NodeStatus, Outcome
from replicad.errors import BadRequest, NotFound, NotMaster, ServiceError, Unavailable
from replicad.wire.v1 import log_pb2
from tests.support.scripted_server import ScriptedServer

HERE = log_pb2.OutcomeResponse(offset=7, epoch=2, time_ms=99, committed=True, nodes=3)


@pytest.fixture
async def a() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        yield server


@pytest.fixture
async def b() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        yield server


def answers(server: ScriptedServer, *, master: str, outcome: Any) -> None:
    """The server knows this address as the master's, and answers so when asked for an id."""

    def unary(request: Any) -> Any:
        if isinstance(request, log_pb2.StatusRequest):
            return log_pb2.StatusResponse(master_address=master)
        return outcome

    server.unary = unary


def asked(server: ScriptedServer) -> list[str]:
    return [each.id for each in server.requests if isinstance(each, log_pb2.OutcomeRequest)]


async def test_status_is_what_the_node_says(a: ScriptedServer) -> None:
    a.unary = lambda request: log_pb2.StatusResponse(
        cluster="c",
        node="n1",
        version="1.2",
        role="master",
        state="open",
        epoch=3,
        size=10,
        commit_size=9,
        root=b"r" * 32,
        master="n1",
        master_address="127.0.0.1:1",
        uptime_ms=5,
        rss_bytes=6,
        nodes=[
            log_pb2.NodeStatus(
                name="n1",
                address="h:1",
                role="master",
                health="self",
                size=10,
                lag=0,
                detail="d",
                keys=[log_pb2.NodeKey(key_id="aa"), log_pb2.NodeKey(key_id="bb", until=0)],
            ),
            log_pb2.NodeStatus(name="n2", address="h:2", role="worker", health="HEALTHY", no_vote=True),
        ],
        commit_quorum=2,
        detail="fine",
        key_id="aa",
    )
    async with AsyncClient(a.address, token="") as client:
        status = await client.status()
    assert (status.cluster, status.node, status.version, status.role, status.state) == (
        "c",
        "n1",
        "1.2",
        "master",
        "open",
    )
    assert (status.epoch, status.size, status.commit_size, status.root) == (3, 10, 9, b"r" * 32)
    assert (status.master, status.master_address, status.uptime_ms, status.rss_bytes) == ("n1", "127.0.0.1:1", 5, 6)
    keys = (NodeKey("aa", None), NodeKey("bb", 0))
    assert status.nodes == (
        NodeStatus("n1", "h:1", "master", "self", 10, 0, "d", keys, voter=True),
        NodeStatus("n2", "h:2", "worker", "HEALTHY", 0, 0, "", voter=False),
    )
    assert (status.commit_quorum, status.detail, status.key_id) == (2, "fine", "aa")


async def test_status_comes_from_any_node_that_answers_or_from_the_one_that_is_named(
    a: ScriptedServer, b: ScriptedServer
) -> None:
    b.unary = lambda request: log_pb2.StatusResponse(node="b")
    await a.stop()
    async with AsyncClient([a.address, b.address], token="") as client:
        assert (await client.status()).node == "b"
        assert (await client.status(b.address)).node == "b"
        with pytest.raises(Unavailable, match=a.address):
            await client.status(a.address)


async def test_an_outcome_is_asked_of_the_master_first(a: ScriptedServer, b: ScriptedServer) -> None:
    answers(a, master=b.address, outcome=NotFound("not here"))
    answers(b, master=b.address, outcome=HERE)
    async with AsyncClient(a.address, token="") as client:
        assert await client.outcome("x") == Outcome("x", 7, 2, 99, True, 3)
    assert (asked(a), asked(b)) == ([], ["x"])


async def test_what_the_master_does_not_have_is_not_found(a: ScriptedServer, b: ScriptedServer) -> None:
    answers(a, master=b.address, outcome=HERE)
    answers(b, master=b.address, outcome=NotFound("not in the log"))
    async with AsyncClient([a.address, b.address], token="") as client:
        with pytest.raises(NotFound):
            await client.outcome("x")


@pytest.mark.parametrize("master", ["", "127.0.0.1:1"])
async def test_without_a_master_what_another_node_has_is_found(
    a: ScriptedServer, b: ScriptedServer, master: str
) -> None:
    answers(a, master=master, outcome=NotFound("not here"))
    answers(b, master=master, outcome=HERE)
    async with AsyncClient([a.address, b.address], token="", timeout_s=2.0) as client:
        assert (await client.outcome("x")).offset == 7


async def test_without_a_master_what_no_node_has_is_not_called_not_found(a: ScriptedServer) -> None:
    """A worker that lags must not make a message look as if it had never been applied."""
    answers(a, master="", outcome=NotFound("not here"))
    async with AsyncClient(a.address, token="", timeout_s=1.0) as client:
        with pytest.raises(Unavailable, match="master"):
            await client.outcome("x")


@pytest.mark.parametrize("error", [BadRequest("what?")])
async def test_other_errors_are_told(a: ScriptedServer, error: ServiceError) -> None:
    answers(a, master=a.address, outcome=error)
    async with AsyncClient(a.address, token="") as client:
        with pytest.raises(BadRequest, match="what"):
            await client.outcome("x")
        with pytest.raises(BadRequest, match="id has 0"):
            await client.outcome("")


async def test_only_a_confirmed_master_says_for_good_that_an_id_is_nowhere(
    a: ScriptedServer, b: ScriptedServer
) -> None:
    """It names itself. A former master that has come back names itself in its status, too, and has no majority."""
    answers(a, master=a.address, outcome=Unavailable("opening epoch 3"))
    answers(b, master=b.address, outcome=NotFound("not in the log", master="n2"))
    async with AsyncClient([a.address, b.address], token="") as client:
        with pytest.raises(NotFound):
            await client.outcome("x")
    answers(b, master=b.address, outcome=HERE)
    async with AsyncClient([a.address, b.address], token="") as client:
        assert (await client.outcome("x")).offset == 7


async def test_a_worker_leads_to_the_master(a: ScriptedServer, b: ScriptedServer) -> None:
    """Whom the status names may be the master no more."""
    answers(a, master=a.address, outcome=NotMaster("it is n2", master="n2", master_address=b.address))
    answers(b, master=b.address, outcome=HERE)
    async with AsyncClient(a.address, token="") as client:
        assert (await client.outcome("x")).offset == 7


async def test_an_outcome_takes_no_longer_than_the_clients_timeout_and_tells_why(
    a: ScriptedServer, b: ScriptedServer
) -> None:
    a.unary = b.unary = lambda _: Unavailable("busy")
    async with AsyncClient([a.address, b.address], token="", timeout_s=1.0) as client:
        async with asyncio.timeout(1.5):
            with pytest.raises(Unavailable, match="busy"):
                await client.outcome("x")
