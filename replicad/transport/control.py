"""Promote and Switchover: an operator says who is to be the master (docs/adr/0025).

Owns what is asked of this node, and when that is done. Must not decide who may be the master: the machines do.
"""

from __future__ import annotations

from replicad.config import Config
from replicad.core.effects import State
from replicad.core.worker import Worker
from replicad.errors import BadRequest, DiskFullError, NotMaster, Unavailable
from replicad.logs import Logger
from replicad.runtime import Runtime
from replicad.transport.addresses import address_of
from replicad.transport.calls import parse_request
from replicad.wire.v1 import control_pb2 as pb

DEFAULT_TIMEOUT_S = 10.0
MAX_TIMEOUT_S = 600.0


class Control:
    def __init__(self, runtime: Runtime, config: Config, *, log: Logger) -> None:
        self._runtime, self._config, self._log = runtime, config, log

    def configure(self, config: Config) -> None:
        """Go by ``config`` from the next call on."""
        self._config = config

    async def promote(self, request: bytes, author: str) -> bytes:
        """The handler of Promote. Asked again, it waits for what is under way, or says that it is done."""
        asked = parse_request(pb.PromoteRequest, request)
        timeout_s, forced = _timeout_s(asked.timeout_ms), asked.accept_data_loss
        runtime, config = self._runtime, self._config
        if not config.this_node.voter:
            raise BadRequest(f"{config.node} has no vote, and a master has one: see nodes in its config")
        if runtime.unfit and not forced and isinstance(runtime.machine, Worker):
            raise Unavailable(f"{config.node} is not to be the master: {runtime.unfit}; promote another node")
        if isinstance(runtime.machine, Worker):
            try:
                runtime.store.check_room()
            except DiskFullError as exc:
                raise Unavailable(f"{config.node} is not to be the master: {exc}; promote another node") from exc
        if runtime.machine.state is not State.OPEN:
            how = ", and accepts that data is lost" if forced else ""
            self._log.warning("promote", f"{author} wants {config.node} to be the master{how}", principal=author)
            was = runtime.machine
            runtime.promote(forced=forced)

            def ended() -> bool:
                machine = runtime.machine
                return machine.state is State.OPEN or (machine is not was and isinstance(machine, Worker))

            if not await runtime.wait_until(ended, timeout_s):
                raise Unavailable(
                    f"{config.node} is not open after {timeout_s:g} s, and goes on trying: {runtime.machine.detail}"
                )
        machine = runtime.machine
        if isinstance(machine, Worker):
            raise Unavailable(f"{config.node} is a worker as before: {machine.detail}")
        response = pb.PromoteResponse(node=config.node, epoch=machine.epoch, size=machine.log.stored_size)
        return response.SerializeToString()

    async def switchover(self, request: bytes, author: str) -> bytes:
        """The handler of Switchover. NOT_MASTER on any node but the master."""
        asked = parse_request(pb.SwitchoverRequest, request)
        runtime, config = self._runtime, self._config
        machine = runtime.machine
        if isinstance(machine, Worker):
            address = address_of(config, machine.master)
            raise NotMaster(f"{config.node} is a worker", master=machine.master, master_address=address)
        if asked.to == config.node:
            return pb.SwitchoverResponse(master=config.node).SerializeToString()
        if asked.to and all(asked.to != node.name for node in config.nodes):
            names = ", ".join(node.name for node in config.nodes)
            raise BadRequest(f"{asked.to!r} is no node of the cluster: {names}")
        self._log.warning("switchover", f"{author} wants {asked.to or 'a worker'} to be the master", principal=author)
        master = await runtime.hand_over(asked.to, _timeout_s(asked.timeout_ms))
        return pb.SwitchoverResponse(master=master).SerializeToString()


def _timeout_s(timeout_ms: int) -> float:
    return min(timeout_ms / 1000, MAX_TIMEOUT_S) or DEFAULT_TIMEOUT_S
