"""The client library of replicad.

>>> async with AsyncClient("127.0.0.1:50052") as client:
...     posted = await client.post("hello", write_concern="majority")
...     async for record in client.list(from_offset=posted.offset):
...         print(record.offset, record.text)

:class:`Client` is the same for programs without asyncio, and :class:`Encryption` keeps payloads from the nodes' eyes.
Every error is of a class of its own; those of a post say in ``applied`` whether the message is in the log.
"""

from replicad.client.aio import AsyncClient
from replicad.client.encryption import Encryption
from replicad.client.sync import Client
from replicad.client.types import Leading, NewMessage, NodeKey, NodeStatus, Outcome, Posted, Record, Status
from replicad.errors import (
    Applied,
    BadRequest,
    ConfigError,
    Forbidden,
    IdConflict,
    InternalError,
    KeyFileError,
    NotFound,
    NotMaster,
    OffsetExpired,
    OutcomeUnknown,
    PeerError,
    RateLimited,
    ReplicadError,
    ServiceError,
    StorageFull,
    TooLarge,
    Unauthorized,
    Unavailable,
    WriteConcernTimeout,
)

__all__ = [
    "Applied",
    "AsyncClient",
    "BadRequest",
    "Client",
    "ConfigError",
    "Encryption",
    "Forbidden",
    "IdConflict",
    "InternalError",
    "KeyFileError",
    "Leading",
    "NewMessage",
    "NodeKey",
    "NodeStatus",
    "NotFound",
    "NotMaster",
    "OffsetExpired",
    "Outcome",
    "OutcomeUnknown",
    "PeerError",
    "Posted",
    "RateLimited",
    "Record",
    "ReplicadError",
    "ServiceError",
    "Status",
    "StorageFull",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "WriteConcernTimeout",
]
