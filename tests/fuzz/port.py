"""Fuzzing a daemon's port: mutated calls of every method, and HTTP/2 that no library would send.

Owns the attacks. Each is made from the seed and its number alone, so that one can be replayed; each is bounded in time
and bytes. Only loopback addresses are given to it. Must not know what else goes on: whether the node lives, keeps its
log and serves others is for who runs this to look at.

A node's own credential is not attacked with: whoever has the shared token may say Hello as the master, and is believed.
"""

from __future__ import annotations

import asyncio
import gzip
import random
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
from grpc import aio

from replicad.core.frames import Hello
from replicad.errors import InternalError, PeerError
from replicad.wire.codec import decode_master_frame
from tests.fuzz.mutate import mutate
from tests.fuzz.registry import FindingError, shown
from tests.fuzz.targets import TARGETS
from tests.support import rawhttp2
from tests.support.rawlog import OPTIONS, fault_of

LOG, CONTROL, REPLICATION = (f"/replicad.wire.v1.{each}" for each in ("Log", "Control", "Replication"))
REPLICATE = f"{REPLICATION}/Replicate"
CALL_S = 1.0  # a Tail has no end, and a stream may wait for more
RAW_S = 0.3
AT_ONCE = 4
FRAMES = 200  # of one flood

#: Each method: how many requests it takes, and the target whose inputs are its requests.
_METHODS: dict[str, tuple[bool, str]] = {
    f"{LOG}/Post": (False, "wire.post_request"),
    f"{LOG}/PostStream": (True, "wire.post_frame"),
    f"{LOG}/List": (False, "wire.requests"),
    f"{LOG}/Tail": (False, "wire.requests"),
    f"{LOG}/Outcome": (False, "wire.requests"),
    f"{LOG}/Status": (False, "wire.requests"),
    f"{CONTROL}/Promote": (False, "wire.requests"),
    f"{CONTROL}/Switchover": (False, "wire.requests"),
    REPLICATE: (True, "wire.master_frame"),
    f"{REPLICATION}/Batches": (False, "wire.requests"),
    f"{REPLICATION}/End": (False, "wire.requests"),
    "/grpc.health.v1.Health/Check": (False, "wire.health"),
    "/grpc.health.v1.Health/Watch": (False, "wire.health"),
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": (True, "wire.reflection"),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": (True, "wire.reflection"),
}
METHODS = tuple(_METHODS)


class PortFuzz:
    """Attacks on the nodes at ``addresses``; ``token`` is the one that clients have."""

    def __init__(self, addresses: Sequence[str], *, token: str, seed: int) -> None:
        self._addresses, self._token, self._seed = addresses, token, seed
        self._inputs = {name: _without_kind(name) for _, name in _METHODS.values()}
        self.answers: Counter[str] = Counter()  # by attack and what came of it
        self._attacks: tuple[Callable[[str, random.Random], Awaitable[str]], ...] = (
            self._call,
            self._call,
            self._call,
            self._cancelled_call,
            self._metadata,
            self._raw_bytes,
            self._raw_frames,
            self._compressed,
            self._odd_headers,
            self._left_open,
        )

    async def run(self, *, attacks: int = 1 << 62, seconds: float = 1e9) -> int:
        """So many attacks, or for so long, a few at a time; how many there were. Raises FindingError."""
        deadline, numbers, done = time.monotonic() + seconds, iter(range(attacks)), 0

        async def work() -> None:
            nonlocal done
            for number in numbers:
                if time.monotonic() >= deadline:
                    return
                await self.attack(number)
                done += 1

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(work())
        except* FindingError as found:
            raise FindingError(str(found.exceptions[0])) from found.exceptions[0]
        return done

    async def attack(self, number: int) -> None:
        """The attack of that number."""
        rng = random.Random(f"{self._seed} {number}")
        attack, address = rng.choice(self._attacks), rng.choice(self._addresses)
        try:
            answer = await attack(address, rng)
        except FindingError as exc:
            raise FindingError(f"seed {self._seed}, attack {number} on {address}: {exc}") from exc
        self.answers[f"{attack.__name__.strip('_')}: {answer}"] += 1

    # --- calls, as a gRPC library makes them ----------------------------------------------------------------------

    def _requests(self, method: str, rng: random.Random) -> list[bytes]:
        many, name = _METHODS[method]
        inputs = self._inputs[name]
        count = rng.randint(1, 5) if many else 1
        made = [
            rng.choice(inputs) if rng.random() < 0.3 else mutate(rng.choice(inputs), rng, inputs) for _ in range(count)
        ]
        return [data for data in made if not _is_believed(data)] if method == REPLICATE else made

    def _good_metadata(self, rng: random.Random) -> tuple[tuple[str, str | bytes], ...]:
        token = self._token if rng.random() < 0.9 else rng.choice(("", "x", self._token[:-1]))
        return (("authorization", f"Bearer {token}"),)

    async def _call(self, address: str, rng: random.Random) -> str:
        method = rng.choice(METHODS)
        return await self._ask(address, method, self._requests(method, rng), self._good_metadata(rng))

    async def _metadata(self, address: str, rng: random.Random) -> str:
        method = rng.choice(METHODS)
        pairs: list[tuple[str, str | bytes]] = [("authorization", f"Bearer {self._token}")] * rng.randint(0, 3)
        for number in range(rng.choice((1, 10, 200))):
            pairs.append((f"x-{number}-bin", rng.randbytes(rng.choice((0, 10, 500)))))
        pairs.append(("grpc-timeout-x", "9" * rng.choice((1, 100, 20_000))))
        rng.shuffle(pairs)
        return await self._ask(address, method, self._requests(method, rng), tuple(pairs))

    async def _ask(self, address: str, method: str, requests: list[bytes], metadata: Any) -> str:
        async with aio.insecure_channel(address, options=OPTIONS) as channel:
            call: aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)
            try:
                async for _ in call(iter(requests), metadata=metadata, timeout=CALL_S):
                    pass
            except aio.AioRpcError as exc:
                if exc.code() is grpc.StatusCode.UNKNOWN or isinstance(fault_of(exc), InternalError):
                    sent = ", ".join(map(shown, requests))
                    raise FindingError(f"{method} answers {exc.code().name} ({exc.details()}) to {sent}") from exc
                return exc.code().name
            return "OK"

    async def _cancelled_call(self, address: str, rng: random.Random) -> str:
        method = rng.choice(METHODS)
        async with aio.insecure_channel(address, options=OPTIONS) as channel:
            stream: aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)
            call = stream(metadata=self._good_metadata(rng), timeout=CALL_S)
            with suppress(aio.AioRpcError, asyncio.InvalidStateError, asyncio.CancelledError):
                for data in self._requests(method, rng):
                    await call.write(data)
                if rng.random() < 0.5:
                    await call.read()
            call.cancel()
        return "cancelled"

    # --- bytes, as none makes them --------------------------------------------------------------------------------

    def _opening(self, rng: random.Random, body: bytes, *, end: bool, path: str | None = None) -> bytes:
        return rawhttp2.call(path or rng.choice(METHODS), token=self._token, body=body, end=end)

    def _body(self, rng: random.Random) -> bytes:
        inputs = self._inputs["wire.post_frame"]
        data = mutate(rng.choice(inputs), rng, inputs)
        return b"\0" + len(data).to_bytes(4, "big") + data

    async def _raw_bytes(self, address: str, rng: random.Random) -> str:
        """A call of which a bit or more is wrong anywhere behind the preface, the path included."""
        sent = self._opening(rng, self._body(rng), end=True)
        start = len(rawhttp2.PREFACE)
        return await _send(address, sent[:start] + mutate(sent[start:], rng))

    async def _raw_frames(self, address: str, rng: random.Random) -> str:
        """Frames of every kind, also those that there are not, on streams that are and are not open."""
        parts = [self._opening(rng, self._body(rng), end=False)]
        flood = rng.random() < 0.3
        kind, flags = rng.randrange(12), rng.randrange(256)
        for _ in range(FRAMES if flood else rng.randint(1, 20)):
            if not flood:
                kind, flags = rng.randrange(12), rng.randrange(256)
            payload = rng.randbytes(rng.choice((0, 4, 5, 6, 8, 8, 40)))
            parts.append(rawhttp2.frame(kind, flags, rng.choice((0, 1, 1, 3, 2, (1 << 31) - 1)), payload))
        return await _send(address, b"".join(parts))

    async def _compressed(self, address: str, rng: random.Random) -> str:
        """A message that says it is compressed: as told in the headers or not, whole or not, or far larger than it
        looks."""
        plain = rng.choice((b"", self._body(rng)[5:], bytes(1 << 20), bytes(32 << 20)))
        data = rng.choice((gzip.compress(plain), zlib.compress(plain), plain[:1000]))
        if rng.random() < 0.5:
            data = mutate(data, rng)
        body = bytes((rng.choice((1, 1, 1, 2, 255)),)) + len(data).to_bytes(4, "big") + data
        encoding = rng.choice(("gzip", "deflate", "identity", "snappy", ""))
        return await _send(address, self._headers_and(rng, body, [("grpc-encoding", encoding)] if encoding else []))

    async def _odd_headers(self, address: str, rng: random.Random) -> str:
        pairs = [
            (":method", rng.choice(("POST", "GET", "PUT", "", "PRI"))),
            (":scheme", rng.choice(("http", "https", "ftp"))),
            (":path", rng.choice(("/", "", "*", "/replicad.wire.v1.Log/", f"{LOG}/Post/x", "//", "/\x00", *METHODS))),
            (":authority", rng.choice(("localhost", "", "a" * 100))),
            ("content-type", rng.choice(("application/grpc", "application/grpc+json", "text/html", ""))),
            ("te", rng.choice(("trailers", "gzip", ""))),
            ("grpc-timeout", rng.choice(("1n", "99999999H", "0S", "-1S", "x", "1" * 100))),
            ("authorization", rng.choice((f"Bearer {self._token}", "Bearer \u00e9", "\x7f", ""))),
        ]
        if rng.random() < 0.3:
            rng.shuffle(pairs)
        pairs = pairs[: rng.randint(1, len(pairs))] + rng.choices(pairs, k=rng.randint(0, 2))
        return await _send(address, self._with(pairs, self._body(rng)))

    def _headers_and(self, rng: random.Random, body: bytes, more: list[tuple[str, str]]) -> bytes:
        pairs = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", rng.choice(METHODS)),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("authorization", f"Bearer {self._token}"),
            *more,
        ]
        return self._with(pairs, body)

    def _with(self, pairs: Sequence[tuple[str, str]], body: bytes) -> bytes:
        opening = rawhttp2.PREFACE + rawhttp2.frame(rawhttp2.SETTINGS, 0, 0, b"")
        opening += rawhttp2.frame(rawhttp2.HEADERS, rawhttp2.END_HEADERS, 1, rawhttp2.headers(pairs))
        parts = [body[at : at + 16_384] for at in range(0, max(1, min(len(body), 60_000)), 16_384)]
        for number, part in enumerate(parts, 1):
            opening += rawhttp2.frame(rawhttp2.DATA, rawhttp2.END_STREAM * (number == len(parts)), 1, part)
        return opening

    async def _left_open(self, address: str, rng: random.Random) -> str:
        """A call in the midst of which the client falls silent, then is gone without a word."""
        host, _, port = address.rpartition(":")
        body = self._body(rng)
        with suppress(OSError):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(self._opening(rng, body[: rng.randrange(len(body))], end=False))
            await writer.drain()
            await asyncio.sleep(rng.choice((0, 0.05)))
            writer.transport.abort()
        return "gone"


async def _send(address: str, sent: bytes) -> str:
    try:
        answer = await asyncio.to_thread(rawhttp2.exchange, address, sent, wait_s=RAW_S)
    except OSError as exc:
        raise FindingError(f"nobody takes connections: {exc}") from exc
    return "answered" if answer else "no answer"


def _without_kind(name: str) -> list[bytes]:
    inputs = TARGETS[name].inputs()
    return [data[1:] for data in inputs] if name == "wire.requests" else inputs


def _is_believed(data: bytes) -> bool:
    try:
        frame = decode_master_frame(data)
    except PeerError:
        return False
    return isinstance(frame, Hello) and frame.epoch > 0


def main(*, seconds: float, seed: int) -> int:
    """The long run of ``make fuzz TARGET=port``: a cluster of three, attacked while an honest client posts."""
    from tests.fuzz.honest import attacked_cluster  # noqa: PLC0415 - it imports this module

    print(f"port, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="replicad-fuzz-") as folder:
        try:
            told = attacked_cluster(Path(folder), seed=seed, seconds=seconds)
        except AssertionError as exc:
            print(f"  FOUND {exc}")
            return 1
        print(told)
    return 0
