"""This node's TLS: its credentials for both ports and for dialling, kept up to date while it runs.

Owns when the files are read again, what becomes of connections that today's CA bundle would not let in, and how the
end of a certificate is told (docs/adr/0017, 0018). What fits together, :mod:`replicad.certificates` says; what a
caller may do is not decided here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc

from replicad import certificates
from replicad.certificates import DAY_S, Files, Identity
from replicad.config import Config
from replicad.config import Tls as TlsConfig
from replicad.errors import ConfigError, Unauthorized
from replicad.logs import Logger
from replicad.transport.access import Context, peer_pem
from replicad.transport.addresses import by_mutual_port

KNOWN_PEERS = 256  # certificates judged since the last rotation; each takes 2 KiB, with a padded chain 100 KiB
WARN_EVERY_S, NOTICE_EVERY_S, EXPIRED_EVERY_S = 6 * 3600.0, 24 * 3600.0, 3600.0

Signature = tuple[tuple[int, int, int, int] | None, ...]


def load(config: Config, *, now_s: float) -> Identity | None:
    """What the config's files hold, checked; None without TLS. Raises ConfigError with all faults."""
    tls = config.tls
    return certificates.load(_files(tls), name=config.node, now_s=now_s) if tls else None


class NodeTls:
    """1. ``identity`` is whole and fits together at any time: new files are taken together or not at all.
    2. A server takes a rotation from the next handshake on, a dialler from its next connection on.
    """

    def __init__(
        self, config: Config, identity: Identity, *, log: Logger, clock: Callable[[], float] = time.time
    ) -> None:
        """``identity`` is what the files held at the start; ``clock`` gives seconds since 1970 UTC."""
        self._node, self._config, self._log, self._clock = config.node, cast(TlsConfig, config.tls), log, clock
        self.identity = identity
        self._seen: Signature = ()  # so that a change since the start is found at the first look
        self._unsettled = False  # the files have just changed, and do not fit together: more may be on its way
        self._refused = ""  # why what is in the files now is not taken
        self._ends_of_peers: dict[bytes, float] = {}  # by certificate: until when it is believed
        self._told_s = float("-inf")  # when the end of the certificate was last told of
        self._reconfigured = asyncio.Event()
        self._looking = asyncio.Lock()  # of two looks that overlap, the older must not have the last word
        self.on_ca_removed: Callable[[], object] = lambda: None

    # --- credentials ------------------------------------------------------------------------------------------------

    def server_credentials(self, *, mutual: bool) -> grpc.ServerCredentials:
        """For a port; ``mutual``: whoever shows no certificate of one of our CAs is not let in."""
        told = self.identity

        def fetch() -> Any:  # in gRPC's threads, before each handshake; None: as it was
            nonlocal told
            if self.identity is told:
                return None
            told = self.identity
            return _server_configuration(told)

        return grpc.dynamic_ssl_server_credentials(
            _server_configuration(told), fetch, require_client_authentication=mutual
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """For a new connection to another node's mutual port."""
        identity = self.identity
        return grpc.ssl_channel_credentials(identity.ca_pem, identity.key_pem, identity.certificate_pem)

    # --- callers ----------------------------------------------------------------------------------------------------

    def admit(self, context: Context) -> None:
        """Raises Unauthorized when the certificate of a call's connection would not be let in today."""
        pem = peer_pem(context.auth_context())
        by_mutual_port.set(bool(pem))
        if pem and not self.believes(pem):
            raise Unauthorized(
                "the certificate of this connection has expired, or its CA is not in the bundle any more"
            )

    def believes(self, pem: bytes) -> bool:
        """Whether a certificate (with its chain) is valid now, and of a CA in the bundle."""
        now_s = self._clock()
        end_s = self._ends_of_peers.get(pem)
        if end_s is None:
            if len(self._ends_of_peers) >= KNOWN_PEERS:
                self._ends_of_peers.clear()
            end_s = self._ends_of_peers[pem] = self.identity.believed_until_s(pem, now_s=now_s)
        return now_s < end_s

    # --- rotation ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look at the files every now and then, and tell of the certificate's end, until cancelled."""
        while True:
            await self._look()
            self._tell_end()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._config.poll_s):
                    await self._reconfigured.wait()
            self._reconfigured.clear()

    async def configure(self, config: Config) -> None:
        """Go by the live keys of ``config``, and read the files now: a reload asks for it."""
        if config.tls is not None:
            self._config = config.tls
            self._told_s = float("-inf")
            await self._look(asked=True)
            self._reconfigured.set()

    async def _look(self, *, asked: bool = False) -> None:
        """Take what is in the files when they have changed; ``asked``: in any case, and refuse what does not fit."""
        async with self._looking:
            signature = await asyncio.to_thread(_signature, _files(self._config))
            changed = signature != self._seen
            if not (asked or changed or self._unsettled or self._refused):
                return
            read = await asyncio.to_thread(self._read)
            self._unsettled = changed and not asked and isinstance(read, ConfigError)
            if self._unsettled:
                self._seen = signature
            else:
                self._take(signature, read)

    @property
    def remark(self) -> str:
        """What a person should know of, for the status line; "" while all is well."""
        if self._refused:
            return f"certificate refused: {self._refused}"
        notice = end_notice(self.identity.expires_s - self._clock(), self._config)
        return "" if notice is None else f"certificate {self._end_text()}"

    def _read(self) -> Identity | ConfigError:
        try:
            return certificates.load(_files(self._config), name=self._node, now_s=self._clock())
        except ConfigError as exc:
            return exc

    def _take(self, signature: Signature, read: Identity | ConfigError) -> None:
        """``signature`` is from before the files were read: a change in between is found at the next look."""
        self._seen = signature
        if isinstance(read, ConfigError):
            self._refused = read.faults[0]
            for fault in read.faults:
                self._log.error("certificate_refused", f"{fault}; the one from before goes on")
            return
        self._refused, self._unsettled = "", False
        before, self.identity = self.identity, read
        if (before.certificate_pem, before.key_pem, before.ca_pem) == (read.certificate_pem, read.key_pem, read.ca_pem):
            return
        self._told_s = float("-inf")
        self._ends_of_peers.clear()
        cas = f"{len(read.cas)} CA{'' if len(read.cas) == 1 else 's'}"
        self._log.info("certificate_taken", f"valid until {certificates.day(read.expires_s)}, {cas} in the bundle")
        if set(before.cas) - set(read.cas):
            self.on_ca_removed()

    # --- the certificate's end --------------------------------------------------------------------------------------

    def _tell_end(self) -> None:
        now_s = self._clock()
        notice = end_notice(self.identity.expires_s - now_s, self._config)
        if notice is not None and now_s - self._told_s >= notice.every_s:
            self._told_s = now_s
            text = f"{self._config.certificate}: {self._end_text()}; renew it, and put it there"
            if notice.level == "info":
                self._log.info("certificate_ends", text)
            elif notice.level == "warning":
                self._log.warning("certificate_ends", text)
            else:
                self._log.error("certificate_ends", text)

    def _end_text(self) -> str:
        left_s = self.identity.expires_s - self._clock()
        when = certificates.day(self.identity.expires_s)
        return f"expired on {when}" if left_s <= 0 else f"ends in {left_s / DAY_S:.1f} days, on {when}"


@dataclass(frozen=True, slots=True)
class Notice:
    """How loud the end of a certificate is told of, and how often."""

    level: str
    every_s: float


def end_notice(left_s: float, config: TlsConfig) -> Notice | None:
    """What to make of a certificate that is valid for ``left_s`` seconds more."""
    if left_s <= 0:
        return Notice("error", EXPIRED_EVERY_S)
    if left_s <= config.warn_days * DAY_S:
        return Notice("warning", WARN_EVERY_S)
    return Notice("info", NOTICE_EVERY_S) if left_s <= config.notice_days * DAY_S else None


def node_names(context: Context) -> frozenset[str]:
    """The DNS names (SAN) of the certificate that a caller has shown; none without one, or with a mere client's."""
    return certificates.names_in(peer_pem(context.auth_context()), of_server=True)


def _server_configuration(identity: Identity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(identity.key_pem, identity.certificate_pem)], identity.ca_pem)


def _files(config: TlsConfig) -> Files:
    return Files(config.certificate, config.key_file, config.ca)


def _signature(files: Files) -> Signature:
    """What changes when a file is written, or another one takes its place (also behind a symbolic link)."""
    return tuple(_stat(path) for path in files.paths)


def _stat(path: str) -> tuple[int, int, int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
