"""What the machines need of the config, in their own words. Must not know the config's format."""

from __future__ import annotations

from dataclasses import dataclass

from replicad.core.voters import VoterList, commit_quorum, fence_quorum


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes in bytes, times in seconds."""

    cluster: str
    node: str
    workers: tuple[str, ...]  # every other node of the config
    non_voters: frozenset[str] = frozenset()  # those of all nodes that have no vote
    min_nodes: int = 1
    batch_bytes: int = 1 << 20
    batch_records: int = 8192
    window_bytes: int = 8 << 20
    read_bytes: int = 1 << 20  # asked of the disk at once for a worker that lags
    cache_bytes: int = 8 << 20  # newest batches in memory: a worker this far behind is not fed from disk
    recent_ids: int = 32_768  # ids in memory, about 200 bytes each
    waiting_frames: int = 100_000
    heartbeat_s: float = 0.5
    suspect_s: float = 2.0
    unhealthy_s: float = 10.0
    announce_s: float = 0.005  # a commit size that no batch has carried by then is told by itself
    unstored_batches: int = 2  # one being written, one ready to be: more would only cut batches smaller
    retry_store_s: float = 1.0  # after a full disk

    @property
    def voter_list(self) -> VoterList:
        """The nodes that have a vote."""
        return tuple(sorted({self.node, *self.workers} - self.non_voters))

    @property
    def voters(self) -> int:
        return len(self.workers) + 1 - len(self.non_voters)

    @property
    def commit_quorum(self) -> int:
        return commit_quorum(self.voters)

    @property
    def fence_quorum(self) -> int:
        return fence_quorum(self.voters)
