"""Values that the codec hands out and that are nobody else's: a client's frame, and a record as a reader gets it.

Must not know bytes or protobuf.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from replicad.core.record import RESERVED_ID_PREFIX, Messages
from replicad.errors import ServiceError


@dataclass(frozen=True, slots=True)
class PostFrame:
    """Messages that a client posts together, all with one write concern."""

    sequence: int  # the client's name for the frame; its result carries it
    messages: Messages
    write_concern: str  # as the client wrote it; "" for the config's default
    timeout_ms: int  # 0 for the config's default


@dataclass(frozen=True, slots=True)
class PostRun:
    """Messages ``first_index`` onwards of a frame stand at ``first_offset`` onwards, ``count`` of them."""

    first_index: int
    count: int
    first_offset: int
    duplicate: bool  # they were in the log before


@dataclass(frozen=True, slots=True)
class PostFrameResult:
    """What became of a frame. Every message is in exactly one run or one error, or all of them are in ``error``."""

    sequence: int
    runs: tuple[PostRun, ...] = ()
    errors: tuple[tuple[int, ServiceError], ...] = ()  # by index of the message
    error: ServiceError | None = None
    nodes: int = 0  # nodes that had the records on disk when this was answered


class Record(NamedTuple):
    """A record as it stands in the log, or, where the client's encryption has a key that fits, as it was posted."""

    offset: int
    epoch: int
    time_ms: int  # ms since 1970 UTC, by the master's clock
    id: str
    author: str
    headers: Mapping[str, str]
    payload: bytes
    committed: bool  # False only at level local: it may yet be retracted
    encrypted: bool = False  # in the log it stands encrypted
    decrypted: bool = (
        False  # payload and headers are as they were before; else an encrypted one's payload is ciphertext
    )

    def __reduce__(self) -> tuple[Any, ...]:
        """Between processes a record travels as a pickle, and a view of headers that nobody can change has none."""
        return _restored, (*self[:5], dict(self.headers), *self[6:])

    @property
    def text(self) -> str | None:
        """The payload as text where it is UTF-8, else None. Ciphertext is no text."""
        if self.encrypted and not self.decrypted:
            return None
        try:
            return self.payload.decode("utf-8")
        except UnicodeDecodeError:
            return None

    @property
    def is_system(self) -> bool:
        """Whether the log itself wrote it (an epoch's first record), and no client."""
        return self.id.startswith(RESERVED_ID_PREFIX)


def _restored(*values: Any) -> Record:
    record = Record(*values)
    return record._replace(headers=MappingProxyType(record.headers))
