"""What bench prints: a row or an object for each workload, as soon as it is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import click

from replicad.cli.bench import workloads
from replicad.cli.bench.rig import is_in_memory
from replicad.cli.bench.workloads import Measured
from replicad.cli.errors import to_json
from replicad.cli.options import Session
from replicad.cli.output import Output, stderr_is_terminal

#: What each workload is, in a table's width.
TITLES = {
    "W1": "one at a time",
    "W2": f"{workloads.CALLERS} callers",
    "W3": "bulk",
    "W4": "read all",
    "W5": "catch up",
}
_HEAD = ("WORKLOAD", "SIZE", "MSG/S", "P50 MS", "P99 MS", "MB/S", "SECONDS", "RSS MIB BY NODE")
_WIDTHS = (-16, 6, 11, 8, 8, 8, 8, -1)  # of each column; to the left where negative
MB = 1_000_000
KIB = 1 << 10


class Report:
    """The report of one run of bench."""

    def __init__(self, session: Session) -> None:
        self._output = Output(session)
        self._filesystem = ""
        self._begun = False
        self._left_out: set[str] = set()

    def begin(self, filesystem: str) -> None:
        """A cluster is there; its data are on ``filesystem`` ("": not known to us)."""
        self._filesystem = filesystem
        if self._begun:
            return
        self._begun = True
        if is_in_memory(filesystem):
            self._note(f"the data are on {filesystem}, where a sync costs nothing; give another --dir")
        if not self._output.json:
            self._row(_HEAD)

    @contextmanager
    def busy(self, doing: str) -> Iterator[None]:
        """Say on a terminal what goes on, for as long as it does."""
        if self._output.json or not stderr_is_terminal():
            yield
            return
        from replicad.cli.progress import spinner  # noqa: PLC0415 - rich costs a script 50 ms

        with spinner(f"{doing} ..."):
            yield

    def skipped(self, name: str) -> None:
        """A workload that can't be had here; told once, for all sizes."""
        if name not in self._left_out:
            self._left_out.add(name)
            self._note(f"{name} is left out: it stops a node, which it does only to its own cluster")

    def result(self, name: str, size_bytes: int, measured: Measured, rss_mib: Mapping[str, float]) -> None:
        """A workload is done."""
        per_s = measured.per_s
        p50_ms, p99_ms = measured.percentile_ms(50), measured.percentile_ms(99)
        mb_per_s = per_s * size_bytes / MB
        if self._output.json:
            fields: dict[str, object] = {
                "workload": name,
                "size": size_bytes,
                "messages": measured.messages,
                "seconds": round(measured.seconds, 3),
                "msg_per_s": round(per_s, 1),
                "p50_ms": _rounded(p50_ms),
                "p99_ms": _rounded(p99_ms),
                "mb_per_s": round(mb_per_s, 3),
                "rss_mib": {node: round(mib, 1) for node, mib in rss_mib.items()},
                "filesystem": self._filesystem or None,
            }
            self._output.show("", fields)
        else:
            rss = " ".join(f"{mib:.0f}" for mib in rss_mib.values())
            self._row(
                (
                    f"{name} {TITLES[name]}",
                    size_text(size_bytes),
                    f"{per_s:,.0f}" if self._output.terminal else f"{per_s:.0f}",
                    "-" if p50_ms is None else f"{p50_ms:.2f}",
                    "-" if p99_ms is None else f"{p99_ms:.2f}",
                    f"{mb_per_s:.2f}",
                    f"{measured.seconds:.2f}",
                    rss,
                )
            )
        self._output.flush()

    def _note(self, text: str) -> None:
        """What a reader of the numbers must know, beside them."""
        click.echo(to_json({"note": text}) if self._output.json else f"note: {text}", err=True)

    def _row(self, cells: Sequence[str]) -> None:
        padded = (
            cell.rjust(width) if width > 0 else cell.ljust(-width) for cell, width in zip(cells, _WIDTHS, strict=True)
        )
        self._output.write("  ".join(padded).rstrip() + "\n", flush=True)


def _rounded(ms: float | None) -> float | None:
    return None if ms is None else round(ms, 3)


def size_text(size_bytes: int) -> str:
    """A payload's size as the options have it."""
    return f"{size_bytes // KIB}KiB" if size_bytes % KIB == 0 else f"{size_bytes}B"
