"""Who may do what: roles, principals, the rule of every method, and what a tokens file may say.

Pure: no file, no socket, no clock. How a caller shows who it is, :mod:`replicad.transport.access` knows; how the file
is read and changed, :mod:`replicad.tokensfile`. docs/adr/0019 has why it is as it is.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from replicad.configkeys import Fault, Path, Reader, Sections, build, path_text
from replicad.configvalues import Bad, Count, Key, Name, Size, Text, any_of, did_you_mean, shown
from replicad.errors import Forbidden, Unauthorized

TOKEN_PREFIX = "rpcd_"  # noqa: S105 - by which people and secret scanners know one
TOKEN_BYTES = 32  # of chance: nobody guesses it, nor finds it from its hash
MAX_PRINCIPALS = 4096  # entries; a file of so many has about 600 KiB
MAX_RATE = 1_000_000_000


class Role(StrEnum):
    """What a principal may do."""

    READER = "reader"  # read records, and how the cluster is
    WRITER = "writer"  # post
    ADMIN = "admin"  # say who is the master, and see how the cluster is
    NODE = "node"  # replicate


ALL_ROLES = frozenset(Role)
Rule = tuple[Role, ...] | None  # a principal with any of these roles may call
OPEN = None  # the rule of a method that is open to all: no token is asked for
NODES = (Role.NODE,)

#: Who may call each method. A method that is not here can't be served (transport/server.py).
RULES: Mapping[str, Rule] = {
    "/replicad.wire.v1.Log/Post": (Role.WRITER,),
    "/replicad.wire.v1.Log/PostStream": (Role.WRITER,),
    "/replicad.wire.v1.Log/List": (Role.READER,),
    "/replicad.wire.v1.Log/Tail": (Role.READER,),
    "/replicad.wire.v1.Log/Outcome": (Role.READER,),
    # Who says who is the master has to see first how each node is, and afterwards whether it came about.
    "/replicad.wire.v1.Log/Status": (Role.READER, Role.ADMIN),
    "/replicad.wire.v1.Control/Promote": (Role.ADMIN,),
    "/replicad.wire.v1.Control/Switchover": (Role.ADMIN,),
    "/replicad.wire.v1.Replication/Replicate": NODES,
    "/replicad.wire.v1.Replication/Batches": NODES,
    "/replicad.wire.v1.Replication/End": NODES,
    "/grpc.health.v1.Health/Check": OPEN,
    "/grpc.health.v1.Health/Watch": OPEN,
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": OPEN,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": OPEN,
}

ANONYMOUS_NAME = "anonymous"  # author of records on a node that asks for no token
SHARED_NAME = "token"  # author of records posted with AUTH_TOKEN's token
RESERVED_NAMES = (ANONYMOUS_NAME, SHARED_NAME)

# --- the tokens file's keys --------------------------------------------------------------------------------------


class Roles(Key):
    """A list of roles."""

    __slots__ = ()

    def read(self, value: object) -> frozenset[Role] | Bad:
        words = tuple(Role)
        if not isinstance(value, list | tuple) or not value:
            return Bad(f"is {shown(value)}", f"write a list with one or more of {', '.join(words)}: [reader, writer]")
        for word in value:
            if word not in words:
                return Bad(f"holds {shown(word)}", did_you_mean(word, words) or f"write {any_of(words)}")
        return frozenset(Role(word) for word in value)

    def show(self, value: Any) -> str:
        return ",".join(role for role in Role if role in value)

    def form(self) -> str:
        return f"a list with one or more of {', '.join(Role)}"


class TokenHash(Text):
    """``sha256:`` and 64 hex digits."""

    __slots__ = ()

    def read(self, value: object) -> str | Bad:
        remedy = "copy the line that `replicad-cli tokens create` wrote, or make a new token with it"
        if isinstance(value, str) and value.startswith(TOKEN_PREFIX):
            return Bad("is a token itself (not shown)", f"only its hash belongs here; it is known now, so {remedy}")
        if not isinstance(value, str) or re.fullmatch(r"sha256:[0-9a-f]{64}", value) is None:
            return Bad("is not sha256: and 64 hex digits in lower case", remedy)
        return value

    def form(self) -> str:
        return "sha256: and 64 hex digits"


class San(Text):
    """A DNS name that stands in a certificate."""

    __slots__ = ()

    def read(self, value: object) -> str | Bad:
        text = Text.read(self, value)
        if isinstance(text, Bad) or re.fullmatch(r"[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?", text):
            return text
        return Bad(f"{shown(text)} is not a DNS name in lower case", "write it as it stands in the certificate")

    def form(self) -> str:
        return "a DNS name in lower case"


class Moment(Key):
    """A time, ISO 8601 in UTC; gives seconds since 1970, 0 for none."""

    __slots__ = ()

    suffix: ClassVar[str] = "_at"

    def read(self, value: object) -> float | Bad:
        remedy = "write it like 2027-01-31T12:00:00Z"
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                return Bad(f"is {shown(value)}, not a time", remedy)
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day, tzinfo=UTC)
        if not isinstance(value, datetime):
            return Bad(f"is {shown(value)}, not a time", remedy)
        if value.tzinfo is None:
            value = value.replace(tzinfo=UTC)
        if value.year < 1971:
            return Bad(f"is in the year {value.year}", remedy)
        return value.timestamp()

    def show(self, value: Any) -> str:
        return time_text(value) if value else "none"

    def form(self) -> str:
        return "a time in UTC: 2027-01-31T12:00:00Z, or a date"


def time_text(seconds: float) -> str:
    """Seconds since 1970 as the file has them."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Principal:
    """One way in: a name with its roles, by a token or by a certificate. Several may have one name.

    1. At most one of ``hash`` and ``certificate`` is set, and exactly one in a tokens file. 2. It holds no secret.
    """

    name: Annotated[str, Name("Who it is: the author of what is posted with it. Several entries may have one name.")]
    roles: Annotated[frozenset[Role], Roles("What it may do: reader, writer, admin, node.")]
    hash: Annotated[str, TokenHash("The hash of its token; this or certificate.")] = ""
    certificate: Annotated[str, San("The DNS name in its client certificate; this or hash.")] = ""
    expires_at: Annotated[float, Moment("From when on it is not valid any more.")] = 0.0
    rate: Annotated[
        int,
        Count("Messages a second that the name may post; without it limits.principal_rate holds.", at_most=MAX_RATE),
    ] = 0
    rate_bytes: Annotated[
        int,
        Size(
            "Bytes a second that the name may post; without it limits.principal_bytes holds.",
            name="rate_bytes",
            at_most=MAX_RATE,
        ),
    ] = 0

    @property
    def source(self) -> str:
        """What it was known by: the same for as long as it is the same entry."""
        return self.hash or self.certificate

    def expired(self, now_s: float) -> bool:
        return bool(self.expires_at) and now_s >= self.expires_at


@dataclass(frozen=True, slots=True)
class TokensFile:
    """The file's keys."""

    principals: Annotated[
        tuple[Principal, ...],
        Sections(
            "Who may call: an entry for each token and certificate.", of=Principal, at_least=0, at_most=MAX_PRINCIPALS
        ),
    ] = field(default=())


def parse(mapping: object, *, nodes: Iterable[str] = ()) -> tuple[tuple[Principal, ...], list[Fault]]:
    """The principals of a tokens file, as YAML has it, and every fault of it at once; none with any fault.

    ``nodes`` are the names of the config's nodes, which nobody else may bear.
    """
    if not isinstance(mapping, Mapping):
        return (), [Fault((), "is not a mapping of keys to values", "begin with `principals:`")]
    reader = Reader(TokensFile, refused={"token": _NO_TOKEN})
    draft = reader.section(TokensFile, mapping, ())
    entries = draft.get("principals") or []
    faults = [*reader.faults, *_rules(entries, frozenset(nodes))]
    return ((), faults) if faults else (build(TokensFile, {"principals": entries}).principals, [])


_NO_TOKEN = Bad("a token (not shown) has no place in this file", "make a new one: replicad-cli tokens create")


def _rules(entries: list[dict[str, Any]], nodes: frozenset[str]) -> Iterator[Fault]:
    """What must hold between an entry's values, and between entries; what is faulty by itself is absent."""
    first_with: dict[str, int] = {}
    first_named: dict[str, int] = {}
    for index, entry in enumerate(entries):
        path: Path = ("principals", index)
        name, roles = entry.get("name"), entry.get("roles", frozenset())
        if {"hash", "certificate"} <= entry.keys() and bool(entry["hash"]) == bool(entry["certificate"]):
            wrong = "has a hash and a certificate" if entry["hash"] else "has neither a hash nor a certificate"
            yield Fault(path, wrong, "give one of them")
        for key in ("hash", "certificate"):
            if source := entry.get(key):
                first = first_with.setdefault(source, index)
                if first != index:
                    wrong = f"is the same as {path_text(('principals', first, key))}"
                    yield Fault((*path, key), wrong, "keep one of the two entries")
        if entry.get("certificate") and Role.NODE in roles:
            remedy = "remove the role; a certificate that names a node of the config is that node, without an entry"
            yield Fault((*path, "roles"), "give a certificate the role node", remedy)
        if entry.get("certificate") in nodes:
            yield Fault((*path, "certificate"), "names a node of the config", "remove the entry: it is that node")
        if name in RESERVED_NAMES:
            yield Fault((*path, "name"), f"is {name}, which the node itself gives out", "give another name")
        if name in nodes and roles - {Role.NODE}:
            yield Fault((*path, "name"), f"is {name}, a node of the config", "give another name: it would look like it")
        if name is not None:
            yield from _same_rate(entries, first_named.setdefault(name, index), index)


def _same_rate(entries: list[dict[str, Any]], first: int, index: int) -> Iterator[Fault]:
    for key in ("rate", "rate_bytes"):
        if {key} <= entries[first].keys() & entries[index].keys() and entries[first][key] != entries[index][key]:
            wrong = f"is not that of principals[{first}], which has the same name"
            yield Fault(("principals", index, key), wrong, "give both the same: a rate is the name's, not the token's")


# --- tokens ------------------------------------------------------------------------------------------------------


def new_token() -> str:
    """A token: the prefix and 256 bits of chance."""
    return TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def hash_of(token: str) -> str:
    """A token's hash as the file has it. A plain SHA-256 is enough for 256 bits of chance: docs/adr/0019."""
    return f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"


# --- who calls, and whether it may ---------------------------------------------------------------------------------

#: The same whatever is wrong with a token, so that nothing is learnt from it.
REFUSAL = "a valid bearer token is needed: set AUTH_TOKEN, or send `authorization: Bearer TOKEN`"
#: The same to whoever is no node, over TLS.
NODE_REFUSAL = "this call is for nodes, by their certificate, at tls.mutual_listen"


class Refused(Unauthorized):
    """401, with the reason for our own log alone: missing, wrong, unknown, expired or revoked, and whose it was (of
    an unknown certificate its names)."""

    def __init__(self, reason: str, principal: str = "", *, text: str = REFUSAL) -> None:
        super().__init__(text)
        self.reason, self.principal = reason, principal


class Book:
    """Everybody who may call, by token and certificate.

    1. Time tells nothing of a token: it is looked for under a keyed hash whose key nobody knows, then compared whole.
    2. ``is_open``: who shows nothing is ANONYMOUS with all roles; never over TLS, and never with a shared token.
    """

    def __init__(
        self, principals: Iterable[Principal], *, nodes: Iterable[str], shared_token: str = "", is_open: bool = False
    ) -> None:
        shared = [Principal(SHARED_NAME, ALL_ROLES, hash=hash_of(shared_token))] if shared_token else []
        principals = [*shared, *principals]  # an entry of the same token says more closely what it may do
        self._key = secrets.token_bytes(32)
        self._by_token = {self._blind(each.hash): each for each in principals if each.hash}
        self._by_certificate = {each.certificate: each for each in principals if each.certificate}
        self._by_certificate |= {node: Principal(node, frozenset({Role.NODE}), certificate=node) for node in nodes}
        self.is_open = is_open and not shared_token
        self.names = {each.name: each for each in principals}

    def _blind(self, token_hash: str) -> bytes:
        return hmac.digest(self._key, token_hash.encode(), "sha256")

    def by_token(self, token: str) -> Principal | None:
        return self._by_hash(hash_of(token))

    def _by_hash(self, token_hash: str) -> Principal | None:
        found = self._by_token.get(self._blind(token_hash))
        same = hmac.compare_digest(token_hash, found.hash if found else "sha256:")
        return found if same else None

    def by_certificate(self, names: Iterable[str]) -> Principal | None:
        """A node first, should a certificate name several."""
        found = [self._by_certificate[name] for name in sorted(names) if name in self._by_certificate]
        return next((each for each in found if Role.NODE in each.roles), found[0] if found else None)

    def again(self, principal: Principal, roles: tuple[Role, ...], *, now_s: float, secure: bool) -> None:
        """Whether a call that was let in would be let in again. Raises Unauthorized or Forbidden."""
        current: Principal | None = ANONYMOUS
        if principal.hash:
            current = self._by_hash(principal.hash)
        elif principal.certificate:
            current = self._by_certificate.get(principal.certificate)
        elif not self.is_open:
            current = None
        if current is None or current.name != principal.name:
            raise Refused("revoked", principal.name)
        judge(current, roles, now_s=now_s, secure=secure)


ANONYMOUS = Principal(ANONYMOUS_NAME, ALL_ROLES)


def judge(principal: Principal, roles: tuple[Role, ...], *, now_s: float, secure: bool) -> None:
    """Raises Unauthorized when it has expired, Forbidden when it has none of ``roles``.

    ``secure``: it came over TLS. There nodes are known by their certificates alone.
    """
    if principal.expired(now_s):
        raise Refused("expired", principal.name)
    if principal.roles.isdisjoint(roles):
        raise Forbidden(f"{principal.name} lacks the role {' or '.join(roles)}, which this call needs")
    if roles == NODES and secure and not principal.certificate:
        raise Forbidden(f"over TLS the role {Role.NODE} comes with a node's certificate, not with a token")
