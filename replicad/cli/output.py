"""Everything that goes to standard output, in its two forms: text and json.

Owns the forms of records and results, escaping, and what a closed output means. Must not know where records come from.

Text into a pipe is for grep and cut: a record a line, its fields parted by tabs, in the order of RECORD_FIELDS. Text on
a terminal has the same without tabs, with colours, ids last. Nothing is ever wrapped, cut or read as markup.
"""

from __future__ import annotations

import errno
import os
import sys
from binascii import b2a_base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from replicad.cli.errors import Failure, to_json
from replicad.cli.options import Session
from replicad.errors import ExitCode

if TYPE_CHECKING:  # the client brings gRPC along, which whoever verifies a folder need not wait for
    from replicad.client import Posted, Record

RECORD_FIELDS = ("offset", "time", "state", "id", "author", "headers", "payload")

COMMA, EQUALS = r"\x2c", r"\x3d"  # as printf %b reads them

ENCRYPTED = "(encrypted) "

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_JOINERS = "\u200c\u200d"  # invisible, but words and emoji of many scripts fall apart without them
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\"}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FLAG = {True: "true", False: "false"}


class OutputClosed(Exception):
    """Whoever reads standard output has gone: ``list | head``. No error."""


class Output:
    """Standard output. Raises OutputClosed, or Failure when it cannot be written."""

    def __init__(self, session: Session, stream: TextIO | None = None) -> None:
        self.json = session.json
        self._stream = sys.stdout if stream is None else stream
        self.terminal = not self.json and self._stream.isatty()
        self._color = self.terminal and wants_color()
        self._author_width = 0

    def show(self, text: str, fields: Mapping[str, object]) -> None:
        """A result: a line of text, or its fields as an object."""
        self.write(f"{to_json(fields) if self.json else text}\n")

    def tell(self, text: str, fields: Mapping[str, object], *, done: str, remedy: str = "") -> None:
        """The result of a deed, at once: where it can't be written, the Failure says also that it is ``done``."""
        try:
            self.show(text, fields)
            self.flush()
        except Failure as failure:
            raise failure.but(done, remedy) from None

    def records(self, records: Iterable[Record], *, flush: bool = False) -> None:
        """Records, one a line."""
        render: Callable[[Record], str] = (
            record_json if self.json else self._record_pretty if self.terminal else record_text
        )
        self.write("".join([f"{render(record)}\n" for record in records]), flush=flush)

    def write(self, text: str, *, flush: bool = False) -> None:
        try:
            self._stream.write(text)
            if flush:
                self._stream.flush()
        except OSError as exc:
            raise _output_error(exc) from exc

    def flush(self) -> None:
        """Let the reader have what was written so far."""
        self.write("", flush=True)

    def style(self, text: str, *, fg: str | None = None, bold: bool | None = None, dim: bool | None = None) -> str:
        """The text in that style, where there is colour."""
        return click.style(text, fg=fg, bold=bold, dim=dim) if self._color else text

    def _record_pretty(self, record: Record) -> str:
        """A record for a person: what was said first, its id after it."""
        author = escape_text(record.author)
        self._author_width = max(self._author_width, len(author))
        payload = payload_text(record)
        if record.encrypted and not record.decrypted:
            payload = self.style(payload, fg="yellow")
        elif record.is_system and not payload:
            payload = self.style(f"(epoch {record.epoch} begins)", dim=True)
        parts = [
            self.style(f"{record.offset:>6}", fg="cyan"),
            self.style(time_text(record.time_ms).replace("T", " ").removesuffix("Z"), dim=True),
            self.style(f"{author:<{self._author_width}}", fg="green"),
            payload,
        ]
        if record.headers:
            parts.append(self.style(headers_text(record.headers), fg="blue"))
        if not record.committed:
            parts.append(self.style("(not committed yet)", fg="yellow"))
        parts.append(self.style(record.id, dim=True))
        return "  ".join(parts)


def record_text(record: Record) -> str:
    """A record as a line of RECORD_FIELDS parted by tabs."""
    return "\t".join(
        (
            str(record.offset),
            time_text(record.time_ms),
            "committed" if record.committed else "uncommitted",
            record.id,
            escape_text(record.author),
            headers_text(record.headers) if record.headers else "-",
            payload_text(record),
        )
    )


def payload_text(record: Record) -> str:
    """The payload on one line; ciphertext says that it is."""
    text = escape_payload(record.payload)
    return f"{ENCRYPTED}{text}" if record.encrypted and not record.decrypted else text


def record_json(record: Record) -> str:
    """A record as an object."""
    # Put together by hand: a list of a million takes half the time of a dict each.
    text = record.text
    text_field = "" if text is None else f',"text":{to_json(text)}'
    headers = to_json(dict(record.headers)) if record.headers else "{}"
    return (
        f'{{"offset":{record.offset},"epoch":{record.epoch},"time":"{time_text(record.time_ms)}",'
        f'"id":{to_json(record.id)},"author":{to_json(record.author)},"headers":{headers},'
        f'"committed":{_FLAG[record.committed]},'
        f'"encrypted":{_FLAG[record.encrypted]},"decrypted":{_FLAG[record.decrypted]},'
        f'"payload":"{b2a_base64(record.payload, newline=False).decode()}"{text_field}}}'
    )


def posted_fields(posted: Posted) -> dict[str, object]:
    """What json says of a message that is in the log."""
    return {
        "code": 409 if posted.duplicate else 200,
        "name": "DUPLICATE_RECEIVED" if posted.duplicate else "OK",
        "id": posted.id,
        "offset": posted.offset,
        "duplicate": posted.duplicate,
        "nodes": posted.nodes,
    }


def posted_text(posted: Posted) -> str:
    """A message that is in the log, as a line."""
    text = f"offset {posted.offset}  id {posted.id}  on {nodes_text(posted.nodes)}"
    return f"{text}  duplicate: it was in the log before, nothing was added" if posted.duplicate else text


def posted_json(results: Iterable[Posted]) -> str:
    """Messages that are in the log, a line each."""
    return "".join([f"{to_json(posted_fields(posted))}\n" for posted in results])


def nodes_text(count: int) -> str:
    return count_text(count, "node")


def count_text(count: int, what: str) -> str:
    """So many of what is named in the singular."""
    return f"1 {what}" if count == 1 else f"{count} {what}s"


@lru_cache(maxsize=16)  # the records of a batch have one time
def time_text(time_ms: int) -> str:
    """ISO 8601 UTC with ms."""
    try:
        moment = _EPOCH + timedelta(milliseconds=time_ms)
    except OverflowError:  # after the year 9999: a clock gone mad, which is no reason to hide the record
        return f"{time_ms}ms"
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ms % 1000:03}Z"


def headers_text(headers: Mapping[str, str]) -> str:
    """Headers as key=value, parted by commas: those of keys and values, and the ``=`` of keys, are escaped, so that
    two headers are never taken for one."""
    return ",".join(
        f"{_escape_comma(key).replace('=', EQUALS)}={_escape_comma(value)}" for key, value in headers.items()
    )


def _escape_comma(text: str) -> str:
    return escape_text(text).replace(",", COMMA)


def escape_payload(payload: bytes) -> str:
    """The payload on one line of harmless text. The ``printf %b`` of bash makes the payload of it again; that of dash,
    Debian's sh, knows no ``\\xHH``.

    What is not UTF-8 or not printable (control characters, also those that steer a terminal) is written as ``\\xHH``
    for each byte, or ``\\n``, ``\\r``, ``\\t``; a backslash is doubled.
    """
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        text = payload.decode(errors="surrogateescape")
    return escape_text(text)


def escape_text(text: str) -> str:
    """As :func:`escape_payload`, of text."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join([_escape(character) for character in text])


def _escape(character: str) -> str:
    short = _SHORT_ESCAPES.get(character)
    if short is not None:
        return short
    if character.isprintable() or character in _JOINERS:
        return character
    return "".join([f"\\x{byte:02x}" for byte in character.encode(errors="surrogateescape")])


def size_text(size_bytes: float) -> str:
    """Bytes for a person: 57 MiB."""
    for unit in ("B", "KiB", "MiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} GiB"


def columns_text(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned columns parted by two spaces; an empty cell is a dash, so that fields can be counted."""
    cells = [[cell or "-" for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in cells
    )


def wants_color() -> bool:
    """Whether a terminal is to get colours: https://no-color.org."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def stderr_is_terminal() -> bool:
    """Whether somebody watches standard error, so that progress may be shown there."""
    return sys.stderr.isatty()


def stand_in_for_standard_error() -> None:
    """Where it was closed by whoever started us (``2>&-``), what goes there is dropped.

    Nothing else may get its descriptor, and what is for it must not go to standard output, as print's would.
    """
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open to the end, as it is


def need_output() -> None:
    """Raises click.UsageError where standard output was closed by whoever started us (``>&-``).

    Nothing was done then: what was done could not be told.
    """
    if sys.stdout is None:
        raise click.UsageError("Standard output is closed; let it go to a file, or to /dev/null.")


def unwritten_page(exc: OSError) -> Exception:
    """What became of a page of --help: click prints it past Output, and other errors of this kind name their file."""
    return _output_error(exc) if exc.filename is None and exc.errno in _NO_ROOM else exc


def never_fail_to_encode() -> None:
    """What the terminal's encoding lacks is escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush_output() -> None:
    """Raises as :class:`Output` when what was written can't be delivered."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError as exc:
        abandon_output()
        raise _output_error(exc) from exc


def abandon_output() -> None:
    """Let what is in standard output's buffer go nowhere: the interpreter flushes at its end, and would complain."""
    if sys.stdout is None:
        return
    try:
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())
        os.close(descriptor)
    except (OSError, ValueError):  # a stream without a descriptor, in tests
        return


def _output_error(exc: OSError) -> Exception:
    if isinstance(exc, BrokenPipeError) or exc.errno == errno.EPIPE:
        return OutputClosed()
    return Failure(f"standard output cannot be written: {exc.strerror}", exit_code=ExitCode.STORAGE)
