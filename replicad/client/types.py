"""What the client library takes and gives: small immutable values. Must not know how they travel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from replicad.wire.types import Record

__all__ = ["NewMessage", "NodeKey", "NodeStatus", "Outcome", "Posted", "Record", "Status"]


class NewMessage(NamedTuple):
    """A message to post, for :meth:`AsyncClient.post_many` where a bare payload is not enough."""

    payload: bytes | str
    id: str | None = None  # 1 to 128 bytes of printable ASCII; None: a UUIDv7 is made
    headers: Mapping[str, str] | None = None


class Posted(NamedTuple):
    """A message that is in the log, on as many nodes as was asked."""

    id: str
    offset: int
    duplicate: bool  # the log had it already: posted before, or by an earlier try of this very call
    nodes: int  # nodes that had it on disk when this was answered


class Outcome(NamedTuple):
    """Where an id stands in the log."""

    id: str
    offset: int
    epoch: int
    time_ms: int  # ms since 1970 UTC, by the master's clock
    committed: bool  # False: it may yet be retracted
    nodes: int  # voters known to have it on disk; a worker knows only of itself


class NodeKey(NamedTuple):
    """A public key of a node."""

    key_id: str  # hex
    until: int | None  # it may sign batches that end at or below this offset; None: any


class NodeStatus(NamedTuple):
    """One node of the config, as the node that was asked sees it."""

    name: str
    address: str
    role: str  # master | worker
    health: str  # self | HEALTHY | SUSPECTED | UNHEALTHY | unknown
    size: int  # records on disk there, as last answered
    lag: int  # records behind the master
    detail: str  # the last reason it was refused or lost
    keys: tuple[NodeKey, ...] = ()  # its public keys, as the node that was asked has them in its config, newest first
    voter: bool = True  # false: it counts in no quorum and no write concern, as that config has it


class Leading(NamedTuple):
    """A node that has become the master, and is open."""

    node: str
    address: str
    epoch: int
    size: int  # of its log


class Status(NamedTuple):
    """A node's account of itself and of the others."""

    cluster: str
    node: str
    version: str
    role: str  # master | worker
    state: str  # opening | open | handing-over | deposed | following | waiting | read-only | stopping
    epoch: int  # the promised epoch
    size: int  # records on disk
    commit_size: int
    root: bytes  # tree root at ``size``
    master: str  # as this node knows it; "" when it does not
    master_address: str
    uptime_ms: int
    rss_bytes: int
    nodes: tuple[NodeStatus, ...]
    commit_quorum: int
    detail: str  # why it is in that state, for a person
    key_id: str = (
        ""  # of the key that signs whatever is not on its disk yet, in hex; "" from a node of an earlier release
    )
    damage: str = ""  # what on its disk is not what was written, and not repaired yet
    scrubbed_ms: int = 0  # when it had last looked over all of its log since it started; 0 for not yet
    certificate_expires_ms: int = 0  # when its certificate, or what that rests on, ends; 0 without TLS
