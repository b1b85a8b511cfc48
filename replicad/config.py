"""The daemon's config: frozen dataclasses, and ``parse`` from a mapping that reports all faults at once.

Owns names, defaults, units and limits of every key: each field is annotated with how its key is read and what it is
for, which the parser, the reload, the man page and the example's test all take from here: ``live`` is a key that a
reload takes. A key in the file is called as its field, without the unit (``heartbeat_s`` is ``heartbeat: 500ms``).
Reads no file, opens no socket: :mod:`replicad.configfile` does the reading.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from replicad import configrules
from replicad.access import Principal
from replicad.configkeys import Draft, Fault, Reader, Section, Sections, build, keys_of
from replicad.configlimits import Limits, Timeouts
from replicad.configvalues import (
    Address,
    Bad,
    Choice,
    Count,
    Duration,
    FilePath,
    Flag,
    Name,
    Offset,
    PublicKey,
    Quorum,
)
from replicad.errors import ConfigError

MAX_NODES = 31  # the master keeps a stream and a window to each, and sends every byte to each
MAX_FORMER_KEYS = 64  # of a node: a forged batch costs as many verifications, 4 ms in all
MAX_FORMER_NODES = 256  # a fleet that replaces a node a month is at it for twenty years


@dataclass(frozen=True, slots=True)
class FormerKey:
    """A key that a node signed with before, or still does while it is being replaced."""

    public_key: Annotated[str, PublicKey("The public line of a key that the node had before.", live=True)]
    until: Annotated[
        int | None,
        Offset(
            "The key is believed for batches that end at or below this offset, and for none beyond; 0: for none at all."
            " Without it the key may still sign: so while its successor is being introduced.",
            live=True,
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the cluster, as every other knows it."""

    name: Annotated[str, Name("The node's name, unique in the cluster: 1-64 of a-z 0-9 . _ -.")]
    address: Annotated[str, Address("HOST:PORT that the other nodes and the clients dial.")]
    public_key: Annotated[
        str,
        PublicKey(
            "The node's newest public key: the line that `replicad-cli keys generate` printed on it, or `keys rotate`.",
            live=True,
        ),
    ]
    mutual_address: Annotated[
        str,
        Address(
            "With tls: HOST:PORT that the other nodes, and clients that have a certificate, dial: the node's"
            " tls.mutual_listen."
        ),
    ] = ""
    former_keys: Annotated[
        tuple[FormerKey, ...],
        Sections(
            "The node's keys before that one, the newest first: what they signed is in the log.",
            of=FormerKey,
            at_least=0,
            at_most=MAX_FORMER_KEYS,
            live=True,
        ),
    ] = ()
    voter: Annotated[
        bool,
        Flag(
            "Whether the node has a vote. One without gets the log and serves reads, and counts in no quorum and no"
            " write concern: so while it is new, or about to leave. A master has one."
        ),
    ] = True

    @property
    def signing_keys(self) -> tuple[str, ...]:
        """The public keys that the node may sign with now, the newest first."""
        return (self.public_key, *(former.public_key for former in self.former_keys if former.until is None))


@dataclass(frozen=True, slots=True)
class LastingKey:
    """A key of a node that has left: what it signed is in the log, and there will be no more of it."""

    public_key: Annotated[str, PublicKey("The public line of a key that the node had.", live=True)]
    until: Annotated[
        int,
        Offset(
            "The key is believed for batches that end at or below this offset, and for none beyond: the log's size when"
            " the node left, or when the key was replaced.",
            live=True,
        ),
    ]


@dataclass(frozen=True, slots=True)
class FormerNode:
    """A node that is no more: it can't be a master, nor call."""

    name: Annotated[str, Name("The name that the node had.", live=True)]
    keys: Annotated[
        tuple[LastingKey, ...],
        Sections(
            "The node's keys, the newest first.",
            of=LastingKey,
            at_most=MAX_FORMER_KEYS,
            live=True,
        ),
    ]


@dataclass(frozen=True, slots=True)
class WriteConcernDefaults:
    """What holds for a post that does not say otherwise."""

    default: Annotated[
        str,
        Quorum(
            "How many nodes have a record on disk before its post is answered: 1 to the number of those with a vote,"
            " majority or all.",
            highest=MAX_NODES,
            live=True,
        ),
    ] = "majority"
    timeout_s: Annotated[
        float,
        Duration(
            "How long a post whose client sends no timeout waits for that; then it is answered 504. The library and the"
            " CLI send theirs, 10s by default.",
            at_least=0.001,
            at_most=3600,  # what waits holds memory
            live=True,
        ),
    ] = 5.0


@dataclass(frozen=True, slots=True)
class Tls:
    """Where this node's certificate is, and when it is looked at.

    The files are read at the start, at each reload, and whenever they have changed; what does not fit together is
    refused, and what was there before goes on. docs/adr/0017 has why there are two ports.
    """

    certificate: Annotated[
        str,
        FilePath(
            "This node's certificate, PEM, its intermediates behind it; the node's name and the hosts of its address"
            " are among its alternative names.",
            live=True,
        ),
    ]
    key_file: Annotated[
        str,
        FilePath(
            "The certificate's private key, PEM, mode 0600; may be left out where systemd hands it in as the credential"
            " tls.key, which comes first where it is there.",
            name="key",
            live=True,
        ),
    ]
    ca: Annotated[
        str,
        FilePath(
            "The CA bundle, PEM: who may have issued the certificates of nodes and clients. Two CAs for as long as"
            " one follows the other.",
            live=True,
        ),
    ]
    mutual_listen: Annotated[
        str,
        Address(
            "HOST:PORT to listen on for callers that show a certificate: the other nodes, and clients that have one."
            " At listen, clients show a token."
        ),
    ]
    poll_s: Annotated[
        float,
        Duration("How often it is looked whether the files have changed.", at_least=0.05, at_most=3600, live=True),
    ] = 10.0  # three stat calls; whoever renews a certificate does so days before the old one ends
    notice_days: Annotated[
        int,
        Count("A certificate that ends within so many days is told of once a day.", at_most=3650, live=True),
    ] = 30  # a third of what short-lived ones have: whatever renews them has missed its turn by then
    warn_days: Annotated[
        int,
        Count("One that ends within so many days is warned of every six hours.", at_most=3650, live=True),
    ] = 7  # a week has a working day in it


@dataclass(frozen=True, slots=True)
class Log:
    """The daemon's own log, on standard error."""

    level: Annotated[
        str, Choice("The least severe event that is logged.", words=("debug", "info", "warning", "error"), live=True)
    ] = "info"
    format: Annotated[
        str, Choice("text: key=value pairs; json: an object. One line an event.", words=("text", "json"), live=True)
    ] = "text"


@dataclass(frozen=True, slots=True)
class Config:
    """What :func:`parse` gives and all else trusts.

    1. ``nodes`` holds ``node``; names, addresses and keys, former ones too, are distinct; at least one node has a vote,
       a master always. No former node is a node.
    2. Every public key is a canonical vkey line of its node's name.
    3. Without ``tls``, ``listen`` and every node's address are loopback; with it every node has a mutual address.
    4. ``write_concern.default`` is within 1..V where it is a number.
    5. heartbeat < suspect < unhealthy; reconnect_min <= reconnect_max; batch <= window; a frame fits into the queue.
    """

    cluster: Annotated[str, Name("The cluster's name; it is in every signature, so it can't change later.")]
    node: Annotated[str, Name("This node's name, one of those under nodes; MACHINE_ID overrides it.")]
    role: Annotated[
        str,
        Choice(
            "What this node begins as: master (one in a cluster: takes posts) or worker. Once it has taken part, its"
            " data folder says what it is; replicad-cli switchover and promote change that.",
            words=("master", "worker"),
        ),
    ]
    listen: Annotated[str, Address("HOST:PORT to listen on; PORT overrides the port.")]
    data_dir: Annotated[str, FilePath("Folder of this node's log, for this node alone.")]
    key_file: Annotated[
        str,
        FilePath(
            "File with this node's private key, mode 0600; may be left out where systemd hands the key in as the"
            " credential node.key, which comes first where it is there.",
            name="key",
        ),
    ]
    nodes: Annotated[
        tuple[Node, ...],
        Sections(
            "All nodes of the cluster, this one included; the same on all nodes.",
            of=Node,
            at_most=MAX_NODES,
            identity="name",
        ),
    ]
    former_nodes: Annotated[
        tuple[FormerNode, ...],
        Sections(
            "Nodes that have left and once were the master: their signatures in the log are still believed.",
            of=FormerNode,
            at_least=0,
            at_most=MAX_FORMER_NODES,
            live=True,
        ),
    ] = ()
    write_concern: Annotated[WriteConcernDefaults, Section("Defaults for posts.", of=WriteConcernDefaults)] = field(
        default_factory=WriteConcernDefaults
    )
    min_nodes: Annotated[
        str,
        Quorum(
            "With fewer nodes that have a vote reachable than this (1, majority or all; the master counts) the master"
            " refuses posts.",
            highest=1,
            live=True,
        ),
    ] = "1"
    limits: Annotated[Limits, Section("Bounds on memory and connections.", of=Limits)] = field(default_factory=Limits)
    timeouts: Annotated[Timeouts, Section("Durations between nodes, and at the end.", of=Timeouts)] = field(
        default_factory=Timeouts
    )
    tls: Annotated[
        Tls | None,
        Section("TLS for clients, mutual TLS between nodes; without it all is on loopback.", of=Tls, optional=True),
    ] = None
    log: Annotated[Log, Section("The daemon's own log.", of=Log)] = field(default_factory=Log)
    auth_token: str = field(default="", repr=False)  # from AUTH_TOKEN only: never in the file
    tokens_file: Annotated[
        str,
        FilePath(
            "File with those who may call: names, roles, hashes of tokens; made by `replicad-cli tokens create`. A"
            " reload reads it again. Without it and without AUTH_TOKEN a node on loopback is open to all.",
            live=True,
        ),
    ] = ""
    principals: tuple[Principal, ...] = ()  # what that file holds: see replicad/tokensfile.py
    reflection: Annotated[
        bool, Flag("Whether gRPC server reflection is on, for stock tools: it tells the services to all.")
    ] = False

    @property
    def this_node(self) -> Node:
        """This node's own entry of ``nodes``."""
        return next(entry for entry in self.nodes if entry.name == self.node)

    @property
    def voters(self) -> int:
        """V: how many nodes have a vote."""
        return sum(node.voter for node in self.nodes)

    @property
    def commit_quorum(self) -> int:
        """W = floor(V/2) + 1."""
        return self.voters // 2 + 1

    @property
    def fence_quorum(self) -> int:
        """R = V - W + 1: any R voters share one with any W."""
        return self.voters - self.commit_quorum + 1


def parse(mapping: object, *, env: Mapping[str, str]) -> Config:
    """The config that ``mapping`` (as YAML has it) and the environment overrides describe.

    PORT replaces the port of ``listen``, MACHINE_ID the node's name; AUTH_TOKEN is the only place for the token.
    Raises ConfigError with every fault at once, each a line: the key's path, what is wrong, and the remedy.
    """
    config, faults = examine(mapping, env=env)
    if config is None:
        raise ConfigError([fault.line() for fault in faults])
    return config


@dataclass(frozen=True, slots=True)
class Found:
    """What a config says of other files, as far as its values are good, also where others are not; "" and () for what
    is not there or faulty. ``tls_files`` are certificate, key and CA bundle; None where one of them lacks."""

    node: str = ""
    nodes: tuple[str, ...] = ()
    signing_keys: tuple[str, ...] = ()  # of ``node``
    key_file: str = ""
    tls_files: tuple[str, str, str] | None = None
    tokens_file: str = ""


def examine(
    mapping: object, *, env: Mapping[str, str], credential: str = "", tls_credential: str = ""
) -> tuple[Config | None, list[Fault]]:
    """As :func:`parse`, but gives the faults as values, for who knows their lines in a file; no config with any.

    ``credential`` and ``tls_credential`` as in :func:`explore`.
    """
    config, faults, _ = explore(mapping, env=env, credential=credential, tls_credential=tls_credential)
    return config, faults


def explore(
    mapping: object, *, env: Mapping[str, str], credential: str = "", tls_credential: str = ""
) -> tuple[Config | None, list[Fault], Found]:
    """As :func:`examine`, and what there is of other files, for who looks at those in any case.

    ``credential`` and ``tls_credential`` are the paths of keys that the service manager handed in: they stand for
    ``key`` and ``tls.key``.
    """
    if not isinstance(mapping, Mapping):
        keys = ", ".join(key.name for key in keys_of(Config) if key.required)
        return None, [Fault((), "the config is not a mapping of keys to values", f"begin with {keys}")], Found()
    reader = Reader(Config, refused=_REFUSED)
    draft = reader.section(Config, mapping, ())
    overrides, env_faults = configrules.read_environment(draft, env)
    if credential:
        overrides["key_file"] = credential
    if tls_credential and isinstance(draft.get("tls"), dict):
        draft["tls"]["key_file"] = overrides["tls.key_file"] = tls_credential
    draft |= {field: value for field, value in overrides.items() if "." not in field}
    read_faults = [fault for fault in reader.faults if not _made_good(fault, overrides)]
    faults = [*read_faults, *configrules.check(draft, reader.given, overrides), *env_faults]
    if faults:
        return None, faults, _found(draft)
    config: Config = build(Config, draft)
    return config, [], _found(draft)


def _found(draft: Draft) -> Found:
    node, entries = draft.get("node", ""), draft.get("nodes", [])
    signing_keys: tuple[str, ...] = ()
    for entry in entries:
        if node and entry.get("name") == node and "public_key" in entry and "former_keys" in entry:
            with contextlib.suppress(KeyError, TypeError):  # something else in the entry is faulty
                signing_keys = build(Node, entry).signing_keys
    tls = draft.get("tls") or {}
    files = tuple(tls.get(field, "") for field in ("certificate", "key_file", "ca"))
    return Found(
        node=node,
        nodes=tuple(entry["name"] for entry in entries if "name" in entry),
        signing_keys=signing_keys,
        key_file=draft.get("key_file", ""),
        tls_files=(files[0], files[1], files[2]) if all(files) else None,
        tokens_file=draft.get("tokens_file", ""),
    )


def _made_good(fault: Fault, overrides: Draft) -> bool:
    """Whether what comes from outside stands for what is wrong in the file."""
    if fault.path == ("key",):
        return "key_file" in overrides and fault.on_key  # it is missing; one that is wrong may be the key itself
    if fault.path == ("tls", "key"):
        return "tls.key_file" in overrides and fault.on_key
    return fault.path == ("node",) and "node" in overrides


_NO_TOKEN = Bad(
    "a token (not shown) has no place in the file, which others may read",
    "remove it and set AUTH_TOKEN in the daemon's environment; take a new one if others saw this",
)
_REFUSED = dict.fromkeys(("auth_token", "token", "auth", "password", "secret"), _NO_TOKEN)
