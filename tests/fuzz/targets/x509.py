"""Certificates, keys and CA bundles: what an operator copies into place, and what a caller shows in its handshake."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import NameOID

from replicad import certificates
from replicad.errors import ConfigError
from tests.fuzz.registry import Target
from tests.fuzz.scratch import scratch

_BEGINS, _ENDS = datetime(2026, 1, 1, tzinfo=UTC), datetime(2126, 1, 1, tzinfo=UTC)
_NOW_S = datetime(2027, 1, 1, tzinfo=UTC).timestamp()
_FILES = ("certificate", "key", "ca")


@cache
def _good() -> dict[str, bytes]:
    """PEM by file; Ed25519 signatures are the same in every run."""
    ca_key, key = (Ed25519PrivateKey.from_private_bytes(bytes((byte,)) * 32) for byte in (1, 2))
    ca = _certificate("ca", ca_key, "ca", ca_key, ca=True)
    own = _certificate("n1", key, "ca", ca_key, ca=False)
    return {
        "certificate": own.public_bytes(Encoding.PEM),
        "key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "ca": ca.public_bytes(Encoding.PEM),
    }


def _certificate(
    subject: str, key: Ed25519PrivateKey, issuer: str, issuer_key: Ed25519PrivateKey, *, ca: bool
) -> x509.Certificate:
    builder = x509.CertificateBuilder(
        subject_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]),
        issuer_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]),
        public_key=key.public_key(),
        serial_number=2 if subject == issuer else 3,
        not_valid_before=_BEGINS,
        not_valid_after=_ENDS,
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(subject)]), critical=False)
    return builder.sign(issuer_key, None)


def identity(data: bytes) -> None:
    """The first byte picks the file that the rest stands in; the other two are good. What is taken fits together."""
    paths = {}
    for index, name in enumerate(_FILES):
        paths[name] = scratch() / f"tls.{name}"
        paths[name].write_bytes(data[1:] if data and data[0] % 3 == index else _good()[name])
        paths[name].chmod(0o600)
    files = certificates.Files(*(str(paths[name]) for name in _FILES))
    client = certificates.load_client(files.ca, files.certificate, files.key, now_s=_NOW_S)
    found = certificates.load(files, name="n1", now_s=_NOW_S, env={})
    assert client == (found.ca_pem, found.certificate_pem, found.key_pem)
    assert found.believed_until_s(found.certificate_pem, now_s=_NOW_S) == found.expires_s


def shown(data: bytes) -> None:
    """DER of what a caller shows in its handshake: it is of our CA, or is not believed.

    What the library warns of is let through: gRPC asks for our CA's signature before anything here sees a certificate.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        _shown(data)


def _shown(data: bytes) -> None:
    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(data) + b"-----END CERTIFICATE-----\n"
    cas = certificates.parse_certificates(_good()["ca"])
    believed = certificates.Identity(b"", b"", b"", cas, 0.0).believed_until_s(pem, now_s=_NOW_S)
    names = certificates.names_in(pem) | certificates.names_in(pem, of_server=True)
    assert all(name.isascii() for name in names)
    [certificate] = certificates.parse_certificates(pem)
    if believed:  # no mutation of what is signed keeps its signature
        good = [x509.load_pem_x509_certificate(_good()[name]) for name in ("certificate", "ca")]
        assert certificate.tbs_certificate_bytes in [each.tbs_certificate_bytes for each in good]


def _der() -> Iterable[bytes]:
    for name in ("certificate", "ca"):
        yield x509.load_pem_x509_certificate(_good()[name]).public_bytes(Encoding.DER)


def _seeds() -> Iterable[bytes]:
    for index, name in enumerate(_FILES):
        yield bytes((index,)) + _good()[name]


TARGETS = (
    Target(
        "x509.identity",
        identity,
        (ConfigError,),
        ("certificates.load", "certificates.load_client", "certificates.parse_certificates"),
        _seeds,
    ),
    Target("x509.shown", shown, (ValueError,), (), _der),
)
