"""The gRPC server: which method is served by whom. A table, so that serializers can be raw bytes.

Owns the listening port. Must not know what the methods do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import grpc
from grpc import aio

from replicad.access import RULES, Rule
from replicad.config import Config
from replicad.errors import OperatorError, invariant
from replicad.logs import Logger
from replicad.rates import Rate
from replicad.runtime import Runtime
from replicad.transport.calls import Gate, StreamingCall, UnaryCall, options
from replicad.transport.control import Control
from replicad.transport.health import Health
from replicad.transport.links import Acceptor
from replicad.transport.poststream import Posting, only_outcome
from replicad.transport.reading import Reading
from replicad.transport.reflection import SERVICES as REFLECTION
from replicad.transport.reflection import Reflection
from replicad.transport.status import Status
from replicad.transport.supplying import Supplying
from replicad.transport.tls import NodeTls, node_names
from replicad.wire.v1 import control_pb2, health_pb2, log_pb2, replication_pb2

LOG = "/replicad.wire.v1.Log"
CONTROL = "/replicad.wire.v1.Control"
REPLICATION = "/replicad.wire.v1.Replication"
HEALTH = "/grpc.health.v1.Health"
RECORD_OVERHEAD_BYTES = 600  # leaf, salt and framing of one record, at the longest id and author


class Server:
    """1. ``start`` returns when the port takes calls, or raises OperatorError."""

    def __init__(
        self,
        config: Config,
        runtime: Runtime,
        *,
        key_id: Callable[[], str],
        health_of_disk: Callable[[], tuple[str, int]],
        log: Logger,
        tls: NodeTls | None = None,
    ) -> None:
        """``key_id`` tells which key signs all that is not on disk yet; ``health_of_disk`` what is damaged there, and
        when it was last looked over, in milliseconds since 1970."""
        self._config, self._runtime, self._log, self._tls = config, runtime, log, tls
        for logger in ("grpc._cython.cygrpc", "asyncio"):  # the latter hears of it from older releases of gRPC
            logging.getLogger(logger).addFilter(_is_news)
        self.health = Health()
        self.posting = Posting(runtime, config)
        expires_ms = (lambda: tls.identity.expires_ms) if tls else (lambda: 0)
        self._reading = Reading(runtime, config)
        self._status = Status(
            runtime, config, key_id=key_id, health_of_disk=health_of_disk, certificate_expires_ms=expires_ms
        )
        self._control = Control(runtime, config, log=log)
        self._supplying = Supplying(runtime, config)
        limits = config.limits
        self._gate = Gate(config, log=log, admit=tls.admit if tls else lambda _: None)
        self._rates = self.posting.rates
        self._set_rates(config)
        records = limits.batch_records * RECORD_OVERHEAD_BYTES
        # The largest message is a master's batch: one whole frame of a client at the most, and its records' leaves.
        message_bytes = limits.payload_bytes + max(limits.frame_bytes, limits.batch_bytes) + records + (1 << 20)
        self._server = aio.server(options=options(config, message_bytes=message_bytes))
        services: dict[str, dict[str, Any]] = {}
        for path, handler_for in self._methods().items():
            _, service, method = path.split("/")
            invariant(path in RULES, f"{path} has no rule in replicad/access.py")
            services.setdefault(service, {})[method] = handler_for(RULES[path])
        for service, methods in services.items():
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))

    @property
    def is_open(self) -> bool:
        """Whether nobody is named who may call: without TLS all are let in then, with it none."""
        return self._gate.access.book.is_open

    def _methods(self) -> dict[str, Callable[[Rule], Any]]:
        """Each method's handler, for those whom its rule lets in."""
        reading, status = self._reading, self._status
        acceptor = Acceptor(self._runtime, log=self._log, names=node_names if self._tls else None)
        methods = {
            f"{LOG}/Post": self._unary(self._post),
            f"{LOG}/PostStream": self._both(self.posting.post_stream),
            f"{LOG}/List": self._down(reading.list_records),
            f"{LOG}/Tail": self._down(reading.tail),
            f"{LOG}/Outcome": self._unary(status.outcome),
            f"{LOG}/Status": self._unary(status.status),
            f"{CONTROL}/Promote": self._unary(self._control.promote),
            f"{CONTROL}/Switchover": self._unary(self._control.switchover),
            f"{REPLICATION}/Replicate": self._both(acceptor.replicate),
            f"{REPLICATION}/Batches": self._down(self._supplying.batches),
            f"{REPLICATION}/End": self._unary(self._supplying.end),
            f"{HEALTH}/Check": self._unary(self.health.check),
            f"{HEALTH}/Watch": self._down(self.health.watch),
        }
        if self._config.reflection:
            files = [module.DESCRIPTOR for module in (log_pb2, control_pb2, replication_pb2, health_pb2)]
            for service, protocol in REFLECTION.items():
                methods[f"/{service}/ServerReflectionInfo"] = self._both(Reflection(protocol, files).info)
        return methods

    def _unary(self, call: UnaryCall) -> Callable[[Rule], Any]:
        return lambda rule: grpc.stream_unary_rpc_method_handler(self._gate.unary(call, rule))

    def _down(self, call: StreamingCall) -> Callable[[Rule], Any]:
        return lambda rule: grpc.stream_stream_rpc_method_handler(self._gate.streaming(call, rule))

    def _both(self, call: StreamingCall) -> Callable[[Rule], Any]:
        return lambda rule: grpc.stream_stream_rpc_method_handler(self._gate.streaming(call, rule, many=True))

    def _set_rates(self, config: Config) -> None:
        limits = config.limits
        total = Rate(limits.total_rate, limits.total_bytes)
        self._rates.configure(total=total, burst_s=limits.rate_burst_s, rate_of=self._gate.access.rate_of)

    async def _post(self, request: bytes, author: str) -> bytes:
        offset, duplicate, nodes = only_outcome(await self.posting.post(request, author))
        code, name = (409, "DUPLICATE_RECEIVED") if duplicate else (200, "OK")
        return log_pb2.PostResponse(
            code=code, name=name, offset=offset, duplicate=duplicate, nodes=nodes
        ).SerializeToString()

    def configure(self, config: Config) -> None:
        """Go by the live keys of ``config``; the port, and what gRPC was told when it opened, stay as they are."""
        self._config = config
        self._gate.configure(config)
        self._set_rates(config)
        for part in (self.posting, self._reading, self._status, self._control, self._supplying):
            part.configure(config)

    def end_untrusted(self) -> None:
        """End the streams on connections whose certificate is not believed any more."""
        if self._tls is not None:
            self._gate.end_untrusted(self._tls.believes)

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
    """Whether what gRPC logs is worth a line. Not: that a client left while an answer was on its way to it, nor that a
    stranger asked for a path that is not UTF-8."""
    exc = record.exc_info[1] if record.exc_info else None
    left = type(exc).__name__ == "ExecuteBatchError"  # gRPC has no public name for it
    return not left and not isinstance(exc, UnicodeDecodeError)
