"""What a caller of a store may not ask for: the contract's own invariants, the same words for every store."""

from __future__ import annotations

from collections.abc import Sequence

from replicad.core.batch import Append
from replicad.errors import invariant


def check_appends(appends: Sequence[Append], *, size: int, commit_size: int) -> int:
    """The log's size after these appends, which follow one on the other from ``size`` on. Raises InvariantError."""
    end = size
    for append in appends:
        batch = append.batch
        invariant(batch.first_offset == end, f"a batch at offset {batch.first_offset}, the log ends at {end}")
        ids = len(append.ids)
        invariant(ids == batch.count >= 1, f"the batch at offset {end} has {batch.count} records and {ids} ids")
        end = batch.end
    invariant(commit_size <= end, f"commit size {commit_size} beyond size {end}")
    return end


def check_promise(epoch: int, master: str, *, promised_epoch: int, promised_to: str) -> None:
    """An epoch is promised once, to one node, and no lower one after it. Raises InvariantError."""
    invariant(
        epoch > promised_epoch or (epoch, master) == (promised_epoch, promised_to),
        f"epoch {epoch} promised to {master!r}, after epoch {promised_epoch} to {promised_to!r}",
    )


def check_truncate(size: int, *, log_size: int, commit_size: int) -> None:
    """Nothing below the commit size is ever dropped. Raises InvariantError."""
    invariant(
        commit_size <= size <= log_size,
        f"truncate to {size}: the log has {log_size} records, {commit_size} of them committed",
    )
