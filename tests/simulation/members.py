"""Who is in the cluster and who has a vote, as the operator's config says it, and as each node has read it.

Owns the changes of that list: nodes added, removed, swapped, with and without a vote, several at a time, whether or not
the one before ever took effect. Must not know what a machine makes of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.core.settings import Settings

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster

MOST_CHANGES = 12  # below the number of lists that an epoch may follow: whether that holds is a test of its own
AT_ONCE = 3
READ_S = 0.1  # mean time until a node is restarted for it

Votes = dict[str, bool]  # of every node in a config: whether it has one


class Members:
    """1. A process goes by the config that was there when it began. 2. The appointed master has a vote."""

    def __init__(self, cluster: Cluster, names: list[str], voters: int) -> None:
        self._cluster, self._world = cluster, cluster.world
        self._names = names  # all machines there are
        self.wanted: Votes = dict.fromkeys(names[:voters], True)
        self._read: dict[str, Votes] = {}
        self._changes = 0

    @property
    def voters(self) -> list[str]:
        """As the operator wants them now."""
        return [name for name, votes in self.wanted.items() if votes]

    def read(self, name: str) -> None:
        """A process begins; one that the config does not have any more finds the one it had."""
        if name in self.wanted:
            self._read[name] = dict(self.wanted)

    def knows(self, name: str) -> Votes:
        """The config that the node has; empty for a machine that was never in one."""
        return self._read.get(name) or (self.wanted if name in self.wanted else {})

    def is_stale(self, name: str, settings: Settings) -> bool:
        """Whether a process runs with another config than it would have after a restart."""
        others = {*settings.workers}
        return name in self.wanted and (
            others != self.wanted.keys() - {name} or settings.voter_list != tuple(sorted(self.voters))
        )

    def change(self) -> None:
        """The operator edits the config, and restarts this node and that for it; the master more often than not."""
        world, cluster = self._world, self._cluster
        others = [name for name in self._names if name != cluster.appointed]
        if self._changes >= MOST_CHANGES or not others or not cluster.checker.committed.size:
            return  # until a first list has taken effect there is none to go on from
        self._changes += 1
        for name in world.rng.sample(others, min(len(others), world.rng.randint(1, AT_ONCE))):
            self._put(name, world.rng.choice((True, True, False, None)))
        world.log("operator", "WANTS", dict(self.wanted))
        for name in self._names:
            if world.chance(0.8 if name == cluster.appointed else 0.5):
                world.after(world.around(READ_S), self._restart, name)

    def include_all(self) -> None:
        """What an operator does who is told that nodes are missed: all are in the config, with a vote or without."""
        for name in self._names:
            self._put(name, self.wanted.get(name, False))
        self._world.log("operator", "WANTS", dict(self.wanted))

    def appoint(self, name: str) -> None:
        """A master has a vote."""
        self._put(name, True)

    def may_be_master(self, name: str) -> bool:
        """A node that has nothing of the log knows of no list: no operator is to make it the master."""
        first = self._cluster.checker.committed.at(0)
        log = self._cluster.checker.logs.get(name)
        return first is not None and log is not None and log.at(0) == first

    def _put(self, name: str, vote: bool | None) -> None:
        """Into the config, in the order of names; or, for None, out of it."""
        votes = self.wanted | {name: vote}
        self.wanted = {each: votes[each] or False for each in self._names if votes.get(each) is not None}

    def _restart(self, name: str) -> None:
        if not self._cluster.calm:
            self._cluster.restart(name)
