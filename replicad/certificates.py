"""X.509 certificates as this node or a client has them in files: read, and checked before anything is done with them.

Owns what makes a certificate, its key and its CA bundle fit together, and what is said when they do not. Opens no
socket; who uses them with gRPC is :mod:`replicad.transport.tls`, who makes them :mod:`replicad.pki`. Never puts key
bytes into an error.
"""

from __future__ import annotations

import os
import stat
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID

from replicad.errors import ConfigError
from replicad.files import read_with_stat
from replicad.keys import rights_beyond_owner

FILE_BYTES = 1 << 20  # a bundle of all public CAs has 220 KiB; more is another file
CHAIN_MAX = 8  # certificates from a node's own to its CA; two are usual, three with an intermediate
DAY_S = 86_400

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)

# Bundles of public CAs have certificates with flaws of which cryptography warns, Debian's older one in a module of its
# own. Who gives a bundle can't mend it.
warnings.filterwarnings(
    "ignore",
    "(Parsed|The parsed) ",
    CryptographyDeprecationWarning,
    module=r"(replicad\.certificates|cryptography\.x509\.base)",
)

_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Files:
    """Where a certificate (with its intermediates, if any), its private key and the CA bundle are: PEM, all three."""

    certificate: str
    key: str
    ca: str

    @property
    def paths(self) -> tuple[str, str, str]:
        return (self.certificate, self.key, self.ca)


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with its key, and the CAs to believe in.

    1. The key is the certificate's. 2. The certificate's chain ends in one of ``cas``, and all of it is valid.
    3. The certificate has the name that was asked for as a DNS SAN.
    """

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)
    ca_pem: bytes
    cas: tuple[x509.Certificate, ...]
    expires_s: float  # since 1970 UTC: when the certificate, or the first of those that it rests on, ends

    @property
    def expires_ms(self) -> int:
        return int(self.expires_s * 1000)

    def believed_until_s(self, pem: bytes, *, now_s: float) -> float:
        """Until when a peer's certificate chain, as it came in the handshake, is let in by this CA bundle; 0 if not."""
        try:
            chain = parse_certificates(pem)
        except ValueError:
            return 0.0
        if any(faults_of_chain(chain, self.cas, now_s=now_s)):
            return 0.0
        return min(not_after_s(each) for each in path_of(chain, self.cas))


def load(files: Files, *, name: str, now_s: float, env: Mapping[str, str] = os.environ) -> Identity:
    """Read the files and check that they fit together and to the node ``name``, at the time ``now_s``.

    Raises ConfigError with all faults at once; each names the config's key, the file, what is wrong and the remedy.
    """
    faults: list[str] = []
    remedy = f"make one: replicad-cli pki issue node {name} --host HOST, or have your CA issue one"
    certificate_pem = _read("tls.certificate", files.certificate, remedy, faults)
    ca_pem = _read("tls.ca", files.ca, "copy the CA's certificate there (ca.crt of replicad-cli pki init)", faults)
    key_pem = _read("tls.key", files.key, remedy, faults, private=True, env=env)
    chain = _certificates("tls.certificate", files.certificate, certificate_pem, faults)
    cas = _certificates("tls.ca", files.ca, ca_pem, faults)
    if chain:
        at = f"tls.certificate: {files.certificate}"
        if key_pem:
            faults += _key_faults("tls.key", files.key, files.certificate, chain[0], key_pem)
        if name not in dns_names(chain[0]):
            has = ", ".join(sorted(dns_names(chain[0]))) or "none"
            faults.append(f"{at}: is not of {name}: among its DNS names ({has}) there is no such name; {remedy}")
        if cas:
            faults += [f"{at}: {fault}" for fault in faults_of_chain(chain, cas, now_s=now_s)]
    if faults:
        raise ConfigError(faults)
    return Identity(certificate_pem, key_pem, ca_pem, cas, min(not_after_s(each) for each in path_of(chain, cas)))


def load_client(ca: str, certificate: str, key: str, *, now_s: float) -> tuple[bytes, bytes, bytes]:
    """A client's CA bundle, certificate and key; the latter two are empty when they are not given.

    Raises ConfigError with all faults at once. Whether the nodes believe the certificate's CA, they know alone.
    """
    faults: list[str] = []
    remedy = "have one issued: replicad-cli pki issue client NAME"
    ca_pem = _read("ca", ca, "ask whoever runs the nodes for their ca.crt", faults)
    _certificates("ca", ca, ca_pem, faults)
    if not (certificate or key):
        if faults:
            raise ConfigError(faults)
        return ca_pem, b"", b""
    certificate_pem = _read("certificate", certificate, remedy, faults)
    key_pem = _read("key", key, remedy, faults, private=True)
    chain = _certificates("certificate", certificate, certificate_pem, faults)
    if chain and key_pem:
        faults += _key_faults("key", key, certificate, chain[0], key_pem)
    faults += [f"certificate: {certificate}: {fault}" for fault in _faults_of_dates(chain[:1], now_s)]
    if faults:
        raise ConfigError(faults)
    return ca_pem, certificate_pem, key_pem


def parse_certificates(pem: bytes) -> tuple[x509.Certificate, ...]:
    """All certificates in ``pem``, in order; what stands between them is ignored. ValueError when one is damaged."""
    found, position = [], 0
    while (begin := pem.find(_BEGIN, position)) >= 0:
        end = pem.find(_END, begin)
        if end < 0:
            raise ValueError("the last certificate is cut off")
        position = end + len(_END)
        found.append(_parsed(pem[begin:position] + b"\n"))
    return tuple(found)


def _parsed(pem: bytes) -> x509.Certificate:
    """The certificate, with names and dates that can be read: cryptography parses those only when they are asked for.
    ValueError."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        for name in (certificate.subject, certificate.issuer):
            name.rfc4514_string()
        not_before_s(certificate), not_after_s(certificate)
    except Exception as exc:  # InvalidVersion, KeyError: each release has its own for what it does not know
        raise ValueError("a certificate that can't be read") from exc
    return certificate


@lru_cache(maxsize=256)  # a peer's certificate is the same at each of its calls; 100 KiB with a padded chain
def names_in(pem: bytes, *, of_server: bool = False) -> frozenset[str]:
    """The DNS names (SAN) of the first certificate in ``pem``; none when it is damaged.

    ``of_server``: none either when its extendedKeyUsage does not have serverAuth, as a client's that is not a node.

    Typed, unlike gRPC's x509_subject_alternative_name, in which an e-mail address or URI looks like a DNS name.
    """
    try:
        chain = parse_certificates(pem)
    except ValueError:
        return frozenset()
    if not chain or (of_server and not may_serve(chain[0])):
        return frozenset()
    return dns_names(chain[0])


def may_serve(certificate: x509.Certificate) -> bool:
    """Whether its extendedKeyUsage, if it has one, allows a TLS server (RFC 5280, section 4.2.1.12)."""
    try:
        usages = _extension(certificate, x509.ExtendedKeyUsage)
    except ValueError:
        return False
    if usages is None:
        return True
    return ExtendedKeyUsageOID.SERVER_AUTH in usages or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usages


def dns_names(certificate: x509.Certificate) -> frozenset[str]:
    """The DNS names in the subject alternative names (RFC 5280, section 4.2.1.6), in lower case."""
    return frozenset(name.lower() for name in _san(certificate).get_values_for_type(x509.DNSName))


def alternative_names(certificate: x509.Certificate) -> list[str]:
    """All subject alternative names as a person writes them, in order."""
    return [str(getattr(name, "value", name)) for name in _san(certificate)]


def not_after_s(certificate: x509.Certificate) -> float:
    """When it ends, in seconds since 1970 UTC."""
    return _moment(certificate, "not_valid_after").timestamp()


def not_before_s(certificate: x509.Certificate) -> float:
    """When it begins, in seconds since 1970 UTC."""
    return _moment(certificate, "not_valid_before").timestamp()


def day(moment_s: float) -> str:
    """A moment as a person reads it in a fault or table: 2026-11-25 12:00 UTC."""
    return datetime.fromtimestamp(moment_s, UTC).strftime("%Y-%m-%d %H:%M UTC")


def same_key(certificate: x509.Certificate, public_key: object) -> bool:
    """Whether ``public_key`` is the certificate's."""
    try:
        return _spki(certificate.public_key()) == _spki(public_key)
    except (ValueError, UnsupportedAlgorithm):  # of a kind that no key file of ours can be
        return False


def path_of(chain: Sequence[x509.Certificate], cas: Iterable[x509.Certificate]) -> list[x509.Certificate]:
    """The path from ``chain[0]`` to one of ``cas``, both included; empty when there is none (RFC 5280, section 6.1).

    ``chain[1:]`` are intermediates, in any order. Names, signatures and basicConstraints are looked at, dates not.
    """
    anchors = list(cas)
    if chain[0] in anchors:
        return [chain[0]]
    others = [each for each in chain[1:] if each != chain[0]]
    paths = deque([[chain[0]]])
    while paths:
        path = paths.popleft()
        for anchor in anchors:
            if _issued(anchor, path[-1]):
                return [*path, anchor]
        if len(path) < CHAIN_MAX:
            # Each is taken once: of many that have all issued each other there are more paths than anybody could walk.
            issuers = [each for each in others if _issued(each, path[-1])]
            others = [each for each in others if each not in issuers]
            paths += [[*path, issuer] for issuer in issuers]
    return []


def faults_of_chain(
    chain: Sequence[x509.Certificate], cas: Sequence[x509.Certificate], *, now_s: float
) -> Iterator[str]:
    """Why a chain would not be let in: no path to a CA, or one of the path's certificates is not valid at ``now_s``."""
    path = path_of(chain, cas) if chain else []
    if not path:
        issuer = chain[0].issuer.rfc4514_string() if chain else "nobody"
        yield (
            f"is issued by {issuer!a}, which no certificate in the CA bundle confirms;"
            " add that CA to the bundle, or have the certificate issued by a CA that is in it"
        )
    yield from _faults_of_dates(path, now_s)


def _faults_of_dates(path: Iterable[x509.Certificate], now_s: float) -> Iterator[str]:
    for certificate in path:
        subject = certificate.subject.rfc4514_string()
        if now_s > not_after_s(certificate):
            yield f"{subject!a} expired on {day(not_after_s(certificate))}; renew it: replicad-cli pki renew"
        elif now_s < not_before_s(certificate):
            yield f"{subject!a} is not valid before {day(not_before_s(certificate))}; is this machine's clock right?"


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Whether ``issuer``, which must be a CA, signed ``certificate``."""
    if issuer.subject != certificate.issuer or not is_ca(issuer):
        return False
    try:
        public_key, signature, signed = issuer.public_key(), certificate.signature, certificate.tbs_certificate_bytes
        digest = certificate.signature_hash_algorithm
        if isinstance(public_key, ec.EllipticCurvePublicKey) and digest is not None:
            public_key.verify(signature, signed, ec.ECDSA(digest))
        elif isinstance(public_key, rsa.RSAPublicKey) and digest is not None:
            # Debian 12's cryptography does not tell: there, RSASSA-PSS is not believed.
            scheme = getattr(certificate, "signature_algorithm_parameters", padding.PKCS1v15())
            public_key.verify(signature, signed, scheme, digest)
        elif isinstance(public_key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
            public_key.verify(signature, signed)
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True


def is_ca(certificate: x509.Certificate) -> bool:
    """Whether it may issue others: basicConstraints says so."""
    try:
        constraints = _extension(certificate, x509.BasicConstraints)
    except ValueError:
        return False
    return constraints is not None and constraints.ca


def _san(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    with suppress(ValueError):
        if (names := _extension(certificate, x509.SubjectAlternativeName)) is not None:
            return names
    return x509.SubjectAlternativeName([])


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    """The certificate's extension of that kind; None without one. ValueError when its extensions can't be read."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as exc:
        raise ValueError("extensions that nobody can read") from exc


def _moment(certificate: x509.Certificate, what: str) -> datetime:
    """Older releases of cryptography have these without a time zone, newer ones warn about that."""
    moment: datetime | None = getattr(certificate, f"{what}_utc", None)
    return moment if moment is not None else getattr(certificate, what).replace(tzinfo=UTC)


def _spki(public_key: object) -> bytes:
    encoded: bytes = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return encoded


def _key_faults(
    name: str, key: str, certificate_file: str, certificate: x509.Certificate, key_pem: bytes
) -> Iterator[str]:
    at = f"{name}: {key}"
    try:
        private = load_pem_private_key(key_pem, password=None)
    except TypeError:
        yield f"{at}: is encrypted, and a daemon has nobody to ask for the passphrase; decrypt it (openssl pkey)"
    except (ValueError, UnsupportedAlgorithm, InternalError):  # the last: an X448 key of 32 bytes, say
        yield f"{at}: is not a private key in PEM, or is damaged; put back the key that belongs to {certificate_file}"
    else:
        if not same_key(certificate, private.public_key()):
            yield f"{at}: does not belong to the certificate in {certificate_file}; put the two of one issue there"


def _certificates(key: str, path: str, pem: bytes, faults: list[str]) -> tuple[x509.Certificate, ...]:
    if not pem:
        return ()  # told already
    try:
        found = parse_certificates(pem)
    except ValueError:
        faults.append(f"{key}: {path}: a certificate in it is damaged or cut off; write the file again, whole")
        return ()
    if not found:
        faults.append(f"{key}: {path}: holds no certificate in PEM (BEGIN CERTIFICATE); is it the right file?")
    return found


def _read(
    key: str, path: str, remedy: str, faults: list[str], *, private: bool = False, env: Mapping[str, str] = os.environ
) -> bytes:
    """The file's content; empty, and a fault more, when it can't be had or must not be used."""
    try:
        found, content = read_with_stat(Path(path), at_most=FILE_BYTES + 1)
    except FileNotFoundError:
        faults.append(f"{key}: {path}: no such file; {remedy}")
        return b""
    except OSError as exc:
        faults.append(f"{key}: {path}: cannot be read ({exc.strerror}); the daemon's user must have the right to")
        return b""
    mode = found.st_mode
    if not stat.S_ISREG(mode):
        faults.append(f"{key}: {path}: is not a regular file; name the file itself")
        return b""
    if private and rights_beyond_owner(Path(path), mode, env):
        faults.append(
            f"{key}: {path}: group or others have rights to it (mode {stat.S_IMODE(mode):04o});"
            f" chmod 600 {path}, and have a new one issued if anybody may have read it"
        )
        return b""
    if not content or len(content) > FILE_BYTES:
        what = f"has more than {FILE_BYTES} bytes" if content else "is empty"
        faults.append(f"{key}: {path}: {what}; is it the right file?")
        return b""
    return content
