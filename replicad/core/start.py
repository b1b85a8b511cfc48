"""What a machine starts from: a node's log as its disk has it. Must not know the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from replicad.core.tree import Tree


class EpochRecord(NamedTuple):
    """Where the first record of the log's last epoch stands, and what it says."""

    offset: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class StoreState:
    """1. commit_size <= size == tree.size; last_epoch <= promised_epoch."""

    size: int  # records on disk
    last_epoch: int  # of the last record; 0 for an empty log
    promised_epoch: int  # never answer a lower one
    promised_to: str  # the node that was promised it; "" for none: an epoch has one master at most
    greatest_id: str  # greatest id in the log in string order, ids of the log itself (reserved) left out; "" for none
    commit_size: int  # as last stored
    epoch_record: EpochRecord | None  # of `last_epoch`; None when the log has none
    tree: Tree  # the caller's own: over all `size` records
