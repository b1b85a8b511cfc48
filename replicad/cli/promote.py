"""``replicad-cli promote``."""

from __future__ import annotations

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
  replicad-cli promote log-2 --address 10.0.0.12:50052,10.0.0.13:50052""",
    ),
)
@click.argument("node", metavar="NODE")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@timeout_option(DEFAULT_TIMEOUT, "How long to wait until it is open; it goes on trying after that.")
@common_options
@click.pass_obj
def command(session: Session, node: str, dry_run: bool, timeout_s: float) -> None:
    """Make NODE the master, when the one there was is gone.

    It needs promises of enough voters that one of them has whatever was acknowledged at a majority, and takes from them
    what it lacks: nothing of that is lost. The old master, when it comes back, is a worker. With a master that is open,
    use switchover.
    """

    async def act(client: AsyncClient, plan: Plan, address: str) -> Leading:
        return await client.promote(address, timeout_s=timeout_s)

    lead(session, lambda rows: plan_promotion(rows, node), act, dry_run=dry_run, timeout_s=timeout_s)
