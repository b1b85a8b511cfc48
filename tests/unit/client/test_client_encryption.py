"""Sealing and opening: what leaves is a Fernet token with a content tag, which only the same message has again."""

from __future__ import annotations

import copy
import hashlib
import hmac
import pickle
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet, MultiFernet

from replicad import fernetkeys
from replicad.client import AsyncClient, BadRequest, Encryption, KeyFileError, Record
from replicad.client.cutting import headers_bytes
from replicad.client.encryption import Sealed, ciphertext_bytes
from replicad.core.record import check_encoded_headers, decode_headers, encode_headers

NEW, OLD, OTHER = (urlsafe_b64encode(bytes([n]) * 32).decode() for n in (1, 2, 3))
ENCRYPTION = Encryption.from_keys([NEW, OLD])


def record(sealed: Sealed, *, message_id: str = "a", headers: Mapping[str, str] | None = None) -> Record:
    stored = decode_headers(sealed.headers) if headers is None else headers
    return Record(5, 1, 0, message_id, "token", stored, sealed.payload, True, encrypted=True)


def tag(sealed: Sealed) -> str:
    return decode_headers(sealed.headers)["replicad:encrypted"]


@pytest.mark.parametrize("headers", [{}, {"kind": "x"}, {"aa": "1", "replicad-like": "2", "zz": "3"}])
@pytest.mark.parametrize("payload", [b"", b"hello", bytes(range(256))])
def test_a_message_comes_back_as_it_was_posted(payload: bytes, headers: dict[str, str]) -> None:
    sealed = ENCRYPTION.seal("a", payload, encode_headers(headers))
    check_encoded_headers(sealed.headers)  # canonical, and taken by the gate
    assert payload not in sealed.payload or not payload
    opened = ENCRYPTION.open(record(sealed))
    assert (opened.payload, opened.headers, opened.encrypted, opened.decrypted) == (payload, headers, True, True)
    assert ENCRYPTION.open(opened) is opened


def test_the_payload_is_a_token_that_cryptography_decrypts_with_the_newest_key() -> None:
    sealed = ENCRYPTION.seal("a", b"hello")
    assert Fernet(NEW).decrypt(sealed.payload) == b"hello"
    assert ENCRYPTION.open(record(sealed)).decrypted
    assert MultiFernet([Fernet(OLD), Fernet(NEW)]).decrypt(sealed.payload) == b"hello"


def test_each_key_decrypts_and_without_one_that_fits_the_record_stays_as_it_is() -> None:
    old = record(Encryption.from_keys([OLD]).seal("a", b"hello"))
    assert ENCRYPTION.open(old).payload == b"hello"
    assert Encryption.from_keys([OTHER]).open(old) is old
    assert (old.text, old._replace(encrypted=False).text) == (None, old.payload.decode())


def test_the_content_tag_is_what_the_format_says() -> None:
    """docs/formats.md, worked out by hand: HKDF is RFC 5869 with no salt."""
    extracted = hmac.digest(bytes(32), urlsafe_b64decode(NEW), hashlib.sha256)
    tag_key = hmac.digest(extracted, b"replicad content tag v1\x01", hashlib.sha256)
    headers = encode_headers({"kind": "x"})
    content = b"\x01" + len(headers).to_bytes(4, "big") + b"a" + headers + b"hello"
    expected = urlsafe_b64encode(hmac.digest(tag_key, content, hashlib.sha256)).decode().rstrip("=")
    assert tag(ENCRYPTION.seal("a", b"hello", headers)) == f"fernet:{expected}"


def test_a_retry_has_fresh_ciphertext_and_the_same_headers_and_nothing_else_has() -> None:
    first, again = ENCRYPTION.seal("a", b"hello"), ENCRYPTION.seal("a", b"hello")
    assert first.payload != again.payload
    assert len(first.payload) == len(again.payload)
    assert first.headers == again.headers
    others = [
        ENCRYPTION.seal("b", b"hello"),  # equal payloads under two ids can't be linked
        ENCRYPTION.seal("a", b"Hello"),
        ENCRYPTION.seal("a", b"hello", encode_headers({"k": "v"})),
        ENCRYPTION.seal("ah", b"ello"),
        Encryption.from_keys([OLD, NEW]).seal("a", b"hello"),
    ]
    assert len({tag(each) for each in [first, *others]}) == 6


def test_a_ciphertext_under_another_id_or_with_other_headers_is_not_taken_for_decrypted() -> None:
    sealed = ENCRYPTION.seal("a", b"hello", encode_headers({"kind": "x"}))
    mark = {"replicad:encrypted": tag(sealed)}
    assert ENCRYPTION.open(record(sealed)).decrypted
    assert not ENCRYPTION.open(record(sealed, message_id="b")).decrypted
    assert not ENCRYPTION.open(record(sealed, headers={"kind": "y", **mark})).decrypted
    assert not ENCRYPTION.open(record(sealed, headers=mark)).decrypted
    assert not ENCRYPTION.open(record(sealed, headers={"kind": "x", "replicad:encrypted": "fernet:é"})).decrypted
    swapped = Sealed(ENCRYPTION.seal("a", b"other").payload, sealed.headers)
    assert not ENCRYPTION.open(record(swapped)).decrypted


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 31, 32, 100, 1000, 4096])
def test_the_length_of_a_ciphertext_is_known_before_it_is_made(size: int) -> None:
    assert len(ENCRYPTION.seal("a", bytes(size)).payload) == ciphertext_bytes(size)
    assert ciphertext_bytes(size) <= size * 4 / 3 + 100


def test_there_must_be_room_for_one_header_more() -> None:
    full = encode_headers({f"k{n:02}": "" for n in range(63)})
    check_encoded_headers(ENCRYPTION.seal("a", b"", full).headers)
    with pytest.raises(BadRequest, match="at most 63"):
        ENCRYPTION.seal("a", b"", encode_headers({f"k{n:02}": "" for n in range(64)}))


def test_callers_set_no_header_of_the_logs_own() -> None:
    with pytest.raises(BadRequest, match=r"'replicad:encrypted' begins with 'replicad:'.*rename it"):
        headers_bytes({"replicad:encrypted": "fernet:" + "a" * 43})


def test_neither_repr_nor_pickle_nor_copy_nor_an_error_gives_a_key_away() -> None:
    assert repr(ENCRYPTION) == "Encryption(2 keys)"
    with pytest.raises(TypeError):
        pickle.dumps(ENCRYPTION)
    with pytest.raises(TypeError):
        copy.copy(ENCRYPTION)
    with pytest.raises(KeyFileError) as caught:
        Encryption.from_keys([NEW, OLD[:-2]])
    assert "key 2 is not a Fernet key" in str(caught.value)
    assert OLD[:8] not in str(caught.value)


def test_keys_come_from_text_bytes_a_file_or_the_environment(tmp_path: Path) -> None:
    fernetkeys.write_new_file(tmp_path / "key", NEW)
    sealed = record(ENCRYPTION.seal("a", b"hello"))
    for made in (
        Encryption.from_keys([NEW.encode()]),
        Encryption.from_keys(NEW),
        Encryption.from_file(tmp_path / "key"),
        Encryption.from_environment({"FERNET_KEY": f"{OLD},{NEW}"}),
        Encryption.from_environment({"REPLICAD_FERNET_KEY_FILE": str(tmp_path / "key")}),
    ):
        assert made.open(sealed).payload == b"hello"


def test_a_bare_key_in_place_of_an_encryption_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match=r"encryption is str; give Encryption\.from_keys") as caught:
        AsyncClient(encryption=NEW)  # type: ignore[arg-type]
    assert NEW[:8] not in str(caught.value)


def test_no_key_at_all_is_an_error_and_nothing_goes_in_the_clear() -> None:
    with pytest.raises(KeyFileError, match="set FERNET_KEY or"):
        Encryption.from_environment({})
    with pytest.raises(KeyFileError, match="generate-fernet"):
        Encryption.from_keys([])


@pytest.mark.parametrize("odd", [5, None, [5], [None], {"a": 1}])
def test_what_is_no_key_at_all_is_named(odd: Any) -> None:
    with pytest.raises(KeyFileError, match=r"^(keys is|key 1 is not a Fernet key)"):
        Encryption.from_keys(odd)


@pytest.mark.parametrize("odd", [5, None, b"x"])
def test_what_is_no_path_is_named(odd: Any) -> None:
    with pytest.raises(KeyFileError, match=r"^path is (int|NoneType|bytes); give the path of a key file"):
        Encryption.from_file(odd)
