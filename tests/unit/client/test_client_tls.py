"""The client's TLS files: read again when they have changed, and only as a whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from replicad.client import AsyncClient, tls
from replicad.client.connection import Connection, Connections
from replicad.client.tls import ClientTls, TlsFiles
from replicad.errors import ConfigError
from tests.support.certificates import Shown, client_of, new_ca


@pytest.fixture
def shown(tmp_path: Path) -> Shown:
    return client_of(new_ca(tmp_path / "pki"), "billing")


@pytest.fixture
def files(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> TlsFiles:
    monkeypatch.setattr(tls, "LOOK_AGAIN_S", 0.0)
    return TlsFiles(str(shown.ca), str(shown.certificate), str(shown.key))


def test_files_as_they_were_are_not_renewed_and_a_whole_change_is_once(files: TlsFiles, tmp_path: Path) -> None:
    mine = ClientTls(files)
    assert not mine.renewed()
    before = mine.credentials
    client_of(new_ca(tmp_path / "pki"), "billing")
    assert mine.renewed()
    assert mine.credentials is not before
    assert not mine.renewed()


def test_half_a_change_is_not_taken_until_the_rest_is_there(files: TlsFiles) -> None:
    mine = ClientTls(files)
    before, key = mine.credentials, Path(files.key).read_bytes()
    Path(files.key).write_bytes(key[:50])
    assert not mine.renewed()
    Path(files.key).unlink()
    assert not mine.renewed()
    assert mine.credentials is before
    Path(files.key).write_bytes(key)
    Path(files.key).chmod(0o600)
    assert mine.renewed()


def test_the_files_are_not_looked_at_for_every_call(files: TlsFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "LOOK_AGAIN_S", 60.0)
    mine = ClientTls(files)
    Path(files.ca).touch()
    assert not mine.renewed()


async def test_a_change_makes_new_connections_and_those_from_before_go_on_for_one_more(files: TlsFiles) -> None:
    connections = Connections("", ClientTls(files))
    first = connections.to("127.0.0.1:1")
    assert connections.to("127.0.0.1:1") is first
    os.utime(files.ca)
    second = connections.to("127.0.0.1:1")
    assert second is not first
    assert connections._before == [first]
    os.utime(files.ca)
    assert connections.to("127.0.0.1:1") is not second
    assert connections._before == [second]
    await connections.close()


async def test_files_that_can_not_be_used_are_told_when_the_client_is_made(shown: Shown) -> None:
    with pytest.raises(ConfigError, match=r"^ca: /none: no such file; ask whoever runs the nodes"):
        AsyncClient("127.0.0.1:1", ca="/none")
    assert shown.key
    shown.key.chmod(0o644)
    with pytest.raises(ConfigError, match=r"^key: .*group or others have rights to it"):
        AsyncClient("127.0.0.1:1", ca=str(shown.ca), certificate=str(shown.certificate), key=str(shown.key))


async def test_an_address_that_a_node_has_named_gets_no_token_in_the_clear(files: TlsFiles) -> None:
    sent = [("authorization", "Bearer t")]
    for address, tls_of_it, expected in (
        ("127.0.0.1:1", None, sent),
        ("192.0.2.1:1", None, []),
        ("192.0.2.1:1", ClientTls(files), sent),
    ):
        connection = Connection(address, "t", tls_of_it)
        assert list(connection._metadata) == expected
        await connection.close()
