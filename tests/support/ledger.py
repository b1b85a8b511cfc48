"""What clients were told of their posts and shown of the log, and whether the log bears it out in the end.

Owns the record of claims and the judgement. Must not know how the claims came about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from replicad.errors import Applied, ServiceError, WriteConcernTimeout
from replicad.wire.codec import Record


@dataclass
class Ledger:
    """1. Every id that was ever posted is in exactly one of ``at``, ``unknown`` and ``refused``.
    2. What became known of an id later replaces that it was unknown; nothing else is ever replaced.
    """

    at: dict[str, int] = field(default_factory=dict)  # acknowledged, or said to be in the log: id and offset
    unknown: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)  # said not to be in the log, now and for ever
    seen: dict[int, str] = field(default_factory=dict)  # read as committed: offset and id
    commit_sizes: dict[str, int] = field(default_factory=dict)  # the greatest that each node has told

    def acknowledged(self, message_id: str, offset: int) -> None:
        assert self.at.setdefault(message_id, offset) == offset, f"{message_id} has two offsets"
        assert message_id not in self.refused, f"{message_id} was refused, and is at {offset}"
        self.unknown.discard(message_id)

    def failed(self, message_id: str, error: ServiceError | None) -> None:
        """A post ended with an error of the service, or (None) with none that says anything."""
        if isinstance(error, WriteConcernTimeout):
            assert error.offset is not None
            self.acknowledged(message_id, error.offset)
        elif error is not None and error.applied is Applied.NO:
            # Of this try; an earlier one, whose answer was lost, may have been applied.
            if message_id not in self.unknown and message_id not in self.at:
                self.refused.add(message_id)
        elif message_id not in self.at:
            self.unknown.add(message_id)

    def read(self, node: str, commit_size: int, records: Sequence[Record]) -> None:
        """A read at level committed."""
        known = self.commit_sizes.get(node, 0)
        assert commit_size >= known, f"the commit size of {node} fell from {known} to {commit_size}"
        self.commit_sizes[node] = commit_size
        for record in records:
            assert self.seen.setdefault(record.offset, record.id) == record.id, f"offset {record.offset} was taken back"

    def judge(self, logs: Mapping[str, Sequence[Record]]) -> None:
        """Every node's whole log, at the end of it all."""
        for node, records in logs.items():
            assert [record.offset for record in records] == list(range(len(records))), f"{node} has gaps"
            offsets = {record.id: record.offset for record in records}
            assert len(offsets) == len(records), f"{node} has an id twice"
            lost = {i: (at, offsets.get(i)) for i, at in self.at.items() if offsets.get(i) != at}
            assert not lost, f"{node} has lost or moved what was acknowledged: {dict(list(lost.items())[:5])}"
            there = [i for i in self.refused if i in offsets]
            assert not there, f"{node} has what was refused as not applied: {there[:5]}"
            ours = {i for i in offsets if not i.startswith("replicad:")}
            strange = ours - self.at.keys() - self.unknown
            assert not strange, f"{node} has what nobody posted: {sorted(strange)[:5]}"
            taken_back = [at for at, i in self.seen.items() if at >= len(records) or records[at].id != i]
            assert not taken_back, f"{node} has not what was read as committed at {taken_back[:5]}"
