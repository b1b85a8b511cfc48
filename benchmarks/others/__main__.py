"""``python -m benchmarks.others [NAME...] [--rounds N] [--seconds S]``: replicad and others, one after the other.

By turns, round after round, because the same program gives other figures an hour later. What is not installed is left
out, and named.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from replicad import grpctuning

grpctuning.tune(os.environ, grpctuning.installed_version())  # etcd's client is to have what ours has

from benchmarks.others.etcd import Etcd  # noqa: E402
from benchmarks.others.postgresql import PostgreSql  # noqa: E402
from benchmarks.others.redis import Redis  # noqa: E402
from benchmarks.others.replicad import Replicad  # noqa: E402
from benchmarks.others.system import BenchmarkError, Result, System  # noqa: E402
from replicad.cli.output import columns_text  # noqa: E402

WORKLOADS = {"W1": 1, "W2": 64}  # callers
OURS: System = Replicad()
OTHERS: tuple[System, ...] = (Etcd(), PostgreSql(), Redis())

#: By system and workload: a result a round.
Results = dict[tuple[str, str], list[Result]]


def measure(systems: Sequence[System], *, rounds: int, seconds: float, folder: Path) -> Results:
    """All systems by turns. Raises BenchmarkError."""
    results: Results = {}
    for number in range(rounds):
        for system in systems:
            data = tempfile.TemporaryDirectory(dir=folder, prefix="replicad-others-")
            with data, system.running(Path(data.name)) as call:
                for workload, callers in WORKLOADS.items():
                    print(f"round {number + 1} of {rounds}: {system.name} {workload}", file=sys.stderr)
                    results.setdefault((system.name, workload), []).append(call(callers, seconds))
    return results


def table(results: Results) -> str:
    """A line a system and workload: medians over the rounds, and the rate as a share of replicad's."""
    rows: list[tuple[str, ...]] = [("WORKLOAD", "SYSTEM", "MSG/S", "P50 MS", "P99 MS", "TO REPLICAD'S")]
    for workload in WORKLOADS:
        ours = median(each.msg_per_s for each in results[OURS.name, workload])
        for (name, of), found in results.items():
            if of == workload:
                rate, p50, p99 = (
                    median(values) for values in zip(*((f.msg_per_s, f.p50_ms, f.p99_ms) for f in found), strict=True)
                )
                rows.append((workload, name, f"{rate:.0f}", f"{p50:.2f}", f"{p99:.2f}", f"{rate / ours:.2f}"))
    return columns_text(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, or 1 when a system could not be measured."""
    names = {system.name.split()[0].lower(): system for system in OTHERS}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.others", description=__doc__.split("\n\n")[1])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; default: all")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each workload; default: 5")
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="on the disk in question; default: /var/tmp")  # noqa: S108
    options = parser.parse_args(argv)
    if unknown := [name for name in options.names if name not in names]:
        parser.error(f"{unknown[0]!r} is none of {', '.join(names)}")
    systems = [OURS]
    for system in (names[name] for name in options.names or names):
        if missing := system.missing():
            print(f"{system.name} is left out: apt install {missing}", file=sys.stderr)
        else:
            systems.append(system)
    try:
        results = measure(systems, rounds=options.rounds, seconds=options.seconds, folder=options.dir)
    except BenchmarkError as exc:
        print(f"benchmarks.others: {exc}", file=sys.stderr)
        return 1
    print(table(results), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
