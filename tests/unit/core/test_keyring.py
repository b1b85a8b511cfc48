"""Which key of a node is believed for which batch, and what is said of the others."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from replicad.core.batch import Batch
from replicad.core.keyring import Keyring, NodeKey
from replicad.errors import PeerError


@dataclass
class Scribe:
    """A key whose signature is its name before the statement; counts how often it was asked."""

    name: str
    asked: int = 0

    def sign(self, statement: bytes) -> bytes:
        return self.name.encode() + statement

    def verify(self, signature: bytes, statement: bytes) -> bool:
        self.asked += 1
        return signature == self.sign(statement)


OLDEST, OLD, NEW = "oldest", "old", "new"


def keys_with(**untils: int | None) -> dict[str, NodeKey]:
    """Keys by name, as they are listed: the newest first."""
    return {name: NodeKey(name, Scribe(name), until) for name, until in untils.items()}


def batch(signer: str = "n1", *, first: int = 0, count: int = 1, by: str) -> Batch:
    return Batch(1, first, count, 0, b"", signer, by.encode() + b"statement", b"")


def refusal(ring: Keyring, each: Batch) -> PeerError:
    with pytest.raises(PeerError) as caught:
        ring.check(each, b"statement")
    return caught.value


def test_a_key_with_until_is_believed_for_batches_that_end_there_and_for_none_that_reaches_beyond() -> None:
    ring = Keyring({"n1": list(keys_with(new=None, old=100).values())})
    ring.check(batch(first=90, count=10, by=OLD), b"statement")
    for first, count in ((90, 11), (99, 2), (100, 1), (5000, 1)):
        error = refusal(ring, batch(first=first, count=count, by=OLD))
        assert error.reason == "revoked"
        assert f"offsets {first} to {first + count - 1} is signed with key old of n1" in str(error)
        assert "below offset 100 alone" in str(error)


def test_until_0_believes_nothing_that_a_key_has_signed() -> None:
    ring = Keyring({"n1": list(keys_with(new=None, old=0).values())})
    assert refusal(ring, batch(by=OLD)).reason == "revoked"


def test_keys_without_until_are_believed_everywhere_at_the_same_time() -> None:
    ring = Keyring({"n1": list(keys_with(new=None, old=None).values())})
    for by in (NEW, OLD, OLD, NEW):
        for first in (0, 1 << 40):
            ring.check(batch(first=first, by=by), b"statement")


def test_a_signature_of_no_key_says_how_to_make_a_new_key_known() -> None:
    ring = Keyring({"n1": list(keys_with(new=None, old=5).values())})
    error = refusal(ring, batch(first=7, by="successor"))
    assert error.reason == "signature"
    assert "with any key that is believed there (new)" in str(error)
    assert "put its public line into this node's config and reload this node" in str(error)


def test_a_node_that_is_not_in_the_config_and_anothers_key_are_refused() -> None:
    ring = Keyring({"n1": list(keys_with(new=None).values()), "n2": list(keys_with(old=None).values())})
    assert refusal(ring, batch("n9", by=NEW)).reason == "signer"
    assert refusal(ring, batch("n2", by=NEW)).reason == "signature"


def test_a_run_of_one_key_costs_one_verification_a_batch_whichever_key_it_is() -> None:
    keys = keys_with(new=None, old=100, oldest=50)
    ring = Keyring({"n1": list(keys.values())})

    def asked() -> int:
        return sum(key.verifier.asked for key in keys.values())  # type: ignore[attr-defined]

    ring.check(batch(first=1000, by=NEW), b"statement")
    assert asked() == 1
    for by, start in ((OLDEST, 0), (OLD, 50), (NEW, 100)):
        ring.check(batch(first=start, by=by), b"statement")
        before = asked()
        for first in range(start + 1, start + 20):
            ring.check(batch(first=first, by=by), b"statement")
        assert asked() == before + 19
