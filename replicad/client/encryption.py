"""End-to-end encryption: payloads are sealed before they leave a client and opened after they came back.

Owns ciphertexts and content tags; docs/formats.md has both, docs/adr/0022 the reasons. Must not know how messages
travel. Never puts a key into an error or a repr.
"""

from __future__ import annotations

import os
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hmac import compare_digest
from hmac import new as new_hmac
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, NoReturn, Self

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from replicad import fernetkeys
from replicad.core.record import ENCRYPTION_HEADER, MAX_HEADERS, decode_headers, encode_headers
from replicad.errors import BadRequest, KeyFileError
from replicad.wire.types import Record

TAG_CONTEXT = b"replicad content tag v1"  # what HKDF derives with it is of no other use

_SCHEME = b"fernet:"
_HEADER_KEY = ENCRYPTION_HEADER.encode()
_VALUE_BYTES = len(_SCHEME) + 43
_HEADER_HEAD = bytes((len(_HEADER_KEY),)) + _HEADER_KEY + _VALUE_BYTES.to_bytes(2, "big")
_LENGTHS = struct.Struct(">BI")


class Sealed(NamedTuple):
    """A message as it leaves."""

    payload: bytes  # a Fernet token: base64url text
    headers: bytes  # canonically encoded, with the one that says so


class Encryption:
    """The Fernet keys of a client, newest first: the newest encrypts, each of them decrypts, as MultiFernet does it.

    Beyond what MultiFernet does, a message's id and headers are bound to its payload by a content tag: a ciphertext
    that was moved to another id, or whose headers were changed, is not taken for decrypted.
    """

    __slots__ = ("_keys",)

    def __init__(self, keys: str | bytes | Iterable[str | bytes]) -> None:
        """As :meth:`from_keys`."""
        if isinstance(keys, str | bytes):
            keys = [keys]
        if not isinstance(keys, Iterable):
            raise KeyFileError(f"keys is {type(keys).__name__}; give a Fernet key or a list of them: {fernetkeys.MAKE}")
        texts = [key.decode("latin-1") if isinstance(key, bytes) else key for key in keys]
        found = fernetkeys.checked((f"key {number}", key) for number, key in enumerate(texts, start=1))
        if not found:
            raise KeyFileError(f"encryption needs a Fernet key; make one: {fernetkeys.MAKE}")
        self._keys = tuple(map(_Key, found))

    @classmethod
    def from_keys(cls, keys: str | bytes | Iterable[str | bytes]) -> Self:
        """From Fernet keys, newest first, or a single one. Raises KeyFileError."""
        return cls(keys)

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """From a key file of mode 0600: a key a line, newest first. Raises KeyFileError."""
        if not isinstance(path, str | Path):
            raise KeyFileError(f"path is {type(path).__name__}; give the path of a key file")
        return cls(fernetkeys.from_file(path))

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> Self:
        """From FERNET_KEY (one key, or several with commas between, newest first), else from the key file that
        REPLICAD_FERNET_KEY_FILE names. Raises KeyFileError, also when neither is set: nothing goes in the clear
        because a variable was forgotten."""
        keys = fernetkeys.from_environment(env)
        if not keys:
            raise KeyFileError(
                f"no key to encrypt with: set {fernetkeys.KEY_VARIABLE} or {fernetkeys.FILE_VARIABLE};"
                f" {fernetkeys.MAKE} makes a key"
            )
        return cls(keys)

    def __repr__(self) -> str:
        return f"Encryption({len(self._keys)} key{'s' if len(self._keys) > 1 else ''})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("keys are not to be pickled")

    def seal(self, message_id: str, payload: bytes, headers: bytes = b"") -> Sealed:
        """The message encrypted with the newest key; ``headers`` are canonically encoded. BadRequest when there is no
        room for one header more."""
        key = self._keys[0]
        before, after = _around(headers)
        tag = key.tag(message_id, headers, payload)
        return Sealed(key.fernet.encrypt(payload), b"".join((before, _HEADER_HEAD, _SCHEME, tag, after)))

    def open(self, record: Record) -> Record:
        """The record with payload and headers as they were posted; the record as it is when it stands in the clear,
        or when no key fits it or anything about it was changed."""
        if not record.encrypted or record.decrypted:
            return record
        headers = {key: value for key, value in record.headers.items() if key != ENCRYPTION_HEADER}
        encoded = encode_headers(headers)
        value = record.headers[ENCRYPTION_HEADER].encode()
        for key in self._keys:
            try:
                payload = key.fernet.decrypt(record.payload)
            except InvalidToken:
                continue
            if compare_digest(_SCHEME + key.tag(record.id, encoded, payload), value):
                return record._replace(headers=MappingProxyType(headers), payload=payload, decrypted=True)
        return record


class _Key:
    """A key, and what is derived from it."""

    __slots__ = ("_hmac", "fernet")

    def __init__(self, key: str) -> None:
        self.fernet = Fernet(key)
        tag_key = HKDF(SHA256(), length=32, salt=None, info=TAG_CONTEXT).derive(urlsafe_b64decode(key))
        self._hmac = new_hmac(tag_key, digestmod="sha256")  # keyed once: copies are cheaper

    def tag(self, message_id: str, headers: bytes, payload: bytes) -> bytes:
        """The content tag, in base64url without padding."""
        name = message_id.encode()
        mac = self._hmac.copy()
        mac.update(b"".join((_LENGTHS.pack(len(name), len(headers)), name, headers)))
        mac.update(payload)
        return urlsafe_b64encode(mac.digest()).rstrip(b"=")


def ciphertext_bytes(payload_bytes: int) -> int:
    """The length of the ciphertext of so many bytes: version, time, IV, padded blocks and MAC, in base64."""
    token_bytes = 1 + 8 + 16 + 16 * (payload_bytes // 16 + 1) + 32
    return 4 * -(-token_bytes // 3)


@lru_cache(maxsize=256)  # many messages have the same headers
def _around(headers: bytes) -> tuple[bytes, bytes]:
    """What stands before and after our header in the canonical encoding of these headers with it."""
    if not headers:
        return b"", b""
    given = decode_headers(headers)
    if len(given) >= MAX_HEADERS:
        raise BadRequest(f"{len(given)} headers, at most {MAX_HEADERS - 1} are allowed beside encryption's own")
    before = {key: value for key, value in given.items() if key.encode() < _HEADER_KEY}
    after = {key: value for key, value in given.items() if key not in before}
    return encode_headers(before), encode_headers(after)
