"""What an operator is told of an opening that waits for voters: of which list, who of it is missing, and the remedy.

Owns the words. Must not decide anything.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from replicad.core.voters import MAX_PRIOR, VoterList, commit_quorum, fence_quorum

Need = Literal["promise", "store"]  # the epoch; its first record


def waiting(configured: VoterList, *, forced: bool = False) -> str:
    """Before anything is known of the others."""
    if forced:
        return f"waiting for all {len(configured)} voters of its config, since data may be lost"
    return f"waiting for {fence_quorum(len(configured))} of {len(configured)} nodes"


def waived(lists: Collection[VoterList], *, size: int, commit_size: int) -> str:
    """What an operator has accepted, for a log with these sizes."""
    others = "; ".join(", ".join(voters) for voters in lists)
    unsure = f"they may have other records at {commit_size} to {size - 1}, and " if commit_size < size else ""
    return (
        f"begins without a quorum of the voters {others}, as an operator wants: {unsure}what they acknowledged at "
        f"offset {size} and beyond is lost; those that are not in this config must not come back with their data"
    )


def shortfall(
    lacking: Collection[VoterList],
    need: Need,
    *,
    have: Collection[str],
    nodes: Collection[str],
    configured: VoterList,
    epoch: int,
    forced: bool = False,
) -> tuple[str, str]:
    """What all of these lists wait for, and that part of it which waits without end: the config lacks the nodes.

    ``have`` are the nodes that do what is needed, ``nodes`` all of the config. While the configured list itself lacks
    promises, nothing is said of others: a node that is ahead may yet tell that they are gone.
    """
    texts, blocked = [], []
    lacking = [configured] if need == "promise" and configured in lacking else lacking
    for voters in lacking:
        quorum = (fence_quorum if need == "promise" else commit_quorum)(len(voters))
        if voters == configured:
            texts.append(
                waiting(configured, forced=forced)
                if need == "promise"
                else f"epoch {epoch} waits for its first record to be on {quorum} nodes"
            )
            continue
        text = _of_earlier(voters, quorum, need, have=have, nodes=nodes, epoch=epoch)
        texts.append(text)
        if sum(name in nodes for name in voters) < quorum:
            blocked.append(text)
    return "; ".join(texts), "; ".join(blocked)


def _of_earlier(
    voters: VoterList, quorum: int, need: Need, *, have: Collection[str], nodes: Collection[str], epoch: int
) -> str:
    """What a list from before the configured one waits for."""
    got = [name for name in voters if name in have]
    silent = [name for name in voters if name in nodes and name not in have]
    gone = [name for name in voters if name not in nodes]
    what = f"promise epoch {epoch}" if need == "promise" else f"have the first record of epoch {epoch} on disk"
    text = f"the voters {', '.join(voters)} may still be in force, and {quorum} of them must {what}: {len(got)} so far"
    if silent:
        text += f"; not yet: {', '.join(silent)}"
    if gone:
        text += f"; not under nodes in this config: {', '.join(gone)}"
    missing = quorum - len(got) - len(silent)
    if missing > 0:
        who = f"{missing} of them" if missing < len(gone) else ", ".join(gone)
        text += f"; put {who} back under nodes, with voter: false, and restart: once this master is open, they can go"
    return text


def too_many(lists: Collection[VoterList]) -> str:
    """There are more lists than the epoch's first record may name."""
    return (
        f"{len(lists)} lists of voters may still be in force, and an epoch may follow {MAX_PRIOR}: "
        "put the nodes of an earlier config back, and restart"
    )
