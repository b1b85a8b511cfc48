"""The arithmetic of benchmarks/others, and, where they are installed, each of the other systems for half a second."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from benchmarks.compare import ROOT
from benchmarks.others.__main__ import OTHERS, table
from benchmarks.others.system import (
    BenchmarkError,
    Result,
    System,
    closed_loop,
    result_of,
    run,
    servers,
)
from tests.support import ports


def test_percentiles_are_latencies_that_were_seen() -> None:
    found = result_of([i / 1000 for i in range(200, 0, -1)], 4.0)
    assert found == Result(msg_per_s=50.0, p50_ms=100.0, p99_ms=198.0)
    assert result_of([0.002], 1.0) == Result(1.0, 2.0, 2.0)


def test_nothing_answered_is_no_result() -> None:
    with pytest.raises(BenchmarkError, match="nothing was answered"):
        result_of([], 1.0)


async def test_each_caller_has_one_post_in_flight_and_none_of_the_warm_up_counts() -> None:
    in_flight, most, done = 0, 0, 0

    async def post() -> None:
        nonlocal in_flight, most, done
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0.002)
        in_flight -= 1
        done += 1

    found = await closed_loop([post] * 3, 0.2)
    assert most == 3
    assert found.p50_ms >= 2.0
    assert 0 < found.msg_per_s * 0.2 < done


def test_the_table_has_medians_and_the_share_of_ours() -> None:
    ours = [Result(rate, 1.0, 2.0) for rate in (900.0, 1000.0, 1200.0)]
    theirs = [Result(rate, 4.0, 8.0) for rate in (100.0, 500.0, 9000.0)]
    results = {(name, w): rows for w in ("W1", "W2") for name, rows in (("replicad", ours), ("etcd", theirs))}
    lines = [line.split() for line in table(results).splitlines()]
    assert lines[1] == ["W1", "replicad", "1000", "1.00", "2.00", "1.00"]
    assert lines[2] == ["W1", "etcd", "500", "4.00", "8.00", "0.50"]
    assert [line[0] for line in lines[3:]] == ["W2", "W2"]


def test_a_command_that_fails_is_told_with_its_last_line() -> None:
    with pytest.raises(BenchmarkError, match=r"^sh -c .* \.\.\.: the reason$"):
        run(["sh", "-c", "echo first >&2; echo the reason >&2; exit 3"])


def test_servers_end_with_the_context(tmp_path: Path) -> None:
    ours = f"sleep 600.{os.getpid()}"
    with contextlib.suppress(KeyError), servers([ours.split(), ["echo", "up"]], tmp_path):
        assert subprocess.run(["pgrep", "-xf", ours], check=False).returncode == 0
        raise KeyError
    assert subprocess.run(["pgrep", "-xf", ours], check=False).returncode == 1


def test_who_is_unknown_is_named() -> None:
    command = [sys.executable, "-m", "benchmarks.others", "etcd", "kafka"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'kafka' is none of etcd, postgresql, redis" in done.stderr


@pytest.mark.parametrize("system", OTHERS, ids=lambda system: system.name)
def test_it_is_measured(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing := system.missing():
        pytest.skip(f"{missing} is not installed")
    monkeypatch.setattr(sys.modules[type(system).__module__], "free_ports", ports.free_ports)
    with tempfile.TemporaryDirectory() as folder, system.running(Path(folder)) as measure:  # pytest's is root's alone
        found = measure(8, 0.5)
    assert found.msg_per_s > 0
    assert 0 < found.p50_ms <= found.p99_ms
