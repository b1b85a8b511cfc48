"""The arithmetic of benchmarks/compare.py, on lines as bench prints them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.compare import ROOT, Figures, checkout, compare, figures, report


def line(workload: str = "W1", **changed: object) -> str:
    fields = {
        "workload": workload,
        "size": 100,
        "messages": 5000,
        "seconds": 5.0,
        "msg_per_s": 1000.0,
        "p50_ms": 1.0,
        "p99_ms": 4.0,
        "mb_per_s": 0.1,
        "rss_mib": {"node-1": 60.0, "node-2": 50.0},
        "filesystem": "ext4",
    }
    return json.dumps(fields | changed)


def rates(old: list[float], new: list[float]) -> list[tuple[Figures, Figures]]:
    def key(metric: str, value: float) -> Figures:
        return {("W1", 100, metric): value}

    return [(key("msg_per_s", before), key("msg_per_s", after)) for before, after in zip(old, new, strict=True)]


def test_a_line_gives_its_figures_and_the_largest_nodes_memory() -> None:
    found = figures(line() + "\n" + line("W3", p50_ms=None, p99_ms=None, rss_mib={}))

    assert found == {
        ("W1", 100, "msg_per_s"): 1000.0,
        ("W1", 100, "p50_ms"): 1.0,
        ("W1", 100, "p99_ms"): 4.0,
        ("W1", 100, "rss_mib"): 60.0,
        ("W3", 100, "msg_per_s"): 1000.0,
    }


def test_the_ratio_is_the_median_over_the_rounds_not_that_of_the_medians() -> None:
    [found] = compare(rates([100, 200, 400], [110, 240, 360]))

    assert (found.old, found.new) == (200, 240)
    assert (found.lowest, found.ratio, found.highest) == pytest.approx((0.9, 1.1, 1.2))


@pytest.mark.parametrize(
    ("metric", "new", "verdict"),
    [
        ("msg_per_s", (110.0, 130.0), "better"),
        ("msg_per_s", (90.0, 99.0), "worse"),
        ("msg_per_s", (99.0, 130.0), "-"),
        ("msg_per_s", (100.0, 100.0), "-"),
        ("p99_ms", (110.0, 130.0), "worse"),
        ("p99_ms", (90.0, 99.0), "better"),
        ("rss_mib", (101.0, 102.0), "worse"),
    ],
)
def test_a_verdict_needs_all_rounds_on_one_side(metric: str, new: tuple[float, ...], verdict: str) -> None:
    key = ("W1", 100, metric)

    [found] = compare([({key: 100.0}, {key: value}) for value in new])

    assert found.verdict == verdict
    assert report([found]).splitlines()[1].endswith(verdict)


def test_a_figure_that_one_side_lacks_is_left_out() -> None:
    both, one = ("W1", 100, "msg_per_s"), ("W9", 100, "msg_per_s")

    found = compare([({both: 1.0}, {both: 1.0, one: 1.0}), ({both: 1.0, one: 1.0}, {both: 1.0})])

    assert [each.key for each in found] == [both]


def test_a_folder_with_a_checkout_is_taken_as_it_is() -> None:
    with checkout(str(ROOT)) as folder:
        assert folder == ROOT


def test_what_is_no_checkout_and_no_revision_is_refused_in_words(tmp_path: Path) -> None:
    script = ROOT / "benchmarks" / "compare.py"

    ran = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "nothing")], capture_output=True, text=True, check=False
    )

    assert ran.returncode == 1
    assert "neither a checkout's folder nor a revision" in ran.stderr
    assert "Traceback" not in ran.stderr
