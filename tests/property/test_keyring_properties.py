"""Which key of a node is believed for which batch, whatever was asked before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from replicad.core.batch import Batch
from replicad.core.keyring import Keyring, NodeKey
from replicad.errors import PeerError

OLDEST, OLD, NEW = "oldest", "old", "new"


@dataclass(frozen=True)
class Scribe:
    """A key whose signature is its name before the statement."""

    name: str

    def verify(self, signature: bytes, statement: bytes) -> bool:
        return signature == self.name.encode() + statement


def keys_of(untils: Mapping[str, int | None]) -> list[NodeKey]:
    return [NodeKey(name, Scribe(name), until) for name, until in untils.items()]


untils = st.none() | st.integers(0, 30)
places = st.tuples(st.integers(0, 30), st.integers(1, 6), st.sampled_from([NEW, OLD, OLDEST, "stranger"]))


@given(st.tuples(untils, untils, untils), st.lists(places, max_size=20))
def test_whether_a_batch_passes_depends_on_its_key_and_place_alone(
    limits: tuple[int | None, int | None, int | None], asked: list[tuple[int, int, str]]
) -> None:
    """Whatever was asked before: what one ring says of a batch, a fresh one says, and the rule says."""
    by_name = dict(zip((NEW, OLD, OLDEST), limits, strict=True))
    ring = Keyring({"n1": keys_of(by_name)})
    for first, count, by in asked:
        each = Batch(1, first, count, 0, b"", "n1", by.encode() + b"statement", b"")
        limit = by_name.get(by)
        expected = "signature" if by not in by_name else "" if limit is None or first + count <= limit else "revoked"
        fresh = Keyring({"n1": keys_of(by_name)})
        assert (_verdict(ring, each), _verdict(fresh, each)) == (expected, expected)
        assert _verdict(ring, replace(each, signature=b"")) == "signature"


def _verdict(ring: Keyring, each: Batch) -> str:
    try:
        ring.check(each, b"statement")
    except PeerError as error:
        return error.reason
    return ""
