"""The keyring that a config makes: of its nodes, and of those that have left."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from replicad.config import parse
from replicad.core.batch import Batch
from replicad.errors import PeerError
from replicad.keys import Signer
from replicad.nodekeys import keyring_of
from tests.unit.test_config import former_node, sample


def batch(signer: str, end: int) -> Batch:
    """A batch that ends there, signed with the node's key over b"statement"."""
    key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(signer.encode()).digest())
    return Batch(1, end - 1, 1, 0, b"", signer, Signer(signer, key).sign(b"statement"), b"")


def test_what_a_node_signed_that_has_left_is_believed_up_to_its_until_and_no_further() -> None:
    ring = keyring_of(parse(sample(former_nodes=[former_node("node-0", until=7)]), env={}))
    ring.check(batch("node-0", 7), b"statement")
    ring.check(batch("node-1", 8), b"statement")
    with pytest.raises(PeerError, match="believed below offset 7 alone") as caught:
        ring.check(batch("node-0", 8), b"statement")
    assert caught.value.reason == "revoked"


def test_a_node_that_has_left_and_is_not_told_of_has_signed_nothing() -> None:
    with pytest.raises(PeerError) as caught:
        keyring_of(parse(sample(), env={})).check(batch("node-0", 7), b"statement")
    assert caught.value.reason == "signer"
