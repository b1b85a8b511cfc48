"""What both clients are given and can never work: refused by name, before anything is sent."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from replicad.client import AsyncClient, Client, NewMessage, Record
from replicad.errors import BadRequest
from tests.support.builders import LogBuilder
from tests.support.scripted_server import ScriptedServer, listing

BEYOND = 1 << 63


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as made:
        yield made


RECORD = Record(0, 1, 1, "id", "author", {}, b"payload", committed=True)

#: A call, and the error that it raises: its class, and what its text begins with.
WRONG: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "payload": (lambda client: client.post(7), BadRequest, "payload is int"),
    "id": (lambda client: client.post("x", id=7), BadRequest, "id is int"),
    "headers as a list": (lambda client: client.post("x", headers=[("a", "b")]), BadRequest, "headers is list"),
    "headers as text": (lambda client: client.post("x", headers="a=b"), BadRequest, "headers is str"),
    "header key": (lambda client: client.post("x", headers={7: "v"}), BadRequest, "headers: key 7 is int"),
    "header bytes": (lambda client: client.post("x", headers={b"k": "v"}), BadRequest, "headers: key b'k' is bytes"),
    "header value": (lambda client: client.post("x", headers={"k": 7}), BadRequest, "headers: value of 'k' is int"),
    "header pair": (
        lambda client: client.post("x", headers={"k": None}),
        BadRequest,
        "headers: value of 'k' is NoneType",
    ),
    "concern": (lambda client: client.post("x", write_concern=1.5), BadRequest, "write concern '1.5'"),
    "large concern": (lambda client: client.post("x", write_concern="9" * 9999), BadRequest, "write concern '9999"),
    "odd concern": (lambda client: client.post("x", write_concern=b"all"), BadRequest, "write concern \"b'all'\""),
    "timeout": (lambda client: client.post("x", timeout_s=0), ValueError, "timeout 0 is not a positive number"),
    "timeout as text": (lambda client: client.post("x", timeout_s="5"), ValueError, "timeout '5' is not"),
    "timeout as a flag": (lambda client: client.post("x", timeout_s=True), ValueError, "timeout True is not"),
    "messages": (lambda client: client.post_many(7), BadRequest, "messages is int"),
    "one text": (lambda client: client.post_many("abc"), BadRequest, "messages is str"),
    "one payload": (lambda client: client.post_many(b"abc"), BadRequest, "messages is bytes"),
    "one message": (lambda client: client.post_many(NewMessage("x")), BadRequest, "messages is NewMessage"),
    "many's timeout": (lambda client: client.post_many(["x"], timeout_s=-1), ValueError, "timeout -1"),
    "many's concern": (lambda client: client.post_many(["x"], write_concern=0), BadRequest, "write concern '0'"),
    "from_offset": (lambda client: client.list(-1), BadRequest, "from_offset is -1"),
    "from_offset as text": (lambda client: client.list("5"), BadRequest, "from_offset is '5'"),
    "from_offset beyond": (lambda client: client.list_batches(BEYOND), BadRequest, f"from_offset is {BEYOND}"),
    "limit": (lambda client: client.list(limit=-1), BadRequest, "limit is -1"),
    "limit as a fraction": (lambda client: client.list(limit=1.0), BadRequest, "limit is 1.0"),
    "limit as a flag": (lambda client: client.list(limit=True), BadRequest, "limit is True"),
    "limit beyond": (lambda client: client.list(limit=1 << 64), BadRequest, "limit is 18446744073709551616"),
    "min_offset": (lambda client: client.list(min_offset=-5), BadRequest, "min_offset is -5"),
    "since_ms": (lambda client: client.list(since_ms=-1), BadRequest, "since_ms is -1"),
    "until_ms": (lambda client: client.list(until_ms=BEYOND), BadRequest, f"until_ms is {BEYOND}"),
    "until_ms as a fraction": (lambda client: client.list(until_ms=1.5), BadRequest, "until_ms is 1.5"),
    "level": (lambda client: client.list(level="strict"), BadRequest, "level 'strict'"),
    "odd level": (lambda client: client.list(level=[]), BadRequest, "level []"),
    "tail's from_offset": (lambda client: client.tail(None), BadRequest, "from_offset is None"),
    "tail's level": (lambda client: client.tail_batches(level="linearizable"), BadRequest, "level 'linearizable'"),
    "outcome's id": (lambda client: client.outcome(7), BadRequest, "id is int"),
    "status's address": (lambda client: client.status("nowhere"), ValueError, "address 'nowhere' is not HOST:PORT"),
    "status's port": (lambda client: client.status("a:99999"), ValueError, "address 'a:99999' is not HOST:PORT"),
    "odd address": (lambda client: client.status(7), ValueError, "address 7 is not HOST:PORT"),
    "promote's address": (lambda client: client.promote(""), ValueError, "address '' is not HOST:PORT"),
    "accept_data_loss": (
        lambda client: client.promote("a:1", accept_data_loss="no"),
        BadRequest,
        "accept_data_loss is 'no'; True or False",
    ),
    "promote's timeout": (lambda client: client.promote("a:1", timeout_s=-1), ValueError, "timeout -1"),
    "to": (lambda client: client.switchover(7, address="a:1"), BadRequest, "to is 7; the name of a node"),
    "to's form": (lambda client: client.switchover("a b", address="a:1"), BadRequest, "to is 'a b'; the name"),
    "switchover's address": (lambda client: client.switchover(address="a"), ValueError, "address 'a' is not HOST:PORT"),
    "switchover's timeout": (lambda client: client.switchover(timeout_s="1"), ValueError, "timeout '1'"),
}

odd: Any = 7

#: Calls that the blocking client does not have.
WRONG_REPOSTS: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "record": (lambda client: client.repost("x"), BadRequest, "record is str"),
    "record's payload": (lambda client: client.repost(RECORD._replace(payload=odd)), BadRequest, "payload is int"),
    "record's id": (lambda client: client.repost(RECORD._replace(id="é")), BadRequest, "id 'é'"),
    "record's headers": (
        lambda client: client.repost(RECORD._replace(headers=odd)),
        BadRequest,
        "headers is int",
    ),
    "repost's timeout": (lambda client: client.repost(RECORD, timeout_s=-1), ValueError, "timeout -1"),
}


async def call_async(call: Callable[[Any], Any], client: AsyncClient) -> None:
    """Iterators of records and results are not begun: they raise where they are made."""
    outcome = call(client)
    if inspect.isawaitable(outcome):
        await outcome


@pytest.mark.parametrize("name", WRONG | WRONG_REPOSTS)
async def test_it_is_refused_by_name_before_anything_is_sent(name: str, server: ScriptedServer) -> None:
    call, error, begins_with = (WRONG | WRONG_REPOSTS)[name]
    async with AsyncClient(server.address, token="") as client:
        with pytest.raises(error) as caught:
            await call_async(call, client)
    assert str(caught.value).startswith(begins_with)
    assert (server.requests, server.calls.qsize()) == ([], 0)


@pytest.mark.parametrize("name", WRONG)
async def test_the_blocking_client_refuses_the_same(name: str, server: ScriptedServer) -> None:
    call, error, begins_with = WRONG[name]
    blocking = Client(server.address, token="")
    try:
        with pytest.raises(error) as caught:
            await asyncio.to_thread(call, blocking)
    finally:
        await asyncio.to_thread(blocking.close)
    assert str(caught.value).startswith(begins_with)
    assert (server.requests, server.calls.qsize()) == ([], 0)


async def test_a_message_of_an_async_iterable_that_is_none_is_refused_as_any_other(server: ScriptedServer) -> None:
    async def messages() -> AsyncIterator[Any]:
        yield 7

    async with AsyncClient(server.address, token="") as client:
        with pytest.raises(BadRequest, match="payload is int"):
            await anext(client.post_many(messages()))
    blocking = Client(server.address, token="")
    with pytest.raises(BadRequest, match=r"messages is async_generator.*AsyncClient"):
        blocking.post_many(messages())  # type: ignore[arg-type]
    await asyncio.to_thread(blocking.close)


async def test_the_largest_values_are_taken(server: ScriptedServer) -> None:
    server.scripts.append([listing(LogBuilder().add(1).batch.body)])
    largest = BEYOND - 1
    async with AsyncClient(server.address, token="") as client:
        records = client.list(limit=largest, min_offset=largest, since_ms=0, until_ms=largest)
        assert [record.offset async for record in records] == [0]
