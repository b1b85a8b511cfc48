"""The whole exception tree. Owns the status codes, what each says about the message, and the exit codes.

Imports nothing of ours.

The tree is split by who must act: the operator (:class:`OperatorError`), a peer (:class:`PeerError`), the machine's
storage (:class:`StorageError`), the caller of the service (:class:`ServiceError`), or we ourselves
(:class:`InvariantError`). The service errors are the same classes on both sides of the wire: the server raises them,
the codec turns them into a gRPC status with an ``ErrorDetail``, and the client library raises the same class again.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Any, ClassVar


class Applied(StrEnum):
    """What an error says about the message that was posted."""

    NO = "no"  # it is not in the log and never will be by this post
    YES = "yes"  # it is in the master's log, for good once a majority has it; the write concern was not met in time
    UNKNOWN = "unknown"  # ask Outcome(id), or post the same id again
    NOT_A_POST = "-"


class ExitCode(IntEnum):
    """Exit codes of ``replicad`` and ``replicad-cli``, by who must act."""

    OK = 0
    FAILED = 1  # a bug of ours, or the server's INTERNAL
    USAGE = 2  # the command line or the request is wrong
    CONFIG = 3  # config, key file or data folder: the operator's to mend
    DENIED = 4  # no or wrong credentials, or a missing role
    NOT_FOUND = 5
    CONFLICT = 6  # the id is taken by another message
    TRY_AGAIN = 7  # nothing was applied: not the master, unavailable, rate limited, disk full
    CONCERN_TIMEOUT = 8  # applied, but not on as many nodes as asked within the timeout
    UNKNOWN_OUTCOME = 9  # the connection was lost and it is not known whether it was applied
    VERIFY_FAILED = 10  # a log does not prove, be it a folder's or a backup's, or is damaged so that none can be read
    STORAGE = 11  # the disk failed or is damaged


class ReplicadError(Exception):
    """Base of everything replicad raises on purpose."""

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED

    def __reduce__(self) -> tuple[Any, ...]:
        """Between processes an error travels as a pickle, which would call __init__ with its text alone."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[ReplicadError], args: tuple[object, ...], facts: dict[str, object]) -> ReplicadError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(facts)
    return error


class InvariantError(ReplicadError):
    """A promise of our own is broken: a bug. The node stops, also under ``python -O``."""


def invariant(condition: bool, text: str) -> None:
    """Stop the node when one of our own invariants does not hold."""
    if not condition:
        raise InvariantError(text)


# --- the operator's to mend -------------------------------------------------------------------------------------


class OperatorError(ReplicadError):
    """Config, keys or the data folder need a person."""

    exit_code = ExitCode.CONFIG


class ConfigError(OperatorError):
    """Every fault of a config at once, each a line with its path, its line number and the remedy."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class KeyFileError(OperatorError):
    """A key is missing, unreadable, malformed or too widely readable."""


class DataFolderError(OperatorError):
    """The data folder is in use by another daemon, of another cluster or node, or of a schema we do not know."""


# --- a peer's fault ---------------------------------------------------------------------------------------------


class PeerError(ReplicadError):
    """A peer sent what fails a check; nothing was changed by it, and the stream ends with this reason."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason  # a stable word for logs and tests: signature, epoch, gap, root, duplicate, ...


# --- the machine's storage --------------------------------------------------------------------------------------


class StorageError(ReplicadError):
    """Base of what the disk did to us."""

    exit_code = ExitCode.STORAGE


class DiskFullError(StorageError):
    """No room (ENOSPC); the transaction did not happen. Reads go on, and writes again when there is room."""


class DiskFailedError(StorageError):
    """The disk failed (EIO on write or sync): what is on it is not known any more, so the node stops."""


class DamagedError(StorageError):
    """Stored bytes are not what was written."""

    def __init__(self, text: str, *, offset: int | None = None) -> None:
        super().__init__(text)
        self.offset = offset  # of the first record that can't be read; None where it lies in no record


class ForgottenError(DamagedError):
    """What a node has promised or acknowledged is not known any more; with it, it could vote against its own word."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text}: make this node anew, with an empty data folder and without a vote until it is level")


class DuplicateIdError(StorageError):
    """An append holds an id that the log has already; the transaction did not happen."""


# --- the service's answers --------------------------------------------------------------------------------------


class ServiceError(ReplicadError):
    """An error answer of the service; ``code``, ``name`` and ``applied`` are semantics, fixed for each class."""

    code: ClassVar[int] = 500
    name: ClassVar[str] = "INTERNAL_SERVER_ERROR"
    grpc_status: ClassVar[str] = "INTERNAL"
    applied: Applied = Applied.UNKNOWN

    def __init__(
        self,
        message: str = "",
        *,
        offset: int | None = None,
        nodes: int = 0,
        master: str = "",
        master_address: str = "",
        retry_after_s: float | None = None,
        id: str = "",
    ) -> None:
        super().__init__(message or self.name)
        self.message = message or self.name
        self.offset = offset  # where the record stands, when it is in the log
        self.nodes = nodes  # how many nodes have it on disk
        self.master = master  # name of the master, as the answering node knows it
        self.master_address = master_address
        self.retry_after_s = retry_after_s
        self.id = id  # the message's, where the library raises this for a post; "" where it has made none yet


class BadRequest(ServiceError):
    code, name, grpc_status, applied = 400, "BAD_REQUEST", "INVALID_ARGUMENT", Applied.NO
    exit_code = ExitCode.USAGE


class Unauthorized(ServiceError):
    code, name, grpc_status, applied = 401, "UNAUTHORIZED", "UNAUTHENTICATED", Applied.NO
    exit_code = ExitCode.DENIED


class Forbidden(ServiceError):
    code, name, grpc_status, applied = 403, "FORBIDDEN", "PERMISSION_DENIED", Applied.NO
    exit_code = ExitCode.DENIED


class NotFound(ServiceError):
    code, name, grpc_status, applied = 404, "NOT_FOUND", "NOT_FOUND", Applied.NOT_A_POST
    exit_code = ExitCode.NOT_FOUND


class IdConflict(ServiceError):
    """The id stands in the log (at ``offset``) with other content."""

    code, name, grpc_status, applied = 409, "ID_CONFLICT", "ALREADY_EXISTS", Applied.NO
    exit_code = ExitCode.CONFLICT


class OffsetExpired(ServiceError):
    code, name, grpc_status, applied = 410, "OFFSET_EXPIRED", "OUT_OF_RANGE", Applied.NOT_A_POST
    exit_code = ExitCode.NOT_FOUND


class TooLarge(ServiceError):
    code, name, grpc_status, applied = 413, "TOO_LARGE", "INVALID_ARGUMENT", Applied.NO
    exit_code = ExitCode.USAGE


class NotMaster(ServiceError):
    """This node does not take posts; ``master`` and ``master_address`` name the one that does, where known."""

    code, name, grpc_status, applied = 421, "NOT_MASTER", "FAILED_PRECONDITION", Applied.NO
    exit_code = ExitCode.TRY_AGAIN


class RateLimited(ServiceError):
    code, name, grpc_status, applied = 429, "RATE_LIMITED", "RESOURCE_EXHAUSTED", Applied.NO
    exit_code = ExitCode.TRY_AGAIN


class InternalError(ServiceError):
    code, name, grpc_status, applied = 500, "INTERNAL_SERVER_ERROR", "INTERNAL", Applied.UNKNOWN


class Unavailable(ServiceError):
    code, name, grpc_status, applied = 503, "UNAVAILABLE", "UNAVAILABLE", Applied.NO
    exit_code = ExitCode.TRY_AGAIN


class WriteConcernTimeout(ServiceError):
    """The record is in the master's log at ``offset`` and on ``nodes`` nodes; the write concern was not met in time.

    It goes on being replicated, and stays for good once a majority has it; before that, another node may be promoted
    that lacks it (docs/semantics.md, "Posting").
    """

    code, name, grpc_status, applied = 504, "WRITE_CONCERN_TIMEOUT", "DEADLINE_EXCEEDED", Applied.YES
    exit_code = ExitCode.CONCERN_TIMEOUT


class StorageFull(ServiceError):
    code, name, grpc_status, applied = 507, "STORAGE_FULL", "RESOURCE_EXHAUSTED", Applied.NO
    exit_code = ExitCode.TRY_AGAIN


class OutcomeUnknown(ServiceError):
    """The caller's timeout passed with no answer: the message may or may not be in the log. Made by the client
    library, or by a master that stopped while the post was under way."""

    code, name, grpc_status, applied = 500, "OUTCOME_UNKNOWN", "INTERNAL", Applied.UNKNOWN
    exit_code = ExitCode.UNKNOWN_OUTCOME


#: Every service error by its name on the wire.
SERVICE_ERRORS: dict[str, type[ServiceError]] = {
    cls.name: cls
    for cls in (
        BadRequest,
        Unauthorized,
        Forbidden,
        NotFound,
        IdConflict,
        OffsetExpired,
        TooLarge,
        NotMaster,
        RateLimited,
        InternalError,
        Unavailable,
        WriteConcernTimeout,
        StorageFull,
        OutcomeUnknown,
    )
}
