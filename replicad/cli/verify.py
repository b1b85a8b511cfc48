"""``replicad-cli verify``: a data folder's audit. What is proven, :mod:`replicad.storage.fsck` owns."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import click

from replicad import configfile
from replicad.cli.errors import Failure
from replicad.cli.options import FilePath, Session, epilog, output_option
from replicad.cli.output import Output, count_text, stderr_is_terminal
from replicad.configvalues import Bad, Offset
from replicad.core.keyring import Keyring, NodeKey
from replicad.errors import DamagedError, ExitCode, KeyFileError
from replicad.nodekeys import keyring_of
from replicad.storage.fsck import Report, verify_folder
from replicad.vkeys import parse_vkey
from replicad.wire.codec import decode_records

_ANOTHER_COPY = "take another copy of the backup from where it is kept, or another backup"
_REBUILD = "take another copy of the folder; a node's own is made anew from the other nodes by `replicad-cli rebuild`"
_COMPARE = "leave the folder as it is, and compare it with the other nodes' (`replicad-cli verify` on each)"


@click.command(
    "verify",
    epilog=epilog(
        """\
Json: ok, data_dir, cluster, node, records, batches, epochs, last_epoch,
  root, commit_size, bad_offset (null: none, or the fault lies in no record),
  reason.
Exit code 10: it does not prove, is damaged, or was cut off; 3: it is no
  node's folder and no backup, or of another cluster, or in use; 11: the disk
  could not be read.""",
        """\
Examples:
  replicad-cli verify --config /etc/replicad.yaml
  replicad-cli verify ./copy-of-data --config /etc/replicad.yaml
  replicad-cli verify prod-node-2-20261125T031500Z.backup --config node.yaml
  replicad-cli verify ./data --cluster prod --key node-1+5d8a...+AZ... --key node-2+...
  replicad-cli verify ./data --cluster prod --key node-1+5d8a... --key node-1+0c41...@120455""",
    ),
)
@click.argument("data_dir", type=FilePath(), required=False)
@click.option(
    "--config",
    "config_file",
    type=FilePath(),
    metavar="FILE",
    help="A node's config: the cluster's name and public keys are taken from it, and its data_dir where none is given.",
)
@click.option(
    "--key",
    "key_lines",
    multiple=True,
    metavar="VKEY[@UNTIL]",
    help="A node's public line; all that a node which ever was master has or had, former ones with their `until`.",
)
@click.option("--cluster", metavar="NAME", help="The cluster's name, with --key.")
@output_option
@click.pass_obj
def command(
    session: Session,
    *,
    data_dir: Path | None,
    config_file: Path | None,
    key_lines: tuple[str, ...],
    cluster: str | None,
) -> None:
    """Prove the whole log in DATA_DIR: every record, root and signature, from the first on.

    Works offline, with public keys alone, on a stopped node's folder, a copy of one or a backup's file, and changes
    nothing there. What does not prove is named by its first bad offset.
    """
    output = Output(session)
    folder, name, keyring = _what(data_dir, config_file, key_lines, cluster)
    began = time.monotonic()
    with ExitStack() as stack:
        if not session.json and stderr_is_terminal():
            from replicad.cli.progress import spinner  # noqa: PLC0415 - rich costs a script 50 ms

            stack.enter_context(spinner(f"verifying {folder} ..."))
        try:
            report = verify_folder(folder, cluster=name, keyring=keyring, decode_records=decode_records)
        except DamagedError as exc:
            raise Failure(
                f"{folder} is damaged or was cut off, so nothing of it proves: {exc}",
                exit_code=ExitCode.VERIFY_FAILED,
                remedy=_ANOTHER_COPY if folder.is_file() else _REBUILD,
            ) from exc
    output.show(_text(report, time.monotonic() - began), _fields(report, folder))
    if report.fault is not None:
        where = "" if report.fault.offset is None else f"offset {report.fault.offset} is the first that is bad: "
        raise Failure(
            f"{folder} does not prove: {where}{report.fault.reason}",
            exit_code=ExitCode.VERIFY_FAILED,
            remedy=_ANOTHER_COPY if folder.is_file() else _COMPARE,
            facts={"offset": report.fault.offset},
        )


def _what(
    data_dir: Path | None, config_file: Path | None, key_lines: tuple[str, ...], cluster: str | None
) -> tuple[Path, str, Keyring]:
    """Folder, cluster's name and public keys by node."""
    if config_file is not None:
        if key_lines or cluster:
            raise click.UsageError("--config has the keys and the cluster's name: leave out --key and --cluster.")
        config = configfile.load(config_file, signs=False, dials=False)
        return data_dir or Path(config.data_dir), config.cluster, keyring_of(config)
    if data_dir is None:
        raise click.UsageError("Which folder? Give DATA_DIR, or the --config of a node.")
    if not key_lines or not cluster:
        raise click.UsageError("Proven by whose keys? Give --config FILE, or --cluster NAME and each node's --key.")
    return data_dir, cluster, _keyring(key_lines)


def _keyring(key_lines: tuple[str, ...]) -> Keyring:
    keys: dict[str, dict[str, NodeKey]] = {}  # by node and public line
    for number, given in enumerate(key_lines, start=1):
        line, at, until = given.partition("@")  # neither a node's name nor base64 has one
        try:
            verifier = parse_vkey(line)
        except KeyFileError as exc:
            text = f"--key number {number}: {exc}; `replicad-cli keys show` prints a good one"
            raise click.UsageError(text) from exc
        limit = Offset("").read(int(until) if until.isascii() and until.isdigit() else until) if at else None
        if isinstance(limit, Bad):
            raise click.UsageError(f"--key number {number}: what stands behind @ {limit.wrong}; {limit.remedy}")
        key = NodeKey(verifier.key_id.hex(), verifier, limit)
        if keys.setdefault(verifier.name, {}).setdefault(verifier.line, key) != key:
            raise click.UsageError(
                f"--key number {number}: that key of {verifier.name} is given already, with another @"
            )
    return Keyring({node: list(each.values()) for node, each in keys.items()})


def _text(report: Report, seconds: float) -> str:
    proven = (
        f"{count_text(report.records, 'record')} in {report.batches} batch{'' if report.batches == 1 else 'es'}, "
        f"epoch {report.last_epoch}, root {report.root.hex()}"
        f"  ({seconds:.1f} s)"
    )
    who = f"node {report.node} of cluster {report.cluster}"
    if report.ok:
        return f"good: {who}: {proven}"
    return f"BAD: {who}: proven are only {proven}"


def _fields(report: Report, folder: Path) -> dict[str, object]:
    return {
        "ok": report.ok,
        "data_dir": str(folder),
        "cluster": report.cluster,
        "node": report.node,
        "records": report.records,
        "batches": report.batches,
        "epochs": report.epochs,
        "last_epoch": report.last_epoch,
        "root": report.root.hex(),
        "commit_size": report.commit_size,
        "bad_offset": report.fault.offset if report.fault else None,
        "reason": report.fault.reason if report.fault else "",
    }
