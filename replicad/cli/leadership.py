"""What an operator should know before another node becomes the master: from what all nodes tell of themselves.

Owns whether it can work, and what becomes of whom. Pure: must not ask nodes, nor change anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from replicad.cli.errors import Failure
from replicad.cli.status import Row
from replicad.core.voters import fence_quorum
from replicad.errors import ExitCode


@dataclass(frozen=True, slots=True)
class Plan:
    """``address`` is the node's that is to be called; None when there is nothing to do. ``text`` says what follows."""

    node: str
    address: str | None
    text: str


def open_master(rows: Sequence[Row]) -> Row | None:
    """The node that is open; of two that believe it the one with the higher epoch."""
    masters = [(row.own.epoch, row) for row in rows if row.own and (row.own.role, row.own.state) == ("master", "open")]
    return max(masters, key=lambda each: each[0], default=(0, None))[1]


def plan_promotion(rows: Sequence[Row], name: str, *, accept_data_loss: bool = False) -> Plan:
    """Raises Failure where a promotion could not work, or should not be."""
    row, master = _row(rows, name), open_master(rows)
    if row.own is None:
        raise _failure(f"{name} does not answer at {row.address}: {row.error}", "start it, or promote another node")
    if row is master:
        return Plan(name, None, f"{name} is the master, and open: there is nothing to do")
    if master is not None:
        remedy = f"replicad-cli switchover --to {name}"
        raise _failure(f"{master.name} is the master, and open", remedy)
    _need_vote(row)
    if not accept_data_loss:
        _need_whole(row)
    voters = [each for each in rows if each.seen is not None and each.seen.voter]
    reached = [each for each in voters if each.own is not None]
    missing = [each.name for each in voters if each.own is None]
    if accept_data_loss:
        return Plan(name, row.address, _losing_text(name, reached, missing))
    needed = fence_quorum(len(voters))
    if len(reached) < needed:
        raise _failure(
            f"{needed} of the {len(voters)} voters have to promise that they follow {name}, and "
            f"{_names([each.name for each in reached])} alone can: not reached: {_names(missing)}",
            "start one of them, or mend the network to it; if they are lost for good, see --accept-data-loss",
        )
    ahead = max(reached, key=lambda each: each.own.size if each.own else 0)
    size, most = row.own.size, ahead.own.size if ahead.own else 0
    text = f"{_names([each.name for each in reached])} are reached, and {needed} of {len(voters)} voters are enough. "
    if most > size:
        text += f"{name} has {size} records, and takes {most - size} more from {ahead.name}. "
    else:
        text += f"{name} has {size} records, and nobody that is reached has more. "
    empty = [each.name for each in reached if most and each.own and not each.own.size]
    if empty:
        text += (
            f"{_names(empty)}: no records there. If a disk was lost, it does not count as a copy any more, and what it "
            "had acknowledged may be lost: then bring it back without a vote before anybody is promoted. "
        )
    if missing:
        text += (
            f"Not reached: {_names(missing)}. What was acknowledged at a majority is not lost with them; what they "
            "alone have goes to their quarantine when they are back. "
        )
    return Plan(name, row.address, text.strip())


def _losing_text(name: str, reached: Sequence[Row], missing: Sequence[str]) -> str:
    """What is at risk without quorums of the voters that there were. Raises Failure: one that is left may have more."""
    if missing:
        raise _failure(
            f"with --accept-data-loss all voters of the config are needed, for each may be the one that has most; "
            f"not reached: {_names(missing)}",
            "start them; or, if they are lost for good, take them out of `nodes` in the config of every node that is "
            "left, restart those, and repeat this",
        )
    statuses = [each.own for each in reached if each.own is not None]
    size, commit_size = (max(getattr(each, of) for each in statuses) for of in ("size", "commit_size"))
    unsure = (
        f"Offsets {commit_size} to {size - 1} are kept; the voters that are gone may have other records there. "
        if commit_size < size
        else ""
    )
    return (
        f"DATA MAY BE LOST. {_names([each.name for each in reached])}: all voters of the config are reached, and have "
        f"{size} records. {unsure}Whatever the voters that are gone acknowledged at offset {size} and beyond is lost; "
        "nobody here can tell how much that is. They must not come back with their data, or there are two logs. "
        "Where quorums of all voters that the log names are there after all, nothing is lost."
    )


def plan_switchover(rows: Sequence[Row], to: str) -> Plan:
    """``to`` "" is the worker that has most. Raises Failure where it could not work."""
    master = open_master(rows)
    wanted = _row(rows, to) if to else None
    if master is None:
        raise _failure("no node is the master, and open", f"replicad-cli promote {to or 'NODE'}")
    if wanted is master:
        return Plan(to, None, f"{to} is the master, and open: there is nothing to do")
    if wanted is not None:
        _need_vote(wanted)
        chosen = wanted
    else:
        workers = [each for each in rows if each is not master and each.seen and each.seen.voter]
        able = [each for each in workers if each.health == "HEALTHY" and not (each.own and each.own.damage)]
        if not able:
            raise _failure(f"{master.name} has no healthy worker with a vote", "see replicad-cli status")
        chosen = min(able, key=lambda each: each.lag or 0)
    _need_whole(chosen)
    if chosen.health != "HEALTHY":
        raise _failure(f"{chosen.name} is {chosen.health} to the master {master.name}", "see replicad-cli status")
    behind = f"{chosen.lag} records behind" if chosen.lag else "level with it"
    return Plan(chosen.name, master.address, f"{master.name} hands over to {chosen.name}, which is {behind}")


def _row(rows: Sequence[Row], name: str) -> Row:
    for row in rows:
        if row.name == name:
            return row
    names = _names([row.name for row in rows if row.name != "?"])
    raise Failure(f"{name!r} is no node of the cluster: {names}", exit_code=ExitCode.USAGE)


def _need_vote(row: Row) -> None:
    if row.seen is not None and not row.seen.voter:
        raise Failure(f"{row.name} has no vote, and a master has one", exit_code=ExitCode.USAGE)


def _need_whole(row: Row) -> None:
    if row.own is not None and row.own.damage:
        raise _failure(
            f"{row.name} is not to be the master: {row.own.damage}",
            "take another node, or wait until it is repaired: see replicad-cli status",
        )


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _failure(text: str, remedy: str) -> Failure:
    return Failure(text, exit_code=ExitCode.TRY_AGAIN, remedy=remedy)
