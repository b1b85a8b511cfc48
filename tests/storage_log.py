"""Real logs for the storage tests: records, signed batches and appends, made as a master makes them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from replicad.core.batch import Append
from replicad.core.keyring import Keyring, NodeKey
from replicad.core.record import Messages, encode_headers
from replicad.core.seal import Part, Sealer
from replicad.core.tree import Tree
from replicad.wire.codec import encode_records

CLUSTER = "test"
NODE = "node-1"


class KeyPair:
    """A node's key, both halves."""

    def __init__(self, seed: int = 1) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)

    @property
    def keyring(self) -> Keyring:
        """With this key as NODE's."""
        return Keyring({NODE: [NodeKey("0c0ffee0", self)]})

    @property
    def key_id(self) -> str:
        return "0c0ffee0"

    def sign(self, statement: bytes) -> bytes:
        return self._private.sign(statement)

    def verify(self, signature: bytes, statement: bytes) -> bool:
        try:
            self._private.public_key().verify(signature, statement)
        except InvalidSignature:
            return False
        return True


class LogMaker:
    """Makes the appends of one log, in order; the same seed makes the same log."""

    def __init__(self, seed: int = 0, *, cluster: str = CLUSTER, signer: str = NODE, prefix: str = "id") -> None:
        self.key = KeyPair()
        self.tree = Tree()
        self.epoch = 1
        self.time_ms = 1_700_000_000_000
        self.prefix = prefix
        rng = random.Random(seed)
        self._random_bytes = rng.randbytes
        self._sealer = Sealer(cluster, signer, self.key.sign, encode_records, rng.randbytes)

    @property
    def size(self) -> int:
        return self.tree.size

    def append(
        self,
        count: int = 1,
        *,
        ids: Sequence[str] | None = None,
        payload_bytes: int = 20,
        with_headers: bool = False,
    ) -> Append:
        """The next batch, of ``count`` records; each is one millisecond after the one before it."""
        if ids is None:
            ids = [f"{self.prefix}-{offset:09}" for offset in range(self.size, self.size + count)]
        payloads = [self._random_bytes(payload_bytes) for _ in ids]
        headers = [encode_headers({"k": message_id}) for message_id in ids] if with_headers else []
        messages = Messages(ids, payloads, headers, size_bytes=sum(map(len, payloads)) + sum(map(len, headers)))
        self.time_ms += 1
        return self._sealer.seal([Part(messages, "anonymous")], tree=self.tree, epoch=self.epoch, time_ms=self.time_ms)

    def appends(self, *counts: int) -> list[Append]:
        return [self.append(count) for count in counts]

    def rewind(self, tree: Tree) -> None:
        """Go on from an earlier end of the log, as after a truncation."""
        self.tree = tree.copy()
