"""A master that says whatever a test wants: it has the token and, where the test says so, the real node's key.

Owns one Replicate stream to a worker, and the making of batches both right and wrong. Must not know what the worker
should make of them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from types import TracebackType
from typing import Self, cast

import grpc
from grpc import aio

from replicad import keys
from replicad.core.batch import Append, Batch, statement_of
from replicad.core.frames import Ack, AppendBatch, Hello, MasterFrame, Refused, Welcome, WorkerFrame
from replicad.core.record import Messages
from replicad.core.seal import Part, Sealer
from replicad.core.tree import Tree, leaf_hashes
from replicad.dev import DevNode
from replicad.keys import Signer
from replicad.tasks import next_message
from replicad.wire.codec import decode_worker_frame, encode_master_frame, encode_records
from replicad.wire.v1 import log_pb2
from tests.support.rawlog import CALL_S, LOG, OPTIONS, RawLog

REPLICATE = "/replicad.wire.v1.Replication/Replicate"
CLUSTER = "dev"  # as DevCluster names it


def signer_of(node: DevNode) -> Signer:
    """The node's own key."""
    return keys.load_signer(node.folder / "key", node.name)


class History:
    """A log as its master seals it; ``tree`` is over all of it."""

    def __init__(self, signer: Signer, *, epoch: int = 1, cluster: str = CLUSTER) -> None:
        self.epoch, self.tree = epoch, Tree()
        self.signer, self._cluster = signer, cluster
        self._time_ms = 1_700_000_000_000

    def batch(self, *ids: str, payloads: Sequence[bytes] | None = None, epoch: int | None = None) -> Batch:
        """The next batch, right in everything; a payload names its id unless given."""
        return self.append(*ids, payloads=payloads, epoch=epoch).batch

    def append(self, *ids: str, payloads: Sequence[bytes] | None = None, epoch: int | None = None) -> Append:
        bodies = [each.encode() for each in ids] if payloads is None else list(payloads)
        sealer = Sealer(self._cluster, self.signer.name, self.signer.sign, encode_records, os.urandom)
        self._time_ms += 1
        messages = Messages(list(ids), bodies, [], sum(map(len, bodies)))
        part = Part(messages, "token")
        return sealer.seal([part], tree=self.tree, epoch=epoch or self.epoch, time_ms=self._time_ms)

    def copy(self, *, signer: Signer | None = None) -> History:
        """A history that has been the same up to now, and goes on as another."""
        twin = History(signer or self.signer, epoch=self.epoch, cluster=self._cluster)
        twin.tree, twin._time_ms = self.tree.copy(), self._time_ms
        return twin


async def tree_of(log: RawLog) -> Tree:
    """The tree over all that a node has, from the leaves that it lists."""
    tree = Tree()
    call: aio.UnaryStreamMultiCallable[bytes, bytes] = log.channel.unary_stream(f"{LOG}/List")
    async for data in call(log_pb2.ListRequest(level="local").SerializeToString(), metadata=log.metadata):
        for records in log_pb2.ListResponse.FromString(data).records:
            tree.append(leaf_hashes(records.leaves))
    return tree


def sign_anew(batch: Batch, signer: Signer, *, cluster: str = CLUSTER) -> bytes:
    """The signature by ``signer``, under the batch's signer's name, of what the batch says."""
    return signer.sign(statement_of(batch, cluster=cluster))


class FakeMaster:
    """A Replicate stream to the worker at ``address``."""

    def __init__(self, address: str, *, token: str = "", credentials: grpc.ChannelCredentials | None = None) -> None:
        """``credentials``: to a worker with TLS, at its mutual address."""
        if credentials is None:
            self._channel = aio.insecure_channel(address, options=OPTIONS)
        else:
            self._channel = aio.secure_channel(address, credentials, options=OPTIONS)
        replicate: aio.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(REPLICATE)
        self.call = replicate(metadata=(("authorization", f"Bearer {token}"),) if token else (), wait_for_ready=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.call.cancel()
        await self._channel.close()

    async def send(self, *frames: MasterFrame | bytes) -> None:
        """Send frames; bytes go as they are."""
        for frame in frames:
            await self.call.write(frame if isinstance(frame, bytes) else encode_master_frame(frame))

    async def receive(self) -> WorkerFrame | None:
        """The worker's next frame; None at the stream's good end. Raises AioRpcError at a bad one."""
        async with asyncio.timeout(CALL_S):
            data = await next_message(self.call)
        return None if data is aio.EOF else decode_worker_frame(cast(bytes, data))

    async def hello(self, epoch: int, *, master: str = "node-1", cluster: str = CLUSTER) -> WorkerFrame | None:
        """Say Hello; the worker's answer."""
        await self.send(Hello(cluster, master, epoch))
        return await self.receive()

    async def welcomed(self, epoch: int, *, master: str = "node-1") -> Welcome:
        answer = await self.hello(epoch, master=master)
        assert isinstance(answer, Welcome), answer
        return answer

    async def append(self, *batches: Batch, commit_size: int = 0) -> None:
        """Send batches and wait until the worker has them on disk."""
        await self.send(*(AppendBatch(batch, commit_size) for batch in batches))
        while True:
            answer = await self.receive()
            assert isinstance(answer, Ack), answer
            if answer.size == batches[-1].end:
                return

    async def refused(self) -> Refused:
        """The worker's refusal, which must be its last word."""
        answer = await self.receive()
        while isinstance(answer, Ack):  # of what it had taken before
            answer = await self.receive()
        assert isinstance(answer, Refused), answer
        assert await self.receive() is None
        return answer
