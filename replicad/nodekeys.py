"""From public lines to the keyring that batches are checked with: of the nodes of a config, or given one by one.

Owns how a line with its ``until`` becomes a key. What a key is believed for, :mod:`replicad.core.keyring` owns.
"""

from __future__ import annotations

from replicad.config import Config, Node
from replicad.core.keyring import Keyring, NodeKey
from replicad.vkeys import parse_vkey


def node_key(line: str, until: int | None = None) -> NodeKey:
    """The key of a public line. Raises KeyFileError."""
    verifier = parse_vkey(line)
    return NodeKey(verifier.key_id.hex(), verifier, until)


def keys_of(node: Node) -> list[NodeKey]:
    """All keys that a node has or had, the newest first."""
    former = [node_key(former.public_key, former.until) for former in node.former_keys]
    return [node_key(node.public_key), *former]


def keys_by_node(config: Config) -> dict[str, list[NodeKey]]:
    """The keys of a config's nodes, those that have left included."""
    left = {node.name: [node_key(each.public_key, each.until) for each in node.keys] for node in config.former_nodes}
    return left | {node.name: keys_of(node) for node in config.nodes}


def keyring_of(config: Config) -> Keyring:
    """The keyring of those."""
    return Keyring(keys_by_node(config))
