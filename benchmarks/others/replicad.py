"""replicad itself, by its own benchmark: W1 and W2 of `replicad-cli bench`, with everything signed."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.others.system import PAYLOAD, Measure, Result, run

_WORKLOADS = {1: "W1", 64: "W2"}
_BENCH = (sys.executable, "-m", "replicad.cli", "bench", "--output", "json", "--size", str(len(PAYLOAD)))
_ROOT = Path(__file__).resolve().parents[2]


class Replicad:
    name = "replicad"

    def missing(self) -> str:
        return ""

    @contextlib.contextmanager
    def running(self, folder: Path) -> Iterator[Measure]:
        def measure(callers: int, seconds: float) -> Result:
            options = ("--workload", _WORKLOADS[callers], "--seconds", f"{seconds:g}s", "--dir", str(folder))
            row = json.loads(run([*_BENCH, *options], env={"PYTHONPATH": str(_ROOT)}))
            return Result(row["msg_per_s"], row["p50_ms"], row["p99_ms"])

        yield measure
