"""`replicad-cli bench`, in small: every workload gives its line, and nothing is left behind."""

from __future__ import annotations

import signal
from pathlib import Path

from replicad.dev import DevCluster
from tests.support.commandline import CommandLine, lines_from

SMALL = ("--seconds", "200ms", "--messages", "2000", "--missed", "2000")


def test_every_workload_gives_its_line_and_nothing_is_left(tmp_path: Path) -> None:
    lines = CommandLine({}).objects("bench", *SMALL, "--size", "100", "--dir", str(tmp_path))
    assert [line["workload"] for line in lines] == ["W1", "W2", "W3", "W4", "W5"]
    for line in lines:
        assert line["size"] == 100
        assert line["msg_per_s"] > 0
        assert set(line["rss_mib"]) == {"node-1", "node-2", "node-3"}
        waited_for = line["workload"] in ("W1", "W2")
        assert (line["p50_ms"] is not None) is waited_for
        if waited_for:
            assert 0 < line["p50_ms"] <= line["p99_ms"]
    assert [line["messages"] for line in lines][2::2] == [2000, 2000]
    assert lines[3]["messages"] >= 2000
    assert list(tmp_path.iterdir()) == []


def test_a_signal_ends_it_and_its_cluster(tmp_path: Path) -> None:
    with CommandLine({}).started("bench", "--workload", "W1", "--seconds", "1h", "--dir", str(tmp_path)) as bench:
        lines_from(bench.stdout, 1)  # the table's head: the cluster is up
        [folder] = tmp_path.iterdir()
        cluster = DevCluster.open(folder)
        assert len(cluster.running()) == 3
        bench.send_signal(signal.SIGTERM)
        assert bench.wait(timeout=30) == 130
        assert cluster.running() == {}
        assert list(tmp_path.iterdir()) == []


def test_a_cluster_that_is_there_is_measured_without_stopping_a_node(cluster: DevCluster) -> None:
    cli = CommandLine.of(cluster)
    pids = cluster.running()
    arguments = ("--address", cli.env["REPLICAD_ADDRESS"], "bench", "--workload", "w3", "--workload", "W5")
    ran = cli.run(*arguments, *SMALL, "--size", "1KiB")
    assert ran.code == 0
    head, row = ran.out.splitlines()
    assert head.startswith("WORKLOAD")
    assert row.startswith("W3 bulk             1KiB ")
    assert ran.err == "note: W5 is left out: it stops a node, which it does only to its own cluster\n"
    assert cluster.running() == pids


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    error = CommandLine({}).fails(3, "bench", "--dir", str(tmp_path / "missing"))
    assert "give another --dir" in error["message"]
