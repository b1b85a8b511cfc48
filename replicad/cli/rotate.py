"""``replicad-cli keys rotate``: a node's signing key is replaced while the cluster works, in three steps.

Owns the command line; the steps are in :mod:`replicad.cli.rotatesteps`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from replicad.cli.options import FilePath, Group, Session, config_option, epilog, output_option, timeout_option

_Function = TypeVar("_Function", bound=Callable[..., Any])
_FIELDS = """\
Json: node, state (steady, prepared, activated), key_file, key_id,
  next_key_id, old_key_ids, signs_with (null: the node does not say),
  public_key and former_keys (as every config is to have them: until is
  left out of a key that has no end yet), unaware (nodes that do not know
  all keys that may sign), unreachable, next."""


def _examples(step: str) -> str:
    return epilog(
        _FIELDS,
        f"""\
Examples:
  replicad-cli keys rotate {step}
  replicad-cli keys rotate {step} --config n1.yaml --key /etc/credstore/n1.key""",
    )


def _options(function: _Function) -> _Function:
    """What all steps take."""
    config = config_option("The config of the node whose key it is.")
    key = click.option(
        "--key",
        "key_file",
        type=FilePath(),
        metavar="FILE",
        help="The node's private key file, where the config does not name it.  [default: the config's key]",
    )
    timeout = timeout_option("2s", "How long to wait for each node's answer.")
    return output_option(config(key(timeout(function))))


@click.group("rotate", cls=Group, no_args_is_help=False)
@output_option
def command() -> None:
    """Replace a node's signing key while the cluster works: prepare, activate, retire.

    Run on the node itself, as the owner of its key file or as root. Each step says what is to be done before the next,
    changes nothing while that is not done, and is safe to repeat. AUTH_TOKEN serves to ask the nodes what they
    know; with TLS they are known by REPLICAD_CA, else by the CA bundle that the config names.
    """


@command.command("status", epilog=_examples("status"))
@_options
@click.pass_obj
def status(session: Session, /, **where: Any) -> None:
    """Say how a rotation stands, and what is to be done next. Changes nothing."""
    _step("status")(session, **where)


@command.command("prepare", epilog=_examples("prepare"))
@_options
@click.pass_obj
def prepare(session: Session, /, **where: Any) -> None:
    """Make the next key, beside the one in use, and show what every node's config is to have.

    While a rotation is under way no other is begun: what it needs is shown again.
    """
    _step("prepare")(session, **where)


@command.command("activate", epilog=_examples("activate"))
@_options
@click.pass_obj
def activate(session: Session, /, **where: Any) -> None:
    """Put the next key in the place of the node's key; the node takes it at its next reload.

    Refused while this node's config, or a node that answers, does not know the new key, and while no majority answers.
    A node that does not answer is not waited for: until it knows the key it takes nothing that is signed with it, and
    then catches up by itself.
    """
    _step("activate")(session, **where)


@command.command("retire", epilog=_examples("retire"))
@_options
@click.pass_obj
def retire(session: Session, /, **where: Any) -> None:
    """Say up to which offset the old key is to be believed, and remove its private file.

    Refused while the node may still sign with the old key. The offset is where the last batch ends that the old key has
    signed in this node's log. Every node's config gets it.
    """
    _step("retire")(session, **where)


def _step(name: str) -> Callable[..., None]:
    from replicad.cli import rotatesteps  # noqa: PLC0415 - it brings gRPC along, which --help must not wait for

    step: Callable[..., None] = getattr(rotatesteps, name)
    return step
