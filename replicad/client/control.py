"""Who is to be the master: promote and switchover, as calls. Needs the role admin.

Owns whom is called, and when that is done. Must not know who would be a good choice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from replicad.client import methods
from replicad.client.connection import Connections
from replicad.client.types import Leading, Status
from replicad.errors import NotMaster, ServiceError, Unavailable
from replicad.wire.parsing import parse_peer
from replicad.wire.v1 import control_pb2 as pb

GRACE_S = 2.0  # for the answer to a call that took all the time it was given
LOOK_AGAIN_S = 0.02  # an epoch opens in about this

MAX_MS = (1 << 32) - 1  # that a request can say: seven weeks

AskStatus = Callable[[str], Awaitable[Status]]


async def promote(
    connections: Connections, address: str, timeout_s: float, *, accept_data_loss: bool = False
) -> Leading:
    """The node at ``address``, once it is open."""
    asked = pb.PromoteRequest(timeout_ms=_ms(timeout_s), accept_data_loss=accept_data_loss)
    request = asked.SerializeToString()
    data = await connections.to(address).call(methods.PROMOTE, request, timeout_s=timeout_s + GRACE_S)
    response = parse_peer(pb.PromoteResponse, data)
    return Leading(response.node, address, response.epoch, response.size)


async def switchover(
    connections: Connections, address: str, to: str, timeout_s: float, *, ask_status: AskStatus
) -> Leading:
    """The new master, once it is open; ``address`` is that of the one there is."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    request = pb.SwitchoverRequest(to=to, timeout_ms=_ms(timeout_s)).SerializeToString()
    try:
        data = await connections.to(address).call(methods.SWITCHOVER, request, timeout_s=timeout_s + GRACE_S)
    except NotMaster as exc:  # it changed meanwhile; only the one that was meant may be told that it is done
        raise Unavailable(f"the master has changed meanwhile: {exc.message}") from exc
    master = parse_peer(pb.SwitchoverResponse, data).master
    new_address = next(node.address for node in (await ask_status(address)).nodes if node.name == master)
    why = f"{master} has taken over, and is not open yet"
    while loop.time() < deadline + GRACE_S:
        try:
            status = await ask_status(new_address)
        except ServiceError as exc:
            why = f"{master} has taken over, and does not answer: {exc.message}"
        else:
            if (status.role, status.state) == ("master", "open"):
                return Leading(master, new_address, status.epoch, status.size)
            why = f"{master} has taken over, and is {status.state}: {status.detail}"
        await asyncio.sleep(LOOK_AGAIN_S)
    raise Unavailable(why)


def _ms(timeout_s: float) -> int:
    return int(min(timeout_s * 1000, MAX_MS))
