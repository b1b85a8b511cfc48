"""``replicad-cli post``: one message; many are lines.py's."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import click

from replicad import fernetkeys
from replicad.cli.connect import DEFAULT_TIMEOUT, find_encryption, make_client, run
from replicad.cli.errors import Failure, Interrupted, input_failure, interrupted_post, post_failure
from replicad.cli.lines import post_lines
from replicad.cli.options import (
    Header,
    Session,
    WriteConcern,
    common_options,
    epilog,
    key_file_option,
    timeout_option,
)
from replicad.cli.output import Output, posted_fields, posted_text
from replicad.client import Encryption, Posted
from replicad.client.cutting import MAX_PAYLOAD_BYTES
from replicad.client.ids import PROCESS_IDS
from replicad.errors import ServiceError, TooLarge


def _by_key(ctx: click.Context, parameter: click.Parameter, values: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """The headers by their keys: of two with one key, one would be lost without a word."""
    headers: dict[str, str] = {}
    for key, text in values:
        if key in headers:
            raise click.BadParameter(f"the key {key!r} is given twice, and a message has each once", ctx, parameter)
        headers[key] = text
    return headers


@click.command(
    "post",
    epilog=epilog(
        """\
With --lines, a run that broke off is resumed by the same command on the same
  input with the --id that the error names: lines that are in the log already
  are recognised by their ids and not posted twice.
Json: code (200, or 409 for a duplicate), name, id, offset, duplicate, nodes;
  with --lines, an object for each line.""",
        """\
Examples:
  replicad-cli post "hello, log"
  replicad-cli post -w all --timeout 5s --id order-7 --header kind=order '{"n": 1}'
  replicad-cli post - < report.pdf                     # one message of it all
  replicad-cli post --encrypt --fernet-key-file team.key "only for us"
  journalctl -f -o json | replicad-cli post --lines    # a message a line""",
    ),
)
@click.option(
    "-w",
    "--write-concern",
    type=WriteConcern(),
    metavar="N|majority|all",
    help="How many nodes must have it on disk before it is answered.  [default: the config's]",
)
@timeout_option(DEFAULT_TIMEOUT, "How long to try, retries included; with --lines, for each frame of lines.")
@click.option(
    "--id",
    "message_id",
    metavar="ID",
    help="The message's id, 1 to 128 characters of ASCII; posted again, it is not applied twice. With --lines a UUID: "
    "the first line's id, from which the others count up.  [default: a new UUIDv7]",
)
@click.option(
    "--header",
    "headers",
    type=Header(),
    multiple=True,
    metavar="K=V",
    callback=_by_key,
    help="A header; more than one may be given.",
)
@click.option(
    "--encrypt",
    is_flag=True,
    help="Encrypt each payload before it leaves, with the first key of FERNET_KEY or of the key file. Ids and headers "
    "stay in the clear.",
)
@key_file_option("The key file for --encrypt.  [default: REPLICAD_FERNET_KEY_FILE, where FERNET_KEY is not set]")
@click.option("--lines", is_flag=True, help="Post each line of standard input as a message.")
@click.argument("text", required=False)
@common_options
@click.pass_obj
def command(
    session: Session,
    *,
    write_concern: str | None,
    timeout_s: float,
    message_id: str | None,
    headers: Mapping[str, str],
    encrypt: bool,
    key_file: Path | None,
    lines: bool,
    text: str | None,
) -> None:
    """Post a message, and wait until it is on as many nodes as asked.

    The message is TEXT, or all of standard input for - or no TEXT. With --lines each line of standard input is a
    message of its own, without its line feed.
    """
    encryption = _encryption(key_file, encrypt=encrypt)
    if lines:
        if text not in (None, "-"):
            raise click.UsageError("--lines reads standard input: leave out TEXT, or leave out --lines.")
        post_lines(
            session,
            _standard_input().fileno(),
            first_id=message_id,
            headers=headers,
            write_concern=write_concern,
            timeout_s=timeout_s,
            encryption=encryption,
        )
        return
    own_id = PROCESS_IDS.one() if message_id is None else message_id

    async def work(payload: bytes) -> Posted:
        async with make_client(session, timeout_s=timeout_s, encryption=encryption) as client:
            return await client.post(payload, id=own_id, headers=headers, write_concern=write_concern)

    try:
        posted = run(work(_payload(text)))
    except ServiceError as error:
        raise post_failure(error, message_id=own_id) from error
    except Interrupted:
        raise interrupted_post(own_id) from None
    told = posted_text(posted)
    try:
        Output(session).tell(told, posted_fields(posted), done=f"the message is in the log: {told}")
    except Failure as failure:
        raise failure.of_posted(posted) from None


def _encryption(key_file: Path | None, *, encrypt: bool) -> Encryption | None:
    if not encrypt:
        if key_file is not None:
            raise click.UsageError("--fernet-key-file has keys, but nothing is encrypted without --encrypt: add it.")
        return None
    encryption = find_encryption(key_file)
    if encryption is None:
        raise click.UsageError(
            f"--encrypt needs a key: set {fernetkeys.KEY_VARIABLE}, or give --fernet-key-file FILE; "
            f"`{fernetkeys.MAKE} --out FILE` makes one."
        )
    return encryption


def _payload(text: str | None) -> bytes:
    if text not in (None, "-"):
        return os.fsencode(text)  # the very bytes of the command line, whatever the locale makes of them
    stream = _standard_input()
    if text is None and stream.isatty():
        raise click.UsageError("Nothing to post: give TEXT, or - to read standard input, or --lines.")
    try:
        payload = stream.buffer.read(MAX_PAYLOAD_BYTES + 1)
    except OSError as exc:
        raise input_failure(exc) from exc
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise TooLarge(f"standard input has more than {MAX_PAYLOAD_BYTES >> 20} MiB, which no log takes in one message")
    return payload


def _standard_input() -> TextIO:
    if sys.stdin is None:  # closed by whoever started us: `<&-`
        raise click.UsageError("Standard input is closed.")
    return sys.stdin
