"""``replicad-cli switchover``."""

from __future__ import annotations

import click

from replicad.cli.connect import DEFAULT_TIMEOUT
from replicad.cli.lead import lead
from replicad.cli.leadership import Plan, plan_switchover
from replicad.cli.options import Session, common_options, epilog, timeout_option
from replicad.client import AsyncClient, Leading


@click.command(
    "switchover",
    epilog=epilog(
        """\
Needs a token with the role admin. Safe to repeat: it goes on where it was
  broken off, and does nothing where the node is the master already.
Json: node, done, dry_run, epoch, size, took_s, plan.""",
        """\
Examples:
  replicad-cli switchover --dry-run
  replicad-cli switchover --to log-2""",
    ),
)
@click.option("--to", metavar="NODE", help="The next master; by default the worker that has most.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@timeout_option(DEFAULT_TIMEOUT, "How long posts may wait; after that the master there is goes on.")
@common_options
@click.pass_obj
def command(session: Session, to: str | None, dry_run: bool, timeout_s: float) -> None:
    """Have the master hand over to another node.

    It takes no more posts, waits until the other has all that it has, and becomes a worker. Nothing that was
    acknowledged is lost; clients of the library wait for well under a second, and see no error.
    """
    if to == "":  # a variable that nobody has set is no leave to take any node
        raise click.BadParameter("it is empty; name a node, or leave it out", param_hint="'--to'")

    async def act(client: AsyncClient, plan: Plan, address: str) -> Leading:
        return await client.switchover(plan.node, address=address, timeout_s=timeout_s)

    lead(session, lambda rows: plan_switchover(rows, to or ""), act, dry_run=dry_run, timeout_s=timeout_s)
