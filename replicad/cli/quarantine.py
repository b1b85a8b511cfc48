"""``replicad-cli quarantine``: what a node took off its log, to be looked at, taken away or posted again.

Owns the command line and the forms of an entry. What counts as proven, :mod:`replicad.storage.quarantined` owns; how
records are posted again, :mod:`replicad.cli.resubmit`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from replicad import configfile
from replicad.cli.errors import Failure, file_failure
from replicad.cli.listing import KEY_FILE_HELP
from replicad.cli.options import (
    FilePath,
    Group,
    Session,
    WriteConcern,
    common_options_with_config,
    config_option,
    epilog,
    key_file_option,
    output_option,
)
from replicad.cli.output import Output, columns_text, count_text, record_json, time_text
from replicad.config import Config
from replicad.errors import ExitCode

if TYPE_CHECKING:
    from replicad.storage.quarantined import Entry
    from replicad.wire.types import Record

COLUMNS = ("ENTRY", "STATE", "OFFSETS", "RECORDS", "EPOCH", "PUT ASIDE", "WHY")


_config_option = config_option("The config of the node on this host whose quarantine it is.")


@click.group("quarantine", cls=Group, no_args_is_help=False)
@output_option
def command() -> None:
    """Look after what a node took off the end of its log.

    A master that wrote what nobody else has, and was left behind, puts that into DATA/quarantine before it follows the
    new one. Nothing of it was acknowledged at a majority; posts at w=1 may be among it. It is never cleaned up by
    replicad. Run on the node's host, as root or as the daemon's user; the node may run.
    """


@command.command(
    "list",
    epilog=epilog(
        """\
States: proven (signed by the node, and whole), unsigned (whole; by a release
  that did not sign), damaged, unfinished (a crash left it, and nothing was
  taken off the log then).
Json: entry, state, fault, node, epoch, first_offset, end, records, batches,
  time, reason, key_id.
Exit code 10: something is damaged.""",
        """\
Examples:
  replicad-cli quarantine list
  replicad-cli quarantine list --config n1.yaml --output json | jq -r .entry""",
    ),
)
@_config_option
@output_option
@click.pass_obj
def list_(session: Session, *, config_file: Path) -> None:
    """List what is in quarantine; each entry is read as a whole and proven."""
    output = Output(session)
    found = _entries(configfile.load(config_file, signs=False, dials=False))
    if session.json:
        for entry in found:
            output.show("", _fields(entry))
    elif found:
        output.write(columns_text([COLUMNS, *map(_row, found)]))
    else:
        output.write("nothing is in quarantine\n")
    output.flush()
    damaged = [entry for entry in found if entry.state == "damaged"]
    if damaged:
        raise Failure(
            "; ".join(entry.fault for entry in damaged),
            exit_code=ExitCode.VERIFY_FAILED,
            remedy="leave the files as they are; what they hold may be had from the log of the client that posted it",
        )


@command.command(
    "show",
    epilog=epilog(
        """\
The forms are those of `replicad-cli list`.""",
        """\
Examples:
  replicad-cli quarantine show 3-1207-1310-0
  replicad-cli quarantine show 3-1207-1310-0 --output json | jq -r .id""",
    ),
)
@click.argument("entry")
@_config_option
@key_file_option(KEY_FILE_HELP)
@output_option
@click.pass_obj
def show(session: Session, *, entry: str, config_file: Path, key_file: Path | None) -> None:
    """Print an entry's records, at the offsets that they had."""
    from replicad.cli.connect import find_encryption  # noqa: PLC0415 - it brings gRPC along

    output, encryption = Output(session), find_encryption(key_file)
    for records in _records(configfile.load(config_file, signs=False, dials=False), entry):
        output.records(map(encryption.open, records) if encryption else records)


@command.command(
    "export",
    epilog=epilog(
        """\
A line has an object as `replicad-cli list --output json` prints it; what was
  encrypted stays so. Records of the log itself (an epoch's first) are left
  out.
Json: file, entry, records.""",
        """\
Examples:
  replicad-cli quarantine export 3-1207-1310-0 --out lost.jsonl
  jq -r 'select(.author == "billing") | .payload | @base64d' lost.jsonl""",
    ),
)
@click.argument("entry")
@click.option("--out", type=FilePath(), required=True, metavar="FILE", help="A file that is not there.")
@_config_option
@output_option
@click.pass_obj
def export(session: Session, *, entry: str, out: Path, config_file: Path) -> None:
    """Write an entry's messages to a file, a JSON object a line, mode 0600."""
    from replicad.keys import write_new  # noqa: PLC0415

    messages, count = _messages(configfile.load(config_file, signs=False, dials=False), entry), 0

    def lines() -> Iterator[bytes]:  # one at a time: an entry may be larger than the memory
        nonlocal count
        for each in messages:
            count += 1
            yield f"{record_json(each)}\n".encode()

    try:
        write_new(out, lines())
    except OSError as exc:
        raise file_failure(exc, str(out)) from exc
    output = Output(session)
    output.tell(
        f"{out}: {count_text(count, 'message')}",
        {"file": str(out), "entry": entry, "records": count},
        done=f"the messages are in {out}",
    )


@command.command(
    "resubmit",
    epilog=epilog(
        """\
Safe to repeat: what the log has is not posted twice. A message that its
  client posted again itself is found by its id.
Json: an object for each message: id, was_at, offset, result (posted,
  present, or conflict: the id stands at offset with other content).
Exit code 6: there are conflicts; all else was posted.""",
        """\
Examples:
  replicad-cli quarantine resubmit 3-1207-1310-0
  replicad-cli quarantine resubmit 3-1207-1310-0 -w all --output json""",
    ),
)
@click.argument("entry")
@_config_option
@click.option(
    "-w",
    "--write-concern",
    type=WriteConcern(),
    metavar="N|majority|all",
    default="majority",
    show_default=True,
    help="How many nodes must have each on disk.",
)
@common_options_with_config
@click.pass_obj
def resubmit(session: Session, *, entry: str, config_file: Path, write_concern: str) -> None:
    """Post an entry's messages again, under the ids and with the headers that they had.

    They get new offsets, at the end of the log, and their author is who posts them now: AUTH_TOKEN's principal. The
    nodes are those of --address or REPLICAD_ADDRESS, else of the config; with TLS they are known by --ca or
    REPLICAD_CA, else by the config's CA bundle. The entry stays where it is.
    """
    from replicad.cli.resubmit import post_again  # noqa: PLC0415 - it brings gRPC along

    config = configfile.load(config_file, signs=False, dials=False)
    post_again(session, config, _messages(config, entry), write_concern=write_concern)


def _entries(config: Config) -> list[Entry]:
    from replicad.nodekeys import keys_by_node  # noqa: PLC0415 - --help must not wait for it
    from replicad.storage.quarantined import entries  # noqa: PLC0415

    return entries(Path(config.data_dir), cluster=config.cluster, keys=keys_by_node(config))


def _records(config: Config, name: str) -> Iterator[list[Record]]:
    """An entry's records, a batch at a time. Raises Failure for one that is not there or does not prove."""
    from replicad.storage.quarantined import read_quarantine  # noqa: PLC0415
    from replicad.wire.frames import decode_batch  # noqa: PLC0415
    from replicad.wire.records import decode_list_response, encode_list_response  # noqa: PLC0415

    found = {entry.name: entry for entry in _entries(config)}
    if name not in found:
        names = ", ".join(found) or "none"
        raise Failure(
            f"there is no entry {name} in {config.data_dir}/quarantine",
            exit_code=ExitCode.NOT_FOUND,
            remedy=f"give one of those that are there: {names}",
        )
    entry = found[name]
    if entry.manifest is None or entry.state == "damaged":
        raise Failure(f"{name}: {entry.fault}", exit_code=ExitCode.VERIFY_FAILED, remedy="`quarantine list` has all")
    for batch in read_quarantine(Path(config.data_dir), entry.manifest, decode=decode_batch):
        _, bodies = decode_list_response(encode_list_response(0, [batch.body]))
        yield from bodies


def _messages(config: Config, name: str) -> Iterator[Record]:
    """What clients posted, of an entry's records."""
    return (record for records in _records(config, name) for record in records if not record.is_system)


def _row(entry: Entry) -> tuple[str, ...]:
    manifest = entry.manifest
    if manifest is None:
        return (entry.name, entry.state, "", "", "", "", entry.fault)
    return (
        entry.name,
        entry.state,
        f"{manifest.first_offset}-{manifest.end - 1}",
        str(manifest.end - manifest.first_offset),
        str(manifest.epoch),
        time_text(manifest.time_ms) if manifest.time_ms else "",
        manifest.reason,
    )


def _fields(entry: Entry) -> dict[str, object]:
    manifest = entry.manifest
    fields: dict[str, object] = {"entry": entry.name, "state": entry.state, "fault": entry.fault or None}
    if manifest is not None:
        fields |= {
            "node": manifest.node,
            "epoch": manifest.epoch,
            "first_offset": manifest.first_offset,
            "end": manifest.end,
            "records": manifest.end - manifest.first_offset,
            "batches": manifest.batches,
            "time": time_text(manifest.time_ms) if manifest.time_ms else None,
            "reason": manifest.reason,
            "key_id": manifest.key_id or None,
        }
    return fields
