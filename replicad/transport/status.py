"""Status and Outcome: what a node knows of itself, of the others and of one id.

Owns how a node describes itself. Must not know how the answer is shown.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

from replicad import __version__
from replicad.config import Config
from replicad.core.effects import Content
from replicad.core.master import Master
from replicad.core.record import MAX_ID_BYTES, Leaf, parse_leaf
from replicad.core.worker import Worker
from replicad.errors import BadRequest, DamagedError, NotFound, Unavailable
from replicad.nodekeys import keys_of
from replicad.runtime import Runtime, read_contents, role_of
from replicad.transport.addresses import address_for_caller, address_of
from replicad.transport.calls import parse_request
from replicad.transport.reading import confirm_master
from replicad.wire.codec import decode_records
from replicad.wire.v1 import log_pb2 as pb

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Status:
    def __init__(
        self,
        runtime: Runtime,
        config: Config,
        *,
        key_id: Callable[[], str],
        health_of_disk: Callable[[], tuple[str, int]] = lambda: ("", 0),
        certificate_expires_ms: Callable[[], int] = lambda: 0,
    ) -> None:
        """``certificate_expires_ms`` is when this node's certificate ends; 0 without TLS."""
        self._runtime, self._config, self._key_id = runtime, config, key_id
        self._certificate_expires_ms, self._health_of_disk = certificate_expires_ms, health_of_disk
        self._started = time.monotonic()

    def configure(self, config: Config) -> None:
        """Go by ``config`` from the next call on."""
        self._config = config

    async def status(self, request: bytes, author: str) -> bytes:
        """The handler of Status."""
        del author
        parse_request(pb.StatusRequest, request)
        runtime, config, machine = self._runtime, self._config, self._runtime.machine
        log = machine.log
        commit_size = await runtime.visible_size("committed")
        size = log.stored_size
        root = log.known_root(size)
        if root is None:
            root = await runtime.read(lambda: runtime.store.root_at(size))
        master = machine.master if isinstance(machine, Worker) else config.node
        damage, scrubbed_ms = self._health_of_disk()
        return pb.StatusResponse(
            cluster=config.cluster,
            node=config.node,
            version=__version__,
            role=role_of(machine),
            state=machine.state.value,
            epoch=machine.epoch,
            size=size,
            commit_size=commit_size,
            root=root,
            master=master,
            master_address=address_of(config, master),
            uptime_ms=int((time.monotonic() - self._started) * 1000),
            rss_bytes=rss_bytes(),
            nodes=self._nodes(),
            commit_quorum=config.commit_quorum,
            detail=machine.detail,
            key_id=self._key_id(),
            certificate_expires_ms=self._certificate_expires_ms(),
            damage=damage,
            scrubbed_ms=scrubbed_ms,
        ).SerializeToString()

    def _nodes(self) -> list[pb.NodeStatus]:
        machine, config = self._runtime.machine, self._config
        nodes = []
        for node in config.nodes:
            keys = [pb.NodeKey(key_id=key.key_id, until=key.until) for key in keys_of(node)]
            address = address_for_caller(node)
            seen = pb.NodeStatus(name=node.name, address=address, role="worker", health="unknown", keys=keys)
            seen.no_vote = not node.voter
            if node.name == config.node:
                seen.role, seen.health, seen.size = role_of(machine), "self", machine.log.stored_size
            elif isinstance(machine, Master):
                worker = machine.workers[node.name]
                seen.health, seen.size, seen.detail = worker.health.value, worker.acked_size, worker.detail
                seen.lag = max(0, machine.log.stored_size - worker.acked_size)
            elif isinstance(machine, Worker) and node.name == machine.master:
                seen.role = "master"
            nodes.append(seen)
        return nodes

    async def outcome(self, request: bytes, author: str) -> bytes:
        """The handler of Outcome. NOT_FOUND, with ``master``, only from a master that a majority has confirmed: it has
        whatever was acknowledged, by whomever. That an id is not in another node's log says nothing."""
        del author
        message_id = parse_request(pb.OutcomeRequest, request).id
        if not (1 <= len(message_id) <= MAX_ID_BYTES and message_id.isascii() and message_id.isprintable()):
            raise BadRequest(f"no record has such an id: 1 to {MAX_ID_BYTES} characters of printable ASCII")
        runtime, machine = self._runtime, self._runtime.machine
        offset = await self._offset(message_id)
        if offset is None:
            wait_s = self._config.timeouts.read_wait_s
            await confirm_master(runtime, self._config, f"whether id {message_id!r} is in the log", wait_s)
            machine = runtime.machine
            offset = await self._offset(message_id)  # it may have become the master meanwhile, with a longer log
        if offset is None:
            raise NotFound(f"id {message_id!r} is not in the log", master=self._config.node)
        committed = await runtime.visible_size("committed") > offset  # of the record that is there now
        leaf = await self._leaf(message_id, offset)
        nodes = machine.nodes_with(offset + 1) if isinstance(machine, Master) else 1
        return pb.OutcomeResponse(
            offset=offset, epoch=leaf.epoch, time_ms=leaf.time_ms, committed=committed, nodes=nodes
        ).SerializeToString()

    async def _offset(self, message_id: str) -> int | None:
        """Where the id stands on this node's disk, if it does; one that is on its way there is waited for."""
        runtime, machine = self._runtime, self._runtime.machine
        offset = machine.posts.ids.get(message_id) if isinstance(machine, Master) else None
        if offset is not None:
            wait_s = self._config.timeouts.read_wait_s
            if not await runtime.wait_for_size("local", offset + 1, wait_s):
                raise Unavailable(f"offset {offset} is not on this node's disk yet after {wait_s:g} s")
        found = await runtime.read(lambda: runtime.store.find_ids([message_id]))
        return found.get(message_id)

    async def _leaf(self, message_id: str, offset: int) -> Leaf:
        """The leaf of the record at which the id was found. Raises Unavailable: it can't be read, or a new master has
        had this node drop it meanwhile, and perhaps take another in its place."""
        runtime = self._runtime
        try:
            found = await runtime.disk.read(lambda: read_contents(runtime.store, [offset], decode_records))
        except DamagedError as exc:
            if offset < runtime.machine.log.stored_size:
                raise runtime.damaged(exc) from exc
        else:
            leaf = parse_leaf(cast("dict[int, Content]", found)[offset].leaf)
            if leaf.id == message_id:
                return leaf
        text = f"{self._config.node} has dropped records meanwhile that no majority had, {message_id!r} among them"
        raise Unavailable(f"{text}; ask the master")


def rss_bytes() -> int:
    """This process's resident memory, from /proc (proc_pid_statm(5)); 0 where there is none."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0
