"""A simulated cluster: its nodes, who is to be master, and what an operator does: start, move the master, repair.

Owns the roles. Must not know what clients do or which faults happen.
"""

from __future__ import annotations

import math

from replicad.core.effects import State
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
    """1. ``appointed`` is the node that the operator means to be master; others that think so are left from before."""

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

    def settings(self, name: str) -> Settings:
        """Small limits and short times, so that all of them matter within seconds."""
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
            node.start(master=name == self.appointed)

    def restart(self, name: str) -> None:
        self.nodes[name].crash()
        self.start(name)

    def move_master(self, name: str, *, tell_the_old: bool) -> None:
        """Make another node the master. The old one becomes a worker now, or goes on until somebody restarts it."""
        old, self.appointed = self.appointed, name
        self.members.appoint(name)
        self.checker.moved = True
        self.world.log("operator", "MAKES", name, "master;", old, "is restarted" if tell_the_old else "goes on")
        if tell_the_old and self.nodes[old].machine is not None:
            self.restart(old)
        self.restart(name)

    @property
    def running(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.machine is not None]

    @property
    def master(self) -> Master | None:
        """The appointed master's machine, when it runs as such."""
        machine = self.nodes[self.appointed].machine
        return machine if isinstance(machine, Master) else None

    def repair(self, *, but: frozenset[str] = frozenset()) -> None:
        """What an operator does after the storm: every node runs in its role, with room on its disk; but some."""
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
            deposed = isinstance(node.machine, Master) and node.machine.state is State.DEPOSED
            stale = node.machine is not None and self.members.is_stale(name, node.machine.settings)
            if node.machine is None or deposed or stale or node.is_master != (name == self.appointed):
                self.restart(name)

    def tend(self) -> None:
        """A master that gave way, or that a worker refuses for a promise to another, needs an operator: a restart."""
        master = self.master
        if master is None:
            return
        promises = [log.promise for name, log in self.checker.logs.items() if self.nodes[name].machine is not None]
        refused = any(epoch >= master.epoch and name != self.appointed for epoch, name in promises)
        if refused:
            self.restart(self.appointed)

    def level(self, *, but: frozenset[str] = frozenset()) -> bool:
        """Whether the master is open, and all nodes (but some) have all that it has and know that it is committed."""
        master = self.master
        if master is None or master.state is not State.OPEN or self.nodes[self.appointed].unanswered:
            return False
        tip = master.log.tip
        return all(
            node.machine is not None
            and node.machine.log.stored_size == tip == node.machine.log.tip
            and node.machine.log.commit_size == tip
            for name, node in self.nodes.items()
            if name not in but
        )
