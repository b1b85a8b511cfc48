"""`replicad-cli verify` on real folders: good ones, tampered ones, and those that are none."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from replicad.configfile import load as load_config
from replicad.dev import DevCluster
from replicad.keys import generate
from tests.support.commandline import CommandLine
from tests.support.nodes import running_cluster

LINES = 1000


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    """A cluster whose log has a few batches, all of its nodes stopped."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        cli = CommandLine.of(cluster)
        for run in range(3):
            cli.good("post", "-w", "all", "--lines", stdin=b"".join(b"%d %d\n" % (run, n) for n in range(LINES)))
        cluster.stop()
        yield cluster


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    return CommandLine({}, cwd=tmp_path)


@pytest.fixture
def copy(stopped: DevCluster, tmp_path: Path) -> Path:
    """A copy of a worker's data folder, to be tampered with."""
    return Path(shutil.copytree(stopped.nodes[1].data_dir, tmp_path / "copy"))


def change(folder: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(folder / "log.db")) as database, database:
        assert database.execute(statement, values).rowcount == 1


def keys_of(cluster: DevCluster) -> list[str]:
    nodes = load_config(cluster.nodes[0].config_file, env={}).nodes
    return [word for node in nodes for word in ("--key", node.public_key)]


def test_a_good_folder_proves_by_the_config_alone(cli: CommandLine, stopped: DevCluster) -> None:
    for node in stopped.nodes:
        [told] = cli.objects("verify", "--config", str(node.config_file))
        assert (told["ok"], told["node"], told["cluster"]) == (True, node.name, "dev")
        assert told["commit_size"] <= told["records"] == 3 * LINES + 1
        assert told["bad_offset"] is None


def test_a_copy_proves_by_public_keys_alone(cli: CommandLine, stopped: DevCluster, copy: Path) -> None:
    out = cli.good("verify", str(copy), "--cluster", "dev", *keys_of(stopped)).out
    assert out.startswith(f"good: node node-2 of cluster dev: {3 * LINES + 1} records in ")


def flip_a_payload(folder: Path) -> int:
    """One bit of one payload; gives the record's offset."""
    with closing(sqlite3.connect(folder / "log.db")) as database, database:
        for first, body in database.execute("SELECT first_offset, body FROM batches"):
            at = body.find(b"1 500")
            if at >= 0:
                changed = body[:at] + b"2" + body[at + 1 :]
                database.execute("UPDATE batches SET body = ? WHERE first_offset = ?", (changed, first))
    return 1 + LINES + 500


def flip_a_signature(folder: Path) -> int:
    """One bit of the last batch's signature; gives the batch's first offset."""
    with closing(sqlite3.connect(folder / "log.db")) as database:
        first, signature = database.execute("SELECT max(first_offset), signature FROM batches").fetchone()
    changed = bytes([signature[0] ^ 1]) + signature[1:]
    change(folder, "UPDATE batches SET signature = ? WHERE first_offset = ?", changed, first)
    return int(first)


def drop_the_first_batch(folder: Path) -> int:
    change(folder, "DELETE FROM batches WHERE first_offset = 0")
    return 0


@pytest.mark.parametrize("tamper", [flip_a_payload, flip_a_signature, drop_the_first_batch])
def test_the_first_bad_offset_is_named(
    cli: CommandLine, stopped: DevCluster, copy: Path, tamper: Callable[[Path], int]
) -> None:
    offset = tamper(copy)
    ran = cli.run("verify", str(copy), "--config", str(stopped.nodes[0].config_file), "--output", "json")
    assert ran.code == 10
    [told] = ran.objects
    assert (told["ok"], told["bad_offset"]) == (False, offset)
    assert (ran.error["name"], ran.error["offset"]) == ("VERIFY_FAILED", offset)

    text = cli.run("verify", str(copy), "--config", str(stopped.nodes[0].config_file))
    assert text.code == 10
    assert text.out.startswith("BAD: ")
    assert f"offset {offset} is the first that is bad" in text.err


def test_another_key_than_the_masters_proves_nothing(cli: CommandLine, copy: Path, tmp_path: Path) -> None:
    line = generate("node-1", tmp_path / "other.key")
    ran = cli.run("verify", str(copy), "--cluster", "dev", "--key", line, "--output", "json")
    assert ran.code == 10
    assert ran.objects[0]["bad_offset"] == 0


def test_a_folder_of_another_cluster_is_refused(cli: CommandLine, stopped: DevCluster, copy: Path) -> None:
    error = cli.fails(3, "verify", str(copy), "--cluster", "prod", *keys_of(stopped))
    assert error["name"] == "CONFIG"
    assert "'dev'" in error["message"]


def test_what_is_no_folder_of_a_log_is_refused(cli: CommandLine, stopped: DevCluster, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        assert "holds no log" in cli.fails(3, "verify", str(folder), "--cluster", "dev", *keys_of(stopped))["message"]


def test_a_folder_whose_log_is_no_database_does_not_prove(cli: CommandLine, stopped: DevCluster, copy: Path) -> None:
    (copy / "log.db").write_bytes(b"garbage " * 1000)
    error = cli.fails(10, "verify", str(copy), "--cluster", "dev", *keys_of(stopped))
    assert (error["name"], "`replicad-cli rebuild`" in error["remedy"]) == ("VERIFY_FAILED", True)


def test_a_file_that_is_no_backup_is_told_from_one_that_was_cut_off(
    cli: CommandLine, stopped: DevCluster, tmp_path: Path
) -> None:
    config = ("--config", str(stopped.nodes[1].config_file))
    file = tmp_path / "one.backup"
    cli.good("backup", *config, "--out", str(file))
    whole = file.read_bytes()
    file.write_bytes(whole[:50_000])
    error = cli.fails(10, "verify", str(file), *config)
    assert "is damaged or was cut off" in error["message"]
    assert error["remedy"].startswith("take another copy of the backup")
    file.write_bytes(whole.replace(b"1 500", b"2 500"))
    ran = cli.run("verify", str(file), *config, "--output", "json")
    assert (ran.code, ran.objects[0]["bad_offset"]) == (10, 1 + LINES + 500)
    assert ran.error["remedy"].startswith("take another copy of the backup")
    for content in (b"\x89PNG and so on", b""):
        file.write_bytes(content)
        assert "is not a backup of replicad" in cli.fails(3, "verify", str(file), *config)["message"]


@pytest.mark.parametrize("key", ["", "node-1+deadbeef+AAAA", "PRIVATE+KEY+node-1+deadbeef+AAAA"])
def test_a_key_that_is_none_is_named_and_not_shown(cli: CommandLine, copy: Path, key: str) -> None:
    error = cli.fails(2, "verify", str(copy), "--cluster", "dev", "--key", key)
    assert "--key number 1" in error["message"]
    assert not key or key not in error["message"]


def test_several_keys_of_a_node_are_taken_each_believed_as_far_as_it_says(
    cli: CommandLine, stopped: DevCluster, copy: Path, tmp_path: Path
) -> None:
    newer, size = generate("node-1", tmp_path / "newer.key"), 3 * LINES + 1
    master, *others = [line for line in keys_of(stopped) if line != "--key"]
    keys = [word for line in (newer, *others) for word in ("--key", line)]
    for until in ("", f"@{size}", f"@{size + 5}"):
        out = cli.good("verify", str(copy), "--cluster", "dev", *keys, "--key", master + until).out
        assert out.startswith("good: ")
    for end in (0, 1, size - 1):
        ran = cli.run("verify", str(copy), "--cluster", "dev", *keys, "--key", f"{master}@{end}", "--output", "json")
        assert (ran.code, ran.objects[0]["ok"]) == (10, False)
        assert ran.objects[0]["reason"].startswith("revoked: ")
        assert ran.objects[0]["bad_offset"] <= end
    error = cli.fails(2, "verify", str(copy), "--cluster", "dev", *keys, "--key", f"{newer}@5")
    assert "--key number 4: that key of node-1 is given already, with another @" in error["message"]
    for wrong in ("", "-1", "ten", "1e3"):
        error = cli.fails(2, "verify", str(copy), "--cluster", "dev", "--key", f"{master}@{wrong}")
        assert "--key number 1: what stands behind @ is " in error["message"]


def test_a_config_that_is_wrong_is_told_with_its_lines(cli: CommandLine, copy: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("cluster: c\nrole: boss\n")
    error = cli.fails(3, "verify", str(copy), "--config", str(tmp_path / "bad.yaml"))
    assert "bad.yaml:2: role" in error["message"]


def test_a_folder_that_a_daemon_has_open_is_refused(cli: CommandLine, stopped: DevCluster) -> None:
    stopped.start()
    try:
        error = cli.fails(3, "verify", "--config", str(stopped.nodes[0].config_file))
        assert "in use" in error["message"]
    finally:
        stopped.stop()
