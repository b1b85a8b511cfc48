"""What a master and its workers say to each other, as the core sees it; :mod:`replicad.wire.codec` knows the bytes.

Each class is one frame of proto/replicad/wire/v1/replication.proto, which tells what it means.
"""

from __future__ import annotations

from dataclasses import dataclass

from replicad.core.batch import Batch


@dataclass(frozen=True, slots=True)
class Hello:
    cluster: str
    master: str
    epoch: int


@dataclass(frozen=True, slots=True)
class RootQuery:
    size: int


@dataclass(frozen=True, slots=True)
class Align:
    size: int


@dataclass(frozen=True, slots=True)
class AppendBatch:
    batch: Batch
    commit_size: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    commit_size: int
    probe: int


@dataclass(frozen=True, slots=True)
class Fetch:
    from_offset: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Inquiry:
    cluster: str
    node: str


@dataclass(frozen=True, slots=True)
class TakeOver:
    epoch: int


@dataclass(frozen=True, slots=True)
class Standing:
    node: str
    promised_epoch: int
    promised_to: str
    last_epoch: int
    size: int
    leads: bool
    asks: bool = False


@dataclass(frozen=True, slots=True)
class Welcome:
    node: str
    last_epoch: int
    size: int
    root: bytes
    commit_size: int


@dataclass(frozen=True, slots=True)
class RootAnswer:
    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Aligned:
    size: int


@dataclass(frozen=True, slots=True)
class Ack:
    size: int
    probe: int


@dataclass(frozen=True, slots=True)
class Supply:
    batches: tuple[Batch, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Refused:
    reason: str
    text: str
    promised_epoch: int
    promised_to: str = ""


MasterFrame = Hello | RootQuery | Align | AppendBatch | Heartbeat | Fetch | Inquiry | TakeOver
WorkerFrame = Welcome | RootAnswer | Aligned | Ack | Supply | Refused | Standing
