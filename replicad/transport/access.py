"""Who calls: the principal behind a call, by its bearer token or its client certificate.

Owns how gRPC shows both. What they are worth, :mod:`replicad.access` says.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from replicad.access import ANONYMOUS, NODE_REFUSAL, NODES, Book, Principal, Refused, Role, judge
from replicad.certificates import names_in
from replicad.config import Config
from replicad.rates import Rate

Context = Any  # grpc.aio.ServicerContext; its type arguments add nothing here

NAMES_CHARS = 256  # of a certificate that nobody knows, in the log

_BEARER = "Bearer "


class Caller(NamedTuple):
    """Who calls, whether over TLS, and the certificate (PEM) that was shown; empty for none."""

    principal: Principal
    secure: bool
    certificate: bytes


class Access:
    """1. A token comes before a certificate, and a bad one is not made good by a certificate.
    2. Over TLS a node is known by its certificate alone, and nobody is anonymous.
    """

    def __init__(self, config: Config) -> None:
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Go by the principals of ``config`` from now on."""
        self._limits = config.limits
        nodes, is_open = [node.name for node in config.nodes], not config.tokens_file
        self.book = Book(config.principals, nodes=nodes, shared_token=config.auth_token, is_open=is_open)

    def caller(self, context: Context, roles: tuple[Role, ...]) -> Caller:
        """Whoever calls, who may. Raises Refused (401) or Forbidden (403)."""
        shown = context.auth_context()
        secure = is_secure(shown)
        principal = self._node(shown) if secure and roles == NODES else self._client(context, shown)
        if principal is None:
            if secure or not self.book.is_open:
                raise Refused("missing")
            principal = ANONYMOUS
        judge(principal, roles, now_s=time.time(), secure=secure)
        return Caller(principal, secure, peer_pem(shown))

    def _client(self, context: Context, shown: Mapping[str, Sequence[bytes]]) -> Principal | None:
        tokens = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
        if tokens and not self.book.is_open:
            [token, *more] = tokens
            found = self.book.by_token(token.removeprefix(_BEARER))
            if found is None or more or not token.startswith(_BEARER):
                raise Refused("wrong")
            return found
        names = names_in(peer_pem(shown))  # gRPC's own list of a certificate's names has all kinds of them
        if not names:
            return None
        found = self.book.by_certificate(names)
        if found is None:
            raise Refused("unknown", _shown(names))
        return found

    def _node(self, shown: Mapping[str, Sequence[bytes]]) -> Principal:
        """By its certificate alone, and not by one that is only a client's."""
        found = self.book.by_certificate(names_in(peer_pem(shown), of_server=True))
        if found is None:
            reason = "unknown" if shown.get("x509_pem_cert") else "missing"
            raise Refused(reason, _shown(names_in(peer_pem(shown))), text=NODE_REFUSAL)
        return found

    def again(self, caller: Caller, roles: tuple[Role, ...]) -> None:
        """Whether the caller would be let in now. Raises Unauthorized or Forbidden."""
        self.book.again(caller.principal, roles, now_s=time.time(), secure=caller.secure)

    def rate_of(self, name: str) -> Rate:
        """What the principal of that name may post."""
        own, limits = self.book.names.get(name, ANONYMOUS), self._limits
        return Rate(own.rate or limits.principal_rate, own.rate_bytes or limits.principal_bytes)


def _shown(names: frozenset[str]) -> str:
    """A certificate's names, for our own log: of one that no entry has, it is what an operator needs to add one."""
    return ",".join(sorted(names))[:NAMES_CHARS]


def is_secure(shown: Mapping[str, Sequence[bytes]]) -> bool:
    """Whether a call's auth_context is that of TLS."""
    return any(kind in (b"ssl", b"tls") for kind in shown.get("transport_security_type", ()))


def peer_pem(shown: Mapping[str, Sequence[bytes]]) -> bytes:
    """The certificate, with its chain, in a call's auth_context; empty for none."""
    return b"".join(part for key in ("x509_pem_cert", "x509_pem_cert_chain") for part in shown.get(key, ()))
