"""Connections that only cost: a thousand idle ones, and some that send a byte at a time. Posts go on beside them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from tests.support import rawhttp2
from tests.support.nodes import TOKEN, running_cluster
from tests.support.rawlog import RawLog

IDLE, SLOW, FLOODING, POSTS = 1000, 100, 100, 200
GROWTH_BYTES = 100 << 20  # for a thousand connections: 100 KiB each would be this much


@contextlib.asynccontextmanager
async def connections(address: str, count: int, first: bytes) -> AsyncIterator[list[socket.socket]]:
    """So many connections, each of which has sent ``first``."""
    host, _, port = address.rpartition(":")
    with contextlib.ExitStack() as stack:
        made = []
        for number in range(count):
            each = stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
            each.sendall(first)
            each.setblocking(False)
            made.append(each)
            if number % 50 == 0:
                await asyncio.sleep(0)
        yield made


async def closed(each: socket.socket) -> None:
    """Return when the other side has closed it."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while await loop.sock_recv(each, 65536):
            pass


async def test_posts_go_on_beside_a_thousand_idle_connections_which_are_closed_in_time(tmp_path: Path) -> None:
    settings = {"timeouts": {"idle_connection": "3s", "handshake": "2s"}}
    with running_cluster(tmp_path, nodes=1, settings=settings) as cluster:
        address = cluster.master.address
        async with RawLog(address, token=TOKEN) as log:
            await log.post(b"before")
            before = (await log.status()).rss_bytes
            greeting = rawhttp2.PREFACE + rawhttp2.frame(rawhttp2.SETTINGS, 0, 0, b"")
            async with (
                connections(address, IDLE // 2, greeting) as greeted,
                connections(address, IDLE // 2, b"") as mute,
            ):
                for number in range(POSTS):
                    await log.post(b"%d" % number)
                assert (await log.status()).rss_bytes - before < GROWTH_BYTES
                async with asyncio.timeout(30):
                    await asyncio.gather(*map(closed, [*greeted, *mute]))
            await log.post(b"after")


async def test_who_sends_a_byte_at_a_time_is_cut_off_and_holds_up_nobody(tmp_path: Path) -> None:
    settings = {"timeouts": {"idle_connection": "4s", "handshake": "2s", "request": "2s"}}
    with running_cluster(tmp_path, nodes=1, settings=settings) as cluster:
        address = cluster.master.address
        call = rawhttp2.call("/replicad.wire.v1.Log/Post", token=TOKEN, body=b"\0\0\0\x10\0" + bytes(4000), end=False)
        half_call = call[:-3000]  # a request that is announced, begun, and never comes whole
        async with (
            RawLog(address, token=TOKEN) as log,
            connections(address, SLOW // 2, b"") as slow,
            connections(address, SLOW // 2, half_call) as halves,
        ):
            await log.post(b"before")
            before = (await log.status()).rss_bytes
            ends = [asyncio.create_task(closed(each)) for each in (*slow, *halves)]
            for index in range(POSTS):
                for each, text in ((slow, rawhttp2.PREFACE[:20]), (halves, call[-3000:-1000])):
                    for one in each:
                        with contextlib.suppress(OSError):
                            one.send(text[index % len(text) : index % len(text) + 1])
                await log.post(b"%d" % index)
            assert (await log.status()).rss_bytes - before < GROWTH_BYTES
            async with asyncio.timeout(30):
                await asyncio.gather(*ends)
            await log.post(b"after")


async def test_who_pings_without_end_is_cut_off_and_who_pings_now_and_then_is_not(tmp_path: Path) -> None:
    settings = {"limits": {"ping_strikes": 2}, "timeouts": {"ping_interval": "10s"}}
    with running_cluster(tmp_path, nodes=1, settings=settings) as cluster:
        address, ping = cluster.master.address, rawhttp2.frame(rawhttp2.PING, 0, 0, b"are you?")
        greeting = rawhttp2.PREFACE + rawhttp2.frame(rawhttp2.SETTINGS, 0, 0, b"")
        async with (
            RawLog(address, token=TOKEN) as log,
            connections(address, 1, greeting + ping) as polite,
            connections(address, FLOODING, greeting + 20 * ping) as flooding,
        ):
            async with asyncio.timeout(10):
                await asyncio.gather(*map(closed, flooding))
            for number in range(POSTS):
                await log.post(b"%d" % number)
            polite[0].sendall(ping)
            async with asyncio.timeout(10):
                assert await answers_to_pings(polite[0], count=2)


async def answers_to_pings(each: socket.socket, *, count: int) -> bool:
    """Whether so many PING frames with ACK come before the other side closes it."""
    answer, received = rawhttp2.frame(rawhttp2.PING, 1, 0, b"are you?"), b""
    while received.count(answer) < count:
        part = await asyncio.get_running_loop().sock_recv(each, 65536)
        if not part:
            return False
        received += part
    return True
