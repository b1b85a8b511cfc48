"""``replicad-cli backup``: a node's log into one file. What is in it, :mod:`replicad.storage.backup` owns."""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import click

from replicad import configfile
from replicad.cli.options import FilePath, Session, config_option, epilog, output_option
from replicad.cli.output import Output, stderr_is_terminal
from replicad.nodekeys import keyring_of


@click.command(
    "backup",
    epilog=epilog(
        """\
Json: file, bytes, cluster, node, size, commit_size, last_epoch, root.""",
        """\
Examples:
  replicad-cli backup --out /srv/backups
  replicad-cli backup --config n1.yaml --out n1.backup
  replicad-cli verify /srv/backups/prod-node-2-... --config /etc/replicad.yaml""",
    ),
)
@config_option("The config of the node on this host that is to be backed up.")
@click.option(
    "--out",
    type=FilePath(),
    required=True,
    metavar="PATH",
    help="A file that does not exist, or a folder: there it is named CLUSTER-NODE-TIME.backup.",
)
@output_option
@click.pass_obj
def command(session: Session, *, config_file: Path, out: Path) -> None:
    """Copy a node's log into one file, while the node runs.

    Run on the node's host, as root or as the daemon's user. Every record is proven on its way; the file is there when
    it is whole and on disk, and is the runner's alone (mode 0600). It holds the log as far as this node has it: back up
    the node that lags least. DATA/quarantine, keys and config are not in it. It is for replicad-cli restore.
    """
    from replicad.storage.backup import back_up  # noqa: PLC0415 - --help must not wait for it
    from replicad.wire.codec import decode_records  # noqa: PLC0415

    output = Output(session)
    config = configfile.load(config_file, signs=False, dials=False)
    if out.is_dir():
        out /= f"{config.cluster}-{config.node}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.backup"
    began = time.monotonic()
    with ExitStack() as stack:
        if not session.json and stderr_is_terminal():
            from replicad.cli.progress import spinner  # noqa: PLC0415 - rich costs a script 50 ms

            stack.enter_context(spinner(f"backing up {config.data_dir} ..."))
        made = back_up(
            Path(config.data_dir),
            out,
            cluster=config.cluster,
            keyring=keyring_of(config),
            decode_records=decode_records,
        )
    output.tell(
        f"{made.file}: node {made.node} of cluster {made.cluster}: size {made.size}, commit size {made.commit_size}, "
        f"epoch {made.last_epoch}, root {made.root.hex()}  ({made.file_bytes} B, {time.monotonic() - began:.1f} s)",
        {
            "file": str(made.file),
            "bytes": made.file_bytes,
            "cluster": made.cluster,
            "node": made.node,
            "size": made.size,
            "commit_size": made.commit_size,
            "last_epoch": made.last_epoch,
            "root": made.root.hex(),
        },
        done=f"the backup is made, and proven: {made.file}",
    )
