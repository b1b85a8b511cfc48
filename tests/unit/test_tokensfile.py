"""The tokens file: its rights, and edits that keep what people wrote."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from replicad import tokensfile
from replicad.access import Principal, Role, hash_of
from replicad.configkeys import keys_of
from replicad.errors import ConfigError, OperatorError


def principal(name: str, number: int = 0, **more: object) -> Principal:
    return Principal(name, frozenset({Role.WRITER, Role.READER}), hash=hash_of(f"{name}{number}"), **more)  # type: ignore[arg-type]


def test_what_is_added_is_what_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "tokens.yaml"
    entries = [principal("a", expires_at=2_000_000_000.0), principal("b", rate=5, rate_bytes=1000), principal("a", 1)]
    for each in entries:
        tokensfile.add(path, each)
    assert tokensfile.load(path) == tuple(entries)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_comments_order_and_mode_stay_through_adding_and_removing(tmp_path: Path) -> None:
    path = tmp_path / "tokens.yaml"
    text = "# ours\nprincipals:\n- name: old  # the first\n  roles: [writer]\n  hash: %s\n# below\n" % hash_of("o")  # noqa: UP031
    path.write_text(text)
    path.chmod(0o600)
    tokensfile.add(path, principal("new"))
    assert path.read_text().startswith(text.rstrip())
    assert tokensfile.remove(path, "old") == 1
    assert path.read_text().startswith("# ours\nprincipals:\n# below\n- name: new\n")
    assert tokensfile.remove(path, "new") == 1
    assert tokensfile.load(path) == ()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    tokensfile.add(path, principal("again"))
    assert [each.name for each in tokensfile.load(path)] == ["again"]


def test_a_link_stays_one_and_what_it_points_to_is_changed(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    path, target = tmp_path / "tokens.yaml", tmp_path / "shared" / "tokens.yaml"
    tokensfile.add(target, principal("a"))
    path.symlink_to(target)
    tokensfile.add(path, principal("b"))
    assert path.is_symlink()
    assert [each.name for each in tokensfile.load(target)] == ["a", "b"]


def test_comments_stay_whatever_the_locale(tmp_path: Path) -> None:
    path = tmp_path / "tokens.yaml"
    path.write_text("# für alle\nprincipals: []\n", encoding="utf-8")
    path.chmod(0o600)
    tokensfile.add(path, principal("a"))
    code = "import pathlib, sys; from replicad import tokensfile; tokensfile.remove(pathlib.Path(sys.argv[1]), 'a')"
    env = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    subprocess.run([sys.executable, "-c", code, str(path)], env=env, check=True)
    assert path.read_text(encoding="utf-8").startswith("# für alle\nprincipals: []\n")


def test_a_file_in_another_form_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "tokens.yaml"
    path.write_text(f'principals: [{{name: a, roles: [node], hash: "{hash_of("a")}"}}]\n')
    path.chmod(0o600)
    tokensfile.add(path, principal("b"))
    assert [each.name for each in tokensfile.load(path)] == ["a", "b"]


def test_removing_may_keep_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "tokens.yaml"
    for number in range(3):
        tokensfile.add(path, principal("a", number))
    assert tokensfile.remove(path, "a", keep_newest=True) == 2
    assert tokensfile.load(path) == (principal("a", 2),)
    assert tokensfile.remove(path, "nobody") == 0


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604, 0o602, 0o777])
def test_a_file_that_others_read_or_the_group_writes_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "tokens.yaml"
    tokensfile.add(path, principal("a"))
    path.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 640"):
        tokensfile.load(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens.yaml"
    tokensfile.add(path, principal("a"))
    os.chown(path, 12345, -1)
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        tokensfile.load(path)


def test_a_fault_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "tokens.yaml"
    path.write_text("principals:\n  - name: a\n    roles: [boss]\n    hash: x\n")
    path.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        tokensfile.load(path)
    assert [line.split(": ")[0] for line in caught.value.faults] == [f"{path}:3", f"{path}:4"]


@pytest.mark.parametrize("what", ["missing", "folder", "fifo"])
def test_what_is_no_file_is_told_with_the_remedy(tmp_path: Path, what: str) -> None:
    path = tmp_path / "tokens.yaml"
    if what == "folder":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    with pytest.raises(ConfigError):
        tokensfile.load(path)


def test_a_missing_folder_is_told_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "tokens.yaml"
    with pytest.raises(OperatorError, match=f"^{path}: its folder does not exist; make it: mkdir -p {path.parent}$"):
        tokensfile.add(path, Principal("shop", frozenset({Role.WRITER}), hash=hash_of("x")))


def test_two_who_change_it_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tokens.yaml"

    def add(name: str) -> None:
        for number in range(10):
            tokensfile.add(path, principal(name, number))

    threads = [threading.Thread(target=add, args=(name,)) for name in "abc"]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(tokensfile.load(path)) == 30


def test_the_example_is_good_and_shows_every_key(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "packaging" / "examples" / "tokens.yaml").read_text()
    path = tmp_path / "tokens.yaml"
    path.write_text(text)
    path.chmod(0o640)
    assert [each.name for each in tokensfile.load(path)] == ["shop", "audit"]
    for key in keys_of(Principal):
        assert f"\n    {key.name}: " in text or f"- {key.name}: " in text, key.name
