"""Posting and reading with encryption, against a server that answers what the test says."""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator

import pytest

from replicad.client import AsyncClient, Encryption, Posted
from replicad.client.encryption import Sealed
from replicad.core.record import decode_headers
from replicad.errors import Applied, Forbidden, IdConflict, ServiceError, TooLarge, Unavailable
from replicad.wire.codec import PostFrame, PostFrameResult, encode_list_response
from tests.support.builders import LogBuilder, messages
from tests.support.scripted_server import PostCall, ScriptedServer, soon

OLD_KEY, NEW_KEY, OTHER_KEY = (urlsafe_b64encode(bytes([n]) * 32).decode() for n in (1, 2, 3))
OLD = Encryption.from_keys([OLD_KEY])
BOTH = Encryption.from_keys([NEW_KEY, OLD_KEY])
CONFLICT = IdConflict("id 'a' stands at offset 0 with other content", offset=0)


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as made:
        yield made


@pytest.fixture
async def client(server: ScriptedServer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.address, token="", encryption=BOTH, timeout_s=5) as made:
        yield made


def stored(message_id: str, payload: bytes, headers: dict[str, str] | None = None) -> bytes:
    """The answer of a List of a log with this record alone, at offset 0."""
    log = LogBuilder()
    log.add_messages(messages(message_id, payloads=[payload], headers=[headers] if headers else []))
    return encode_list_response(1, [log.appends[0].batch.body])


def stored_sealed(sealed: Sealed, message_id: str = "a") -> bytes:
    return stored(message_id, sealed.payload, decode_headers(sealed.headers))


async def error_of(post: asyncio.Task[Posted]) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await soon(post)
    return caught.value


async def conflicting(server: ScriptedServer, client: AsyncClient) -> tuple[asyncio.Task[Posted], PostCall]:
    """A post of "hello" under the id "a" that the server has answered with a conflict."""
    post = asyncio.create_task(client.post("hello", id="a"))
    call = await server.call()
    call.answer(PostFrameResult((await call.frame()).sequence, errors=((0, CONFLICT),)))
    return post, call


# --- posting ----------------------------------------------------------------------------------------------------------


async def test_a_retry_of_the_library_sends_the_very_same_ciphertext(
    server: ScriptedServer, client: AsyncClient
) -> None:
    post = asyncio.create_task(client.post("hello", id="a"))
    call = await server.call()
    first = await call.frame()
    call.refuse(first, Unavailable("no"))
    again = await (await server.call()).frame()
    assert b"hello" not in first.messages.payloads[0]
    assert again.messages == first.messages
    post.cancel()


async def test_the_order_of_posts_is_the_order_of_calls_and_bulk_frames_keep_theirs(
    server: ScriptedServer, client: AsyncClient
) -> None:
    seen: list[str] = []

    def accept(call: PostCall, frame: PostFrame) -> None:
        call.accept(frame, first_offset=len(seen))
        seen.extend(frame.messages.ids)

    server.on_frame = accept
    await soon(asyncio.gather(*(client.post(b"x" * 50, id=f"{n:03}") for n in range(100))))
    assert seen == [f"{n:03}" for n in range(100)]
    seen.clear()
    results = [each async for results in client.post_many([b"%d" % n for n in range(10_000)]) for each in results]
    assert [each.id for each in results] == seen
    assert len(seen) == 10_000


async def test_others_have_their_turn_while_a_frame_is_encrypted(server: ScriptedServer, client: AsyncClient) -> None:
    server.on_frame = lambda call, frame: call.accept(frame)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    ticking = asyncio.create_task(others())
    content_size = 4096  # one frame: some 60 ms of work
    async for _ in client.post_many([b"x" * 100] * content_size):
        pass
    ticking.cancel()
    assert turns >= 5, "all in one go would be one or two"


async def test_a_ciphertext_that_is_too_large_is_told_with_both_sizes(
    server: ScriptedServer, client: AsyncClient
) -> None:
    server.on_frame = lambda call, frame: call.refuse(frame, TooLarge("at most 1000 are taken"))
    error = await error_of(asyncio.create_task(client.post(b"x" * 900)))
    assert str(error) == "at most 1000 are taken; encrypted, its 900 bytes are 1292"
    with pytest.raises(TooLarge, match="encrypted, a payload has 4/3 of its bytes"):
        async for _ in client.post_many([b"x" * 900]):
            pass


async def test_a_ciphertext_that_no_log_takes_is_refused_before_it_is_made(client: AsyncClient) -> None:
    with pytest.raises(TooLarge, match=r"payload has 50331648 bytes, encrypted 67108964; no log takes more"):
        await client.post(bytes(48 << 20))


# --- conflicts that may be none ---------------------------------------------------------------------------------------


async def test_a_message_that_an_older_key_has_encrypted_is_posted_again_as_it_stands(
    server: ScriptedServer, client: AsyncClient
) -> None:
    original = OLD.seal("a", b"hello")
    server.scripts = [[stored_sealed(original)]]
    post, call = await conflicting(server, client)
    frame = await call.frame()
    assert (frame.messages.ids, frame.messages.payloads) == (["a"], [original.payload])
    assert frame.messages.headers == [original.headers]
    call.accept(frame, first_offset=0, duplicate=True)
    assert await soon(post) == Posted("a", 0, True, 2)
    [request] = server.requests
    assert (request.from_offset, request.limit, request.level) == (0, 1, "local")


@pytest.mark.parametrize(
    "record",
    [stored_sealed(OLD.seal("a", b"other")), stored("a", b"hello"), stored("a", b"hello", {"k": "v"})],
    ids=["other text", "in the clear", "in the clear with headers"],
)
async def test_another_message_under_the_id_stays_a_conflict(
    server: ScriptedServer, client: AsyncClient, record: bytes
) -> None:
    server.scripts = [[record]]
    post, _ = await conflicting(server, client)
    error = await error_of(post)
    assert (type(error), error.applied, error.offset, str(error)) == (IdConflict, Applied.NO, 0, str(CONFLICT))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Forbidden("writers may not read"), "it could not be read: writers may not read"),
        (stored_sealed(Encryption.from_keys([OTHER_KEY]).seal("a", b"hello")), "no key here decrypts it"),
        (stored_sealed(OLD.seal("b", b"hello"), "b"), "the node that was asked does not have it"),
        (stored_sealed(OLD.seal("b", b"hello"), "a"), "no key here decrypts it"),
    ],
    ids=["no right to read", "unknown key", "another id", "moved from another id"],
)
async def test_where_it_cannot_be_told_the_conflict_says_so_and_that_it_may_have_been_applied(
    server: ScriptedServer, client: AsyncClient, answer: bytes | ServiceError, reason: str
) -> None:
    server.scripts = [[answer]]
    post, _ = await conflicting(server, client)
    error = await error_of(post)
    assert (type(error), error.applied, error.offset) == (IdConflict, Applied.UNKNOWN, 0)
    assert str(error).endswith(f"(whether it is the same message, encrypted before, cannot be told: {reason})")


async def test_a_log_that_conflicts_with_its_own_record_is_believed(
    server: ScriptedServer, client: AsyncClient
) -> None:
    server.scripts = [[stored_sealed(OLD.seal("a", b"hello"))]]
    post, call = await conflicting(server, client)
    call.answer(PostFrameResult((await call.frame()).sequence, errors=((0, CONFLICT),)))
    assert isinstance(await error_of(post), IdConflict)


# --- reading ----------------------------------------------------------------------------------------------------------


async def test_lists_are_decrypted_where_a_key_fits_and_go_on_where_none_does(
    server: ScriptedServer, client: AsyncClient
) -> None:
    foreign = Encryption.from_keys([OTHER_KEY]).seal("c", b"not ours")
    ours, older = BOTH.seal("a", b"new"), OLD.seal("b", b"x" * 500_000)
    log = LogBuilder()
    log.add_messages(
        messages(
            "a",
            "b",
            "c",
            "d",
            payloads=[ours.payload, older.payload, foreign.payload, b"clear"],
            headers=[*(decode_headers(each.headers) for each in (ours, older, foreign)), {}],
        )
    )
    server.scripts = [[encode_list_response(4, [log.appends[0].batch.body])]]
    a, b, c, d = [record async for record in client.list()]
    assert (a.text, a.headers, a.encrypted, a.decrypted) == ("new", {}, True, True)
    assert (b.payload, b.decrypted) == (b"x" * 500_000, True)
    assert (c.payload, c.text, c.encrypted, c.decrypted) == (foreign.payload, None, True, False)
    assert (d.text, d.encrypted, d.decrypted) == ("clear", False, False)
