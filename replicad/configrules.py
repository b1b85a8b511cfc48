"""What must hold between the keys of a config, and the environment's overrides.

Works on drafts (:mod:`replicad.configkeys`), in which a faulty value is absent: a rule holds its tongue when it lacks
a value, since that fault is told already. Reads no file and not the process's environment.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

from replicad.configkeys import Draft, Fault, Path, path_text
from replicad.configvalues import Bad, Duration, Name, Size, is_loopback, join_address, shown, split_address
from replicad.vkeys import parse_vkey

TOKEN_CHARS_MIN = 8  # below, a token is guessed
TOKEN_CHARS_MAX = 4096  # gRPC refuses more than 8 KiB of metadata

_SIZE, _DURATION = Size("", at_most=0), Duration("", at_most=0)

# (section, smaller field, larger field, whether they may be equal, why)
_ORDERED = (
    ("timeouts", "heartbeat_s", "suspect_s", False, "a healthy idle peer would be suspected"),
    ("timeouts", "suspect_s", "unhealthy_s", False, "a peer is suspected before it is given up"),
    ("timeouts", "reconnect_min_s", "reconnect_max_s", True, "the wait grows from the one to the other"),
    ("limits", "batch_bytes", "window_bytes", True, "a batch must fit into the window"),
)


def check(draft: Draft, given: set[Path], overrides: Draft) -> list[Fault]:
    """Every rule that the draft breaks, which has the overrides already; ``given`` are the keys that the file has."""
    return [
        *_nodes(draft),
        *_this_node(draft, overrides),
        *_votes(draft),
        *_loopback(draft),
        *_mutual(draft, given),
        *_write_concern(draft),
        *_order(draft, given),
        *_queue(draft, given),
    ]


def read_environment(draft: Draft, env: Mapping[str, str]) -> tuple[Draft, list[Fault]]:
    """The fields that the environment overrides, and a fault for every variable that can't be taken.

    A variable that is set but empty is a fault: a token that failed to be filled in must not open the node to all.
    """
    overrides: Draft = {}
    faults = []
    for variable, field, read in (
        ("PORT", "listen", partial(_listen_at, draft.get("listen"))),
        ("MACHINE_ID", "node", Name("").read),
        ("AUTH_TOKEN", "auth_token", _token),
    ):
        result = read(env[variable]) if variable in env else None
        if isinstance(result, Bad):
            faults.append(Fault((), result.wrong, result.remedy, variable=variable))
        elif result is not None:
            overrides[field] = result
    return overrides, faults


def _listen_at(listen: str | None, port: str) -> str | Bad | None:
    if re.fullmatch(r"[0-9]{1,5}", port) is None or not 1 <= int(port) <= 65535:
        return Bad(f"{shown(port)} is not a port", "set a number from 1 to 65535, or unset it")
    split = split_address(listen) if listen else None
    return join_address(split[0], int(port)) if split else None


def _token(token: str) -> str | Bad:
    remedy = f"set {TOKEN_CHARS_MIN} to {TOKEN_CHARS_MAX} printable ASCII characters without spaces, or unset it"
    if not TOKEN_CHARS_MIN <= len(token) <= TOKEN_CHARS_MAX:
        return Bad(f"the token has {len(token)} characters", remedy)
    if re.fullmatch(r"[!-~]+", token) is None:
        return Bad("the token holds white space or what is not printable ASCII", remedy)
    return token


def _nodes(draft: Draft) -> Iterator[Fault]:
    nodes: list[Draft] = draft.get("nodes", [])
    for index, node in enumerate(nodes):
        yield from _misnamed(node.get("name"), _keys(node, ("nodes", index)))
    former: list[Draft] = draft.get("former_nodes", [])
    for index, node in enumerate(former):
        yield from _misnamed(node.get("name"), _former_keys(node, ("former_nodes", index)))
    names = [*_values(nodes, "name"), *_values(former, "name", of="former_nodes")]
    yield from _distinct(names, str, "give every node a name of its own, also beside those that have left")
    yield from _distinct(_values(nodes, "address"), _canonical_address, "give every node an address of its own")
    keys = [entry for index, node in enumerate(nodes) for entry in _keys(node, ("nodes", index))]
    keys += [entry for index, node in enumerate(former) for entry in _former_keys(node, ("former_nodes", index))]
    yield from _distinct(keys, _bare_key, "make a key on every node: replicad-cli keys generate NODE")


def _misnamed(name: str | None, keys: Iterable[tuple[Path, str]]) -> Iterator[Fault]:
    for path, line in keys:
        if name and parse_vkey(line).name != name:
            wrong = f"is the key of {shown(parse_vkey(line).name)}, not of {name}"
            yield Fault(path, wrong, f"copy the line that `replicad-cli keys show` prints on {name}")


def _keys(node: Draft, path: Path) -> Iterator[tuple[Path, str]]:
    """The node's public keys, the newest first, with their paths."""
    if "public_key" in node:
        yield (*path, "public_key"), node["public_key"]
    yield from _former_keys(node, path, "former_keys")


def _former_keys(node: Draft, path: Path, field: str = "keys") -> Iterator[tuple[Path, str]]:
    for index, former in enumerate(node.get(field, ())):
        if "public_key" in former:
            yield (*path, field, index, "public_key"), former["public_key"]


def _values(nodes: list[Draft], field: str, *, of: str = "nodes") -> list[tuple[Path, str]]:
    return [((of, index, field), node[field]) for index, node in enumerate(nodes) if field in node]


def _votes(draft: Draft) -> Iterator[Fault]:
    """At least one node has a vote, and a master does."""
    nodes: list[Draft] = draft.get("nodes", [])
    if nodes and not any(node.get("voter", True) for node in nodes):
        yield Fault(
            ("nodes", 0, "voter"), "is false, as every other node's", "a log needs one node with a vote at least"
        )
        return
    for index, node in enumerate(nodes):
        if draft.get("role") == "master" and node.get("name") == draft.get("node") and not node.get("voter", True):
            wrong = f"is false, and {draft['node']} is the master"
            yield Fault(("nodes", index, "voter"), wrong, "make a node with a vote the master, or give it one")


def _this_node(draft: Draft, overrides: Draft) -> Iterator[Fault]:
    nodes: list[Draft] = draft.get("nodes", [])
    names = [node["name"] for node in nodes if "name" in node]
    if "node" in draft and names and len(names) == len(nodes) and draft["node"] not in names:
        wrong, remedy = f"{draft['node']} is not among the nodes ({', '.join(names)})", "name one of them, or add it"
        if "node" in overrides:
            yield Fault((), wrong, remedy, variable="MACHINE_ID")
        else:
            yield Fault(("node",), wrong, remedy)


def _distinct(values: list[tuple[Path, str]], canonical: Callable[[str], str], remedy: str) -> Iterator[Fault]:
    first_with: dict[str, Path] = {}
    for path, value in values:
        first = first_with.setdefault(canonical(value), path)
        if first != path:
            yield Fault(path, f"is the same as {path_text(first)}", remedy)


def _canonical_address(address: str) -> str:
    host, port = split_address(address) or ("", 0)
    return join_address("127.0.0.1" if host.lower() == "localhost" else host.lower(), port)


def _bare_key(line: str) -> str:
    return line.split("+", 2)[2]  # base64 has "+" too


def _loopback(draft: Draft) -> Iterator[Fault]:
    if draft.get("tls") is not None:
        return
    addresses: list[tuple[Path, str | None]] = [(("listen",), draft.get("listen"))]
    addresses += [(("nodes", i, "address"), node.get("address")) for i, node in enumerate(draft.get("nodes", []))]
    for path, address in addresses:
        split = split_address(address) if address else None
        if split and not is_loopback(split[0]):
            yield Fault(
                path,
                f"{shown(split[0])} is not a loopback address, and without `tls` nothing would protect it",
                "add the section tls; certificates are made by `replicad-cli pki init` and, for each node,"
                " `replicad-cli pki issue node NAME --host HOST`",
            )


def _mutual(draft: Draft, given: set[Path]) -> Iterator[Fault]:
    """With tls every node has a mutual address, which is nobody's other address; without it nobody has."""
    tls, nodes = draft.get("tls"), draft.get("nodes", [])
    if tls is None:
        if ("tls",) not in given:
            for index, node in enumerate(nodes):
                if node.get("mutual_address"):
                    wrong = "is only used with TLS, and there is no section `tls`"
                    yield Fault(("nodes", index, "mutual_address"), wrong, "add that, or remove this")
        return
    for index, node in enumerate(nodes):
        path = ("nodes", index, "mutual_address")
        if path not in given and not node.get("mutual_address"):
            wrong = "is missing, and with tls the nodes dial each other there"
            yield Fault(path, wrong, "add it: HOST:PORT, that node's tls.mutual_listen as others reach it", on_key=True)
    mutual_addresses = [(path, value) for path, value in _values(nodes, "mutual_address") if value]
    yield from _distinct(mutual_addresses, _canonical_address, "give every node a mutual address of its own")
    taken = {_canonical_address(node["address"]): index for index, node in enumerate(nodes) if "address" in node}
    for place, value in mutual_addresses:
        other = taken.get(_canonical_address(value))
        if other is not None:
            wrong = f"is the same as {path_text(('nodes', other, 'address'))}, where no certificate is asked for"
            yield Fault(place, wrong, "take another port")
    listen, mutual = draft.get("listen"), tls.get("mutual_listen")
    if listen and mutual and _canonical_address(listen) == _canonical_address(mutual):
        wrong = "is the same as listen, where no certificate is asked for"
        yield Fault(("tls", "mutual_listen"), wrong, "take another port")
    if "warn_days" in tls and "notice_days" in tls and tls["warn_days"] > tls["notice_days"]:
        key = "warn_days" if ("tls", "warn_days") in given else "notice_days"
        wrong = f"tls.warn_days ({tls['warn_days']}) is above tls.notice_days ({tls['notice_days']})"
        yield Fault(("tls", key), wrong, "a warning comes after the notices: lower the one or raise the other")


def _write_concern(draft: Draft) -> Iterator[Fault]:
    default = draft.get("write_concern", {}).get("default", "")
    voters = sum(node.get("voter", True) for node in draft.get("nodes", []))
    if voters and default.isdigit() and int(default) > voters:
        yield Fault(
            ("write_concern", "default"),
            f"is {default}, but there are only {voters} nodes with a vote",
            f"write a number from 1 to {voters}, majority or all",
        )


def _order(draft: Draft, given: set[Path]) -> Iterator[Fault]:
    for section, smaller, larger, may_be_equal, why in _ORDERED:
        values = draft.get(section, {})
        if smaller not in values or larger not in values:
            continue
        low, high = values[smaller], values[larger]
        if low < high or (may_be_equal and low == high):
            continue
        kind = _DURATION if smaller.endswith(_DURATION.suffix) else _SIZE
        low_key, high_key = smaller.removesuffix(kind.suffix), larger.removesuffix(kind.suffix)
        relation = "above" if may_be_equal else "not below"
        if (section, low_key) in given or (section, high_key) not in given:
            wrong = f"{kind.show(low)} is {relation} {section}.{high_key} ({kind.show(high)}): {why}"
            yield Fault((section, low_key), wrong, f"lower it, or raise {section}.{high_key}")
        else:
            relation = "below" if may_be_equal else "not above"
            wrong = f"{kind.show(high)} is {relation} {section}.{low_key} ({kind.show(low)}): {why}"
            yield Fault((section, high_key), wrong, f"raise it, or lower {section}.{low_key}")


def _queue(draft: Draft, given: set[Path]) -> Iterator[Fault]:
    limits = draft.get("limits", {})
    if not {"queue_bytes", "frame_bytes", "payload_bytes"} <= limits.keys():
        return
    need = limits["frame_bytes"] + limits["payload_bytes"]
    if limits["queue_bytes"] < need:
        culprits = [("limits", key) for key in ("queue", "frame", "payload") if ("limits", key) in given]
        yield Fault(
            culprits[0],
            f"limits.queue ({_SIZE.show(limits['queue_bytes'])}) is below limits.frame + limits.payload"
            f" ({_SIZE.show(need)}): the largest frame would wait for ever",
            "raise limits.queue, or lower the others",
        )
