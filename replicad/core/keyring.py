"""The public keys of a cluster's nodes, with the offsets up to which each may sign; whether a batch is signed by one.

Owns the rule of when a key is believed, and why a signature is refused. Must not know how keys are written down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from replicad.core.batch import Batch
from replicad.errors import PeerError


class Verifier(Protocol):
    """A public key."""

    def verify(self, signature: bytes, statement: bytes) -> bool: ...


@dataclass(frozen=True, slots=True)
class NodeKey:
    """A node's public key, and for which batches it is believed.

    1. With ``until`` it may sign batches that end at or below that size; without it may sign any. A batch is one signed
       whole: one that begins below ``until`` and ends above it is not believed either.
    """

    key_id: str
    verifier: Verifier
    until: int | None = None

    def may_sign(self, batch: Batch) -> bool:
        return self.until is None or batch.end <= self.until


class Keyring:
    """1. Whether a batch passes depends on the keys alone, never on what was checked before it."""

    def __init__(self, keys: Mapping[str, Sequence[NodeKey]]) -> None:
        """``keys`` of each node that may sign, the newest first."""
        self._keys = {name: tuple(each) for name, each in keys.items()}
        # What proved last is tried first: a log is long runs of one key, so a batch costs one verification.
        self._proved: dict[str, NodeKey] = {}

    def check(self, batch: Batch, statement: bytes) -> None:
        """Return when ``batch.signature`` is a believed key's of its signer over ``statement``.

        Raises PeerError: signer (no node of the config), revoked (a key of the signer that may not sign there) or
        signature (none of its keys: forged, or a key that this node has not heard of).
        """
        keys = self._keys.get(batch.signer)
        if keys is None:
            text = f"batch at {batch.first_offset} is signed by {batch.signer!r}, no node of the config"
            raise PeerError("signer", text)
        proved = self._proved.get(batch.signer, keys[0])
        if proved.may_sign(batch) and proved.verifier.verify(batch.signature, statement):
            return
        for key in keys:
            if key is not proved and key.may_sign(batch) and key.verifier.verify(batch.signature, statement):
                self._proved[batch.signer] = key
                return
        raise _refusal(batch, statement, keys)


def _refusal(batch: Batch, statement: bytes, keys: Sequence[NodeKey]) -> PeerError:
    """Why no believed key has signed the batch, with what to do about it."""
    signer, first = batch.signer, batch.first_offset
    for key in keys:
        if not key.may_sign(batch) and key.verifier.verify(batch.signature, statement):
            text = (
                f"batch at offsets {first} to {batch.end - 1} is signed with key {key.key_id} of {signer},"
                f" which is believed below offset {key.until} alone (former_keys, until)"
            )
            return PeerError("revoked", text)
    known = ", ".join(key.key_id for key in keys if key.may_sign(batch))
    text = (
        f"signature of {signer} on the batch at {first} does not verify with any key that is believed there ({known});"
        f" if {signer} has a new key, put its public line into this node's config and reload this node"
    )
    return PeerError("signature", text)
