"""Who a caller over TLS is: by certificate, by token, by both, by neither; over real handshakes."""

from __future__ import annotations

from dataclasses import replace

import grpc
import pytest
from cryptography import x509
from grpc import aio

from replicad.access import Principal, Role, hash_of
from replicad.config import parse
from tests.support.gated_server import Issued, TestCa, gated_server
from tests.support.waiting import eventually
from tests.unit.test_config import sample

TOKEN, NODE_TOKEN = "a-token-of-a-reader", "a-token-of-a-node"
STATUS, REPLICATE = "/replicad.wire.v1.Log/Status", "/replicad.wire.v1.Replication/Replicate"
READER, NODE = frozenset({Role.READER}), frozenset({Role.NODE})
PRINCIPALS = (
    Principal("by-token", READER, hash=hash_of(TOKEN)),
    Principal("nodes", NODE, hash=hash_of(NODE_TOKEN)),
    Principal("by-certificate", READER, certificate="client.example"),
)
CONFIG = replace(parse(sample(), env={}), principals=PRINCIPALS, tokens_file="/tokens")


async def ask(address: str, ca: TestCa, shown: Issued | None, path: str, token: str = "") -> str:
    """Whom the server takes the caller for, or the status that it is refused with."""
    pair = (shown.key, shown.certificate) if shown else (None, None)
    credentials = grpc.ssl_channel_credentials(ca.pem, *pair)
    async with aio.secure_channel(address, credentials, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        unary: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
        try:
            metadata = (("authorization", f"Bearer {token}"),) if token else ()
            return (await unary(b"", metadata=metadata, timeout=20)).decode()
        except aio.AioRpcError as exc:
            return exc.code().name


@pytest.mark.parametrize(
    ("names", "path", "token", "expected"),
    [
        ([x509.DNSName("client.example")], STATUS, "", "by-certificate"),
        ([x509.DNSName("client.example")], REPLICATE, "", "PERMISSION_DENIED"),
        ([x509.DNSName("node-1")], REPLICATE, "", "node-1"),
        ([x509.DNSName("node-1")], STATUS, "", "PERMISSION_DENIED"),
        ([x509.DNSName("node-9")], REPLICATE, "", "UNAUTHENTICATED"),
        ([x509.DNSName("client.example"), x509.DNSName("node-1")], REPLICATE, "", "node-1"),
        # other kinds of names do not count, nor does the common name
        ([x509.UniformResourceIdentifier("node-1")], REPLICATE, "", "UNAUTHENTICATED"),
        ([x509.RFC822Name("node-1")], REPLICATE, "", "UNAUTHENTICATED"),
        # a token comes first, good or bad
        ([x509.DNSName("client.example")], STATUS, TOKEN, "by-token"),
        ([x509.DNSName("client.example")], STATUS, "wrong", "UNAUTHENTICATED"),
        ([x509.DNSName("unknown.example")], STATUS, TOKEN, "by-token"),
        # but for Replicate, which looks at the certificate alone
        ([x509.DNSName("node-1")], REPLICATE, TOKEN, "node-1"),
        ([x509.DNSName("node-1")], REPLICATE, "wrong", "node-1"),
        ([x509.DNSName("client.example")], REPLICATE, NODE_TOKEN, "PERMISSION_DENIED"),
    ],
)
async def test_who_a_caller_with_a_certificate_is(
    names: list[x509.GeneralName], path: str, token: str, expected: str
) -> None:
    ca = TestCa()
    async with gated_server(CONFIG, ca, mutual=True) as address:
        assert await ask(address, ca, ca.issue(names, common_name="node-1"), path, token) == expected


async def test_the_log_names_a_certificate_that_nobody_knows(caplog: pytest.LogCaptureFixture) -> None:
    ca = TestCa()
    async with gated_server(CONFIG, ca, mutual=True) as address:
        shown = ca.issue([x509.DNSName("unknown.example")])
        for path in (STATUS, REPLICATE):
            assert await ask(address, ca, shown, path) == "UNAUTHENTICATED"
    told = [record for record in caplog.records if "unauthorized" in str(vars(record))]
    assert len(told) == 2
    assert all("unknown.example" in str(vars(record)) for record in told)


async def test_over_tls_without_a_certificate_a_token_serves_clients_and_no_node() -> None:
    ca = TestCa()
    async with gated_server(CONFIG, ca, mutual=False) as address:
        assert await ask(address, ca, None, STATUS, TOKEN) == "by-token"
        assert await ask(address, ca, None, STATUS) == "UNAUTHENTICATED"
        assert await ask(address, ca, None, REPLICATE, NODE_TOKEN) == "UNAUTHENTICATED"


async def test_a_node_is_let_in_while_others_fail_at_its_address() -> None:
    """Else whoever shares the master's address could keep it from its workers."""
    ca = TestCa()
    limits, timeouts = replace(CONFIG.limits, auth_failures=1), replace(CONFIG.timeouts, auth_delay_s=30.0)
    client, node = ca.issue([x509.DNSName("client.example")]), ca.issue([x509.DNSName("node-1")])
    async with gated_server(replace(CONFIG, limits=limits, timeouts=timeouts), ca, mutual=True) as address:
        credentials = grpc.ssl_channel_credentials(ca.pem, client.key, client.certificate)
        async with aio.secure_channel(address, credentials) as channel:
            status: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(STATUS)
            guesses = [
                status(b"", metadata=(("authorization", "Bearer guess"),))
                for _ in range(CONFIG.limits.auth_waiting + 20)
            ]

            async def full() -> bool:
                return await ask(address, ca, client, STATUS) == "RESOURCE_EXHAUSTED"

            await eventually(full, within_s=20, what="no place is left for one that fails")
            assert await ask(address, ca, node, REPLICATE) == "node-1"
            assert await ask(address, ca, ca.issue([x509.DNSName("node-9")]), REPLICATE) == "RESOURCE_EXHAUSTED"
            for guess in guesses:
                guess.cancel()


async def test_over_tls_nobody_is_anonymous_though_nobody_has_a_token() -> None:
    ca = TestCa()
    bare = replace(CONFIG, principals=(), tokens_file="")
    async with gated_server(bare, ca, mutual=False) as address:
        assert await ask(address, ca, None, STATUS) == "UNAUTHENTICATED"
        assert await ask(address, ca, None, STATUS, TOKEN) == "UNAUTHENTICATED"
