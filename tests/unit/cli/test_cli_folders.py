"""backup, restore and quarantine, on a folder without a node."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from replicad.cli.main import main
from replicad.core.batch import Append
from replicad.storage.quarantine import write_quarantine
from replicad.storage.sqlite import SqliteStore
from replicad.wire.codec import decode_records
from replicad.wire.frames import encode_batch
from tests.support.builders import CLUSTER, LogBuilder, messages, signer
from tests.support.commandline import ROOT

NODE = "n1"
CONFIG = f"""\
cluster: {CLUSTER}
node: {NODE}
role: master
listen: 127.0.0.1:50052
data_dir: data
key: n1.key
nodes:
  - name: {NODE}
    address: 127.0.0.1:50052
    public_key: {signer(NODE).verifier.line}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The config of a node with a log of three records, of which two are in its quarantine."""
    log, path = LogBuilder(NODE), tmp_path / "replicad.yaml"
    log.add_epoch(1)
    log.add(2)
    with closing(SqliteStore(tmp_path / "data", cluster=CLUSTER, node=NODE, decode_records=decode_records)) as store:
        store.set_promise(1, NODE)
        store.append(log.appends, commit_size=1)
    put_aside(tmp_path / "data", log.appends[1:])
    path.write_text(CONFIG)
    return path


def put_aside(data_dir: Path, appends: Sequence[Append]) -> None:
    write_quarantine(
        data_dir,
        [append.batch for append in appends],
        cluster=CLUSTER,
        node=NODE,
        reason="left behind",
        encode=encode_batch,
        signer=signer(NODE),
        time_ms=0,
    )


def into_full(config: Path, *arguments: str) -> tuple[int, str]:
    """The exit code and standard error of a command whose output finds no room."""
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "replicad.cli", *arguments, "--config", str(config)]
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env={"PYTHONPATH": str(ROOT)}
        )
    return done.returncode, done.stderr


def test_where_a_copy_cannot_be_told_the_error_says_that_it_is_made(config: Path, tmp_path: Path) -> None:
    said = "error: standard output cannot be written: No space left on device; "
    copy, lost, data = tmp_path / "copy", tmp_path / "lost", tmp_path / "data"
    assert into_full(config, "backup", "--out", str(copy)) == (11, f"{said}the backup is made, and proven: {copy}\n")
    assert into_full(config, "quarantine", "export", "1-1-3-0", "--out", str(lost)) == (
        11,
        f"{said}the messages are in {lost}\n",
    )
    data.rename(tmp_path / "before")
    assert into_full(config, "restore", str(copy), "--yes") == (11, f"{said}the log is restored in {data}\n")
    assert (data / "log.db").exists()
    assert lost.read_text().count("\n") == 2


def test_an_entry_that_is_larger_than_the_memory_is_exported_all_the_same(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, out = LogBuilder(NODE), tmp_path / "lost"
    for number in range(40):
        log.add_messages(messages(f"m-{number}", payloads=[bytes(1 << 20)]))
    put_aside(tmp_path / "data", log.appends)
    tracemalloc.start()
    try:
        assert main(["quarantine", "export", "1-0-40-0", "--out", str(out), "--config", str(config)]) == 0
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 << 20
    assert capsys.readouterr().out == f"{out}: 40 messages\n"
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == [f"m-{number}" for number in range(40)]


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, 11), (errno.EIO, 11), (errno.EACCES, 3)])
def test_an_export_that_a_disk_refuses_is_told_from_a_path_that_is_wrong(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    assert main(["quarantine", "export", "1-1-3-0", "--out", str(tmp_path / "lost"), "--config", str(config)]) == code
    assert not (tmp_path / "lost").exists()
