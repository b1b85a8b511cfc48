"""A simulated cluster: its nodes, who is to be master, and what an operator does: start, move the master, repair.

Owns the operator's will. Must not know what clients do or which faults happen.
"""

from __future__ import annotations

import math

from replicad.core.effects import Promote, State
from replicad.core.master import Master
from replicad.core.settings import Settings
from replicad.core.start import StoreState
from tests.simulation.history import History
from tests.simulation.invariants import Checker
from tests.simulation.keys import Keys
from tests.simulation.members import Members
from tests.simulation.network import Network
from tests.simulation.node import Node
from tests.simulation.profile import Profile
from tests.simulation.world import World

CLUSTER = "simulated"
SLOWEST_DISK_S = 0.05  # with a slower one a run would be about nothing else


class Cluster:
    """1. ``appointed`` is the node that the operator means to be master; the first begins as one, by its config."""

    def __init__(self, world: World, profile: Profile) -> None:
        self.world, self.profile = world, profile
        self.history = History()
        self.checker = Checker(world, self.history, voters=profile.nodes, same_lists=not profile.changes_nodes)
        self.network = Network(world, profile)
        names = [f"node-{number}" for number in range(1, profile.nodes + profile.spare_nodes + 1)]
        self.name = CLUSTER
        self.keys = Keys(self, names)
        self.nodes = {name: Node(self, name) for name in names}
        self.disk_s = {name: self._disk_s() for name in names}
        self.appointed = names[0]
        self.members = Members(self, names, profile.nodes)
        self.calm = False  # no more changes by the operator

    def _disk_s(self) -> float:
        profile = self.profile
        return min(SLOWEST_DISK_S, profile.disk_s * math.pow(profile.uneven, self.world.between(-1.0, 1.0)))

    def settings(self, name: str, *, again: Settings | None = None) -> Settings:
        """Small limits and short times, so that all of them matter within seconds; ``again``: those of a process that
        runs, whose list of nodes stays."""
        if again is not None:
            return again
        profile, votes = self.profile, self.members.knows(name)
        return Settings(
            cluster=CLUSTER,
            node=name,
            workers=tuple(other for other in votes if other != name),
            non_voters=frozenset(each for each, vote in votes.items() if not vote),
            min_nodes=profile.min_nodes,
            batch_bytes=400,
            batch_records=profile.batch_records,
            window_bytes=profile.window_bytes,
            read_bytes=profile.read_bytes,
            cache_bytes=profile.cache_bytes,
            recent_ids=profile.recent_ids,
            waiting_frames=profile.waiting_frames,
            heartbeat_s=0.05,
            suspect_s=0.15,
            unhealthy_s=0.4,
            announce_s=0.005,
            unstored_batches=profile.unstored_batches,
            retry_store_s=0.05,
        )

    def loaded(self, node: Node) -> StoreState:
        """What a starting process reads from its disk."""
        return node.platter.store.load()

    def start(self, name: str) -> None:
        """Start a node that is not running, in the role that the operator gave it."""
        node = self.nodes[name]
        self.members.read(name)
        if node.machine is None and self.members.knows(name):
            node.start(configured_master=name == next(iter(self.nodes)))

    def restart(self, name: str) -> None:
        self.nodes[name].crash()
        self.start(name)

    def move_master(self, name: str, *, by_the_old: bool) -> None:
        """Make another node the master: the one that is open hands over, or nobody asks it."""
        old, self.appointed = self.master, name
        self.members.appoint(name)
        self.checker.called(name)
        self.world.log("operator", "MAKES", name, "master", "by a switchover" if by_the_old and old else "")
        if self.nodes[name].machine is None or self.members.is_stale(name, self.nodes[name].running.settings):
            self.restart(name)
        if by_the_old and old is not None:
            old.hand_over(name)
        else:
            self.nodes[name].happen(Promote())

    @property
    def running(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.machine is not None]

    @property
    def master(self) -> Node | None:
        """The node that is open; of two that believe it the newer one."""
        masters = [
            node for node in self.running if isinstance(node.machine, Master) and node.machine.state is State.OPEN
        ]
        return max(masters, key=lambda node: node.running.epoch, default=None)

    def repair(self, *, but: frozenset[str] = frozenset()) -> None:
        """What an operator does after the storm: every node runs, with room on its disk; but some."""
        self.calm = True
        self.network.heal()
        self.keys.finish()
        if self.profile.changes_nodes:
            self.members.include_all()
        for stream in list(self.network.streams.values()):
            if not self.profile.honest:
                stream.lose("the nasty network is over")
        for name, node in self.nodes.items():
            node.platter.full_until = 0.0
            if name in but:
                node.crash()
                continue
            node.wake_up()
            stale = node.machine is not None and self.members.is_stale(name, node.machine.settings)
            if node.machine is None or stale:
                self.restart(name)

    def tend(self) -> None:
        """Where no node is open for long, the operator says which one is to be."""
        if self.master is None:
            self.move_master(self.appointed, by_the_old=False)

    def level(self, *, but: frozenset[str] = frozenset()) -> bool:
        """Whether the master is open, and all nodes (but some) have all that it has and know that it is committed."""
        master = self.master
        if master is None or any(node.unanswered for node in self.running):
            return False
        tip = master.running.log.tip
        return all(
            node.machine is not None
            and node.machine.log.stored_size == tip == node.machine.log.tip
            and node.machine.log.commit_size == tip
            for name, node in self.nodes.items()
            if name not in but
        )
