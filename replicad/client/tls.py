"""The client's side of TLS: which files, and credentials made from them anew whenever they have changed.

Owns the files; what is dialled with the credentials is the connections' to know.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import grpc

from replicad.errors import ConfigError

LOOK_AGAIN_S = 1.0  # between two looks at the files: a stat call each


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. 1. ``certificate`` and ``key`` are both given or both "": then a token says who we are."""

    ca: str  # the bundle of CAs by which a node is believed
    certificate: str = ""
    key: str = ""


class ClientTls:
    """1. ``credentials`` are from files that fit together: what does not is not taken, and those before go on."""

    def __init__(self, files: TlsFiles) -> None:
        """Raises ConfigError with what is wrong with the files, and the remedy."""
        self._files = files
        self._signature = self._look()
        self._looked = time.monotonic()
        self.credentials = _credentials(files)

    @property
    def shows_certificate(self) -> bool:
        return bool(self._files.certificate)

    def renewed(self) -> bool:
        """Whether ``credentials`` are new ones since the last call: the files have changed, and can be taken."""
        now = time.monotonic()
        if now - self._looked < LOOK_AGAIN_S:
            return False
        self._looked = now
        signature = self._look()
        if signature == self._signature:
            return False
        try:
            self.credentials = _credentials(self._files)
        except ConfigError:  # half of them are written; the look after the next one finds the rest
            return False
        self._signature = signature
        return True

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        files = self._files
        return tuple(_stat(path) for path in (files.ca, files.certificate, files.key) if path)


def _stat(path: str) -> tuple[int, int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    from replicad import certificates  # noqa: PLC0415 - cryptography costs a program without TLS 50 ms

    ca, certificate, key = certificates.load_client(files.ca, files.certificate, files.key, now_s=time.time())
    return grpc.ssl_channel_credentials(ca, key or None, certificate or None)
