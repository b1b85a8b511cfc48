"""Certificates for tests: a CA in a folder, and what a server or a caller makes of them. Owns no process."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from grpc import aio

from replicad.pki import CLIENT, NODE, Authority
from tests.support.rawlog import OPTIONS

HOSTS = ("127.0.0.1", "localhost")


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@dataclass(frozen=True, slots=True)
class Shown:
    """What a caller comes with: the CA bundle it goes by, and a certificate with its key, or none."""

    ca: Path
    certificate: Path | None = None
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        certificate, key = (path.read_bytes() if path else None for path in (self.certificate, self.key))
        return grpc.ssl_channel_credentials(self.ca.read_bytes(), key, certificate)


def new_ca(folder: Path, *, days: int = 100, at: datetime | None = None) -> Authority:
    return Authority.create(folder, name="test CA", days=days, now=at or now())[0]


def node_of(authority: Authority, name: str, *, days: int = 30, at: datetime | None = None) -> Shown:
    """A node's certificate, a new one in any case."""
    authority.issue(name, kind=NODE, hosts=HOSTS, days=days, now=at or now(), force=True)
    return files_of(authority, name)


def client_of(authority: Authority, name: str, *, days: int = 30, at: datetime | None = None) -> Shown:
    """A client's certificate, a new one in any case."""
    authority.issue(name, kind=CLIENT, hosts=(), days=days, now=at or now(), force=True)
    return files_of(authority, name)


def expired_client_of(authority: Authority, name: str) -> Shown:
    return client_of(authority, name, days=1, at=now() - timedelta(days=3))


def files_of(authority: Authority, name: str) -> Shown:
    folder = authority.folder
    return Shown(folder / "ca.crt", folder / f"{name}.crt", folder / f"{name}.key")


def cas_like(certificate: Path, key: Path, *, count: int) -> list[bytes]:
    """Other certificates of the same CA, in PEM: of its name and key, which each of them has issued all of."""
    like = x509.load_pem_x509_certificate(certificate.read_bytes())
    private = load_pem_private_key(key.read_bytes(), password=None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    builder = (
        x509.CertificateBuilder(like.issuer, like.subject, private.public_key())
        .not_valid_before(now() - timedelta(days=1))
        .not_valid_after(now() + timedelta(days=9))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    made = [builder.serial_number(number).sign(private, hashes.SHA256()) for number in range(1, count + 1)]
    return [each.public_bytes(Encoding.PEM) for each in made]


async def certificate_at(address: str) -> x509.Certificate:
    """The certificate that a server shows now to who comes without one. Whom it is to be, nobody checks."""
    host, _, port = address.rpartition(":")
    pem = await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))
    return x509.load_pem_x509_certificate(pem.encode())


async def refusal(
    address: str, shown: Shown, method: str = "/replicad.wire.v1.Log/Status", *, token: str = "", name: str = ""
) -> str:
    """How a call ends: "OK", or the status and what is said with it. ``name`` is who is to be at ``address``."""
    options = [*OPTIONS, *([("grpc.ssl_target_name_override", name)] if name else [])]
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    async with aio.secure_channel(address, shown.credentials(), options=options) as channel:
        # Not as a stream of one: a request that is on its way while the refusal is makes grpc.aio forget the reason
        # (grpc/grpc#36066).
        call: Any
        if method.endswith("/Replicate"):
            both: aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)
            call = both(iter(()), metadata=metadata, timeout=10)
        else:
            ask: aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(method)
            call = ask(b"", metadata=metadata, timeout=10)
        try:
            while await call.read() is not aio.EOF:
                pass
        except aio.AioRpcError as exc:
            return f"{exc.code().name}: {exc.details()}"
    return "OK"
