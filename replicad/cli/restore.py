"""``replicad-cli restore``: a backup becomes a node's log. How, :mod:`replicad.storage.restore` owns."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import click

from replicad import configfile
from replicad.cli.errors import Failure
from replicad.cli.options import FilePath, Session, config_option, epilog, output_option
from replicad.cli.output import Output, count_text, stderr_is_terminal
from replicad.errors import DamagedError, ExitCode
from replicad.nodekeys import keyring_of

_WARNING = """\
A restore is for all nodes of the cluster at once, every one of them stopped, from the same file. Under one node
of a cluster that lives, it makes this node forget what it has acknowledged since the backup, and records can be lost.
There, start the node with an empty data folder and, in every config, `voter: false`, until it is level."""


@click.command(
    "restore",
    epilog=epilog(
        """\
Json: data_dir, cluster, node, size, commit_size, last_epoch, root.
Exit code 10: the backup does not prove, is damaged, or was cut off; 3: it
  is no backup, or of another cluster, or the data folder is in use or not
  empty; 11: a disk failed, or has no room.""",
        """\
Examples:
  replicad-cli restore prod-node-2-20261125T031500Z.backup
  replicad-cli restore n1.backup --config n1.yaml --yes""",
    ),
)
@click.argument("backup", metavar="FILE", type=FilePath())
@config_option("The config of the node whose log it is to become; its data_dir must be missing or empty.")
@click.option("--yes", is_flag=True, help="All nodes are stopped and get this file: do not ask.")
@output_option
@click.pass_obj
def command(session: Session, *, backup: Path, config_file: Path, yes: bool) -> None:
    """Make a backup the log of this host's node, after all nodes of a cluster were lost.

    Do it on every node, from the same file, while all are stopped; then start the workers, and the master last. What
    the cluster acknowledged after the backup is gone, and its offsets are given to other records, of an epoch far
    above. The whole file is verified first. An existing log is never touched: move it aside yourself.
    """
    from replicad.storage.restore import restore  # noqa: PLC0415 - --help must not wait for it
    from replicad.wire.codec import decode_records  # noqa: PLC0415

    output = Output(session)
    config = configfile.load(config_file, signs=False, dials=False)
    if not yes:
        _ask(config.cluster)
    data_dir = Path(config.data_dir)
    with ExitStack() as stack:
        if not session.json and stderr_is_terminal():
            from replicad.cli.progress import spinner  # noqa: PLC0415 - rich costs a script 50 ms

            stack.enter_context(spinner(f"restoring {data_dir} ..."))
        try:
            report = restore(
                backup,
                data_dir,
                cluster=config.cluster,
                node=config.node,
                keyring=keyring_of(config),
                decode_records=decode_records,
            )
        except DamagedError as exc:
            raise Failure(
                f"{backup} is damaged or was cut off, so nothing is restored: {exc}",
                exit_code=ExitCode.VERIFY_FAILED,
                remedy="take another copy of the backup from where it is kept, or another backup",
            ) from exc
    if report.fault is not None:
        raise Failure(
            f"{backup} does not prove, so nothing is restored: {report.fault.reason}",
            exit_code=ExitCode.VERIFY_FAILED,
            remedy="take another backup; is a former node's key, or a former key, missing in the config?",
            facts={"offset": report.fault.offset},
        )
    output.tell(
        f"{data_dir}: node {config.node} of cluster {report.cluster} now has "
        f"{count_text(report.records, 'record')}, epoch {report.last_epoch}, root {report.root.hex()}",
        {
            "data_dir": str(data_dir),
            "cluster": report.cluster,
            "node": config.node,
            "size": report.records,
            "commit_size": report.commit_size,
            "last_epoch": report.last_epoch,
            "root": report.root.hex(),
        },
        done=f"the log is restored in {data_dir}",
    )


def _ask(cluster: str) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("Nobody is there to be asked: give --yes once all nodes are stopped.")
    click.echo(_WARNING, err=True)
    if click.prompt(f"Restore all nodes of {cluster}? Write its name to go on", default="", err=True) != cluster:
        raise click.UsageError(f"That is not {cluster}: nothing is done.")
