"""The gate alone on a real port with TLS: a Log service whose Status answers who the caller is.

Owns a CA and certificates for tests. Must not know what the gate decides.
"""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc import aio

from replicad.access import Role
from replicad.config import Config
from replicad.logs import get_logger
from replicad.transport.calls import Gate

HOUR = datetime.timedelta(hours=1)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, PEM."""

    key: bytes
    certificate: bytes


class TestCa:
    """A CA of one test."""

    __test__ = False  # for pytest: not a test itself

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
        made = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        self.pem = made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def issue(self, names: Sequence[x509.GeneralName], *, common_name: str = "x") -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = self._builder(subject, key).add_extension(x509.SubjectAlternativeName(list(names)), False)
        pem = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return Issued(key.private_bytes(*form), pem)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.timezone.utc)  # noqa: UP017 - as the library's own examples have it
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - HOUR)
            .not_valid_after(now + HOUR)
        )


@asynccontextmanager
async def gated_server(config: Config, ca: TestCa, *, mutual: bool) -> AsyncIterator[str]:
    """Its address. Status needs the role reader, Replicate (here a unary call) the role node."""

    async def who(request: bytes, author: str) -> bytes:
        del request
        return author.encode()

    gate = Gate(config, log=get_logger("test"))
    server = aio.server()
    for service, method, role in (("Log", "Status", Role.READER), ("Replication", "Replicate", Role.NODE)):
        handler: Any = grpc.stream_unary_rpc_method_handler(gate.unary(who, (role,)))
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(f"replicad.wire.v1.{service}", {method: handler}),)
        )
    own = ca.issue([x509.DNSName("localhost")])
    pair = [(own.key, own.certificate)]
    credentials = grpc.ssl_server_credentials(pair, ca.pem if mutual else None, require_client_auth=mutual)
    port = server.add_secure_port("localhost:0", credentials)
    await server.start()
    try:
        yield f"localhost:{port}"
    finally:
        await server.stop(None)
