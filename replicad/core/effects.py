"""What the machines decide: effects, which the runtime performs in their order, and events, which it feeds back.

The order is a contract: nothing is acknowledged before it is on disk, because the effect that acknowledges is only
given in answer to the event that says it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import NamedTuple

from replicad.core.batch import Append, Batch
from replicad.core.frames import MasterFrame, WorkerFrame
from replicad.core.keyring import Keyring
from replicad.core.record import Messages
from replicad.core.seal import Sealer
from replicad.core.settings import Settings
from replicad.core.start import EpochRecord
from replicad.core.tree import Tree
from replicad.errors import ServiceError

# --- effects ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StorePromise:
    """Have the promise on disk; answered by :class:`PromiseStored`."""

    epoch: int
    master: str


@dataclass(frozen=True, slots=True)
class StoreBatch:
    """Have the batch on disk; answered by :class:`Stored` (cumulative) or :class:`StoreFailed`."""

    append: Append
    commit_size: int


@dataclass(frozen=True, slots=True)
class Truncate:
    """Copy everything at ``size`` and beyond to quarantine, then drop it; answered by :class:`Truncated`."""

    size: int
    reason: str


@dataclass(frozen=True, slots=True)
class Send:
    peer: str
    frame: MasterFrame | WorkerFrame


@dataclass(frozen=True, slots=True)
class Hangup:
    """End the stream with this peer; what was sent before goes out first. The master's runtime dials again."""

    peer: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReadBatches:
    """Read whole batches from disk; answered by :class:`BatchesRead` with the same peer and session."""

    peer: str
    session: int
    from_offset: int
    until_offset: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class ReadRoot:
    """Read the root at a size that is on disk; answered by :class:`RootRead`."""

    peer: str
    session: int
    size: int


@dataclass(frozen=True, slots=True)
class FindIds:
    """Look ids up in the duplicate index on disk; answered by :class:`IdsFound`."""

    ticket: int
    ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class ReadContent:
    """Read records that are on disk, for comparing; answered by :class:`ContentRead`."""

    ticket: int
    offsets: Sequence[int]


@dataclass(frozen=True, slots=True)
class Run:
    """Messages first_index .. first_index+count-1 of a frame stand at first_offset and on."""

    first_index: int
    count: int
    first_offset: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class FrameResult:
    """1. Every message of the frame is in exactly one run or one error, unless ``error`` holds for all of them."""

    runs: Sequence[Run] = ()
    errors: Sequence[tuple[int, ServiceError]] = ()
    error: ServiceError | None = None
    nodes: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of a submitted frame, once."""

    ticket: int
    result: FrameResult


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A :class:`Confirm` is done: this was the master after it was asked, or why that is not known."""

    ticket: int
    error: ServiceError | None


@dataclass(frozen=True, slots=True)
class HandOverEnded:
    """A :class:`HandOver` is done: ``to`` has taken a higher epoch; or why this master goes on."""

    ticket: int
    to: str
    error: ServiceError | None = None


class Call(Enum):
    """Why a node asks to be the master."""

    BEGIN = "begin"  # the config says so, and this node has never promised an epoch
    RESUME = "resume"  # its last promise was to itself
    APPOINTED = "appointed"  # by an operator
    FORCED = "forced"  # by an operator, who accepts that data is lost
    HANDED_OVER = "handed-over"  # by the master


# The three effects after which this machine gets no event any more: another one takes its place, from what the disk
# has when all that was asked of it before is done.


@dataclass(frozen=True, slots=True)
class Stand:
    """Ask the voters whether this node may be the master: become a Candidate."""

    call: Call


@dataclass(frozen=True, slots=True)
class Lead:
    """Become the Master, in an epoch above this one."""

    above_epoch: int
    insists: bool  # by an operator's word: a voter that has promised an epoch to another is asked for a higher one
    forced: bool = False  # an operator accepts that data is lost


@dataclass(frozen=True, slots=True)
class Follow:
    """Become a Worker, with this epoch promised to that node where it is above what was promised before."""

    epoch: int
    master: str
    detail: str


class State(StrEnum):
    OPENING = "opening"  # master: asking, fencing, fetching a missing tail, first record not on W voters yet
    OPEN = "open"  # master: takes posts
    HANDING_OVER = "handing-over"  # master: takes no posts while another node becomes the master
    DEPOSED = "deposed"  # master: has learnt of a higher epoch; takes no posts
    READ_ONLY = "read-only"  # master: disk full
    WAITING = "waiting"  # worker: no master's stream
    FOLLOWING = "following"  # worker: a master's stream is up


@dataclass(frozen=True, slots=True)
class StateChanged:
    state: State
    detail: str


@dataclass(frozen=True, slots=True)
class Note:
    """A line for the log: one an event, never one a message."""

    level: str  # debug | info | warning | error
    event: str
    text: str
    fields: dict[str, object] = field(default_factory=dict)


Effect = (
    StorePromise
    | StoreBatch
    | Truncate
    | Send
    | Hangup
    | ReadBatches
    | ReadRoot
    | FindIds
    | ReadContent
    | Answer
    | Confirmed
    | HandOverEnded
    | Stand
    | Lead
    | Follow
    | StateChanged
    | Note
)

# --- events -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Submit:
    """A client's frame. The gate has validated it and resolved its write concern to a number of nodes."""

    ticket: int
    messages: Messages
    author: str
    nodes: int  # the write concern w
    deadline: float  # on the clock that `now` is read from


@dataclass(frozen=True, slots=True)
class Confirm:
    """A linearizable read wants to know that this still is the master; answered by :class:`Confirmed`."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Promote:
    """An operator wants this node to be the master; ``forced`` accepts that data is lost."""

    forced: bool = False


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why this node is not to become the master, unless an operator accepts that data is lost; "" for no reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class HandOver:
    """An operator wants another node to be the master; answered by :class:`HandOverEnded`."""

    ticket: int
    to: str  # "" for the worker that has most
    deadline: float


@dataclass(frozen=True, slots=True)
class PeerUp:
    """A stream to (master) or from (worker) this peer is up; a new one replaces the old."""

    peer: str


@dataclass(frozen=True, slots=True)
class PeerDown:
    peer: str
    reason: str


@dataclass(frozen=True, slots=True)
class FrameArrived:
    peer: str
    frame: MasterFrame | WorkerFrame


@dataclass(frozen=True, slots=True)
class PromiseStored:
    epoch: int


@dataclass(frozen=True, slots=True)
class Stored:
    """Everything below ``size`` is on disk."""

    size: int


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """Nothing beyond ``size`` was stored, and what was asked to be is forgotten; ``tree`` is the one on disk."""

    reason: str  # full | duplicate
    text: str
    size: int
    last_epoch: int
    epoch_record: EpochRecord | None
    tree: Tree


@dataclass(frozen=True, slots=True)
class Truncated:
    """The log is what ``tree`` is over, to the epoch record of ``last_epoch``."""

    tree: Tree
    last_epoch: int
    epoch_record: EpochRecord | None


@dataclass(frozen=True, slots=True)
class BatchesRead:
    peer: str
    session: int
    batches: Sequence[Batch]


@dataclass(frozen=True, slots=True)
class RootRead:
    peer: str
    session: int
    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class IdsFound:
    ticket: int
    offsets: dict[str, int]


@dataclass(frozen=True, slots=True)
class ReadFailed:
    """What FindIds or ReadContent asked for is damaged on the disk, and was not repaired in a while."""

    ticket: int
    text: str


class Content(NamedTuple):
    """What a record's content is compared by."""

    leaf: bytes
    salt: bytes


@dataclass(frozen=True, slots=True)
class ContentRead:
    ticket: int
    contents: dict[int, Content]  # by offset


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Reconfigured:
    """Other limits, timeouts and keys hold from now on; the cluster and its nodes are the same.

    1. The key of ``sealer`` is one that ``keyring`` believes at any offset.
    """

    settings: Settings
    keyring: Keyring
    sealer: Sealer | None = None  # None: a master goes on with the one that it has


Event = (
    Submit
    | Confirm
    | Promote
    | Unfit
    | ReadFailed
    | HandOver
    | PeerUp
    | PeerDown
    | FrameArrived
    | PromiseStored
    | Stored
    | StoreFailed
    | Truncated
    | BatchesRead
    | RootRead
    | IdsFound
    | ContentRead
    | Tick
    | Reconfigured
)
