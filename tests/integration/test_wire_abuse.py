"""Clients that send what they should not: each gets its documented code, and no node's log changes by it."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack

import grpc
import pytest
from grpc import aio

from replicad.core.frames import Refused
from replicad.core.record import MAX_HEADER_VALUE_BYTES, MAX_HEADERS, MAX_ID_BYTES
from replicad.dev import DevCluster
from replicad.errors import (
    Applied,
    BadRequest,
    NotFound,
    NotMaster,
    RateLimited,
    ServiceError,
    TooLarge,
    Unauthorized,
)
from replicad.wire.codec import encode_post_frame
from replicad.wire.v1 import control_pb2, health_pb2, log_pb2, reflection_pb2
from tests.support import rawhttp2
from tests.support.fake_master import FakeMaster
from tests.support.nodes import TOKEN, all_level
from tests.support.rawlog import CALL_S, RawLog, fault_of, new_id
from tests.support.waiting import eventually

Logs = dict[str, RawLog]
Metadata = tuple[tuple[str, str], ...]

SEED = 20_260_101
FLOOD = 100_000  # frames: answers to all of them would take some 100 MiB
CONNECTIONS = 12
LIMITS = {
    "payload": "64KiB",
    "frame": "128KiB",
    "batch_records": 1000,
    "connections": CONNECTIONS,
    "auth_failures": 65536,  # these tests fail as fast as they can; how that is slowed: test_who_may_call.py
}
PAYLOAD_BYTES, FRAME_BYTES = 64 << 10, 128 << 10

UNARY = ("Log/Post", "Log/Outcome", "Log/Status")
DOWN = ("Log/List", "Log/Tail")
BOTH = ("Log/PostStream", "Replication/Replicate")
METHODS = (*UNARY, *DOWN, *BOTH)

# Each is an encoding of none of our messages: bad tags, lengths beyond the end, text that is not UTF-8.
# Debian's protobuf takes the last two for the end of an empty message.
GARBAGE = (b"\xff" * 8, b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x05abc", b"GET / HTTP/1.1\r\n\r\n", b"\x00", b"\x0c")


@pytest.fixture(scope="module")
def settings() -> Mapping[str, object]:
    return {"limits": LIMITS}


@pytest.fixture(autouse=True)
async def nothing_changes(logs: Logs) -> AsyncIterator[None]:
    """Whatever a test of this module does, the logs are afterwards what they were before, and posts go on."""
    before = await all_level(logs)
    yield
    after = await all_level(logs)
    assert (after.size, after.root, after.epoch) == (before.size, before.root, before.epoch)
    assert (await logs["node-1"].post(b"and now something good", w=3)).offset == before.size


async def send(address: str, method: str, requests: Iterable[bytes], *, metadata: Metadata = ()) -> list[bytes]:
    """Call a method with these very bytes; what it answers. Raises AioRpcError."""
    path = f"/replicad.wire.v1.{method}"
    async with aio.insecure_channel(address) as channel, asyncio.timeout(CALL_S):
        if method in UNARY:
            unary: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
            return [await unary(*requests, metadata=metadata)]
        if method in DOWN:
            down: aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(path)
            return [each async for each in down(*requests, metadata=metadata)]
        both: aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(path)
        call = both(iter(list(requests)), metadata=metadata)
        return [each async for each in call]


def with_token(token: str = TOKEN) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


# --- who may call -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", ""),),
        (("authorization", "Bearer"),),
        (("authorization", TOKEN),),
        (("authorization", f"Basic {TOKEN}"),),
        (("authorization", f"bearer {TOKEN}"),),
        with_token("wrong-token-of-any-length"),
        with_token(TOKEN[:-1]),
        with_token(TOKEN + "x"),
        (("x-authorization", f"Bearer {TOKEN}"),),
        (*with_token(), *with_token("wrong")),
    ],
    ids=str,
)
async def test_without_the_right_token_every_method_of_log_and_replication_is_refused(
    cluster: DevCluster, metadata: Metadata
) -> None:
    for node in cluster.nodes[:2]:
        for method in METHODS:
            with pytest.raises(aio.AioRpcError) as caught:
                await send(node.address, method, [] if method in BOTH else [b""], metadata=metadata)
            fault = fault_of(caught.value)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED, method
            assert isinstance(fault, Unauthorized)
            assert (fault.code, fault.applied) == (401, Applied.NO)
            assert TOKEN not in (caught.value.details() or "")


async def test_a_token_that_is_not_ascii_is_as_wrong_as_any(cluster: DevCluster) -> None:
    sent = rawhttp2.call("/replicad.wire.v1.Log/Status", token="caf\u00e9", body=bytes(5), end=True)
    for node in cluster.nodes[:2]:
        answer = await asyncio.to_thread(rawhttp2.exchange, node.address, sent, wait_s=1.0)
        assert node.name.encode() not in answer


async def test_health_and_reflection_are_open_to_all(cluster: DevCluster) -> None:
    async with aio.insecure_channel(cluster.master.address) as channel:
        check: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/grpc.health.v1.Health/Check")
        answer = health_pb2.HealthCheckResponse.FromString(await check(b""))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING

        info: aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        )
        request = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
        answers = [each async for each in info(iter([request]))]
        assert len(answers) == 1


@pytest.mark.parametrize("method", ["Log/Delete", "Replication/Fence", "Nothing/At.All"])
async def test_a_method_that_there_is_not_is_unimplemented(cluster: DevCluster, method: str) -> None:
    async with aio.insecure_channel(cluster.master.address) as channel:
        unary: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/replicad.wire.v1.{method}")
        with pytest.raises(aio.AioRpcError) as caught:
            await unary(b"", metadata=with_token())
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


# --- bytes that are no message ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("garbage", GARBAGE, ids=repr)
@pytest.mark.parametrize("method", [method for method in METHODS if method != "Replication/Replicate"])
async def test_garbage_is_a_bad_request_for_every_method(cluster: DevCluster, method: str, garbage: bytes) -> None:
    for node in cluster.nodes[:2]:
        with pytest.raises(aio.AioRpcError) as caught:
            await send(node.address, method, [garbage], metadata=with_token())
        fault = fault_of(caught.value)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert isinstance(fault, BadRequest)
        assert (fault.code, fault.applied) == (400, Applied.NO)


@pytest.mark.parametrize("service", ["grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch"])
async def test_garbage_to_the_health_service_is_a_bad_request(cluster: DevCluster, service: str) -> None:
    async with aio.insecure_channel(cluster.master.address) as channel:
        call: aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(f"/{service}")
        with pytest.raises(aio.AioRpcError) as caught:
            await call(b"\xff" * 8).read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_health_of_a_service_that_there_is_not_is_not_found(cluster: DevCluster) -> None:
    async with aio.insecure_channel(cluster.master.address) as channel:
        check: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/grpc.health.v1.Health/Check")
        with pytest.raises(aio.AioRpcError) as caught:
            await check(health_pb2.HealthCheckRequest(service="no.such.Service").SerializeToString())
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_garbage_to_replicate_is_refused_as_malformed_by_a_master_and_by_a_worker(cluster: DevCluster) -> None:
    for node in ("node-1", "node-2"):
        answers = await send(cluster.node(node).address, "Replication/Replicate", [b"\xff" * 8], metadata=with_token())
        assert len(answers) == 1
        assert b"malformed" in answers[0]


async def test_random_bytes_never_do_more_than_fail(cluster: DevCluster) -> None:
    """Some of them happen to be messages of unknown fields: those are as good as empty ones."""
    rng = random.Random(SEED)
    for number in range(150):
        method = METHODS[number % len(METHODS)]
        if method == "Log/Tail":
            continue  # it has no end when it is taken for an empty one
        data = rng.randbytes(rng.choice((1, 3, 17, 300)))
        code = await code_of_call(cluster.nodes[number % 2].address, method, data)
        expected = (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)
        assert code in expected, (SEED, number, method, data.hex())


async def code_of_call(address: str, method: str, data: bytes) -> grpc.StatusCode:
    try:
        await send(address, method, [data], metadata=with_token())
    except aio.AioRpcError as exc:
        return exc.code()
    return grpc.StatusCode.OK


async def test_what_is_not_grpc_at_all_harms_nobody(cluster: DevCluster) -> None:
    rng = random.Random(SEED)
    nonsense = [
        b"",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(200),  # the beginning of TLS
        rawhttp2.PREFACE,
        rawhttp2.PREFACE + rng.randbytes(5000),
        rawhttp2.PREFACE + rawhttp2.frame(rawhttp2.SETTINGS, 0, 0, b"\x00" * 5),
        rawhttp2.PREFACE + rawhttp2.frame(rawhttp2.DATA, 0, 1, b"x" * 100),
        rawhttp2.PREFACE + b"\xff\xff\xff\x01\x04\x00\x00\x00\x01",
        *(rng.randbytes(size) for size in (1, 9, 100, 70_000)),
    ]
    for node in cluster.nodes[:2]:
        for sent in nonsense:
            await asyncio.to_thread(rawhttp2.exchange, node.address, sent, wait_s=1.0)
        async with RawLog(node.address, token=TOKEN) as log:
            assert (await log.status()).node == node.name


@pytest.mark.parametrize("method", ["Log/Post", "Log/PostStream", "Log/List", "Replication/Replicate"])
@pytest.mark.parametrize(
    ("body", "end"),
    [
        (b"", True),
        (b"\x00\x00", True),
        (b"\x00\x00\x00\x00\x64only ten b", True),
        (b"\x00\x00\x00\x00\x64only ten b", False),
        (b"\x00\xff\xff\xff\xffand no more", True),
        (b"\x01\x00\x00\x00\x04abcd", True),
        (b"\x07\x00\x00\x00\x04abcd", True),
    ],
)
async def test_a_grpc_frame_that_is_cut_short_or_lies_about_itself_is_no_message(
    cluster: DevCluster, method: str, body: bytes, end: bool
) -> None:
    sent = rawhttp2.call(f"/replicad.wire.v1.{method}", token=TOKEN, body=body, end=end)
    for node in cluster.nodes[:2]:
        await asyncio.to_thread(rawhttp2.exchange, node.address, sent, wait_s=0.3)


async def test_a_path_that_is_not_utf_8_ends_its_call_and_not_the_port(cluster: DevCluster) -> None:
    sent = rawhttp2.call(b"/replicad.wire.v1.Log/Statu\xd8", token="", body=b"\0\0\0\0\0", end=True)
    for node in cluster.nodes[:2]:
        await asyncio.to_thread(rawhttp2.exchange, node.address, sent, wait_s=1.0)
        async with RawLog(node.address, token=TOKEN) as log:
            assert (await log.status()).node == node.name


async def test_connections_that_say_nothing_hold_up_nobody(cluster: DevCluster, logs: Logs) -> None:
    host, _, port = cluster.master.address.rpartition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(100)]
    try:
        async with RawLog(cluster.master.address, token=TOKEN) as log:
            assert (await log.status()).state == "open"
    finally:
        for each in silent:
            each.close()


# --- messages that are too large, too many, or not in order -----------------------------------------------------------


async def test_a_payload_over_the_limit_is_too_large_and_one_at_the_limit_is_not(logs: Logs) -> None:
    with pytest.raises(TooLarge) as caught:
        await logs["node-1"].post(bytes(PAYLOAD_BYTES + 1))
    assert (caught.value.code, caught.value.applied) == (413, Applied.NO)
    assert caught.value.grpc_status == "INVALID_ARGUMENT"


def too_large_frame() -> bytes:
    ids = [new_id() for _ in range(4)]
    return frame(ids, [bytes(PAYLOAD_BYTES)] * 4)


def frame(
    ids: list[str], payloads: list[bytes], *, headers: list[bytes] | None = None, w: str = "", sequence: int = 9
) -> bytes:
    return encode_post_frame(sequence, ids, payloads, headers or [], write_concern=w, timeout_ms=1000)


def one(message_id: str) -> bytes:
    return frame([message_id], [b""])


def header(*pairs: tuple[bytes, bytes]) -> bytes:
    """Headers as other software might encode them."""
    return b"".join(bytes((len(key),)) + key + len(value).to_bytes(2, "big") + value for key, value in pairs)


def with_headers(encoded: bytes) -> bytes:
    return frame([new_id()], [b""], headers=[encoded])


BAD_FRAMES: dict[str, tuple[type[ServiceError], bytes]] = {
    "no messages": (BadRequest, frame([], [])),
    "more ids than payloads": (BadRequest, frame([new_id(), new_id()], [b""])),
    "more payloads than ids": (BadRequest, frame([new_id()], [b"", b""])),
    "headers for some": (BadRequest, frame([new_id(), new_id()], [b"", b""], headers=[b""])),
    "a payload too large": (TooLarge, frame([new_id()], [bytes(PAYLOAD_BYTES + 1)])),
    "a frame too large": (TooLarge, too_large_frame()),
    "too many messages": (TooLarge, frame([new_id() for _ in range(1001)], [b""] * 1001)),
    "an empty id": (BadRequest, one("")),
    "an id too long": (BadRequest, one("x" * (MAX_ID_BYTES + 1))),
    "an id that is not ASCII": (BadRequest, one("caf\u00e9")),
    "an id with a line end": (BadRequest, one("two\nlines")),
    "an id with a zero byte": (BadRequest, one("zero\0byte")),
    "an id with DEL": (BadRequest, one("\x7f")),
    "an id of the log's own": (BadRequest, one("replicad:epoch:99")),
    "one bad id among good ones": (BadRequest, frame([new_id(), "\t", new_id()], [b""] * 3)),
    "headers cut short": (BadRequest, with_headers(header((b"key", b"value"))[:-1])),
    "headers out of order": (BadRequest, with_headers(header((b"b", b""), (b"a", b"")))),
    "a header twice": (BadRequest, with_headers(header((b"a", b"1"), (b"a", b"2")))),
    "a header without a name": (BadRequest, with_headers(header((b"", b"1")))),
    "a header that is not UTF-8": (BadRequest, with_headers(header((b"a", b"\xff")))),
    "a header value too long": (BadRequest, with_headers(header((b"a", bytes(MAX_HEADER_VALUE_BYTES + 1))))),
    "too many headers": (
        BadRequest,
        with_headers(header(*((b"%03d" % number, b"") for number in range(MAX_HEADERS + 1)))),
    ),
    "an unknown write concern": (BadRequest, frame([new_id()], [b""], w="most")),
    "a write concern above the nodes": (BadRequest, frame([new_id()], [b""], w="4")),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
async def test_a_bad_frame_is_refused_as_a_whole_and_its_stream_goes_on(logs: Logs, name: str) -> None:
    kind, data = BAD_FRAMES[name]
    async with logs["node-1"].post_stream() as stream:
        await stream.send_bytes(data)
        result = await stream.result()
        assert (result.sequence, result.runs, result.errors) == (9, (), ())
        assert type(result.error) is kind
        assert result.error.applied is Applied.NO
        assert len(result.error.message) < 500

        await stream.send_bytes(frame([new_id()], [b""], w="none such", sequence=10))
        assert (await stream.result()).sequence == 10


@pytest.mark.parametrize(
    "request_",
    [
        log_pb2.PostRequest(id="", payload=b"x"),
        log_pb2.PostRequest(id="x" * 129),
        log_pb2.PostRequest(id="caf\u00e9"),
        log_pb2.PostRequest(id="replicad:mine"),
        log_pb2.PostRequest(id="good", headers={"": "no name"}),
        log_pb2.PostRequest(id="good", headers={"k": "v" * (MAX_HEADER_VALUE_BYTES + 1)}),
        log_pb2.PostRequest(id="good", headers={str(number): "" for number in range(MAX_HEADERS + 1)}),
        log_pb2.PostRequest(id="good", write_concern="everyone"),
    ],
    ids=lambda request: str(request)[:40],
)
async def test_a_bad_post_is_a_bad_request(logs: Logs, request_: log_pb2.PostRequest) -> None:
    with pytest.raises(BadRequest) as caught:
        await logs["node-1"].call("Post", request_.SerializeToString())
    assert caught.value.applied is Applied.NO


async def test_an_error_that_would_be_too_long_for_its_trailers_is_cut(logs: Logs) -> None:
    """gRPC would give all of them up, and the caller hear of nothing but that."""
    log = logs["node-1"]
    switch: aio.UnaryUnaryMultiCallable[bytes, bytes] = log.channel.unary_unary("/replicad.wire.v1.Control/Switchover")
    request = control_pb2.SwitchoverRequest(to="x" * 20_000).SerializeToString()
    with pytest.raises(aio.AioRpcError) as caught:
        await switch(request, metadata=log.metadata, timeout=CALL_S)
    error = fault_of(caught.value)
    assert isinstance(error, BadRequest)
    assert error.message.endswith("xxx ...")


@pytest.mark.parametrize("message_id", ["", "x" * 129, "x" * 1_000_000, "caf\u00e9", "a\nb"], ids=lambda i: i[:8])
async def test_the_outcome_of_an_id_that_can_not_be_is_a_bad_request(logs: Logs, message_id: str) -> None:
    for log in logs.values():
        with pytest.raises(BadRequest) as caught:
            await log.outcome(message_id)
        assert len(caught.value.message) < 500


async def test_the_outcome_of_an_id_that_is_not_in_the_log_is_not_found_and_workers_name_the_master(logs: Logs) -> None:
    with pytest.raises(NotFound) as caught:
        await logs["node-1"].outcome(new_id())
    assert (caught.value.code, caught.value.applied) == (404, Applied.NOT_A_POST)
    for worker in ("node-2", "node-3"):
        with pytest.raises(NotMaster) as named:
            await logs[worker].outcome(new_id())
        assert named.value.master == "node-1"


async def test_a_message_beyond_what_grpc_takes_ends_the_call_and_no_more(cluster: DevCluster, logs: Logs) -> None:
    for method in METHODS:
        if method == "Replication/Replicate":
            continue  # a worker's master would be cut off by it for a moment: see the next test
        with pytest.raises(aio.AioRpcError) as caught:
            await send(cluster.master.address, method, [bytes(64 << 20)], metadata=with_token())
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_frame_beyond_what_grpc_takes_on_replicate_leaves_the_real_master_alone(
    cluster: DevCluster, logs: Logs
) -> None:
    with pytest.raises(aio.AioRpcError) as caught:
        await send(cluster.node("node-2").address, "Replication/Replicate", [bytes(64 << 20)], metadata=with_token())
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await logs["node-2"].status()).state == "following"


# --- too much at once -------------------------------------------------------------------------------------------------


async def test_more_connections_than_the_limit_are_refused_and_told_when_to_come_back(cluster: DevCluster) -> None:
    address = cluster.node("node-2").address
    async with AsyncExitStack() as stack:

        async def begin_tail() -> None:
            log = await stack.enter_async_context(RawLog(address, token=TOKEN))
            call: aio.UnaryStreamMultiCallable[bytes, bytes] = log.channel.unary_stream("/replicad.wire.v1.Log/Tail")
            tail = call(b"", metadata=log.metadata)
            stack.callback(tail.cancel)
            await tail.read()

        for _ in range(CONNECTIONS):
            await begin_tail()
        with pytest.raises(aio.AioRpcError) as caught:
            await begin_tail()
        fault = fault_of(caught.value)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert isinstance(fault, RateLimited)
        assert fault.retry_after_s

        async with aio.insecure_channel(address) as channel:
            check: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/grpc.health.v1.Health/Check")
            assert await check(b"")  # a probe gets through
        async with FakeMaster(address, token=TOKEN) as master:
            answer = await master.hello(0)
            assert isinstance(answer, Refused)  # by its epoch alone: a master gets through
            assert answer.reason == "epoch"


async def test_a_client_that_reads_no_answers_is_slowed_down_and_costs_no_memory(
    cluster: DevCluster, logs: Logs
) -> None:
    before = await logs["node-1"].status()
    async with RawLog(cluster.master.address, token=TOKEN) as greedy, greedy.post_stream() as stream:
        bad = one("x" * 1000)
        sent = 0

        async def flood() -> None:
            nonlocal sent
            for sent in range(FLOOD):  # noqa: B007 - read outside
                await stream.send_bytes(bad)

        flooding = asyncio.create_task(flood())
        seen, looks = -1, 0

        async def stands_still() -> bool:
            """Nothing more was sent over many looks, in each of which the node served another client."""
            nonlocal seen, looks
            await logs["node-1"].status()
            seen, looks = sent, looks + 1 if sent == seen else 0
            return looks == 30

        await eventually(stands_still, within_s=60, what="the client has to wait")
        assert not flooding.done()
        flooding.cancel()
        after = await logs["node-1"].status()
        assert after.rss_bytes - before.rss_bytes < 32 << 20
