"""The key files of a rotation: a step does its work once however often it is asked, wherever an earlier one ended."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from replicad import keys, rotation
from replicad.errors import KeyFileError
from replicad.keys import generate, load_signer
from replicad.rotation import KeyFiles


@pytest.fixture
def files(tmp_path: Path) -> KeyFiles:
    generate("node-1", tmp_path / "node.key")
    return KeyFiles("node-1", tmp_path / "node.key")


def names(files: KeyFiles) -> list[str]:
    return sorted(path.name for path in files.path.parent.iterdir())


def test_prepare_makes_a_key_once_for_its_owner_alone_and_touches_nothing_else(files: KeyFiles) -> None:
    before = files.path.read_bytes()
    first, second = files.prepare(), files.prepare()
    assert first.verifier == second.verifier != files.current().verifier
    assert files.path.read_bytes() == before
    assert stat.S_IMODE(files.next_path.stat().st_mode) == 0o600
    following = files.following()
    assert following is not None
    assert following.verifier == first.verifier
    assert names(files) == ["node.key", "node.key.next"]


def test_activate_puts_the_next_key_in_place_and_keeps_the_old_one_under_its_id(files: KeyFiles) -> None:
    old, new = files.current(), files.prepare()
    files.activate()
    assert files.current().verifier == new.verifier
    assert files.following() is None
    [(key_id, path)] = files.old().items()
    assert (key_id, files.old_signer(path).verifier) == (old.key_id, old.verifier)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    files.remove(path)
    files.remove(path)
    assert names(files) == ["node.key"]


@pytest.mark.parametrize("call", ["link", "replace", "sync"])
def test_an_activation_that_ends_half_way_leaves_a_key_to_sign_with_and_is_done_by_the_next(
    files: KeyFiles, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a kill or a power loss at that call would have it."""
    old, new = files.current(), files.prepare()

    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        owner, name = {
            "link": (os, "link"),
            "replace": (Path, "replace"),
            "sync": (rotation, "sync_folder"),
        }[call]
        patch.setattr(owner, name, die)
        with pytest.raises(Killed):
            files.activate()
    assert files.current().verifier in (old.verifier, new.verifier)
    assert files.old() == {}
    assert files.prepare().verifier == new.verifier

    files.activate()
    assert files.current().verifier == new.verifier
    assert list(files.old()) == [old.key_id]
    assert files.following() is None


def test_a_file_under_the_old_keys_name_that_is_another_key_is_not_overwritten(files: KeyFiles) -> None:
    files.prepare()
    other = files.path.with_name(f"node.key.old-{files.current().key_id}")
    generate("node-1", other)
    with pytest.raises(KeyFileError, match="holds another key than its name says"):
        files.activate()
    assert files.following() is not None


def test_a_key_that_another_run_makes_at_the_same_moment_is_the_one_that_counts(
    files: KeyFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def beaten(name: str, path: Path, **_: object) -> str:
        generate(name, path)
        raise KeyFileError(f"{path} exists")

    monkeypatch.setattr(rotation, "generate", beaten)
    assert files.prepare().verifier == load_signer(files.next_path, "node-1").verifier


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_key_that_root_prepares_belongs_to_the_owner_of_the_one_in_use(files: KeyFiles) -> None:
    os.chown(files.path, 1234, 4321)
    files.prepare()
    status = files.next_path.stat()
    assert (status.st_uid, status.st_gid) == (1234, 4321)


def test_a_key_that_is_missing_is_told_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="keys generate"):
        KeyFiles("node-1", tmp_path / "node.key").prepare()
    assert list(tmp_path.iterdir()) == []


def test_a_reload_takes_a_key_that_may_sign_and_goes_on_with_its_own_otherwise(files: KeyFiles) -> None:
    old, new = files.current(), files.prepare()
    lines = [new.verifier.line, old.verifier.line]
    files.activate()
    taken, fault = keys.read_again(old, files.path, lines)
    assert (taken.verifier, fault) == (new.verifier, None)

    kept, fault = keys.read_again(old, files.path, lines[1:])
    assert kept is old
    assert fault is not None
    assert new.verifier.line in str(fault)

    files.path.unlink()
    kept, fault = keys.read_again(old, files.path, lines)
    assert kept is old
    assert "no such key file" in str(fault)
    with pytest.raises(KeyFileError, match="no such key file"):
        keys.read_again(old, files.path, lines[:1])
