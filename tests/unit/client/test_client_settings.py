"""Arguments and environment."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from replicad.client import AsyncClient, Client
from replicad.client.settings import checked_concern, make_settings
from replicad.client.tls import TlsFiles
from replicad.errors import BadRequest
from tests.support.scripted_server import ScriptedServer, soon


def settings(addresses: str | list[str] | None = None, **env: str) -> tuple[tuple[str, ...], str]:
    made = make_settings(addresses, token=None, timeout_s=1, write_concern=None, env=env)
    return made.addresses, made.token


def test_addresses_come_from_the_argument_else_the_environment_else_the_default() -> None:
    assert settings("a:1, b:2,a:1", REPLICAD_ADDRESS="c:3") == (("a:1", "b:2"), "")
    assert settings(["a:1", "b:2"]) == (("a:1", "b:2"), "")
    assert settings(REPLICAD_ADDRESS="[::1]:3,localhost:4", AUTH_TOKEN="t") == (("[::1]:3", "localhost:4"), "t")
    assert settings(REPLICAD_ADDRESS="") == (("127.0.0.1:50052",), "")


def test_an_argument_overrides_the_token_of_the_environment_also_when_it_is_empty() -> None:
    made = make_settings("a:1", token="", timeout_s=1, write_concern=2, env={"AUTH_TOKEN": "t"})
    assert (made.token, made.write_concern) == ("", "2")


def test_the_token_is_not_shown() -> None:
    made = make_settings("127.0.0.1:1", token="secret", timeout_s=1, write_concern=None)
    assert "secret" not in repr(made)


def test_a_token_goes_to_another_machine_only_with_tls() -> None:
    for address in ("a:1", "127.0.0.1:1,10.0.0.1:2", "[2001:db8::1]:3"):
        with pytest.raises(ValueError, match=r"unencrypted.*--ca, REPLICAD_CA") as caught:
            settings(address, AUTH_TOKEN="secret")
        assert "secret" not in str(caught.value)
    assert settings("a:1", AUTH_TOKEN="t", REPLICAD_CA="ca.crt") == (("a:1",), "t")


@pytest.mark.parametrize("token", ["secret\n", "se cret", "secr\xe9t", "\tsecret", "secret\x7f", b"secret", 7])
def test_a_token_that_no_call_can_carry_is_refused_and_not_shown(token: Any) -> None:
    for kind in (AsyncClient, Client):
        with pytest.raises(ValueError, match=r"^token (holds|is).*give") as caught:
            kind("127.0.0.1:1", token=token)
        assert "secr" not in str(caught.value)
    if isinstance(token, str):
        with pytest.raises(ValueError, match="AUTH_TOKEN"):
            settings(AUTH_TOKEN=token)


def test_a_tls_file_is_named_by_its_path() -> None:
    made = make_settings("a:1", token="", timeout_s=1, write_concern=None, ca=Path("a/ca.crt"), env={})
    assert made.tls == TlsFiles("a/ca.crt")
    odd: Any = 7
    for name in ("ca", "certificate", "key"):
        with pytest.raises(ValueError, match=f"^{name} is int; give the path of a PEM file"):
            make_settings("a:1", token="", timeout_s=1, write_concern=None, env={}, **{name: odd})


def test_tls_files_come_from_arguments_else_the_environment() -> None:
    env = {"REPLICAD_CA": "e-ca", "REPLICAD_CERTIFICATE": "e-crt", "REPLICAD_KEY": "e-key"}
    made = make_settings("a:1", token="", timeout_s=1, write_concern=None, ca="ca", env=env)
    assert made.tls == TlsFiles("ca", "e-crt", "e-key")
    made = make_settings("a:1", token="", timeout_s=1, write_concern=None, ca="", certificate="", key="", env=env)
    assert made.tls is None


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ({"ca": "a", "certificate": "b"}, "REPLICAD_KEY"),
        ({"ca": "a", "key": "b"}, "REPLICAD_CERTIFICATE"),
        ({"certificate": "a", "key": "b"}, "REPLICAD_CA"),
    ],
)
def test_tls_files_that_need_another_are_refused_with_its_name(files: dict[str, str], missing: str) -> None:
    with pytest.raises(ValueError, match=missing):
        make_settings("a:1", token=None, timeout_s=1, write_concern=None, env={}, **files)


@pytest.mark.parametrize(
    "addresses",
    ["", ",", "host", "host:", ":1", "host:port", "127.0.0.1:99999", "a:0", "a:²", "::1:5", "a b:1", [], [7], 7],
)
def test_what_is_no_address_is_refused(addresses: Any) -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT"):
        make_settings(addresses, token=None, timeout_s=1, write_concern=None, env={})


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf"), 10**400])
def test_a_timeout_is_a_positive_number(timeout_s: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        make_settings("a:1", token=None, timeout_s=timeout_s, write_concern=None)


@pytest.mark.parametrize("timeout_s", [9.2e9, 1e306, sys.float_info.max])
async def test_a_timeout_that_is_as_good_as_none_is_taken(timeout_s: float) -> None:
    async with ScriptedServer() as server, AsyncClient(server.address, token="", timeout_s=timeout_s) as client:
        server.on_frame = lambda call, frame: call.accept(frame)
        assert (await soon(client.status())).size == 0
        assert (await soon(client.post("x", timeout_s=timeout_s))).offset == 0


def test_write_concerns_are_numbers_majority_and_all() -> None:
    assert [checked_concern(each) for each in (None, 1, "3", "majority", "all")] == ["", "1", "3", "majority", "all"]
    for wrong in (0, -1, "most", "1.5", "²", "\ud800"):
        with pytest.raises(BadRequest):
            checked_concern(wrong)
