"""Lists of voters: their quorums, what an epoch's first record says of them, and which of them an opening must respect.

Owns the payload of that record (docs/formats.md) and the rule by which one list follows another (docs/adr/0023). Must
not know who has promised or stored what.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

VoterList = tuple[str, ...]  # names of nodes: sorted, each once

MAX_VOTERS = 31  # as many as a config has nodes
MAX_PRIOR = 16  # each is one more list of which a quorum must be there: whoever has so many has lost count
MAX_STANDING = MAX_PRIOR + 1
MAX_PAYLOAD_BYTES = 65_536  # so many lists of the longest names are 36 KB

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")  # as a config's names are


def commit_quorum(voters: int) -> int:
    """W = floor(V/2) + 1."""
    return voters // 2 + 1


def fence_quorum(voters: int) -> int:
    """R = V - W + 1: any R voters share one with any W."""
    return voters - commit_quorum(voters) + 1


@dataclass(frozen=True, slots=True)
class EpochLists:
    """What an epoch's first record says of voters.

    1. ``prior`` and ``waived`` are sorted, each list stands once in one of them, and ``voters`` does not.
    """

    voters: VoterList  # that the epoch's master opens with
    prior: tuple[VoterList, ...] = ()  # that were not known to be replaced for good when it began
    waived: tuple[VoterList, ...] = ()  # the same, without a quorum: an operator accepted that data is lost

    def encode(self) -> bytes:
        """The record's payload: compact JSON, ASCII, keys in this order; empty ``prior`` or ``waived`` is left out."""
        fields: dict[str, object] = {"voters": self.voters}
        if self.prior:
            fields["prior"] = self.prior
        if self.waived:
            fields["waived"] = self.waived
        return json.dumps(fields, separators=(",", ":")).encode("ascii")


def parse_lists(payload: bytes) -> EpochLists | None:
    """The inverse of :meth:`EpochLists.encode`; None for no payload, which is what release 0.1 wrote.

    Raises ValueError unless the bytes are such an encoding, within the limits.
    """
    if not payload:
        return None
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"it has {len(payload)} bytes, at most {MAX_PAYLOAD_BYTES} are allowed")
    try:
        fields = json.loads(payload)
    except (ValueError, RecursionError) as exc:
        raise ValueError("it is no JSON") from exc
    if not isinstance(fields, dict) or not {"voters"} <= fields.keys() <= {"voters", "prior", "waived"}:
        raise ValueError("it is not an object with voters and, perhaps, prior and waived")
    voters = _voter_list(fields["voters"])
    lists = EpochLists(voters, *(_voter_lists(fields.get(key, []), key) for key in ("prior", "waived")))
    others = [*lists.prior, *lists.waived]
    if len(others) > MAX_PRIOR:
        raise ValueError(f"it names {len(others)} lists beside its own, at most {MAX_PRIOR} are allowed")
    once = len({voters, *others}) == 1 + len(others)
    in_order = all(list(each) == sorted(each) for each in (lists.prior, lists.waived))
    if not once or not in_order or lists.encode() != payload:
        raise ValueError("it is not in its one form: sorted, each name and list once, compact")
    return lists


def _voter_lists(lists: object, key: str) -> tuple[VoterList, ...]:
    if not isinstance(lists, list) or len(lists) > MAX_PRIOR:
        raise ValueError(f"{key} is not a list of at most {MAX_PRIOR} lists")
    return tuple(_voter_list(each) for each in lists)


def _voter_list(names: object) -> VoterList:
    if not isinstance(names, list) or not 1 <= len(names) <= MAX_VOTERS:
        raise ValueError(f"a list of voters is not one of 1 to {MAX_VOTERS} names")
    if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names) or names != sorted(set(names)):
        raise ValueError("a list of voters holds what is no name, or is not sorted, or has a name twice")
    return tuple(names)


def standing(logged: EpochLists | None, *, committed: bool, configured: VoterList) -> tuple[VoterList, ...]:
    """The lists of each of which an opening needs a quorum, sorted: the configured one is among them.

    ``logged`` is what the log's last epoch record says (None: nothing, as those of release 0.1), ``committed`` whether
    that record is known to be committed: then the lists before its own are replaced for good.
    """
    lists = {configured}
    if logged is not None:
        lists.add(logged.voters)
        if not committed:
            lists.update(logged.prior)
    return tuple(sorted(lists))
