"""AsyncClient.post against a real gRPC server that answers what the test says: good answers, bad ones, and none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from replicad.client import AsyncClient, Posted
from replicad.errors import (
    Applied,
    BadRequest,
    IdConflict,
    InternalError,
    NotMaster,
    OutcomeUnknown,
    RateLimited,
    ServiceError,
    StorageFull,
    TooLarge,
    Unauthorized,
    Unavailable,
    WriteConcernTimeout,
)
from replicad.wire.codec import PostFrame, PostFrameResult, PostRun
from tests.support.ending_call import EndingCall, broken
from tests.support.scripted_server import PostCall, ScriptedServer, soon

SHORT_S = 0.5  # for what is to run out of time


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


def posting(
    client: AsyncClient, *ids: str, concern: int | None = None, timeout_s: float | None = None
) -> list[asyncio.Task[Posted]]:
    """Posts of messages with these ids, begun together; each payload is its id."""
    return [
        asyncio.ensure_future(client.post(each, id=each, write_concern=concern, timeout_s=timeout_s)) for each in ids
    ]


async def error_of(post: asyncio.Task[Posted]) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await soon(post)
    return caught.value


async def test_posts_made_together_are_one_frame_and_each_gets_its_own_answer(
    a: ScriptedServer, client: AsyncClient
) -> None:
    posts = posting(client, "x", "y", "z")
    call = await a.call()
    frame = await call.frame()
    assert frame.messages.ids == ["x", "y", "z"]
    assert frame.messages.payloads == [b"x", b"y", b"z"]
    call.accept(frame, first_offset=7, nodes=2)
    assert await soon(asyncio.gather(*posts)) == [
        Posted("x", 7, False, 2),
        Posted("y", 8, False, 2),
        Posted("z", 9, False, 2),
    ]


async def test_all_frames_go_on_one_stream_and_may_be_answered_in_any_order(
    a: ScriptedServer, client: AsyncClient
) -> None:
    [first] = posting(client, "x")
    call = await a.call()
    first_frame = await call.frame()
    [second] = posting(client, "y")
    second_frame = await call.frame()
    call.accept(second_frame, first_offset=2)
    assert (await soon(second)).offset == 2
    assert not first.done()
    call.accept(first_frame, first_offset=1)
    assert (await soon(first)).offset == 1
    assert a.calls.empty()


async def test_a_frame_says_its_write_concern_and_a_timeout_shorter_than_the_callers(
    a: ScriptedServer, client: AsyncClient
) -> None:
    posts = posting(client, "x", concern=3, timeout_s=2.0)
    call = await a.call()
    frame = await call.frame()
    assert frame.write_concern == "3"
    assert 1000 < frame.timeout_ms <= 1800
    call.accept(frame)
    await soon(posts[0])


async def test_the_token_goes_with_the_call(a: ScriptedServer) -> None:
    async with AsyncClient(a.address, token="secret") as client:
        [post] = posting(client, "x")
        call = await a.call()
        assert call.metadata["authorization"] == "Bearer secret"
        call.accept(await call.frame())
        await soon(post)


async def test_w3_waits_while_w1_goes_on(a: ScriptedServer, client: AsyncClient) -> None:
    [three] = posting(client, "slow", concern=3)
    call = await a.call()
    slow = await call.frame()
    for index in range(20):
        [one] = posting(client, f"fast-{index}", concern=1)
        call.accept(await call.frame(), first_offset=index)
        await soon(one)
    assert not three.done()
    call.accept(slow, first_offset=99, nodes=3)
    assert (await soon(three)).nodes == 3


async def test_a_worker_names_the_master_and_the_same_messages_go_there(
    a: ScriptedServer, b: ScriptedServer, client: AsyncClient
) -> None:
    posts = posting(client, "x", "y")
    worker = await a.call()
    frame = await worker.frame()
    worker.refuse(frame, NotMaster("ask b", master="b", master_address=b.address))
    master = await b.call()
    again = await master.frame()
    assert again.messages == frame.messages
    master.accept(again)
    assert [each.offset for each in await soon(asyncio.gather(*posts))] == [0, 1]
    await soon(worker.half_closed.wait())


async def test_frames_still_waiting_on_the_old_master_get_their_answers_from_it(
    a: ScriptedServer, b: ScriptedServer, client: AsyncClient
) -> None:
    [old] = posting(client, "old", concern=3)
    first = await a.call()
    waiting = await first.frame()
    [new] = posting(client, "new")
    first.refuse(await first.frame(), NotMaster(master_address=b.address))
    second = await b.call()
    second.accept(await second.frame())
    await soon(new)
    first.accept(waiting, first_offset=5, nodes=3)
    assert (await soon(old)).offset == 5


async def test_a_node_that_knows_no_master_is_left_for_the_next_address(a: ScriptedServer, b: ScriptedServer) -> None:
    async with AsyncClient([a.address, b.address], token="") as client:
        [post] = posting(client, "x")
        worker = await a.call()
        worker.refuse(await worker.frame(), NotMaster("nobody knows"))
        master = await b.call()
        master.accept(await master.frame(), first_offset=3)
        assert (await soon(post)).offset == 3


@pytest.mark.parametrize("error", [None, Unavailable("going down"), InternalError("oops")])
async def test_what_was_sent_on_a_stream_that_broke_is_sent_again_with_the_same_ids(
    a: ScriptedServer, b: ScriptedServer, error: ServiceError | None
) -> None:
    async with AsyncClient([a.address, b.address], token="") as client:
        posts = posting(client, "x", "y")
        broken = await a.call()
        sent = await broken.frame()
        broken.end(error)
        call = await b.call()
        again = await call.frame()
        assert again.messages == sent.messages
        call.accept(again, duplicate=True)
        assert [each.duplicate for each in await soon(asyncio.gather(*posts))] == [True, True]


async def test_a_server_that_dies_and_comes_back_is_found_again(a: ScriptedServer, client: AsyncClient) -> None:
    [post] = posting(client, "x")
    await (await a.call()).frame()
    await a.stop()
    await a.start()
    call = await a.call()
    call.accept(await call.frame(), first_offset=4)
    assert (await soon(post)).offset == 4


async def test_nobody_listening_is_unavailable_and_certainly_not_applied(a: ScriptedServer) -> None:
    await a.stop()
    async with AsyncClient(a.address, token="", timeout_s=SHORT_S) as client:
        error = await error_of(posting(client, "x")[0])
    assert (type(error), error.applied) == (Unavailable, Applied.NO)
    assert a.address in error.message


async def test_refusals_until_the_time_is_over_are_not_applied(a: ScriptedServer) -> None:
    refused: list[PostFrame] = []

    def refuse(call: PostCall, frame: PostFrame) -> None:
        refused.append(frame)
        call.refuse(frame, Unavailable("only 1 of 3 nodes is there"))

    a.on_frame = refuse
    async with AsyncClient(a.address, token="", timeout_s=SHORT_S) as client:
        error = await error_of(posting(client, "x")[0])
    assert (type(error), error.applied, error.message) == (Unavailable, Applied.NO, "only 1 of 3 nodes is there")
    assert len(refused) >= 2


async def test_a_refused_message_is_not_sent_again_with_no_time_left_for_an_answer(
    a: ScriptedServer, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its fate is known now, and would not be with one more try under way when the time is over."""
    monkeypatch.setattr("replicad.client.posting.LAST_TRY_S", 60.0)
    [post] = posting(client, "x")
    call = await a.call()
    call.refuse(await call.frame(), Unavailable("only 1 of 3 nodes is there"))
    error = await error_of(post)
    assert (type(error), error.applied) == (Unavailable, Applied.NO)


async def test_no_answer_in_time_is_an_unknown_outcome(a: ScriptedServer, client: AsyncClient) -> None:
    [post] = posting(client, "x", timeout_s=SHORT_S)
    await (await a.call()).frame()
    error = await error_of(post)
    assert (type(error), error.applied) == (OutcomeUnknown, Applied.UNKNOWN)


async def test_an_unknown_outcome_has_the_id_to_ask_with(a: ScriptedServer, client: AsyncClient) -> None:
    post = asyncio.ensure_future(client.post("the library names this one", timeout_s=SHORT_S))
    frame = await (await a.call()).frame()
    error = await error_of(post)
    assert type(error) is OutcomeUnknown
    assert [error.id] == frame.messages.ids


async def test_a_lost_try_stays_unknown_whatever_other_nodes_refuse(a: ScriptedServer, b: ScriptedServer) -> None:
    async with AsyncClient([a.address, b.address], token="", timeout_s=SHORT_S) as client:
        [post] = posting(client, "x")
        await (await a.call()).frame()
        b.on_frame = lambda call, frame: call.refuse(frame, NotMaster("not me"))
        await a.stop()
        error = await error_of(post)
    assert (type(error), error.applied) == (OutcomeUnknown, Applied.UNKNOWN)


async def test_a_final_refusal_after_a_lost_try_says_unknown(a: ScriptedServer, b: ScriptedServer) -> None:
    async with AsyncClient([a.address, b.address], token="") as client:
        [post] = posting(client, "x")
        await (await a.call()).frame()
        await a.stop()
        call = await b.call()
        call.refuse(await call.frame(), StorageFull("disk full"))
        error = await error_of(post)
    assert (type(error), error.applied) == (StorageFull, Applied.UNKNOWN)


@pytest.mark.parametrize("kind", [StorageFull, Unauthorized, IdConflict, BadRequest, TooLarge])
async def test_a_refusal_that_waiting_does_not_mend_comes_at_once(
    a: ScriptedServer, client: AsyncClient, kind: type[ServiceError]
) -> None:
    [post] = posting(client, "x")
    call = await a.call()
    call.refuse(await call.frame(), kind("no"))
    error = await error_of(post)
    assert (type(error), error.message, error.applied) == (kind, "no", Applied.NO)
    assert call.frames.empty()


async def test_a_write_concern_timeout_tells_offset_and_nodes(a: ScriptedServer, client: AsyncClient) -> None:
    posts = posting(client, "x", "y", concern=3)
    call = await a.call()
    frame = await call.frame()
    errors = tuple((index, WriteConcernTimeout("late", offset=5 + index, nodes=2)) for index in range(2))
    call.answer(PostFrameResult(frame.sequence, errors=errors))
    received = [await error_of(post) for post in posts]
    assert [(type(each), each.offset, each.nodes, each.applied) for each in received] == [
        (WriteConcernTimeout, 5, 2, Applied.YES),
        (WriteConcernTimeout, 6, 2, Applied.YES),
    ]


async def test_a_conflict_is_for_its_own_caller_only(a: ScriptedServer, client: AsyncClient) -> None:
    x, y, z = posting(client, "x", "y", "z")
    call = await a.call()
    frame = await call.frame()
    runs = (PostRun(0, 1, 8, False), PostRun(2, 1, 9, False))
    call.answer(PostFrameResult(frame.sequence, runs, ((1, IdConflict("y is taken", offset=3)),), nodes=2))
    error = await error_of(y)
    assert (type(error), error.offset) == (IdConflict, 3)
    assert [(await soon(x)).offset, (await soon(z)).offset] == [8, 9]


async def test_a_message_that_spoils_its_frame_spoils_it_for_nobody_else(
    a: ScriptedServer, client: AsyncClient
) -> None:
    ids = [f"m{index}" for index in range(9)]
    posts = posting(client, *ids)
    call = await a.call()
    offset, answered = 0, 0
    while answered < len(ids):
        frame = await call.frame()
        if "m4" not in frame.messages.ids:
            call.accept(frame, first_offset=offset)
            offset += len(frame.messages)
            answered += len(frame.messages)
        else:
            call.refuse(frame, TooLarge("too large"))
            answered += len(frame.messages) == 1
    error = await error_of(posts.pop(4))
    assert (type(error), error.applied) == (TooLarge, Applied.NO)
    results = await soon(asyncio.gather(*posts))
    assert sorted(each.offset for each in results) == list(range(8))
    assert [each.id for each in results] == [each for each in ids if each != "m4"]


async def test_only_the_messages_that_may_fare_better_are_sent_again(a: ScriptedServer, client: AsyncClient) -> None:
    x, y, z = posting(client, "x", "y", "z")
    call = await a.call()
    frame = await call.frame()
    errors = ((0, OutcomeUnknown("stopped")), (2, Unavailable("stopped")))
    call.answer(PostFrameResult(frame.sequence, (PostRun(1, 1, 4, False),), errors, nodes=2))
    assert (await soon(y)).offset == 4
    again = await call.frame()
    assert again.messages.ids == ["x", "z"]
    call.accept(again, first_offset=6)
    assert [(await soon(x)).offset, (await soon(z)).offset] == [6, 7]


async def test_a_message_of_unknown_outcome_stays_so_whatever_is_refused_later(a: ScriptedServer) -> None:
    def fail_first(call: PostCall, frame: PostFrame) -> None:
        if frame.sequence == 1:
            call.answer(PostFrameResult(frame.sequence, errors=((0, OutcomeUnknown("stopped")),)))
        else:
            call.refuse(frame, Unavailable("stopping"))

    a.on_frame = fail_first
    async with AsyncClient(a.address, token="", timeout_s=SHORT_S) as client:
        error = await error_of(posting(client, "x")[0])
    assert (type(error), error.applied) == (OutcomeUnknown, Applied.UNKNOWN)


async def test_a_rate_limited_client_pauses_as_long_as_it_is_asked_to(a: ScriptedServer, client: AsyncClient) -> None:
    [post] = posting(client, "x")
    call = await a.call()
    loop = asyncio.get_running_loop()
    call.refuse(await call.frame(), RateLimited("slow down", retry_after_s=0.15))
    refused_at = loop.time()
    [later] = posting(client, "y")
    for frame in (await call.frame(), await call.frame()):
        assert loop.time() - refused_at >= 0.14
        call.accept(frame)
    await soon(asyncio.gather(post, later))


async def test_a_pause_longer_than_the_callers_time_is_answered_at_once(a: ScriptedServer, client: AsyncClient) -> None:
    [post] = posting(client, "x", timeout_s=5.0)
    call = await a.call()
    call.refuse(await call.frame(), RateLimited("come back later", retry_after_s=60))
    error = await error_of(post)
    assert (type(error), error.retry_after_s, error.applied) == (RateLimited, 60.0, Applied.NO)


async def test_an_internal_error_that_does_not_mend_leaves_the_outcome_unknown(a: ScriptedServer) -> None:
    def fail_first(call: PostCall, frame: PostFrame) -> None:
        call.refuse(frame, InternalError("a bug") if frame.sequence == 1 else Unavailable("stopping"))

    a.on_frame = fail_first
    async with AsyncClient(a.address, token="", timeout_s=SHORT_S) as client:
        error = await error_of(posting(client, "x")[0])
    assert (type(error), error.applied) == (OutcomeUnknown, Applied.UNKNOWN)


async def test_an_internal_error_is_tried_again(a: ScriptedServer, client: AsyncClient) -> None:
    [post] = posting(client, "x")
    call = await a.call()
    call.refuse(await call.frame(), InternalError("a bug"))
    call.accept(await call.frame(), first_offset=2)
    assert (await soon(post)).offset == 2


async def test_a_message_that_waits_for_its_next_try_is_not_forgotten_among_many_timeouts(
    a: ScriptedServer, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each timeout has frames of its own, and what is kept of timeouts that nobody uses is limited."""
    monkeypatch.setattr("replicad.client.posting.next_delay", lambda attempt, rng: 0.2)
    [post] = posting(client, "x")
    call = await a.call()
    refused = await call.frame()
    a.on_frame = lambda call, frame: call.accept(frame)
    call.refuse(refused, InternalError("a bug"))
    [probe] = posting(client, "probe", concern=1)
    await soon(probe)  # the refusal was heard before this
    await soon(asyncio.gather(*(client.post("y", timeout_s=20.0 + index) for index in range(100))))
    assert (await soon(post)).id == "x"


async def test_a_wrong_token_is_told_at_once_and_to_all_who_wait(a: ScriptedServer) -> None:
    a.refuse_streams = Unauthorized("who are you?")
    async with AsyncClient(a.address, token="wrong") as client:
        posts = [*posting(client, "x", concern=1), *posting(client, "y", concern=2)]
        errors = [await error_of(post) for post in posts]
    assert [(type(each), each.message, each.applied) for each in errors] == [
        (Unauthorized, "who are you?", Applied.NO)
    ] * 2


async def test_a_server_that_does_not_greet_is_written_to_all_the_same(a: ScriptedServer, client: AsyncClient) -> None:
    a.greets = False
    [post] = posting(client, "x")
    call = await a.call()
    call.accept(await call.frame(), first_offset=3)
    assert (await soon(post)).offset == 3


async def test_an_answer_that_comes_too_late_is_ignored(a: ScriptedServer, client: AsyncClient) -> None:
    call, late = await _time_out(a, client)
    [post] = posting(client, "y")
    fresh = await call.frame()
    call.accept(late, fresh, first_offset=5)
    assert (await soon(post)).offset == 6


async def _time_out(a: ScriptedServer, client: AsyncClient) -> tuple[PostCall, PostFrame]:
    """A stream that lives, with a frame on it whose caller has gone."""
    [first] = posting(client, "w")
    call = await a.call()
    early = await call.frame()
    [post] = posting(client, "x", timeout_s=SHORT_S)
    late = await call.frame()
    call.accept(early)  # something was heard since `x` went out: the stream is not taken for dead
    await soon(first)
    assert isinstance(await error_of(post), OutcomeUnknown)
    return call, late


@pytest.mark.parametrize("clock_step_s", [1e-9, 0.25], ids=["fine-clock", "coarse-clock"])
async def test_a_node_that_answers_nothing_is_left_for_another(
    clock_step_s: float, a: ScriptedServer, b: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the loop's clock gives the greeting and the first frame one and the same time."""
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: time.monotonic() // clock_step_s * clock_step_s)
    async with AsyncClient([a.address, b.address], token="") as client:
        [post] = posting(client, "x", timeout_s=SHORT_S)
        await (await a.call()).frame()
        assert isinstance(await error_of(post), OutcomeUnknown)
        [next_post] = posting(client, "y")
        call = await b.call()
        call.accept(await call.frame(), first_offset=1)
        assert (await soon(next_post)).offset == 1


async def test_a_server_that_accepts_connections_and_says_nothing_is_left_for_another(b: ScriptedServer) -> None:
    connections: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda reader, writer: connections.append(writer), "127.0.0.1", 0)
    host, port = silent.sockets[0].getsockname()
    async with silent, AsyncClient([f"{host}:{port}", b.address], token="") as client:
        [post] = posting(client, "x")
        call = await b.call()
        call.accept(await call.frame(), first_offset=1)
        assert (await soon(post)).offset == 1
    for writer in connections:
        writer.close()
    assert connections


async def test_a_result_that_does_not_fit_its_frame_is_not_believed(a: ScriptedServer, b: ScriptedServer) -> None:
    async with AsyncClient([a.address, b.address], token="") as client:
        posts = posting(client, "x", "y")
        liar = await a.call()
        frame = await liar.frame()
        liar.answer(PostFrameResult(frame.sequence, (PostRun(0, 1, 3, False),)))
        call = await b.call()
        call.accept(await call.frame(), first_offset=8)
        assert [each.offset for each in await soon(asyncio.gather(*posts))] == [8, 9]


async def test_a_caller_who_is_cancelled_leaves_the_others_alone(a: ScriptedServer, client: AsyncClient) -> None:
    x, y = posting(client, "x", "y")
    call = await a.call()
    frame = await call.frame()
    x.cancel()
    call.accept(frame, first_offset=1)
    assert (await soon(y)).offset == 2
    assert x.cancelled()


@pytest.mark.parametrize("end", [None, broken])
async def test_a_client_that_is_closed_while_the_stream_that_it_writes_to_ends_does_not_hang(
    a: ScriptedServer, monkeypatch: pytest.MonkeyPatch, end: Callable[[], Exception] | None
) -> None:
    ending = EndingCall(end)
    async with AsyncClient(a.address, token="") as client:
        (first,) = posting(client, "first")
        call = await a.call()
        call.accept(await call.frame())
        await soon(first)
        monkeypatch.setattr(client._poster._stream, "call", ending)  # type: ignore[union-attr]
        (second,) = posting(client, "second")
        await soon(ending.waited_for.wait())
        await soon(client.close())
    assert isinstance(await error_of(second), OutcomeUnknown)


async def test_closing_tells_everyone_what_is_known(a: ScriptedServer) -> None:
    client = AsyncClient(a.address, token="")
    [sent] = posting(client, "x")
    await (await a.call()).frame()
    [unsent] = posting(client, "y")
    await asyncio.sleep(0)  # it is in a frame that the pump has not seen yet
    await client.close()
    assert (await error_of(sent)).applied is Applied.UNKNOWN
    assert (await error_of(unsent)).applied is Applied.NO
    with pytest.raises(Unavailable, match="closed"):
        await client.post("z")


async def test_text_headers_and_a_made_id_arrive_as_they_should(a: ScriptedServer, client: AsyncClient) -> None:
    post = asyncio.ensure_future(client.post("é", headers={"kind": "order"}))
    call = await a.call()
    frame = await call.frame()
    assert frame.messages.payloads == ["é".encode()]
    assert frame.messages.headers == [b"\x04kind\x00\x05order"]
    call.accept(frame)
    posted = await soon(post)
    assert [posted.id] == frame.messages.ids
    assert len(posted.id) == 36


async def test_what_cannot_be_a_message_is_refused_before_anything_is_sent(
    a: ScriptedServer, client: AsyncClient
) -> None:
    for wrong in (
        client.post("x", id=""),
        client.post("x", id="replicad:x"),
        client.post("x", headers={"": "v"}),
        client.post("x", write_concern=0),
        client.post(None),  # type: ignore[arg-type]
        client.post("\ud800"),
    ):
        with pytest.raises(BadRequest):
            await wrong
    with pytest.raises(TooLarge):
        await client.post(bytes((64 << 20) + 1))
    with pytest.raises(ValueError, match="timeout"):
        await client.post("x", timeout_s=0)
    assert a.calls.empty()


async def test_credentials_that_end_while_a_post_waits_leave_its_outcome_unknown(a: ScriptedServer) -> None:
    async with AsyncClient(a.address, token="withdrawn") as client:
        [post] = posting(client, "x")
        call = await a.call()
        await call.frame()
        a.refuse_streams = Unauthorized("who are you?")
        call.end(Unauthorized("who are you?"))
        error = await error_of(post)
    assert (type(error), error.applied) == (Unauthorized, Applied.UNKNOWN)


async def test_connections_that_are_closed_for_renewed_tls_files_are_made_anew(
    a: ScriptedServer, client: AsyncClient
) -> None:
    """A call on a closed channel ends by a CancelledError that nobody has asked for."""
    [post] = posting(client, "x")
    first = await (await a.call()).frame()
    for _ in range(2):  # calls under way go on until the files change once more
        client._connections._retire()
    call = await a.call()
    frame = await call.frame()
    assert (frame.messages.ids, first.messages.ids) == (["x"], ["x"])
    call.accept(frame, first_offset=3)
    assert (await soon(post)).offset == 3
    [post] = posting(client, "y")
    call.accept(await call.frame(), first_offset=4)
    assert (await soon(post)).offset == 4


async def test_of_a_master_that_workers_name_it_is_told_why_it_cannot_be_reached(
    a: ScriptedServer, b: ScriptedServer
) -> None:
    await a.stop()
    b.on_frame = lambda call, frame: call.refuse(
        frame, NotMaster("n2 is a worker; the master is n1", master="n1", master_address=a.address)
    )
    async with AsyncClient([a.address, b.address], token="", timeout_s=SHORT_S) as client:
        [post] = posting(client, "x")
        error = await error_of(post)
    assert (type(error), error.applied, error.master) == (Unavailable, Applied.NO, "n1")
    assert "n2 is a worker; the master is n1, and it can't be reached: " in error.message


async def test_what_is_too_large_for_grpc_is_refused_and_holds_up_nobody(a: ScriptedServer) -> None:
    """gRPC ends the whole stream for it, with what else is on it."""
    a.receive_bytes = 1 << 20
    await a.stop()
    await a.start()
    a.on_frame = lambda call, frame: call.accept(frame)
    async with AsyncClient(a.address, token="") as client:
        large = asyncio.create_task(client.post(bytes(2 << 20)))
        small = posting(client, "x", "y", concern=1)
        error = await error_of(large)
        assert (type(error), error.applied) == (TooLarge, Applied.NO)
        await soon(asyncio.gather(*small))


async def test_a_client_belongs_to_one_event_loop(a: ScriptedServer) -> None:
    a.on_frame = lambda call, frame: call.accept(frame)
    client = AsyncClient(a.address, token="")

    def elsewhere() -> None:
        asyncio.run(client.post("x"))

    def again() -> None:
        for call in (client.post("y"), client.status()):
            with pytest.raises(RuntimeError, match="another event loop"):
                asyncio.run(call)

    await asyncio.to_thread(elsewhere)
    await asyncio.to_thread(again)


async def test_what_is_too_large_and_ran_out_of_time_is_not_laid_to_another(a: ScriptedServer) -> None:
    async with AsyncClient(a.address, token="") as client:
        [small] = posting(client, "small", concern=3)
        call = await a.call()
        await call.frame()  # it is in the log by now
        large = asyncio.create_task(client.post(bytes(1 << 20), timeout_s=SHORT_S))
        await call.frame()
        [other] = posting(client, "other", concern=1)
        call.accept(await call.frame())
        await soon(other)
        assert (await error_of(large)).applied is Applied.UNKNOWN
        call.end(TooLarge("Received message larger than max"))
        call = await a.call()
        call.accept(await call.frame(), first_offset=7, duplicate=True)
        assert (await soon(small)).offset == 7
