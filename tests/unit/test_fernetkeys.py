"""Fernet key files and variables: what is taken, and that a refusal names the place and the remedy, never the key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from replicad import fernetkeys
from replicad.errors import KeyFileError

NEW, OLD = ("bmV3LW5ldy1uZXctbmV3LW5ldy1uZXctbmV3LW5ldy0=", "b2xkLW9sZC1vbGQtb2xkLW9sZC1vbGQtb2xkLW9sZC0=")
BAD = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3J="  # as long as a key, but no 32 bytes


def key_file(folder: Path, content: str, *, mode: int = 0o600) -> Path:
    path = folder / "fernet.key"
    path.write_text(content)
    path.chmod(mode)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(KeyFileError) as caught:
        fernetkeys.from_file(path)
    assert caught.value.__cause__ is None or isinstance(caught.value.__cause__, OSError)
    return str(caught.value)


def test_a_key_file_has_a_key_a_line_with_comments_and_blank_lines(tmp_path: Path) -> None:
    path = key_file(tmp_path, f"# the team's\n{NEW}  # since May\n\n  {OLD}\r\n{NEW}\n")
    assert fernetkeys.from_file(path) == (NEW, OLD)


def test_what_generate_makes_is_a_key_for_cryptography_and_for_us(tmp_path: Path) -> None:
    key = fernetkeys.generate()
    Fernet(key)
    fernetkeys.write_new_file(tmp_path / "new.key", key)
    assert fernetkeys.from_file(tmp_path / "new.key") == (key,)


def test_a_malformed_key_is_told_by_its_line_with_the_command_that_makes_one_and_not_shown(tmp_path: Path) -> None:
    text = refusal(key_file(tmp_path, f"# one\n{NEW}\n{BAD}\n"))
    assert "fernet.key: line 3 is not a Fernet key" in text
    assert "replicad-cli keys generate-fernet" in text
    assert BAD[:8] not in text
    assert NEW[:8] not in text


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_file_that_others_have_rights_to_is_refused(tmp_path: Path, mode: int) -> None:
    text = refusal(key_file(tmp_path, NEW, mode=mode))
    assert f"mode {mode:04o}" in text
    assert f"chmod 600 {tmp_path / 'fernet.key'}" in text


def test_what_is_no_key_file_is_refused_with_the_remedy(tmp_path: Path) -> None:
    assert f"generate-fernet --out {tmp_path / 'none'}" in refusal(tmp_path / "none")
    assert "not a regular file" in refusal(tmp_path)
    assert "holds no key" in refusal(key_file(tmp_path, "# nothing\n\n"))
    assert "16384 bytes or more" in refusal(key_file(tmp_path, "#" * 20_000))
    many = "\n".join(fernetkeys.generate() for _ in range(65))
    assert "65 Fernet keys, at most 64" in refusal(key_file(tmp_path, many))
    os.mkfifo(tmp_path / "fifo")
    assert "not a regular file" in refusal(tmp_path / "fifo")


def test_the_variable_may_hold_several_keys(tmp_path: Path) -> None:
    assert fernetkeys.from_environment({}) == ()
    assert fernetkeys.from_environment({"FERNET_KEY": NEW}) == (NEW,)
    assert fernetkeys.from_environment({"FERNET_KEY": f"{NEW}, {OLD}"}) == (NEW, OLD)
    path = key_file(tmp_path, OLD)
    assert fernetkeys.from_environment({"REPLICAD_FERNET_KEY_FILE": str(path)}) == (OLD,)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (BAD, "FERNET_KEY is not a Fernet key"),
        (f"{NEW},{BAD}", "FERNET_KEY: key 2 of 2 is not"),
        (f"{NEW},", "FERNET_KEY: key 2 of 2 is not"),
        (NEW.rstrip("="), "FERNET_KEY is not"),
    ],
)
def test_a_malformed_variable_is_told_by_the_keys_place_and_not_shown(value: str, words: str) -> None:
    with pytest.raises(KeyFileError, match=words) as caught:
        fernetkeys.from_environment({"FERNET_KEY": value})
    assert "generate-fernet" in str(caught.value)
    assert not any(part and part[:8] in str(caught.value) for part in value.split(","))


def test_both_variables_at_once_are_refused() -> None:
    with pytest.raises(KeyFileError, match="both set"):
        fernetkeys.from_environment({"FERNET_KEY": NEW, "REPLICAD_FERNET_KEY_FILE": "/x"})
