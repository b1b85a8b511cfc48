"""The status of all nodes as a table on a terminal. Only imported where there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from replicad.cli.output import escape_text, nodes_text, size_text, wants_color
from replicad.cli.status import SHORT_ROOT, Row

_STYLES = {
    "open": "green",
    "following": "green",
    "HEALTHY": "green",
    "opening": "yellow",
    "waiting": "yellow",
    "SUSPECTED": "yellow",
    "read-only": "yellow",
    "stopping": "yellow",
    "UNHEALTHY": "red",
    "deposed": "red",
    "unreachable": "bold red",
    "master": "bold",
}


class _Column(NamedTuple):
    title: str
    cell: Callable[[Row], str]
    number: bool = False
    spare: int = 0  # where the terminal is too narrow, the column with the highest goes first; 0 stays


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


_COLUMNS = (
    _Column("node", lambda row: row.name),
    _Column("address", lambda row: row.address, spare=7),
    _Column("role", lambda row: row.own.role if row.own else row.seen.role if row.seen else "-", spare=3),
    _Column("state", lambda row: row.own.state if row.own else "unreachable"),
    _Column("epoch", lambda row: _count(row.own.epoch if row.own else None), number=True, spare=5),
    _Column("size", lambda row: _count(row.own.size if row.own else None), number=True),
    _Column("committed", lambda row: _count(row.own.commit_size if row.own else None), number=True, spare=6),
    _Column("lag", lambda row: _count(row.lag), number=True),
    _Column("root", lambda row: row.own.root.hex()[:SHORT_ROOT] if row.own else "-", spare=8),
    _Column("memory", lambda row: size_text(row.own.rss_bytes) if row.own else "-", number=True, spare=9),
    _Column("health", lambda row: row.health, spare=4),
)


def print_table(rows: Sequence[Row], console: Console | None = None) -> None:
    """The table, then a line for each node that has something to say."""
    console = console or Console(no_color=not wants_color(), highlight=False, markup=False, emoji=False)
    columns = list(_COLUMNS)
    table = _table(columns, rows)
    while console.measure(table, options=console.options.update(width=1000)).minimum > console.width:
        widest = max(columns, key=lambda column: column.spare)
        if not widest.spare:
            break
        columns.remove(widest)
        table = _table(columns, rows)
    console.print(_headline(rows))
    console.print(table, soft_wrap=False)
    for row in rows:
        if row.note:
            style = "red" if row.own is None else "yellow"
            console.print(Text(f"{row.name}: {escape_text(row.note)}", style=style), soft_wrap=True)
    if len(columns) < len(_COLUMNS):
        hidden = ", ".join(column.title for column in _COLUMNS if column not in columns)
        console.print(Text(f"(a wider terminal also shows {hidden})", style="dim"), soft_wrap=True)


def _headline(rows: Sequence[Row]) -> Text:
    own = [row.own for row in rows if row.own is not None]
    answer = f"{len(own)} of {nodes_text(len(rows))} answer{'s' if len(own) == 1 else ''}"
    master = next((each.master for each in own if each.master), "")
    who = f"master {master}" if master else "no master is known"
    return Text(f"cluster {own[0].cluster}: {who}, {answer}, commit quorum {own[0].commit_quorum}")


def _table(columns: Sequence[_Column], rows: Sequence[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(Text(column.title), justify="right" if column.number else "left", no_wrap=True)
    for row in rows:
        cells = [column.cell(row) for column in columns]
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in cells))
    return table
