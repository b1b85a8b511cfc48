"""``replicad-cli list``."""

from __future__ import annotations

from pathlib import Path

import click

from replicad.cli.connect import DEFAULT_TIMEOUT, find_encryption, make_client, run
from replicad.cli.errors import service_failure
from replicad.cli.options import (
    LEVELS,
    Moment,
    Offset,
    Session,
    common_options,
    epilog,
    key_file_option,
    timeout_option,
)
from replicad.cli.output import Output
from replicad.errors import Unavailable

FIELDS_HELP = """\
Text into a pipe: fields parted by tabs: offset, time, committed or
  uncommitted, id, author, headers (key=value with commas between; - for
  none), payload. What is not printable is escaped, and in headers a comma
  and the = of a key; bash's `printf %b` makes its bytes again.
Json: offset, epoch, time, id, author, headers, committed, encrypted,
  decrypted, payload (base64) and, where the payload is UTF-8, text.
What was encrypted is decrypted where there is a key that fits; else the
  ciphertext is shown: in text behind "(encrypted)", in json with
  encrypted true and decrypted false."""
KEY_FILE_HELP = "Decrypt with the keys of this file.  [default: FERNET_KEY, or the file in REPLICAD_FERNET_KEY_FILE]"


@click.command(
    "list",
    epilog=epilog(
        FIELDS_HELP,
        """\
Examples:
  replicad-cli list
  replicad-cli list --from 100 --limit 10
  replicad-cli list --since 2026-01-31T12:00:00Z --until 2026-01-31T13:00:00Z
  replicad-cli list --min-offset 12 | tail -n 1        # my own post included
  replicad-cli list --output json | jq -r .text""",
    ),
)
@click.option(
    "--from",
    "from_offset",
    type=Offset(),
    default=0,
    show_default=True,
    metavar="N",
    help="Offset of the first record.",
)
@click.option("--limit", type=Offset("a count"), metavar="N", help="So many records at the most.")
@click.option(
    "--level",
    type=click.Choice(LEVELS),
    default="committed",
    show_default=True,
    help="committed: never retracted. local: all that the node has. linearizable: committed, and the master confirms "
    "that it still is master.",
)
@click.option("--min-offset", type=Offset(), metavar="N", help="Wait until the node has this offset.")
@click.option("--since", type=Moment(), metavar="TIME", help="Records of this time or later: ISO 8601 (UTC), or ms.")
@click.option("--until", type=Moment(), metavar="TIME", help="Records before this time.")
@key_file_option(KEY_FILE_HELP)
@timeout_option(DEFAULT_TIMEOUT, "How long to wait for a node that answers.")
@common_options
@click.pass_obj
def command(
    session: Session,
    *,
    from_offset: int,
    limit: int | None,
    level: str,
    min_offset: int | None,
    since: int | None,
    until: int | None,
    timeout_s: float,
    key_file: Path | None,
) -> None:
    """Print records of the log, in order, to the end of what the node has.

    Any node serves them: the first address that answers.
    """
    output = Output(session)
    encryption = find_encryption(key_file)

    async def work() -> None:
        async with make_client(session, timeout_s=timeout_s, encryption=encryption) as client:
            batches = client.list_batches(
                from_offset, limit=limit, level=level, min_offset=min_offset, since_ms=since, until_ms=until
            )
            async for records in batches:
                output.records(records, flush=output.terminal)

    try:
        run(work())
    except Unavailable as error:
        if min_offset is None or not isinstance(error.__cause__, TimeoutError):
            raise
        failure = service_failure(error)  # a node waits until it has the offset, and is well
        failure.remedy = (
            f"offset {min_offset} may not be there yet: give a longer --timeout, or see replicad-cli status"
        )
        raise failure from error
