"""The pure parser: what it takes, every fault it tells, and that it never raises anything else."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from itertools import pairwise
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.config import Config, Log, Tls, WriteConcernDefaults, examine, parse
from replicad.configkeys import KeyInfo, keys_of, walk_keys
from replicad.configlimits import MIB, Limits, Timeouts
from replicad.configvalues import Duration, Size, is_loopback, join_address, split_address
from replicad.errors import ConfigError
from replicad.keys import Signer
from tests.support.builders import vkey

UNHURRIED = settings(deadline=None)  # a busy machine is no fault
PEM_HEAD = "-----BEGIN PRIVATE " + "KEY-----"


def sample(**changes: Any) -> dict[str, Any]:
    """A good mapping of three nodes, with top-level keys changed; a change to ... removes the key."""
    mapping: dict[str, Any] = {
        "cluster": "example",
        "node": "node-1",
        "role": "master",
        "listen": "127.0.0.1:50052",
        "data_dir": "/var/lib/replicad",
        "key": "/etc/replicad/node.key",
        "nodes": [
            {"name": f"node-{n}", "address": f"127.0.0.1:{50051 + n}", "public_key": vkey(f"node-{n}")}
            for n in (1, 2, 3)
        ],
    }
    mapping |= changes
    return {key: value for key, value in mapping.items() if value is not ...}


def with_node(index: int, **changes: Any) -> dict[str, Any]:
    mapping = sample()
    mapping["nodes"][index] |= changes
    return mapping


def with_tls(node_3: Any = "log-3.example.org:6003", **changes: Any) -> dict[str, Any]:
    """A good mapping with TLS, on addresses beyond this machine."""
    mapping = sample(listen="0.0.0.0:50052")
    for entry, mutual in zip(
        mapping["nodes"], ("log-1.example.org:6001", "log-2.example.org:6002", node_3), strict=True
    ):
        if mutual is not None:
            entry["mutual_address"] = mutual
    tls = {"certificate": "tls.crt", "key": "tls.key", "ca": "ca.crt", "mutual_listen": "0.0.0.0:6001", **changes}
    mapping["tls"] = {key: value for key, value in tls.items() if value is not ...}
    return mapping


def faults_of(mapping: object, env: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(mapping, env=env or {})
    return caught.value.faults


def test_with_tls_any_address_may_be_listened_on() -> None:
    config = parse(with_tls(), env={})
    assert config.tls == Tls(certificate="tls.crt", key_file="tls.key", ca="ca.crt", mutual_listen="0.0.0.0:6001")
    assert config.this_node.mutual_address == "log-1.example.org:6001"
    assert parse(sample(), env={}).tls is None


def test_an_empty_tls_section_is_not_taken_for_one_that_is_left_out() -> None:
    mapping = with_tls()
    mapping["tls"] = None
    faults = faults_of(mapping)
    assert [fault.split(":")[0] for fault in faults[:4]] == [
        "tls.certificate", "tls.key", "tls.ca", "tls.mutual_listen"
    ]  # fmt: skip


def test_the_tls_key_as_a_credential_stands_for_the_one_in_the_file() -> None:
    for mapping in (with_tls(key=...), with_tls()):
        config, faults = examine(mapping, env={}, tls_credential="/run/credentials/tls.key")
        assert not faults
        assert config
        assert config.tls
        assert config.tls.key_file == "/run/credentials/tls.key"
    config, faults = examine(sample(), env={}, tls_credential="/run/credentials/tls.key")
    assert config
    assert config.tls is None


def test_a_config_with_the_required_keys_alone_has_all_defaults() -> None:
    config = parse(sample(), env={})
    assert (config.cluster, config.node, config.role) == ("example", "node-1", "master")
    assert (config.data_dir, config.key_file) == ("/var/lib/replicad", "/etc/replicad/node.key")
    assert [node.address for node in config.nodes] == ["127.0.0.1:50052", "127.0.0.1:50053", "127.0.0.1:50054"]
    assert config.write_concern == WriteConcernDefaults()
    assert (config.limits, config.timeouts, config.log) == (Limits(), Timeouts(), Log())
    assert (config.min_nodes, config.reflection, config.auth_token) == ("1", False, "")
    assert config.this_node.public_key == vkey("node-1")


def test_every_key_that_is_given_reaches_its_field_in_the_fields_unit() -> None:
    config = parse(
        sample(
            write_concern={"default": 2, "timeout": "1500ms"},
            min_nodes="majority",
            limits={"payload": "512KiB", "batch": 4096, "batch_records": 7, "queue": "1GiB"},
            timeouts={"heartbeat": 0.25, "suspect": "1.5s", "unhealthy": "2m", "reconnect_max": 9},
            log={"level": "debug", "format": "json"},
            reflection=True,
        ),
        env={},
    )
    assert config.write_concern == WriteConcernDefaults(default="2", timeout_s=1.5)
    assert config.min_nodes == "majority"
    assert config.limits == Limits(payload_bytes=524288, batch_bytes=4096, batch_records=7, queue_bytes=1 << 30)
    assert config.timeouts == Timeouts(heartbeat_s=0.25, suspect_s=1.5, unhealthy_s=120.0, reconnect_max_s=9.0)
    assert config.log == Log(level="debug", format="json")
    assert config.reflection is True


def test_an_empty_section_has_its_defaults() -> None:
    assert parse(sample(limits=None, timeouts={}), env={}).limits == Limits()


@pytest.mark.parametrize(
    ("nodes", "commit_quorum", "fence_quorum"), [(1, 1, 1), (2, 2, 1), (3, 2, 2), (4, 3, 2), (5, 3, 3)]
)
def test_quorums_follow_from_the_number_of_nodes(nodes: int, commit_quorum: int, fence_quorum: int) -> None:
    entries = [
        {"name": f"node-{n}", "address": f"[::1]:{n}", "public_key": vkey(f"node-{n}")} for n in range(1, nodes + 1)
    ]
    config = parse(sample(nodes=entries), env={})
    assert (config.voters, config.commit_quorum, config.fence_quorum) == (nodes, commit_quorum, fence_quorum)


#: what is wrong: (mapping, the fault's beginning, words of the remedy)
FAULTS: dict[str, tuple[object, str, str]] = {
    "not a mapping": ([1], "the config is not a mapping", "begin with cluster, node"),
    "missing key": (sample(cluster=...), "cluster: is missing", "add it: The cluster's name"),
    "missing key of a node": (sample(nodes=[{}]), "nodes[0].name: is missing", "add it"),
    "typo": (sample(limits={"paylod": 1}), "limits.paylod: no such key", "did you mean payload?"),
    "key of another section": (sample(heartbeat="1s"), "heartbeat: no such key", "timeouts.heartbeat"),
    "key with the field's unit": (
        sample(limits={"payload_bytes": 1}),
        "limits.payload_bytes:",
        "did you mean payload?",
    ),
    "unheard-of key": (sample(zzz=1), "zzz: no such key", "remove it; known here are cluster"),
    "key that is no text": (sample(**{"log": {True: 1}}), "log.true: no such key", "level, format"),
    "YAML on": (sample(cluster=True), "cluster: is true (YAML reads on", "put it in quotes"),
    "number for a text": (sample(node=12), "node: is 12, not text", "put it in quotes"),
    "no value": (sample(node=None), "node: has no value", "give one"),
    "empty text": (sample(data_dir=" "), "data_dir: is empty", "give a value"),
    "endless text": (sample(data_dir="x" * 5000), "data_dir: has 5000 characters", "at most 4096"),
    "bad name": (sample(cluster="My Log"), "cluster: 'My Log' is not a name", "1 to 64 of a-z"),
    "name with a plus": (with_node(0, name="a+b"), "nodes[0].name: 'a+b' is not a name", "a-z"),
    "long name": (sample(cluster="x" * 65), "cluster: 'xxx", "1 to 64"),
    "name that begins with a dot": (sample(cluster=".x"), "cluster: '.x' is not a name", "letter or digit first"),
    "path with ~": (sample(key="~/node.key"), "key: '~/node.key': ~ is not expanded", "whole path"),
    "path with a newline": (sample(key="a\nb"), "key: 'a\\nb' holds control", "one line"),
    "bad role": (sample(role="mastre"), "role: is 'mastre'", "did you mean master?"),
    "no port": (sample(listen="127.0.0.1"), "listen: '127.0.0.1' is not HOST:PORT", "127.0.0.1:50052"),
    "port 0": (sample(listen="127.0.0.1:0"), "listen: '127.0.0.1:0' is not HOST:PORT", "port 1 to 65535"),
    "bare IPv6": (sample(listen="::1:50052"), "listen: '::1:50052' is not HOST:PORT", "[::1]:50052"),
    "listen beyond loopback": (
        sample(listen="0.0.0.0:50052"),
        "listen: '0.0.0.0' is not a loopback address, and without `tls` nothing would protect it",
        "`replicad-cli pki init` and, for each node, `replicad-cli pki issue node NAME --host HOST`",
    ),
    "address beyond loopback": (
        with_node(1, address="log-2.example.org:50052"),
        "nodes[1].address: 'log-2.example.org' is not a loopback",
        "add the section tls",
    ),
    "tls without mutual addresses": (
        with_tls(node_3=None),
        "nodes[2].mutual_address: is missing, and with tls the nodes dial each other there",
        "tls.mutual_listen",
    ),
    "mutual address without tls": (
        with_node(1, mutual_address="127.0.0.1:6002"),
        "nodes[1].mutual_address: is only used with TLS",
        "add that, or remove this",
    ),
    "same mutual address": (
        with_tls(node_3="log-2.example.org:6002"),
        "nodes[2].mutual_address: is the same as nodes[1].mutual_address",
        "of its own",
    ),
    "mutual address that is an address": (
        with_tls(node_3="127.0.0.1:50053"),
        "nodes[2].mutual_address: is the same as nodes[1].address, where no certificate is asked for",
        "another port",
    ),
    "mutual_listen that is listen": (
        with_tls(mutual_listen="0.0.0.0:50052"),
        "tls.mutual_listen: is the same as listen",
        "another port",
    ),
    "tls empty of a path": (with_tls(ca=...), "tls.ca: is missing", "CA bundle"),
    "warnings before notices": (with_tls(warn_days=31), "tls.warn_days: tls.warn_days (31) is above", "lower"),
    "private key as tls.key": (with_tls(key=f"{PEM_HEAD}x"), "tls.key: holds a private key (not shown)", "file"),
    "nodes not a list": (sample(nodes={"a": 1}), "nodes: is a mapping, not a list", "name, address, public_key"),
    "no nodes": (sample(nodes=[]), "nodes: has 0 entries", "list 1 to 31"),
    "node not a mapping": (sample(nodes=["node-1"]), "nodes[0]: is 'node-1', not a mapping", "name, address"),
    "node unknown": (sample(node="node-9"), "node: node-9 is not among the nodes (node-1, node-2, node-3)", "add it"),
    "same address": (
        with_node(2, address="localhost:50052"),
        "nodes[2].address: is the same as nodes[0].address",
        "an address of its own",
    ),
    "no vkey": (with_node(1, public_key="ssh-ed25519 AAAA"), "nodes[1].public_key: is not a public key", "keys show"),
    "changed vkey": (
        with_node(1, public_key=vkey("node-2").replace("node-2+", "node-2+0")),
        "nodes[1].public_key: is not a public key",
        "`replicad-cli keys show` prints",
    ),
    "key of another node": (
        with_node(1, public_key=vkey("node-1x")),
        "nodes[1].public_key: is the key of 'node-1x', not of node-2",
        "keys show` prints on node-2",
    ),
    "concern above V": (
        sample(write_concern={"default": 4}),
        "write_concern.default: is 4, but there are only 3 nodes",
        "1 to 3, majority or all",
    ),
    "concern 0": (sample(write_concern={"default": 0}), "write_concern.default: is 0", "majority or all"),
    "concern in quotes": (
        sample(write_concern={"default": "2"}),
        "write_concern.default: is a number in quotes",
        "remove",
    ),
    "concern misspelt": (
        sample(write_concern={"default": "mayority"}),
        "write_concern.default:",
        "did you mean majority?",
    ),
    "min_nodes": (sample(min_nodes=2), "min_nodes: is 2", "write 1, majority or all"),
    "flag in quotes": (sample(reflection="on"), "reflection: is 'on'", "true or false, without quotes"),
    "count in quotes": (sample(limits={"streams": "9"}), "limits.streams: is a number in quotes", "remove the quotes"),
    "count as a float": (sample(limits={"streams": 9.0}), "limits.streams: is 9.0, not a whole number", "1 to 65536"),
    "count too high": (sample(limits={"streams": 10**5000}), "limits.streams: is a number of 20 digits", "1 to 65536"),
    "negative count": (sample(limits={"streams": -1}), "limits.streams: is -1", "from 1 to 65536"),
    "unit that is not one": (sample(limits={"batch": "1MB"}), "limits.batch: is '1MB'; there is no unit MB", "MiB"),
    "size without a unit": (
        sample(limits={"batch": "100"}),
        "limits.batch: is the text '100', without a unit",
        "quotes",
    ),
    "size that is no number": (sample(limits={"batch": "big"}), "limits.batch: is 'big'", "write 1MiB"),
    "payload above 64 MiB": (sample(limits={"payload": "65MiB"}), "limits.payload: is '65MiB'", "from 1B to 64MiB"),
    "fraction of a byte": (sample(limits={"batch": 4096.5}), "limits.batch: is 4096.5, a fraction", "whole number"),
    "duration of nothing": (sample(timeouts={"stop": 0}), "timeouts.stop: is 0", "from 100ms to 9s"),
    "stop too long": (sample(timeouts={"stop": "10s"}), "timeouts.stop: is '10s'", "from 100ms to 9s"),
    "endless duration": (sample(timeouts={"stop": float("inf")}), "timeouts.stop: is inf", "write 5s, 500ms"),
    "duration unit": (
        sample(timeouts={"stop": "5 sec"}),
        "timeouts.stop: is '5 sec'; there is no unit sec",
        "h, m, s or ms",
    ),
    "slow heartbeat": (
        sample(timeouts={"heartbeat": "3s"}),
        "timeouts.heartbeat: 3s is not below timeouts.suspect (2s)",
        "lower it, or raise timeouts.suspect",
    ),
    "quick suspicion": (
        sample(timeouts={"suspect": "500ms"}),
        "timeouts.suspect: 500ms is not above timeouts.heartbeat (500ms)",
        "raise it, or lower timeouts.heartbeat",
    ),
    "suspect above unhealthy": (
        sample(timeouts={"suspect": 20, "unhealthy": 10}),
        "timeouts.suspect: 20s is not below timeouts.unhealthy (10s)",
        "lower it",
    ),
    "reconnect": (
        sample(timeouts={"reconnect_min": "6s"}),
        "timeouts.reconnect_min: 6s is above timeouts.reconnect_max (5s)",
        "lower it",
    ),
    "window below batch": (
        sample(limits={"window": "512KiB"}),
        "limits.window: 512KiB is below limits.batch (1MiB): a batch must fit into the window",
        "raise it, or lower limits.batch",
    ),
    "queue too small": (
        sample(limits={"queue": "4MiB"}),
        "limits.queue: limits.queue (4MiB) is below limits.frame + limits.payload (5MiB)",
        "raise limits.queue",
    ),
    "log level": (sample(log={"level": "warn"}), "log.level: is 'warn'", "did you mean warning?"),
    "token": (sample(auth_token="hunter2hunter2"), "auth_token: a token (not shown)", "set AUTH_TOKEN"),
    "token in a section": (sample(log={"token": "hunter2hunter2"}), "log.token: a token (not shown)", "set AUTH_TOKEN"),
    "private key for its path": (sample(key=f"{PEM_HEAD}\nMC4C"), "key: holds a private key (not shown)", "mode 0600"),
    "private key as a key": (sample(private=f"{PEM_HEAD}\nMC4C"), "private: holds a private key", "mode 0600"),
    "private key for a number": (
        sample(limits={"batch": f"{PEM_HEAD}MC4C"}),
        "limits.batch: is a private key (not shown)",
        "write 1MiB",
    ),
    "signer line for a public key": (
        with_node(0, public_key="PRIVATE+KEY+x+00+AA"),
        "nodes[0].public_key: holds a private key (not shown)",
        "mode 0600",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_told_alone_with_its_path_and_remedy(case: str) -> None:
    mapping, beginning, remedy = FAULTS[case]
    faults = faults_of(mapping)
    matching = [fault for fault in faults if fault.startswith(beginning)]
    assert len(matching) == 1, faults
    assert remedy in matching[0].removeprefix(beginning)
    assert "; " in matching[0]
    if not case.startswith(("missing key of a node", "key that is no text")):
        assert faults == matching
    assert "hunter2" not in str(faults)
    assert "MC4C" not in str(faults)


def test_two_nodes_of_one_name_or_key_are_told() -> None:
    mapping = with_node(1, name="node-1", public_key=vkey("node-1"))
    assert faults_of(mapping) == [
        "nodes[1].name: is the same as nodes[0].name; give every node a name of its own,"
        " also beside those that have left",
        "nodes[1].public_key: is the same as nodes[0].public_key;"
        " make a key on every node: replicad-cli keys generate NODE",
    ]


def later(name: str, number: int = 2) -> str:
    """The public line of another key of the node."""
    seed = hashlib.sha256(f"{name} {number}".encode()).digest()
    return Signer(name, Ed25519PrivateKey.from_private_bytes(seed)).verifier.line


def test_a_node_may_have_former_keys_and_signs_with_those_that_have_no_end() -> None:
    former = [{"public_key": vkey("node-1")}, {"public_key": later("node-1", 3), "until": 0}]
    node = parse(with_node(0, public_key=later("node-1"), former_keys=former), env={}).this_node
    assert [(each.public_key, each.until) for each in node.former_keys] == [
        (vkey("node-1"), None),
        (later("node-1", 3), 0),
    ]
    assert node.signing_keys == (later("node-1"), vkey("node-1"))
    assert parse(with_node(0, former_keys=[]), env={}).this_node.signing_keys == (vkey("node-1"),)


def test_a_former_key_is_of_its_node_and_of_no_other_and_stands_once() -> None:
    former = [
        {"public_key": vkey("node-2")},
        {"public_key": vkey("node-1")},
        {"public_key": later("node-1"), "until": -1},
        {"until": 5},
    ]
    assert [fault.partition("; ")[0] for fault in faults_of(with_node(0, former_keys=former))] == [
        "nodes[0].former_keys[2].until: is -1",
        "nodes[0].former_keys[3].public_key: is missing",
        "nodes[0].former_keys[0].public_key: is the key of 'node-2', not of node-1",
        "nodes[0].former_keys[1].public_key: is the same as nodes[0].public_key",
        "nodes[1].public_key: is the same as nodes[0].former_keys[0].public_key",
    ]


def former_node(name: str = "node-0", *, until: Any = 7, **changes: Any) -> dict[str, Any]:
    return {"name": name, "keys": [{"public_key": vkey(name), "until": until}], **changes}


def test_a_node_that_has_left_keeps_its_keys_each_with_its_end() -> None:
    config = parse(sample(former_nodes=[former_node(), former_node("node-9", until=0)]), env={})
    assert [(node.name, [(key.public_key, key.until) for key in node.keys]) for node in config.former_nodes] == [
        ("node-0", [(vkey("node-0"), 7)]),
        ("node-9", [(vkey("node-9"), 0)]),
    ]
    assert parse(sample(), env={}).former_nodes == ()


def test_a_node_that_has_left_is_no_node_and_its_keys_are_its_own_and_have_an_end() -> None:
    former = [
        former_node("node-1"),
        former_node(keys=[{"public_key": vkey("node-2"), "until": 1}, {"public_key": vkey("node-0")}]),
        former_node("node-8", keys=[]),
    ]
    assert [fault.partition("; ")[0] for fault in faults_of(sample(former_nodes=former))] == [
        "former_nodes[1].keys[1].until: is missing",
        "former_nodes[2].keys: has 0 entries",
        "former_nodes[1].keys[0].public_key: is the key of 'node-2', not of node-0",
        "former_nodes[0].name: is the same as nodes[0].name",
        "former_nodes[0].keys[0].public_key: is the same as nodes[0].public_key",
        "former_nodes[1].keys[0].public_key: is the same as nodes[1].public_key",
    ]


@pytest.mark.parametrize(
    ("without_vote", "voters", "commit_quorum", "fence_quorum"), [([], 3, 2, 2), ([2], 2, 2, 1), ([1, 2], 1, 1, 1)]
)
def test_quorums_are_of_the_nodes_that_have_a_vote(
    without_vote: list[int], voters: int, commit_quorum: int, fence_quorum: int
) -> None:
    mapping = sample()
    for index in without_vote:
        mapping["nodes"][index]["voter"] = False
    config = parse(mapping, env={})
    assert (config.voters, config.commit_quorum, config.fence_quorum) == (voters, commit_quorum, fence_quorum)


def test_a_master_has_a_vote_and_one_node_at_least() -> None:
    assert faults_of(with_node(0, voter=False)) == [
        "nodes[0].voter: is false, and node-1 is the master; make a node with a vote the master, or give it one"
    ]
    worker = with_node(0, voter=False) | {"role": "worker"}
    assert parse(worker, env={}).voters == 2
    for node in worker["nodes"]:
        node["voter"] = False
    assert faults_of(worker) == [
        "nodes[0].voter: is false, as every other node's; a log needs one node with a vote at least"
    ]
    assert faults_of(with_node(0, voter=0)) == ["nodes[0].voter: is 0; write true or false, without quotes"]


def test_a_default_write_concern_counts_voters_alone() -> None:
    mapping = with_node(2, voter=False) | {"write_concern": {"default": 3}}
    assert faults_of(mapping) == [
        "write_concern.default: is 3, but there are only 2 nodes with a vote;"
        " write a number from 1 to 2, majority or all"
    ]


def test_all_faults_are_told_at_once() -> None:
    mapping = sample(
        role="boss", listen="0.0.0.0:1", limits={"batch": "1MB", "nope": 1}, timeouts={"heartbeat": "1h"}, key=...
    )
    faults = faults_of(mapping, {"PORT": "x", "AUTH_TOKEN": "short"})
    assert [fault.partition(": ")[0] for fault in faults] == [
        "role",
        "key",
        "limits.nope",
        "limits.batch",
        "timeouts.heartbeat",
        "listen",
        "environment PORT",
        "environment AUTH_TOKEN",
    ]


# --- environment ------------------------------------------------------------------------------------------------


def test_port_replaces_the_port_of_listen_alone() -> None:
    config = parse(sample(listen="[::1]:1"), env={"PORT": "6000"})
    assert config.listen == "[::1]:6000"
    assert config.this_node.address == "127.0.0.1:50052"


def test_machine_id_names_the_node_also_where_the_file_has_none_or_a_bad_one() -> None:
    for node in (..., "node-1", "NOT A NAME"):
        assert parse(sample(node=node), env={"MACHINE_ID": "node-3"}).node == "node-3"


def test_the_token_comes_from_the_environment_and_is_not_in_the_repr() -> None:
    config = parse(sample(), env={"AUTH_TOKEN": "correct-horse"})
    assert config.auth_token == "correct-horse"
    assert "correct-horse" not in repr(config)


@pytest.mark.parametrize(
    ("variable", "value", "wrong", "remedy"),
    [
        ("PORT", "http", "'http' is not a port", "1 to 65535, or unset it"),
        ("PORT", "", "'' is not a port", "unset it"),
        ("PORT", "65536", "'65536' is not a port", "1 to 65535"),
        ("PORT", "\u0663", "is not a port", "1 to 65535"),
        ("MACHINE_ID", "Node 1", "'Node 1' is not a name", "a-z"),
        ("MACHINE_ID", "", "is empty", "give a value"),
        ("MACHINE_ID", "node-9", "node-9 is not among the nodes", "name one of them"),
        ("AUTH_TOKEN", "1234567", "the token has 7 characters", "8 to 4096"),
        ("AUTH_TOKEN", "", "the token has 0 characters", "or unset it"),
        ("AUTH_TOKEN", "with a space", "the token holds white space", "without spaces"),
        ("AUTH_TOKEN", "newline-at-end\n", "the token holds white space", "without spaces"),
        ("AUTH_TOKEN", "x" * 5000, "the token has 5000 characters", "8 to 4096"),
    ],
)
def test_a_bad_variable_is_a_fault_under_its_own_name(variable: str, value: str, wrong: str, remedy: str) -> None:
    (fault,) = faults_of(sample(), {variable: value})
    assert fault.startswith(f"environment {variable}: ")
    assert wrong in fault
    assert remedy in fault
    if variable == "AUTH_TOKEN" and len(value) > 8:
        assert value not in fault


# --- values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("5s", 5.0), ("2m", 120.0), ("1h", 3600.0), ("0.3s", 0.3), ("300 ms", 0.3)]
)
def test_durations_are_read_in_seconds(text: str, seconds: float) -> None:
    assert Duration("", at_most=3600).read(text) == seconds


@UNHURRIED
@given(st.integers(1, 3_600_000))
def test_a_duration_that_is_shown_reads_as_itself(milliseconds: int) -> None:
    kind = Duration("", at_most=3600)
    assert kind.read(kind.show(milliseconds / 1000)) == milliseconds / 1000


@UNHURRIED
@given(st.integers(1, 1 << 40))
def test_a_size_that_is_shown_reads_as_itself(size: int) -> None:
    kind = Size("", at_most=1 << 40)
    assert kind.read(kind.show(size)) == size
    assert kind.read(size) == size


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("LocalHost", True),
        ("0.0.0.0", False),  # noqa: S104
        ("::", False),
        ("128.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("::1%lo", False),
        ("localhost.example.org", False),
        ("127.0.0.1.example.org", False),
    ],
)
def test_only_this_machines_own_addresses_are_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@UNHURRIED
@given(st.sampled_from(["127.0.0.1", "::1", "localhost", "log-1.example.org"]), st.integers(1, 65535))
def test_an_address_splits_into_what_it_was_joined_from(host: str, port: int) -> None:
    assert split_address(join_address(host, port)) == (host, port)


# --- the description of the keys --------------------------------------------------------------------------------


def test_every_field_but_the_token_is_a_described_key() -> None:
    described = {(path[:-1], key.field) for path, key in walk_keys(Config)}
    assert ((), "auth_token") not in described
    assert {field.name for field in dataclasses.fields(Config)} - {"auth_token", "principals"} == {
        field for path, field in described if not path
    }
    for path, key in walk_keys(Config):
        assert key.kind.doc.endswith("."), path


def optional_values() -> list[tuple[str, KeyInfo]]:
    sections = {"limits": Limits, "timeouts": Timeouts, "write_concern": WriteConcernDefaults, "log": Log}
    return [(section, key) for section, of in sections.items() for key in keys_of(of)]


@pytest.mark.parametrize(("section", "key"), optional_values(), ids=lambda value: getattr(value, "name", value))
def test_every_default_is_within_its_own_limits(section: str, key: KeyInfo) -> None:
    shown = key.kind.show(key.default)
    assert key.kind.read(int(shown) if shown.isdigit() else shown) == key.default
    config = parse(sample(**{section: {key.name: int(shown) if shown.isdigit() else shown}}), env={})
    assert getattr(getattr(config, section), key.field) == key.default


def test_the_hard_limit_of_a_payload_is_allowed_where_the_queue_has_room() -> None:
    limits = {"payload": "64MiB", "queue": "68MiB"}
    assert parse(sample(limits=limits), env={}).limits.payload_bytes == 64 * MIB


# --- whatever comes in ------------------------------------------------------------------------------------------

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.dates()
    | st.binary(max_size=5)
    | st.sampled_from(["majority", "1MiB", "5s", "127.0.0.1:1", vkey("a"), "PRIVATE KEY", "9" * 5000, 10**4000])
)
key_names = st.sampled_from([path[-1] for path, _ in walk_keys(Config)]) | st.text(max_size=8) | st.integers()
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(key_names, inner, max_size=5),
    max_leaves=20,
)


def assert_only_clean_faults(mapping: object, env: dict[str, str]) -> None:
    before = copy.deepcopy(mapping)
    config, faults = examine(mapping, env=env)
    assert (config is None) == bool(faults)
    for fault in faults:
        assert fault.line().isprintable(), "a fault is one line"
        assert len(fault.line()) < 1000
    assert repr(mapping) == repr(before), "the mapping is the caller's own"
    if faults:
        with pytest.raises(ConfigError):
            parse(mapping, env=env)


@UNHURRIED
@given(trees, st.dictionaries(st.sampled_from(["PORT", "MACHINE_ID", "AUTH_TOKEN"]), st.text(max_size=12)))
def test_no_mapping_whatever_raises_anything_but_a_config_error(mapping: object, env: dict[str, str]) -> None:
    assert_only_clean_faults(mapping, env)


@UNHURRIED
@given(st.sampled_from([path for path, _ in walk_keys(Config)]), trees)
def test_no_value_of_any_key_raises_anything_but_a_config_error(path: tuple[str | int, ...], value: object) -> None:
    mapping: Any = sample()
    place = mapping
    for part, below in pairwise(path):
        empty: Any = [{}] if isinstance(below, int) else {}
        place = place[part] if isinstance(part, int) else place.setdefault(part, empty)
    place[path[-1]] = value
    assert_only_clean_faults(mapping, {})
