"""What bench makes of what it measured."""

import json
from io import StringIO
from pathlib import Path

import pytest

from replicad.cli.bench.report import Report
from replicad.cli.bench.rig import filesystem_of, is_in_memory
from replicad.cli.bench.workloads import Measured
from replicad.cli.main import main
from replicad.cli.options import Session


def test_a_percentile_is_a_latency_that_was_measured() -> None:
    measured = Measured(4, 1.0, [0.001, 0.002, 0.003, 0.1])
    assert measured.percentile_ms(50) == 2.0
    assert measured.percentile_ms(99) == 100.0
    assert measured.percentile_ms(0) == 1.0


def test_what_was_not_waited_for_has_no_percentile() -> None:
    assert Measured(4, 1.0).percentile_ms(50) is None


def test_a_rate_is_messages_by_seconds() -> None:
    assert Measured(100, 0.5).per_s == 200.0
    assert Measured(0, 0.0).per_s == 0.0


def report(*, json: bool, capsys: pytest.CaptureFixture[str]) -> str:
    made = Report(Session(json=json))
    made.begin("ext4")
    made.result("W1", 100, Measured(2, 0.004, [0.001, 0.003]), {"node-1": 57.04, "node-2": 55.0})
    made.result("W4", 1024, Measured(200_000, 0.5), {"node-1": 60.0})
    return capsys.readouterr().out


def test_a_table_row_is_printed_for_each_workload(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(json=False, capsys=capsys) == (
        "WORKLOAD            SIZE        MSG/S    P50 MS    P99 MS      MB/S   SECONDS  RSS MIB BY NODE\n"
        "W1 one at a time    100B          500      1.00      3.00      0.05      0.00  57 55\n"
        "W4 read all         1KiB       400000         -         -    409.60      0.50  60\n"
    )


def test_a_workload_is_told_to_be_left_out_once_for_all_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--workload", "w5", "--address", "127.0.0.1:1"]) == 0
    assert capsys.readouterr().err.count("W5 is left out") == 1


def test_json_is_an_object_for_each_workload(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = map(json.loads, report(json=True, capsys=capsys).splitlines())
    assert first == {
        "workload": "W1",
        "size": 100,
        "messages": 2,
        "seconds": 0.004,
        "msg_per_s": 500.0,
        "p50_ms": 1.0,
        "p99_ms": 3.0,
        "mb_per_s": 0.05,
        "rss_mib": {"node-1": 57.0, "node-2": 55.0},
        "filesystem": "ext4",
    }
    assert (second["p50_ms"], second["p99_ms"], second["mb_per_s"]) == (None, None, 409.6)


def test_memory_posing_as_a_disk_is_known(tmp_path: Path) -> None:
    assert filesystem_of(Path("/proc")) == "proc"
    assert filesystem_of(tmp_path)
    assert is_in_memory("tmpfs")
    assert not is_in_memory("ext4")


@pytest.mark.parametrize(("as_json", "begins"), [(False, "note: the data are on tmpfs"), (True, '{"note":"the data')])
def test_a_cluster_in_memory_is_told_of_once(as_json: bool, begins: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = Report(Session(json=as_json))
    made.begin("tmpfs")
    made.begin("tmpfs")
    [note] = capsys.readouterr().err.splitlines()
    assert note.startswith(begins)


def test_the_table_is_written_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Flushed(StringIO):
        flushes = 0

        def flush(self) -> None:
            self.flushes += 1

    stream = Flushed()
    monkeypatch.setattr("sys.stdout", stream)
    made = Report(Session(json=True))
    made.result("W1", 100, Measured(2, 1.0), {})
    assert stream.flushes
