"""Keys from the command line."""

import json
import stat
from pathlib import Path

import pytest

from replicad.cli.main import main
from replicad.client import Encryption
from replicad.keys import load_signer, parse_vkey


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    assert main(["keys", *arguments]) == code
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_generate_prints_the_public_line_and_nothing_else(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = run(capsys, "generate", "node-1")
    assert parse_vkey(out) == load_signer(here / "node-1.key", "node-1").verifier
    assert out.count("\n") == 1
    assert "private key: node-1.key" in err
    assert stat.S_IMODE((here / "node-1.key").stat().st_mode) == 0o600


def test_show_prints_the_line_that_generate_printed(capsys: pytest.CaptureFixture[str]) -> None:
    made, _ = run(capsys, "generate", "node-1")
    assert run(capsys, "show", "node-1") == (made, "")
    assert run(capsys, "show", "node-1.key") == (made, "")
    assert run(capsys, "show", "./node-1.key", "--node", "node-1") == (made, "")


def test_a_file_of_any_name_is_shown_under_the_name_that_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    made, _ = run(capsys, "generate", "node-1", "--out", "key")
    assert run(capsys, "show", "key", "--node", "node-1") == (made, "")
    assert "Give --node NAME" in run(capsys, "show", "key", code=2)[1]


def test_json_has_the_line_the_file_and_the_node(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = run(capsys, "generate", "node-1", "--output", "json")
    made = json.loads(out)
    assert (made["node"], made["key_file"], err) == ("node-1", "node-1.key", "")
    assert json.loads(run(capsys, "--output", "json", "show", "node-1")[0]) == made


def test_a_key_is_never_overwritten(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "generate", "node-1")
    before = (here / "node-1.key").read_bytes()
    assert "never overwritten" in run(capsys, "generate", "node-1", code=3)[1]
    assert (here / "node-1.key").read_bytes() == before


@pytest.mark.parametrize("name", ["Node 1", "", "../evil", "-"])
def test_a_name_that_no_node_can_have_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no node name" in run(capsys, "generate", "--", name, code=2)[1]
    assert "no node name" in run(capsys, "show", "x.key", "--node", name or "A", code=2)[1]


def test_a_key_that_is_not_there_comes_with_the_command_that_makes_it(capsys: pytest.CaptureFixture[str]) -> None:
    _, err = run(capsys, "show", "node-9", code=3)
    assert "node-9.key" in err
    assert "replicad-cli keys generate node-9" in err


def test_a_key_that_others_may_read_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "generate", "node-1")
    (here / "node-1.key").chmod(0o644)
    error = json.loads(run(capsys, "show", "node-1", "--output", "json", code=3)[1])
    assert error["name"] == "CONFIG"
    assert "chmod 600" in error["message"]


def test_a_file_that_is_no_key_is_an_error_that_shows_nothing_of_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "node-1.key").touch(mode=0o600)
    (here / "node-1.key").write_text("hunter2")
    _, err = run(capsys, "show", "node-1", code=3)
    assert "not a private key" in err
    assert "hunter2" not in err


def test_generate_fernet_prints_a_key_that_encrypts(capsys: pytest.CaptureFixture[str]) -> None:
    key, err = run(capsys, "generate-fernet")
    assert (repr(Encryption.from_keys([key.strip()])), err) == ("Encryption(1 key)", "")
    assert json.loads(run(capsys, "generate-fernet", "--output", "json")[0])["key"] != key.strip()


def test_generate_fernet_writes_a_new_file_for_its_owner_alone_and_does_not_print_the_key(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = run(capsys, "generate-fernet", "--out", "team.key")
    key = (here / "team.key").read_text().strip()
    assert (out, err) == ("key file: team.key\n", "")
    assert stat.S_IMODE((here / "team.key").stat().st_mode) == 0o600
    assert repr(Encryption.from_file(here / "team.key")) == "Encryption(1 key)"
    out, err = run(capsys, "generate-fernet", "--out", "team.key", code=3)
    assert ("never overwritten" in err, "first line" in err, out) == (True, True, "")
    assert (here / "team.key").read_text().strip() == key


@pytest.mark.parametrize("out", [".", "/", ".."])
@pytest.mark.parametrize("kind", [["generate", "n1"], ["generate-fernet"]])
def test_a_key_is_never_put_in_a_folders_place(kind: list[str], out: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", *kind, "--out", out]) == 3
    assert f"{out} exists and is never overwritten; give another path" in capsys.readouterr().err
