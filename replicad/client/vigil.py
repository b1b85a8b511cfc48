"""A stream that says nothing: is its node still the master? Others are asked, and that node itself.

A post that waits for a node which is away makes a stream silent, too; so silence alone means nothing. Owns what the
answers mean. Must not know frames.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from replicad.client import methods
from replicad.client.connection import Connections
from replicad.errors import Forbidden, PeerError, ServiceError, Unauthorized
from replicad.wire.parsing import parse_peer
from replicad.wire.v1 import log_pb2

SILENCE_S = 1.0  # an answer at a majority takes a hundredth of it
MAX_PAUSE_S = 8.0  # between two looks at a node that answers others: within a caller's usual timeout there is one more
ASK_S = 1.0  # a node that is alive answers at once
BLIND_S = 5.0  # who may not ask how nodes are leaves a silent stream after so long, and posts again elsewhere
BLIND_WRITING_S = 15.0  # and this, while what it waits for is still on its way: 1 MiB at 70 KB/s


class MayNotAsk(Exception):
    """Our principal lacks the role reader."""


async def newer_master(connections: Connections, addresses: Iterable[str], silent: str) -> str:
    """The address of an open master of a higher epoch than the node at ``silent`` says it leads; "" for none.

    Raises MayNotAsk.
    """
    wanted = dict.fromkeys([silent, *addresses])
    answers = await asyncio.gather(*(_leads(connections, address) for address in wanted))
    epochs = dict(zip(wanted, answers, strict=True))
    own = epochs.pop(silent)
    best = max(epochs, key=lambda address: epochs[address], default=silent)
    return best if epochs.get(best, 0) > own else ""


async def _leads(connections: Connections, address: str) -> int:
    """The epoch of which the node there is the master, and open; 0 for none, or no answer."""
    try:
        data = await connections.to(address).call(methods.STATUS, b"", timeout_s=ASK_S)
        status = parse_peer(log_pb2.StatusResponse, data)
    except (Unauthorized, Forbidden) as exc:
        raise MayNotAsk from exc
    except (ServiceError, PeerError):
        return 0
    return status.epoch if (status.role, status.state) == ("master", "open") else 0
