"""A CA and certificates from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from replicad.cli.main import main


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    assert main(["pki", *arguments]) == code
    captured = capsys.readouterr()
    return captured.out, captured.err


def objects(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    out, err = run(capsys, *arguments, "--output", "json")
    assert err == ""
    return [json.loads(line) for line in out.splitlines()]


def test_the_way_from_nothing_to_a_new_ca(capsys: pytest.CaptureFixture[str]) -> None:
    (ca,) = objects(capsys, "init", "--name", "Example CA")
    assert (ca["kind"], ca["made"], ca["usages"], ca["current"]) == ("ca", True, ["issue"], True)
    (node,) = objects(capsys, "issue", "node", "node-1", "--host", "192.0.2.1", "--host", "log.example.org")
    assert (node["names"], node["usages"]) == (["node-1", "192.0.2.1", "log.example.org"], ["server", "client"])
    (client,) = objects(capsys, "issue", "client", "billing", "--days", "90")
    assert (client["names"], client["usages"], client["issuer"]) == (["billing"], ["client"], ca["subject"])
    assert client["expires_ms"] < node["expires_ms"] < ca["expires_ms"]

    objects(capsys, "renew", "ca")
    assert "of an old CA are still billing, node-1" in run(capsys, "renew", "ca", "--drop-old", code=3)[1]
    assert {each["name"] for each in objects(capsys, "renew")} == {"billing", "node-1"}
    (new,) = objects(capsys, "renew", "ca", "--drop-old")
    assert new["subject"] != ca["subject"]
    assert {each["current"] for each in objects(capsys, "show")} == {True}


def test_a_second_time_nothing_is_made_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (("init",), ("issue", "node", "n", "--host", "h"), ("issue", "client", "c")):
        assert objects(capsys, *arguments)[0]["made"] is True
        assert objects(capsys, *arguments)[0]["made"] is False
        assert "it is there already, and stays as it is" in run(capsys, *arguments)[1]


def test_show_is_a_table_with_all_that_matters(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "init")
    run(capsys, "issue", "node", "n", "--host", "192.0.2.1")
    run(capsys, "renew", "ca")
    title, *rows = run(capsys, "show")[0].splitlines()
    assert title.split() == ["NAME", "KIND", "SUBJECT", "NAMES", "USE", "ENDS", "ISSUED", "BY", "FILE"]
    assert ["ca (old)" in row for row in rows] == [False, True, False]
    assert "node (old)" in rows[2]
    assert "n,192.0.2.1" in rows[2]
    assert "server+client" in rows[2]


def test_only_what_ends_soon_is_renewed_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "init")
    run(capsys, "issue", "client", "soon", "--days", "10")
    run(capsys, "issue", "client", "late", "--days", "100")
    assert [each["name"] for each in objects(capsys, "renew", "--within", "30")] == ["soon"]
    assert objects(capsys, "renew", "--within", "30") == []
    assert run(capsys, "renew", "--within", "30") == ("", "nothing is to be renewed: none ends within 30 days\n")
    assert [each["name"] for each in objects(capsys, "renew", "late")] == ["late"]


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("show",), 3, "holds no CA; make one: replicad-cli pki init --dir pki"),
        (("issue", "node", "n"), 2, "--host"),
        (("init", "--days", "0"), 2, "--days"),
        (("init", "--days", "36501"), 2, "'36501' is not a number of days; write a number from 1 to 36500"),
        (("renew", "--days", "36501"), 2, "write a number from 1 to 36500"),
        (("init", "--name", ""), 2, "is no name for a CA"),
        (("issue", "client", "../x"), 2, "is no name for a node or client"),
        (("issue", "node", "n", "--host", "bad host"), 2, "neither a host name nor an IP address"),
        (("renew", "ca", "n"), 2, "stands alone"),
        (("renew", "--drop-old"), 2, "--drop-old goes with the name ca"),
        (("renew", "nobody"), 3, "nobody.crt is not there"),
    ],
)
def test_what_can_not_be_is_told_with_the_remedy(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, complaint: str
) -> None:
    if arguments[0] in ("renew", "issue"):
        run(capsys, "init")
    assert complaint in run(capsys, *arguments, code=code)[1]
