"""A private CA in a folder: for those who have no PKI of their own. What it makes is plain X.509, PEM and PKCS8.

Owns the folder and what stands in a certificate (RFC 5280); checking what others made is :mod:`replicad.certificates`.

    DIR/ca.key      the CA's private key with its certificate, mode 0600: who has it can make nodes and clients
    DIR/ca.crt      the CA bundle, newest first: what every node and client is given as its `ca`
    DIR/NAME.crt    the certificate of a node or client
    DIR/NAME.key    its private key, mode 0600
    DIR/.lock       empty; held by whoever changes the folder
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from replicad import certificates
from replicad.configvalues import is_name
from replicad.errors import ExitCode, OperatorError
from replicad.files import replace_whole, take_lock

CA_DAYS = 3650  # changing a CA takes hands on every node, so seldom; its key should be offline meanwhile
LEAF_DAYS = 365  # long enough to renew by hand, short enough that the habit is kept; public CAs go below 398
MAX_DAYS = 36_500
BACKDATED = timedelta(hours=1)  # clocks of other machines may be behind
CA_NAME_CHARS = 48  # with a space and 8 hex digits, a common name has at most 64 (RFC 5280, appendix A)

CA = "ca"
NODE, CLIENT = "node", "client"
_USAGES = {
    NODE: (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),  # a node dials others, too
    CLIENT: (ExtendedKeyUsageOID.CLIENT_AUTH,),
}
_HOST = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A certificate in the folder."""

    name: str  # of the node or client; for a CA its common name
    kind: str  # node | client | ca
    certificate: x509.Certificate
    file: Path
    current: bool  # a CA: it issues; others: issued by the CA that does

    @property
    def names(self) -> list[str]:
        """The subject alternative names."""
        return certificates.alternative_names(self.certificate)

    @property
    def expires_s(self) -> float:
        return certificates.not_after_s(self.certificate)


class BadName(OperatorError):
    """A name or host that no certificate is made for: who asked for it is to ask for another."""

    exit_code = ExitCode.USAGE


class Authority:
    """The CA in ``folder``. Every method that writes may be repeated: each file is replaced whole or not at all.

    1. ``bundle[0]`` is the certificate of ``_key``.
    2. Where others may be at work, too, what writes is called within :meth:`changing`.
    """

    def __init__(self, folder: Path, key: ec.EllipticCurvePrivateKey, bundle: Sequence[x509.Certificate]) -> None:
        self.folder, self._key, self.bundle = folder, key, tuple(bundle)

    @classmethod
    def create(cls, folder: Path, *, name: str, days: int, now: datetime) -> tuple[Authority, bool]:
        """The CA that is made in ``folder``, or is there, and whether it was made now."""
        if not (folder / "ca.key").exists():
            _check_ca_name(name)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise _not_written(folder, exc) from exc
        with _locked(folder):
            if (folder / "ca.key").exists():
                return cls.open(folder), False
            if (folder / "ca.crt").exists():
                raise OperatorError(
                    f"{folder}/ca.crt is there without its ca.key; put that back, or take another --dir"
                )
            authority = cls(folder, *_new_ca(name, days=days, now=now))
            authority._save()
            return authority, True

    @classmethod
    @contextlib.contextmanager
    def changing(cls, folder: Path) -> Iterator[Authority]:
        """The CA that is in ``folder``, which nobody else changes meanwhile; as :meth:`open` otherwise."""
        if not (folder / "ca.key").exists():  # and no lock is left in a folder that is none of ours
            raise _no_ca(folder)
        with _locked(folder):
            yield cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> Authority:
        """The CA that is in ``folder``. OperatorError when there is none, or it is damaged."""
        key_file, bundle_file = folder / "ca.key", folder / "ca.crt"
        try:
            pem = key_file.read_bytes()
            bundle_pem = bundle_file.read_bytes() if bundle_file.exists() else b""
        except FileNotFoundError as exc:
            raise _no_ca(folder) from exc
        except OSError as exc:
            raise OperatorError(f"{exc.filename}: cannot be read ({exc.strerror}); do it as its owner") from exc
        try:
            key = load_pem_private_key(pem, password=None)
            [own] = certificates.parse_certificates(pem)
            others = certificates.parse_certificates(bundle_pem)
        except (ValueError, TypeError) as exc:
            raise OperatorError(f"{key_file} or ca.crt beside it is damaged; put back your copy of both") from exc
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not certificates.same_key(own, key.public_key()):
            raise OperatorError(f"{key_file}: the key in it is not its certificate's; put back your copy")
        authority = cls(folder, key, [own, *(each for each in others if each != own)])
        if own not in others:  # a renewal of the CA was cut short between its two files
            authority._save()
        return authority

    # --- the CA itself ----------------------------------------------------------------------------------------------

    def add_ca(self, *, days: int, now: datetime, force: bool) -> None:
        """Have a new CA beside the old: it issues from now on, and both are in the bundle."""
        if len(self.bundle) > 1 and not force:
            raise OperatorError(
                f"{self.folder}/ca.crt has {len(self.bundle)} CAs already: renew what the old one issued, hand it out,"
                " then replicad-cli pki renew ca --drop-old"
            )
        name = _common_name(self.bundle[0]).rpartition(" ")[0] or "replicad CA"
        key, [certificate] = _new_ca(name, days=days, now=now)
        self._key, self.bundle = key, (certificate, *self.bundle)
        self._save()

    def drop_old_cas(self, *, force: bool) -> int:
        """Leave only the newest CA in the bundle; how many went. OperatorError while an old one's are in use here."""
        behind = [entry.name for entry in self.entries() if entry.kind != CA and not entry.current]
        if behind and not force:
            raise OperatorError(
                f"of an old CA are still {', '.join(behind)}: replicad-cli pki renew, hand them out, then again"
            )
        dropped = len(self.bundle) - 1
        self.bundle = self.bundle[:1]
        self._save()
        return dropped

    def _save(self) -> None:
        key_pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _replace(self.folder / "ca.key", key_pem + _pem(self.bundle[0]), 0o600)  # first: a bundle alone is of no use
        _replace(self.folder / "ca.crt", b"".join(map(_pem, self.bundle)), 0o644)

    # --- nodes and clients ------------------------------------------------------------------------------------------

    def issue(
        self, name: str, *, kind: str, hosts: Sequence[str], days: int, now: datetime, force: bool
    ) -> tuple[Entry, bool]:
        """A certificate with a new key for ``name``, or the one that is there, and whether it was made now.

        What is there and says something else is only replaced with ``force``.
        """
        _check_leaf_name(name)
        names = [x509.DNSName(name), *(_general_name(host) for host in hosts if host.lower() != name)]
        names = list(dict.fromkeys(names))
        there = self.find(name)
        if there is not None and not force:
            wanted = [str(each.value) for each in names]
            if (there.kind, there.names) == (kind, wanted) and there.expires_s > now.timestamp() and there.current:
                return there, False
            raise OperatorError(
                f"{there.file} is there: {there.kind}, names {', '.join(there.names)}, until"
                f" {certificates.day(there.expires_s)}; pki renew {name} makes the same anew, --force replaces it"
            )
        return self._make(name, kind, names, days=days, now=now, keep_key=there is None), True

    def renew(self, entry: Entry, *, days: int, now: datetime, keep_key: bool = False) -> Entry:
        """The same names and kind with a new lifetime, by the CA that issues now; with a new key, or the old one."""
        san = entry.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return self._make(entry.name, entry.kind, list(san), days=days, now=now, keep_key=keep_key)

    def find(self, name: str) -> Entry | None:
        """The certificate of ``name``. OperatorError when its file can't be read."""
        file = self.folder / f"{name}.crt"
        if not file.exists():
            return None
        try:
            certificate = certificates.parse_certificates(file.read_bytes())[0]
        except (OSError, ValueError, IndexError) as exc:
            raise OperatorError(f"{file}: is no certificate, or is damaged; move it away") from exc
        current = certificates.path_of([certificate], self.bundle[:1]) != []
        return Entry(name, _kind(certificate), certificate, file, current)

    def entries(self) -> list[Entry]:
        """All certificates in the folder, the CAs first."""
        cas = [
            Entry(_common_name(each), CA, each, self.folder / "ca.crt", each is self.bundle[0]) for each in self.bundle
        ]
        names = sorted(file.stem for file in self.folder.glob("*.crt") if file.stem != CA)
        return cas + [entry for name in names if (entry := self.find(name)) is not None]

    def _make(
        self, name: str, kind: str, names: list[x509.GeneralName], *, days: int, now: datetime, keep_key: bool
    ) -> Entry:
        key_file, file = self.folder / f"{name}.key", self.folder / f"{name}.crt"
        key = _key_left_over(key_file) if keep_key and key_file.exists() else ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(name, kind, names, key, days=days, now=now)
        key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _replace(key_file, key_pem, 0o600)
        _replace(file, _pem(certificate), 0o644)
        return Entry(name, kind, certificate, file, current=True)

    def _sign(
        self,
        name: str,
        kind: str,
        names: list[x509.GeneralName],
        key: ec.EllipticCurvePrivateKey,
        *,
        days: int,
        now: datetime,
    ) -> x509.Certificate:
        ca = self.bundle[0]
        ca_end = datetime.fromtimestamp(certificates.not_after_s(ca), UTC)
        if now >= ca_end:
            raise OperatorError(f"the CA expired on {certificates.day(ca_end.timestamp())}: replicad-cli pki renew ca")
        ski = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = (
            _builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), ca.subject, key)
            .not_valid_before(now - BACKDATED)
            .not_valid_after(min(now + timedelta(days=days), ca_end))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage("digital_signature"), critical=True)
            .add_extension(x509.ExtendedKeyUsage(_USAGES[kind]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
        )
        return builder.sign(self._key, hashes.SHA256())


def _new_ca(name: str, *, days: int, now: datetime) -> tuple[ec.EllipticCurvePrivateKey, list[x509.Certificate]]:
    """A key and its self-signed certificate. No two CAs have one name: verifiers look an issuer up by it."""
    key = ec.generate_private_key(ec.SECP256R1())
    unique = f"{name} {os.urandom(4).hex()}"
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, unique)])
    builder = (
        _builder(subject, subject, key)
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True)
    )
    return key, [builder.sign(key, hashes.SHA256())]


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*granted: str) -> x509.KeyUsage:
    names = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{name: name in granted for name in names})


def _kind(certificate: x509.Certificate) -> str:
    return NODE if certificates.may_serve(certificate) else CLIENT


def usages(certificate: x509.Certificate) -> list[str]:
    """What it may be used for, in a table's words."""
    if certificates.is_ca(certificate):
        return ["issue"]
    return ["server", "client"] if _kind(certificate) == NODE else ["client"]


def _common_name(certificate: x509.Certificate) -> str:
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else certificate.subject.rfc4514_string()


def _check_ca_name(name: str) -> None:
    if not (1 <= len(name) <= CA_NAME_CHARS and name.isascii() and name.isprintable() and name.strip() == name):
        raise BadName(f"{name!a} is no name for a CA: 1 to {CA_NAME_CHARS} printable ASCII characters")


def _check_leaf_name(name: str) -> None:
    if not is_name(name) or name == CA:
        raise BadName(
            f"{name!a} is no name for a node or client; use 1 to 64 of a-z 0-9 . _ -, a letter or digit first, not 'ca'"
        )


def _general_name(host: str) -> x509.GeneralName:
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        return x509.IPAddress(ipaddress.ip_address(bare))
    except ValueError:
        if _HOST.fullmatch(host) is None:
            raise BadName(f"{host!a} is neither a host name nor an IP address; leave out port and path") from None
        return x509.DNSName(host.lower())


def _key_left_over(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key of an issue that was cut short before its certificate was written; any other is never overwritten."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise OperatorError(
            f"{path} is there, and no key of ours; it is never overwritten: move it, or use another --dir"
        )
    return key


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = folder / ".lock"
    try:
        descriptor = take_lock(lock)
    except OSError as exc:
        raise _not_written(lock, exc) from exc
    try:
        yield
    finally:
        os.close(descriptor)


def _no_ca(folder: Path) -> OperatorError:
    return OperatorError(f"{folder} holds no CA; make one: replicad-cli pki init --dir {folder}")


def _replace(path: Path, content: bytes, mode: int) -> None:
    try:
        replace_whole(path, content, mode=mode)
    except OSError as exc:
        raise _not_written(path, exc) from exc


def _not_written(path: Path, exc: OSError) -> OperatorError:
    return OperatorError(f"{path}: cannot be written ({exc.strerror}); give a --dir that is yours")
