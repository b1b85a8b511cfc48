"""Key files and vkey lines: the published example, who may read a key file, and every refusal with its remedy."""

from __future__ import annotations

import base64
import os
import pickle
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.errors import KeyFileError
from replicad.keys import Signer, check_matches, generate, load_signer, parse_vkey
from replicad.vkeys import make_verifier

UNHURRIED = settings(deadline=None)  # a busy machine is no fault
# The example in the documentation of golang.org/x/mod/sumdb/note, which C2SP's signed-note is the specification of.
NOTE_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NOTE_SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
NOTE_TEXT = b"If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
NOTE_SIGNATURE = base64.b64decode(
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
)


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(KeyFileError) as caught:
        action()
    return str(caught.value)


# --- vkey lines -------------------------------------------------------------------------------------------------


def test_the_published_line_is_read_and_verifies_its_published_signature() -> None:
    verifier = parse_vkey(NOTE_VKEY)
    assert (verifier.name, verifier.line) == ("PeterNeumann", NOTE_VKEY)
    assert verifier.key_id == bytes.fromhex("c74f20a3") == NOTE_SIGNATURE[:4]
    assert verifier.verify(NOTE_SIGNATURE[4:], NOTE_TEXT)


def test_the_published_private_key_gives_the_published_line_and_signature() -> None:
    signer = Signer("PeterNeumann", ed25519.Ed25519PrivateKey.from_private_bytes(NOTE_SEED))
    assert signer.verifier == parse_vkey(NOTE_VKEY)
    assert signer.sign(NOTE_TEXT) == NOTE_SIGNATURE[4:]


@UNHURRIED
@given(st.integers(0, 63), st.integers(1, 255), st.integers(0, len(NOTE_TEXT) - 1))
def test_no_changed_byte_of_signature_or_statement_verifies(in_signature: int, change: int, in_text: int) -> None:
    verifier = parse_vkey(NOTE_VKEY)
    signature, text = bytearray(NOTE_SIGNATURE[4:]), bytearray(NOTE_TEXT)
    signature[in_signature] ^= change
    text[in_text] ^= change
    assert not verifier.verify(bytes(signature), NOTE_TEXT)
    assert not verifier.verify(NOTE_SIGNATURE[4:], bytes(text))


@pytest.mark.parametrize("length", [0, 1, 63, 65, 1000])
def test_a_signature_of_another_length_does_not_verify_and_does_not_raise(length: int) -> None:
    assert not parse_vkey(NOTE_VKEY).verify(bytes(length), NOTE_TEXT)


@UNHURRIED
@given(st.integers(0, len(NOTE_VKEY) - 1), st.characters(codec="utf-8"))
def test_no_changed_character_of_a_line_is_taken(at: int, character: str) -> None:
    changed = NOTE_VKEY[:at] + character + NOTE_VKEY[at + 1 :]
    try:
        line = parse_vkey(changed).line
    except KeyFileError:
        return
    assert line == NOTE_VKEY == changed.strip()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "NAME+HHHHHHHH+BASE64"),
        ("node-1", "NAME+HHHHHHHH+BASE64"),
        ("+c74f20a3+ARpc", "NAME+HHHHHHHH+BASE64"),
        (NOTE_VKEY + "A" * 600, "NAME+HHHHHHHH+BASE64"),
        ("a+c74f20a3+not base64!", "is not base64"),
        ("a+c74f20a3+\u00e9\u00e9\u00e9\u00e9", "is not base64"),
        ("a+c74f20a3+" + base64.b64encode(b"\x04" + bytes(32)).decode(), "not of type 0x01"),
        ("a+c74f20a3+" + base64.b64encode(b"\x01" + bytes(31)).decode(), "31 bytes are not an Ed25519 public key"),
        (NOTE_VKEY.replace("c74f20a3", "C74F20A3"), "a character is lost or changed"),
        (NOTE_VKEY.replace("PeterNeumann", "EnochRoot"), "do not belong together"),
        ("a b" + NOTE_VKEY, "no space"),
        ("PRIVATE+KEY+PeterNeumann+c74f20a3+AYEK", "this is a private key"),
    ],
)
def test_a_line_that_is_not_a_key_is_refused_and_not_repeated(line: str, words: str) -> None:
    text = refusal(lambda: parse_vkey(line))
    assert words in text
    assert "AYEK" not in text


@pytest.mark.parametrize("name", ["", "a+b", "a b", "a\nb", "a\u00a0b"])
def test_a_name_that_would_break_the_line_is_refused(name: str) -> None:
    assert "has no space and no '+'" in refusal(lambda: make_verifier(name, bytes(32)))


# --- making a key -----------------------------------------------------------------------------------------------


def test_a_generated_key_signs_what_its_line_verifies(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    line = generate("node-1", path)
    signer = load_signer(path, "node-1", env={})
    assert (signer.name, signer.verifier.line) == ("node-1", line)
    assert parse_vkey(line).verify(signer.sign(b"statement"), b"statement")
    check_matches(signer, [f"{line}\n"])


def test_a_generated_file_is_standard_pem_for_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    before = os.umask(0)
    try:
        generate("node-1", path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert isinstance(load_pem_private_key(path.read_bytes(), None), ed25519.Ed25519PrivateKey)
    assert os.listdir(tmp_path) == ["node.key"], "nothing is left behind"  # noqa: PTH208


def test_two_generated_keys_differ(tmp_path: Path) -> None:
    assert generate("node-1", tmp_path / "a") != generate("node-1", tmp_path / "b")


@pytest.mark.parametrize("what", ["file", "dangling link", "folder"])
def test_nothing_that_exists_is_overwritten(what: str, tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    if what == "file":
        path.write_text("precious")
    elif what == "dangling link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.mkdir()
    assert "exists and is never overwritten; give another path" in refusal(lambda: generate("node-1", path))
    assert os.listdir(tmp_path) == ["node.key"]  # noqa: PTH208
    assert what != "file" or path.read_text() == "precious"


def test_a_folder_that_is_missing_is_told_with_the_command_that_makes_it(tmp_path: Path) -> None:
    text = refusal(lambda: generate("node-1", tmp_path / "no" / "node.key"))
    assert text.endswith(f"its folder does not exist; make it: mkdir -p {tmp_path}/no")


def test_a_path_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be written (Not a directory)" in refusal(lambda: generate("node-1", tmp_path / "file" / "node.key"))


@pytest.mark.parametrize("name", ["", "Node", "a+b", "../x", "a" * 65])
def test_a_key_is_made_for_a_nodes_name_only(name: str, tmp_path: Path) -> None:
    assert "is no node name; use 1 to 64" in refusal(lambda: generate(name, tmp_path / "node.key"))
    assert not list(tmp_path.iterdir())


# --- loading a key ----------------------------------------------------------------------------------------------


def make_file(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def pem_of(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey, passphrase: bytes = b"") -> bytes:
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def test_a_missing_key_is_told_with_the_command_that_makes_one(tmp_path: Path) -> None:
    text = refusal(lambda: load_signer(tmp_path / "node.key", "node-1", env={}))
    assert "no such key file; make one: replicad-cli keys generate node-1" in text


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o620, 0o601, 0o440])
def test_a_key_that_others_have_rights_to_is_refused(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    generate("node-1", path)
    path.chmod(mode)
    text = refusal(lambda: load_signer(path, "node-1", env={}))
    assert f"(mode {mode:04o}); chmod 600 {path}, and make a new key if anybody may have read it" in text


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_key_for_its_owner_alone_is_taken(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    line = generate("node-1", path)
    path.chmod(mode)
    assert load_signer(path, "node-1", env={}).verifier.line == line


def test_a_systemd_credential_may_be_group_readable_but_no_more(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    line = generate("node-1", path)
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    path.chmod(0o440)
    assert load_signer(path, "node-1", env=env).verifier.line == line
    for mode in (0o444, 0o460):
        path.chmod(mode)
        assert "group or others have rights" in refusal(lambda: load_signer(path, "node-1", env=env))


def test_a_file_beside_the_credentials_is_not_one(tmp_path: Path) -> None:
    (tmp_path / "credentials").mkdir()
    path = tmp_path / "node.key"
    generate("node-1", path)
    path.chmod(0o440)
    (tmp_path / "credentials" / "link").symlink_to(path)
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}
    for way in (path, tmp_path / "credentials" / ".." / "node.key", tmp_path / "credentials" / "link"):
        assert "group or others have rights" in refusal(lambda way=way: load_signer(way, "node-1", env=env))  # type: ignore[misc]


def test_what_is_not_an_ed25519_key_in_the_clear_is_refused_with_a_remedy(tmp_path: Path) -> None:
    good = pem_of(ed25519.Ed25519PrivateKey.from_private_bytes(NOTE_SEED))
    for content, words in {
        b"": "is not a private key in PEM",
        b"hello": "is not a private key in PEM",
        NOTE_VKEY.encode(): "is not a private key in PEM",
        good[: len(good) // 2]: "is not a private key in PEM (PKCS8), or is damaged",
        os.urandom(100_000): "is not a private key in PEM",
        pem_of(ec.generate_private_key(ec.SECP256R1())): "is a key of another kind, not Ed25519",
        pem_of(ed25519.Ed25519PrivateKey.generate(), b"passphrase"): "is encrypted",
    }.items():
        path = make_file(tmp_path / "node.key", content)
        text = refusal(lambda path=path: load_signer(path, "node-1", env={}))  # type: ignore[misc]
        assert words in text
        assert "replicad-cli keys generate node-1" in text


def test_a_folder_or_a_fifo_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name in ("folder", "fifo"):
        assert "is not a regular file" in refusal(lambda name=name: load_signer(tmp_path / name, "node-1", env={}))  # type: ignore[misc]


def test_a_path_through_a_file_can_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    text = refusal(lambda: load_signer(tmp_path / "file" / "node.key", "node-1", env={}))
    assert "cannot be read (Not a directory); it must belong to the user that the daemon runs as" in text


def test_a_key_file_that_is_not_the_configs_is_told_with_both_lines(tmp_path: Path) -> None:
    line = generate("node-1", tmp_path / "a")
    other = generate("node-1", tmp_path / "b")
    signer = load_signer(tmp_path / "a", "node-1", env={})
    text = refusal(lambda: check_matches(signer, [other]))
    assert line in text
    assert other in text
    assert "into the config of every node, or put the right key file back" in text


def test_a_signer_does_not_give_its_key_away(tmp_path: Path) -> None:
    generate("node-1", tmp_path / "node.key")
    signer = load_signer(tmp_path / "node.key", "node-1", env={})
    assert repr(signer) == f"Signer({signer.verifier.line})"
    with pytest.raises(TypeError, match="not to be pickled"):
        pickle.dumps(signer)
