"""Builders for tests of the core: keys, messages, sealed batches, starting states. The real parts, never stand-ins.

Everything is a function of its arguments: the same call gives the same bytes, so that a failure reads the same twice.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from replicad.core.batch import Append
from replicad.core.keyring import Keyring, NodeKey
from replicad.core.record import Messages, encode_headers
from replicad.core.seal import Part, Sealer
from replicad.core.settings import Settings
from replicad.core.start import StoreState
from replicad.core.tree import Tree
from replicad.core.voters import EpochLists
from replicad.keys import Signer
from replicad.wire.codec import encode_records

CLUSTER = "test"
NODES = ("n1", "n2", "n3", "n4", "n5")
WALL_MS = 1_700_000_000_000


@cache
def signer(node: str, generation: int = 1) -> Signer:
    """The node's own Ed25519 key: real, and the same in every test; its next ones are later generations."""
    seed = f"test key of {node}" + (f", number {generation}" if generation > 1 else "")
    return Signer(node, Ed25519PrivateKey.from_private_bytes(sha256(seed.encode()).digest()))


def node_key(node: str, generation: int = 1, *, until: int | None = None) -> NodeKey:
    """The public half of that key, as a config has it."""
    return NodeKey(signer(node, generation).key_id, signer(node, generation).verifier, until)


def keyring(nodes: Sequence[str] = NODES, **keys: Sequence[NodeKey]) -> Keyring:
    """The public keys that a config of these nodes has; those of a node that is named are the ones given."""
    return Keyring({node: [node_key(node)] for node in nodes} | keys)


def settings(node: str = "n1", *, voters: int = 3, cluster: str = CLUSTER) -> Settings:
    """The settings of ``node`` in a cluster of the first ``voters`` of :data:`NODES`; change them with ``replace``."""
    return Settings(cluster=cluster, node=node, workers=tuple(name for name in NODES[:voters] if name != node))


def vkey(name: str) -> str:
    """The line of a node's public key, as a config has it; the same name gives the same key."""
    return Signer(name, Ed25519PrivateKey.from_private_bytes(sha256(name.encode()).digest())).verifier.line


def messages(
    *ids: str,
    payloads: Sequence[bytes] | None = None,
    headers: Sequence[Mapping[str, str]] = (),
) -> Messages:
    """Messages with these ids; a payload names its id unless given."""
    bodies = [b"payload of " + message_id.encode() for message_id in ids] if payloads is None else list(payloads)
    encoded = [encode_headers(each) for each in headers]
    return Messages(list(ids), bodies, encoded, sum(map(len, bodies)) + sum(map(len, encoded)))


def sealer(node: str = "n1", *, cluster: str = CLUSTER, seed: int = 0, generation: int = 1) -> Sealer:
    """A sealer with the node's real key and seeded salts: no two seeds or nodes give a record the same salt."""
    salts = random.Random(f"{node} {seed}").randbytes
    return Sealer(cluster, node, signer(node, generation).sign, encode_records, salts)


class LogBuilder:
    """A log as masters make it, batch by batch. ``appends`` is all of it, ``tree`` its tree."""

    def __init__(self, node: str = "n1", *, epoch: int = 1, seed: int = 0, cluster: str = CLUSTER) -> None:
        self.node, self.epoch = node, epoch
        self.tree = Tree()
        self.appends: list[Append] = []
        self.time_ms = WALL_MS
        self.generation = 1  # of the key that signs
        self._cluster, self._seed = cluster, seed
        self._sealers: dict[tuple[str, int], Sealer] = {}

    @property
    def size(self) -> int:
        return self.tree.size

    @property
    def last_epoch(self) -> int:
        return self.appends[-1].batch.epoch if self.appends else 0

    def add(self, count: int = 1, *, prefix: str = "m") -> Append:
        """The next batch, of ``count`` messages whose ids have their offsets in them."""
        ids = [f"{prefix}-{offset:06}" for offset in range(self.size, self.size + count)]
        return self.add_messages(messages(*ids))

    def add_messages(self, *batch: Messages, author: str = "anonymous") -> Append:
        """The next batch, of these messages."""
        return self.add_parts([Part(each, author) for each in batch])

    def add_parts(self, parts: Sequence[Part]) -> Append:
        """The next batch, of messages with their authors."""
        self.time_ms += 1
        append = self._sealer().seal(parts, tree=self.tree, epoch=self.epoch, time_ms=self.time_ms)
        self.appends.append(append)
        return append

    def add_epoch(self, epoch: int, *, node: str | None = None, lists: EpochLists | None = None) -> Append:
        """Begin a new epoch, with its first record, under ``node`` if it is named; as release 0.1 did without lists."""
        self.epoch, self.node = epoch, node or self.node
        payload = lists.encode() if lists else b""
        self.add_messages(messages(f"replicad:epoch:{epoch}", payloads=[payload]), author=f"node:{self.node}")
        self.appends[-1] = replace(self.appends[-1], lists=lists)
        return self.appends[-1]

    def fork(self, node: str | None = None, *, epoch: int | None = None, seed: int = 1) -> LogBuilder:
        """Another log that has been the same up to now and goes its own way from here on."""
        other = LogBuilder(node or self.node, epoch=epoch or self.epoch, seed=seed, cluster=self._cluster)
        other.tree, other.appends, other.time_ms = self.tree.copy(), list(self.appends), self.time_ms
        return other

    def _sealer(self) -> Sealer:
        key = (self.node, self.generation)
        if key not in self._sealers:
            seed = self._seed + 1000 * (self.generation - 1)
            self._sealers[key] = sealer(self.node, cluster=self._cluster, seed=seed, generation=self.generation)
        return self._sealers[key]


def empty_start() -> StoreState:
    """What a node with an empty data folder starts from."""
    return StoreState(
        size=0,
        last_epoch=0,
        promised_epoch=0,
        promised_to="",
        greatest_id="",
        commit_size=0,
        epoch_record=None,
        tree=Tree(),
    )
