"""``replicad-cli status``: every node's account of itself, side by side.

Owns who is asked, and which account is believed for what: a node's own of itself, the master's of health and lag.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import click

from replicad.cli.connect import make_client, node_addresses, run
from replicad.cli.errors import Failure, plain, service_failure
from replicad.cli.options import Session, common_options, epilog, timeout_option
from replicad.cli.output import Output, columns_text, escape_text
from replicad.client import AsyncClient, NodeStatus, Status
from replicad.errors import Forbidden, ServiceError, Unauthorized

SHORT_ROOT = 12  # hex digits: enough to see two roots differ
MIB = 1 << 20
DAY_S = 86_400
NOTED_DAYS = 30  # as the daemon's own default, tls.notice_days
WELL = ("open", "following")  # states of nodes that do what they are for

Answer = Status | ServiceError


@dataclass(frozen=True, slots=True)
class Row:
    """A node. 1. ``own`` is its own answer, or None and ``error`` says why there is none."""

    name: str
    address: str
    own: Status | None
    error: str
    seen: NodeStatus | None  # by the master, or else by a node that answered
    seen_by_master: bool
    lag: int | None  # records; None when nobody knows

    @property
    def health(self) -> str:
        """As the master sees it."""
        if not self.seen_by_master or self.seen is None:
            return "unknown"
        return "HEALTHY" if self.seen.health == "self" else self.seen.health

    @property
    def note(self) -> str:
        """What a person should look at; "" for a node that is well."""
        seen = self.seen.detail if self.seen_by_master and self.seen is not None else ""
        own = self.own.detail if self.own is not None and self.own.state not in WELL else ""
        certificate = certificate_note(self.own.certificate_expires_ms, now_s=time.time()) if self.own else ""
        vote = "" if self.seen is None or self.seen.voter else "has no vote"
        damage = self.own.damage if self.own else ""
        remarks = (self.error, damage, vote, own, seen and f"the master says: {seen}", certificate)
        return "; ".join(filter(None, remarks))


def certificate_note(expires_ms: int, *, now_s: float) -> str:
    """What to say of a certificate that ends then; "" while that is far, and for 0: no TLS."""
    left_days = (expires_ms / 1000 - now_s) / DAY_S
    if not expires_ms or left_days > NOTED_DAYS:
        return ""
    return f"its certificate ends in {left_days:.1f} days" if left_days > 0 else "its certificate has expired"


@click.command(
    "status",
    epilog=epilog(
        """\
State, sizes, root and memory are what the node says of itself; health and
  lag are as the master sees them. Exit code 0 when any node answers.
Json, an object a node: cluster, node, address, reachable, error, role,
  state, epoch, size, commit_size, lag, root (hex), rss_bytes, health,
  voter, version, uptime_ms, master, commit_quorum, certificate_expires_ms,
  damage, scrubbed_ms, detail, note; null where it is not known.""",
        """\
Examples:
  replicad-cli status
  replicad-cli --address 127.0.0.1:50053 status
  replicad-cli status --output json | jq -r 'select(.lag != 0) | .node'""",
    ),
)
@timeout_option("2s", "How long to wait for each node.")
@common_options
@click.pass_obj
def command(session: Session, timeout_s: float) -> None:
    """Show all nodes: role, state, epoch, size, commit size, lag, root, memory, health.

    Any one address is enough: the others are learned from the node there, and each is asked itself.
    """
    output = Output(session)

    async def ask() -> list[Row]:
        async with make_client(session, timeout_s=timeout_s) as client:
            return await survey(client, node_addresses(session))

    show_rows(run(ask()), output)


def show_rows(rows: Sequence[Row], output: Output) -> None:
    """Print the rows in whatever form the output has."""
    if output.json:
        for row in rows:
            output.show("", _fields(row))
    elif output.terminal:
        from replicad.cli.statustable import print_table  # noqa: PLC0415 - rich costs a script 50 ms

        print_table(rows)
    else:
        output.write(columns_text([_TITLES, *(_cells(row) for row in rows)]))


async def survey(client: AsyncClient, addresses: Iterable[str]) -> list[Row]:
    """A row for each node of the cluster. Raises the most telling error when no node answers."""
    by_address: dict[str, Answer] = await _ask(client, addresses)
    answers = [answer for answer in by_address.values() if isinstance(answer, Status)]
    if not answers:
        raise nobody(by_address)
    asked = {answer.node for answer in answers}
    learned = [node for node in answers[0].nodes if node.name not in asked and node.address not in by_address]
    by_address |= await _ask(client, [node.address for node in learned])
    return rows_of(by_address)


async def _ask(client: AsyncClient, addresses: Iterable[str]) -> dict[str, Answer]:
    async def one(address: str) -> Answer:
        try:
            return await client.status(address)
        except ServiceError as error:
            return error

    wanted = list(addresses)
    return dict(zip(wanted, await asyncio.gather(*map(one, wanted)), strict=True))


def nobody(answers: Mapping[str, Answer]) -> Failure:
    """What to tell when none of these is an answer: a refusal says more than a silence."""
    errors = [answer for answer in answers.values() if isinstance(answer, ServiceError)]
    for error in errors:
        if isinstance(error, Unauthorized | Forbidden):
            return service_failure(error)
    failure = service_failure(errors[0])
    told = "; ".join(plain(error.message) for error in errors)
    return Failure(
        f"no node answers: {told}",
        exit_code=failure.exit_code,
        name=failure.name,
        code=failure.code,
        remedy=failure.remedy,
    )


def rows_of(by_address: Mapping[str, Answer]) -> list[Row]:
    """A row for each node of the cluster, from the answers by address, one of which at least is a Status."""
    own = {answer.node: answer for answer in by_address.values() if isinstance(answer, Status)}
    # The newest epoch's master knows best; a deposed one may still think that it is.
    masters = sorted((each for each in own.values() if each.role == "master"), key=lambda each: each.epoch)
    teller = masters[-1] if masters else next(iter(own.values()))
    rows = []
    for node in teller.nodes:
        answer = own.get(node.name)
        failed = by_address.get(node.address)
        rows.append(
            Row(
                name=node.name,
                address=node.address,
                own=answer,
                error=plain(failed.message) if answer is None and isinstance(failed, ServiceError) else "",
                seen=node,
                seen_by_master=bool(masters),
                lag=node.lag if masters else None,
            )
        )
    known = {node.address for node in teller.nodes}
    rows += [
        Row(name="?", address=address, own=None, error=plain(answer.message), seen=None, seen_by_master=False, lag=None)
        for address, answer in by_address.items()
        if isinstance(answer, ServiceError) and address not in known
    ]
    return rows


_TITLES = ("NODE", "ADDRESS", "ROLE", "STATE", "EPOCH", "SIZE", "COMMITTED", "LAG", "ROOT", "RSS", "HEALTH", "NOTE")


def _cells(row: Row) -> tuple[str, ...]:
    own, lag = row.own, "" if row.lag is None else str(row.lag)
    note = escape_text(row.note)
    if own is None:
        role = row.seen.role if row.seen else ""
        return (row.name, row.address, role, "unreachable", "", "", "", lag, "", "", row.health, note)
    return (
        row.name,
        row.address,
        own.role,
        own.state,
        str(own.epoch),
        str(own.size),
        str(own.commit_size),
        lag,
        own.root.hex()[:SHORT_ROOT],
        f"{own.rss_bytes / MIB:.0f}MiB",
        row.health,
        note,
    )


def _fields(row: Row) -> dict[str, object]:
    own = row.own
    return {
        "cluster": own.cluster if own else None,
        "node": row.name,
        "address": row.address,
        "reachable": own is not None,
        "error": row.error,
        "role": own.role if own else row.seen.role if row.seen else None,
        "state": own.state if own else None,
        "epoch": own.epoch if own else None,
        "size": own.size if own else None,
        "commit_size": own.commit_size if own else None,
        "lag": row.lag,
        "root": own.root.hex() if own else None,
        "rss_bytes": own.rss_bytes if own else None,
        "health": row.health,
        "voter": row.seen.voter if row.seen else None,
        "version": own.version if own else None,
        "uptime_ms": own.uptime_ms if own else None,
        "master": own.master if own else None,
        "commit_quorum": own.commit_quorum if own else None,
        "certificate_expires_ms": (own.certificate_expires_ms or None) if own else None,
        "damage": own.damage if own else None,
        "scrubbed_ms": (own.scrubbed_ms or None) if own else None,
        "detail": own.detail if own else None,
        "note": row.note,
    }
