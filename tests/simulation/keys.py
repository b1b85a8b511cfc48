"""The nodes' keys, as each node's config and key file have them, and an operator who replaces them now and then.

Owns what each node knows of every key, and when. Must not know what a machine does with it.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from replicad.core.batch import Batch, statement_of
from replicad.core.keyring import Keyring, NodeKey
from replicad.keys import Signer

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster

INTRODUCED_S = 0.1  # mean time until a node has a new public key; some hear of it after it is used
ACTIVATED_S = 0.15


@cache
def signer(name: str, generation: int = 1) -> Signer:
    """The node's own key: real, and the same in every run; its next ones are later generations."""
    number = f" {generation}" if generation > 1 else ""
    return Signer(name, Ed25519PrivateKey.from_private_bytes(sha256(f"simulated {name}{number}".encode()).digest()))


class RememberingVerifier:
    """A node's public key; the same signature on the same statement is worked out once, not once a node."""

    def __init__(self, name: str, generation: int) -> None:
        self._verifier = signer(name, generation).verifier
        self._known: dict[tuple[bytes, bytes], bool] = {}

    def verify(self, signature: bytes, statement: bytes) -> bool:
        known = self._known.get((signature, statement))
        if known is None:
            known = self._known[signature, statement] = self._verifier.verify(signature, statement)
        return known


class Keys:
    """1. A node signs with a key that its own config knows; others may not know it yet."""

    def __init__(self, cluster: Cluster, names: list[str]) -> None:
        self._cluster, self._world = cluster, cluster.world
        self.made = {name: [NodeKey("1", RememberingVerifier(name, 1))] for name in names}  # all there are, by node
        self._known = {name: dict.fromkeys(names, 1) for name in names}  # how many of them each node's config has
        self._used = dict.fromkeys(names, 1)  # the generation in each node's key file

    def ring(self, name: str) -> Keyring:
        """What this node's config says, the newest first."""
        known = self._known[name]
        return Keyring({each: list(reversed(keys[: known[each]])) for each, keys in self.made.items()})

    def signer(self, name: str) -> Signer:
        """What is in this node's key file."""
        return signer(name, self._used[name])

    def rotate(self) -> None:
        """Replace a node's key: every node hears of it sooner or later, and the node uses it, perhaps before that."""
        world = self._world
        name = world.rng.choice(list(self.made))
        generation = len(self.made[name]) + 1
        if self._used[name] != generation - 1 or any(known[name] != generation - 1 for known in self._known.values()):
            return  # the last time is not over
        world.log("operator", "REPLACES the key of", name)
        self.made[name].append(NodeKey(str(generation), RememberingVerifier(name, generation)))
        for other in self.made:
            world.after(world.around(INTRODUCED_S), self._introduce, other, name)
        world.after(world.around(ACTIVATED_S), self._activate, name)

    def _introduce(self, node: str, name: str) -> None:
        self._known[node][name] = len(self.made[name])
        self._cluster.nodes[node].reload()

    def _activate(self, name: str) -> None:
        if self._known[name][name] < len(self.made[name]):
            self._world.after(self._world.around(ACTIVATED_S), self._activate, name)
            return
        self._used[name] = len(self.made[name])
        self._cluster.nodes[name].reload()

    def finish(self) -> None:
        """Every node hears of every key."""
        for node in self.made:
            for name in self.made:
                if self._known[node][name] < len(self.made[name]):
                    self._introduce(node, name)

    def retired(self) -> Keyring:
        """As it is once all is over: every former key is believed to where its last batch in the log ends."""
        batches = self._cluster.checker.committed.batches
        rings = {}
        for name, keys in self.made.items():
            ends = [
                max((each.end for each in batches if each.signer == name and self._signed(key, each)), default=0)
                for key in keys
            ]
            former = [NodeKey(key.key_id, key.verifier, end) for key, end in zip(keys, ends, strict=True)][:-1]
            rings[name] = [keys[-1], *reversed(former)]
        return Keyring(rings)

    def _signed(self, key: NodeKey, batch: Batch) -> bool:
        return key.verifier.verify(batch.signature, statement_of(batch, cluster=self._cluster.name))
