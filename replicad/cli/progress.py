"""Progress on a terminal, on standard error, gone when the work is done. Only imported where somebody watches."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from replicad.cli.output import wants_color


def terminal() -> Console:
    """Standard error as rich sees it."""
    return Console(stderr=True, no_color=not wants_color(), highlight=False, markup=False, emoji=False)


@contextmanager
def spinner(text: str) -> Iterator[None]:
    """Say what is going on for as long as it does."""
    with terminal().status(Text(text)):
        yield


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        lines = int(task.fields["lines"])
        rate = lines / task.elapsed if task.elapsed else 0.0
        return Text(f"{lines:,} lines confirmed, {rate:,.0f}/s")


@contextmanager
def line_progress(descriptor: int) -> Iterator[Callable[[int, int], None]]:
    """A bar for lines read from ``descriptor``; call what it gives with the lines and bytes that are done.

    Where nobody knows how much is to come, as from a pipe, there is only the count.
    """
    status = os.fstat(descriptor)
    total = status.st_size if stat.S_ISREG(status.st_mode) else None
    columns: list[ProgressColumn] = [SpinnerColumn(), _Rate()]
    if total:
        columns = [BarColumn(), TextColumn("{task.percentage:>3.0f}%", markup=False), _Rate(), TimeRemainingColumn()]
    with Progress(*columns, console=terminal(), transient=True) as progress:
        task = progress.add_task("", total=total, lines=0)

        def update(lines: int, done_bytes: int) -> None:
            progress.update(task, completed=done_bytes, lines=lines)

        yield update
