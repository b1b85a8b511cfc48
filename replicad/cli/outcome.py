"""``replicad-cli outcome``."""

from __future__ import annotations

import click

from replicad.cli.connect import DEFAULT_TIMEOUT, make_client, run
from replicad.cli.options import Session, common_options, epilog, timeout_option
from replicad.cli.output import Output, nodes_text, time_text
from replicad.client import Outcome


@click.command(
    "outcome",
    epilog=epilog(
        """\
Json: id, offset, epoch, time, committed, nodes.""",
        """\
Examples:
  replicad-cli outcome 01a207f3-5112-77b6-880f-42eb1c828373
  replicad-cli outcome order-7 --output json | jq .offset""",
    ),
)
@click.argument("message_id", metavar="ID")
@timeout_option(DEFAULT_TIMEOUT, "How long to wait for a node that answers.")
@common_options
@click.pass_obj
def command(session: Session, message_id: str, timeout_s: float) -> None:
    """Say whether and where the message with this ID stands in the log.

    The master is asked first. Exit code 5: it is not in the log.
    """
    output = Output(session)

    async def ask() -> Outcome:
        async with make_client(session, timeout_s=timeout_s) as client:
            return await client.outcome(message_id)

    outcome = run(ask())
    state = "committed" if outcome.committed else "uncommitted"
    time = time_text(outcome.time_ms)
    output.show(
        f"offset {outcome.offset}  epoch {outcome.epoch}  {time}  {state}  on {nodes_text(outcome.nodes)}",
        {
            "id": outcome.id,
            "offset": outcome.offset,
            "epoch": outcome.epoch,
            "time": time,
            "committed": outcome.committed,
            "nodes": outcome.nodes,
        },
    )
