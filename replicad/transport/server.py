"""The gRPC server: which method is served by whom. A table, so that serializers can be raw bytes.

Owns the listening port. Must not know what the methods do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import grpc
from grpc import aio

from replicad.config import Config
from replicad.errors import OperatorError
from replicad.logs import Logger
from replicad.runtime import Runtime
from replicad.transport.calls import Gate, Session, options
from replicad.transport.health import Health
from replicad.transport.links import Acceptor
from replicad.transport.poststream import Posting, only_outcome
from replicad.transport.reading import Reading
from replicad.transport.reflection import SERVICES as REFLECTION
from replicad.transport.reflection import Reflection
from replicad.transport.status import Status
from replicad.transport.tls import NodeTls, node_names
from replicad.wire.v1 import health_pb2, log_pb2, replication_pb2

LOG = "replicad.wire.v1.Log"
REPLICATION = "replicad.wire.v1.Replication"
HEALTH = "grpc.health.v1.Health"
RECORD_OVERHEAD_BYTES = 600  # leaf, salt and framing of one record, at the longest id and author


class Server:
    """1. ``start`` returns when the port takes calls, or raises OperatorError."""

    def __init__(
        self, config: Config, runtime: Runtime, *, key_id: Callable[[], str], log: Logger, tls: NodeTls | None = None
    ) -> None:
        """``key_id`` tells which key signs all that is not on disk yet."""
        self._config, self._runtime, self._log, self._tls = config, runtime, log, tls
        for logger in ("grpc._cython.cygrpc", "asyncio"):  # the latter hears of it from older releases of gRPC
            logging.getLogger(logger).addFilter(_is_news)
        self.health = Health()
        self.posting = Posting(runtime, config)
        expires_ms = (lambda: tls.identity.expires_ms) if tls else (lambda: 0)
        self._reading = Reading(runtime, config)
        self._status = Status(runtime, config, key_id=key_id, certificate_expires_ms=expires_ms)
        limits = config.limits
        self._gate = Gate(
            token=config.auth_token,
            streams=limits.streams,
            connections=limits.connections,
            log=log,
            admit=tls.admit if tls else lambda _: Session(),
        )
        records = limits.batch_records * RECORD_OVERHEAD_BYTES
        # The largest message is a master's batch: one whole frame of a client at the most, and its records' leaves.
        message_bytes = limits.payload_bytes + max(limits.frame_bytes, limits.batch_bytes) + records + (1 << 20)
        self._server = aio.server(options=options(message_bytes=message_bytes, streams=limits.streams))
        for service, methods in self._methods().items():
            handler = grpc.method_handlers_generic_handler(service, methods)
            self._server.add_generic_rpc_handlers((handler,))

    def _methods(self) -> dict[str, dict[str, Any]]:
        gate, reading, status = self._gate, self._reading, self._status
        acceptor = Acceptor(self._runtime, log=self._log, names=node_names if self._tls else None)
        services: dict[str, dict[str, Any]] = {
            LOG: {
                "Post": _unary(gate.unary(self._post)),
                "PostStream": _both(gate.streaming(self.posting.post_stream)),
                "List": _down(gate.streaming(reading.list_records)),
                "Tail": _down(gate.streaming(reading.tail)),
                "Outcome": _unary(gate.unary(status.outcome)),
                "Status": _unary(gate.unary(status.status)),
            },
            REPLICATION: {"Replicate": _both(gate.streaming(acceptor.replicate, limited=False))},
            HEALTH: {
                "Check": _unary(gate.unary(self.health.check, open_to_all=True)),
                "Watch": _down(gate.streaming(self.health.watch, open_to_all=True)),
            },
        }
        if self._config.reflection:
            files = [module.DESCRIPTOR for module in (log_pb2, replication_pb2, health_pb2)]
            for service, protocol in REFLECTION.items():
                info = gate.streaming(Reflection(protocol, files).info, open_to_all=True)
                services[service] = {"ServerReflectionInfo": _both(info)}
        return services

    async def _post(self, request: bytes, author: str) -> bytes:
        offset, duplicate, nodes = only_outcome(await self.posting.post(request, author))
        code, name = (409, "DUPLICATE_RECEIVED") if duplicate else (200, "OK")
        return log_pb2.PostResponse(
            code=code, name=name, offset=offset, duplicate=duplicate, nodes=nodes
        ).SerializeToString()

    def configure(self, config: Config) -> None:
        """Go by the live keys of ``config``; the port, and what gRPC was told when it opened, stay as they are."""
        self._config = config
        self._gate.connections = config.limits.connections
        for part in (self.posting, self._reading, self._status):
            part.configure(config)

    async def start(self) -> None:
        tls, config = self._tls, self._config
        if tls is None or config.tls is None:
            _add_port(self._server.add_insecure_port, config.listen, "listen or PORT")
        else:
            open_port, mutual_port = tls.server_credentials(mutual=False), tls.server_credentials(mutual=True)
            add = self._server.add_secure_port
            _add_port(lambda address: add(address, open_port), config.listen, "listen or PORT")
            _add_port(lambda address: add(address, mutual_port), config.tls.mutual_listen, "tls.mutual_listen")
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Answer what is under way for up to ``grace_s`` seconds; then end all calls."""
        self.posting.stopping = True
        self.health.set_serving(False)
        await self._runtime.drain(grace_s)
        await self._server.stop(STOP_CALLS_S)


STOP_CALLS_S = 0.5  # for the last answers to go out; tails and replication would never end by themselves


def _add_port(add: Callable[[str], int], address: str, key: str) -> None:
    """Raises OperatorError when it can't be had: as older releases of gRPC tell by 0, newer ones by RuntimeError."""
    refusal = OperatorError(f"cannot listen on {address}: is another program there? change {key}")
    try:
        port = add(address)
    except RuntimeError as exc:
        raise refusal from exc
    if not port:
        raise refusal


def _is_news(record: logging.LogRecord) -> bool:
    """Whether what gRPC logs is worth a line: that a client left while an answer was on its way to it is not."""
    exc = record.exc_info[1] if record.exc_info else None
    return type(exc).__name__ != "ExecuteBatchError"  # gRPC has no public name for it


def _unary(handler: Callable[..., Any]) -> Any:
    return grpc.unary_unary_rpc_method_handler(handler)


def _down(handler: Callable[..., Any]) -> Any:
    return grpc.unary_stream_rpc_method_handler(handler)


def _both(handler: Callable[..., Any]) -> Any:
    return grpc.stream_stream_rpc_method_handler(handler)
