"""Encryption for any message: it comes back, and whatever is damaged is shown as it is and stops nothing."""

from __future__ import annotations

from base64 import urlsafe_b64encode

from hypothesis import given
from hypothesis import strategies as st

from replicad.client import Encryption, Record
from replicad.client.encryption import Sealed, ciphertext_bytes
from replicad.core.record import check_encoded_headers, decode_headers, encode_headers, says_encrypted

ENCRYPTION = Encryption.from_keys([urlsafe_b64encode(bytes([n]) * 32).decode() for n in (1, 2)])

IDS = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=128)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
HEADERS = st.dictionaries(
    KEYS.filter(lambda key: not key.startswith("replicad:")),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    max_size=5,
)


def record(message_id: str, sealed: Sealed) -> Record:
    return Record(0, 1, 0, message_id, "a", decode_headers(sealed.headers), sealed.payload, True, encrypted=True)


@given(IDS, st.binary(max_size=300), HEADERS)
def test_any_message_comes_back(message_id: str, payload: bytes, headers: dict[str, str]) -> None:
    sealed = ENCRYPTION.seal(message_id, payload, encode_headers(headers))
    check_encoded_headers(sealed.headers)
    assert says_encrypted(sealed.headers)
    assert len(sealed.payload) == ciphertext_bytes(len(payload))
    opened = ENCRYPTION.open(record(message_id, sealed))
    assert (opened.decrypted, opened.payload, opened.headers) == (True, payload, headers)


@given(st.binary(max_size=60), st.data())
def test_ciphertext_with_any_byte_changed_is_shown_as_it_is(payload: bytes, data: st.DataObject) -> None:
    sealed = ENCRYPTION.seal("a", payload)
    token = bytearray(sealed.payload)
    token[data.draw(st.integers(0, len(token) - 1))] ^= data.draw(st.integers(1, 255))
    damaged = record("a", Sealed(bytes(token), sealed.headers))
    opened = ENCRYPTION.open(damaged)
    # base64 has more than one text for some bytes: then it is the same token
    assert opened is damaged or (opened.decrypted and opened.payload == payload)


@given(st.binary(max_size=200), KEYS)
def test_a_record_that_only_claims_to_be_encrypted_is_shown_as_it_is(payload: bytes, value: str) -> None:
    claims = Record(0, 1, 0, "a", "a", {"replicad:encrypted": value}, payload, True, encrypted=True)
    assert ENCRYPTION.open(claims) is claims


@given(st.binary(max_size=40), st.binary(max_size=40), IDS, IDS)
def test_tags_are_equal_for_the_same_message_alone(one: bytes, two: bytes, id_one: str, id_two: str) -> None:
    same = (one, id_one) == (two, id_two)
    assert (ENCRYPTION.seal(id_one, one).headers == ENCRYPTION.seal(id_two, two).headers) is same
