"""The faults of a profile, each at random times while the storm lasts. Owns when and whom, never what follows."""

from __future__ import annotations

from collections.abc import Callable

from tests.simulation.cluster import Cluster
from tests.simulation.profile import NEVER


class Storm:
    """Lets faults happen until :meth:`end`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._world = cluster, cluster.world
        self._over = False
        profile = cluster.profile
        self._every(profile.crash_every_s, self._crash)
        self._every(profile.break_every_s, self._break_stream)
        self._every(profile.stall_every_s, self._stall)
        self._every(profile.full_every_s, self._fill_disk)
        self._every(profile.pause_every_s, self._pause)
        self._every(profile.jump_every_s, self._jump)
        self._every(profile.rotate_every_s, cluster.keys.rotate)
        self._every(profile.change_every_s, cluster.members.change)
        self._every(profile.move_every_s if profile.nodes > 1 else NEVER, self._move)

    def end(self) -> None:
        self._over = True

    def _every(self, mean_s: float, fault: Callable[[], None]) -> None:
        def strike() -> None:
            if not self._over:
                fault()
                self._world.after(self._world.around(mean_s), strike)

        if mean_s != NEVER:
            self._world.after(self._world.around(mean_s), strike)

    def _any_name(self) -> str:
        return self._world.rng.choice(list(self._cluster.nodes))

    def _crash(self) -> None:
        """Kill a node, or several at once (power); they come back one by one."""
        victims = list(self._cluster.nodes) if self._world.chance(0.1) else [self._any_name()]
        for name in victims:
            self._cluster.nodes[name].crash()
            self._world.after(self._world.around(0.15), self._restart, name)

    def _restart(self, name: str) -> None:
        if not self._over:
            self._cluster.start(name)

    def _break_stream(self) -> None:
        streams = list(self._cluster.network.streams.values())
        if streams:
            stream = self._world.rng.choice(streams)
            self._world.log("fault", "BREAKS", stream.id, "to", stream.worker.name)
            stream.lose("connection reset")

    def _stall(self) -> None:
        """One direction between two nodes, both, or all from and to one node."""
        world, network = self._world, self._cluster.network
        one, other = self._any_name(), self._any_name()
        duration_s = world.around(0.3)
        world.log("fault", "STALLS", one, "and", other, "for", duration_s)
        network.stall(one, other, duration_s)
        if world.chance(0.5):
            network.stall(other, one, duration_s)
        if world.chance(0.2):
            for name in self._cluster.nodes:
                network.stall(one, name, duration_s)
                network.stall(name, one, duration_s)

    def _fill_disk(self) -> None:
        name, duration_s = self._any_name(), self._world.around(0.2)
        self._world.log("fault", "FILLS the disk of", name, "for", duration_s)
        self._cluster.nodes[name].platter.full_until = self._world.now + duration_s

    def _pause(self) -> None:
        self._cluster.nodes[self._any_name()].stand_still(self._world.around(0.3))

    def _jump(self) -> None:
        node = self._cluster.nodes[self._any_name()]
        node.skew_ms = self._world.rng.randint(-10_000, 10_000)

    def _move(self) -> None:
        members = self._cluster.members
        others = [name for name in members.wanted if name != self._cluster.appointed]
        if self._cluster.profile.changes_nodes:
            others = [name for name in others if members.may_be_master(name)]
        if not others:
            return
        name, by_the_old = self._world.rng.choice(others), self._world.chance(0.4)
        old = self._cluster.master
        if not by_the_old and old is not None and self._world.chance(0.7):
            duration_s = self._world.around(0.3)  # what makes an operator promote another node
            for one, other in ((old.name, name), (name, old.name)):
                self._cluster.network.stall(one, other, duration_s)
        self._cluster.move_master(name, by_the_old=by_the_old)
        left = [node.name for node in self._cluster.running if node.is_master and node.name != self._cluster.appointed]
        for name in left:
            self._world.after(self._world.around(0.3), self._remember, name)

    def _remember(self, name: str) -> None:
        """Somebody remembers the old master, which knows of nothing, and restarts it."""
        if name != self._cluster.appointed and self._cluster.nodes[name].is_master and not self._over:
            self._cluster.restart(name)
