"""The private CA: what its certificates say, that nothing is lost or overwritten, and that each step repeats."""

from __future__ import annotations

import ipaddress
import os
import stat
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from replicad import certificates, pki
from replicad.errors import OperatorError
from replicad.files import take_lock
from replicad.keys import generate
from replicad.pki import CLIENT, NODE, Authority, Entry
from tests.support.certificates import now


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "pki"


@pytest.fixture
def ca(folder: Path) -> Authority:
    return Authority.create(folder, name="test CA", days=100, now=now())[0]


def issue(ca: Authority, name: str = "node-1", *, kind: str = NODE, hosts: tuple[str, ...] = ("h",)) -> Entry:
    return ca.issue(name, kind=kind, hosts=hosts, days=30, now=now(), force=False)[0]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def value(certificate: x509.Certificate, kind: type[x509.ExtensionType]) -> tuple[object, bool]:
    extension = certificate.extensions.get_extension_for_class(kind)
    return extension.value, extension.critical


def test_a_ca_may_issue_leaves_and_nothing_else(ca: Authority) -> None:
    (certificate,) = ca.bundle
    assert value(certificate, x509.BasicConstraints) == (x509.BasicConstraints(ca=True, path_length=0), True)
    usage, critical = value(certificate, x509.KeyUsage)
    assert isinstance(usage, x509.KeyUsage)
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature, critical) == (True, True, False, True)


@pytest.mark.parametrize(
    ("kind", "usages"),
    [
        (NODE, [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
        (CLIENT, [ExtendedKeyUsageOID.CLIENT_AUTH]),
    ],
)
def test_a_leaf_says_what_it_is_for_and_points_to_its_ca(
    ca: Authority, kind: str, usages: list[x509.ObjectIdentifier]
) -> None:
    certificate = issue(ca, kind=kind).certificate
    assert value(certificate, x509.BasicConstraints) == (x509.BasicConstraints(ca=False, path_length=None), True)
    assert list(value(certificate, x509.ExtendedKeyUsage)[0]) == usages  # type: ignore[call-overload]
    authority_key, _ = value(certificate, x509.AuthorityKeyIdentifier)
    ca_key, _ = value(ca.bundle[0], x509.SubjectKeyIdentifier)
    assert authority_key.key_identifier == ca_key.digest  # type: ignore[attr-defined]
    assert certificates.path_of([certificate], ca.bundle) == [certificate, ca.bundle[0]]


def test_hosts_become_names_of_their_type_and_the_nodes_name_is_the_first(ca: Authority) -> None:
    entry = issue(ca, hosts=("Log-1.example.org", "192.0.2.1", "[2001:db8::1]", "node-1", "192.0.2.1"))
    san, _ = value(entry.certificate, x509.SubjectAlternativeName)
    assert list(san) == [  # type: ignore[call-overload]
        x509.DNSName("node-1"),
        x509.DNSName("log-1.example.org"),
        x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
        x509.IPAddress(ipaddress.ip_address("2001:db8::1")),
    ]


@pytest.mark.parametrize("host", ["", "a b", "host:50052", "https://host", "-x", "a..b", "ö.example"])
def test_what_is_no_host_is_refused(ca: Authority, host: str) -> None:
    with pytest.raises(OperatorError, match="neither a host name nor an IP address"):
        issue(ca, hosts=(host,))


@pytest.mark.parametrize("name", ["", "ca", "Node", "../x", "a" * 65])
def test_what_is_no_name_is_refused(ca: Authority, name: str) -> None:
    with pytest.raises(OperatorError, match="is no name for a node or client"):
        issue(ca, name)


def test_keys_are_for_their_owner_alone(ca: Authority, folder: Path) -> None:
    issue(ca)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {".lock": 0o600, "ca.key": 0o600, "ca.crt": 0o644, "node-1.key": 0o600, "node-1.crt": 0o644}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_leaf_never_outlives_its_ca(ca: Authority) -> None:
    entry, _ = ca.issue("node-1", kind=NODE, hosts=(), days=5000, now=now(), force=False)
    assert entry.expires_s == certificates.not_after_s(ca.bundle[0])


def test_every_step_repeated_changes_nothing(ca: Authority, folder: Path) -> None:
    issue(ca)
    before = contents(folder)
    again, made = Authority.create(folder, name="another name", days=1, now=now())
    assert not made
    assert again.issue("node-1", kind=NODE, hosts=("h",), days=30, now=now(), force=False)[1] is False
    assert contents(folder) == before


def test_of_two_that_make_a_ca_at_once_the_second_finds_the_firsts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both wrote their files, else: the key of one, and the bundle of the other."""
    new_ca, made = pki._new_ca, list[bool]()

    def create() -> None:
        made.append(Authority.create(folder, name="test CA", days=100, now=now())[1])

    def new_ca_while_another_comes(*arguments: Any, **named: Any) -> Any:
        monkeypatch.setattr(pki, "_new_ca", new_ca)
        other.start()
        other.join(0.5)  # the time of what must not happen
        assert made == []
        return new_ca(*arguments, **named)

    other = Thread(target=create)
    monkeypatch.setattr(pki, "_new_ca", new_ca_while_another_comes)
    create()
    other.join()
    assert sorted(made) == [False, True]  # the second may be the first to tell
    assert len(Authority.open(folder).bundle) == 1


def test_a_ca_is_opened_for_a_change_when_nobody_else_changes_it(ca: Authority, folder: Path) -> None:
    done: list[str] = []

    def renew() -> None:
        with Authority.changing(folder) as ours:
            ours.add_ca(days=100, now=now(), force=False)
            done.append("renewed")

    other = Thread(target=renew)
    with Authority.changing(folder) as authority:
        other.start()
        other.join(0.5)  # the time of what must not happen
        assert done == []
        issue(authority)
    other.join()
    assert done == ["renewed"]
    entry = Authority.open(folder).find("node-1")
    assert entry is not None
    assert not entry.current


def test_what_says_something_else_is_only_replaced_by_force(ca: Authority, folder: Path) -> None:
    issue(ca)
    before = contents(folder)
    for kind, hosts in ((NODE, ("other",)), (CLIENT, ())):
        with pytest.raises(OperatorError, match=r"node-1\.crt is there: node, names node-1, h, until .*--force"):
            ca.issue("node-1", kind=kind, hosts=hosts, days=30, now=now(), force=False)
    assert contents(folder) == before
    entry, made = ca.issue("node-1", kind=NODE, hosts=("other",), days=30, now=now(), force=True)
    assert made
    assert entry.names == ["node-1", "other"]
    assert (folder / "node-1.key").read_bytes() != before["node-1.key"]


def test_an_issue_that_was_cut_short_goes_on_with_its_key(ca: Authority, folder: Path) -> None:
    issue(ca)
    key = (folder / "node-1.key").read_bytes()
    (folder / "node-1.crt").unlink()
    entry = issue(ca)
    assert (folder / "node-1.key").read_bytes() == key
    assert entry.certificate == certificates.parse_certificates((folder / "node-1.crt").read_bytes())[0]


def test_a_nodes_signing_key_is_never_taken_nor_overwritten(ca: Authority, folder: Path) -> None:
    generate("node-1", folder / "node-1.key")
    before = contents(folder)
    with pytest.raises(OperatorError, match=r"node-1\.key is there, and no key of ours; it is never overwritten"):
        issue(ca)
    assert contents(folder) == before


def test_a_renewal_has_the_same_names_with_a_new_key_or_the_old_one(ca: Authority, folder: Path) -> None:
    entry = issue(ca, hosts=("192.0.2.1", "x.example"))
    key = (folder / "node-1.key").read_bytes()
    kept = ca.renew(entry, days=60, now=now(), keep_key=True)
    assert (folder / "node-1.key").read_bytes() == key
    renewed = ca.renew(entry, days=60, now=now())
    assert (folder / "node-1.key").read_bytes() != key
    for each in (kept, renewed):
        assert (each.names, each.kind) == (entry.names, NODE)
        assert each.expires_s > entry.expires_s
        assert each.certificate.serial_number != entry.certificate.serial_number


def test_a_new_ca_stands_beside_the_old_until_nothing_here_is_of_it(ca: Authority, folder: Path) -> None:
    entry = issue(ca)
    ca.add_ca(days=100, now=now(), force=False)
    ca = Authority.open(folder)
    new, old = ca.bundle
    assert new.subject != old.subject
    found = ca.find("node-1")
    assert found
    assert not found.current
    assert certificates.path_of([found.certificate], ca.bundle)
    with pytest.raises(OperatorError, match="has 2 CAs already"):
        ca.add_ca(days=100, now=now(), force=False)
    with pytest.raises(OperatorError, match="of an old CA are still node-1"):
        ca.drop_old_cas(force=False)

    renewed = ca.renew(entry, days=30, now=now())
    assert certificates.path_of([renewed.certificate], [new])
    assert ca.drop_old_cas(force=False) == 1
    assert Authority.open(folder).bundle == (new,)
    assert Authority.open(folder).drop_old_cas(force=False) == 0


def test_a_new_ca_that_was_cut_short_between_its_files_is_completed(ca: Authority, folder: Path) -> None:
    bundle = (folder / "ca.crt").read_bytes()
    ca.add_ca(days=100, now=now(), force=False)
    both = (folder / "ca.crt").read_bytes()
    (folder / "ca.crt").write_bytes(bundle)  # as it was: ca.key alone was written
    assert len(Authority.open(folder).bundle) == 2
    assert (folder / "ca.crt").read_bytes() == both


def test_a_damaged_or_missing_ca_is_told_and_never_made_anew(folder: Path, ca: Authority) -> None:
    key = (folder / "ca.key").read_bytes()
    (folder / "ca.key").write_bytes(key[:100])
    with pytest.raises(OperatorError, match="is damaged"):
        Authority.open(folder)
    (folder / "ca.key").unlink()
    with pytest.raises(OperatorError, match="holds no CA; make one: replicad-cli pki init"):
        Authority.open(folder)
    with pytest.raises(OperatorError, match=r"without its ca\.key"):
        Authority.create(folder, name="x", days=1, now=now())


def test_an_expired_ca_issues_nothing(folder: Path) -> None:
    ca, _ = Authority.create(folder, name="test CA", days=1, now=now() - timedelta(days=5))
    with pytest.raises(OperatorError, match=r"the CA expired on .*pki renew ca"):
        issue(ca)


def test_usages_are_told_in_words(ca: Authority) -> None:
    said = [pki.usages(each.certificate) for each in (issue(ca), issue(ca, "c", kind=CLIENT), *ca.entries()[:1])]
    assert said == [["server", "client"], ["client"], ["issue"]]


def test_a_folder_without_a_ca_gets_no_lock_file(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="holds no CA"), Authority.changing(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_lock_that_root_makes_is_the_folders_owners(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    os.close(take_lock(tmp_path / ".lock"))
    found = (tmp_path / ".lock").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (65534, 65534, 0o600)
    os.close(take_lock(tmp_path / ".lock"))
