"""What clients were told, all the while, and whether the nodes' logs bear it out in the end.

Owns the record of claims and the judgement on them. Must not know how the claims came about, nor of faults.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from replicad.errors import Applied, ServiceError

RSS_MIB = 400  # what a node may take, whoever is slow, away or behind: several times what it needs
Logs = Mapping[str, Sequence[str]]  # each node's ids, in the order of their offsets


class Violation(AssertionError):
    """A promise was broken."""


@dataclass
class History:
    """1. An id is in one of ``safe``, ``weak``, ``unknown`` and ``refused``, or its post is under way."""

    safe: dict[str, int] = field(default_factory=dict)  # acknowledged at a majority or more: never lost
    weak: set[str] = field(default_factory=set)  # acknowledged by less: may be lost with a node
    unknown: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)  # said not to be applied, now and for ever
    seen: dict[int, str] = field(default_factory=dict)  # read as committed: offset and id
    commit_sizes: dict[str, int] = field(default_factory=dict)  # the greatest that each node has told
    rss_mib: dict[str, int] = field(default_factory=dict)  # the most that each node's process has had
    masters: dict[int, str] = field(default_factory=dict)  # who was open in each epoch
    outcomes: Counter[str] = field(default_factory=Counter)
    acknowledged_at: list[float] = field(default_factory=list)  # of those that are safe, by the loop's clock

    def acknowledged(self, message_id: str, offset: int, *, by_majority: bool, now: float) -> None:
        self.outcomes["acknowledged by a majority" if by_majority else "acknowledged by less"] += 1
        if not by_majority:
            self.weak.add(message_id)
            return
        self.safe[message_id] = offset
        self.acknowledged_at.append(now)

    def failed(self, message_id: str, error: ServiceError) -> None:
        """A post ended with an error, after all the tries that the library gave it."""
        self.outcomes[f"{error.code} {error.name}, applied={error.applied.value}"] += 1
        (self.refused if error.applied is Applied.NO else self.unknown).add(message_id)

    def read(self, offset: int, message_id: str) -> None:
        """A read at level committed."""
        if self.seen.setdefault(offset, message_id) != message_id:
            raise Violation(f"offset {offset} was read as {self.seen[offset]}, and then as {message_id}")

    def status(self, node: str, *, epoch: int, commit_size: int, is_open: bool, rss_mib: int = 0) -> None:
        """What a node said of itself."""
        self.rss_mib[node] = max(rss_mib, self.rss_mib.get(node, 0))
        if rss_mib > RSS_MIB:
            raise Violation(f"{node} has {rss_mib} MiB of memory")
        if commit_size < self.commit_sizes.get(node, 0):
            raise Violation(f"the commit size of {node} fell from {self.commit_sizes[node]} to {commit_size}")
        self.commit_sizes[node] = commit_size
        if is_open and self.masters.setdefault(epoch, node) != node:
            raise Violation(f"{self.masters[epoch]} and {node} were both open in epoch {epoch}")

    def judge(self, logs: Logs) -> None:
        """Every node's whole log, when all faults are over. Raises Violation."""
        first, *others = logs
        for other in others:
            if logs[other] != logs[first]:
                at = next(i for i, (a, b) in enumerate(zip(logs[first], logs[other], strict=False)) if a != b)
                raise Violation(f"{first} and {other} differ at offset {at}")
        ids = logs[first]
        place = {message_id: offset for offset, message_id in enumerate(ids)}
        if len(place) != len(ids):
            twice = [message_id for message_id, times in Counter(ids).items() if times > 1]
            raise Violation(f"ids that stand in the log more than once: {twice[:5]}")
        lost = {each: (at, place.get(each)) for each, at in self.safe.items() if place.get(each) != at}
        if lost:
            raise Violation(f"{len(lost)} acknowledged messages are lost or moved, {dict(list(lost.items())[:5])}")
        there = [each for each in self.refused if each in place]
        if there:
            raise Violation(f"{len(there)} messages that were refused are in the log: {there[:5]}")
        taken_back = [at for at, each in self.seen.items() if at >= len(ids) or ids[at] != each]
        if taken_back:
            raise Violation(f"{len(taken_back)} records that were read are not there any more: {taken_back[:5]}")
        known = self.safe.keys() | self.weak | self.unknown
        strange = [each for each in ids if each not in known and not each.startswith("replicad:")]
        if strange:
            raise Violation(f"{len(strange)} records that nobody posted: {strange[:5]}")

    def longest_gap_s(self, since: float, until: float) -> float:
        """The longest time without an acknowledgement by a majority, between the last before and the first after."""
        before = max((at for at in self.acknowledged_at if at < since), default=since)
        after = min((at for at in self.acknowledged_at if at > until), default=until)
        times = [before, *(at for at in self.acknowledged_at if since <= at <= until), after]
        return max((later - earlier for earlier, later in pairwise(times)), default=0.0)
