"""``replicad-cli tail``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from replicad.cli.connect import DEFAULT_TIMEOUT, find_encryption, make_client, run
from replicad.cli.listing import FIELDS_HELP, KEY_FILE_HELP
from replicad.cli.options import LEVELS, Offset, Session, common_options, epilog, key_file_option, timeout_option
from replicad.cli.output import Output, OutputClosed
from replicad.cli.readiness import told_once
from replicad.client import AsyncClient


class _Start(Offset):
    """An offset, or ``end``; gives None for that."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return -1 if value in ("end", -1) else super().convert(value, param, ctx)


@click.command(
    "tail",
    epilog=epilog(
        FIELDS_HELP,
        """\
Examples:
  replicad-cli tail
  replicad-cli tail --from end                         # only what is new
  replicad-cli tail --from 100 --output json | jq -r .text""",
    ),
)
@click.option(
    "--from",
    "from_offset",
    type=_Start("an offset or end"),
    default=0,
    show_default=True,
    metavar="N|end",
    help="Offset of the first record; end: only records that come from now on.",
)
@click.option(
    "--level",
    type=click.Choice(LEVELS[:2]),
    default="committed",
    show_default=True,
    help="committed: never retracted. local: all that the node has.",
)
@key_file_option(KEY_FILE_HELP)
@timeout_option(DEFAULT_TIMEOUT, "How long to wait for a node at first; later it waits for ever.")
@common_options
@click.pass_obj
def command(session: Session, from_offset: int, level: str, timeout_s: float, key_file: Path | None) -> None:
    """Follow the log: print its records, then each new one as it comes.

    When a node goes away, tail goes on with another, or waits for it; no record is skipped or repeated. Ctrl-C ends it
    with exit code 130. Each record is written out at once.
    """
    output = Output(session)
    encryption = find_encryption(key_file)

    async def follow(client: AsyncClient) -> None:
        start = from_offset
        if start < 0:
            status = await client.status()
            start = status.commit_size if level == "committed" else status.size
        async for records in client.tail_batches(start, level=level):
            output.records(records, flush=True)

    async def work() -> None:
        async with make_client(session, timeout_s=timeout_s, encryption=encryption) as client:
            with _ended_when_output_closes():
                await follow(client)

    run(work())


@contextlib.contextmanager
def _ended_when_output_closes() -> Iterator[None]:
    """Raise OutputClosed as soon as the reader of the pipe that standard output is has gone, not only when the next
    record comes: the log may be still for hours."""
    task, descriptor = asyncio.current_task(), _output_pipe()
    if descriptor is None or task is None:
        yield
        return
    closed = False

    def on_closed() -> None:
        nonlocal closed
        closed = True
        task.cancel()

    try:
        with told_once(descriptor, 0, on_closed):  # an error, which is told unasked: the reading end is closed
            yield
    except asyncio.CancelledError:
        if closed:
            raise OutputClosed from None
        raise


def _output_pipe() -> int | None:
    try:
        descriptor = sys.stdout.fileno()
        return descriptor if stat.S_ISFIFO(os.fstat(descriptor).st_mode) else None
    except (OSError, ValueError):
        return None
