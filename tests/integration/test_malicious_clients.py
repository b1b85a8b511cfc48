"""Clients with a token of their own, or somebody else's, who want more than it gives: over TLS, against real nodes.

SECURITY.md names these tests. What no client at all may send is in test_wire_abuse.py; who may call, in
test_who_may_call.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from replicad import fernetkeys, tokensfile
from replicad.access import Principal, Role, hash_of, new_token
from replicad.client import Encryption
from replicad.core.record import decode_headers
from replicad.dev import DevCluster
from replicad.errors import BadRequest, IdConflict, RateLimited, TooLarge, Unauthorized
from tests.support.certificates import Shown, refusal
from tests.support.commandline import CommandLine
from tests.support.fake_master import REPLICATE
from tests.support.nodes import all_level, raw_logs, reload, running_cluster
from tests.support.rawlog import LOG, RawLog, new_id

RATE, BURST_S, FRAME = 100, 2, 10
CLIENT = (Role.READER, Role.WRITER)
TOKENS = {name: new_token() for name in ("alice", "mallory", "flooder", "stolen")}
ENCRYPTION = Encryption.from_keys([fernetkeys.generate()])
SECRET = b"pay 100 to bob"


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("people") / "tokens.yaml"
    for name, token in TOKENS.items():
        rate = RATE if name == "flooder" else 0
        tokensfile.add(file, Principal(name, frozenset(CLIENT), hash=hash_of(token), rate=rate))
    return file


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, tokens: Path) -> Iterator[DevCluster]:
    settings = {"tokens_file": str(tokens), "limits": {"rate_burst": f"{BURST_S}s"}}
    with running_cluster(tmp_path_factory.mktemp("malice"), tls=True, settings=settings) as made:
        yield made


def log_of(cluster: DevCluster, name: str, *, node: str = "node-1") -> RawLog:
    credentials = Shown(Path(str(cluster.layout.ca_file))).credentials()
    return RawLog(cluster.node(node).address, token=TOKENS[name], credentials=credentials)


@pytest.fixture
async def alice(cluster: DevCluster) -> AsyncIterator[RawLog]:
    async with log_of(cluster, "alice") as log:
        yield log


@pytest.fixture
async def mallory(cluster: DevCluster) -> AsyncIterator[RawLog]:
    async with log_of(cluster, "mallory") as log:
        yield log


async def test_a_client_is_the_author_of_what_it_posts_and_writes_nothing_of_the_logs_own(
    cluster: DevCluster, mallory: RawLog
) -> None:
    async with raw_logs(cluster) as logs:
        before = await all_level(logs)
        refused: list[tuple[type[Exception], dict[str, Any]]] = [
            (BadRequest, {"id": f"replicad:epoch:{before.epoch + 1}"}),
            (BadRequest, {"headers": {"replicad:author": "alice"}}),
            (BadRequest, {"headers": {"replicad:encrypted": "fernet:not-a-tag"}}),
            (TooLarge, {"payload": bytes((1 << 20) + 1)}),
        ]
        for error, post in refused:
            with pytest.raises(error):
                await mallory.post(**post)
        shown = Shown(Path(str(cluster.layout.ca_file)))
        said = await refusal(cluster.node("node-2").address, shown, REPLICATE, token=TOKENS["mallory"])
        assert said.startswith("UNAUTHENTICATED: this call is for nodes")
        after = await all_level(logs)
        assert (after.size, after.root) == (before.size, before.root)

        mallory.metadata = (*mallory.metadata, ("author", "alice"), ("x-author", "alice"))
        posted = await mallory.post(b"from alice, really", headers={"author": "alice"}, w="all")
        for log in logs.values():
            [record] = (await log.list(posted.offset, limit=1, min_offset=posted.offset)).records
            assert record.author == "mallory"


async def test_a_flood_on_many_connections_keeps_to_its_principals_rate_and_holds_up_nobody_else(
    cluster: DevCluster, alice: RawLog
) -> None:
    over = asyncio.Event()

    async def flood() -> tuple[int, int]:
        """Frames taken and refused."""
        taken = refused = 0
        async with log_of(cluster, "flooder") as log, log.post_stream() as stream:
            while not over.is_set():
                await stream.send([new_id() for _ in range(FRAME)])
                error = (await stream.result()).error
                assert error is None or isinstance(error, RateLimited)
                taken, refused = taken + (error is None), refused + (error is not None)
        return taken, refused

    began = time.monotonic()
    floods = [asyncio.create_task(flood()) for _ in range(8)]
    offsets = [(await alice.post(b"in between", w="majority")).offset for _ in range(50)]
    await asyncio.sleep(max(0.0, began + BURST_S + 1 - time.monotonic()))  # a span to count in
    over.set()
    frames = await asyncio.gather(*floods)
    passed_s = time.monotonic() - began
    assert len(set(offsets)) == 50
    assert FRAME * sum(taken for taken, _ in frames) <= RATE * (BURST_S + passed_s) + FRAME
    assert sum(refused for _, refused in frames) > sum(taken for taken, _ in frames)


async def test_an_id_that_another_has_taken_first_is_told_as_a_conflict_and_never_as_ones_own(
    alice: RawLog, mallory: RawLog
) -> None:
    """Ids are one space for all who write: who can guess one can take it, and its owner is told."""
    taken = await mallory.post(b"mine now", id="invoice-4711")
    with pytest.raises(IdConflict) as caught:
        await alice.post(b"the invoice", id="invoice-4711")
    assert caught.value.offset == taken.offset
    assert (await alice.list(taken.offset, limit=1)).records[0].author == "mallory"


async def test_a_content_tag_that_another_author_copies_makes_a_conflict_before_and_after_the_message(
    alice: RawLog, mallory: RawLog
) -> None:
    async def post(log: RawLog, message_id: str, payload: bytes, headers: bytes) -> tuple[int, bool]:
        posted = await log.post(payload, id=message_id, headers=decode_headers(headers))
        return posted.offset, posted.duplicate

    mine = ENCRYPTION.seal("after", SECRET)
    garbage = bytes(len(mine.payload))
    offset, _ = await post(alice, "after", *mine)
    with pytest.raises(IdConflict):
        await post(mallory, "after", garbage, mine.headers)
    retry = ENCRYPTION.seal("after", SECRET)
    assert retry.payload != mine.payload
    assert await post(alice, "after", *retry) == (offset, True)
    with pytest.raises(IdConflict):
        await post(mallory, "after", *retry)  # fresh ciphertext of the same, but not the author's
    assert await post(mallory, "after", *mine) == (offset, True)  # to the byte what is there

    mine = ENCRYPTION.seal("before", SECRET)
    await post(mallory, "before", garbage, mine.headers)
    with pytest.raises(IdConflict):  # and not "duplicate", of a message that nobody has
        await post(alice, "before", *mine)


async def test_a_stolen_token_is_good_on_each_node_until_that_node_reloads_after_its_revocation(
    cluster: DevCluster, tokens: Path, alice: RawLog
) -> None:
    names = [node.name for node in cluster.nodes]
    async with AsyncExitStack() as stack:
        logs = {name: await stack.enter_async_context(log_of(cluster, "stolen", node=name)) for name in names}
        tails = {}
        for name, log in logs.items():
            tail: aio.UnaryStreamMultiCallable[bytes, bytes] = log.channel.unary_stream(f"{LOG}/Tail")
            tails[name] = asyncio.create_task(_end_of(tail(b"", metadata=log.metadata)))
            await log.status()
        stream = await stack.enter_async_context(logs["node-1"].post_stream())
        await stream.send([new_id()])
        assert (await stream.result()).error is None

        CommandLine({}).good("tokens", "revoke", "stolen", "--all", "--file", str(tokens), "--output", "json")
        await logs["node-1"].post(b"still")
        for name in reversed(names):  # the master last: until then posts go on
            assert not tails[name].done()
            await logs["node-1"].post(b"still")
            await reload(cluster, name)
            async with asyncio.timeout(5):
                assert await tails[name] is grpc.StatusCode.UNAUTHENTICATED
            with pytest.raises(Unauthorized):
                await logs[name].status()
        assert await _end_of(stream.call) is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(Unauthorized):
            await logs["node-1"].post(b"no more")
    assert (await alice.post(b"mine is good", w="all")).nodes == 3


async def _end_of(call: Any) -> grpc.StatusCode:
    with suppress(aio.AioRpcError):
        while await call.read() is not aio.EOF:
            pass
    code: grpc.StatusCode = await call.code()
    return code
