"""Public keys as text: one vkey line a key, as C2SP signed notes have them.

Owns the line's format and the check of a signature. Knows no file and no private key: :mod:`replicad.keys` does.

A line is NAME+HHHHHHHH+BASE64(0x01 || 32-byte Ed25519 key), where HHHHHHHH, the key id, is the first 4 bytes of
SHA-256(NAME || 0x0A || 0x01 || key) in lower-case hex. Source: C2SP signed-note, golang.org/x/mod/sumdb/note.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from replicad.errors import KeyFileError

ED25519 = b"\x01"  # the signature type byte of C2SP signed notes
KEY_BYTES = 32
KEY_ID_BYTES = 4
LINE_CHARS = 512  # a node's name has at most 64; another log's name is a URL

_FORM = "a public key is one line, NAME+HHHHHHHH+BASE64"


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key with the name it stands for.

    1. ``line`` is the canonical vkey line of ``name`` and the key; two verifiers are equal when their lines are.
    2. ``key_id`` is its 4 bytes, as signature lines of notes carry them.
    """

    name: str
    key_id: bytes
    line: str
    _public: Ed25519PublicKey = field(repr=False, compare=False)

    def verify(self, signature: bytes, statement: bytes) -> bool:
        """Whether ``signature`` (64 bytes, RFC 8032) is this key's over exactly ``statement``. Never raises."""
        try:
            self._public.verify(signature, statement)
        except InvalidSignature:
            return False
        return True


def make_verifier(name: str, public_key: bytes) -> Verifier:
    """The verifier of a raw 32-byte Ed25519 key under ``name``. KeyFileError when either can't stand in a line."""
    if not name or "+" in name or not name.isprintable() or any(c.isspace() for c in name):
        raise KeyFileError("a key's name is not empty and has no space and no '+'")
    try:
        public = Ed25519PublicKey.from_public_bytes(public_key)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise KeyFileError(f"these {len(public_key)} bytes are not an Ed25519 public key ({KEY_BYTES} bytes)") from exc
    typed_key = ED25519 + public_key
    key_id = hashlib.sha256(name.encode() + b"\n" + typed_key).digest()[:KEY_ID_BYTES]
    line = f"{name}+{key_id.hex()}+{base64.b64encode(typed_key).decode()}"
    return Verifier(name=name, key_id=key_id, line=line, _public=public)


def parse_vkey(line: str) -> Verifier:
    """The verifier that a vkey line describes; white space around the line is ignored.

    Raises KeyFileError, saying which part is wrong, never with the line itself: somebody may have pasted a private key.
    """
    line = line.strip()
    if line.startswith("PRIVATE+KEY+") or "PRIVATE KEY" in line:
        raise KeyFileError("this is a private key; only the public line belongs here")
    name, _, rest = line.partition("+")
    key_id, _, encoded = rest.partition("+")
    if not (name and key_id and encoded) or len(line) > LINE_CHARS:
        raise KeyFileError(_FORM)
    try:
        typed_key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise KeyFileError(f"its last part is not base64; {_FORM}") from exc
    if typed_key[:1] != ED25519:
        raise KeyFileError("its key is not of type 0x01 (Ed25519), the only one that nodes sign with")
    verifier = make_verifier(name, typed_key[1:])
    if verifier.key_id.hex() != key_id:
        raise KeyFileError("its name, key id and key do not belong together: a character is lost or changed")
    return verifier
