"""The programs where uvloop is not installed: between unpacking and configuring, an upgrade leaves a host so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commandline import ROOT, CommandLine
from tests.support.nodes import events, running_cluster


def test_daemon_and_cli_run_on_asyncios_own_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "missing"
    missing.mkdir()
    (missing / "uvloop.py").write_text("raise ModuleNotFoundError(\"No module named 'uvloop'\", name='uvloop')\n")
    monkeypatch.setenv("PYTHONPATH", f"{missing}:{ROOT}")
    with running_cluster(tmp_path / "cluster", nodes=1) as cluster:
        maps = Path(f"/proc/{cluster.pid('node-1')}/maps").read_text()
        assert "cygrpc" in maps
        assert "uvloop" not in maps
        assert "slow_loop" in events(cluster.node("node-1"))
        cli = CommandLine({**cluster.client_env(), "PYTHONPATH": f"{missing}:{ROOT}"})
        cli.good("post", "--lines", stdin=b"one\ntwo\n")
        listed = cli.good("list", "--from", "1", "--output", "json").objects
        assert [record["text"] for record in listed] == ["one", "two"]
        [status] = cli.good("status", "--output", "json").objects
        assert status["health"] == "HEALTHY"
