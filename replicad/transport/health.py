"""The standard gRPC health service (grpc/doc/health-checking.md): SERVING when this node does its role's work.

Open to all: a probe has no token. Must not know what makes a node ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from replicad.errors import NotFound
from replicad.transport.calls import Context, parse_request
from replicad.wire.v1 import health_pb2 as pb

SERVICES = ("", "replicad.wire.v1.Log", "replicad.wire.v1.Replication")
_STATUS = pb.HealthCheckResponse


class Health:
    """1. "" (the node) and each service are SERVING or not, all alike; others are unknown."""

    def __init__(self) -> None:
        self._serving = False
        self._changed: asyncio.Future[None] | None = None

    def set_serving(self, serving: bool) -> None:
        if serving == self._serving:
            return
        self._serving = serving
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def _status(self) -> int:
        return _STATUS.SERVING if self._serving else _STATUS.NOT_SERVING

    async def check(self, request: bytes, author: str) -> bytes:
        """The handler of Check."""
        del author
        service = parse_request(pb.HealthCheckRequest, request).service
        if service not in SERVICES:
            raise NotFound(f"no service {service[:64]!r} here")
        return _STATUS(status=self._status()).SerializeToString()  # type: ignore[arg-type]

    async def watch(self, request: bytes, context: Context, author: str) -> AsyncGenerator[bytes, None]:
        """The handler of Watch: the status now and whenever it changes; of an unknown service too, as the protocol
        has it."""
        del context, author
        service = parse_request(pb.HealthCheckRequest, request).service
        if service not in SERVICES:
            yield _STATUS(status=_STATUS.SERVICE_UNKNOWN).SerializeToString()
            await asyncio.get_running_loop().create_future()  # never: the services do not change
        while True:
            if self._changed is None or self._changed.done():
                self._changed = asyncio.get_running_loop().create_future()
            changed = self._changed
            yield _STATUS(status=self._status()).SerializeToString()  # type: ignore[arg-type]
            await asyncio.shield(changed)
