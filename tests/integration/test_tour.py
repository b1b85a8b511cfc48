"""``make run``'s script: the tour of a newcomer, where standard input is a terminal and where it is not."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicad.dev import DevCluster
from replicad.dev.layout import create
from tests.support.ports import free_ports
from tests.support.programs import ROOT, programs_env
from tests.support.waiting import eventually_true

WITHIN_S = 90.0  # the whole tour takes some ten seconds

COMMAND = [sys.executable, str(ROOT / "scripts" / "tour.py"), "--dir", "replicad-dev"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DevCluster]:
    """The folder that the tour finds, on ports where there is room."""
    made = DevCluster(create(tmp_path / "replicad-dev", ports=free_ports(3)))
    yield made
    made.kill()


def test_the_tour_shows_a_cluster_at_work_and_ends_when_nobody_is_there(cluster: DevCluster, tmp_path: Path) -> None:
    ran = subprocess.run(
        COMMAND,
        cwd=tmp_path,
        env=programs_env(tmp_path / "bin"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    listed = ran.stdout.count("hello, log")
    assert listed == 1 + len(cluster.nodes), f"posted once, listed from each node:\n{ran.stdout}"
    assert re.search(r"node-3 .*unreachable", ran.stdout) is None, "the last status is of a complete cluster"
    assert cluster.running() == {}


def test_on_a_terminal_the_cluster_stays_up_until_ctrl_c(cluster: DevCluster, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    output = tmp_path / "output"
    with output.open("wb") as file:
        tour = subprocess.Popen(
            COMMAND,
            cwd=tmp_path,
            env=programs_env(tmp_path / "bin"),
            stdin=theirs,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        eventually_true(
            lambda: "Ctrl-C stops all nodes" in output.read_text(), within_s=WITHIN_S, what="the tour's end"
        )
        assert tour.poll() is None
        assert len(cluster.running()) == len(cluster.nodes)
        os.killpg(tour.pid, signal.SIGINT)
        assert tour.wait(timeout=WITHIN_S) == 0
    finally:
        tour.kill()
        tour.wait()
        os.close(ours)
        os.close(theirs)

    assert cluster.running() == {}


def test_a_command_of_the_tour_that_fails_ends_it_with_its_exit_code_told(cluster: DevCluster, tmp_path: Path) -> None:
    env = programs_env(tmp_path / "bin")
    cat = tmp_path / "bin" / "cat"  # by which the tour reads a pid
    cat.write_text("#!/bin/sh\nexit 7\n")
    cat.chmod(0o755)

    ran = subprocess.run(
        COMMAND,
        cwd=tmp_path,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )

    assert ran.returncode == 1
    assert re.search(r"exit code \d+ of: kill -9 ", ran.stderr)
    assert cluster.running() == {}
