"""``replicad-cli keys``: a node's key file and the public line of it, and keys that clients encrypt with.

What a key is, :mod:`replicad.keys` and :mod:`replicad.fernetkeys` own.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from replicad import fernetkeys, keys
from replicad.cli import rotate
from replicad.cli.options import FilePath, Group, Session, epilog, output_option
from replicad.cli.output import Output
from replicad.configvalues import is_name

SUFFIX = ".key"


@click.group("keys", cls=Group, no_args_is_help=False)
@output_option
def command() -> None:
    """Make, show and replace keys: those that nodes sign with, and those that clients encrypt with."""


command.add_command(rotate.command)


@command.command(
    "generate",
    epilog=epilog(
        """\
Json: node, key_file, public_key.""",
        """\
Examples:
  replicad-cli keys generate node-1
  replicad-cli keys generate node-1 --out /etc/replicad/node-1.key""",
    ),
)
@click.argument("node")
@click.option(
    "--out",
    "path",
    type=FilePath(),
    metavar="FILE",
    help=f"The new key file; an existing one is never overwritten.  [default: NODE{SUFFIX}, here]",
)
@output_option
@click.pass_obj
def generate(session: Session, node: str, path: Path | None) -> None:
    """Make a key for NODE: the private part into a file of mode 0600, the public line to standard output.

    The public line goes into the config of every node; the file is for the node's own eyes alone.
    """
    if not is_name(node):
        raise click.UsageError(f"{node!r} is no node name: 1 to 64 of a-z 0-9 . _ -, a letter or digit first.")
    key_file = path if path is not None else Path(f"{node}{SUFFIX}")
    public_key = keys.generate(node, key_file)
    Output(session).tell(
        public_key,
        {"node": node, "key_file": str(key_file), "public_key": public_key},
        done=f"the key is made: {key_file}",
        remedy=f"the public line again: replicad-cli keys show {key_file} --node {node}",
    )
    if not session.json:
        click.echo(
            f"private key: {key_file} (keep it secret); the line above goes into every node's config, under nodes",
            err=True,
        )


@command.command(
    "show",
    epilog=epilog(
        """\
Json: node, key_file, public_key.""",
        """\
Examples:
  replicad-cli keys show node-1                        # of ./node-1.key
  replicad-cli keys show /etc/replicad/node-1.key
  replicad-cli keys show /etc/replicad/key --node node-1""",
    ),
)
@click.argument("file_or_node", metavar="FILE|NODE")
@click.option(
    "--node", metavar="NODE", help=f"The name that the line is to have, where the file is not called NODE{SUFFIX}."
)
@output_option
@click.pass_obj
def show(session: Session, file_or_node: str, node: str | None) -> None:
    """Print the public line of a key file.

    A key file does not hold its node's name; it is taken from the file's name or from --node.
    """
    key_file = Path(file_or_node)
    if not (os.sep in file_or_node or file_or_node.endswith(SUFFIX) or key_file.is_file()):
        key_file, node = Path(f"{file_or_node}{SUFFIX}"), node or file_or_node
    if node is None:
        if key_file.suffix != SUFFIX:
            raise click.UsageError(f"Whose key is {key_file}? Give --node NAME.")
        node = key_file.stem
    if not is_name(node):
        raise click.UsageError(f"{node!r} is no node name; give --node NAME.")
    public_key = keys.load_signer(key_file, node).verifier.line
    Output(session).show(public_key, {"node": node, "key_file": str(key_file), "public_key": public_key})


@command.command(
    "generate-fernet",
    epilog=epilog(
        """\
Json: key, or with --out key_file.""",
        """\
To change keys, put the new one in front: FERNET_KEY=NEW,OLD, or as the first
  line of the key file. The first encrypts, all decrypt.""",
        """\
Examples:
  replicad-cli keys generate-fernet --out team.key
  export FERNET_KEY=$(replicad-cli keys generate-fernet)""",
    ),
)
@click.option(
    "--out",
    "path",
    type=FilePath(),
    metavar="FILE",
    help="Write it into this new key file, of mode 0600.  [default: to standard output]",
)
@output_option
@click.pass_obj
def generate_fernet(session: Session, path: Path | None) -> None:
    """Make a key with which clients encrypt payloads, end to end.

    Whoever has it can read, and write what others take for yours. Nodes never get it; what it has encrypted is lost
    with it.
    """
    key = fernetkeys.generate()
    if path is None:
        Output(session).show(key, {"key": key})
        return
    fernetkeys.write_new_file(path, key)
    Output(session).show(f"key file: {path}", {"key_file": str(path)})
