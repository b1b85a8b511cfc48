"""Clients: posters that retry what they know nothing of, readers and tails on any node.

Owns what is posted and read, and when. Must not judge: what is read goes to the checker.
"""

from __future__ import annotations

from replicad.core.effects import FrameResult
from replicad.core.master import Master
from replicad.core.record import encode_headers
from replicad.errors import Applied, IdConflict
from tests.simulation.cluster import Cluster
from tests.simulation.history import Attempt, Message
from tests.simulation.node import Node

HEADERS = encode_headers({"kind": "simulated"})
FRAMES_UNDER_WAY = 3  # of one client


class Poster:
    """1. Every message is retried under its id until its outcome is known."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self._cluster, self._world = cluster, cluster.world
        self._number = number
        self._made = 0
        self._rising = self._world.chance(cluster.profile.rising_ids)
        self._known: list[Message] = []
        self._retry: list[Message] = []
        self._under_way = 0
        self._target = cluster.appointed
        self.stopped = False  # nothing new is posted any more, and every frame asks for a majority
        self._think()

    @property
    def idle(self) -> bool:
        return not self._under_way and not self._retry

    def finish(self, new: int) -> None:
        """Post so many new messages more, and have everything answered."""
        self.stopped = True
        self._retry += [self._message(self._new_id()) for _ in range(new)]

    def _think(self) -> None:
        self._world.after(self._world.around(self._cluster.profile.think_s), self._act)

    def _act(self) -> None:
        if self._under_way < FRAMES_UNDER_WAY and (self._retry or not self.stopped):
            self._post(self._compose())
        self._think()

    # --- what is posted ----------------------------------------------------------------------------

    def _compose(self) -> list[Message]:
        count = self._world.rng.randint(1, self._cluster.profile.frame_messages)
        return [self._next_message() for _ in range(count)]

    def _next_message(self) -> Message:
        world = self._world
        if self._retry and (self.stopped or world.chance(0.6)):
            return self._retry.pop(world.rng.randrange(len(self._retry)))
        if self._known and (self.stopped or world.chance(0.12)):
            known = world.rng.choice(self._known[-20:] if world.chance(0.7) else self._known)
            if self.stopped or world.chance(0.7):
                return known
            return self._message(known.id)  # other content
        return self._message(self._new_id())

    def _new_id(self) -> str:
        self._made += 1
        if self._rising:
            return f"{round(self._world.now * 1e6):012x}-{self._number}-{self._made}"
        return f"{self._world.rng.randrange(16**6):06x}-{self._number}-{self._made}"

    def _message(self, message_id: str) -> Message:
        payload = self._world.rng.randbytes(self._world.rng.choice((0, 8, 40)))
        headers = HEADERS if self._world.chance(0.2) else b""
        message = self._cluster.history.message((message_id, payload, headers))
        self._known.append(message)
        return message

    # --- how it is posted --------------------------------------------------------------------------

    def _post(self, messages: list[Message]) -> None:
        world, voters = self._world, len(self._cluster.members.voters)
        nodes = voters // 2 + 1 if self.stopped else world.rng.randint(1, voters)
        timeout_s = 5.0 if self.stopped else world.rng.choice((0.01, 0.1, 0.5))
        self._under_way += 1
        attempt = Attempt(messages, nodes, world.now + timeout_s)
        world.after(world.around(self._cluster.profile.network_s), self._at_gate, attempt)

    def _at_gate(self, attempt: Attempt) -> None:
        node = self._cluster.nodes[self._target]
        machine = node.machine
        if not isinstance(machine, Master) or attempt.nodes > machine.settings.voters:  # NOT_MASTER, BAD_REQUEST
            self._look_elsewhere()
            self._told(attempt, None, heard=True)
            return

        def told(result: FrameResult | None) -> None:
            heard = result is not None and (self.stopped or not self._world.chance(0.05))
            self._told(attempt, result, heard=heard)

        attempt.deadline = max(attempt.deadline, self._world.now)
        node.submit(attempt, told)

    def _look_elsewhere(self) -> None:
        names = list(self._cluster.nodes)
        self._target = self._cluster.appointed if self._world.chance(0.5) else self._world.rng.choice(names)

    def _told(self, attempt: Attempt, result: FrameResult | None, *, heard: bool) -> None:
        """Remember what is known now; what is not is posted again, under the same id."""
        self._under_way -= 1
        known: set[int] = set()
        if result is not None and heard:
            known = attempt.good | {
                index for index, error in result.errors if isinstance(error, IdConflict) or error.applied is Applied.YES
            }
        if len(known) < len(attempt.messages):
            self._look_elsewhere()
        waiting = {id(message) for message in self._retry}
        for index, message in enumerate(attempt.messages):
            if index in known:
                message.settled = True
            elif id(message) not in waiting and (self.stopped or self._world.chance(0.8)):
                waiting.add(id(message))
                self._retry.append(message)


class Tail:
    """Follows the committed log, on one node and then on another. Every record in order, none left out."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._world = cluster, cluster.world
        self._offset = 0
        self._node: Node | None = None
        self._wait()

    def _wait(self) -> None:
        self._world.after(self._world.around(0.05), self._look)

    def _look(self) -> None:
        self._wait()
        if self._node is None or self._node.machine is None or self._world.chance(0.1):
            running = self._cluster.running
            self._node = self._world.rng.choice(running) if running else None
        node = self._node
        if node is not None and node.machine is not None and not node.still:
            node.show_commit(lambda size: self._read(node, size))

    def _read(self, node: Node, commit_size: int) -> None:
        if node is not self._node or self._offset >= commit_size:
            return
        batches = node.platter.store.read(self._offset, max_bytes=200, until_offset=commit_size)
        self._offset = node.checker.read(node, batches, from_offset=self._offset, commit_size=commit_size)


class LinearizableReader:
    """Asks masters, old ones too, to confirm that they still are: who confirms has all that was committed before."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._world = cluster, cluster.world
        self._wait()

    def _wait(self) -> None:
        self._world.after(self._world.around(0.1), self._ask)

    def _ask(self) -> None:
        self._wait()
        masters = [node for node in self._cluster.running if node.is_master]
        if not masters:
            return
        node = self._world.rng.choice(masters)
        committed = self._cluster.checker.committed.size

        def confirmed(yes: bool) -> None:
            if yes and node.running.log.commit_size < committed:
                self._world.fail(
                    f"linearizable read: {node.name} confirms itself with commit size {node.running.log.commit_size}, "
                    f"{committed} were committed when it was asked"
                )

        node.confirm(confirmed)
