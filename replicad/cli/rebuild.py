"""``replicad-cli rebuild``: a stopped node's log made anew. How, :mod:`replicad.rebuild` owns."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import click

from replicad import configfile, eventloop
from replicad.cli.options import Session, config_option, epilog, output_option
from replicad.cli.output import Output, count_text, stderr_is_terminal
from replicad.nodekeys import keyring_of


@click.command(
    "rebuild",
    epilog=epilog(
        """\
Json: data_dir, node, size, own, fetched, root.
Exit code 11: too much is damaged, or no other node can help now; nothing has
  changed then.""",
        """\
Examples:
  systemctl stop replicad && replicad-cli rebuild && systemctl start replicad
  replicad-cli rebuild --config n1.yaml --output json""",
    ),
)
@config_option("The config of the node on this host whose log is damaged.")
@output_option
@click.pass_obj
def command(session: Session, *, config_file: Path) -> None:
    """Make a damaged log anew, of what is whole in it and of what other nodes have committed.

    For a file whose structure is damaged, which a node can't repair while it runs. Run on the node's host, as root or
    as the daemon's user, while the node is stopped and others run. Every batch is proven. The node keeps its promise
    and its place: it has all again that it ever acknowledged, or nothing is changed. Where the file does not tell any
    more how far that went, the master is asked. The old file is kept beside the new one, as log.db.damaged-TIME: remove
    it when you are content.
    """
    # --help must not wait for these
    from replicad import logs  # noqa: PLC0415
    from replicad.rebuild import rebuild  # noqa: PLC0415
    from replicad.transport import tls  # noqa: PLC0415
    from replicad.transport.supplying import Fetching  # noqa: PLC0415

    output = Output(session)
    config = configfile.load(config_file, signs=False)
    identity = tls.load(config, now_s=time.time())
    log = logs.get_logger("replicad")
    fetching = Fetching(config, tls=tls.NodeTls(config, identity, log=log) if identity else None)
    with ExitStack() as stack:
        if not session.json and stderr_is_terminal():
            from replicad.cli.progress import spinner  # noqa: PLC0415 - rich costs a script 50 ms

            stack.enter_context(spinner(f"rebuilding {config.data_dir} ..."))
        made = eventloop.run(rebuild(config, keyring=keyring_of(config), fetch=fetching.batches, end=fetching.end))
    output.tell(
        f"{config.data_dir}: node {made.node} has {count_text(made.size, 'record')}, {made.own} of its own "
        f"and {made.fetched} from other nodes, root {made.root.hex()}",
        {
            "data_dir": str(config.data_dir),
            "node": made.node,
            "size": made.size,
            "own": made.own,
            "fetched": made.fetched,
            "root": made.root.hex(),
        },
        done=f"the log in {config.data_dir} is made anew",
    )
