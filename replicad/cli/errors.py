"""From an exception to what a person or a program reads on standard error, and to the exit code.

Owns the words: what happened, whether the message was applied, what to do. Must not know commands.
"""

from __future__ import annotations

import errno
import json
import re
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from replicad import tlserrors
from replicad.errors import (
    Applied,
    Forbidden,
    IdConflict,
    InvariantError,
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
from replicad.errors import ExitCode as Exit

if TYPE_CHECKING:  # the client brings gRPC along
    from replicad.client import Posted

INTERRUPTED = 130  # 128 + SIGINT, as a shell has it
CLOSED_OUTPUT = 141  # 128 + SIGPIPE: how `list | head` ends for any other program, and as silently

#: What `replicad-cli --help` says of each exit code.
EXIT_CODES: dict[int, str] = {
    Exit.OK: "done",
    Exit.FAILED: "a bug of ours, on this side or in the node",
    Exit.USAGE: "the command line or the request is wrong",
    Exit.CONFIG: "a config, key file or data folder needs a person",
    Exit.DENIED: "no or wrong credentials",
    Exit.NOT_FOUND: "no such id, or an offset that is not kept any more",
    Exit.CONFLICT: "the id is taken by a message with other content",
    Exit.TRY_AGAIN: "nothing was applied; no node could do it now",
    Exit.CONCERN_TIMEOUT: "applied, but not on as many nodes as asked in time",
    Exit.UNKNOWN_OUTCOME: "no answer: the message may have been applied",
    Exit.VERIFY_FAILED: "a data folder or a backup does not prove",
    Exit.STORAGE: "a disk failed, or what is on it is damaged",
    INTERRUPTED: "interrupted by Ctrl-C",
    CLOSED_OUTPUT: "standard output was closed by its reader (silent)",
}

_REMEDIES: dict[type[ReplicadError], str] = {
    Unauthorized: (
        "set AUTH_TOKEN in the environment to a token that the nodes know; a certificate counts at their mutual_address"
        " alone, and where their tokens_file has an entry with its name"
    ),
    Forbidden: "use a token that has the right to do this",
    NotFound: "check the id; posting under it is safe, now and again",
    OffsetExpired: "begin at a later offset",
    NotMaster: "give the master's address too, with --address or REPLICAD_ADDRESS",
    Unavailable: "check that the nodes run, and --address or REPLICAD_ADDRESS; then try again",
    RateLimited: "try again later, or post more slowly",
    StorageFull: "make room on the master's disk; it takes posts again by itself",
    PeerError: "read from another node, and look into the log of this one",
}

#: Exit codes by which a post is not in the log.
_NOTHING_APPLIED = (Exit.USAGE, Exit.DENIED, Exit.TRY_AGAIN)

#: What is not the path's fault.
_OF_DISKS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS)

#: As in "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to remote host: "
_GRPC_CONNECT = re.compile(
    r"failed to connect to all addresses; last error: [A-Z_]+: (?:\S+: )?(?:Failed to connect to remote host: )?"
)


#: The one form of results and errors: ASCII only, which fits any locale and harms no terminal.
to_json = json.JSONEncoder(separators=(",", ":")).encode


class Interrupted(Exception):
    """Ctrl-C, once the work has been called off. Click would tell of a KeyboardInterrupt itself."""


class Failure(Exception):
    """An error in full: what the user is told, and the exit code.

    1. ``code`` and ``name`` are those of docs/semantics.md; None and the exit code's name where no node was asked.
    2. ``facts`` are more fields for programs, by name.
    """

    def __init__(
        self,
        message: str,
        *,
        exit_code: int,
        name: str = "",
        code: int | None = None,
        applied: Applied = Applied.NOT_A_POST,
        remedy: str = "",
        facts: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.name = name or Exit(exit_code).name
        self.code = code
        self.applied = applied
        self.remedy = remedy
        self.facts = dict(facts or {})

    def of_post(self, error: ServiceError) -> Failure:
        """The same, of a post: what it says of the message, and no exit code by which nothing was applied when that is
        not known."""
        self.applied = error.applied
        if self.applied is Applied.UNKNOWN and self.exit_code in _NOTHING_APPLIED:
            self.exit_code = Exit.UNKNOWN_OUTCOME
        return self

    def but(self, done: str, remedy: str) -> Failure:
        """The same, of something that is done nonetheless."""
        self.message += f"; {done}"
        self.remedy = remedy
        return self

    def of_posted(self, posted: Posted) -> Failure:
        """The same, of a message that is in the log nonetheless."""
        self.applied = Applied.YES
        self.facts |= {"id": posted.id, "offset": posted.offset, "nodes": posted.nodes}
        return self

    def as_json(self) -> str:
        """One object on one line."""
        fields = {
            "code": self.code,
            "name": self.name,
            "applied": self.applied.value,
            "message": self.message,
            "remedy": self.remedy,
            "exit_code": int(self.exit_code),
            **self.facts,
        }
        return to_json(fields)

    def as_text(self) -> str:
        """Some lines: the error, whether the message was applied, what to do."""
        what = "" if self.code is None else f" ({self.code} {self.name})"
        lines = [f"error: {self.message}{what}"]
        if self.applied is not Applied.NOT_A_POST:
            lines.append(f"applied: {self.applied.value}{self._where()}")
        if self.remedy:
            lines.append(f"try: {self.remedy}")
        return "\n".join(lines)

    def _where(self) -> str:
        offset, nodes = self.facts.get("offset"), self.facts.get("nodes")
        if self.applied is not Applied.YES or offset is None:
            return ""
        return f", at offset {offset}" + (f", on {nodes} node{'' if nodes == 1 else 's'}" if nodes else "")


def input_failure(exc: OSError) -> Failure:
    """Standard input can't be read."""
    return Failure(
        f"standard input cannot be read: {exc.strerror}",
        exit_code=Exit.USAGE,
        applied=Applied.NO,
        remedy="let standard input come from a file or a pipe that can be read",
    )


def service_failure(error: ServiceError) -> Failure:
    """A service's error where nothing was posted: ``applied`` means nothing."""
    return Failure(
        plain(error.message),
        exit_code=error.exit_code,
        name=error.name,
        code=error.code,
        remedy=_remedy(error),
        facts=_facts(error),
    )


def post_failure(error: ServiceError, *, message_id: str) -> Failure:
    """A service's error for the post of ``message_id``."""
    failure = service_failure(error).of_post(error)
    failure.facts["id"] = message_id
    quoted = shlex.quote(message_id)
    again = f"--id {quoted}"
    if isinstance(error, WriteConcernTimeout):
        # Where another node is promoted before a majority has the record, it ends in a quarantine.
        failure.remedy = (
            "it goes on replicating, and stays for good once a majority has it; to wait for it, or to have it posted "
            f"anew should another master lack it, post the same message again with {again}"
        )
    elif isinstance(error, IdConflict) and error.applied is Applied.UNKNOWN:  # nor can the client's keys tell
        failure.remedy = (
            f"give every key that was in use, newest first, and post it again with {again}; "
            f"what has the id: replicad-cli list --from {error.offset} --limit 1"
        )
    elif isinstance(error, OutcomeUnknown) or error.applied is Applied.UNKNOWN:
        failure.remedy = f"replicad-cli outcome {quoted}, or post the same message again with {again}"
    elif isinstance(error, IdConflict):
        look = "" if error.offset is None else f"; what has it: replicad-cli list --from {error.offset} --limit 1"
        failure.remedy = f"post with another --id, or with none{look}"
    elif isinstance(error, TooLarge):
        failure.remedy = smaller("split the message", error.message)
    return failure


def interrupted_post(message_id: str) -> Failure:
    """Ctrl-C while the post of ``message_id`` was under way: its id, which may be known nowhere else, is told."""
    quoted = shlex.quote(message_id)
    return Failure(
        f"interrupted; the id is {message_id}",
        exit_code=INTERRUPTED,
        name="INTERRUPTED",
        applied=Applied.UNKNOWN,
        remedy=f"replicad-cli outcome {quoted}, or post the same message again with --id {quoted}",
        facts={"id": message_id},
    )


def smaller(remedy: str, message: str) -> str:
    """The remedy for a payload that is too large, as ``message`` says; beyond what no log takes no limit helps."""
    return remedy if "no log takes" in message else f"{remedy}, or raise limits.payload in every node's config"


def expected_failure(exc: BaseException) -> Failure | None:
    """What to tell of an exception that has its place here; None for one that nobody expected."""
    failure: Failure | None = None
    match exc:
        case Failure():
            failure = exc
        case ServiceError():
            failure = service_failure(exc)
        case PeerError():
            failure = Failure(f"a node's answer fails a check: {exc}", exit_code=Exit.FAILED, remedy=_remedy(exc))
        case ReplicadError() if not isinstance(exc, InvariantError):
            failure = Failure(str(exc), exit_code=exc.exit_code)
        case click.UsageError():
            help_page = f"{exc.ctx.command_path if exc.ctx else 'replicad-cli'} --help"
            failure = Failure(_on_one_line(exc).rstrip("."), exit_code=Exit.USAGE, remedy=help_page)
        case click.ClickException():
            failure = Failure(_on_one_line(exc), exit_code=Exit.USAGE)
        case OSError(filename=str(path)):
            failure = file_failure(exc, path)
        case OSError():
            failure = Failure(str(exc), exit_code=Exit.FAILED)
    return failure


def file_failure(exc: OSError, path: str) -> Failure:
    """What the system says of a file or folder."""
    if exc.errno in _OF_DISKS:
        return Failure(f"{path}: {exc.strerror}", exit_code=Exit.STORAGE)
    remedy = "name another path, or see what is there"
    if isinstance(exc, PermissionError):
        remedy = "do it as its owner or as root, or name another path"
    return Failure(f"{path}: {exc.strerror}", exit_code=Exit.CONFIG, remedy=remedy)


def _on_one_line(exc: click.ClickException) -> str:
    """Click has a line for each choice where none was made."""
    return re.sub(r"\s*\n\s*", " ", exc.format_message())


def plain(message: str) -> str:
    """The message without what gRPC tells of its inner life."""
    return _GRPC_CONNECT.sub("cannot be reached: ", message)


def unexpected_failure(exc: BaseException) -> Failure:
    """A bug of ours."""
    return Failure(
        f"this is a bug of ours: {type(exc).__name__}: {exc}",
        exit_code=Exit.FAILED,
        name="INTERNAL_ERROR",
        remedy="report it, with what stands above",
    )


def _remedy(error: ReplicadError) -> str:
    if isinstance(error, NotMaster) and error.master_address:
        return f"the master is {error.master} at {error.master_address}; give its address"
    if isinstance(error, RateLimited) and error.retry_after_s:
        return f"try again in {error.retry_after_s:g} s, or post more slowly"
    if isinstance(error, Unavailable):
        if error.master:
            return f"start {error.master}; if it is gone for good, replicad-cli promote another node"
        return tlserrors.remedy(error.message) or _REMEDIES[Unavailable]
    return _REMEDIES.get(type(error), "")


def _facts(error: ServiceError) -> dict[str, object]:
    known: dict[str, object] = {
        "offset": error.offset,
        "nodes": error.nodes or None,
        "master": error.master or None,
        "master_address": error.master_address or None,
        "retry_after_s": error.retry_after_s,
    }
    return {name: value for name, value in known.items() if value is not None}
