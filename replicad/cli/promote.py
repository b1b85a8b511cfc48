"""``replicad-cli promote``."""

from __future__ import annotations

import sys

import click

from replicad.cli.connect import DEFAULT_TIMEOUT
from replicad.cli.lead import lead
from replicad.cli.leadership import Plan, plan_promotion
from replicad.cli.options import Session, common_options, epilog, timeout_option
from replicad.client import AsyncClient, Leading


@click.command(
    "promote",
    epilog=epilog(
        """\
Needs a token with the role admin. Safe to repeat: it goes on where it was
  broken off, and does nothing where the node is the master already.
Json: node, done, dry_run, epoch, size, took_s, plan.""",
        """\
Examples:
  replicad-cli promote --dry-run log-2
  replicad-cli promote log-2 --address 10.0.0.12:50052,10.0.0.13:50052
  replicad-cli promote log-2 --accept-data-loss --dry-run""",
    ),
)
@click.argument("node", metavar="NODE")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option(
    "--accept-data-loss",
    is_flag=True,
    help="For the day when most voters are lost for good, and taken out of the config of those that are left.",
)
@click.option("--yes", is_flag=True, help="With --accept-data-loss: do not ask.")
@timeout_option(DEFAULT_TIMEOUT, "How long to wait until it is open; it goes on trying after that.")
@common_options
@click.pass_obj
def command(session: Session, *, node: str, dry_run: bool, accept_data_loss: bool, yes: bool, timeout_s: float) -> None:
    """Make NODE the master, when the one there was is gone.

    It needs promises of enough voters that one of them has whatever was acknowledged at a majority, and takes from them
    what it lacks: nothing of that is lost. The old master, when it comes back, is a worker. With a master that is open,
    use switchover.

    With --accept-data-loss it goes on without those voters, once all that its config has are there. It tells which
    offsets are at risk, asks, and the log says for ever that it was done.
    """

    async def act(client: AsyncClient, plan: Plan, address: str) -> Leading:
        return await client.promote(address, accept_data_loss=accept_data_loss, timeout_s=timeout_s)

    def ask() -> None:
        if not accept_data_loss or yes:
            return
        if not sys.stdin.isatty():
            raise click.UsageError("Nobody is there to be asked: give --yes to accept that data is lost.")
        question = f"Make {node} the master, and lose what is at risk? Write its name to go on"
        if click.prompt(question, default="", err=True) != node:
            raise click.UsageError(f"That is not {node}: nothing is done.")

    lead(
        session,
        lambda rows: plan_promotion(rows, node, accept_data_loss=accept_data_loss),
        act,
        dry_run=dry_run,
        timeout_s=timeout_s,
        ask=ask,
    )
