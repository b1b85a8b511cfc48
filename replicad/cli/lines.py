"""``replicad-cli post --lines``: each line of a stream is a message, however many, however slowly they come.

Owns the lines' ids, what is known of each line, and the words by which a run that broke off is resumed. Must not know
the command's options.

Every line's id follows from the first one's: a UUID whose last 12 digits count up. So a run is resumed by posting the
same lines with the same first id, and the log tells what it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import time
import uuid
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack

import click

from replicad.cli.connect import make_client, run
from replicad.cli.errors import INTERRUPTED, Failure, Interrupted, input_failure, service_failure, smaller
from replicad.cli.options import Session
from replicad.cli.output import Output, posted_json, stderr_is_terminal
from replicad.cli.readiness import told_once
from replicad.client import AsyncClient, Encryption, NewMessage, Posted
from replicad.client.cutting import MAX_PAYLOAD_BYTES
from replicad.client.frames import FRAME_MESSAGES
from replicad.client.ids import PROCESS_IDS
from replicad.errors import Applied, BadRequest, ExitCode, IdConflict, ServiceError, TooLarge

READ_BYTES = 256 << 10  # at a time: some thousand lines, so that the work is by the line and not by the read
_COUNTER_MASK = (1 << 48) - 1

#: Errors that are about one message; any other is about the frame, or about none.
_OF_ONE_MESSAGE = (BadRequest, TooLarge, IdConflict)


def post_lines(
    session: Session,
    descriptor: int,
    *,
    first_id: str | None,
    headers: Mapping[str, str],
    write_concern: str | None,
    timeout_s: float,
    encryption: Encryption | None,
) -> None:
    """Post each line that can be read from ``descriptor``. Raises Failure, saying how far it got and how to go on."""
    posting = _Lines(LineIds(first_id), headers, write_concern=write_concern)
    output = Output(session)
    began = time.monotonic()

    async def work() -> None:
        async with make_client(session, timeout_s=timeout_s, encryption=encryption) as client:
            with ExitStack() as stack:
                progress: Callable[[int, int], None] | None = None
                if not session.json and stderr_is_terminal() and not os.isatty(descriptor):
                    from replicad.cli.progress import line_progress  # noqa: PLC0415 - rich costs a script 50 ms

                    progress = stack.enter_context(line_progress(descriptor))
                async for results in posting.post(client, descriptor):
                    if session.json:
                        output.write(posted_json(results), flush=True)
                    if progress is not None:
                        progress(posting.confirmed, posting.confirmed_bytes)

    try:
        run(work())
    except ServiceError as error:
        raise posting.failure(service_failure(error).of_post(error)) from error
    except Failure as failure:
        raise posting.failure(failure) from failure
    except Interrupted:
        applied = Applied.UNKNOWN if posting.has_begun else Applied.NO
        raise posting.failure(
            Failure("interrupted", exit_code=INTERRUPTED, name="INTERRUPTED", applied=applied)
        ) from None
    if not session.json:
        summary = posting.summary(time.monotonic() - began).rstrip()
        output.tell(summary, {}, done=f"all is done: {summary}")


class LineIds:
    """The ids of lines 1, 2, ...: UUIDs that count up from the first."""

    def __init__(self, first_id: str | None) -> None:
        self.first = PROCESS_IDS.one() if first_id is None else _checked_uuid(first_id)
        self._prefix, self._low = self.first[:24], int(self.first[24:], 16)

    def of(self, line: int, count: int = 1) -> list[str]:
        """The ids of ``count`` lines from ``line`` on."""
        prefix, low = self._prefix, self._low + line - 1
        return [f"{prefix}{each & _COUNTER_MASK:012x}" for each in range(low, low + count)]


class _Lines:
    """A run: lines are read, are under way, and are confirmed, in their order.

    1. ``_under_way`` holds the lines from ``confirmed`` + 1 on that were handed to the client.
    """

    def __init__(self, ids: LineIds, headers: Mapping[str, str], *, write_concern: str | None) -> None:
        self._ids = ids
        self._headers = headers or None
        self._write_concern = write_concern
        self._under_way: deque[NewMessage] = deque()
        self.confirmed = 0
        self.confirmed_bytes = 0
        self._duplicates = 0
        self._first_offset = -1
        self._last_offset = -1
        self._found_bad = False  # line confirmed + 1 is known to be the bad one, not only to be near it

    @property
    def has_begun(self) -> bool:
        """Whether a line was read, and may be in the log."""
        return bool(self.confirmed or self._under_way)

    async def post(self, client: AsyncClient, descriptor: int) -> AsyncIterator[list[Posted]]:
        """Post all lines; yields the results as they come. Raises ServiceError; Failure for a line without an end."""
        try:
            async for results in client.post_many(self._messages(descriptor), write_concern=self._write_concern):
                self._confirm(results)
                yield results
        except _OF_ONE_MESSAGE as error:
            found, culprit = await self._find_bad_line(client)
            self._confirm(found)
            yield found
            raise culprit or _bare(error) from error
        except ServiceError as error:
            raise _bare(error) from error

    async def _messages(self, descriptor: int) -> AsyncIterator[NewMessage]:
        line = 1
        headers, under_way = self._headers, self._under_way
        async for payloads in read_lines(descriptor):
            for payload, message_id in zip(payloads, self._ids.of(line, len(payloads)), strict=True):
                message = NewMessage(payload, message_id, headers)
                under_way.append(message)
                yield message
            line += len(payloads)

    def _confirm(self, results: Sequence[Posted]) -> None:
        if not results:
            return
        confirmed = [self._under_way.popleft() for _ in results]
        self.confirmed += len(confirmed)
        self.confirmed_bytes += sum([len(message.payload) for message in confirmed]) + len(confirmed)
        self._duplicates += sum([posted.duplicate for posted in results])
        offsets = [posted.offset for posted in results]
        self._first_offset = min(offsets) if self._first_offset < 0 else min(self._first_offset, *offsets)
        self._last_offset = max(self._last_offset, *offsets)

    async def _find_bad_line(self, client: AsyncClient) -> tuple[list[Posted], ServiceError | None]:
        """Post the lines of the frame that failed one by one, under their ids: the results up to the first that fails,
        and its error. Those that are in the log already are only asked for."""
        frame = list(self._under_way)[:FRAME_MESSAGES]
        outcomes = await asyncio.gather(
            *(
                client.post(message.payload, id=message.id, headers=self._headers, write_concern=self._write_concern)
                for message in frame
            ),
            return_exceptions=True,
        )
        found: list[Posted] = []
        for outcome in outcomes:
            if isinstance(outcome, Posted):
                found.append(outcome)
            elif isinstance(outcome, ServiceError):
                self._found_bad = True
                return found, outcome
            else:
                raise outcome
        return found, None

    def summary(self, seconds: float) -> str:
        """One line on a run that reached the end of its input."""
        if not self.confirmed:
            return "posted 0 lines\n"
        rate = self.confirmed / max(seconds, 0.001)
        duplicates = f"  {self._duplicates} duplicates" if self._duplicates else ""
        lines = "1 line" if self.confirmed == 1 else f"{self.confirmed} lines"
        return f"posted {lines}  offsets {self._first_offset} to {self._last_offset}{duplicates}  {rate:.0f} lines/s\n"

    def failure(self, failure: Failure) -> Failure:
        """The failure, saying also how far the run got and how to resume it."""
        line = self.confirmed + 1
        told = f"line {line}: {failure.message}; {self._known()}"
        is_partial = bool(self.confirmed or self._found_bad or failure.applied is not Applied.NO)
        if is_partial:
            told += "; later lines may be in the log too"
        return Failure(
            told,
            exit_code=failure.exit_code,
            name=failure.name,
            code=failure.code,
            applied=failure.applied,
            remedy=self._remedy(failure, is_partial=is_partial),
            facts=failure.facts
            | {
                "id": self._ids.of(line)[0],
                "line": line,
                "lines_confirmed": self.confirmed,
                "first_id": self._ids.first,
            },
        )

    def _remedy(self, failure: Failure, *, is_partial: bool) -> str:
        """``is_partial``: of the lines some may be in the log. What a line is refused for comes again as long as the
        line does; and as ids count the lines, none may be left out."""
        first, given = failure.remedy, f"--id {self._ids.first}"
        if failure.applied is Applied.NO:
            if failure.name == IdConflict.name:
                return "this is other input than was posted with that --id; leave --id out, or give the first input"
            if failure.name == TooLarge.name:
                shorter = smaller("make that line shorter", failure.message)
                return f"{shorter}; then run it again with {given}, no line left out"
            if failure.name == BadRequest.name:
                first = "correct that"
        if not is_partial:
            return first
        resume = f"run it again on the same input with {given}"
        return f"{first}; then {resume}" if first else resume

    def _known(self) -> str:
        if not self.confirmed:
            return "no line is confirmed"
        lines = "line 1 is" if self.confirmed == 1 else f"lines 1 to {self.confirmed} are"
        return f"{lines} confirmed, at offsets {self._first_offset} to {self._last_offset}"


async def read_lines(descriptor: int) -> AsyncGenerator[list[bytes], None]:
    """Lines without their line feeds, in lists as they can be read; a last line may lack its line feed.

    Raises Failure for a line longer than any log takes.
    """
    rest = b""
    parts: list[bytes] = []  # of a line whose end is not read yet: joined once, not at every read
    parts_bytes = 0
    async for chunk in read_chunks(descriptor):
        head, line_feed, tail = chunk.rpartition(b"\n")
        if not line_feed:
            parts.append(chunk)
            parts_bytes += len(chunk)
            if parts_bytes > MAX_PAYLOAD_BYTES:
                raise Failure(
                    f"a line is longer than {MAX_PAYLOAD_BYTES >> 20} MiB, which no log takes",
                    exit_code=ExitCode.USAGE,
                    name=TooLarge.name,
                    code=TooLarge.code,
                    applied=Applied.NO,
                )
            continue
        rest = b"".join([*parts, head])
        parts, parts_bytes = ([tail], len(tail)) if tail else ([], 0)
        yield rest.split(b"\n")
    if parts:
        yield [b"".join(parts)]


async def read_chunks(descriptor: int) -> AsyncIterator[bytes]:
    """What can be read, when it can be: waiting for a slow writer holds up nothing else and can be cancelled. Raises
    Failure where nothing can be read.

    The descriptor is left in the mode it is in: it may be a terminal that others use too.
    """
    while True:
        ready = asyncio.Event()
        with contextlib.suppress(PermissionError), told_once(descriptor, select.EPOLLIN, ready.set):
            await ready.wait()
        try:
            chunk = os.read(descriptor, READ_BYTES)
        except OSError as exc:
            raise input_failure(exc) from exc
        if not chunk:
            return
        yield chunk


def _checked_uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError as exc:
        raise click.UsageError(
            f"With --lines, --id is the first line's and must be a UUID, from which the others count up; {text!r} is "
            "not one (`uuidgen` makes one)."
        ) from exc


def _bare(error: ServiceError) -> ServiceError:
    """The error without what post_many adds to it: counts of messages, which we tell as lines."""
    cause = error.__cause__
    return cause if isinstance(cause, ServiceError) and type(cause) is type(error) else error
