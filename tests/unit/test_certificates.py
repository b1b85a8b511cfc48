"""Certificates from files: what fits together is taken, and each thing that does not is told with its remedy."""

from __future__ import annotations

import ssl
import time
from datetime import UTC, datetime, timedelta
from inspect import signature
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from replicad import certificates
from replicad.certificates import Files
from replicad.errors import ConfigError
from tests.support.certificates import Shown, client_of, files_of, new_ca, node_of, now
from tests.support.commandline import CommandLine

NOW = datetime.now(UTC)


@pytest.fixture
def shown(tmp_path: Path) -> Shown:
    return node_of(new_ca(tmp_path / "pki"), "node-1")


def files(shown: Shown) -> Files:
    return Files(str(shown.certificate), str(shown.key), str(shown.ca))


def faults(shown: Shown, name: str = "node-1", **more: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        certificates.load(files(shown), name=name, now_s=time.time(), **more)  # type: ignore[arg-type]
    assert all("PRIVATE" not in fault for fault in caught.value.faults)
    return caught.value.faults


def paths(shown: Shown) -> tuple[Path, Path, Path]:
    assert shown.certificate
    assert shown.key
    return shown.certificate, shown.key, shown.ca


def test_what_fits_together_is_taken_with_its_end(shown: Shown) -> None:
    identity = certificates.load(files(shown), name="node-1", now_s=time.time())
    assert abs(identity.expires_s - (time.time() + 30 * 86_400)) < 5
    assert "PRIVATE" not in repr(identity)


def test_the_end_is_that_of_the_first_in_the_chain_to_end(tmp_path: Path) -> None:
    ca = new_ca(tmp_path / "pki", days=10)
    shown = node_of(ca, "node-1", days=300)
    identity = certificates.load(files(shown), name="node-1", now_s=time.time())
    assert identity.expires_s <= time.time() + 10 * 86_400


def test_all_faults_are_told_at_once_each_with_its_key(shown: Shown, tmp_path: Path) -> None:
    certificate, key, ca = paths(shown)
    certificate.write_text("nothing of the kind")
    key.unlink()
    ca.write_bytes(ca.read_bytes()[:200])
    told = faults(shown)
    assert [fault.split(": ")[0] for fault in told] == ["tls.key", "tls.certificate", "tls.ca"]
    assert "no such file; make one: replicad-cli pki issue node node-1" in told[0]
    assert "holds no certificate in PEM" in told[1]
    assert "damaged or cut off" in told[2]


@pytest.mark.parametrize(
    ("which", "there", "instead"),
    [
        pytest.param(0, "2a8648ce3d030107", "2a8648ce3d030106", id="the node's is of an unknown curve"),
        pytest.param(2, "2a8648ce3d030107", "2a8648ce3d030106", id="the CA's is of an unknown curve"),
        pytest.param(0, "2a8648ce3d040302", "2a8648ce3d04037f", id="the node's is signed in an unknown way"),
        pytest.param(0, "a003020102", "a003020122", id="the node's is of an unknown version"),
        pytest.param(0, "06035504030c", "0603550403ff", id="the node's has names of an unknown type"),
        pytest.param(2, "06035504030c", "0603550403ff", id="the CA's has names of an unknown type"),
        pytest.param(0, "0603551d0e", "0603551d0f", id="the node's has an extension twice"),
        pytest.param(2, "0603551d0e", "0603551d0f", id="the CA's has an extension twice"),
        pytest.param(0, "0603551d13", "0603551d11", id="the node's has an extension of other content"),
        pytest.param(2, "0603551d13", "0603551d11", id="the CA's has an extension of other content"),
    ],
)
def test_a_certificate_that_nobody_can_make_sense_of_is_a_fault_like_others(
    shown: Shown, which: int, there: str, instead: str
) -> None:
    """Else a file that somebody puts there would end every node that looks at it."""
    path = paths(shown)[which]
    der = x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)
    assert bytes.fromhex(there) in der
    path.write_text(ssl.DER_cert_to_PEM_cert(der.replace(bytes.fromhex(there), bytes.fromhex(instead))))
    assert faults(shown)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_folder_in_place_of_a_file_is_told_of(shown: Shown, which: int) -> None:
    path = paths(shown)[which]
    path.unlink()
    path.mkdir(mode=0o700)
    assert "is not a regular file" in faults(shown)[0]


def test_an_intermediate_that_leads_nowhere_hides_none_that_leads_to_a_ca(tmp_path: Path) -> None:
    """Two CAs have certified one intermediate, and the bundle has only the second."""
    key, intermediate = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    roots = [(ca_name(name), ec.generate_private_key(ec.SECP256R1())) for name in ("gone", "here")]
    here = certificate(*roots[1], roots[1][0], roots[1][1].public_key(), ca=True)
    middles = [certificate(name, by, ca_name("middle"), intermediate.public_key(), ca=True) for name, by in roots]
    leaf = certificate(ca_name("middle"), intermediate, ca_name("leaf"), key.public_key(), ca=False)
    assert certificates.path_of([leaf, *middles], [here]) == [leaf, middles[1], here]


@pytest.mark.skipif(
    "rsa_padding" not in signature(x509.CertificateBuilder.sign).parameters,
    reason="this release of cryptography makes no such signature, nor reads one",
)
def test_a_ca_that_signs_with_rsassa_pss_is_one() -> None:
    """TLS takes it, so a node must not refuse to start with it."""
    ca, key = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder().issuer_name(ca_name("ca")).not_valid_before(NOW)
    builder = builder.not_valid_after(NOW + timedelta(days=1)).serial_number(x509.random_serial_number())
    made = []
    for name, public_key, is_ca in (("leaf", key.public_key(), False), ("ca", ca.public_key(), True)):
        one = builder.subject_name(ca_name(name)).public_key(public_key)
        one = one.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        made.append(one.sign(ca, hashes.SHA256(), rsa_padding=padding.PSS(padding.MGF1(hashes.SHA256()), 32)))
    assert certificates.path_of(made[:1], made[1:]) == made


def ca_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def certificate(
    issuer: x509.Name, by: ec.EllipticCurvePrivateKey, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, ca: bool
) -> x509.Certificate:
    builder = x509.CertificateBuilder().issuer_name(issuer).subject_name(subject).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(NOW).not_valid_after(NOW + timedelta(days=1))
    return builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True).sign(
        by, hashes.SHA256()
    )


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_may_read_is_refused_but_not_among_credentials(shown: Shown, mode: int) -> None:
    key = paths(shown)[1]
    key.chmod(mode)
    (fault,) = faults(shown)
    assert f"mode {mode:04o}); chmod 600 {key}" in fault
    if mode == 0o640:
        env = {"CREDENTIALS_DIRECTORY": str(key.parent)}
        certificates.load(files(shown), name="node-1", now_s=time.time(), env=env)


def test_a_key_of_another_certificate_an_encrypted_one_and_none_at_all_are_told_apart(shown: Shown) -> None:
    key = paths(shown)[1]
    private = ec.generate_private_key(ec.SECP256R1())
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert "does not belong to the certificate" in faults(shown)[0]
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))
    assert "is encrypted" in faults(shown)[0]
    key.write_text("no key")
    assert "is not a private key in PEM" in faults(shown)[0]


def test_a_certificate_is_of_the_node_only_by_a_dns_name(shown: Shown) -> None:
    (fault,) = faults(shown, "node-2")
    assert "is not of node-2: among its DNS names (localhost, node-1)" in fault
    (fault,) = faults(shown, "127.0.0.1")  # that is an IP address among the names
    assert "is not of 127.0.0.1" in fault


def test_before_and_after_its_days_a_certificate_is_refused(tmp_path: Path) -> None:
    ca = new_ca(tmp_path / "pki", at=now() - timedelta(days=50))
    (fault,) = faults(node_of(ca, "node-1", days=1, at=now() - timedelta(days=2)))
    assert "'CN=node-1' expired on " in fault
    (fault,) = faults(node_of(ca, "node-1", days=1, at=now() + timedelta(days=2)))
    assert "is not valid before" in fault


def test_an_expired_ca_is_told_of(tmp_path: Path) -> None:
    ca = new_ca(tmp_path / "pki", days=5, at=now() - timedelta(days=10))
    told = faults(node_of(ca, "node-1", days=300, at=now() - timedelta(days=9)))
    assert any("'CN=test CA" in fault and "expired on" in fault for fault in told)


def test_a_bundle_of_two_cas_lets_in_what_either_issued_and_one_of_them_does_not(tmp_path: Path) -> None:
    first, second = new_ca(tmp_path / "a"), new_ca(tmp_path / "b")
    mine, other = node_of(first, "node-1"), node_of(second, "node-2")
    pem = paths(other)[0].read_bytes()
    alone = certificates.load(files(mine), name="node-1", now_s=time.time())
    assert alone.believed_until_s(pem, now_s=time.time()) == 0
    mine.ca.write_bytes(mine.ca.read_bytes() + other.ca.read_bytes())
    both = certificates.load(files(mine), name="node-1", now_s=time.time())
    assert len(both.cas) == 2
    until_s = both.believed_until_s(pem, now_s=time.time())
    assert abs(until_s - (time.time() + 30 * 86_400)) < 5
    assert both.believed_until_s(pem, now_s=until_s + 1) == 0
    assert both.believed_until_s(pem[:100], now_s=time.time()) == 0


def test_another_ca_of_the_same_name_is_not_the_issuer(tmp_path: Path) -> None:
    """By name alone anybody could be."""
    shown = node_of(new_ca(tmp_path / "a"), "node-1")
    leaf = certificates.parse_certificates(paths(shown)[0].read_bytes())[0]
    key = ec.generate_private_key(ec.SECP256R1())
    shown.ca.write_bytes(ca_certificate(leaf.issuer, leaf.issuer, key.public_key(), key).public_bytes(Encoding.PEM))
    (fault,) = faults(shown)
    assert "which no certificate in the CA bundle confirms" in fault


def test_a_leaf_is_no_ca_though_it_signed(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "leaf")])
    leaf = ca_certificate(name, name, key.public_key(), key, ca=False)
    child = ca_certificate(x509.Name([]), name, key.public_key(), key, ca=False)
    assert certificates.path_of([child], [leaf]) == []


@pytest.mark.parametrize("kind", ["rsa", "ec", "ed25519"])
def test_a_chain_over_an_intermediate_of_any_usual_key_is_found(kind: str) -> None:
    def new_key() -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey:
        if kind == "rsa":
            return rsa.generate_private_key(65537, 2048)
        return ec.generate_private_key(ec.SECP384R1()) if kind == "ec" else ed25519.Ed25519PrivateKey.generate()

    keys = [new_key() for _ in range(3)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, n)]) for n in ("root", "between", "leaf")]
    root = ca_certificate(names[0], names[0], keys[0].public_key(), keys[0])
    between = ca_certificate(names[1], names[0], keys[1].public_key(), keys[0])
    leaf = ca_certificate(names[2], names[1], keys[2].public_key(), keys[1], ca=False)
    assert certificates.path_of([leaf, between], [root]) == [leaf, between, root]
    assert certificates.path_of([leaf], [root]) == []


def test_names_are_taken_by_type_and_of_servers_only_where_asked(tmp_path: Path) -> None:
    ca = new_ca(tmp_path / "pki")
    node, client = (paths(each)[0].read_bytes() for each in (node_of(ca, "node-1"), client_of(ca, "billing")))
    assert certificates.names_in(node) == {"node-1", "localhost"}
    assert certificates.names_in(node, of_server=True) == {"node-1", "localhost"}
    assert certificates.names_in(client) == {"billing"}
    assert certificates.names_in(client, of_server=True) == frozenset()
    assert certificates.names_in(b"junk") == certificates.names_in(node[:80]) == frozenset()


def test_a_clients_files_are_checked_too(tmp_path: Path) -> None:
    ca = new_ca(tmp_path / "pki")
    certificate, key, bundle = paths(client_of(ca, "billing"))
    loaded = certificates.load_client(str(bundle), str(certificate), str(key), now_s=time.time())
    assert loaded == (bundle.read_bytes(), certificate.read_bytes(), key.read_bytes())
    assert certificates.load_client(str(bundle), "", "", now_s=time.time()) == (bundle.read_bytes(), b"", b"")
    with pytest.raises(ConfigError, match=r"expired on"):
        certificates.load_client(str(bundle), str(certificate), str(key), now_s=time.time() + 31 * 86_400)
    other = paths(client_of(ca, "other"))[1]
    with pytest.raises(ConfigError, match=r"^key: .* does not belong to the certificate"):
        certificates.load_client(str(bundle), str(certificate), str(other), now_s=time.time())
    with pytest.raises(ConfigError, match=r"^ca: .*no such file"):
        certificates.load_client(str(tmp_path / "none"), "", "", now_s=time.time())


def ca_certificate(
    subject: x509.Name, issuer: x509.Name, public_key: object, signing_key: object, *, ca: bool = True
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=9))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    digest = None if isinstance(signing_key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(signing_key, digest)  # type: ignore[arg-type]


def test_a_flaw_of_a_public_ca_adds_no_word_to_what_a_program_says(tmp_path: Path) -> None:
    """Some have no positive serial number, of which cryptography warns. In a process: pytest minds warnings itself."""
    der = bytearray(new_ca(tmp_path / "pki").bundle[0].public_bytes(Encoding.DER))
    version_and_integer = b"\xa0\x03\x02\x01\x02\x02"
    der[der.index(version_and_integer) + len(version_and_integer) + 1] = 0x80  # behind the length: now it is negative
    bundle = tmp_path / "ca.crt"
    bundle.write_text(ssl.DER_cert_to_PEM_cert(bytes(der)))
    cli = CommandLine({"REPLICAD_CA": str(bundle)})
    assert cli.fails(7, "post", "x", "--timeout", "100ms", "--address", "127.0.0.1:1")["name"] == "UNAVAILABLE"


def test_files_of_finds_what_was_issued(shown: Shown) -> None:
    assert shown == files_of(new_ca(shown.ca.parent), "node-1")
